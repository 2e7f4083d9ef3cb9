//! A table owner who plants code wherever the server evaluates some: defaults, constraints, indexes, policies, triggers,
//! domains that are parsed, casts that `to_jsonb` looks for. Each place logs who it runs as, to the server's log, which no
//! rollback empties. Whoever calls the extension, it must be the owner.

use crate::common::{Cluster, Database, run};
use postgres::Client;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Places that log themselves. `mallory` owns them all.
const PLACES: &[&str] = &[
    "CREATE FUNCTION evil.ok(place text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN RAISE LOG 'MARK|%|%|%|', place, current_user, session_user; RETURN true; END$$",
    "CREATE FUNCTION evil.num(place text, value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN RAISE LOG 'MARK|%|%|%|', place, current_user, session_user; RETURN value; END$$",
    "CREATE FUNCTION evil.next(place text) RETURNS int LANGUAGE plpgsql AS
         $$BEGIN RAISE LOG 'MARK|%|%|%|', place, current_user, session_user; RETURN pg_catalog.nextval('evil.numbers'); END$$",
    "CREATE FUNCTION evil.fired() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN RAISE LOG 'MARK|trigger % %|%|%|', TG_WHEN, TG_OP, current_user, session_user; RETURN COALESCE(NEW, OLD); END$$",
    "CREATE SEQUENCE evil.numbers START 1000",
    "CREATE DOMAIN evil.digit AS int CHECK (evil.ok('domain'))",
    "CREATE TYPE evil.mood AS ENUM ('sad', 'happy')",
    "CREATE FUNCTION evil.to_json(evil.mood) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN RAISE LOG 'MARK|cast to json|%|%|', current_user, session_user; RETURN '1'; END$$",
    "CREATE FUNCTION evil.to_text(evil.mood) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN RAISE LOG 'MARK|cast to text|%|%|', current_user, session_user; RETURN 'x'; END$$",
    "CREATE CAST (evil.mood AS json) WITH FUNCTION evil.to_json(evil.mood)",
    "CREATE CAST (evil.mood AS text) WITH FUNCTION evil.to_text(evil.mood) AS ASSIGNMENT",
    "CREATE CAST (evil.mood AS jsonb) WITH INOUT AS ASSIGNMENT",
];

/// Columns whose every part is a place. A constant array of a domain is checked as soon as it is parsed; a function of
/// constants alone runs as soon as somebody plans.
const COLUMNS: &str = "
    id int NOT NULL DEFAULT evil.next('default'),
    at date NOT NULL,
    digit evil.digit DEFAULT 1,
    digits evil.digit[] DEFAULT '{1}'::evil.digit[],
    mood evil.mood DEFAULT 'sad',
    n int CONSTRAINT n_vetted CHECK (evil.num('check', n) > 0),
    folded int CONSTRAINT folded_vetted CHECK (evil.num('check of constants', 1) > 0),
    parsed int CONSTRAINT parsed_vetted CHECK (parsed = 0 OR '{2}'::evil.digit[] IS NOT NULL),
    made int GENERATED ALWAYS AS (evil.num('generated', n)) STORED";

/// What else is planted on a table, here `{t}`.
const TRAPS: &[&str] = &[
    "CREATE INDEX ON {t} (evil.num('index', n))",
    "CREATE INDEX ON {t} (evil.num('index of constants', 1))",
    "CREATE INDEX ON {t} (n) WHERE evil.ok('predicate of constants') AND evil.num('predicate', n) > 0",
    "CREATE INDEX ON {t} (n) WHERE '{3}'::evil.digit[] IS NOT NULL",
    "CREATE STATISTICS evil.{s} ON (evil.num('statistics', n)), at FROM {t}",
    "CREATE POLICY p ON {t} USING (evil.num('policy', n) > 0 AND '{4}'::evil.digit[] IS NOT NULL)",
    "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE {t} FORCE ROW LEVEL SECURITY",
    "CREATE TRIGGER b BEFORE INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION evil.fired()",
    "CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW
         WHEN (pg_trigger_depth() >= 0 AND evil.ok('trigger condition')) EXECUTE FUNCTION evil.fired()",
    "ALTER TABLE {t} ENABLE ALWAYS TRIGGER b",
    "ALTER TABLE {t} ENABLE ALWAYS TRIGGER a",
    "CREATE VIEW evil.{s}_view AS SELECT id, n, evil.num('view', 1) AS one FROM {t}",
    "CREATE MATERIALIZED VIEW evil.{s}_kept AS SELECT id, evil.num('materialized view', 1) AS one FROM {t}",
];

