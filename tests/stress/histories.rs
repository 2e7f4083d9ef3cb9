//! Random histories: a seed makes tables, eight sessions write to them, and a driver migrates them meanwhile.

use crate::common::{Cluster, Database};
use crate::driver::Driver;
use crate::session::{End, Session, Subject};
use crate::totals::{Run, Totals};
use crate::world::Shape;
use crate::{Seeds, checks};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

pub const SESSIONS: usize = 8;
pub const OPERATIONS: u64 = 200;

/// Histories that run at once: sessions wait for each other more than for the processor. Each has a server of its own:
/// with snapshots of other databases around, VACUUM FULL may meet old row versions whose TOAST is gone already, on any
/// table.
const AT_ONCE: usize = 4;

/// The tables of a seed: one pair, or two that are written to in one transaction.
pub fn subjects(seed: u64) -> Vec<Subject> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let tables: &[&'static str] = if random.random_bool(0.25) {
        &["t", "u"]
    } else {
        &["t"]
    };
    tables
        .iter()
        .map(|table| Subject::new(Shape::random(table, &mut random)))
        .collect()
}

fn server() -> Arc<Cluster> {
    Arc::new(Cluster::start(&[
        "deadlock_timeout=50ms",
        "max_prepared_transactions=64",
        "autovacuum_naptime=1s",
        "shared_buffers=64MB",
    ]))
}

/// Runs the histories of `seeds`; gives what failed.
pub fn run(seeds: &Seeds, totals: &Totals) -> Vec<String> {
    crate::each_seed(seeds, AT_ONCE, server, |cluster, seed| {
        history(cluster, seed, totals)
    })
}

/// One history, from empty database to the last check.
fn history(cluster: &Arc<Cluster>, seed: u64, totals: &Totals) -> Result<(), String> {
    let database = Database::on(Arc::clone(cluster), "history");
    let mut client = database.connect();
    client
        .batch_execute("CREATE EXTENSION amcheck")
        .map_err(|e| format!("amcheck: {e}"))?;
    let mut subjects = subjects(seed);
    for subject in &mut subjects {
        subject.shape.create(&mut client);
    }
    let run = Run::new(format!("history_{seed}"), totals);
    run.log("shape", run.now(), format!("{subjects:#?}"));
    let outcome = play(&database, &run, &subjects, seed).and_then(|()| {
        for subject in &subjects {
            checks::at_the_end(&mut client, &subject.shape).inspect_err(|_| {
                totals.count("mismatches", "at the end");
            })?;
            totals.count("comparisons", "at the end");
        }
        Ok(())
    });
    outcome.map_err(|message| {
        run.log("outcome", run.now(), message.clone());
        format!("{message}\n  its log: {}", run.write_log().display())
    })
}

/// All sessions, and the driver.
fn play(database: &Database, run: &Run, subjects: &[Subject], seed: u64) -> Result<(), String> {
    let config = database.cluster.config("postgres", &database.name);
    let writing = AtomicUsize::new(SESSIONS);
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let (config, writing) = (config.clone(), &writing);
                scope.spawn(move || {
                    let pid = AtomicI32::new(0);
                    let written = Session::new(run, subjects, config, &pid, number as u64, seed, OPERATIONS)
                        .and_then(|mut session| session.write());
                    writing.fetch_sub(1, Ordering::SeqCst);
                    if written.is_err() {
                        run.stop.store(true, Ordering::SeqCst);
                    }
                    written
                })
            })
            .collect();
        let driven =
            Driver::new(run, subjects, &config, &writing, seed).and_then(|mut driver| driver.drive());
        if driven.is_err() {
            run.stop.store(true, Ordering::SeqCst);
        }
        let mut outcome = driven;
        for session in sessions {
            let end = session.join().expect("no session panics");
            outcome = outcome.and(match end {
                Ok(()) => Ok(()),
                Err(End::Lost(message) | End::Failed(message)) => Err(message),
            });
        }
        outcome
    })
}
