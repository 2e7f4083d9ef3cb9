//! DDL while the pair is prepared or copying, at every stage of the copy.

use super::{Pair, SIDES, one, run};
use std::time::{Duration, Instant};

const STAGE: &str = "SELECT coalesce((SELECT stage FROM partition_router.copy_state), 'none')";

/// A pair that has just come to `stage` (`prepared`, `none`, `copy`, `index`, `drain`, `flip`, `finish`), in batches of 20
/// rows while the legacy is being written.
fn at(test: &str, stage: &str) -> Pair {
    let mut pair = Pair::unpaired(test);
    pair.run(&[
        "ALTER TABLE a ADD COLUMN pad text DEFAULT repeat('x', 1500)",
        "UPDATE a SET pad = repeat('y', 1500)",
        "VACUUM FULL a",
        "SELECT partition_router.create_twin('a', 'd')",
    ]);
    if stage == "prepared" {
        return pair;
    }
    // While a transaction of any test is older than these rows, they come by the log, and a copy has none.
    let is_settled = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint > (SELECT max(xmin::text::bigint) FROM a)";
    while !pair.one::<bool>(is_settled) {
        std::thread::yield_now();
    }
    pair.run(&["SELECT partition_router.start_sync('a')"]);
    if stage == "none" {
        return pair;
    }
    for i in 0..200 {
        pair.run(&["SELECT partition_router.backfill_step('a', 20)"]);
        if pair.one::<String>(STAGE) == stage {
            return pair;
        }
        let id = 600 + i;
        pair.run(&[&format!(
            "INSERT INTO a VALUES ({id}, '2026-02-01', {id}, 1, 'new')"
        )]);
    }
    panic!("the copy does not come to {stage}");
}

fn finish(pair: &mut Pair) {
    if pair.one::<String>("SELECT phase FROM partition_router.pair") == "prepared" {
        pair.run(&["SELECT partition_router.start_sync('a')"]);
    }
    pair.run(&["CALL partition_router.backfill('a')"]);
    pair.in_step();
}

const STAGES: [&str; 7] = ["prepared", "none", "copy", "index", "drain", "flip", "finish"];

#[test]
fn columns_change_at_every_stage_of_the_copy() {
    for stage in STAGES {
        for side in SIDES {
            let mut pair = at("columns", stage);
            pair.run(&[
                &format!("ALTER TABLE {side} ADD COLUMN x int NOT NULL DEFAULT 7, DROP COLUMN t"),
                &format!("ALTER TABLE {side} RENAME COLUMN d TO day"),
                "INSERT INTO a (id, day, u, n) VALUES (5000, '2026-02-01', 5000, 1)",
                "UPDATE a SET n = n + 1 WHERE id < 30",
                "DELETE FROM a WHERE id IN (31, 61, 91)",
                &format!("ALTER TABLE {side} ALTER n TYPE bigint USING n * 2, ALTER n SET DEFAULT 4"),
                "UPDATE a SET day = '2026-03-03', u = u + 5000 WHERE id BETWEEN 40 AND 50",
            ]);
            finish(&mut pair);
            assert_eq!(
                pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE x = 7"),
                pair.rows()
            );
        }
    }
}

#[test]
fn checks_added_at_any_stage_do_not_stop_the_copy_and_are_proven_at_its_end() {
    for stage in STAGES {
        let mut pair = at("checks", stage);
        pair.run(&[
            // What was copied of these breaks the check until it is drained.
            "UPDATE a SET n = -n WHERE id % 3 = 0",
            "UPDATE a SET n = abs(n)",
        ]);
        if stage == "copy" || stage == "index" {
            let stale = "SELECT count(*) FROM a_partitioned WHERE n = 5";
            pair.run(&["UPDATE a SET n = 6 WHERE n = 5"]);
            assert_eq!(pair.one::<i64>(stale), i64::from(stage == "index"), "{stage}");
        }
        pair.run(&[
            "UPDATE a SET n = 6 WHERE n = 5",
            "ALTER TABLE a ADD CONSTRAINT not5 CHECK (n <> 5)",
        ]);
        finish(&mut pair);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM pg_constraint WHERE conname = 'not5' AND convalidated"),
            2 + pair
                .one::<i64>("SELECT count(*) FROM pg_inherits WHERE inhparent = 'a_partitioned'::regclass"),
            "{stage}"
        );
    }
}

#[test]
fn a_check_that_old_rows_break_does_not_stop_the_copy_and_comes_to_the_twin_at_its_end() {
    for stage in STAGES {
        let mut pair = at("not_valid", stage);
        pair.run(&[
            "UPDATE a SET n = -5 WHERE id IN (3, 40, 100)",
            "ALTER TABLE a ADD CONSTRAINT positive CHECK (n > 0) NOT VALID",
        ]);
        finish(&mut pair);
        let proven = "SELECT count(*) FROM pg_constraint WHERE conname = 'positive' AND convalidated";
        assert_eq!(pair.one::<i64>(proven), 0, "{stage}");
        pair.run(&[
            "DELETE FROM a WHERE id IN (3, 40)",
            "UPDATE a_partitioned SET n = 5 WHERE id = 100",
            "ALTER TABLE a VALIDATE CONSTRAINT positive",
        ]);
        pair.in_step();
    }
}

