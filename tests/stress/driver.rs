//! The session that migrates while the others write: in small batches, interrupted and resumed in every way, from the
//! beginning again now and then; and that proves both sides equal while they go on.

use crate::checks;
use crate::session::Subject;
use crate::totals::Run;
use crate::world::Shape;
use postgres::{Client, Config, NoTls};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Locks that were not to be had, deadlocks that the driver lost: call again.
const BUSY: [&str; 3] = ["55P03", "40P01", "40001"];

pub struct Driver<'a> {
    run: &'a Run<'a>,
    subjects: &'a [Subject],
    client: Client,
    /// Cancels what `client` does.
    other: Client,
    pid: i32,
    random: ChaCha8Rng,
    /// Sessions that still write.
    writing: &'a AtomicUsize,
    /// Operations that are done between two calls, at most.
    gap: u64,
    restarts: u32,
}

type Outcome = Result<(), String>;

impl<'a> Driver<'a> {
    pub fn new(
        run: &'a Run<'a>,
        subjects: &'a [Subject],
        config: &Config,
        writing: &'a AtomicUsize,
        seed: u64,
    ) -> Result<Driver<'a>, String> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(1000);
        let mut client = config.connect(NoTls).map_err(|e| e.to_string())?;
        let other = config.connect(NoTls).map_err(|e| e.to_string())?;
        let pid = client
            .query_one("SELECT pg_backend_pid()", &[])
            .map_err(|e| e.to_string())?
            .get(0);
        let workers = random.random_range(1..=3);
        client
            .batch_execute(&crate::use_workers(workers))
            .map_err(|e| e.to_string())?;
        run.totals
            .count("processes of the backfill", &workers.to_string());
        Ok(Driver {
            run,
            subjects,
            client,
            other,
            pid,
            random,
            writing,
            gap: 60,
            restarts: 0,
        })
    }

    pub fn drive(&mut self) -> Outcome {
        let mut order: Vec<_> = (0..self.subjects.len()).collect();
        order.shuffle(&mut self.random);
        for number in order {
            self.let_them_write(4);
            self.migrate(number)?;
        }
        while self.writing.load(Ordering::SeqCst) > 0 && !self.run.is_stopped() {
            let number = self.random.random_range(0..self.subjects.len());
            self.look_after(number)?;
            self.let_them_write(2);
        }
        // What a rewrite or a new beginning left open.
        for subject in self.subjects {
            self.finish(subject)?;
        }
        Ok(())
    }

    fn let_them_write(&mut self, gaps: u64) {
        if self.writing.load(Ordering::SeqCst) > 0 {
            let operations = self.random.random_range(0..self.gap * gaps);
            self.run
                .wait_for_operations(operations, Duration::from_millis(400));
        }
    }

    /// Runs a call; gives the SQLSTATE when it failed with one of those `allowed`.
    fn call(&mut self, statement: &str, allowed: &[&str]) -> Result<Option<String>, String> {
        let begin = self.run.now();
        let result = self.client.batch_execute(statement);
        let failed = match &result {
            Ok(()) => None,
            Err(error) => Some(error.as_db_error().map(|e| e.code().code().to_string())),
        };
        self.run.log(
            "driver",
            begin,
            match &result {
                Ok(()) => format!("{statement} → ok"),
                Err(error) => format!("{statement} → {error:?}"),
            },
        );
        match failed {
            None => Ok(None),
            Some(Some(code)) if allowed.contains(&code.as_str()) => {
                self.run.totals.count("calls that failed", &code);
                Ok(Some(code))
            }
            _ => Err(format!("driver: {statement}: {:?}", result.err())),
        }
    }

    /// Runs a call until it gets its locks.
    fn insist(&mut self, statement: &str) -> Outcome {
        for _ in 0..200 {
            if self.call(statement, &BUSY)?.is_none() || self.run.is_stopped() {
                return Ok(());
            }
        }
        Err(format!("driver: {statement} never got its locks"))
    }

    fn text(&mut self, query: &str) -> Result<String, String> {
        let row = self
            .client
            .query_one(query, &[])
            .map_err(|e| format!("{query}: {e:?}"))?;
        Ok(row.get(0))
    }

    /// The stage of the backfill; `none`, `prepared` and `begin` before it has one.
    fn stage(&mut self, shape: &Shape) -> Result<String, String> {
        self.text(&format!(
            "SELECT COALESCE((SELECT CASE WHEN p.phase = 'prepared' THEN 'prepared' WHEN s.stage IS NOT NULL THEN s.stage
                                     WHEN p.phase = 'live' THEN 'done' ELSE 'begin' END
              FROM partition_router.pair p LEFT JOIN partition_router.copy_state s ON s.pair_id = p.id
              WHERE p.legacy = '{}'::regclass), 'none')",
            shape.table
        ))
    }

    /// From nothing to live, and done.
    fn migrate(&mut self, number: usize) -> Outcome {
        let subject = &self.subjects[number];
        let at_once = self.random.random_bool(0.15);
        while !self.run.is_stopped() {
            let stage = self.stage(&subject.shape)?;
            self.note_phase(subject)?;
            match stage.as_str() {
                "done" => break,
                "none" if !at_once => {
                    let request = subject.shape.request();
                    self.insist(&format!("SELECT FROM partition_router.create_twin({request})"))?;
                }
                "prepared" if !at_once => {
                    self.insist(&format!(
                        "SELECT partition_router.start_sync('{}')",
                        subject.shape.table
                    ))?;
                }
                _ if at_once => {
                    let request = subject.shape.request();
                    self.insist(&format!("CALL partition_router.migrate({request})"))?;
                    self.run.totals.count("pauses", "none: migrate() in one call");
                }
                stage => self.piece(subject, stage)?,
            }
            self.let_them_write(1);
        }
        self.run.totals.count("also", "copies that ended live");
        self.note_phase(subject)
    }

    /// Tells the sessions whether the twin takes writes.
    fn note_phase(&mut self, subject: &Subject) -> Outcome {
        let phase = self.text(&format!(
            "SELECT COALESCE((SELECT phase FROM partition_router.pair WHERE legacy = '{}'::regclass), 'none')",
            subject.shape.table
        ))?;
        subject.set_live(phase == "live");
        Ok(())
    }

    /// Some of the backfill, in one of the ways in which it may be interrupted.
    fn piece(&mut self, subject: &Subject, stage: &str) -> Outcome {
        let table = subject.shape.table;
        let batch = self.random.random_range(20..400);
        let pauses = self.run.totals;
        match self.random.random_range(0..14) {
            0..2 => {
                pauses.count("pauses", "max_duration");
                let length = self.random.random_range(1..40);
                self.insist(&format!(
                    "CALL partition_router.backfill('{table}', {batch}, '2 ms', '{length} ms')"
                ))
            }
            2..4 => {
                pauses.count("pauses", "statement_timeout");
                let length = self.random.random_range(2..60);
                self.call(&format!("SET statement_timeout = '{length}ms'"), &[])?;
                let call = format!("CALL partition_router.backfill('{table}', {batch}, '1 ms')");
                self.call(&call, &["57014", "55P03", "40P01", "40001"])?;
                crate::common::end_statement_timeout(&mut self.client);
                Ok(())
            }
            4..6 => {
                pauses.count("pauses", "cancelled");
                self.cancelled(&format!(
                    "CALL partition_router.backfill('{table}', {batch}, '1 ms')"
                ))
            }
            6..10 => {
                pauses.count("pauses", "a step held open");
                self.call("BEGIN", &[])?;
                let step = format!("SELECT partition_router.backfill_step('{table}', {batch})");
                if self.call(&step, &BUSY)?.is_some() {
                    return self.call("ROLLBACK", &[]).map(|_| ());
                }
                // Later stages keep the writers out.
                let operations = self.random.random_range(0..40);
                let longest = if ["begin", "copy"].contains(&stage) {
                    200
                } else {
                    10
                };
                self.run
                    .wait_for_operations(operations, Duration::from_millis(longest));
                let end = if self.random.random_bool(0.2) {
                    "ROLLBACK"
                } else {
                    "COMMIT"
                };
                self.call(end, &["40P01"]).map(|_| ())
            }
            10 => self.rewrite(table),
            11 if self.restarts < 2 && self.random.random_bool(0.6) => {
                self.restarts += 1;
                self.abandon(subject)
            }
            _ => {
                pauses.count("pauses", "single steps");
                for _ in 0..self.random.random_range(1..8) {
                    self.insist(&format!(
                        "SELECT partition_router.backfill_step('{table}', {batch})"
                    ))?;
                }
                Ok(())
            }
        }
    }

    fn cancelled(&mut self, call: &str) -> Outcome {
        let (pid, delay) = (self.pid, self.random.random_range(0..60));
        let (client, other, run) = (&mut self.client, &mut self.other, self.run);
        let begin = run.now();
        let result = std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(delay));
                other.execute("SELECT pg_cancel_backend($1)", &[&pid])
            });
            let result = client.batch_execute(call);
            killer
                .join()
                .expect("the session that cancels ends")
                .map(|_| result)
        });
        let result = result.map_err(|e| format!("pg_cancel_backend: {e}"))?;
        run.log(
            "driver",
            begin,
            format!("cancelled after {delay} ms: {call} → {result:?}"),
        );
        match result {
            Ok(()) => Ok(()),
            Err(error) => match error.as_db_error().map(|e| e.code().code()) {
                Some("57014" | "55P03" | "40P01" | "40001") => Ok(()),
                _ => Err(format!("driver: {call}: {error:?}")),
            },
        }
    }

    /// What gives the legacy another file, or other row versions.
    fn rewrite(&mut self, table: &str) -> Outcome {
        let primary = self.text(&format!(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '{table}'::regclass AND indisprimary"
        ))?;
        let statement = match self.random.random_range(0..6) {
            0 | 1 => format!("VACUUM FULL {table}"),
            2 => format!("CLUSTER {table} USING {primary}"),
            3 => format!("VACUUM (FREEZE) {table}"),
            4 => format!("REINDEX TABLE {table}"),
            _ => format!("VACUUM {table}"),
        };
        let kind: Vec<_> = statement.split(' ').take(2).collect();
        self.run
            .totals
            .count("also", &kind.join(" ").replace(&format!(" {table}"), ""));
        self.call("SET lock_timeout = '300ms'", &[])?;
        self.call(&statement, &BUSY)?;
        self.call("RESET lock_timeout", &[]).map(|_| ())
    }

    fn abandon(&mut self, subject: &Subject) -> Outcome {
        subject.set_live(false);
        self.run.totals.count("also", "abandoned and begun again");
        self.insist(&format!(
            "SELECT partition_router.abandon('{}')",
            subject.shape.table
        ))
    }

    /// What one does with a pair that is live, while the sessions write.
    fn look_after(&mut self, number: usize) -> Outcome {
        let subject = &self.subjects[number];
        let shape = &subject.shape;
        let table = shape.table;
        let with_retry = |result: Result<(), String>| match result {
            Err(message) if BUSY.iter().any(|code| message.contains(&format!("E{code}"))) => Ok(()),
            result => result,
        };
        let totals = self.run.totals;
        match self.random.random_range(0..20) {
            0..8 => {
                totals.count("comparisons", "verify");
                let result = checks::verified(&mut self.client, shape);
                with_retry(result).inspect_err(|_| totals.count("mismatches", "verify"))
            }
            8..13 => {
                totals.count("comparisons", "by SQL");
                let result = checks::equal_now(&mut self.client, shape);
                with_retry(result).inspect_err(|_| totals.count("mismatches", "by SQL"))
            }
            13 | 14 => {
                totals.count("comparisons", "repair");
                for dry_run in [true, false] {
                    let call = format!(
                        "DO $$DECLARE r record; BEGIN
                             SELECT * INTO r FROM partition_router.repair('{table}', {dry_run});
                             IF r.inserted + r.updated + r.deleted > 0 THEN RAISE 'repaired %', r; END IF;
                         END$$"
                    );
                    self.call(&call, &BUSY)
                        .inspect_err(|_| totals.count("mismatches", "repair"))?;
                }
                Ok(())
            }
            15 | 16 => self.rewrite(table),
            17 if shape.is_range() => {
                totals.count("also", "maintenance");
                self.insist(&format!("CALL partition_router.run_maintenance('{table}')"))
            }
            18 if self.restarts < 2 && self.random.random_bool(0.4) => {
                self.restarts += 1;
                self.abandon(subject)?;
                self.migrate(number)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, subject: &Subject) -> Outcome {
        if self.run.is_stopped() {
            return Ok(());
        }
        let request = subject.shape.request();
        let statement = format!("CALL partition_router.migrate({request})");
        for _ in 0..20 {
            let code = self.call(&statement, &["55P03", "40P01", "PR010"])?;
            if code.is_none() || code.as_deref() == Some("PR010") {
                return self.note_phase(subject);
            }
        }
        Err(format!("driver: {statement} never got its locks"))
    }
}
