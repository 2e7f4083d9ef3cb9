//! Random writes from many sessions, on both sides and at every isolation level, while the tables are migrated and
//! after. Nothing may be lost, doubled or left different, and nothing may fail that would not fail on one table.
//!
//! `PARTITION_ROUTER_SEED` replays the choices of a run (not the timing), `PARTITION_ROUTER_STRESS=full` runs for minutes.

mod common;

use common::{Database, assert_equal_sides, is_stress, one, seed};
use postgres::Client;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SESSIONS: u64 = 8;
const ROWS: i32 = 12_000;
const COLUMNS: &str = "id, d, org, amount, note";

/// A pair under load: its legacy, its twin, and what a key of the twin is made of.
#[derive(Clone, Copy)]
struct Pair {
    legacy: &'static str,
    twin: &'static str,
    partition_key: &'static str,
    migrate: &'static str,
}

const PAIRS: [Pair; 2] = [
    Pair {
        legacy: "ledger",
        twin: "ledger_partitioned",
        partition_key: "d",
        migrate: "CALL partition_router.migrate('ledger', 'd')",
    },
    Pair {
        legacy: "balances",
        twin: "balances_partitioned",
        partition_key: "org",
        migrate: "CALL partition_router.migrate('balances', 'org', strategy => 'hash', partitions => 8)",
    },
];

fn create(client: &mut Client, pair: &Pair) {
    let table = pair.legacy;
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, d date NOT NULL, org int NOT NULL, amount int, note text,
                                   UNIQUE (org, d, amount));
             INSERT INTO {table} SELECT g, date '2026-01-01' + g % 300, g % 97, g, repeat(md5(g::text), 1 + g % 5)
             FROM generate_series(1, {ROWS}, 2) g"
        ))
        .expect("the table is made");
}

/// The statements of one session.
struct Writer {
    random: SmallRng,
    rows: i32,
}

impl Writer {
    fn id(&mut self) -> i32 {
        self.random.random_range(1..self.rows)
    }

    fn values(&mut self) -> String {
        format!(
            "date '2026-01-01' + {}, {}, {}, '{}'",
            self.random.random_range(0..320),
            self.random.random_range(0..97),
            self.random.random_range(0..1_000_000),
            "x".repeat(self.random.random_range(0..200)),
        )
    }

    fn statement(&mut self, table: &str, pair: &Pair, on_twin: bool) -> String {
        let (id, other) = (self.id(), self.id());
        let few = self.random.random_range(1..12);
        let day = self.random.random_range(0..320);
        let org = self.random.random_range(0..97);
        let values = self.values();
        let range = format!("id BETWEEN {id} AND {}", id + few);
        let conflict = if on_twin {
            format!("(id, {})", pair.partition_key)
        } else {
            "(id)".to_string()
        };
        match self.random.random_range(0..17) {
            0 | 1 => format!("INSERT INTO {table} VALUES ({id}, {values})"),
            2 => format!(
                "INSERT INTO {table} SELECT g, date '2026-01-01' + g % 300, {org}, g, 'many' FROM generate_series({id}, {id} + {few}) g"
            ),
            3 | 4 => format!("UPDATE {table} SET amount = amount + 1000000, note = 'few' WHERE {range}"),
            5 => format!("UPDATE {table} SET d = date '2026-01-01' + {day} WHERE {range}"),
            6 => format!("UPDATE {table} SET org = {org} WHERE {range}"),
            7 => format!("UPDATE {table} SET id = {other} WHERE id = {id}"),
            8 => format!("UPDATE {table} SET id = id + 1, d = d + 1 WHERE id = {id}"),
            9 | 10 => format!("DELETE FROM {table} WHERE {range}"),
            11 => format!(
                "INSERT INTO {table} VALUES ({id}, {values})
                 ON CONFLICT {conflict} DO UPDATE SET amount = EXCLUDED.amount, note = 'upsert', d = EXCLUDED.d, org = EXCLUDED.org"
            ),
            12 => format!("INSERT INTO {table} VALUES ({id}, {values}), ({other}, {values}) ON CONFLICT DO NOTHING"),
            13 => format!(
                "MERGE INTO {table} t USING (SELECT g AS id FROM generate_series({id}, {id} + {few}) g) s ON t.id = s.id
                 WHEN MATCHED AND t.id % 3 = 0 THEN DELETE
                 WHEN MATCHED THEN UPDATE SET org = {org}, note = 'merged'
                 WHEN NOT MATCHED THEN INSERT VALUES (s.id, {values})"
            ),
            14 => format!(
                "WITH gone AS (DELETE FROM {table} WHERE {range} RETURNING *)
                 INSERT INTO {table} SELECT id, d + 31, org, amount, 'again' FROM gone"
            ),
            15 => format!("SELECT FROM {table} WHERE {range} FOR UPDATE"),
            _ => format!("UPDATE {table} SET note = repeat(md5(random()::text), 100) WHERE id = {id}"),
        }
    }

