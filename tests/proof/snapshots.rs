//! Both sides are read under one snapshot, by workers too, and what a proof remembers is what that snapshot saw.

use crate::common::{Cluster, one, plant, run};
use crate::{live, live_on, told, truth};
use postgres::Client;
use std::sync::Arc;

const WORKERS: [u32; 2] = [1, 3];

/// Rows of both sides by `verify`, and whether they match.
fn counted(client: &mut Client, full: bool) -> (i64, i64, bool) {
    let row = client
        .query_one(
            &format!(
                "SELECT sum(legacy_rows)::bigint, sum(twin_rows)::bigint, bool_and(matches)
                 FROM partition_router.verify('t', 'checksum', full => {full})"
            ),
            &[],
        )
        .expect("verify can be called");
    (row.get(0), row.get(1), row.get(2))
}

fn with_workers(client: &mut Client, workers: u32) {
    run(
        client,
        &[&format!("SET partition_router.verify_workers = {workers}")],
    );
}

#[test]
fn a_transaction_proves_what_its_snapshot_sees() {
    for workers in WORKERS {
        let (database, mut client) = live(&format!("old_snapshot_{workers}"));
        let mut other = database.connect();
        with_workers(&mut client, workers);
        run(&mut client, &["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM t"), 1000);
        run(
            &mut other,
            &[
                "DELETE FROM t WHERE id <= 100",
                "UPDATE t_partitioned SET at = at + 31 WHERE id BETWEEN 200 AND 300",
                "INSERT INTO t (id, at) VALUES (5000, '2026-01-01')",
            ],
        );
        assert_eq!(
            counted(&mut client, true),
            (1000, 1000, true),
            "{workers} workers"
        );
        assert_eq!(
            one::<i64>(
                &mut client,
                "SELECT count(*) FROM partition_router.mismatches('t')"
            ),
            0
        );
        run(&mut client, &["COMMIT"]);
        assert_eq!(counted(&mut client, true), (901, 901, true), "{workers} workers");
    }
}

#[test]
fn a_transaction_proves_its_own_uncommitted_writes() {
    for workers in WORKERS {
        let (_database, mut client) = live(&format!("own_writes_{workers}"));
        let c = &mut client;
        with_workers(c, workers);
        run(
            c,
            &[
                "BEGIN",
                "DELETE FROM t WHERE id <= 10",
                "SAVEPOINT s",
                "UPDATE t SET n = -1 WHERE id <= 20",
            ],
        );
        assert_eq!(counted(c, true), (990, 990, true), "{workers} workers");
        run(
            c,
            &[
                "ROLLBACK TO s",
                "INSERT INTO t (id, at) VALUES (6000, '2026-02-01')",
            ],
        );
        assert_eq!(counted(c, false), (991, 991, true), "{workers} workers");
        run(c, &["ROLLBACK"]);
        assert_eq!(counted(c, false), (1000, 1000, true), "{workers} workers");
        // What it broke itself, and did not commit.
        run(
            c,
            &[
                "SET partition_router.carry_ddl = off",
                "BEGIN",
                "ALTER TABLE t DISABLE TRIGGER USER",
            ],
        );
        run(c, &["DELETE FROM t WHERE id = 7"]);
        assert_eq!(counted(c, false), (999, 1000, false), "{workers} workers");
        run(c, &["ROLLBACK"]);
        assert_eq!(counted(c, false), (1000, 1000, true), "{workers} workers");
    }
}

#[test]
fn what_commits_after_a_proof_began_is_looked_at_by_the_next() {
    let (database, mut client) = live("late_commit");
    let c = &mut client;
    let mut other = database.connect();
    run(&mut other, &["SET partition_router.carry_ddl = off"]);
    let leaf: String = one(
        c,
        "SELECT tableoid::regclass::text FROM t_partitioned WHERE id = 5",
    );
    for (what, statement) in [
        ("update", "UPDATE {} SET n = -1 WHERE id = 5"),
        ("delete", "DELETE FROM {} WHERE id = 5"),
        ("insert", "INSERT INTO {} SELECT 7000, at, v FROM {} WHERE id = 5"),
    ] {
        run(
            c,
            &["SELECT partition_router.repair('t')", "VACUUM t_partitioned"],
        );
        assert!(told(c) && told(c));
        // The writer began before the proof, and commits after it: disabling takes a lock that its writes do not.
        run(&mut other, &[&format!("ALTER TABLE {leaf} DISABLE TRIGGER USER")]);
        run(&mut other, &["BEGIN", &statement.replace("{}", &leaf)]);
        assert!(told(c), "{what}: nothing is committed");
        assert!(told(c), "{what}: nothing is committed");
        run(&mut other, &["COMMIT"]);
        assert!(!truth(c));
        assert!(!told(c), "{what}: it came after the proof's snapshot");
        plant(c, &leaf, &[]);
    }
}

