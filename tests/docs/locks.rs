//! The table of `docs/locks.md` is true: of the calls below each stage runs in a transaction of its own, and the strongest mode that
//! `pg_locks` then shows on each kind of table is the strongest that the table names.

use crate::common::{Cluster, Database, one, run, texts};
use crate::lock_page::{Held, MODES, NOTHING, promised, rows, strongest};
use postgres::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The rows that scenes have compared.
static COMPARED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The tables of a scene by what they are: oids stay when names swap.
struct Scene {
    database: Database,
    client: Client,
    roles: BTreeMap<u32, usize>,
    /// Rows that are not true.
    untrue: Vec<String>,
}

impl Scene {
    fn new(name: &str, setup: &[&str]) -> Scene {
        let database = Database::new(name);
        let mut client = database.connect();
        run(
            &mut client,
            &[
                "CREATE TABLE orgs (id int PRIMARY KEY)",
                "INSERT INTO orgs SELECT generate_series(1, 9)",
            ],
        );
        run(&mut client, setup);
        Scene {
            database,
            client,
            roles: BTreeMap::new(),
            untrue: vec![],
        }
    }

    /// A table with a foreign key out, and its pair as far as `setup` brings it.
    fn pair(name: &str, setup: &[&str]) -> Scene {
        let table = [
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, org int REFERENCES orgs, UNIQUE (id, at))",
            "INSERT INTO t SELECT g, date '2026-01-01' + g % 90, 1 FROM generate_series(1, 900) g",
        ];
        let mut scene = Scene::new(name, &table);
        run(&mut scene.client, setup);
        scene.learn("t", Some("t_partitioned"));
        scene
    }

    fn learn(&mut self, legacy: &str, twin: Option<&str>) {
        let twin = twin.unwrap_or(legacy);
        let rows = self
            .client
            .query(
                &format!(
                    "SELECT c.oid, CASE WHEN c.relname IN ('orgs', 'notes') THEN 2 WHEN c.oid = to_regclass('{legacy}') AND relkind = 'r' THEN 0 ELSE 1 END
                     FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
                       AND (c.relname IN ('orgs', 'notes', '{legacy}', '{twin}') OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass('{twin}'))))"
                ),
                &[],
            )
            .expect("the tables");
        for row in rows {
            self.roles
                .entry(row.get(0))
                .or_insert(usize::try_from(row.get::<_, i32>(1)).expect("a role"));
        }
    }

    /// The strongest lock of a backend on each kind of table. What is new since `learn` is no table that anybody uses.
    fn locks_of(&self, client: &mut Client, pid: &str) -> Held {
        let rows = client
            .query(
                &format!("SELECT relation, mode FROM pg_locks WHERE locktype = 'relation' AND granted AND pid = {pid}"),
                &[],
            )
            .expect("pg_locks");
        let mut held = [None; 3];
        for row in rows {
            if let Some(role) = self.roles.get(&row.get::<_, u32>(0)) {
                let mode: String = row.get(1);
                let strength = MODES.iter().position(|m| m.1 == mode);
                assert!(strength.is_some(), "{mode}");
                held[*role] = held[*role].max(strength);
            }
        }
        held.map(|strength| strength.map_or(NOTHING, |s| MODES[s].0))
    }

    /// Runs statements in a transaction that is committed, and says what it held at its end.
    fn held(&mut self, statements: &[&str]) -> Held {
        run(&mut self.client, &["BEGIN"]);
        run(&mut self.client, statements);
        let mut client = self.database.connect();
        let pid: i32 = one(&mut self.client, "SELECT pg_backend_pid()");
        let held = self.locks_of(&mut client, &pid.to_string());
        run(&mut self.client, &["COMMIT"]);
        held
    }

    fn expect(&mut self, rows: &[&str], statements: &[&str]) {
        let held = self.held(statements);
        self.compare(rows, held);
    }

    fn compare(&mut self, rows: &[&str], held: Held) {
        let promised = promised(rows);
        let mut compared = COMPARED.lock().expect("no scene panicked in here");
        compared.extend(rows.iter().map(|row| row.to_string()));
        drop(compared);
        if held != promised {
            self.untrue
                .push(format!("{rows:?}: the page says {promised:?}, pg_locks {held:?}"));
        }
    }

    fn end(self) {
        assert!(
            self.untrue.is_empty(),
            "docs/locks.md, by legacy, twin and referenced tables:\n{}",
            self.untrue.join("\n")
        );
    }

    /// The same for a step that is called until it says that nothing is left; before it says so, the stage that it is in.
    fn expect_steps(&mut self, step: &str, stage: &str, rows: &[(&str, &[&str])]) {
        let seen = self.steps(step, stage);
        for (stage, rows) in rows {
            let held = *seen
                .get(*stage)
                .unwrap_or_else(|| panic!("no stage {stage}: {seen:?}"));
            self.compare(rows, held);
        }
    }

    fn steps(&mut self, step: &str, stage: &str) -> BTreeMap<String, Held> {
        let mut seen: BTreeMap<String, [Option<usize>; 3]> = BTreeMap::new();
        let strength = |mode: &str| MODES.iter().position(|m| m.0 == mode);
        loop {
            let stage: String = one(&mut self.client, stage);
            let held = self.held(&[&format!(
                "CREATE TEMP TABLE step ON COMMIT PRESERVE ROWS AS SELECT {step} AS more"
            )]);
            let most = seen.entry(stage).or_default();
            for (most, mode) in most.iter_mut().zip(held) {
                *most = (*most).max(strength(mode));
            }
            let more: bool = one(&mut self.client, "SELECT more FROM step");
            run(&mut self.client, &["DROP TABLE step"]);
            if !more {
                break;
            }
        }
        seen.into_iter()
            .map(|(stage, held)| (stage, held.map(|s| s.map_or(NOTHING, |s| MODES[s].0))))
            .collect()
    }
}

