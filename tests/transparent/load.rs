//! A thousand flips of every kind under the load of four clients whose plans are cached: no client reads the wrong side,
//! a sum that never changes, its own writes, and gets no error that is not documented.

use crate::common::{Database, is_stress, one, run};
use crate::marked::{self, SIDE};
use postgres::{Client, Error, Statement};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CLIENTS: u64 = 4;

/// What reads of another transaction may meet: a snapshot that cannot be serialized, a deadlock that it lost.
const DOCUMENTED: [&str; 2] = ["40001", "40P01"];

/// Accounts whose sum never changes, moved between by the clients; a pair that stays live.
const ACCOUNTS: &[&str] = &[
    "CREATE TABLE accounts (id int PRIMARY KEY, at timestamp NOT NULL, cents bigint NOT NULL)",
    "INSERT INTO accounts SELECT g, timestamp '2026-01-01' + g * interval '2 days', 1000 FROM generate_series(0, 79) g",
    "CALL partition_router.migrate('accounts', 'at')",
    "CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(cents) FROM accounts); END'",
    "CREATE FUNCTION side() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT side FROM revenues WHERE id = 0); END'",
];
const TOTAL: i64 = 80_000;

/// What all sessions share: whoever flips makes `epoch` odd, and even again when the flip is committed.
struct Board {
    epoch: AtomicU64,
    /// What reads without a tenant read in this epoch: by rollout alone, and with the switch of the session on.
    expected: Mutex<Expected>,
    stop: AtomicBool,
    done: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    by_rollout: &'static str,
    by_switch: &'static str,
    pilot: &'static str,
}

impl Board {
    fn count(&self, what: &str) {
        *self
            .done
            .lock()
            .expect("no thread panics while it counts")
            .entry(what.into())
            .or_default() += 1;
    }

    /// How many reads had one side that was right.
    fn certain(&self) -> u64 {
        let done = self.done.lock().expect("no thread panics while it counts");
        done.iter()
            .filter(|(what, _)| what.ends_with("for certain"))
            .map(|(_, n)| n)
            .sum()
    }

    /// One flip; what is expected afterwards.
    fn flip(&self, expected: Expected, change: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let result = change();
        *self.expected.lock().expect("no thread panics here") = expected;
        self.epoch.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// What is expected now, with the epoch; none while somebody flips.
    fn now(&self) -> Option<(u64, Expected)> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let expected = *self.expected.lock().expect("no thread panics here");
        (epoch.is_multiple_of(2) && epoch == self.epoch.load(Ordering::SeqCst)).then_some((epoch, expected))
    }
}

struct Session<'a> {
    board: &'a Board,
    client: Client,
    random: ChaCha8Rng,
    side: Statement,
    sum: Statement,
}

fn code_of(error: &Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| format!("{error:?}"), |db| db.code().code().to_string())
}

