//! Flips reach statements whose plans are cached, whichever way they come.

use crate::common::{one, run, texts};
use crate::{Routed, SIDE};
use postgres::Client;

/// Ways to run a statement whose plan is cached: the driver's own statement, PREPARE with a custom and a generic plan, and
/// PL/pgSQL.
struct Cached {
    statement: postgres::Statement,
}

impl Cached {
    fn new(c: &mut Client) -> Cached {
        run(
            c,
            &[
                "CREATE OR REPLACE FUNCTION pg_temp.cached() RETURNS text LANGUAGE plpgsql AS
                 $$ BEGIN RETURN (SELECT DISTINCT side FROM revenues); END $$",
                "PREPARE plain AS SELECT DISTINCT side FROM revenues",
                "PREPARE filtered(int) AS SELECT DISTINCT side FROM revenues WHERE id > $1",
            ],
        );
        let statement = c
            .prepare("SELECT DISTINCT side FROM revenues WHERE id > $1")
            .expect("prepared");
        Cached { statement }
    }

    fn assert_side(&self, c: &mut Client, expected: &str, when: &str) {
        for _ in 0..7 {
            let driver: String = c.query_one(&self.statement, &[&5]).expect("a side").get(0);
            assert_eq!(driver, expected, "{when}: the driver's statement");
            for query in [
                "EXECUTE plain",
                "EXECUTE filtered(5)",
                "SELECT pg_temp.cached()",
                SIDE,
            ] {
                assert_eq!(texts(c, query), [expected], "{when}: {query}");
            }
        }
    }
}

#[test]
fn settings_reach_cached_plans() {
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        let mut routed = Routed::new("settings_cached");
        let c = &mut routed.client;
        run(c, &[&format!("SET plan_cache_mode = {mode}")]);
        let cached = Cached::new(c);
        cached.assert_side(c, "twin", "SET on");
        run(c, &["SET partition_router.use_partitioned_tables = off"]);
        cached.assert_side(c, "legacy", "SET off");
        run(
            c,
            &["BEGIN", "SET LOCAL partition_router.use_partitioned_tables = on"],
        );
        cached.assert_side(c, "twin", "SET LOCAL");
        run(c, &["ROLLBACK"]);
        cached.assert_side(c, "legacy", "rollback of a SET LOCAL");
        run(
            c,
            &[
                "BEGIN",
                "SAVEPOINT s",
                "SET LOCAL partition_router.use_partitioned_tables = on",
            ],
        );
        cached.assert_side(c, "twin", "SET LOCAL in a savepoint");
        run(c, &["ROLLBACK TO s"]);
        cached.assert_side(c, "legacy", "rollback to the savepoint");
        run(c, &["COMMIT", "SET partition_router.use_partitioned_tables = on"]);
        run(c, &["SET partition_router.transparent = off"]);
        cached.assert_side(c, "legacy", "transparent off");
        run(c, &["SET partition_router.transparent = on"]);
        cached.assert_side(c, "twin", "transparent on");
        run(c, &["SET partition_router.enable_partition_routing = off"]);
        cached.assert_side(c, "legacy", "kill switch");
    }
}

