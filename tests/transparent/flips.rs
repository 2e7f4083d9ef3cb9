//! A plan that was cached before a flip reads the right side after it, whoever flips and however.

use crate::common::{Cluster, Database, one, run};
use crate::marked::{self, ROUTED, SIDE, marked, side};
use postgres::{Client, Statement};
use std::sync::Arc;

/// A session that has asked often enough that every way of caching a plan has cached one.
struct Cached {
    client: Client,
    prepared: Statement,
    with_parameter: Statement,
}

const CARRIERS: &[&str] = &[
    "CREATE FUNCTION in_plpgsql(wanted int) RETURNS text LANGUAGE plpgsql AS
     $$BEGIN RETURN (SELECT side FROM revenues WHERE id = wanted); END$$",
    "CREATE FUNCTION in_plpgsql_loop() RETURNS text LANGUAGE plpgsql AS
     $$DECLARE found record; BEGIN FOR found IN SELECT side FROM revenues WHERE id = 0 LOOP RETURN found.side; END LOOP; END$$",
    "CREATE FUNCTION in_cursor() RETURNS text LANGUAGE plpgsql AS
     $$DECLARE c CURSOR FOR SELECT side FROM revenues WHERE id = 0 ORDER BY id; found text;
       BEGIN OPEN c; FETCH c INTO found; CLOSE c; RETURN found; END$$",
    "CREATE FUNCTION in_sql(wanted int) RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER AS
     $$SELECT side FROM revenues WHERE id = wanted$$",
    "CREATE FUNCTION inlined(wanted int) RETURNS SETOF text LANGUAGE sql STABLE AS
     $$SELECT side FROM revenues WHERE id = wanted$$",
    "CREATE FUNCTION in_begin_atomic() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT side FROM revenues WHERE id = 0; END",
    "CREATE VIEW in_view AS SELECT id, side FROM revenues",
];

/// What each session prepares.
const PREPARE: &[&str] = &[
    "PREPARE custom(int) AS SELECT side FROM revenues WHERE id = $1",
    "PREPARE without AS SELECT side FROM revenues WHERE id = 0",
    "PREPARE generic(int) AS SELECT side FROM revenues WHERE id = $1",
    "PREPARE through_view(int) AS SELECT side FROM in_view WHERE id = $1",
    "PREPARE in_join AS SELECT r.side FROM generate_series(0, 0) g JOIN revenues r ON r.id = g",
];

impl Cached {
    fn new(database: &Database, settings: &[&str]) -> Cached {
        Cached::of(database.connect(), settings)
    }

    fn of(mut client: Client, settings: &[&str]) -> Cached {
        run(&mut client, settings);
        run(&mut client, PREPARE);
        let prepared = client.prepare(SIDE).expect("prepared");
        let with_parameter = client
            .prepare("SELECT side FROM revenues WHERE id = $1")
            .expect("prepared");
        let mut cached = Cached {
            client,
            prepared,
            with_parameter,
        };
        for _ in 0..7 {
            cached.answers();
        }
        cached
    }

    /// What each carrier of a plan answers.
    fn answers(&mut self) -> Vec<(&'static str, String)> {
        let c = &mut self.client;
        let generic: String = {
            // Not SET LOCAL: the session may be between transactions.
            let before: String = one(c, "SHOW plan_cache_mode");
            run(c, &["SET plan_cache_mode = force_generic_plan"]);
            let answer = one(c, "EXECUTE generic(0)");
            run(c, &[&format!("SET plan_cache_mode = {before}")]);
            answer
        };
        vec![
            ("plain", side(c)),
            ("PREPARE", one(c, "EXECUTE custom(0)")),
            ("PREPARE without parameter", one(c, "EXECUTE without")),
            ("generic plan", generic),
            ("PREPARE of a view", one(c, "EXECUTE through_view(0)")),
            ("PREPARE of a join", one(c, "EXECUTE in_join")),
            ("PL/pgSQL", one(c, "SELECT in_plpgsql(0)")),
            ("PL/pgSQL loop", one(c, "SELECT in_plpgsql_loop()")),
            ("SQL function", one(c, "SELECT in_sql(0)")),
            ("inlined SQL function", one(c, "SELECT * FROM inlined(0)")),
            ("SQL-standard body", one(c, "SELECT in_begin_atomic()")),
            ("view", one(c, "SELECT side FROM in_view WHERE id = 0")),
            (
                "driver's statement",
                c.query_one(&self.prepared, &[]).expect("answers").get(0),
            ),
            (
                "driver's statement with a parameter",
                c.query_one(&self.with_parameter, &[&0]).expect("answers").get(0),
            ),
            ("PL/pgSQL cursor", one(c, "SELECT in_cursor()")),
            ("cursor", {
                run(
                    c,
                    &[&format!("DECLARE kept CURSOR WITH HOLD FOR {SIDE} ORDER BY id")],
                );
                let answer = one(c, "FETCH kept");
                run(c, &["CLOSE kept"]);
                answer
            }),
            ("COPY", {
                let mut out = String::new();
                let mut reader = c.copy_out(&format!("COPY ({SIDE}) TO STDOUT")).expect("copies");
                std::io::Read::read_to_string(&mut reader, &mut out).expect("reads");
                out.trim().to_string()
            }),
        ]
    }