impl<'a> Session<'a> {
    fn new(database: &Database, board: &'a Board, random: ChaCha8Rng) -> Session<'a> {
        let mut client = database.connect();
        run(
            &mut client,
            &[
                "SET partition_router.transparent = on",
                &format!("PREPARE side AS {SIDE}"),
                "PREPARE sum AS SELECT sum(cents)::bigint FROM accounts",
            ],
        );
        let side = client.prepare(SIDE).expect("prepares");
        let sum = client
            .prepare("SELECT sum(cents)::bigint FROM accounts")
            .expect("prepares");
        Session {
            board,
            client,
            random,
            side,
            sum,
        }
    }

    fn read_side(&mut self) -> Result<String, Error> {
        let row = match self.random.random_range(0..4) {
            0 => self.client.query_one(SIDE, &[])?,
            1 => self.client.query_one("EXECUTE side", &[])?,
            2 => self.client.query_one("SELECT side()", &[])?,
            _ => self.client.query_one(&self.side, &[])?,
        };
        Ok(row.get(0))
    }

    fn read_sum(&mut self) -> Result<i64, Error> {
        let row = match self.random.random_range(0..4) {
            0 => self
                .client
                .query_one("SELECT sum(cents)::bigint FROM accounts", &[])?,
            1 => self.client.query_one("EXECUTE sum", &[])?,
            2 => self.client.query_one("SELECT total()", &[])?,
            _ => self.client.query_one(&self.sum, &[])?,
        };
        Ok(row.get(0))
    }

    /// Reads the side under settings of this transaction or session.
    fn look(&mut self) -> Result<(), Error> {
        let ways = ["nothing", "SET LOCAL", "SET", "kill switch", "pilot", "savepoint"];
        let way = *ways.choose(&mut self.random).expect("not empty");
        let before = self.board.now();
        let set: &[&str] = match way {
            "SET LOCAL" => &["BEGIN", "SET LOCAL partition_router.use_partitioned_tables = on"],
            "SET" => &["SET partition_router.use_partitioned_tables = on"],
            "kill switch" => &[
                "BEGIN",
                "SET LOCAL partition_router.use_partitioned_tables = on",
                "SET LOCAL partition_router.enable_partition_routing = off",
            ],
            "pilot" => &["BEGIN", "SET LOCAL partition_router.tenant = 'pilot'"],
            "savepoint" => &[
                "BEGIN",
                "SAVEPOINT a",
                "SET LOCAL partition_router.use_partitioned_tables = on",
                "ROLLBACK TO a",
            ],
            _ => &[],
        };
        for statement in set {
            self.client.batch_execute(statement)?;
        }
        let found = self.read_side();
        match way {
            "SET" => self
                .client
                .batch_execute("RESET partition_router.use_partitioned_tables")?,
            "nothing" => {}
            _ => self.client.batch_execute(if self.random.random() {
                "COMMIT"
            } else {
                "ROLLBACK"
            })?,
        }
        let found = found?;
        let known = before.filter(|(epoch, _)| *epoch == self.board.epoch.load(Ordering::SeqCst));
        match known {
            Some((epoch, expected)) => {
                let wanted = match way {
                    "kill switch" => "legacy",
                    "SET LOCAL" | "SET" => expected.by_switch,
                    "pilot" => expected.pilot,
                    _ => expected.by_rollout,
                };
                assert_eq!(found, wanted, "{way} in epoch {epoch}, {expected:?}");
                self.board.count(&format!("read the {found} for certain"));
            }
            None => {
                assert!(["legacy", "twin"].contains(&found.as_str()), "{way}: {found}");
                self.board.count("read a side while it flipped");
            }
        }
        Ok(())
    }

    /// Moves money, reads it back, and sums up, in a transaction of any isolation level.
    fn transfer(&mut self) -> Result<(), Error> {
        let level = *["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
            .choose(&mut self.random)
            .expect("not empty");
        let switch = if self.random.random() { "on" } else { "off" };
        let (from, to) = (self.random.random_range(0..40), self.random.random_range(40..80));
        let c = &mut self.client;
        c.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL {level}; SET LOCAL partition_router.use_partitioned_tables = {switch}"
        ))?;
        let result = (|| {
            assert_eq!(self.read_sum()?, TOTAL, "before a transfer");
            let c = &mut self.client;
            let left: i64 = c
                .query_one(
                    "UPDATE accounts SET cents = cents - 7 WHERE id = $1 RETURNING cents",
                    &[&from],
                )?
                .get(0);
            let seen: i64 = c
                .query_one("SELECT cents FROM accounts WHERE id = $1", &[&from])?
                .get(0);
            assert_eq!(seen, left, "its own write");
            assert_eq!(self.read_sum()?, TOTAL - 7, "in the middle of a transfer");
            let table = if self.random.random() {
                "accounts"
            } else {
                "accounts_partitioned"
            };
            let changed = self.client.execute(
                &format!(
                    "UPDATE {table} SET cents = cents + 7, at = at + $2::int * interval '1 day' WHERE id = $1"
                ),
                &[&to, &self.random.random_range(-40..40)],
            )?;
            assert_eq!(changed, 1, "rows of {table} changed, {level}");
            assert_eq!(self.read_sum()?, TOTAL, "after a transfer");
            Ok(())
        })();
        let end = if result.is_ok() && self.random.random_bool(0.7) {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        // The error that came first says more.
        let ended = self.client.batch_execute(end);
        result.and(ended)
    }

    fn work(&mut self) -> Result<(), String> {
        while !self.board.stop.load(Ordering::SeqCst) {
            let what = self.random.random_range(0..10);
            let result = match what {
                0..5 => self.look(),
                5..8 => self.transfer(),
                _ => self.read_sum().map(|sum| assert_eq!(sum, TOTAL)),
            };
            match result {
                Ok(()) => self
                    .board
                    .count(if what < 5 { "looks" } else { "transfers and sums" }),
                Err(error) if DOCUMENTED.contains(&code_of(&error).as_str()) => {
                    self.board.count(&format!("error {}", code_of(&error)));
                    self.client.batch_execute("ROLLBACK").map_err(|e| e.to_string())?;
                }
                Err(error) => return Err(format!("{what}: {error:?}")),
            }
        }
        Ok(())
    }
}

/// Calls until the locks are to be had.
fn insist(client: &mut Client, statement: &str) -> Result<(), String> {
    for _ in 0..50 {
        match client.batch_execute(statement) {
            Ok(()) => return Ok(()),
            Err(error) if ["55P03", "40P01"].contains(&code_of(&error).as_str()) => {}
            Err(error) => return Err(format!("{statement}: {error:?}")),
        }
    }
    Err(format!("{statement} never got its locks"))
}

fn all(client: &mut Client, statements: &[&str]) -> Result<(), String> {
    statements
        .iter()
        .try_for_each(|statement| insist(client, statement))
}

/// Flips so many times.
fn flip(database: &Database, board: &Board, mut random: ChaCha8Rng, flips: u64) -> Result<(), String> {
    let mut owner = database.connect();
    let c = &mut owner;
    let proven = |by_rollout, pilot| Expected {
        by_rollout,
        by_switch: "twin",
        pilot,
    };
    let nothing = Expected {
        by_rollout: "legacy",
        by_switch: "legacy",
        pilot: "legacy",
    };
    let rollout = |arguments: &str| format!("SELECT partition_router.set_rollout('revenues', {arguments})");
    for n in 0..flips {
        // Long enough for some reads in between whose side is certain.
        let wanted = board.certain() + 4;
        while board.certain() < wanted && !board.stop.load(Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if board.stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        if n % 50 == 20 {
            board.count("flips: the proof is lost");
            board.flip(nothing, || {
                insist(c, "SELECT partition_router.verify('revenues')")?;
                Ok(())
            })?;
            board.count("flips: the proof is found");
            // Marks are set on a pair that is proven; the rollout is as it was.
            board.flip(proven("twin", "twin"), || {
                all(
                    c,
                    &[
                        "SELECT partition_router.repair('revenues')",
                        "SELECT partition_router.verify('revenues')",
                        &rollout("100, pilots => '{}', excluded => '{}'"),
                    ],
                )?;
                mark(c)
            })?;
        } else if n % 50 == 45 {
            board.count("flips: abandoned");
            board.flip(nothing, || {
                insist(c, "SELECT partition_router.abandon('revenues')")
            })?;
            board.count("flips: migrated again");
            board.flip(proven("legacy", "twin"), || {
                insist(c, "CALL partition_router.migrate('revenues', 'at')")?;
                insist(c, &rollout("0, pilots => ARRAY['pilot'], excluded => '{}'"))?;
                mark(c)
            })?;
        } else {
            let (arguments, expected) = *[
                ("100, pilots => '{}', excluded => '{}'", proven("twin", "twin")),
                ("0, pilots => '{}', excluded => '{}'", proven("legacy", "legacy")),
                (
                    "0, pilots => ARRAY['pilot'], excluded => '{}'",
                    proven("legacy", "twin"),
                ),
                (
                    "100, pilots => '{}', excluded => ARRAY['pilot']",
                    proven("twin", "legacy"),
                ),
            ]
            .choose(&mut random)
            .expect("not empty");
            board.count("flips: rollout");
            board.flip(expected, || insist(c, &rollout(arguments)))?;
        }
    }
    Ok(())
}

/// [`marked::mark`], whose locks must wait for the readers.
fn mark(client: &mut Client) -> Result<(), String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| marked::mark(client)))
        .map_err(|_| "the marks could not be set".to_string())
}