const ROWS: &str = "INSERT INTO {t} (id, at, n, parsed) SELECT g, current_date - 300 + 10 * g, g, 0 FROM generate_series(1, 12) g";

pub struct Scene {
    pub database: Database,
    mallory: String,
    /// How much of the log was read.
    read: u64,
    /// Who each place ran as in each call.
    seen: BTreeMap<(String, String, String), u64>,
}

impl Scene {
    pub fn new(test: &str, settings: &[&str]) -> Scene {
        let cluster = Arc::new(Cluster::start(settings));
        let database = Database::on(cluster, test);
        let mut postgres = database.connect();
        run(
            &mut postgres,
            &[
                "CREATE ROLE mallory LOGIN",
                "CREATE SCHEMA evil AUTHORIZATION mallory",
            ],
        );
        let mut scene = Scene {
            database,
            mallory: "mallory".into(),
            read: 0,
            seen: BTreeMap::new(),
        };
        let mut mallory = scene.database.connect_as("mallory");
        run(&mut mallory, PLACES);
        scene.read = scene.log().1;
        scene
    }

    /// A table with all traps, its rows in it. `how` follows the columns.
    fn plant(&self, name: &str, how: &str, more: &[&str]) {
        let mut mallory = self.database.connect_as(&self.mallory);
        let table = format!("evil.{name}");
        run(
            &mut mallory,
            &[&format!("CREATE TABLE {table} ({COLUMNS}, {how}")],
        );
        for statement in more.iter().chain(TRAPS).chain([&ROWS]) {
            let statement = statement.replace("{t}", &table).replace("{s}", name);
            run(&mut mallory, &[&statement]);
        }
    }

    /// The log from where it was read, and its length.
    fn log(&self) -> (String, u64) {
        let place = std::fs::read_to_string(format!("{}/where", self.database.cluster.directory()))
            .expect("the cluster's place");
        let log = std::fs::read(format!("{}/log", place.trim())).expect("the log is readable");
        let new = &log[self.read as usize..];
        (String::from_utf8_lossy(new).into_owned(), log.len() as u64)
    }

    /// Forgets what was logged: the owner's own doing.
    pub fn forget(&mut self) {
        self.read = self.log().1;
    }

    /// Runs a call, and notes who its places ran as.
    pub fn call(&mut self, client: &mut Client, statement: &str) {
        run(client, &[statement]);
        self.note(statement);
    }

    pub fn note(&mut self, statement: &str) {
        let (log, end) = self.log();
        self.read = end;
        for line in log.lines() {
            let Some((_, mark)) = line.split_once("MARK|") else {
                continue;
            };
            let parts: Vec<&str> = mark.split('|').collect();
            if let [place, user, _, ..] = parts.as_slice() {
                let key = (statement.to_string(), place.to_string(), user.to_string());
                *self.seen.entry(key).or_default() += 1;
            }
        }
    }

    /// What ran as somebody else than its owner.
    pub fn offenders(&self) -> Vec<String> {
        let others = self.seen.iter().filter(|((_, _, user), _)| *user != self.mallory);
        others
            .map(|((statement, place, user), times)| {
                format!("{place} ran as {user} in {statement}, {times} times")
            })
            .collect()
    }

    pub fn report(&self, least: usize) {
        let places: std::collections::BTreeSet<&str> =
            self.seen.keys().map(|(_, place, _)| place.as_str()).collect();
        println!(
            "hostile owner: {} places in {} calls: {places:?}",
            places.len(),
            self.seen.len()
        );
        let offenders = self.offenders();
        assert!(offenders.is_empty(), "{}", offenders.join("\n"));
        assert!(
            self.seen.len() >= least,
            "only {} of the traps sprang: {:#?}",
            self.seen.len(),
            self.seen
        );
    }
}