    /// Asserts that all carriers read this side.
    fn reads(&mut self, wanted: &str, when: &str) {
        // Twice: the first may have planned anew, and the second uses what it cached.
        for time in ["first", "second"] {
            for (carrier, answer) in self.answers() {
                assert_eq!(answer, wanted, "{when}, {carrier}, {time} time");
            }
        }
    }

    fn run(&mut self, statements: &[&str]) {
        run(&mut self.client, statements);
    }
}

/// A marked pair, with the functions and the view.
fn with_carriers(test: &str) -> (Database, Client) {
    let (database, mut owner) = marked(test);
    run(&mut owner, CARRIERS);
    (database, owner)
}

#[test]
fn set_and_reset_reach_cached_plans() {
    let (database, _owner) = with_carriers("flip_set");
    let mut session = Cached::new(&database, &["SET partition_router.transparent = on"]);
    session.reads("legacy", "by default");
    for setting in [
        "use_partitioned_tables = on",
        "use_partitioned_tables = off",
        "use_partitioned_tables = on",
        "enable_partition_routing = off",
        "enable_partition_routing = on",
        "transparent = off",
        "transparent = on",
    ] {
        session.run(&[&format!("SET partition_router.{setting}")]);
        let wanted = if setting.ends_with("on") { "twin" } else { "legacy" };
        session.reads(wanted, setting);
    }
    session.run(&["RESET partition_router.use_partitioned_tables"]);
    session.reads("legacy", "RESET");
    session.run(&[ROUTED]);
    session.reads("twin", "SET again");
    session.run(&["RESET ALL"]);
    session.reads("legacy", "RESET ALL");
    session.run(&[ROUTED]);
    session.reads("twin", "SET once more");
    session.run(&["DISCARD PLANS"]);
    session.reads("twin", "DISCARD PLANS");
}

#[test]
fn set_local_reaches_cached_plans_and_ends_with_its_transaction() {
    let (database, _owner) = with_carriers("flip_local");
    let mut session = Cached::new(&database, &["SET partition_router.transparent = on"]);
    for end in ["COMMIT", "ROLLBACK"] {
        session.run(&["BEGIN", "SET LOCAL partition_router.use_partitioned_tables = on"]);
        session.reads("twin", "SET LOCAL");
        session.run(&[end]);
        session.reads("legacy", end);
    }
    session.run(&["SET partition_router.use_partitioned_tables = on"]);
    session.run(&[
        "BEGIN",
        "SET LOCAL partition_router.enable_partition_routing = off",
    ]);
    session.reads("legacy", "SET LOCAL of the kill switch");
    session.run(&["ROLLBACK"]);
    session.reads("twin", "rollback of the kill switch");
}

#[test]
fn a_set_rolled_back_to_a_savepoint_reaches_cached_plans() {
    let (database, _owner) = with_carriers("flip_savepoint");
    let mut session = Cached::new(&database, &["SET partition_router.transparent = on"]);
    session.run(&[
        "BEGIN",
        "SAVEPOINT a",
        "SET partition_router.use_partitioned_tables = on",
    ]);
    session.reads("twin", "SET in a subtransaction");
    session.run(&[
        "SAVEPOINT b",
        "SET LOCAL partition_router.enable_partition_routing = off",
    ]);
    session.reads("legacy", "kill switch in a subtransaction of that");
    session.run(&["ROLLBACK TO b"]);
    session.reads("twin", "inner subtransaction rolled back");
    session.run(&["ROLLBACK TO a"]);
    session.reads("legacy", "outer subtransaction rolled back");
    session.run(&["SET partition_router.use_partitioned_tables = on", "ROLLBACK"]);
    session.reads("legacy", "SET rolled back with its transaction");
    // An error that PL/pgSQL caught takes the setting with it.
    let caught = "DO $$BEGIN PERFORM set_config('partition_router.use_partitioned_tables', 'on', false);
        IF in_plpgsql(0) <> 'twin' THEN RAISE 'read %', in_plpgsql(0); END IF; PERFORM 1 / 0;
        EXCEPTION WHEN division_by_zero THEN
        IF in_plpgsql(0) <> 'legacy' THEN RAISE 'read %', in_plpgsql(0); END IF; END$$";
    session.run(&[caught]);
    session.reads("legacy", "setting gone with a caught error");
}