    /// A transaction of a few statements, some of them rolled back to a savepoint; ends in COMMIT or ROLLBACK.
    fn transaction(&mut self) -> Vec<(String, bool)> {
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][self.random.random_range(0..3)];
        let mut statements = vec![(format!("BEGIN ISOLATION LEVEL {isolation}"), false)];
        for _ in 0..self.random.random_range(1..5) {
            let pair = PAIRS[self.random.random_range(0..PAIRS.len())];
            let on_twin = self.random.random_bool(0.4);
            let table = if on_twin { pair.twin } else { pair.legacy };
            let statement = self.statement(table, &pair, on_twin);
            if self.random.random_bool(0.2) {
                statements.push(("SAVEPOINT s".into(), false));
                statements.push((statement, on_twin));
                statements.push(("ROLLBACK TO s".into(), false));
            } else {
                statements.push((statement, on_twin));
            }
        }
        let end = if self.random.random_bool(0.9) {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        statements.push((end.into(), false));
        statements
    }
}

/// What the sessions saw, by SQLSTATE.
type Seen = Mutex<BTreeMap<String, u64>>;

fn count(seen: &Seen, what: &str) {
    *seen
        .lock()
        .expect("no session panics while it counts")
        .entry(what.into())
        .or_default() += 1;
}

/// Serialization failures, deadlocks and keys that collide happen on one table, too. A twin that is not live yet
/// refuses writes (an upsert fails earlier: the copy is made without indexes), and before the migration there is none.
fn is_expected(sqlstate: &str, on_twin: bool, live: bool) -> bool {
    ["40001", "40P01", "23505"].contains(&sqlstate)
        || on_twin && !live && ["PR012", "42P01", "42P10"].contains(&sqlstate)
}

fn write(database: &Database, seed: u64, live: &AtomicBool, stop: &AtomicBool, seen: &Seen) {
    let mut client = database.connect();
    client
        .batch_execute("SET deadlock_timeout = '50ms'")
        .expect("a superuser may");
    let mut writer = Writer {
        random: SmallRng::seed_from_u64(seed),
        rows: ROWS,
    };
    while !stop.load(Ordering::Relaxed) {
        let was_live = live.load(Ordering::SeqCst);
        for (statement, on_twin) in writer.transaction() {
            let Err(error) = client.batch_execute(&statement) else {
                if statement == "COMMIT" {
                    count(seen, "committed");
                }
                continue;
            };
            let sqlstate = error
                .as_db_error()
                .map_or("connection lost".into(), |e| e.code().code().to_string());
            assert!(
                is_expected(&sqlstate, on_twin, was_live),
                "seed {seed}: {statement}: {error:?}"
            );
            // The twin is no stricter than its legacy: what the legacy took, it takes.
            let refused_by_twin = error
                .as_db_error()
                .and_then(|e| e.hint())
                .is_some_and(|hint| hint.starts_with("The other side"));
            assert!(on_twin || !refused_by_twin, "seed {seed}: {statement}: {error:?}");
            count(seen, &sqlstate);
            client.batch_execute("ROLLBACK").expect("ROLLBACK");
            break;
        }
    }
}

