//! Partitions that come and go, and DDL on the table and on its guard.

use super::common::{Database, one, run, texts};
use super::{breaks, guarded, in_step, refused};

#[test]
fn rows_that_retention_takes_leave_the_guard_and_their_ids_are_free() {
    for action in ["drop", "detach", "archive"] {
        let (_database, mut client) = guarded(action);
        run(
            &mut client,
            &[
                "CREATE SCHEMA old",
                &format!(
                    "SELECT partition_router.set_policy('s.t', retention => '20 months', retention_action => '{action}', archive_schema => 'old')"
                ),
                "CALL partition_router.run_maintenance('s.t')",
            ],
        );
        assert_eq!(
            texts(
                &mut client,
                "SELECT coalesce(message, '') FROM partition_router.maintenance_log WHERE status = 'failed'"
            ),
            [""; 0]
        );
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM s.t WHERE id = 1"),
            0,
            "{action}"
        );
        in_step(&mut client);
        assert_eq!(
            one::<i64>(
                &mut client,
                "SELECT count(*) FROM s.child WHERE NOT EXISTS (SELECT FROM s.t WHERE t.id = parent)"
            ),
            0
        );
        run(
            &mut client,
            &["INSERT INTO s.t (id, at) VALUES (1, '2025-06-06')"],
        );
        breaks(
            &mut client,
            "INSERT INTO s.t (id, at) VALUES (1, '2025-05-05')",
            "t_pkey",
        );
    }
}

#[test]
fn new_partitions_are_followed_and_full_ones_come_and_go_through_the_table() {
    let (_database, mut client) = guarded("partitions");
    run(
        &mut client,
        &[
            "SELECT partition_router.create_partitions('s.t', premake => 6)",
            "SELECT partition_router.create_range_partition('s.t', 't_far', '2031-01-01', '2031-02-01')",
            "CREATE TABLE s.t_hand PARTITION OF s.t FOR VALUES FROM ('2032-01-01') TO ('2032-02-01')",
            "CREATE TABLE s.t_late (LIKE s.t INCLUDING ALL)",
            "ALTER TABLE s.t ATTACH PARTITION s.t_late FOR VALUES FROM ('2033-01-01') TO ('2033-02-01')",
        ],
    );
    for (partition, at) in [
        ("t_far", "2031-01-05"),
        ("t_hand", "2032-01-05"),
        ("t_late", "2033-01-05"),
    ] {
        breaks(
            &mut client,
            &format!("INSERT INTO s.{partition} (id, at) VALUES (3, '{at}')"),
            "t_pkey",
        );
        run(
            &mut client,
            &[
                &format!("INSERT INTO s.{partition} (id, at) VALUES (DEFAULT, '{at}')").replace(
                    "DEFAULT",
                    &format!(
                        "{}",
                        9000 + partition.len() as i64 * 7
                            + at.len() as i64
                            + i64::from(partition.as_bytes()[2])
                    ),
                ),
            ],
        );
    }
    in_step(&mut client);
    run(
        &mut client,
        &[
            "CREATE TABLE s.full (LIKE s.t INCLUDING ALL)",
            "INSERT INTO s.full (id, at) VALUES (3, '2034-01-01')",
        ],
    );
    for statement in [
        "ALTER TABLE s.t ATTACH PARTITION s.full FOR VALUES FROM ('2034-01-01') TO ('2034-02-01')",
        "ALTER TABLE s.t DETACH PARTITION s.t_2025_02",
        "DROP TABLE s.t_2025_02",
        "DROP TRIGGER sync_to_legacy_t_i ON s.t",
        "DROP TRIGGER partition_router_guard ON s.t_unique",
    ] {
        assert_eq!(
            refused(&mut client, statement).code().code(),
            "PR019",
            "{statement}"
        );
    }
    assert_eq!(
        refused(
            &mut client,
            "SELECT partition_router.drop_partition('s.t_2025_02')"
        )
        .code()
        .code(),
        "55000"
    );
    run(
        &mut client,
        &[
            "DELETE FROM s.t_2025_02",
            "SELECT partition_router.drop_partition('s.t_2025_02')",
        ],
    );
    in_step(&mut client);
}