#[test]
fn settings_of_a_function_hold_inside_it() {
    let (database, mut owner) = with_carriers("flip_function");
    run(
        &mut owner,
        &[
            "CREATE FUNCTION always_twin() RETURNS text LANGUAGE plpgsql SET partition_router.use_partitioned_tables = on AS
             $$BEGIN RETURN in_plpgsql(0); END$$",
            "CREATE FUNCTION never_twin() RETURNS text LANGUAGE plpgsql SET partition_router.enable_partition_routing = off AS
             $$BEGIN RETURN in_plpgsql(0); END$$",
        ],
    );
    let mut session = Cached::new(&database, &["SET partition_router.transparent = on"]);
    let both =
        "SELECT concat_ws(' ', in_plpgsql(0), always_twin(), in_plpgsql(0), never_twin(), in_plpgsql(0))";
    for (switch, wanted) in [
        ("off", "legacy twin legacy legacy legacy"),
        ("on", "twin twin twin legacy twin"),
        ("off", "legacy twin legacy legacy legacy"),
    ] {
        session.run(&[&format!("SET partition_router.use_partitioned_tables = {switch}")]);
        assert_eq!(one::<String>(&mut session.client, both), wanted, "{switch}");
    }
}

#[test]
fn settings_of_roles_and_databases_hold_for_new_sessions() {
    let (database, mut owner) = with_carriers("flip_role");
    let name = &database.name;
    run(
        &mut owner,
        &[
            "DROP ROLE IF EXISTS flip_reader",
            "CREATE ROLE flip_reader LOGIN",
            "GRANT SELECT ON revenues, in_view TO flip_reader",
            &format!("ALTER DATABASE \"{name}\" SET partition_router.transparent = on"),
        ],
    );
    let connect = || Cached::of(database.connect_as("flip_reader"), &[]);
    let mut older = connect();
    older.reads("legacy", "no setting");
    let mut expect = |statement: &str, wanted: &str| {
        run(&mut owner, &[statement]);
        connect().reads(wanted, statement);
    };
    expect(
        "ALTER ROLE flip_reader SET partition_router.use_partitioned_tables = on",
        "twin",
    );
    expect(
        &format!("ALTER DATABASE \"{name}\" SET partition_router.enable_partition_routing = off"),
        "legacy",
    );
    expect(
        &format!(
            "ALTER ROLE flip_reader IN DATABASE \"{name}\" SET partition_router.enable_partition_routing = on"
        ),
        "twin",
    );
    expect("ALTER ROLE flip_reader RESET ALL", "legacy");
    older.reads("legacy", "an older session keeps its settings");
    drop(older);
    run(
        &mut owner,
        &["DROP OWNED BY flip_reader", "DROP ROLE flip_reader"],
    );
}

