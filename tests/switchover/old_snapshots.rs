//! Snapshots that do not see what was copied keep the names as they are; younger ones do not, however old their oldest
//! transaction looks.

use super::common::{Database, one, plant, run};
use super::refused::refused;
use super::{BACK, TABLES, THERE};
use postgres::Client;

const OLD: &[&str] = &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT FROM pg_class"];

/// A database with the table that is to be migrated.
fn unmigrated(name: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, &TABLES[..TABLES.len() - 1]);
    (database, client)
}

const MIGRATE: &str = "CALL partition_router.migrate('s.t', 'at')";

/// Asserts that the names cannot swap because of a session, which still reads all rows.
fn is_in_the_way(client: &mut Client, old: &mut Client, call: &str) {
    let error = refused(client, call);
    assert_eq!(error.code().code(), "55P03", "{error:?}");
    let pid: i32 = one(old, "SELECT pg_backend_pid()");
    assert!(
        error.detail().is_some_and(|d| d.contains(&format!("pid {pid} "))),
        "{error:?}"
    );
    assert_eq!(one::<i64>(old, "SELECT count(*) FROM s.t"), 1000);
}

#[test]
fn a_snapshot_older_than_the_copy_keeps_the_names_as_they_are() {
    let (database, mut client) = unmigrated("snapshot");
    let mut old = database.connect();
    run(&mut old, OLD);
    run(&mut client, &[MIGRATE]);
    is_in_the_way(&mut client, &mut old, THERE);
    // Told by the number of the transaction when clocks were set back, and by the clock when it has none here: on a standby that
    // was promoted.
    for blind in ["visible_at = '-infinity'", "running_then = '{}'"] {
        run(
            &mut client,
            &[
                "BEGIN",
                &format!("UPDATE partition_router.copy_state SET {blind}"),
            ],
        );
        let plan = "SELECT partition_router.plan('switchover', 's.t')";
        is_in_the_way(&mut client, &mut old, plan);
        run(&mut client, &["ROLLBACK"]);
    }
    run(&mut old, &["COMMIT"]);
    run(&mut client, &[THERE]);
    // Younger snapshots see the twin's rows; they may span the swap.
    run(
        &mut old,
        &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1 FROM s.orgs"],
    );
    run(&mut client, &[BACK, THERE]);
    assert_eq!(one::<i64>(&mut old, "SELECT count(*) FROM s.t"), 1000);
}

#[test]
fn a_snapshot_younger_than_the_copy_is_not_in_the_way_while_an_older_transaction_is_open() {
    let (database, mut client) = unmigrated("young");
    // In another database, too, an open transaction makes each snapshot look as old as it is.
    let mut elsewhere = database.cluster.connect("postgres");
    run(&mut elsewhere, &["BEGIN", "SELECT pg_current_xact_id()"]);
    run(&mut client, &[MIGRATE]);
    let mut young = database.connect();
    run(&mut young, OLD);
    assert!(one::<bool>(
        &mut young,
        "SELECT age(a.backend_xmin) >= age(s.xmin) FROM pg_stat_activity a, partition_router.copy_state s
         WHERE a.pid = pg_backend_pid()"
    ));
    run(&mut client, &[THERE]);
    assert_eq!(one::<i64>(&mut young, "SELECT count(*) FROM s.t"), 1000);
    run(&mut elsewhere, &["COMMIT"]);
}

#[test]
fn a_snapshot_of_the_time_between_the_flip_and_the_end_of_the_copy_sees_it() {
    let (database, mut client) = unmigrated("between");
    run(
        &mut client,
        &[
            "SELECT partition_router.create_twin('s.t', 'at')",
            "SELECT partition_router.start_sync('s.t')",
        ],
    );
    let stage = "SELECT coalesce((SELECT stage FROM partition_router.copy_state), 'begin')";
    let step = |client: &mut Client, until: &str| {
        while one::<String>(client, stage) != until {
            run(client, &["SELECT partition_router.backfill_step('s.t', 500)"]);
        }
    };
    let mut elsewhere = database.cluster.connect("postgres");
    run(&mut elsewhere, &["BEGIN", "SELECT pg_current_xact_id()"]);
    step(&mut client, "flip");
    let (mut before, mut after) = (database.connect(), database.connect());
    run(&mut before, OLD);
    step(&mut client, "finish");
    // The first step after the flip notes who was there before it, and it alone.
    run(
        &mut client,
        &["SELECT partition_router.backfill_step('s.t', 500)"],
    );
    run(&mut after, OLD);
    run(&mut client, &["CALL partition_router.backfill('s.t')"]);
    is_in_the_way(&mut client, &mut before, THERE);
    run(&mut before, &["COMMIT"]);
    run(&mut client, &[THERE]);
    assert_eq!(one::<i64>(&mut after, "SELECT count(*) FROM s.t"), 1000);
    run(&mut elsewhere, &["COMMIT"]);
}

#[test]
fn steps_of_one_transaction_do_not_take_its_end_for_the_past() {
    let (database, mut client) = unmigrated("one_transaction");
    run(
        &mut client,
        &[
            "SELECT partition_router.create_twin('s.t', 'at')",
            "SELECT partition_router.start_sync('s.t')",
        ],
    );
    run(&mut client, &["BEGIN"]);
    while one::<String>(
        &mut client,
        "SELECT coalesce((SELECT stage FROM partition_router.copy_state), 'begin')",
    ) != "done"
    {
        run(
            &mut client,
            &["SELECT partition_router.backfill_step('s.t', 500)"],
        );
    }
    let mut old = database.connect();
    run(&mut old, OLD);
    run(&mut client, &["COMMIT", "SELECT partition_router.verify('s.t')"]);
    // Nobody has noted anything yet, and a plan changes nothing.
    let plan = "SELECT partition_router.plan('switchover', 's.t')";
    is_in_the_way(&mut client, &mut old, plan);
    is_in_the_way(&mut client, &mut old, THERE);
    run(&mut old, &["COMMIT"]);
    run(&mut client, &[THERE]);
}

#[test]
fn a_snapshot_older_than_a_repair_keeps_the_names_as_they_are() {
    let (database, mut client) = unmigrated("repaired");
    run(&mut client, &[MIGRATE]);
    plant(
        &mut client,
        "s.t_partitioned",
        &["DELETE FROM s.t_partitioned WHERE id = 7"],
    );
    let mut old = database.connect();
    run(&mut old, OLD);
    run(
        &mut client,
        &[
            "SELECT partition_router.repair('s.t')",
            "SELECT partition_router.verify('s.t')",
        ],
    );
    is_in_the_way(&mut client, &mut old, THERE);
    run(&mut old, &["COMMIT"]);
    run(&mut client, &[THERE]);
    // A repair that finds nothing to do says nothing of older snapshots.
    run(&mut old, OLD);
    run(
        &mut client,
        &[BACK, "SELECT partition_router.repair('s.t')", THERE],
    );
    assert_eq!(one::<i64>(&mut old, "SELECT count(*) FROM s.t"), 1000);
}

#[test]
fn a_snapshot_that_sees_rows_of_before_an_empty_beginning_keeps_the_names_as_they_are() {
    let (database, mut client) = unmigrated("emptied");
    let mut old = database.connect();
    run(&mut old, OLD);
    run(&mut client, &["DELETE FROM s.t", MIGRATE]);
    is_in_the_way(&mut client, &mut old, THERE);
    run(&mut old, &["COMMIT"]);
    run(&mut client, &[THERE]);
}