fn the_way_to_a_live_pair() {
    let mut scene = Scene::pair("to_live", &[]);
    scene.expect(
        &["`preflight`, `plan`, dry runs"],
        &["SELECT * FROM partition_router.preflight('t', 'at')"],
    );
    scene.expect(
        &["`create_twin`"],
        &["SELECT partition_router.create_twin('t', 'at')"],
    );
    scene.learn("t", Some("t_partitioned"));
    scene.expect(&["`start_sync`"], &["SELECT partition_router.start_sync('t')"]);
    run(&mut scene.client, &["UPDATE t SET at = at + 1 WHERE id < 50"]);
    scene.expect_steps(
        "partition_router.backfill_step('t', 300)",
        "SELECT coalesce((SELECT stage FROM partition_router.copy_state), 'begin')",
        &[
            ("begin", &["`backfill`: begin"]),
            ("copy", &["`backfill`: copy"]),
            ("index", &["`backfill`: index"]),
            ("drain", &["`backfill`: drain"]),
            ("flip", &["`backfill`: flip"]),
            (
                "finish",
                &[
                    "`backfill`: finish, add keys",
                    "`backfill`: finish, prove keys, ANALYZE",
                ],
            ),
        ],
    );
    scene.expect(
        &["`verify`, `mismatches`"],
        &["SELECT * FROM partition_router.verify('t')"],
    );
    scene.expect(
        &["`verify`, `mismatches`"],
        &["SELECT * FROM partition_router.mismatches('t')"],
    );
    scene.expect(&["`repair`"], &["SELECT * FROM partition_router.repair('t')"]);
    scene.expect(
        &["a write, pair live"],
        &["INSERT INTO t VALUES (10000, '2026-01-01', 1)"],
    );
    scene.expect(
        &["`route`, `explain_route`, `set_rollout`"],
        &["SELECT partition_router.route('t')"],
    );
    scene.expect(
        &["`route`, `explain_route`, `set_rollout`"],
        &["SELECT partition_router.set_rollout('t', percent => 100)"],
    );
    run(
        &mut scene.client,
        &[
            "LOAD 'partition_router'",
            "SET partition_router.transparent = on",
            "SELECT partition_router.verify('t')",
        ],
    );
    scene.expect(&["a routed read"], &["SELECT count(*) FROM t"]);
    scene.expect(&["`abandon`"], &["SELECT partition_router.abandon('t')"]);
    scene.end();
}