/// Runs a call until it gets its locks.
fn insist(client: &mut Client, call: &str) {
    for _ in 0..20 {
        match client.batch_execute(call) {
            Ok(()) => return,
            Err(error) => {
                let sqlstate = error.as_db_error().map(|e| e.code().code().to_string());
                assert!(
                    ["55P03", "40P01"].contains(&sqlstate.as_deref().unwrap_or("")),
                    "{call}: {error:?}"
                );
            }
        }
    }
    panic!("{call} never got its locks");
}

/// One round: two tables, migrated under load in one of two ways, then compared again and again.
fn round(number: u64, seed: u64, length: Duration) {
    let database = Database::new("stress");
    let mut client = database.connect();
    for pair in &PAIRS {
        create(&mut client, pair);
    }
    let (live, stop, seen) = (AtomicBool::new(false), AtomicBool::new(false), Seen::default());
    let mut comparisons = 0;
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let (database, live, stop, seen) = (&database, &live, &stop, &seen);
                scope.spawn(move || {
                    write(database, seed.wrapping_add(session), live, stop, seen);
                })
            })
            .collect();
        // Whatever fails here, the sessions must end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let started = Instant::now();
            while one::<i64>(
                &mut client,
                "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'ledger'",
            ) <= i64::from(ROWS / 2)
            {
                assert!(started.elapsed() < Duration::from_secs(30), "no session writes");
                std::thread::yield_now();
            }
            for pair in &PAIRS {
                if number % 2 == 1 {
                    insist(&mut client, &format!(
                        "DO $$BEGIN IF NOT EXISTS (SELECT FROM partition_router.pair WHERE legacy = '{0}'::regclass) THEN
                         PERFORM partition_router.create_twin('{0}', '{1}', '{2}', partitions => 4); END IF; END$$",
                        pair.legacy, pair.partition_key, if pair.partition_key == "d" { "range" } else { "hash" }));
                    insist(
                        &mut client,
                        &format!("SELECT partition_router.start_sync('{}')", pair.legacy),
                    );
                    insist(
                        &mut client,
                        &format!("CALL partition_router.backfill('{}', 300, '10ms')", pair.legacy),
                    );
                } else {
                    insist(&mut client, pair.migrate);
                }
            }
            live.store(true, Ordering::SeqCst);
            while started.elapsed() < length {
                for pair in &PAIRS {
                    assert_equal_sides(&mut client, pair.legacy, pair.twin, COLUMNS);
                    comparisons += 1;
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        for session in sessions {
            if let Err(panic) = session.join() {
                std::panic::resume_unwind(panic);
            }
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    for pair in &PAIRS {
        assert_equal_sides(&mut client, pair.legacy, pair.twin, COLUMNS);
        assert_eq!(
            one::<String>(
                &mut client,
                &format!(
                    "SELECT phase FROM partition_router.pair WHERE legacy = '{}'::regclass",
                    pair.legacy
                )
            ),
            "live"
        );
    }
    let seen = seen.into_inner().expect("the sessions have ended");
    println!("round {number}, seed {seed}: {comparisons} comparisons under load, transactions: {seen:?}");
    assert!(comparisons > 0, "the migration took the whole round");
    assert!(
        seen.get("committed").is_some_and(|n| *n > 100),
        "the load was no load: {seen:?}"
    );
}

#[test]
fn nothing_is_lost_while_eight_sessions_write_to_both_sides() {
    let seed = seed();
    let (rounds, length) = if is_stress() { (20, 30) } else { (3, 12) };
    for number in 0..rounds {
        round(
            number,
            seed.wrapping_add(number * SESSIONS),
            Duration::from_secs(length),
        );
    }
}
