//! Kills: a call runs while sessions write, and at a random instant a server process gets SIGKILL: the one that runs the
//! call, one that writes, or the postmaster. Then the same call again, and nothing else, must bring the same end.
//!
//! The servers run with `fsync = off`: SIGKILL loses no page that was handed to the operating system. But it may cut a
//! write in two at the border of a page of memory, so `full_page_writes` is on.

mod plan;

use crate::common::{Cluster, Database, cluster_sh, plant};
use crate::session::{End, Session, Subject};
use crate::totals::{Run, Totals};
use crate::world::Shape;
use crate::{Seeds, checks};
use plan::{Call, Plan, STAGES, Victim};
use postgres::{Client, NoTls};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const AT_ONCE: usize = 2;
const WRITERS: usize = 4;
/// Operations of each writer after the restart, while the call runs again.
const OPERATIONS_AFTER: u64 = 30;

fn server() -> Arc<Cluster> {
    Arc::new(Cluster::start(&[
        "deadlock_timeout=50ms",
        "max_prepared_transactions=64",
        "full_page_writes=on",
        "shared_buffers=32MB",
        "autovacuum_naptime=1s",
    ]))
}

/// Runs the kills of `seeds`; gives what failed.
pub fn run(seeds: &Seeds, totals: &Totals) -> Vec<String> {
    crate::each_seed(seeds, AT_ONCE, server, |cluster, seed| {
        let run = Run::new(format!("kill_{seed}"), totals);
        let outcome = Trial::new(&run, Arc::clone(cluster), seed).and_then(|mut trial| trial.run());
        outcome.map_err(|message| {
            run.log("outcome", run.now(), message.clone());
            format!("{message}\n  its log: {}", run.write_log().display())
        })
    })
}

struct Trial<'a> {
    run: &'a Run<'a>,
    database: Database,
    subjects: Vec<Subject>,
    plan: Plan,
    random: ChaCha8Rng,
    seed: u64,
}

/// The processes that may be killed.
#[derive(Default)]
struct Processes {
    caller: AtomicI32,
    writers: [AtomicI32; WRITERS],
    /// The kill is done: a session may end by itself. One that has ended cannot be killed.
    is_over: AtomicBool,
}