fn the_swap_there_and_back_and_the_end() {
    let mut scene = Scene::pair(
        "swap",
        &[
            "CREATE TABLE notes (t_id int, at date, FOREIGN KEY (t_id, at) REFERENCES t (id, at))",
            "CALL partition_router.migrate('t', 'at')",
        ],
    );
    // Which side the proof of the keys reads depends on the direction: the page has both in one row.
    let mut proof = [NOTHING; 3];
    for operation in ["switchover", "rollback"] {
        scene.expect_steps(
            &format!("partition_router.switchover_step('t', '{operation}', 'SWAP')"),
            "SELECT 'swap'",
            &[("swap", &["`switchover`, `rollback`: the swap"])],
        );
        let step = format!("partition_router.switchover_step('t', '{operation}', 'POST-MIGRATION')");
        let held = scene.steps(&step, "SELECT 'proof'")["proof"];
        for (most, mode) in proof.iter_mut().zip(held) {
            *most = strongest(&format!("{most} {mode}"));
        }
    }
    scene.compare(&["`switchover`, `rollback`: `POST-MIGRATION`"], proof);
    run(
        &mut scene.client,
        &[
            "CALL partition_router.switchover('t')",
            "SELECT partition_router.cleanup_step('t', 'PRE-FLIGHT', false, false)",
        ],
    );
    scene.expect(
        &["`cleanup`"],
        &["SELECT partition_router.cleanup_step('t', 'END', false, false)"],
    );
    scene.end();
}

/// Runs what retention has to do for a table, and says what it held.
fn retire(scene: &mut Scene, table: &str, action: &str, row: &str) {
    run(
        &mut scene.client,
        &[&format!(
            "SELECT partition_router.set_policy('{table}', retention => '2 months', retention_action => '{action}')"
        )],
    );
    let query = format!("SELECT unnest(cleaning) FROM partition_router.maintenance_tasks('{table}')");
    let tasks = texts(&mut scene.client, &query);
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    let partitions = format!("SELECT count(*) FROM pg_inherits WHERE inhparent = '{table}'::regclass");
    let before: i64 = one(&mut scene.client, &partitions);
    let step = format!("partition_router.maintenance_task('{table}', '{}')", tasks[0]);
    scene.expect_steps(&step, "SELECT 'retire'", &[("retire", &[row])]);
    assert_eq!(one::<i64>(&mut scene.client, &partitions), before - 1);
    run(
        &mut scene.client,
        &["SELECT partition_router.maintenance_let_go()"],
    );
}

fn maintenance() {
    let month = |name: &str, ago: i32| {
        format!(
            "DO $$ BEGIN EXECUTE format('CREATE TABLE {name} PARTITION OF p FOR VALUES FROM (%L) TO (%L)',
                date_trunc('month', now()) - interval '{ago} months', date_trunc('month', now()) - interval '{} months'); END $$",
            ago - 1
        )
    };
    let mut scene = Scene::new(
        "maintenance",
        &[
            "CREATE TABLE p (id int NOT NULL, at date NOT NULL, org int REFERENCES orgs, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE p_default PARTITION OF p DEFAULT",
            &month("p_first", 5),
            &month("p_second", 4),
            &month("p_third", 3),
            "INSERT INTO p SELECT g, now() - interval '4 months', 1 FROM generate_series(1, 50) g",
            "INSERT INTO p SELECT g, now(), 1 FROM generate_series(1, 50) g",
            "SELECT partition_router.manage('p', '1 month', premake => 1)",
        ],
    );
    scene.learn("p", None);
    scene.expect(
        &["maintenance: create"],
        &["SELECT partition_router.create_partitions('p')"],
    );
    scene.expect(
        &["`drop_partition`"],
        &["SELECT partition_router.drop_partition('p_first')"],
    );
    run(&mut scene.client, &["SELECT partition_router.hold('p_third')"]);
    retire(&mut scene, "p", "drop", "maintenance: drop");
    run(&mut scene.client, &["SELECT partition_router.release('p_third')"]);
    retire(&mut scene, "p", "detach", "maintenance: detach");
    scene.expect(
        &["maintenance: ANALYZE"],
        &["SELECT partition_router.maintenance_analyze('p')"],
    );
    scene.end();
}