#[test]
fn what_a_prepared_transaction_commits_later_is_looked_at() {
    let (_database, mut client) = live("prepared");
    let c = &mut client;
    let leaf: String = one(
        c,
        "SELECT tableoid::regclass::text FROM t_partitioned WHERE id = 5",
    );
    run(
        c,
        &[
            "SET partition_router.carry_ddl = off",
            &format!("ALTER TABLE {leaf} DISABLE TRIGGER USER"),
            "BEGIN",
            &format!("UPDATE {leaf} SET n = -1 WHERE id = 5"),
            "PREPARE TRANSACTION 'later'",
        ],
    );
    assert!(told(c) && told(c));
    run(c, &["COMMIT PREPARED 'later'"]);
    assert!(!told(c));
}

#[test]
fn a_proof_under_an_old_snapshot_does_not_vouch_for_what_came_since() {
    for vacuum in [false, true] {
        let (database, mut client) = live("old_proof");
        let c = &mut client;
        let mut old = database.connect();
        assert!(told(c));
        run(
            &mut old,
            &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM t"],
        );
        plant(c, "t", &["UPDATE t SET n = -1 WHERE id = 5"]);
        if vacuum {
            run(c, &["VACUUM t", "VACUUM t_partitioned"]);
        }
        // The pair's row is one that the old snapshot can still write: nobody has since.
        assert!(told(&mut old), "its snapshot saw no fault");
        run(&mut old, &["COMMIT"]);
        assert!(
            !told(c),
            "the fault is older than the last proof, and younger than its snapshot"
        );
    }
}

#[test]
fn a_write_behind_the_proof_in_its_own_transaction_is_looked_at_by_the_next() {
    let (_database, mut client) = live("behind");
    let c = &mut client;
    run(
        c,
        &[
            "VACUUM t",
            "VACUUM t_partitioned",
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE t DISABLE TRIGGER USER",
            "BEGIN",
        ],
    );
    assert!(told(c));
    run(c, &["UPDATE t SET n = -1 WHERE id = 5", "COMMIT"]);
    assert!(!told(c));
}

#[test]
fn a_proof_that_was_rolled_back_is_not_remembered() {
    let (_database, mut client) = live("undone");
    let c = &mut client;
    plant(c, "t", &["UPDATE t SET n = -1 WHERE id = 5"]);
    run(c, &["BEGIN", "SELECT partition_router.repair('t')"]);
    assert!(told(c));
    run(c, &["ROLLBACK"]);
    assert!(!told(c));
    // In a subtransaction too.
    run(
        c,
        &["BEGIN", "SAVEPOINT s", "SELECT partition_router.repair('t')"],
    );
    assert!(told(c));
    run(c, &["ROLLBACK TO s", "COMMIT"]);
    assert!(!told(c));
}

#[test]
fn workers_that_are_not_to_be_had_do_not_stop_a_proof() {
    let cluster = Arc::new(Cluster::start(&[
        "max_worker_processes=0",
        "max_parallel_workers=0",
    ]));
    let (_database, mut client) = live_on(cluster, "no_workers");
    with_workers(&mut client, 4);
    assert_eq!(counted(&mut client, true), (1000, 1000, true));
    plant(&mut client, "t", &["DELETE FROM t WHERE id = 5"]);
    assert_eq!(counted(&mut client, true), (999, 1000, false));
}

#[test]
fn the_digests_of_a_proof_do_not_depend_on_its_workers() {
    let (_database, mut client) = live("same_by_workers");
    let c = &mut client;
    let digests = |c: &mut Client, workers: u32| -> String {
        with_workers(c, workers);
        one(
            c,
            "SELECT string_agg(concat_ws(' ', partition, legacy_rows, twin_rows, legacy_checksum, twin_checksum), ',' ORDER BY partition)
             FROM partition_router.verify('t', 'checksum', full => true)",
        )
    };
    let first = digests(c, 1);
    for workers in [2, 3, 8] {
        assert_eq!(digests(c, workers), first, "{workers} workers");
    }
}
