//! Random load with a seed: histories of many sessions while their tables are migrated, and servers killed at random
//! instants. `make test` runs a few seeds, `make stress` (`PARTITION_ROUTER_STRESS=full`) all of them; see
//! docs/reliability.md.
//!
//! `PARTITION_ROUTER_SEED=n` runs seed n alone, and with `PARTITION_ROUTER_SEEDS=m` the m seeds from n on. A seed
//! replays the choices of every session, not their timing.

#[path = "../common/mod.rs"]
mod common;

mod checks;
mod driver;
mod histories;
mod kills;
mod ops;
mod session;
mod totals;
mod world;

use common::Cluster;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use totals::Totals;

/// How many processes share the backfills of a session.
fn use_workers(processes: u32) -> String {
    format!("SET partition_router.backfill_workers = {processes}")
}

/// Which seeds to run.
pub struct Seeds {
    first: u64,
    number: u64,
}

impl Seeds {
    /// `all` seeds from 1 on for the whole, `few` of the clock's for a slice, or those that the environment names.
    fn chosen(all: u64, few: u64) -> Seeds {
        let given = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
        let number = given("PARTITION_ROUTER_SEEDS");
        let (first, number) = match given("PARTITION_ROUTER_SEED") {
            Some(first) => (first, number.unwrap_or(1)),
            None if common::is_stress() => (1, number.unwrap_or(all)),
            None => (common::clock_seed(), number.unwrap_or(few)),
        };
        Seeds { first, number }
    }

    fn last(&self) -> u64 {
        self.first + self.number - 1
    }
}

/// Runs `body` for each seed, `at_once` of them at once, each thread on a server of its own; gives what failed. After
/// three failures no further seed begins.
fn each_seed(
    seeds: &Seeds,
    at_once: usize,
    server: impl Fn() -> Arc<Cluster> + Sync,
    body: impl Fn(&Arc<Cluster>, u64) -> Result<(), String> + Sync,
) -> Vec<String> {
    let (next, failures) = (AtomicU64::new(seeds.first), Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..seeds.number.min(at_once as u64) {
            scope.spawn(|| {
                let mut cluster = server();
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > seeds.last() {
                        break;
                    }
                    let Err(message) = body(&cluster, seed) else {
                        continue;
                    };
                    let message =
                        format!("seed {seed} (PARTITION_ROUTER_SEED={seed} runs it alone): {message}");
                    println!("{message}");
                    let mut failures = failures.lock().expect("no thread panics while it reports");
                    failures.push(message);
                    if failures.len() >= 3 {
                        next.store(u64::MAX / 2, Ordering::SeqCst);
                    }
                    drop(failures);
                    cluster = server(); // the old one may be down
                }
            });
        }
    });
    failures.into_inner().expect("the threads have ended")
}

#[test]
fn random_histories_end_with_equal_sides() {
    let seeds = Seeds::chosen(200, 4);
    println!("histories: seeds {} to {}", seeds.first, seeds.last());
    let totals = Totals::default();
    let started = std::time::Instant::now();
    let failures = histories::run(&seeds, &totals);
    println!(
        "histories: {} seeds, {} sessions, {} operations each, {} s",
        seeds.number,
        histories::SESSIONS,
        histories::OPERATIONS,
        started.elapsed().as_secs()
    );
    totals.print(&[
        "operations",
        "targets",
        "transactions",
        "errors",
        "pauses",
        "also",
        "calls that failed",
        "comparisons",
        "mismatches",
    ]);
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn killed_at_a_random_instant_the_same_call_again_ends_equal() {
    let seeds = Seeds::chosen(100, 3);
    println!("kills: seeds {} to {}", seeds.first, seeds.last());
    let totals = Totals::default();
    let started = std::time::Instant::now();
    let failures = kills::run(&seeds, &totals);
    println!("kills: {} seeds, {} s", seeds.number, started.elapsed().as_secs());
    totals.print(&[
        "calls",
        "victims",
        "stages",
        "operations",
        "transactions",
        "errors",
        "also",
        "comparisons",
        "mismatches",
    ]);
    assert!(failures.is_empty(), "{failures:#?}");
}