#[test]
fn columns_of_the_guard_change_with_it_and_others_as_they_like() {
    let (_database, mut client) = guarded("columns");
    run(
        &mut client,
        &[
            "ALTER TABLE s.t ADD COLUMN extra int DEFAULT 3",
            "ALTER TABLE s.t DROP COLUMN org",
            "CREATE INDEX ON s.t (extra)",
        ],
    );
    for statement in [
        "ALTER TABLE s.t DROP COLUMN code",
        "ALTER TABLE s.t RENAME COLUMN code TO label",
        "ALTER TABLE s.t ALTER COLUMN id TYPE bigint",
    ] {
        let error = refused(&mut client, statement);
        assert_eq!(error.code().code(), "PR019", "{statement}: {error:?}");
        assert!(
            error.hint().is_some_and(|h| h.contains("\"s\".\"t_unique\"")),
            "{error:?}"
        );
    }
    run(
        &mut client,
        &[
            "BEGIN",
            "ALTER TABLE s.t_unique RENAME COLUMN code TO label",
            "ALTER TABLE s.t RENAME COLUMN code TO label",
            "ALTER TABLE s.t_unique RENAME COLUMN at TO booked",
            "ALTER TABLE s.t RENAME COLUMN at TO booked",
            "ALTER TABLE s.t_unique ALTER COLUMN id TYPE bigint",
            "ALTER TABLE s.t ALTER COLUMN id TYPE bigint",
            "COMMIT",
            "UPDATE s.t SET booked = booked + interval '1 month' WHERE id < 30",
            "INSERT INTO s.t (id, booked, label) VALUES (30000000000, '2025-02-02', 'far')",
        ],
    );
    breaks(
        &mut client,
        "INSERT INTO s.t (id, booked) VALUES (30000000000, '2025-03-03')",
        "t_pkey",
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM s.t JOIN s.t_unique g USING (id, booked)"
        ),
        1001
    );
    // Out of step by hand: no row is taken that the guard cannot follow.
    run(
        &mut client,
        &["ALTER TABLE s.t_unique RENAME COLUMN label TO other"],
    );
    assert_eq!(
        refused(&mut client, "DELETE FROM s.t WHERE id = 4").code().code(),
        "PR015"
    );
}

#[test]
fn who_drops_the_guard_lets_go_of_it_and_who_drops_the_table_drops_both() {
    let (_database, mut client) = guarded("let_go");
    assert_eq!(
        refused(&mut client, "DROP TABLE s.t_unique").code().code(),
        "2BP01",
        "a key points at it"
    );
    assert_eq!(
        refused(&mut client, "DROP TABLE s.t").code().code(),
        "2BP01",
        "as for any table"
    );
    run(
        &mut client,
        &[
            "ALTER TABLE s.child DROP CONSTRAINT points",
            "DROP TABLE s.t_unique",
        ],
    );
    run(
        &mut client,
        &[
            "INSERT INTO s.t (id, at) VALUES (3, '2025-05-05')",
            "TRUNCATE s.t_2025_02",
        ],
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'sync\\_to%'"
        ),
        0
    );
    run(
        &mut client,
        &["CALL partition_router.run_maintenance()", "DROP TABLE s.t"],
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM partition_router.status"),
        0
    );

    let (_database, mut client) = guarded("both");
    run(&mut client, &["DROP TABLE s.child", "DROP TABLE s.t"]);
    assert!(one::<bool>(
        &mut client,
        "SELECT to_regclass('s.t_unique') IS NULL"
    ));
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM partition_router.status"),
        0
    );

    let (_database, mut client) = guarded("schema");
    run(&mut client, &["DROP SCHEMA s CASCADE"]);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM partition_router.status"),
        0
    );
}

#[test]
fn a_dump_that_is_restored_has_the_guard_in_force() {
    let (database, mut client) = guarded("dumped");
    run(&mut client, &["SELECT 1"]);
    let file = std::env::temp_dir().join(format!("{}.dump", database.name));
    let file = file.to_str().expect("UTF-8");
    database.program("pg_dump", &["-Fc", "-f", file, &database.name]);
    let restored = Database::new("guard_restored");
    let mut client = restored.connect();
    run(&mut client, &["DROP EXTENSION partition_router"]);
    restored.program("pg_restore", &["--exit-on-error", "-d", &restored.name, file]);
    std::fs::remove_file(file).expect("the dump is removed");
    in_step(&mut client);
    breaks(
        &mut client,
        "INSERT INTO s.t (id, at) VALUES (3, '2025-05-05')",
        "t_pkey",
    );
    run(
        &mut client,
        &["UPDATE s.t SET at = at + interval '2 months' WHERE id < 50"],
    );
    in_step(&mut client);
    assert_eq!(
        refused(&mut client, "DELETE FROM s.t_unique").code().code(),
        "PR022"
    );
}