#[test]
fn the_configuration_file_flips_sessions_that_run() {
    let server = Arc::new(Cluster::start(&["session_preload_libraries=partition_router"]));
    let database = Database::on(server, "flip_reload");
    let mut owner = database.connect();
    run(&mut owner, marked::TABLE);
    marked::migrate(&mut owner);
    run(&mut owner, CARRIERS);
    let mut session = Cached::new(&database, &[ROUTED]);
    session.reads("twin", "routed");
    for (value, wanted) in [("off", "legacy"), ("on", "twin")] {
        run(
            &mut owner,
            &[
                &format!("ALTER SYSTEM SET partition_router.enable_partition_routing = {value}"),
                "SELECT pg_reload_conf()",
            ],
        );
        // The postmaster reads the file and then tells the session, which takes it in between two statements.
        let started = std::time::Instant::now();
        while one::<String>(
            &mut session.client,
            "SHOW partition_router.enable_partition_routing",
        ) != value
        {
            assert!(started.elapsed().as_secs() < 60, "the setting never came");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        session.reads(wanted, "pg_reload_conf");
    }
}

#[test]
fn a_rollout_changed_by_another_session_reaches_cached_plans_when_it_commits() {
    let (database, mut owner) = with_carriers("flip_rollout");
    let mut session = Cached::new(&database, &["SET partition_router.transparent = on"]);
    session.reads("legacy", "no rollout");
    run(
        &mut owner,
        &["BEGIN", "SELECT partition_router.set_rollout('revenues', 100)"],
    );
    session.reads("legacy", "set_rollout(100) is not committed");
    run(&mut owner, &["ROLLBACK"]);
    session.reads("legacy", "set_rollout(100) is rolled back");
    for (percent, wanted) in [(100, "twin"), (0, "legacy"), (100, "twin"), (99, "legacy")] {
        run(
            &mut owner,
            &[&format!(
                "SELECT partition_router.set_rollout('revenues', {percent})"
            )],
        );
        session.reads(wanted, &format!("set_rollout({percent}) by another session"));
    }
    // Its own, in a transaction.
    session.run(&["BEGIN", "SELECT partition_router.set_rollout('revenues', 100)"]);
    session.reads("twin", "its own set_rollout");
    session.run(&["ROLLBACK"]);
    session.reads("legacy", "its own set_rollout rolled back");
}

#[test]
fn the_tenant_of_a_transaction_chooses_its_side() {
    let (database, mut owner) = with_carriers("flip_tenant");
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('revenues', 0, ARRAY['a', 'b'], ARRAY['b', 'c'])"],
    );
    let mut session = Cached::new(&database, &["SET partition_router.transparent = on"]);
    for (tenant, wanted) in [
        ("a", "twin"),
        ("b", "legacy"),
        ("c", "legacy"),
        ("a", "twin"),
        ("", "legacy"),
    ] {
        session.run(&[
            "BEGIN",
            &format!("SET LOCAL partition_router.tenant = '{tenant}'"),
        ]);
        session.reads(wanted, &format!("tenant '{tenant}'"));
        session.run(&["COMMIT"]);
        session.reads("legacy", &format!("after tenant '{tenant}'"));
    }
    session.run(&["SET partition_router.tenant = 'a'"]);
    session.reads("twin", "tenant a");
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('revenues', pilots => ARRAY['b'])"],
    );
    session.reads("legacy", "no pilot any more");
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('revenues', 100, excluded => ARRAY['a'])"],
    );
    session.reads("legacy", "excluded beats 100 %");
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('revenues', excluded => '{}')"],
    );
    session.reads("twin", "excluded no more");
}

#[test]
fn an_equality_in_the_query_chooses_the_side() {
    let (database, mut owner) = marked("flip_equality");
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('revenues', 0, ARRAY['org-1'], '{}', tenant_column => 'org')"],
    );
    let mut session = database.connect();
    let c = &mut session;
    run(c, &["SET partition_router.transparent = on"]);
    let expect = [(1, "twin"), (2, "legacy")];
    let statement = c
        .prepare("SELECT side FROM revenues WHERE org = $1 AND id = $2")
        .expect("prepares");
    run(
        c,
        &["PREPARE q(text, int) AS SELECT side FROM revenues WHERE org = $1 AND id = $2"],
    );
    for mode in ["auto", "force_custom_plan", "force_generic_plan"] {
        run(c, &[&format!("SET plan_cache_mode = {mode}")]);
        for round in 0..8 {
            for (org, wanted) in expect {
                let when = format!("{mode}, round {round}, org-{org}");
                let literal = format!("SELECT side FROM revenues WHERE org = 'org-{org}' AND id = {org}");
                assert_eq!(one::<String>(c, &literal), wanted, "constant, {when}");
                let execute = format!("EXECUTE q('org-{org}', {org})");
                assert_eq!(one::<String>(c, &execute), wanted, "PREPARE, {when}");
                let driver: String = c
                    .query_one(&statement, &[&format!("org-{org}"), &org])
                    .expect("answers")
                    .get(0);
                assert_eq!(driver, wanted, "driver, {when}");
            }
        }
    }
    // What names no tenant, or not one alone, stays on the legacy.
    for open in [
        "SELECT side FROM revenues WHERE id = 1",
        "SELECT side FROM revenues WHERE org IN ('org-1', 'org-2') AND id = 1",
        "SELECT side FROM revenues WHERE (org = 'org-1' OR id = 1) AND id = 1",
        "SELECT side FROM revenues WHERE NOT org = 'org-2' AND id = 1",
        "SELECT side FROM revenues WHERE org > 'org-0' AND id = 1",
    ] {
        assert_eq!(one::<String>(c, open), "legacy", "{open}");
    }
    // The setting beats the query.
    run(c, &["SET partition_router.tenant = 'org-2'"]);
    let pilot = "SELECT side FROM revenues WHERE org = 'org-1' AND id = 1";
    assert_eq!(one::<String>(c, pilot), "legacy");
}