impl<'a> Trial<'a> {
    fn new(run: &'a Run<'a>, cluster: Arc<Cluster>, seed: u64) -> Result<Trial<'a>, String> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(2000);
        let plan = Plan::random(&mut random);
        let mut shape = Shape::random("t", &mut random);
        if plan.call == Call::Maintenance {
            shape.make_range();
        }
        if plan.call == Call::Repair {
            shape.drop_triggers();
        }
        let database = Database::on(cluster, "killed");
        let mut client = database.connect();
        client.batch_execute("CREATE EXTENSION amcheck").map_err(text)?;
        shape.create(&mut client);
        run.log("plan", run.now(), format!("{plan:?}\n{shape:?}"));
        run.totals.count("calls", &format!("{:?}", plan.call));
        run.totals.count("victims", &format!("{:?}", plan.victim));
        Ok(Trial {
            run,
            database,
            subjects: vec![Subject::new(shape)],
            plan,
            random,
            seed,
        })
    }

    fn shape(&self) -> &Shape {
        &self.subjects[0].shape
    }

    fn run(&mut self) -> Result<(), String> {
        let mut client = self.database.connect();
        self.prepare(&mut client)?;
        drop(client);
        self.until_the_kill()?;
        let mut client = self.reconnect()?;
        self.resolve_prepared(&mut client)?;
        self.at_once_after(&mut client)?;
        self.call_again()?;
        let mut client = self.reconnect()?;
        match self.plan.call {
            Call::Abandon => checks::alone(&mut client, self.shape())?,
            _ => checks::at_the_end(&mut client, self.shape())
                .inspect_err(|_| self.run.totals.count("mismatches", "at the end"))?,
        }
        self.run.totals.count("comparisons", "at the end");
        let orphans = checks::files_without_relation(&mut client)?;
        self.run.totals.add("also", "files without a relation", orphans);
        Ok(())
    }

    fn migrate(&self) -> String {
        format!("CALL partition_router.migrate({})", self.shape().request())
    }

    /// What the call finds.
    fn prepare(&mut self, client: &mut Client) -> Result<(), String> {
        let t = self.shape().table;
        if self.plan.call != Call::Migrate && self.plan.call != Call::Backfill {
            insist(client, &self.migrate())?;
            // From here on sides may differ, or be gone, at any instant.
            self.subjects[0].set_live(![Call::Repair, Call::Abandon].contains(&self.plan.call));
        }
        match self.plan.call {
            Call::Backfill => {
                let request = self.shape().request();
                insist(
                    client,
                    &format!("SELECT FROM partition_router.create_twin({request})"),
                )?;
                insist(client, &format!("SELECT partition_router.start_sync('{t}')"))
            }
            Call::Repair => {
                let twin = self.shape().twin();
                plant(
                    client,
                    &twin,
                    &[
                        &format!("DELETE FROM {twin} WHERE id % 7 = 0"),
                        &format!("UPDATE {twin} SET amount = -1 WHERE id % 5 = 0"),
                    ],
                );
                Ok(())
            }
            Call::Maintenance => {
                // Rows for which partitions are due.
                let key = self.shape().key("(110 + g % 27)");
                client
                    .batch_execute(&format!(
                        "INSERT INTO {t} (id, k, org, amount) SELECT g + 20000, {key}, 1, 1 FROM generate_series(1, 200) g"
                    ))
                    .map_err(text)
            }
            _ => Ok(()),
        }
    }

    /// The call that is cut off, and made again.
    fn call(&self) -> String {
        let t = self.shape().table;
        match self.plan.call {
            Call::Migrate => self.migrate(),
            Call::Backfill => format!("CALL partition_router.backfill('{t}', 100, '3 ms')"),
            Call::Writes => "SELECT pg_sleep(0.01)".into(),
            Call::Verify => format!("SELECT FROM partition_router.verify('{t}', 'rows')"),
            Call::Repair => format!("SELECT FROM partition_router.repair('{t}')"),
            Call::Maintenance => format!("CALL partition_router.run_maintenance('{t}')"),
            Call::Abandon => format!("SELECT partition_router.abandon('{t}')"),
        }
    }

    /// Sessions write, one calls, and one of them all is killed.
    fn until_the_kill(&mut self) -> Result<(), String> {
        let processes = Processes::default();
        let (finished, call) = (AtomicBool::new(false), self.call());
        let mut watcher = self.database.connect();
        let config = self.database.cluster.config("postgres", &self.database.name);
        let once = [Call::Migrate, Call::Backfill, Call::Abandon].contains(&self.plan.call);
        let (run, subjects, seed, workers) = (self.run, &self.subjects[..], self.seed, self.plan.workers);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|number| {
                    let (config, pid) = (config.clone(), &processes.writers[number]);
                    scope.spawn(move || {
                        Session::new(run, subjects, config, pid, number as u64, seed, u64::MAX)
                            .and_then(|mut session| session.write())
                    })
                })
                .collect();
            let (ready, is_ready) = mpsc::channel();
            let (processes, finished, config, call) = (&processes, &finished, &config, &call);
            let caller = scope.spawn(move || -> Result<(), String> {
                let mut client = config.connect(NoTls).map_err(text)?;
                client.batch_execute(&crate::use_workers(workers)).map_err(text)?;
                let pid = client.query_one("SELECT pg_backend_pid()", &[]).map_err(text)?;
                processes.caller.store(pid.get(0), Ordering::SeqCst);
                ready.send(()).map_err(text)?;
                let mut outcome = Ok(());
                while !run.is_killing() {
                    let begin = run.now();
                    let result = client.batch_execute(call);
                    run.log("caller", begin, format!("{call} → {result:?}"));
                    match result {
                        Ok(()) if once => break,
                        Ok(()) => {}
                        Err(error) if is_busy(&error) => {}
                        Err(_) if run.is_killing() => break,
                        Err(error) => {
                            outcome = Err(format!("{call}: {error:?}"));
                            break;
                        }
                    }
                }
                finished.store(true, Ordering::SeqCst);
                // The process waits to be killed.
                while !processes.is_over.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                outcome
            });
            let killed = is_ready
                .recv()
                .map_err(text)
                .and_then(|()| self.wait_for_stage(&mut watcher, finished))
                .and_then(|()| self.kill(processes, &mut watcher));
            run.killing.store(true, Ordering::SeqCst);
            processes.is_over.store(true, Ordering::SeqCst);
            if killed.is_err() {
                run.stop.store(true, Ordering::SeqCst); // nobody waits for a kill that does not come
            }
            let mut outcome = killed.and(caller.join().expect("the caller does not panic"));
            for writer in writers {
                if let Err(End::Failed(message)) = writer.join().expect("no session panics") {
                    outcome = outcome.and(Err(message));
                }
            }
            outcome
        })
    }

    /// Until the migration has come to the stage of the plan.
    fn wait_for_stage(&self, watcher: &mut Client, finished: &AtomicBool) -> Result<(), String> {
        let query = format!(
            "SELECT COALESCE((SELECT CASE WHEN p.phase = 'prepared' THEN 'prepared' ELSE COALESCE(s.stage, 'begin') END
             FROM partition_router.pair p LEFT JOIN partition_router.copy_state s ON s.pair_id = p.id
             WHERE p.legacy = '{}'::regclass), 'none')",
            self.shape().table
        );
        let place = |stage: &str| STAGES.iter().position(|s| *s == stage).unwrap_or(0);
        let is_migration = [Call::Migrate, Call::Backfill].contains(&self.plan.call);
        let mut reached = String::from("none");
        while is_migration && !finished.load(Ordering::SeqCst) && !self.run.is_stopped() {
            reached = watcher.query_one(query.as_str(), &[]).map_err(text)?.get(0);
            if place(&reached) >= place(self.plan.stage) {
                break;
            }
        }
        if is_migration {
            self.run.totals.count("stages", &reached);
        }
        std::thread::sleep(self.plan.delay);
        Ok(())
    }

    fn kill(&self, processes: &Processes, watcher: &mut Client) -> Result<(), String> {
        self.run.killing.store(true, Ordering::SeqCst);
        let cluster = &self.database.cluster;
        self.run
            .log("killer", self.run.now(), format!("{:?}", self.plan.victim));
        let caller = pid_of(&processes.caller)?;
        let kill = |pid: i32| -> Result<bool, String> {
            let pid = pid.to_string();
            let kill = Command::new("kill").args(["-KILL", &pid]).status();
            Ok(kill.map_err(text)?.success())
        };
        let killed = match self.plan.victim {
            Victim::Postmaster => {
                cluster_sh(&["crash", cluster.directory()]);
                cluster_sh(&["start", cluster.directory()]);
                return Ok(());
            }
            Victim::Caller => kill(caller)?,
            Victim::Worker => {
                let workers =
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'partition_router backfill'";
                let worker = watcher.query(workers, &[]).map_err(text)?;
                match worker.first() {
                    Some(worker) if kill(worker.get(0))? => {
                        self.run.totals.count("also", "background workers killed");
                        true
                    }
                    _ => kill(caller)?, // it has ended
                }
            }
            // It begins a new session now and then.
            Victim::Writer => (0..100).any(|_| {
                let killed = pid_of(&processes.writers[0]).and_then(kill);
                if killed != Ok(true) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                killed == Ok(true)
            }),
        };
        if !killed {
            return Err("the process was gone before it was killed".into());
        }
        // The server throws everybody out, and recovers.
        let since = Instant::now();
        while watcher.batch_execute("SELECT 1").is_ok() {
            if since.elapsed() > Duration::from_secs(30) {
                return Err("the server did not notice the kill".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A session, as soon as the server has recovered.
    fn reconnect(&self) -> Result<Client, String> {
        let config = self.database.cluster.config("postgres", &self.database.name);
        let since = Instant::now();
        loop {
            let connected = config.connect(NoTls).and_then(|mut client| {
                client.batch_execute("SELECT 1")?;
                Ok(client)
            });
            match connected {
                Ok(client) => return Ok(client),
                Err(error) if since.elapsed() > Duration::from_secs(60) => {
                    return Err(format!("the server does not come back: {error:?}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The writers' own prepared transactions, which outlive a crash.
    fn resolve_prepared(&mut self, client: &mut Client) -> Result<(), String> {
        let query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
        for row in client.query(query, &[]).map_err(text)? {
            let (id, commit): (String, bool) = (row.get(0), self.random.random());
            let verb = if commit { "COMMIT" } else { "ROLLBACK" };
            self.run
                .totals
                .count("also", "prepared transactions met after the kill");
            client
                .batch_execute(&format!("{verb} PREPARED '{id}'"))
                .map_err(text)?;
        }
        Ok(())
    }

    /// A pair that was live is equal before anybody does anything.
    fn at_once_after(&self, client: &mut Client) -> Result<(), String> {
        let live: bool = client
            .query_one(
                "SELECT EXISTS (SELECT FROM partition_router.pair WHERE phase = 'live')",
                &[],
            )
            .map_err(text)?
            .get(0);
        if !live || self.plan.call == Call::Repair {
            return Ok(());
        }
        self.subjects[0].set_live(self.plan.call != Call::Abandon);
        self.run
            .totals
            .count("comparisons", "live at once after the kill");
        checks::equal(client, self.shape())
            .inspect_err(|_| self.run.totals.count("mismatches", "live at once after the kill"))
    }

    /// The call again, until it ends, while sessions write.
    fn call_again(&self) -> Result<(), String> {
        let again = Run::new(self.run.name.clone(), self.run.totals);
        let config = self.database.cluster.config("postgres", &self.database.name);
        let outcome = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|number| {
                    let (config, again, subjects) = (config.clone(), &again, &self.subjects[..]);
                    let seed = self.seed.wrapping_add(1 << 40);
                    scope.spawn(move || {
                        let pid = AtomicI32::new(0);
                        Session::new(
                            again,
                            subjects,
                            config,
                            &pid,
                            number as u64,
                            seed,
                            OPERATIONS_AFTER,
                        )
                        .and_then(|mut session| session.write())
                    })
                })
                .collect();
            let mut outcome = self.finish_call(&again);
            // The sessions wait for a pair that is live and equal all the while.
            if outcome.is_err() || [Call::Abandon, Call::Repair].contains(&self.plan.call) {
                again.stop.store(true, Ordering::SeqCst);
            }
            for writer in writers {
                let end = writer.join().expect("no session panics");
                if let Err(End::Failed(message) | End::Lost(message)) = end {
                    outcome = outcome.and(Err(message));
                }
            }
            outcome
        });
        outcome.inspect_err(|_| {
            again.write_log_beside("again");
        })
    }

    fn finish_call(&self, again: &Run) -> Result<(), String> {
        let mut client = self.reconnect()?;
        client
            .batch_execute(&crate::use_workers(self.plan.workers))
            .map_err(text)?;
        let (call, subject) = (self.call(), &self.subjects[0]);
        for attempt in 0.. {
            if self.plan.call == Call::Abandon && pairs(&mut client)? == 0 {
                return Ok(());
            }
            let begin = again.now();
            let result = client.batch_execute(&call);
            again.log("caller", begin, format!("{call} → {result:?}"));
            match result {
                Ok(()) => break,
                // migrate() says so when it had ended before the kill.
                Err(error) if is_code(&error, "PR010") && self.plan.call == Call::Migrate => break,
                Err(error) if is_busy(&error) && attempt < 100 => {}
                Err(error) => return Err(format!("called again: {call}: {error:?}")),
            }
        }
        if ![Call::Abandon, Call::Repair].contains(&self.plan.call) {
            subject.set_live(true);
        }
        Ok(())
    }
}

/// The process of a session, once it is connected. 0 would be all of ours.
fn pid_of(session: &AtomicI32) -> Result<i32, String> {
    let since = Instant::now();
    loop {
        match session.load(Ordering::SeqCst) {
            0 if since.elapsed() > Duration::from_secs(30) => return Err("a session does not connect".into()),
            0 => std::thread::sleep(Duration::from_millis(1)),
            pid => return Ok(pid),
        }
    }
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn pairs(client: &mut Client) -> Result<i64, String> {
    let row = client
        .query_one("SELECT count(*) FROM partition_router.pair", &[])
        .map_err(text)?;
    Ok(row.get(0))
}

fn is_code(error: &postgres::Error, code: &str) -> bool {
    error.as_db_error().is_some_and(|e| e.code().code() == code)
}

fn is_busy(error: &postgres::Error) -> bool {
    ["55P03", "40P01", "55006"]
        .iter()
        .any(|code| is_code(error, code))
}

fn insist(client: &mut Client, call: &str) -> Result<(), String> {
    for _ in 0..20 {
        match client.batch_execute(call) {
            Ok(()) => return Ok(()),
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(format!("{call}: {error:?}")),
        }
    }
    Err(format!("{call} never got its locks"))
}
