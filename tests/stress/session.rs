//! One session that writes: transactions of a few operations, in every way that a transaction may go.

use crate::checks;
use crate::ops::{Generator, Operation, Sql, Target};
use crate::totals::Run;
use crate::world::Shape;
use postgres::error::{DbError, SqlState};
use postgres::{Client, Config, NoTls, Statement};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// A pair that sessions write to, and whether its twin takes writes. The epoch is odd while it does: a statement that
/// met one odd epoch before and after itself met a live pair all the while.
#[derive(Debug)]
pub struct Subject {
    pub shape: Shape,
    pub epoch: AtomicU64,
}

impl Subject {
    pub fn new(shape: Shape) -> Subject {
        Subject {
            shape,
            epoch: AtomicU64::new(0),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub fn is_live(&self) -> bool {
        self.epoch() % 2 == 1
    }

    pub fn set_live(&self, live: bool) {
        if self.is_live() != live {
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Why a session ends before its time.
pub enum End {
    /// The connection, which is no failure while servers are killed.
    Lost(String),
    Failed(String),
}

pub struct Session<'a> {
    run: &'a Run<'a>,
    subjects: &'a [Subject],
    config: Config,
    client: Client,
    /// The server process, for those who kill.
    pub pid: &'a AtomicI32,
    random: ChaCha8Rng,
    name: String,
    prepared: HashMap<String, Statement>,
    /// The leaves of each twin, as of an epoch.
    leaves: Vec<(u64, Vec<String>)>,
    transactions: u64,
    /// The server reads it: the client library loses its place where COPY from the client fails.
    copy_file: PathBuf,
    done: u64,
    /// How many operations to do, and behind how many to wait for every pair to have been live once.
    limit: u64,
    gate: u64,
    /// The subject of the last operation.
    subject: usize,
}

/// What a transaction may end with besides what any may.
#[derive(Default)]
struct Circumstances {
    /// It has a `statement_timeout` or a `lock_timeout`.
    timeouts: bool,
    wrote_twin: bool,
    wrote_leaf: bool,
    /// Every statement met a live pair.
    live: bool,
}

impl<'a> Session<'a> {
    pub fn new(
        run: &'a Run<'a>,
        subjects: &'a [Subject],
        config: Config,
        pid: &'a AtomicI32,
        number: u64,
        seed: u64,
        limit: u64,
    ) -> Result<Session<'a>, End> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number + 1);
        let gate = if limit == u64::MAX {
            u64::MAX
        } else {
            random.random_range(limit * 2 / 5..limit * 7 / 10)
        };
        let client = connect(&config, pid)?;
        Ok(Session {
            run,
            subjects,
            config,
            client,
            pid,
            random,
            name: format!("session {number}"),
            prepared: HashMap::new(),
            leaves: vec![(u64::MAX, vec![]); subjects.len()],
            transactions: 0,
            copy_file: std::env::temp_dir().join(format!(
                "partition_router_{}_{}_{number}.copy",
                std::process::id(),
                run.name
            )),
            done: 0,
            limit,
            gate,
            subject: 0,
        })
    }

    /// Writes until the limit or until it is told to stop.
    pub fn write(&mut self) -> Result<(), End> {
        self.run.writers.fetch_add(1, Ordering::SeqCst);
        let end = self.write_all();
        if self.copy_file.exists() {
            std::fs::remove_file(&self.copy_file).expect("the file is ours");
        }
        self.run.writers.fetch_sub(1, Ordering::SeqCst);
        end
    }

    /// Waits for every pair to have been live once, when so much is done that little would be left to do then.
    fn pass_gate(&mut self) {
        if self.done < self.gate {
            return;
        }
        self.run.writers.fetch_sub(1, Ordering::SeqCst);
        while self.subjects.iter().any(|s| s.epoch() == 0) && !self.run.is_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.run.writers.fetch_add(1, Ordering::SeqCst);
    }

    fn write_all(&mut self) -> Result<(), End> {
        while self.done < self.limit && !self.run.is_stopped() {
            self.pass_gate();
            self.transactions += 1;
            if let Err(end) = self.transaction() {
                return match end {
                    End::Lost(_) if self.run.is_killing() => Ok(()),
                    end => Err(end),
                };
            }
        }
        Ok(())
    }

    fn transaction(&mut self) -> Result<(), End> {
        let mut circumstances = Circumstances {
            live: true,
            ..Circumstances::default()
        };
        let outcome = match self.random.random_range(0..100) {
            0..22 => self.operation(&mut circumstances, false),
            22..28 => self.prepared_transaction(&mut circumstances),
            28..34 => self.replica_transaction(&mut circumstances),
            _ => self.block(&mut circumstances),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(Stop::End(end)) => Err(end),
            Err(Stop::Error(error, statement)) => {
                let Some(error) = error.as_db_error() else {
                    return Err(End::Lost(format!("{statement}: {error:?}")));
                };
                self.judge(error, &statement, &circumstances)?;
                // The cancel of a statement that came to its end by itself may reach the next one.
                let ended = match self.client.batch_execute("ROLLBACK") {
                    Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
                        self.client.batch_execute("ROLLBACK")
                    }
                    ended => ended,
                };
                ended.map_err(|error| End::Lost(format!("ROLLBACK: {error:?}")))
            }
        }
    }

    /// Whether an error is one that would come on a single table too, or that a twin which is not live must give.
    fn judge(&self, error: &DbError, statement: &str, c: &Circumstances) -> Result<(), End> {
        let code = error.code().code();
        if code.starts_with("57P") {
            return Err(End::Lost(format!("{statement}: {error:?}")));
        }
        self.run.totals.count("errors", code);
        let allowed = match code {
            "40001" | "40P01" | "23505" | "23503" => true,
            "57014" | "55P03" => c.timeouts,
            // Keys that belong in another partition; a BEFORE trigger meets them first and says so otherwise.
            "23514" | "0A000" => c.wrote_leaf,
            "PR012" | "42P01" | "42P10" => (c.wrote_twin || c.wrote_leaf) && !c.live,
            _ => false,
        };
        // The twin is no stricter than its legacy: what the legacy took, it takes.
        let of_legacy = !c.wrote_twin && !c.wrote_leaf;
        let refused = error
            .hint()
            .is_some_and(|hint| hint.starts_with("The other side"))
            || (code == "23505" && error.table().is_some_and(|table| !self.is_a_legacy(table)));
        if allowed && !(of_legacy && refused) {
            return Ok(());
        }
        Err(End::Failed(format!("{}: {statement}: {error:?}", self.name)))
    }

    fn is_a_legacy(&self, table: &str) -> bool {
        self.subjects.iter().any(|s| {
            let legacy = s.shape.table;
            table == legacy || table == format!("{legacy}_account")
        })
    }

    /// Runs a statement that is no operation.
    fn say(&mut self, statement: &str) -> Result<(), Stop> {
        let begin = self.run.now();
        let result = self.client.batch_execute(statement);
        self.log(begin, statement, &result);
        result.map_err(|error| Stop::Error(error, statement.into()))
    }

    fn log<T>(&self, begin: Duration, statement: &str, result: &Result<T, postgres::Error>) {
        let outcome = match result {
            Ok(_) => "ok".to_string(),
            Err(error) => match error.as_db_error() {
                Some(e) => format!("{} {}", e.code().code(), e.message()),
                None => "connection lost".into(),
            },
        };
        self.run
            .log(&self.name, begin, format!("{statement} → {outcome}"));
    }

    fn block(&mut self, c: &mut Circumstances) -> Result<(), Stop> {
        let isolation = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
            .choose(&mut self.random)
            .expect("there are three");
        self.say(&format!("BEGIN ISOLATION LEVEL {isolation}"))?;
        if *isolation != "READ COMMITTED" && self.random.random_bool(0.3) {
            self.grow_old()?;
        }
        if self.random.random_bool(0.06) {
            let setting = ["statement_timeout", "lock_timeout"]
                .choose(&mut self.random)
                .expect("there are two");
            let length = self.random.random_range(1..20);
            c.timeouts = true;
            self.say(&format!("SET LOCAL {setting} = '{length}ms'"))?;
        }
        for _ in 0..self.random.random_range(1..5) {
            match self.random.random_range(0..20) {
                0..3 => {
                    self.say("SAVEPOINT s")?;
                    self.operation(c, false)?;
                    self.say("ROLLBACK TO SAVEPOINT s")?;
                }
                3..5 => {
                    self.say("SAVEPOINT s")?;
                    self.operation(c, false)?;
                    self.say("RELEASE SAVEPOINT s")?;
                }
                5 => {
                    self.operation(c, false)?;
                    self.compare(c)?;
                }
                _ => self.operation(c, false)?,
            }
        }
        if self.random.random_bool(0.05) {
            let operations = self.random.random_range(2..20);
            self.run
                .wait_for_operations(operations, Duration::from_millis(40));
        }
        if self.random.random_bool(0.12) {
            self.run.totals.count("transactions", "rolled back");
            return self.say("ROLLBACK");
        }
        self.commit("COMMIT")
    }

    fn commit(&mut self, statement: &str) -> Result<(), Stop> {
        self.say(statement)?;
        self.run.totals.count("transactions", "committed");
        Ok(())
    }

    /// Takes a snapshot and holds it while others go on.
    fn grow_old(&mut self) -> Result<(), Stop> {
        let table = self.subjects[self.subject].shape.table;
        self.say(&format!("SELECT count(*) FROM {table}"))?;
        self.run.totals.count("also", "old snapshots held");
        let operations = self.random.random_range(10..120);
        self.run
            .wait_for_operations(operations, Duration::from_millis(250));
        Ok(())
    }

    /// Both sides in this very transaction: under one snapshot, with its own writes, and for a snapshot of a live pair.
    fn compare(&mut self, c: &mut Circumstances) -> Result<(), Stop> {
        for subject in self.subjects {
            // TRUNCATE is not for old snapshots, on any table.
            let epoch = subject.epoch();
            if !subject.is_live() || subject.shape.truncates {
                continue;
            }
            let query = checks::different_rows(&subject.shape);
            let begin = self.run.now();
            let result = self.client.query(query.as_str(), &[]);
            self.log(begin, "compare both sides", &result);
            let rows = match result {
                Ok(rows) => rows,
                Err(error) => {
                    // Somebody may have abandoned the pair meanwhile.
                    c.wrote_twin = true;
                    c.live &= epoch == subject.epoch();
                    return Err(Stop::Error(error, query));
                }
            };
            if !rows.is_empty() && epoch == subject.epoch() && self.is_snapshot_of_live(subject)? {
                self.run.totals.count("mismatches", "in a transaction");
                return Err(Stop::End(End::Failed(format!(
                    "{}: the sides differ in one snapshot: {:?}",
                    self.name,
                    checks::texts_of(&rows)
                ))));
            }
            self.run.totals.count("comparisons", "in a transaction");
        }
        Ok(())
    }

    /// Whether the snapshot of this transaction sees the pair as live: it may be older than the pair.
    fn is_snapshot_of_live(&mut self, subject: &Subject) -> Result<bool, Stop> {
        let statement = format!(
            "SELECT count(*) FROM partition_router.pair p JOIN pg_class c ON c.oid = p.legacy
             WHERE c.relname = '{}' AND p.phase = 'live'",
            subject.shape.table
        );
        let live: i64 = self
            .client
            .query_one(statement.as_str(), &[])
            .map_err(|error| Stop::Error(error, statement))?
            .get(0);
        Ok(live == 1)
    }

    fn replica_transaction(&mut self, c: &mut Circumstances) -> Result<(), Stop> {
        self.say("BEGIN")?;
        self.say("SET LOCAL session_replication_role = replica")?;
        for _ in 0..self.random.random_range(1..3) {
            self.operation(c, true)?;
        }
        self.run.totals.count("also", "as a replica");
        self.commit("COMMIT")
    }

    fn prepared_transaction(&mut self, c: &mut Circumstances) -> Result<(), Stop> {
        self.say("BEGIN")?;
        for _ in 0..self.random.random_range(1..4) {
            self.operation(c, false)?;
        }
        let id = format!("{} {} {}", self.run.name, self.name, self.transactions);
        self.say(&format!("PREPARE TRANSACTION '{id}'"))?;
        if self.random.random_bool(0.4) {
            self.client = connect(&self.config, self.pid).map_err(Stop::End)?;
            self.prepared.clear();
        }
        let operations = self.random.random_range(0..10);
        self.run
            .wait_for_operations(operations, Duration::from_millis(20));
        if self.random.random_bool(0.2) {
            self.run.totals.count("transactions", "rolled back when prepared");
            return self.say(&format!("ROLLBACK PREPARED '{id}'"));
        }
        self.run.totals.count("transactions", "prepared");
        self.commit(&format!("COMMIT PREPARED '{id}'"))
    }

    /// The next operation on some pair.
    fn operation(&mut self, c: &mut Circumstances, replica: bool) -> Result<(), Stop> {
        self.subject = self.random.random_range(0..self.subjects.len());
        let subject = &self.subjects[self.subject];
        let epoch = subject.epoch();
        let target = self.target(epoch)?;
        let operation = Generator {
            random: &mut self.random,
            shape: &subject.shape,
        }
        .next(target, replica);
        match operation.target {
            Target::Legacy => {}
            Target::Twin => c.wrote_twin = true,
            Target::Leaf(_) => c.wrote_leaf = true,
        }
        let begin = self.run.now();
        let result = self.execute(&operation);
        self.log(begin, &operation.text(), &result);
        // A transaction may have met the twin before it was live; that any statement did is enough.
        if operation.target != Target::Legacy && (epoch.is_multiple_of(2) || subject.epoch() != epoch) {
            c.live = false;
        }
        self.done += 1;
        self.run.operations.fetch_add(1, Ordering::SeqCst);
        let totals = self.run.totals;
        totals.count("operations", operation.kind);
        totals.count(
            "targets",
            match (&operation.target, result.is_ok()) {
                (Target::Legacy, true) => "legacy",
                (Target::Twin, true) => "twin",
                (Target::Leaf(_), true) => "partition",
                (_, false) => "failed",
            },
        );
        result
            .map(|_| ())
            .map_err(|error| Stop::Error(error, operation.text()))
    }

    fn execute(&mut self, operation: &Operation) -> Result<(), postgres::Error> {
        match &operation.sql {
            Sql::Text(text) => self.client.batch_execute(text),
            Sql::Copy(text, rows) => {
                let file = &self.copy_file;
                std::fs::write(file, rows).expect("the directory for temporary files is writable");
                self.client.batch_execute(&format!("{text} '{}'", file.display()))
            }
            Sql::Prepared(text, id, number, note) => {
                if !self.prepared.contains_key(text) {
                    let statement = self.client.prepare(text)?;
                    self.prepared.insert(text.clone(), statement);
                }
                let statement = &self.prepared[text];
                self.client.execute(statement, &[id, number, note]).map(|_| ())
            }
        }
    }

    /// Which side to write to.
    fn target(&mut self, epoch: u64) -> Result<Target, Stop> {
        let draw = self.random.random_range(0..100);
        let live = epoch % 2 == 1;
        let (twin, leaf) = if live { (30, 22) } else { (4, 2) };
        if draw < twin {
            return Ok(Target::Twin);
        }
        if draw >= twin + leaf {
            return Ok(Target::Legacy);
        }
        let (of_epoch, names) = &self.leaves[self.subject];
        if *of_epoch != epoch || names.is_empty() {
            let query = format!(
                "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = to_regclass('{}') ORDER BY 1",
                self.subjects[self.subject].shape.twin()
            );
            let rows = self
                .client
                .query(query.as_str(), &[])
                .map_err(|error| Stop::Error(error, query))?;
            self.leaves[self.subject] = (epoch, checks::texts_of(&rows));
        }
        let names = &self.leaves[self.subject].1;
        Ok(match names.choose(&mut self.random) {
            Some(name) => Target::Leaf(name.clone()),
            None => Target::Twin,
        })
    }
}

/// Why a transaction ends before its end.
enum Stop {
    Error(postgres::Error, String),
    End(End),
}

fn connect(config: &Config, pid: &AtomicI32) -> Result<Client, End> {
    let connect = || {
        let mut client = config.connect(NoTls)?;
        // Who waits so long waits for ever.
        client.batch_execute("SET statement_timeout = '60s'")?;
        let row = client.query_one("SELECT pg_backend_pid()", &[])?;
        pid.store(row.get(0), Ordering::SeqCst);
        Ok(client)
    };
    connect().map_err(|error: postgres::Error| End::Lost(format!("no connection: {error:?}")))
}
