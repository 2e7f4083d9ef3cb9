//! Repair beside writers: at each point at which a row may change between being found and being mended.

use crate::common::{Database, is_stress, one, plant, run, sqlstate, texts};
use crate::{Slice, live, pid, repaired, told, truth, until, until_blocked};
use postgres::Client;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a repair inserted, updated and deleted; or its SQLSTATE.
pub type Counts = Result<(i64, i64, i64), String>;

/// Repairs where that may fail.
pub fn mended(client: &mut Client) -> Counts {
    client
        .query_one(
            "SELECT inserted, updated, deleted FROM partition_router.repair('t')",
            &[],
        )
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .map_err(|error| match error.as_db_error() {
            Some(db) => db.code().code().to_string(),
            None => error.to_string(),
        })
}

/// Rows 10, 11 and 12 differ, 20 and 21 are missing on the twin, 30 and 31 are only there.
fn plant_seven(client: &mut Client) {
    run(
        client,
        &[
            "TRUNCATE t",
            "INSERT INTO t SELECT g, date '2026-01-01' + g % 120, 'v' || g, g FROM generate_series(1, 100) g",
        ],
    );
    plant(
        client,
        "t_partitioned",
        &[
            "UPDATE t_partitioned SET n = -1 WHERE id IN (10, 11, 12)",
            "DELETE FROM t_partitioned WHERE id IN (20, 21)",
        ],
    );
    plant(client, "t", &["DELETE FROM t WHERE id IN (30, 31)"]);
}

/// Repairs in a session of its own while `holder` has a transaction open, which ends with `end` once the repair waits for
/// it, or is done.
fn repair_beside(database: &Database, holder: &mut Client, held: &str, end: &str) -> Counts {
    run(holder, &["BEGIN", held]);
    std::thread::scope(|scope| {
        let mut client = database.connect();
        let backend = pid(&mut client);
        let repairing = scope.spawn(move || mended(&mut client));
        until_blocked_or_done(&mut database.connect(), backend);
        run(holder, &[end]);
        repairing.join().expect("the session lives")
    })
}

/// Whether a change can be made: one that a fault makes impossible fails with its reason, and is none.
fn is_possible(client: &mut Client, change: &str) -> bool {
    run(client, &["BEGIN"]);
    let possible = client.batch_execute(change).is_ok();
    run(client, &["ROLLBACK"]);
    possible
}

type Outcome = Result<(), String>;

/// Runs a statement in a session of its own; gives its backend, and the SQLSTATE with which it failed.
fn outcome_of<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    database: &Database,
    statement: &str,
) -> (i32, std::thread::ScopedJoinHandle<'scope, Outcome>) {
    let mut client = database.connect();
    // Who finds a deadlock gives way at once.
    run(&mut client, &["SET deadlock_timeout = '20ms'"]);
    let backend = pid(&mut client);
    let statement = statement.to_string();
    let outcome = scope.spawn(move || {
        client
            .batch_execute(&statement)
            .map_err(|error| match error.as_db_error() {
                Some(db) => db.code().code().to_string(),
                None => error.to_string(),
            })
    });
    (backend, outcome)
}

/// Waits until that session waits for a lock, or is done with what it was given.
fn until_blocked_or_done(client: &mut Client, backend: i32) {
    until(
        client,
        &format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {backend} AND NOT granted)
                OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend} AND query !~ 'pg_backend_pid' AND state = 'active')
               AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend} AND query ~ 'pg_backend_pid')"
        ),
    );
}

/// A change of one row, as sessions make it between the moments of a repair.
const CHANGES: &[(&str, &str)] = &[
    ("changed", "UPDATE t SET n = 777 WHERE id = {id}"),
    (
        "changed on the twin",
        "UPDATE t_partitioned SET n = 777 WHERE id = {id}",
    ),
    ("deleted", "DELETE FROM t WHERE id = {id}"),
    ("moved", "UPDATE t SET at = at + 31 WHERE id = {id}"),
    (
        "given another key",
        "UPDATE t SET id = id + 10000 WHERE id = {id}",
    ),
    (
        "deleted and made again",
        "DELETE FROM t WHERE id = {id}; INSERT INTO t (id, at, n) VALUES ({id}, '2026-03-03', 8)",
    ),
    (
        "made",
        "INSERT INTO t (id, at, n) SELECT {id}, date '2026-01-01' + {id}, 9 WHERE NOT EXISTS (SELECT FROM t WHERE id = {id})",
    ),
    (
        "made elsewhere",
        "INSERT INTO t (id, at, n) SELECT {id}, date '2026-04-01', 9 WHERE NOT EXISTS (SELECT FROM t WHERE id = {id})",
    ),
];

/// All rows of the legacy, in one text.
fn legacy(client: &mut Client) -> String {
    one(client, "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t")
}

fn assert_mended(database: &Database, what: &str) {
    let mut client = database.connect();
    let c = &mut client;
    let before = legacy(c);
    let left = texts(
        c,
        "SELECT concat_ws(' ', kind, key) FROM partition_router.mismatches('t')",
    );
    assert!(truth(c), "{what}: {left:?}");
    assert!(told(c), "{what}");
    assert_eq!(repaired(c), (0, 0, 0), "{what}");
    assert_eq!(legacy(c), before, "{what}: repair changed the legacy");
}