/// What reads and changes nothing, for `{t}`.
const LOOKS: &[&str] = &[
    "SELECT * FROM partition_router.status",
    "SELECT * FROM partition_router.partitions",
    "SELECT * FROM partition_router.progress",
    "SELECT * FROM partition_router.health",
    "SELECT * FROM partition_router.table_metrics",
    "SELECT * FROM partition_router.pair_metrics",
    "SELECT partition_router.metrics()",
    "SELECT partition_router.openmetrics()",
    "SELECT partition_router.verify_partitions()",
    "SELECT partition_router.report()",
    "SELECT * FROM partition_router.chart('{t}')",
    "SELECT * FROM partition_router.explain_route('{t}', 'x')",
    "SELECT partition_router.route('{t}')",
];

/// A whole migration, there and back, of `evil.bomb`.
const MIGRATION: &[&str] = &[
    "SELECT * FROM partition_router.preflight('evil.bomb', 'at')",
    "SELECT * FROM partition_router.create_twin('evil.bomb', 'at', dry_run => true)",
    "CALL partition_router.migrate('evil.bomb', 'at')",
    "SELECT * FROM partition_router.verify('evil.bomb', 'counts')",
    "SELECT * FROM partition_router.verify('evil.bomb', 'rows')",
    "SELECT * FROM partition_router.verify('evil.bomb', 'checksum', true)",
    "SELECT partition_router.set_rollout('evil.bomb', 50, ARRAY['x'])",
    "LOOKS",
    "CALL partition_router.create_index('evil.bomb', '(n, at)')",
    "SELECT partition_router.create_partitions('evil.bomb', 5)",
    "CALL partition_router.run_maintenance()",
    "CALL partition_router.switchover('evil.bomb', dry_run => true)",
    "CALL partition_router.switchover('evil.bomb')",
    "LOOKS",
    "CALL partition_router.rollback('evil.bomb')",
    "CALL partition_router.switchover('evil.bomb')",
    "CALL partition_router.cleanup('evil.bomb')",
    "SELECT * FROM partition_router.advise('evil.bomb')",
    "CALL partition_router.run_maintenance('evil.bomb')",
    "CALL partition_router.unpartition('evil.bomb')",
    "SELECT partition_router.abandon('evil.bomb')",
];

fn play(scene: &mut Scene, client: &mut Client, table: &str, calls: &[&str]) {
    for call in calls {
        if *call == "LOOKS" {
            for look in LOOKS {
                scene.call(client, &look.replace("{t}", table));
            }
        } else if let Some(own) = call.strip_prefix("mallory: ") {
            run(&mut scene.database.connect_as("mallory"), &[own]);
            scene.forget();
        } else {
            scene.call(client, call);
        }
    }
}

#[test]
fn a_superuser_who_migrates_a_hostile_table_runs_nothing_of_it_as_himself() {
    let mut scene = Scene::new("hostile_migration", &[]);
    scene.plant("bomb", "PRIMARY KEY (id))", &[]);
    scene.forget();
    let mut postgres = scene.database.connect();
    play(&mut scene, &mut postgres, "evil.bomb", MIGRATION);
    scene.report(20);
}

/// A table under maintenance, with rows for the default partition, archives of each kind, and what comes back.
const MAINTENANCE: &[&str] = &[
    "SELECT partition_router.manage('evil.parts', '1 month', 2, dry_run => true)",
    "SELECT partition_router.manage('evil.parts', '1 month', 2)",
    "LOOKS",
    "SELECT * FROM partition_router.advise('evil.parts')",
    "CALL partition_router.run_maintenance('evil.parts', true)",
    "CALL partition_router.run_maintenance()",
    "SELECT * FROM partition_router.plan('run_maintenance', 'evil.parts')",
    "CALL partition_router.create_index('evil.parts', '(n, at)')",
    "SELECT partition_router.create_range_partition('evil.parts', 'far', '1999-01-01', '1999-02-01')",
    "SELECT partition_router.drop_partition('evil.far')",
    "SELECT partition_router.set_policy('evil.parts', retention => '7 months', retention_action => 'archive', archive_format => 'csv')",
    "CALL partition_router.run_maintenance('evil.parts')",
    "SELECT partition_router.restore_archive(1)",
    "SELECT partition_router.set_policy('evil.parts', retention => '6 months', archive_format => 'parquet')",
    "CALL partition_router.run_maintenance('evil.parts')",
    "SELECT partition_router.manage('evil.more', '1 month', 2)",
    "CALL partition_router.run_maintenance('evil.more')",
    "SELECT partition_router.set_policy('evil.more', retention => '7 months', retention_action => 'archive', archive_function => 'evil.keep(regclass)')",
    "CALL partition_router.run_maintenance('evil.more')",
    "LOOKS",
];

