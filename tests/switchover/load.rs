//! Round trips while applications write: no transaction fails, no row is lost.

use super::common::{Database, clock_seed, is_stress, one, run};
use super::{BACK, TABLES, THERE, equal};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one client does until it is told to stop: gives the rows that it added and took away.
fn client(database: &Database, number: u64, seed: u64, done: &AtomicBool) -> i64 {
    let mut random = ChaCha8Rng::seed_from_u64(seed + number);
    let mut session = database.connect();
    let insert = session
        .prepare("INSERT INTO s.t (at, org, note) VALUES (timestamp '2025-01-01' + $1 * interval '1 hour', 1, 'load') RETURNING id")
        .expect("it can be prepared");
    let delete = session
        .prepare("DELETE FROM s.t WHERE id = $1")
        .expect("it can be prepared");
    let mut mine: Vec<i32> = vec![];
    let mut balance = 0;
    while !done.load(Ordering::Relaxed) {
        let hour = f64::from(random.random_range(0..6000));
        match random.random_range(0..5) {
            0 | 1 => {
                mine.push(session.query_one(&insert, &[&hour]).expect("an insert").get(0));
                balance += 1;
            }
            2 if !mine.is_empty() => {
                let id = mine.swap_remove(random.random_range(0..mine.len()));
                let gone = session.execute(&delete, &[&id]).expect("a delete");
                assert_eq!(gone, 1, "row {id} was there");
                balance -= 1;
            }
            3 if !mine.is_empty() => {
                let id = mine[random.random_range(0..mine.len())];
                let moved = format!(
                    "BEGIN; UPDATE s.t SET note = 'moved', at = timestamp '2025-01-01' + {hour} * interval '1 hour'
                     WHERE id = {id}; UPDATE s.t SET org = 2 WHERE id = {id}; COMMIT"
                );
                session.batch_execute(&moved).expect("an update");
                let note: String = one(&mut session, &format!("SELECT note FROM s.t WHERE id = {id}"));
                assert_eq!(note, "moved", "a session reads what it wrote");
            }
            _ => {
                let many: i64 = one(&mut session, "SELECT count(*) FROM s.t WHERE note LIKE 'n%'");
                assert_eq!(many, 1000, "what nobody changes is always there");
            }
        }
    }
    balance
}

#[test]
fn round_trips_under_load_lose_no_row_and_fail_no_transaction() {
    let seed = std::env::var("PARTITION_ROUTER_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(clock_seed);
    println!("switchover: PARTITION_ROUTER_SEED={seed}");
    let (trips, clients) = if is_stress() { (200, 8) } else { (4, 4) };
    let database = Database::new("load");
    let mut main = database.connect();
    run(&mut main, TABLES);
    let done = AtomicBool::new(false);
    let balance: i64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                let (database, done) = (&database, &done);
                scope.spawn(move || client(database, number, seed, done))
            })
            .collect();
        let mut go = || {
            for _ in 0..trips {
                for call in [THERE, BACK] {
                    // Nobody waits: a call that found no gap between the writers is called again.
                    while let Err(error) = main.batch_execute(call) {
                        let state = error.code().map(|c| c.code().to_string());
                        assert_eq!(state.as_deref(), Some("55P03"), "{call}: {error:?}");
                    }
                }
            }
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut go));
        done.store(true, Ordering::Relaxed);
        let balance = threads
            .into_iter()
            .map(|t| t.join().expect("no client failed"))
            .sum();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        balance
    });
    assert_eq!(one::<i64>(&mut main, "SELECT count(*) FROM s.t"), 1000 + balance);
    equal(&mut main, false);
    let proofs: i64 = one(
        &mut main,
        "SELECT count(*) FROM partition_router.run_log WHERE operation IN ('switchover', 'rollback') AND stage = 'POST-SWITCH'
         AND detail ->> 'legacy_checksum' = detail ->> 'twin_checksum'",
    );
    assert_eq!(proofs, 2 * i64::from(trips));
}
