//! The example of docs/caches.md against a real Redis, while everything around it is killed.

use super::common::{Cluster, Database, cluster_sh, is_stress, one, run, texts};
use postgres::Client;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A Redis that keeps its state in an append-only file, and is killed without mercy.
struct Redis {
    directory: PathBuf,
    process: Option<Child>,
}

impl Redis {
    fn start(name: &str) -> Redis {
        let directory = std::env::temp_dir().join(format!("pr_redis_{name}_{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let mut redis = Redis {
            directory,
            process: None,
        };
        redis.run();
        redis
    }

    fn run(&mut self) {
        let child = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "no",
                "--logfile",
                "log",
            ])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs");
        self.process = Some(child);
        wait_for("Redis", || {
            self.try_ask(&["PING"]).is_some_and(|answer| answer == "PONG")
        });
    }

    fn kill(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
    }

    /// What a crash of its machine leaves: the file without its last lines, so that deleted keys are back.
    fn kill_and_restore(&mut self, before: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.directory.join("appendonlydir")).expect("the file goes");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(before)
            .arg(self.directory.join("appendonlydir"))
            .status();
        assert!(copied.expect("cp runs").success());
        self.run();
    }

    fn keep(&self, name: &str) -> PathBuf {
        let to = self.directory.join(name);
        let copied = Command::new("cp")
            .arg("-r")
            .arg(self.directory.join("appendonlydir"))
            .arg(&to)
            .status();
        assert!(copied.expect("cp runs").success());
        to
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words)
            .unwrap_or_else(|| panic!("{words:?}: no answer"))
    }

    /// The answer to a command: of a simple string, a number or a bulk string; empty for a nil.
    fn try_ask(&self, words: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(command.as_bytes()).ok()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let (kind, rest) = line.trim_end().split_at_checked(1)?;
        match (kind, rest.parse::<i64>()) {
            ("$", Ok(length)) if length < 0 => Some(String::new()),
            ("$", Ok(length)) => {
                let mut text = vec![0; length as usize];
                reader.read_exact(&mut text).ok()?;
                String::from_utf8(text).ok()
            }
            ("+" | ":", _) => Some(rest.to_string()),
            // It has just been started again.
            ("-", _) if rest.starts_with("LOADING") => None,
            _ => panic!("{words:?}: {line}"),
        }
    }

    fn get(&self, id: i32) -> String {
        self.ask(&["GET", &format!("r:{id}")])
    }

    /// Caches every row, as readers would.
    fn fill(&self, client: &mut Client) {
        for row in texts(client, "SELECT id || ' ' || cents FROM revenues") {
            let (id, cents) = row.split_once(' ').expect("two words");
            self.ask(&["SET", &format!("r:{id}"), cents]);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("it is killed");
            child.wait().expect("it is gone");
        }
        std::fs::remove_dir_all(&self.directory).expect("its directory goes");
    }
}

/// The example as it is shipped.
struct Consumer {
    process: Child,
    /// Open for as long as it may say something.
    _says: BufReader<ChildStdout>,
}