#[test]
fn a_row_that_changes_while_its_repair_waits_for_it_ends_equal() {
    let (database, mut client) = live("waits");
    let mut slice = Slice::of(3);
    for (what, change) in CHANGES {
        for id in [10, 20, 30] {
            for end in ["COMMIT", "ROLLBACK"] {
                if !slice.takes() {
                    continue;
                }
                plant_seven(&mut client);
                let change = change.replace("{id}", &id.to_string());
                if !is_possible(&mut client, &change) {
                    continue;
                }
                let what = format!("row {id} {what}, {end}");
                let mut holder = database.connect();
                let counts = repair_beside(&database, &mut holder, &change, end);
                assert!(counts.is_ok(), "{what}: {counts:?}");
                assert_mended(&database, &what);
            }
        }
    }
}

#[test]
fn a_row_that_changes_behind_the_back_of_a_repair_that_found_it_ends_equal() {
    let (database, mut client) = live("behind_back");
    for (what, change) in CHANGES {
        for (held, changed) in [
            (10, 11),
            (11, 10),
            (10, 21),
            (20, 11),
            (10, 31),
            (20, 31),
            (21, 20),
        ] {
            plant_seven(&mut client);
            let change = change.replace("{id}", &changed.to_string());
            if !is_possible(&mut client, &change) {
                continue;
            }
            let what = format!("row {changed} {what} while the repair waits for row {held}");
            let mut holder = database.connect();
            run(
                &mut holder,
                &["BEGIN", &format!("SELECT FROM t WHERE id = {held} FOR UPDATE")],
            );
            std::thread::scope(|scope| {
                let repairing = outcome_of(scope, &database, "SELECT partition_router.repair('t')");
                until_blocked(&mut client, repairing.0);
                // The repair may hold this row already: then the writer waits for it, and comes after it.
                let writing = outcome_of(scope, &database, &change);
                until_blocked_or_done(&mut client, writing.0);
                run(&mut holder, &["COMMIT"]);
                // A write of the twin takes its row first, a repair the legacy's: one of both may have to give way.
                for (whose, outcome) in [("repair", repairing.1), ("write", writing.1)] {
                    let outcome = outcome.join().expect("the session lives");
                    assert!(
                        outcome.is_ok() || outcome == Err("40P01".into()),
                        "{what}: {whose}: {outcome:?}"
                    );
                    if outcome.is_err() {
                        run(&mut client, &["SELECT partition_router.repair('t')"]);
                    }
                }
            });
            assert_mended(&database, &what);
        }
    }
}

#[test]
fn a_repair_counts_what_it_did_and_not_what_it_found() {
    let (database, mut client) = live("counts_done");
    plant_seven(&mut client);
    let mut holder = database.connect();
    // Row 10 is mended by the writer itself, whose change sync carries; so it is found, and found equal.
    let held = "UPDATE t SET n = 777 WHERE id = 10";
    let counts = repair_beside(&database, &mut holder, held, "COMMIT").expect("it repairs");
    let carried: i64 = one(
        &mut client,
        "SELECT count(*) FROM t_partitioned WHERE id = 10 AND n = 777",
    );
    assert_eq!(carried, 1);
    assert_eq!(counts, (2, 2, 2));
    assert_mended(&database, "counts");
}

#[test]
fn a_second_repair_beside_the_first_is_refused_or_finds_nothing() {
    let (database, mut client) = live("two_repairs");
    plant_seven(&mut client);
    let mut holder = database.connect();
    run(&mut holder, &["BEGIN", "SELECT FROM t WHERE id = 10 FOR UPDATE"]);
    std::thread::scope(|scope| {
        let mut first = database.connect();
        let backend = pid(&mut first);
        let repairing = scope.spawn(move || repaired(&mut first));
        until_blocked(&mut client, backend);
        let mut second = database.connect();
        assert_eq!(
            sqlstate(&mut second, "SELECT partition_router.repair('t')"),
            "55006"
        );
        run(&mut holder, &["COMMIT"]);
        assert_eq!(repairing.join().expect("the session lives"), (2, 3, 2));
        assert_eq!(repaired(&mut second), (0, 0, 0));
    });
    assert_mended(&database, "two repairs");
}

#[test]
fn a_repair_that_is_cancelled_has_done_nothing_and_can_be_called_again() {
    let (database, mut client) = live("cancelled");
    plant_seven(&mut client);
    let mut holder = database.connect();
    run(&mut holder, &["BEGIN", "SELECT FROM t WHERE id = 12 FOR UPDATE"]);
    std::thread::scope(|scope| {
        let mut first = database.connect();
        let backend = pid(&mut first);
        let repairing = scope.spawn(move || sqlstate(&mut first, "SELECT partition_router.repair('t')"));
        until_blocked(&mut client, backend);
        run(&mut client, &[&format!("SELECT pg_cancel_backend({backend})")]);
        assert_eq!(repairing.join().expect("the session lives"), "57014");
    });
    run(&mut holder, &["COMMIT"]);
    let kinds = texts(
        &mut client,
        "SELECT kind FROM partition_router.mismatches('t') ORDER BY 1",
    );
    assert_eq!(
        kinds,
        [
            "different",
            "different",
            "different",
            "extra",
            "extra",
            "missing",
            "missing"
        ]
    );
    assert_eq!(repaired(&mut client), (2, 3, 2));
    assert_mended(&database, "cancelled");
}