fn maintenance_of_a_live_pair() {
    let mut scene = Scene::pair(
        "maintenance_pair",
        &[
            "UPDATE t SET at = date_trunc('month', now()) - g * interval '1 month' FROM generate_series(0, 3) g WHERE id % 4 = g",
            "CALL partition_router.migrate('t', 'at')",
        ],
    );
    retire(
        &mut scene,
        "t_partitioned",
        "drop",
        "maintenance: retire of a live pair, or one with a guard",
    );
    scene.expect(
        &["`enable_change_feed`, of a pair"],
        &["SELECT partition_router.enable_change_feed('t', '{id}')"],
    );
    scene.expect(
        &["`disable_change_feed`, of a pair"],
        &["SELECT partition_router.disable_change_feed('t')"],
    );
    scene.expect(&["DDL on one side"], &["ALTER TABLE t ADD COLUMN note text"]);
    scene.end();
}

fn draining_a_large_default() {
    let mut scene = Scene::new(
        "drain",
        &[
            "CREATE TABLE p (id int NOT NULL, at date NOT NULL, org int REFERENCES orgs, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE p_default PARTITION OF p DEFAULT",
            "INSERT INTO p SELECT g, now(), 1 FROM generate_series(1, 6000) g",
            "SELECT partition_router.manage('p', '1 month', premake => 1)",
        ],
    );
    scene.learn("p", None);
    let task: String = one(
        &mut scene.client,
        "SELECT creating[1] FROM partition_router.maintenance_tasks('p')",
    );
    scene.expect_steps(
        &format!("partition_router.maintenance_task('p', '{task}')"),
        "SELECT 'drain'",
        &[("drain", &["maintenance: drain a large default"])],
    );
    scene.end();
}

fn unpartition() {
    let mut scene = Scene::new(
        "unpartition",
        &[
            "CREATE TABLE p (id int PRIMARY KEY, org int REFERENCES orgs) PARTITION BY HASH (id)",
            "CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
            "CREATE TABLE p_1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
            "INSERT INTO p SELECT g, 1 FROM generate_series(1, 900) g",
        ],
    );
    scene.learn("p", None);
    scene.expect_steps(
        "partition_router.unpartition_step('p', 'PREPARE')",
        "SELECT 'prepare'",
        &[("prepare", &["`unpartition`: prepare"])],
    );
    scene.learn("p_legacy", Some("p"));
    scene.expect_steps(
        "partition_router.unpartition_step('p', 'COPY')",
        "SELECT 'copy'",
        &[("copy", &["`unpartition`: copy"])],
    );
    for stage in ["PROVE", "PRE-FLIGHT", "PRE-MIGRATION"] {
        scene.steps(
            &format!("partition_router.unpartition_step('p', '{stage}')"),
            "SELECT ''",
        );
    }
    scene.expect_steps(
        "partition_router.unpartition_step('p', 'SWAP')",
        "SELECT 'swap'",
        &[("swap", &["`unpartition`: the swap"])],
    );
    scene.end();
}

/// The value that a query gives as soon as there is one.
fn wait_for(client: &mut Client, query: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = texts(client, query).pop() {
            return value;
        }
        assert!(Instant::now() < deadline, "nothing came: {query}");
        run(client, &["SELECT pg_sleep(0.02)"]);
    }
}