#[test]
fn flips_under_load_give_no_wrong_answer() {
    let flips = if is_stress() { 1_000 } else { 60 };
    let seed = crate::seed("flips");
    let (database, mut owner) = marked::marked("load");
    run(&mut owner, ACCOUNTS);
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('accounts', 50)"],
    );
    let board = Board {
        epoch: AtomicU64::new(0),
        expected: Mutex::new(Expected {
            by_rollout: "legacy",
            by_switch: "twin",
            pilot: "legacy",
        }),
        stop: AtomicBool::new(false),
        done: Mutex::default(),
    };
    let random = |stream| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        random
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let (board, database) = (&board, &database);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let random = random(n);
                scope.spawn(move || {
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        Session::new(database, board, random).work()
                    }));
                    board.stop.store(true, Ordering::SeqCst);
                    result
                        .unwrap_or_else(|_| Err("a wrong answer, see above".into()))
                        .err()
                })
            })
            .collect();
        let flipped = flip(database, board, random(CLIENTS), flips).err();
        board.stop.store(true, Ordering::SeqCst);
        let failed = clients
            .into_iter()
            .filter_map(|t| t.join().expect("the thread ends"));
        flipped.into_iter().chain(failed).collect()
    });
    let done = board.done.into_inner().expect("all threads have ended");
    println!("flips: {done:?}");
    assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
    let count = |what: &str| {
        done.iter()
            .filter(|(k, _)| k.starts_with(what))
            .map(|(_, n)| n)
            .sum::<u64>()
    };
    assert!(count("flips") >= flips, "{done:?}");
    assert!(count("read the twin for certain") > flips / 2, "{done:?}");
    assert!(count("read the legacy for certain") > flips / 2, "{done:?}");
    run(&mut owner, &["SELECT partition_router.verify('accounts')"]);
    let total: i64 = one(&mut owner, "SELECT sum(cents)::bigint FROM accounts_partitioned");
    assert_eq!(total, TOTAL);
}