#[test]
fn a_phase_changed_by_another_session_reaches_cached_plans() {
    let (database, mut owner) = with_carriers("flip_phase");
    let mut session = Cached::new(&database, &[ROUTED]);
    session.reads("twin", "live and proven");
    run(&mut owner, &["SELECT partition_router.verify('revenues')"]);
    session.reads("legacy", "a verify found the sides to differ");
    run(
        &mut owner,
        &[
            "SELECT partition_router.repair('revenues')",
            "SELECT partition_router.verify('revenues')",
        ],
    );
    marked::mark(&mut owner);
    session.reads("twin", "proven again");
    run(&mut owner, &["SELECT partition_router.abandon('revenues')"]);
    session.reads("legacy", "abandoned");
    run(
        &mut owner,
        &[
            "SELECT partition_router.create_twin('revenues', 'at')",
            "SELECT partition_router.start_sync('revenues')",
        ],
    );
    session.reads("legacy", "copying");
    run(&mut owner, &["CALL partition_router.migrate('revenues', 'at')"]);
    marked::mark(&mut owner);
    session.reads("twin", "live again");
    run(
        &mut owner,
        &[
            "SELECT partition_router.abandon('revenues')",
            "DROP TABLE revenues CASCADE",
        ],
    );
    run(&mut owner, marked::TABLE);
    run(&mut owner, &CARRIERS[CARRIERS.len() - 2..]);
    run(&mut owner, &["UPDATE revenues SET side = 'new'"]);
    session.run(&["DEALLOCATE ALL"]);
    session.run(PREPARE);
    let answers = session.client.query_one(SIDE, &[]).expect("answers");
    assert_eq!(answers.get::<_, String>(0), "new");
}

#[test]
fn ddl_on_either_side_reaches_cached_plans() {
    let (database, mut owner) = with_carriers("flip_ddl");
    let mut session = Cached::new(&database, &[ROUTED]);
    for statement in [
        "ALTER TABLE revenues ADD COLUMN extra int DEFAULT 7",
        "CREATE INDEX ON revenues (org)",
        "CALL partition_router.run_maintenance('revenues')",
        "SELECT partition_router.create_partitions('revenues', 8)",
        "ALTER TABLE revenues DROP COLUMN extra",
        "ALTER TABLE revenues ALTER COLUMN cents TYPE numeric",
        "ALTER TABLE revenues RENAME COLUMN cents TO amount",
        "ANALYZE revenues_partitioned",
        "ALTER TABLE revenues_partitioned RENAME TO somewhere_else",
    ] {
        run(&mut owner, &[statement]);
        session.reads("twin", statement);
    }
}

#[test]
fn a_cursor_keeps_the_side_that_it_was_opened_on() {
    let (database, mut owner) = marked("flip_cursor");
    let mut session = database.connect();
    run(
        &mut session,
        &[
            ROUTED,
            "BEGIN",
            "DECLARE c SCROLL CURSOR FOR SELECT side FROM revenues WHERE id < 10 ORDER BY id",
        ],
    );
    let side_of_fetch =
        |session: &mut Client| -> Vec<String> { crate::common::texts(session, "FETCH 5 FROM c") };
    assert_eq!(side_of_fetch(&mut session), ["twin"; 5]);
    run(
        &mut session,
        &["SET LOCAL partition_router.use_partitioned_tables = off"],
    );
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('revenues', 0)"],
    );
    assert_eq!(side_of_fetch(&mut session), ["twin"; 5]);
    run(&mut session, &["MOVE ABSOLUTE 0 IN c"]);
    assert_eq!(side_of_fetch(&mut session), ["twin"; 5]);
    assert_eq!(side(&mut session), "legacy");
    run(&mut session, &["ROLLBACK"]);
    assert_eq!(side(&mut session), "twin");
}