#[test]
fn a_function_that_carries_its_own_setting_is_routed_by_it() {
    let mut routed = Routed::new("function_setting");
    let c = &mut routed.client;
    run(
        c,
        &["CREATE FUNCTION on_legacy() RETURNS text LANGUAGE plpgsql
             SET partition_router.use_partitioned_tables = off AS
             $$ BEGIN RETURN (SELECT DISTINCT side FROM revenues); END $$"],
    );
    for _ in 0..3 {
        assert_eq!(one::<String>(c, "SELECT on_legacy()"), "legacy");
        assert_eq!(one::<String>(c, SIDE), "twin");
    }
}

#[test]
fn a_rollout_and_a_phase_changed_by_another_session_reach_cached_plans() {
    let mut routed = Routed::new("others");
    let mut other = routed.database.connect();
    let c = &mut routed.client;
    run(
        c,
        &[
            "SET partition_router.use_partitioned_tables = off",
            "SET partition_router.tenant = '4711'",
        ],
    );
    let cached = Cached::new(c);
    cached.assert_side(c, "legacy", "before");
    run(
        &mut other,
        &["SELECT partition_router.set_rollout('revenues', 50)"],
    );
    cached.assert_side(c, "twin", "percent 50");
    run(
        &mut other,
        &["SELECT partition_router.set_rollout('revenues', 10)"],
    );
    cached.assert_side(c, "legacy", "percent 10");
    run(
        &mut other,
        &["SELECT partition_router.set_rollout('revenues', pilots => '{4711}')"],
    );
    cached.assert_side(c, "twin", "pilot");
    run(
        &mut other,
        &["SELECT partition_router.set_rollout('revenues', excluded => '{4711}')"],
    );
    cached.assert_side(c, "legacy", "excluded");
    run(
        &mut other,
        &["SELECT partition_router.set_rollout('revenues', excluded => '{}')"],
    );
    cached.assert_side(c, "twin", "not excluded any more");
    run(c, &["BEGIN"]);
    cached.assert_side(c, "twin", "within a transaction");
    run(&mut other, &["SELECT partition_router.verify('revenues')"]);
    cached.assert_side(c, "legacy", "a verify that failed, within a transaction");
    run(c, &["COMMIT"]);
    run(
        &mut other,
        &[
            "UPDATE revenues SET side = 'twin'",
            "SELECT partition_router.abandon('revenues')",
            "UPDATE revenues SET side = 'legacy'",
        ],
    );
    cached.assert_side(c, "legacy", "abandoned");
    run(&mut other, &["CALL partition_router.migrate('revenues', 'at')"]);
    crate::plant(
        &mut other,
        "revenues_partitioned",
        &["UPDATE revenues_partitioned SET side = 'twin'"],
    );
    cached.assert_side(c, "legacy", "migrated again");
    run(
        &mut other,
        &["SELECT partition_router.set_rollout('revenues', 100)"],
    );
    cached.assert_side(c, "twin", "rolled out again");
}

#[test]
fn settings_of_a_role_and_a_database_hold_for_new_sessions() {
    let routed = Routed::new("role_settings");
    let name = &routed.database.name;
    let mut admin = routed.database.connect();
    run(
        &mut admin,
        &[
            &format!("ALTER DATABASE \"{name}\" SET session_preload_libraries = 'partition_router'"),
            &format!("ALTER DATABASE \"{name}\" SET partition_router.transparent = on"),
            &format!("CREATE ROLE \"r_{name}\" LOGIN SUPERUSER"),
            &format!("ALTER ROLE \"r_{name}\" SET partition_router.use_partitioned_tables = on"),
        ],
    );
    assert_eq!(one::<String>(&mut routed.database.connect(), SIDE), "legacy");
    let role = format!("r_{name}");
    assert_eq!(
        one::<String>(&mut routed.database.connect_as(&role), SIDE),
        "twin"
    );
    run(&mut admin, &[&format!("DROP ROLE \"{role}\"")]);
}

#[test]
fn a_plan_cached_before_the_library_came_is_routed() {
    let routed = Routed::new("loaded_late");
    let mut c = routed.database.connect();
    run(
        &mut c,
        &[
            "SET partition_router.transparent = on",
            "SET partition_router.use_partitioned_tables = on",
            "SET plan_cache_mode = force_generic_plan",
            "PREPARE p AS SELECT DISTINCT side FROM revenues",
        ],
    );
    assert_eq!(texts(&mut c, "EXECUTE p"), ["legacy"]);
    run(&mut c, &["LOAD 'partition_router'"]);
    assert_eq!(texts(&mut c, "EXECUTE p"), ["twin"]);
}

#[test]
fn an_error_while_planning_for_the_other_side_leaves_nothing_behind() {
    let mut routed = Routed::new("planning_error");
    let c = &mut routed.client;
    run(
        c,
        &[
            "SET partition_router.use_partitioned_tables = off",
            "SET test.fail = off",
            "CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN IF current_setting('test.fail') = 'on' THEN RAISE 'no' USING ERRCODE = 'ZX123'; END IF; RETURN 5; END $$",
            "PREPARE p AS SELECT DISTINCT side FROM revenues WHERE id > fails()",
            "EXECUTE p",
            "SET partition_router.use_partitioned_tables = on",
            "SET test.fail = on",
        ],
    );
    assert_eq!(crate::common::sqlstate(c, "EXECUTE p"), "ZX123");
    assert_eq!(one::<String>(c, SIDE), "twin");
    run(c, &["SET test.fail = off"]);
    assert_eq!(texts(c, "EXECUTE p"), ["twin"]);
}