#[test]
fn maintenance_of_a_hostile_table_by_a_superuser_runs_nothing_of_it_as_himself() {
    let directory = std::env::temp_dir().join(format!("partition_router_hostile_{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("a directory");
    let path = directory.to_str().expect("UTF-8").to_string();
    let mut scene = Scene::new(
        "hostile_maintenance",
        &[&format!("partition_router.archive_directory={path}")],
    );
    scene.plant(
        "parts",
        "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        &[
            "CREATE TABLE evil.parts_default PARTITION OF evil.parts DEFAULT",
            "CREATE FUNCTION evil.keep(part regclass) RETURNS regclass LANGUAGE plpgsql AS $$DECLARE kept text; BEGIN
                 RAISE LOG 'MARK|archive function|%|%|', current_user, session_user;
                 kept := 'evil.kept_' || part::oid;
                 EXECUTE format('CREATE TABLE %s AS SELECT * FROM %s', kept, part);
                 RETURN kept::regclass; END$$",
        ],
    );
    scene.plant(
        "more",
        "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        &["CREATE TABLE evil.more_default PARTITION OF evil.more DEFAULT"],
    );
    scene.forget();
    let mut postgres = scene.database.connect();
    play(&mut scene, &mut postgres, "evil.parts", MAINTENANCE);
    std::fs::remove_dir_all(&directory).expect("the directory goes");
    let failed =
        "SELECT coalesce(string_agg(concat_ws(' ', action, partition, sqlstate, message), e'\\n'), '')
        FROM partition_router.maintenance_log WHERE status = 'failed'";
    assert_eq!(crate::common::one::<String>(&mut postgres, failed), "");
    scene.report(20);
}

#[test]
fn who_looks_on_runs_nothing_of_a_hostile_table_as_a_superuser() {
    let mut scene = Scene::new("hostile_looks", &[]);
    scene.plant(
        "parts",
        "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        &["CREATE TABLE evil.parts_default PARTITION OF evil.parts DEFAULT"],
    );
    scene.plant("bomb", "PRIMARY KEY (id))", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
            "GRANT USAGE ON SCHEMA evil TO watcher",
            "SELECT partition_router.manage('evil.parts', '1 month')",
            "CALL partition_router.migrate('evil.bomb', 'at')",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory",
        ],
    );
    scene.forget();
    for role in ["watcher", "mallory"] {
        let mut session = scene.database.connect_as(role);
        let looks = LOOKS
            .iter()
            .filter(|look| role == "watcher" || look.contains("SELECT partition_router."));
        for look in looks {
            scene.call(&mut session, &look.replace("{t}", "evil.parts"));
        }
    }
    // The owner gains nothing by calling what works with the rights of a superuser.
    let mut mallory = scene.database.connect_as("mallory");
    for call in MIGRATION
        .iter()
        .filter(|c| c.contains("verify") || c.contains("switchover") || c.contains("rollback"))
    {
        scene.call(&mut mallory, call);
    }
    scene.report(10);
}