fn create_index() {
    let mut scene = Scene::pair("create_index", &["CALL partition_router.migrate('t', 'at')"]);
    let mut observer = scene.database.connect();
    let mut reader = scene.database.connect();
    let mut writer = scene.database.connect();
    // A build waits for older snapshots, and for who may have written its table: so it can be looked at.
    run(
        &mut reader,
        &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"],
    );
    run(&mut writer, &["BEGIN", "LOCK TABLE t IN ROW EXCLUSIVE MODE"]);
    let waiting = |builds: &str| {
        format!(
            "SELECT l.pid::text FROM pg_locks l JOIN pg_locks k USING (pid)
             WHERE l.locktype = 'virtualxid' AND NOT l.granted AND k.relation = '{builds}'::regclass AND k.mode = 'ShareUpdateExclusiveLock'"
        )
    };
    let database = &scene.database;
    let (on_twin, on_legacy) = std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            run(
                &mut database.connect(),
                &["CALL partition_router.create_index('t', '(org, at)')"],
            )
        });
        let worker = wait_for(&mut observer, &waiting("t_2026_01"));
        let on_twin = scene.locks_of(&mut observer, &worker);
        run(&mut reader, &["COMMIT"]);
        let worker = wait_for(&mut observer, &waiting("t"));
        let on_legacy = scene.locks_of(&mut observer, &worker);
        run(&mut writer, &["COMMIT"]);
        call.join().expect("the call ends");
        (on_twin, on_legacy)
    });
    assert_eq!((on_twin[0], on_legacy[1]), (NOTHING, NOTHING));
    scene.compare(&["`create_index`: a build"], [on_legacy[0], on_twin[1], NOTHING]);
    scene.end();
}

/// The other server is another database of the same cluster.
fn placing() {
    let mut scene = Scene::new(
        "placing",
        &[
            "CREATE TABLE p (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE p_default PARTITION OF p DEFAULT",
            "CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "INSERT INTO p SELECT g, '2025-01-05' FROM generate_series(1, 50) g",
        ],
    );
    let far = Database::on(scene.database.cluster.clone(), "far_locks");
    run(
        &mut far.connect(),
        &[
            "CREATE TABLE p_1 (id int NOT NULL, at date NOT NULL, CHECK (at >= '2025-01-01' AND at < '2025-02-01'))",
        ],
    );
    let server = format!(
        "CREATE SERVER cold FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '5432', dbname '{}')",
        far.cluster.socket(),
        far.name
    );
    run(
        &mut scene.client,
        &[
            "CREATE EXTENSION postgres_fdw",
            &server,
            "CREATE USER MAPPING FOR CURRENT_USER SERVER cold OPTIONS (user 'postgres')",
        ],
    );
    scene.learn("p", None);
    let step = "partition_router.place_step('p_1', 'cold')";
    scene.expect_steps(
        step,
        "SELECT coalesce((SELECT state FROM partition_router.placement), 'begin')",
        &[
            ("begin", &["`place`: begin"]),
            ("copying", &["`place`: copy, proof"]),
            ("proven", &["`place`: the swap"]),
        ],
    );
    scene.end();
}

/// Rows of what passes too quickly to be looked at; the page names them.
const TOO_QUICK: [&str; 4] = [
    "`backfill`: a long log is set aside",
    "`repair`, with a partition that came by hand",
    "`create_index`: the root's",
    "`place`: the swap is tried",
];

#[test]
fn each_row_of_the_page_is_true_of_each_call() {
    let scenes: [(&str, fn()); 8] = [
        ("the way to a live pair", the_way_to_a_live_pair),
        (
            "the swap there and back, and the end",
            the_swap_there_and_back_and_the_end,
        ),
        ("maintenance", maintenance),
        ("maintenance of a live pair", maintenance_of_a_live_pair),
        ("draining a large default", draining_a_large_default),
        ("unpartition", unpartition),
        ("create_index", create_index),
        ("place", placing),
    ];
    // Those that end keep the server for those that come.
    let _server = Cluster::shared();
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let running = scenes.map(|(name, scene)| (name, scope.spawn(scene)));
        let ended = running.map(|(name, thread)| (name, thread.join().is_err()));
        ended
            .into_iter()
            .filter(|(_, failed)| *failed)
            .map(|(name, _)| name)
            .collect()
    });
    assert!(failed.is_empty(), "{failed:?}");
    let compared = COMPARED.lock().expect("no scene panicked in here");
    let untested: Vec<String> = rows()
        .into_iter()
        .filter(|row| !compared.contains(row) && !TOO_QUICK.contains(&row.as_str()))
        .collect();
    assert!(
        untested.is_empty(),
        "rows of docs/locks.md that no scene compares: {untested:?}"
    );
}