impl Consumer {
    fn start(database: &Database, redis: &Redis) -> Consumer {
        let mut child = Command::new("/usr/bin/python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/examples/redis_invalidation.py"
            ))
            .args([database.cluster.conninfo(&database.name), redis.url()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian's python3 runs, which has psycopg2 and redis");
        let mut says = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        says.read_line(&mut line).expect("it says something");
        assert_eq!(line, "ready\n");
        Consumer {
            process: child,
            _says: says,
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.process.kill().expect("it is killed");
        self.process.wait().expect("it is gone");
    }
}

/// A server of its own, to be killed.
fn world(name: &str) -> (Database, Client, Redis) {
    let database = Database::on(Arc::new(Cluster::start(&["fsync=on"])), name);
    let mut client = database.connect();
    run(&mut client, super::TABLE);
    run(
        &mut client,
        &["CALL partition_router.migrate('revenues', 'at')", super::ENABLE],
    );
    let redis = Redis::start(name);
    (database, client, redis)
}

fn all_is_taken(client: &mut Client) -> bool {
    one(client, "SELECT count(*) = 0 FROM partition_router.change_event")
}

/// No cached row is another one than the table's.
fn assert_fresh(client: &mut Client, redis: &Redis) -> usize {
    let mut cached = 0;
    for row in texts(client, "SELECT id || ' ' || cents FROM revenues") {
        let (id, cents) = row.split_once(' ').expect("two words");
        let found = redis.get(id.parse().expect("a number"));
        assert!(
            found.is_empty() || found == cents,
            "row {id} is {cents}, cached is {found}"
        );
        cached += usize::from(!found.is_empty());
    }
    cached
}

#[test]
fn a_changed_row_leaves_the_cache_and_the_others_stay() {
    let (database, mut client, redis) = world("redis");
    let c = &mut client;
    let _consumer = Consumer::start(&database, &redis);
    wait_for("the first look", || all_is_taken(c));
    redis.fill(c);
    run(
        c,
        &[
            "UPDATE revenues SET cents = -1 WHERE id = 5",
            "DELETE FROM revenues_partitioned WHERE id = 6",
        ],
    );
    wait_for("row 5 goes", || redis.get(5).is_empty());
    wait_for("row 6 goes", || redis.get(6).is_empty());
    assert_eq!(redis.get(7), "7");
    // Not even woken: a prepared transaction cannot notify.
    run(
        c,
        &[
            "BEGIN",
            "UPDATE revenues SET cents = -1 WHERE id = 7",
            "PREPARE TRANSACTION 'redis'",
            "COMMIT PREPARED 'redis'",
        ],
    );
    wait_for("row 7 goes", || redis.get(7).is_empty());
    redis.ask(&["SET", "another:1", "x"]);
    run(c, &["TRUNCATE revenues"]);
    wait_for("all go", || redis.get(8).is_empty());
    assert_eq!(redis.ask(&["GET", "another:1"]), "x");
}

#[test]
fn a_redis_that_comes_back_with_an_old_state_is_emptied() {
    let (database, mut client, mut redis) = world("old_redis");
    let c = &mut client;
    let consumer = Consumer::start(&database, &redis);
    wait_for("the first look", || all_is_taken(c));
    redis.fill(c);
    let before = redis.keep("before");
    run(c, &["UPDATE revenues SET cents = -1 WHERE id = 5"]);
    wait_for("row 5 goes", || redis.get(5).is_empty());
    redis.kill_and_restore(&before);
    wait_for("what is stale goes", || redis.get(5).is_empty());
    drop(consumer);
    // While nobody looks.
    wait_for("all is taken", || all_is_taken(c));
    let _again = Consumer::start(&database, &redis);
    redis.fill(c);
    let before = redis.keep("later");
    run(c, &["UPDATE revenues SET cents = -2 WHERE id = 5"]);
    wait_for("row 5 goes", || redis.get(5).is_empty());
    drop(_again);
    redis.kill_and_restore(&before);
    assert_eq!(redis.get(5), "-1", "the old state has it");
    let _third = Consumer::start(&database, &redis);
    assert_eq!(redis.get(5), "");
}

#[test]
fn no_change_is_missed_while_consumer_redis_and_server_are_killed() {
    let (database, mut client, mut redis) = world("killed");
    let rounds = if is_stress() { 40 } else { 3 };
    let mut consumer = Some(Consumer::start(&database, &redis));
    wait_for("the first look", || all_is_taken(&mut client));
    for round in 0..rounds {
        redis.fill(&mut client);
        let mut late = database.connect();
        run(
            &mut late,
            &[
                "BEGIN",
                &format!(
                    "UPDATE revenues SET cents = cents + 1000 WHERE id = {}",
                    round + 1
                ),
            ],
        );
        let update = |n: i32| {
            format!(
                "UPDATE revenues SET cents = cents + 1 WHERE id > 50 AND id % 10 = {}",
                n % 10
            )
        };
        run(&mut client, &[&update(round), &update(round + 1)]);
        match round % 3 {
            0 => consumer = None,
            1 => redis.kill(),
            _ => {}
        }
        run(&mut client, &[&update(round + 2)]);
        run(&mut late, &["COMMIT"]);
        if round % 3 == 2 {
            drop(late);
            cluster_sh(&["crash", database.cluster.directory()]);
            cluster_sh(&["start", database.cluster.directory()]);
            client = database.connect();
            run(&mut client, &[&update(round + 3)]);
        }
        match round % 3 {
            0 => consumer = Some(Consumer::start(&database, &redis)),
            1 => redis.run(),
            _ => {}
        }
        wait_for("the consumer", || all_is_taken(&mut client));
        // What was taken is deleted by then, but for what is done a second time.
        assert_fresh(&mut client, &redis);
    }
    drop(consumer);
    assert!(all_is_taken(&mut client));
}
