//! A snapshot reads the twin only if it sees the pair live and proven.

use crate::common::{Database, one, run};
use crate::{Routed, SIDE, TABLES};

#[test]
fn a_snapshot_older_than_the_pair_reads_the_legacy() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = Database::new("old_snapshot");
        let mut client = database.connect();
        run(&mut client, TABLES);
        let mut old = Routed::session(&database);
        run(
            &mut old,
            &[
                &format!("BEGIN ISOLATION LEVEL {level}"),
                "SELECT count(*) FROM pg_class",
            ],
        );
        run(&mut client, &["CALL partition_router.migrate('revenues', 'at')"]);
        for _ in 0..3 {
            assert_eq!(one::<String>(&mut old, SIDE), "legacy", "{level}");
            assert_eq!(
                one::<i64>(&mut old, "SELECT count(*) FROM revenues"),
                500,
                "{level}"
            );
        }
        run(&mut old, &["COMMIT"]);
        crate::plant(
            &mut client,
            "revenues_partitioned",
            &["UPDATE revenues_partitioned SET side = 'twin'"],
        );
        assert_eq!(one::<String>(&mut old, SIDE), "twin", "{level}");
    }
}

#[test]
fn a_cached_plan_for_the_twin_is_not_run_under_an_older_snapshot() {
    let mut routed = Routed::new("old_plan");
    let mut other = routed.database.connect();
    routed.run(&[
        "SET plan_cache_mode = force_generic_plan",
        "PREPARE p AS SELECT DISTINCT side FROM revenues",
    ]);
    run(&mut other, &["SELECT partition_router.verify('revenues')"]);
    assert_eq!(routed.one::<String>("EXECUTE p"), "legacy");
    let mut old = Routed::session(&routed.database);
    run(
        &mut old,
        &[
            "SET plan_cache_mode = force_generic_plan",
            "PREPARE p AS SELECT DISTINCT side FROM revenues",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
        ],
    );
    assert_eq!(one::<String>(&mut old, "EXECUTE p"), "legacy");
    // Proven again, so to say: a proof would see the difference that the tests go by. A change of the table's description tells
    // all sessions to look, as a proof does.
    run(
        &mut other,
        &[
            "BEGIN; UPDATE partition_router.pair SET verified_at = clock_timestamp(), refuted_at = NULL;
           GRANT SELECT ON revenues TO PUBLIC; COMMIT",
        ],
    );
    for _ in 0..3 {
        assert_eq!(one::<String>(&mut old, "EXECUTE p"), "legacy", "an old snapshot");
        assert_eq!(one::<String>(&mut old, SIDE), "legacy", "an old snapshot");
        assert_eq!(routed.one::<String>("EXECUTE p"), "twin", "a new one");
    }
    run(&mut old, &["COMMIT"]);
    assert_eq!(one::<String>(&mut old, "EXECUTE p"), "twin");
    run(&mut old, &["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
    assert_eq!(one::<String>(&mut old, "EXECUTE p"), "twin");
    run(&mut other, &["SELECT partition_router.verify('revenues')"]);
    assert_eq!(
        one::<String>(&mut old, "EXECUTE p"),
        "twin",
        "its snapshot saw the proof"
    );
    assert_eq!(routed.one::<String>("EXECUTE p"), "legacy");
}

#[test]
fn a_pair_that_was_let_go_of_is_read_from_the_legacy_under_an_old_snapshot() {
    let mut routed = Routed::new("gone");
    let mut other = routed.database.connect();
    routed.run(&["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
    assert_eq!(
        routed.one::<i64>("SELECT count(*) FROM pg_class WHERE relname = 'revenues'"),
        1
    );
    run(&mut other, &["SELECT partition_router.abandon('revenues')"]);
    assert_eq!(routed.side(), "legacy");
    routed.run(&["COMMIT"]);
    assert_eq!(routed.side(), "legacy");
}

#[test]
fn a_pair_made_anew_is_not_read_by_a_snapshot_that_sees_the_one_before() {
    let mut routed = Routed::new("anew");
    let mut other = routed.database.connect();
    routed.run(&["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
    assert_eq!(
        routed.one::<i64>("SELECT count(*) FROM pg_class WHERE relname = 'revenues'"),
        1
    );
    run(
        &mut other,
        &[
            "SELECT partition_router.abandon('revenues')",
            "CALL partition_router.migrate('revenues', 'at')",
        ],
    );
    for _ in 0..2 {
        assert_eq!(routed.one::<i64>("SELECT count(*) FROM revenues"), 500);
        assert_eq!(routed.side(), "legacy");
    }
    routed.run(&["COMMIT"]);
}

#[test]
fn a_snapshot_older_than_a_change_of_partitions_reads_the_legacy() {
    let mut routed = Routed::new("layout");
    let mut other = routed.database.connect();
    run(
        &mut other,
        &["INSERT INTO revenues (org, at, side) VALUES ('far', '2031-05-05', 'both')"],
    );
    let count = "SELECT count(*) FROM revenues WHERE at = '2031-05-05'";
    routed.run(&[
        "SET plan_cache_mode = force_generic_plan",
        &format!("PREPARE p AS {count}"),
        "EXECUTE p",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
    ]);
    // It locks no partition, so that one can be made.
    assert_eq!(
        routed.one::<i64>("SELECT count(*) FROM pg_class WHERE relname = 'revenues'"),
        1
    );
    run(
        &mut other,
        &[
            "SELECT partition_router.create_range_partition('revenues', 'revenues_far', '2031-05-01', '2031-06-01')",
        ],
    );
    for _ in 0..2 {
        assert_eq!(routed.one::<i64>(count), 1, "an old snapshot");
        assert_eq!(routed.one::<i64>("EXECUTE p"), 1, "an old snapshot");
    }
    let told: String = routed.one(
        "SELECT reason FROM partition_router.routing_stats WHERE reason ~ 'partitions' AND decisions = 4",
    );
    assert_eq!(told, "the snapshot is older than a change of partitions");
    routed.run(&["COMMIT"]);
    assert_eq!(routed.one::<i64>("EXECUTE p"), 1, "a new one");
    assert_eq!(
        routed.one::<String>("SELECT DISTINCT side FROM revenues WHERE org = '3'"),
        "twin"
    );
}