#[test]
fn indexes_made_or_dropped_at_any_stage_are_the_same_at_the_end() {
    for stage in STAGES {
        let mut pair = at("indexes", stage);
        pair.run(&["CREATE INDEX i ON a (n)", "CREATE UNIQUE INDEX j ON a (t, id, d)"]);
        if stage == "index" {
            pair.refuses("DROP INDEX i", "giving indexes");
            pair.refuses("ALTER TABLE a DROP CONSTRAINT a_u_d_key", "giving indexes");
        } else {
            pair.run(&[
                "CREATE INDEX k ON a (n, u)",
                "DROP INDEX i",
                "ALTER TABLE a DROP CONSTRAINT a_u_d_key",
            ]);
        }
        finish(&mut pair);
    }
}

#[test]
fn an_index_built_concurrently_during_the_copy_is_on_both_sides_at_its_end() {
    for stage in ["prepared", "none", "copy", "index", "drain", "flip"] {
        let mut pair = at("concurrently", stage);
        pair.run(&["CREATE INDEX CONCURRENTLY ON a (n)"]);
        finish(&mut pair);
    }
}

#[test]
fn foreign_keys_added_or_dropped_at_any_stage_are_the_same_at_the_end() {
    for stage in STAGES {
        let mut pair = at("keys", stage);
        pair.run(&[
            "UPDATE a SET n = 1",
            "ALTER TABLE a ADD CONSTRAINT fk FOREIGN KEY (n) REFERENCES parents",
        ]);
        if stage == "finish" {
            pair.refuses("ALTER TABLE a DROP CONSTRAINT fk", "giving foreign keys");
        } else {
            pair.run(&[
                "ALTER TABLE a ADD CONSTRAINT fk2 FOREIGN KEY (n) REFERENCES parents",
                "ALTER TABLE a DROP CONSTRAINT fk",
            ]);
        }
        finish(&mut pair);
    }
}

/// Runs `statement` in a transaction that stays open while another session goes on with the backfill, until that waits.
fn while_the_backfill_goes_on(pair: &mut Pair, statement: &str) {
    let (mut ddl, mut backfill) = (pair.database.connect(), pair.database.connect());
    run(&mut ddl, &["BEGIN", statement]);
    let pid: i32 = one(&mut backfill, "SELECT pg_backend_pid()");
    let going_on = std::thread::spawn(move || run(&mut backfill, &["CALL partition_router.backfill('a')"]));
    let started = Instant::now();
    while !pair.one::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the backfill does not wait"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    run(&mut ddl, &["COMMIT"]);
    going_on.join().expect("the backfill ends");
    pair.in_step();
}

/// Goes on until the last stage has given every partition its keys, and the root is next.
fn until_partitions_are_done(pair: &mut Pair) {
    // ANALYZE comes before the partitions.
    while !pair.one::<bool>(
        "SELECT next_block >= 1 AND NOT EXISTS (SELECT FROM partition_router.copy_task)
         FROM partition_router.copy_state",
    ) {
        pair.run(&["SELECT partition_router.backfill_step('a', 20)"]);
        let now: String = pair.one("SELECT stage FROM partition_router.copy_state");
        assert_eq!(now, "finish", "the root is done, too");
    }
}

#[test]
fn an_index_that_is_not_committed_when_the_backfill_makes_the_last_is_on_both_sides() {
    // The step that gives the last partitions their indexes goes on to the root: that is where it waits.
    let mut pair = at("index_race", "index");
    while_the_backfill_goes_on(&mut pair, "CREATE INDEX ON a (n)");
}

#[test]
fn a_foreign_key_that_is_not_committed_when_the_backfill_makes_the_last_is_on_both_sides() {
    let mut pair = at("key_race", "finish");
    pair.run(&["UPDATE a SET n = 1"]);
    until_partitions_are_done(&mut pair);
    while_the_backfill_goes_on(&mut pair, "ALTER TABLE a ADD FOREIGN KEY (n) REFERENCES parents");
}

#[test]
fn the_type_of_a_key_column_stays_while_its_values_are_logged() {
    let mut pair = at("key_type", "copy");
    pair.refuses("ALTER TABLE a ALTER id TYPE bigint", "change log of the copy");
    finish(&mut pair);
    pair.run(&["ALTER TABLE a ALTER id TYPE bigint"]);
    pair.in_step();
}

#[test]
fn partitions_made_by_hand_during_the_copy_are_in_sync_when_it_ends() {
    for stage in STAGES {
        let mut pair = at("by_hand", stage);
        pair.run(&[
            "CREATE TABLE made PARTITION OF a_partitioned FOR VALUES FROM ('2090-01-01') TO ('2090-02-01')",
            "INSERT INTO a VALUES (7000, '2090-01-05', 7000, 1, 'x')",
        ]);
        finish(&mut pair);
        pair.run(&[
            "UPDATE made SET n = 2",
            "INSERT INTO made VALUES (7001, '2090-01-06', 7001, 1, 'y')",
        ]);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a WHERE id >= 7000 AND n < 3"),
            2
        );
        pair.in_step();
    }
}

#[test]
fn a_twin_can_be_abandoned_after_any_of_this() {
    let mut pair = at("abandon", "drain");
    let before = pair.shape("a");
    pair.run(&[
        "ALTER TABLE a ADD COLUMN x int",
        "ALTER TABLE a_partitioned DROP COLUMN x",
        "SELECT partition_router.abandon('a')",
    ]);
    assert_eq!(pair.shape("a"), before);
}
