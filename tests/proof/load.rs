//! The proof is exact while eight sessions write.

use crate::common::{Database, is_stress, one, run};
use crate::{TABLE, told, truth};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SESSIONS: u64 = 8;

/// One transaction of a session: its rows are those whose id leaves its number, so that no two wait for each other long.
fn transaction(random: &mut ChaCha8Rng, session: u64) -> String {
    let id = random.random_range(0..120) * SESSIONS + session + 1;
    let side = if random.random_bool(0.3) {
        "t_partitioned"
    } else {
        "t"
    };
    let day = random.random_range(0..120);
    match random.random_range(0..9) {
        0 => format!("UPDATE {side} SET n = n + 1 WHERE id = {id}"),
        1 => format!("UPDATE {side} SET at = date '2026-01-01' + {day} WHERE id = {id}"),
        2 => format!("DELETE FROM {side} WHERE id = {id}"),
        3 | 4 => format!(
            "INSERT INTO t VALUES ({id}, date '2026-01-01' + {day}, 'again', 0, repeat('x', {}))
             ON CONFLICT (id) DO UPDATE SET n = t.n + 1, big = excluded.big",
            random.random_range(0..4000)
        ),
        5 => format!(
            "BEGIN; DELETE FROM {side} WHERE id = {id}; INSERT INTO {side} VALUES ({id}, date '2026-01-01' + {day}, 'moved'); COMMIT"
        ),
        6 => format!("BEGIN; UPDATE {side} SET v = 'gone' WHERE id = {id}; ROLLBACK"),
        7 => format!(
            "BEGIN; UPDATE {side} SET v = v || 'x' WHERE id = {id}; SAVEPOINT s; DELETE FROM t WHERE id = {id}; ROLLBACK TO s; COMMIT"
        ),
        _ => format!(
            "UPDATE {side} SET v = left(v, 20) || '.' WHERE id % 8 = {session} AND id % 5 = {}",
            day % 5
        ),
    }
}

#[test]
fn verify_passes_every_time_beside_eight_sessions_that_write() {
    let database = Database::new("load");
    let mut client = database.connect();
    run(&mut client, TABLE);
    run(
        &mut client,
        &["CALL partition_router.migrate('t', 'at', premake => 0)"],
    );
    let times = if is_stress() { 100 } else { 10 };
    let seed = crate::common::clock_seed();
    println!("load: seed {seed}");
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (database, done, written) = (&database, &done, &written);
            scope.spawn(move || {
                let mut random = ChaCha8Rng::seed_from_u64(seed + session);
                let mut client = database.connect();
                while !done.load(Ordering::Relaxed) {
                    let statement = transaction(&mut random, session);
                    match client.batch_execute(&statement) {
                        Ok(()) => written.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            let code = error.as_db_error().map(|e| e.code().code().to_string());
                            assert!(
                                matches!(code.as_deref(), Some("40P01" | "40001" | "23505")),
                                "{statement}: {error:?}"
                            );
                            client.batch_execute("ROLLBACK").expect("a session can go on");
                            0
                        }
                    };
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for time in 0..times {
                // A proof of a table that nobody writes meanwhile would be none.
                let before = written.load(Ordering::Relaxed);
                while written.load(Ordering::Relaxed) < before + 20 {
                    std::thread::yield_now();
                }
                let level = ["checksum", "checksum", "checksum", "rows", "counts"][time % 5];
                let full = time % 2 == 0;
                let failed: i64 = one(
                    &mut client,
                    &format!(
                        "SELECT count(*) FROM partition_router.verify('t', '{level}', full => {full}) WHERE NOT matches"
                    ),
                );
                assert_eq!(failed, 0, "the proof number {time}, {level}");
                let named: i64 = one(
                    &mut client,
                    "SELECT count(*) FROM partition_router.mismatches('t')",
                );
                assert_eq!(named, 0, "mismatches beside the proof number {time}");
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    println!(
        "load: {times} proofs beside {} transactions",
        written.load(Ordering::Relaxed)
    );
    assert!(truth(&mut client) && told(&mut client));
}