#[test]
fn a_background_worker_and_its_helpers_run_hostile_code_as_its_owner() {
    let mut scene = Scene::new("hostile_workers", &[]);
    scene.plant("bomb", "PRIMARY KEY (id))", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE ROLE bgw_operator LOGIN IN ROLE mallory",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO bgw_operator",
        ],
    );
    scene.forget();
    let mut operator = scene.database.connect_as("bgw_operator");
    for client in [&mut postgres, &mut operator] {
        run(
            client,
            &[
                "SET partition_router.backfill_workers = 4",
                "SET partition_router.verify_workers = 4",
            ],
        );
        scene.call(client, "CALL partition_router.migrate('evil.bomb', 'at')");
        scene.call(
            client,
            "SELECT * FROM partition_router.verify('evil.bomb', 'rows')",
        );
        scene.call(client, "SELECT partition_router.abandon('evil.bomb')");
    }
    scene.report(8);
}

/// What `offenders` says is worth nothing unless a place that does run as somebody else is seen.
#[test]
fn a_place_that_runs_as_somebody_else_is_seen() {
    let mut scene = Scene::new("hostile_control", &[]);
    let mut postgres = scene.database.connect();
    scene.call(&mut postgres, "SELECT evil.ok('control')");
    assert_eq!(scene.offenders().len(), 1);
}

/// What follows the name and has constants of a domain, which are checked when its text is parsed again: `{who}`'s.
const FOLLOWERS: &[&str] = &[
    "CREATE VIEW {who}.looks AS SELECT id, '{5}'::{who}.digit[] AS digits FROM evil.t",
    "CREATE RULE looks AS ON INSERT TO {who}.other DO ALSO SELECT '{7}'::{who}.digit[] FROM evil.t",
    "CREATE POLICY looks ON {who}.other USING ('{8}'::{who}.digit[] IS NOT NULL AND EXISTS (SELECT FROM evil.t))",
    "CREATE FUNCTION {who}.looks() RETURNS int BEGIN ATOMIC SELECT count(*)::int FROM evil.t WHERE '{9}'::{who}.digit[] IS NOT NULL; END",
];

#[test]
fn constants_that_are_code_run_as_the_owner_of_what_follows_the_name_or_not_at_all() {
    let mut scene = Scene::new("hostile_views", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE ROLE alice LOGIN",
            "CREATE SCHEMA alice AUTHORIZATION alice",
            "GRANT USAGE ON SCHEMA evil TO alice",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory",
            "SET ROLE alice",
            "CREATE FUNCTION alice.ok() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                 $$BEGIN RAISE LOG 'MARK|alice|%|%|', current_user, session_user; RETURN true; END$$",
            "CREATE DOMAIN alice.digit AS int CHECK (alice.ok())",
            "RESET ROLE",
        ],
    );
    for (who, follower) in ["evil", "alice"]
        .iter()
        .flat_map(|who| FOLLOWERS.iter().map(move |f| (*who, *f)))
    {
        let role = if who == "evil" { "mallory" } else { "alice" };
        run(
            &mut postgres,
            &[
                "SET ROLE mallory",
                "CREATE TABLE evil.t (id int PRIMARY KEY, at date NOT NULL)",
                "GRANT SELECT ON evil.t TO alice",
                "RESET ROLE",
                &format!("SET ROLE {role}"),
                &format!("CREATE TABLE {who}.other (id int)"),
                &follower.replace("{who}", who),
                "RESET ROLE",
                "CALL partition_router.migrate('evil.t', 'at')",
            ],
        );
        scene.forget();
        let mut mallory = scene.database.connect_as("mallory");
        let switchover = "CALL partition_router.switchover('evil.t')";
        if who == "evil" {
            scene.call(&mut mallory, switchover);
            scene.call(&mut postgres, "CALL partition_router.rollback('evil.t')");
        } else {
            // Neither the table's owner nor a superuser makes it run with the rights of anybody but alice.
            for client in [&mut mallory, &mut postgres] {
                assert_eq!(crate::common::sqlstate(client, switchover), "42501", "{follower}");
                scene.note(follower);
            }
        }
        run(
            &mut postgres,
            &[
                "SELECT partition_router.abandon('evil.t')",
                "DROP FUNCTION IF EXISTS evil.looks, alice.looks",
                &format!("DROP TABLE {who}.other"),
                "DROP TABLE evil.t CASCADE",
            ],
        );
        scene.forget();
    }
    scene.report(2);
}