#[test]
fn rows_that_exchanged_unique_values_are_repaired() {
    let database = Database::new("unique");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, code text, n int, UNIQUE (code, at))",
            "INSERT INTO t SELECT g, '2026-01-01', 'c' || g, g FROM generate_series(1, 50) g",
            "CALL partition_router.migrate('t', 'at', premake => 0)",
        ],
    );
    plant(
        c,
        "t_partitioned",
        &[
            "UPDATE t_partitioned SET code = 'x' || code WHERE id <= 6",
            "UPDATE t_partitioned SET code = 'c' || (CASE id WHEN 6 THEN 1 ELSE id + 1 END) WHERE id <= 6",
            // One more is in the way of a row that is missing.
            "DELETE FROM t_partitioned WHERE id = 10",
            "INSERT INTO t_partitioned VALUES (900, '2026-01-01', 'c10', 0)",
        ],
    );
    assert_eq!(repaired(c), (1, 6, 1));
    assert_mended(&database, "unique values");
}

#[test]
fn repair_beside_random_writers_ends_equal() {
    let seed = crate::common::clock_seed();
    println!("repair: seed {seed}");
    let rounds = if is_stress() { 60 } else { 4 };
    let (database, mut client) = live("random_repair");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for session in 0..4u64 {
            let (database, done) = (&database, &done);
            scope.spawn(move || {
                let mut random = ChaCha8Rng::seed_from_u64(seed + session);
                let mut writer = database.connect();
                while !done.load(Ordering::Relaxed) {
                    let (_, change) = CHANGES[random.random_range(0..CHANGES.len())];
                    // Rows of the writers' own: the faults come to the same rows.
                    let change = change.replace("{id}", &random.random_range(1..60).to_string());
                    if let Err(error) = writer.batch_execute(&change) {
                        let code = error.as_db_error().map(|e| e.code().code().to_string());
                        // A row that a fault took away, or put in the way, or that another writer moves to another
                        // partition, can refuse a change: never silently.
                        assert!(
                            matches!(
                                code.as_deref(),
                                Some("40001" | "40P01" | "23505" | "PR015" | "55P03")
                            ),
                            "{change}: {error:?}"
                        );
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut random = ChaCha8Rng::seed_from_u64(seed + 1000);
            for round in 0..rounds {
                // One table without its triggers for a moment, as a careless owner would: what writers do then is lost too.
                let (n, m) = (random.random_range(1..60), random.random_range(1..60));
                plant_retried(
                    &mut client,
                    &[
                        &format!("UPDATE t_partitioned SET n = -{round} WHERE id % 60 = {n}"),
                        &format!("DELETE FROM t_partitioned WHERE id = {m}"),
                        &format!(
                            "INSERT INTO t_partitioned (id, at) VALUES ({}, '2026-02-03') ON CONFLICT DO NOTHING",
                            100_000 + round
                        ),
                    ],
                );
                for _ in 0..50 {
                    match client.query_one(
                        "SELECT inserted + updated + deleted FROM partition_router.repair('t')",
                        &[],
                    ) {
                        Ok(row) if row.get::<_, i64>(0) == 0 => break,
                        Ok(_) => {}
                        Err(error) => {
                            let code = error.as_db_error().map(|e| e.code().code().to_string());
                            assert!(matches!(code.as_deref(), Some("40P01" | "55P03")), "{error:?}");
                        }
                    }
                }
                let equal = "SELECT bool_and(matches) FROM partition_router.verify('t', 'rows')";
                assert!(one::<bool>(&mut client, equal), "round {round}");
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    assert_mended(&database, "random");
}

/// [`plant`] beside writers: the locks of ALTER TABLE may deadlock with theirs.
fn plant_retried(client: &mut Client, statements: &[&str]) {
    let script = format!(
        "BEGIN; SET LOCAL partition_router.carry_ddl = off; LOCK TABLE t, t_partitioned IN ACCESS EXCLUSIVE MODE;
         ALTER TABLE t_partitioned DISABLE TRIGGER USER; {};
         DO $$ DECLARE r record; BEGIN FOR r IN SELECT tgname FROM pg_trigger WHERE tgrelid = 't_partitioned'::regclass AND NOT tgisinternal LOOP
             EXECUTE format('ALTER TABLE t_partitioned ENABLE ALWAYS TRIGGER %I', r.tgname); END LOOP; END $$; COMMIT",
        statements.join("; ")
    );
    while let Err(error) = client.batch_execute(&script) {
        let code = error.as_db_error().map(|e| e.code().code().to_string());
        assert!(matches!(code.as_deref(), Some("40P01" | "55P03")), "{error:?}");
        run(client, &["ROLLBACK"]);
    }
}
