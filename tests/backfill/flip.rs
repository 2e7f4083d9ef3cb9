//! From the drain to live: what writers wait for, and what they do not.

use crate::common::plant;

use super::{ROWS, capture, finish, one, pid, run, stage, step, steps_until, two_sessions, until};

/// More keys than a log may hold that the flip reads: they are drained, and their rows stay behind.
const KEYS_OF_A_LONG_LOG: i64 = 520_000;

#[test]
fn a_long_log_is_set_aside_and_no_key_of_it_or_of_the_new_one_is_lost() {
    let (database, mut backfill, mut writer) = two_sessions("aside");
    capture(&mut backfill, "a");
    steps_until(&mut backfill, "a", "drain");
    // Keys of rows that there are not: what capture would have written for rows that came and went.
    run(
        &mut writer,
        &[&format!(
            "INSERT INTO partition_router.change_log_1 SELECT -g, '2026-01-01' FROM generate_series(1, {KEYS_OF_A_LONG_LOG}) g"
        )],
    );
    let aside = "SELECT to_regclass('partition_router.change_log_1_aside') IS NOT NULL";
    let mut steps = 0;
    while !one::<bool>(&mut backfill, aside) {
        assert_eq!(
            stage(&mut backfill, "a"),
            "drain",
            "the flip was to read a long log"
        );
        one::<bool>(
            &mut backfill,
            "SELECT partition_router.backfill_step('a', 200000)",
        );
        steps += 1;
        assert!(steps < 50, "it is never set aside");
    }
    // One key that the old log still holds, one in the new.
    run(
        &mut writer,
        &[
            "UPDATE a SET n = -1, d = d + 31 WHERE id = 2",
            "INSERT INTO partition_router.change_log_1_aside SELECT id, d FROM a WHERE id = 1",
        ],
    );
    plant(&mut writer, "a", &["UPDATE a SET n = -1 WHERE id = 1"]);
    // Writers are not in the way while the old log is drained: an open one holds the legacy and the new log.
    run(&mut writer, &["BEGIN", "UPDATE a SET n = -2 WHERE id = 3"]);
    while one::<bool>(&mut backfill, aside) {
        assert!(step(&mut backfill, "a"));
    }
    run(&mut writer, &["COMMIT"]);
    assert_eq!(finish(&mut backfill, "a"), ROWS);
    assert_eq!(
        one::<i64>(
            &mut backfill,
            "SELECT sum(n) FROM a_partitioned WHERE id IN (1, 2, 3)"
        ),
        -4
    );
    drop(database);
}

#[test]
fn the_flip_locks_no_partition_and_says_how_long_it_held_the_legacy() {
    let (database, mut backfill, mut reader) = two_sessions("flip_alone");
    capture(&mut backfill, "a");
    steps_until(&mut backfill, "a", "flip");
    // A reader of a partition would be in the way of a lock on it.
    run(&mut reader, &["BEGIN", "SELECT count(*) FROM a_2026_02"]);
    run(&mut backfill, &["BEGIN"]);
    assert!(step(&mut backfill, "a"));
    let strong: i64 = one(
        &mut backfill,
        "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN (SELECT relid FROM pg_partition_tree('a_partitioned'))
         AND mode IN ('ShareRowExclusiveLock', 'AccessExclusiveLock')",
    );
    assert_eq!(strong, 0);
    run(&mut backfill, &["COMMIT"]);
    assert!(one::<bool>(
        &mut backfill,
        "SELECT (detail->>'locked_ms')::numeric >= 0 FROM partition_router.run_log WHERE stage = 'LIVE'"
    ));
    assert_eq!(stage(&mut backfill, "a"), "finish");
    run(&mut reader, &["COMMIT"]);
    finish(&mut backfill, "a");
    drop(database);
}

#[test]
fn a_twin_whose_triggers_lie_ready_still_refuses_writes_until_the_flip_commits() {
    let (_database, mut backfill, mut other) = two_sessions("ready");
    capture(&mut backfill, "a");
    steps_until(&mut backfill, "a", "flip");
    run(&mut backfill, &["BEGIN"]);
    assert!(step(&mut backfill, "a"));
    // Not committed: the other session must not see it as live.
    for statement in [
        "INSERT INTO a_partitioned VALUES (90000, '2026-01-02')",
        "INSERT INTO a_2026_01 VALUES (90000, '2026-01-02')",
        "UPDATE a_2026_01 SET n = 5",
    ] {
        assert_eq!(
            crate::common::sqlstate(&mut other, statement),
            "PR012",
            "{statement}"
        );
    }
    run(&mut backfill, &["COMMIT"]);
    run(
        &mut other,
        &["INSERT INTO a_2026_01 VALUES (90000, '2026-01-02')"],
    );
    assert_eq!(finish(&mut backfill, "a"), ROWS + 1);
}

#[test]
fn a_reader_of_the_change_log_is_not_in_the_way_of_the_flip() {
    let (database, mut backfill, mut reader) = two_sessions("reader");
    capture(&mut backfill, "a");
    // As a dump of the database does.
    run(
        &mut reader,
        &["BEGIN", "SELECT count(*) FROM partition_router.change_log_1"],
    );
    let call = std::thread::spawn({
        let backend = pid(&mut backfill);
        move || {
            run(&mut backfill, &["CALL partition_router.backfill('a')"]);
            (backfill, backend)
        }
    });
    let mut watcher = database.connect();
    until(&mut watcher, "SELECT phase = 'live' FROM partition_router.pair");
    run(&mut watcher, &["INSERT INTO a VALUES (90000, '2026-01-02')"]);
    run(&mut reader, &["COMMIT"]);
    let (mut backfill, _) = call.join().expect("the call ends");
    assert_eq!(finish(&mut backfill, "a"), ROWS + 1);
}
