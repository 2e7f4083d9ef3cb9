//! The end of a migration: the legacy goes, or is kept, and the partitions stay under maintenance.

use super::common::{Database, one, run, sqlstate, texts};
use super::{TABLES, THERE, equal, phase};

const CLEANUP: &str = "CALL partition_router.cleanup('s.t')";

#[test]
fn cleanup_drops_the_legacy_and_the_partitions_stay_maintained() {
    let database = Database::new("cleanup");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            "CREATE VIEW s.v AS SELECT count(*) FROM s.t",
            THERE,
            "INSERT INTO s.t (at, org) VALUES ('2025-03-03', 1)",
            "CALL partition_router.cleanup('s.t', dry_run => true)",
        ],
    );
    equal(&mut client, true);
    let plan = texts(
        &mut client,
        "SELECT statement FROM partition_router.plan('cleanup', 's.t') ORDER BY step",
    );
    assert_eq!(
        plan.last().map(String::as_str),
        Some("DROP TABLE \"s\".\"t_legacy\"")
    );
    run(&mut client, &[CLEANUP]);
    assert_eq!(phase(&mut client), "done");
    assert!(one::<bool>(
        &mut client,
        "SELECT to_regclass('s.t_legacy') IS NULL"
    ));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.t"), 1001);
    assert_eq!(one::<i64>(&mut client, "SELECT count FROM s.v"), 1001);
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'sync\\_to%'";
    assert_eq!(one::<i64>(&mut client, triggers), 0);
    run(
        &mut client,
        &[
            "INSERT INTO s.t (at, org) VALUES ('2025-04-03', 1), ('2019-01-01', 2)",
            "DELETE FROM s.orgs WHERE id = 3",
            "SELECT partition_router.set_policy('s.t', premake => 6)",
            "CALL partition_router.run_maintenance('s.t')",
            "CALL partition_router.run_maintenance()",
            "ALTER TABLE s.t ADD COLUMN late int",
        ],
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT action || ': ' || message FROM partition_router.maintenance_log WHERE status <> 'done'"
        ),
        [""; 0]
    );
    for view in [
        "status",
        "partitions",
        "progress",
        "health",
        "run_log",
        "maintenance_log",
    ] {
        run(&mut client, &[&format!("SELECT * FROM partition_router.{view}")]);
    }
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM partition_router.health WHERE status = 'fail'"
        ),
        0
    );
    run(
        &mut client,
        &[
            "SELECT partition_router.metrics()",
            "SELECT partition_router.verify_partitions()",
        ],
    );
    assert_eq!(
        one::<String>(&mut client, "SELECT partition_router.route('s.t')::text"),
        "s.t"
    );
    for call in [
        "SELECT partition_router.verify('s.t')",
        "SELECT partition_router.repair('s.t')",
        "SELECT partition_router.mismatches('s.t')",
        "SELECT partition_router.abandon('s.t')",
        "SELECT partition_router.set_rollout('s.t', 5)",
        "CALL partition_router.rollback('s.t')",
        CLEANUP,
    ] {
        assert_eq!(sqlstate(&mut client, call), "PR012", "{call}");
    }
    run(&mut client, &["DROP TABLE s.t CASCADE"]);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM partition_router.status"),
        0
    );
}

#[test]
fn cleanup_can_keep_the_legacy_as_a_table_of_its_own() {
    let database = Database::new("keep");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            THERE,
            "CALL partition_router.cleanup('s.t', keep_legacy => true)",
            "INSERT INTO s.t (at, org) VALUES ('2025-03-03', 1)",
            "DELETE FROM s.orgs WHERE id = 3",
        ],
    );
    assert_eq!(phase(&mut client), "done");
    // Sync is off, and the foreign keys of both act.
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT (SELECT count(*) FROM s.t) - (SELECT count(*) FROM s.t_legacy)"
        ),
        1
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM s.t_legacy WHERE org = 3"),
        0
    );
    run(&mut client, &["DROP TABLE s.t_legacy"]);
}

#[test]
fn cleanup_drops_nothing_that_somebody_refers_to() {
    let database = Database::new("refers");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            "CREATE TABLE s.child (id int PRIMARY KEY, parent int REFERENCES s.t)",
            THERE,
        ],
    );
    let refused = |client: &mut postgres::Client, what: &str| {
        let error = client.batch_execute(CLEANUP).expect_err(what);
        let error = error.as_db_error().expect("the server answered");
        assert_eq!(error.code().code(), "PR021", "{error:?}");
        assert!(
            error.detail().is_some_and(|d| d.to_lowercase().contains(what)),
            "{error:?}"
        );
    };
    refused(&mut client, "foreign key \"child_parent_fkey\" of s.child");
    assert_eq!(phase(&mut client), "switched");
    run(
        &mut client,
        &[
            "ALTER TABLE s.child DROP CONSTRAINT child_parent_fkey",
            "CREATE VIEW s.old AS SELECT * FROM s.t_legacy",
        ],
    );
    refused(&mut client, "view s.old");
    equal(&mut client, true);
    run(&mut client, &["DROP VIEW s.old", CLEANUP]);
}
