//! The calls of the dangerous hour, ended at random instants: by cancel, termination, SIGKILL of the backend or of the postmaster,
//! somebody's lock and a full disk, while a session writes. The pair is before or after, never between, and the same call again,
//! and nothing else, finishes.
//!
//! A disk is full for the calling backend alone: it may not let a file grow beyond a random length. Where that is a segment of the log the
//! server goes down, as it does on a full disk.

use super::common::{Cluster, Database, clock_seed, cluster_sh, is_stress, one, run};
use super::{BACK, TABLES, THERE, equal};
use postgres::Client;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const DROP: &str = "CALL partition_router.cleanup('s.t', keep_unique => false)";
const GUARD: &str = "CALL partition_router.cleanup('s.t', keep_unique => true)";
const KEEP: &str = "CALL partition_router.cleanup('s.t', keep_legacy => true)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cancel,
    Terminate,
    Kill,
    Postmaster,
    /// Somebody reads the legacy all the while.
    Lock,
    FullDisk,
}

/// The last one takes as long as all attempts at a lock, and has tests of its own: only where there is time.
const ENDS: [End; 6] = [
    End::Cancel,
    End::Terminate,
    End::Kill,
    End::Postmaster,
    End::FullDisk,
    End::Lock,
];

fn connect(database: &Database) -> Client {
    let started = Instant::now();
    loop {
        let config = database.cluster.config("postgres", &database.name);
        if let Ok(mut client) = config.connect(postgres::NoTls)
            && client.batch_execute("SELECT 1").is_ok()
        {
            return client;
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "the server does not come back"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The process may have ended by itself.
fn kill(pid: i32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    status.expect("kill runs");
}

/// Writes until it is told to stop, by whatever name and on whatever server: gives the number of rows that it was told are there.
fn write(database: &Database, done: &AtomicBool) -> i64 {
    let mut rows = 0;
    while !done.load(Ordering::Relaxed) {
        let mut client = connect(database);
        while !done.load(Ordering::Relaxed) {
            let written = client.execute(
                "INSERT INTO s.t (at, org, note) VALUES (timestamp '2025-01-01' + random() * interval '160 days', 1, 'written')",
                &[],
            );
            match written {
                Ok(_) => rows += 1,
                Err(error) if error.is_closed() || error.code().is_none() => break,
                Err(error) => {
                    let code = error.code().map(|c| c.code().to_string()).unwrap_or_default();
                    assert!(code.starts_with("57P"), "a writer failed: {error:?}");
                    break;
                }
            }
        }
    }
    rows
}

/// Asserts that the pair is wholly in one phase; gives it.
fn whole(client: &mut Client) -> String {
    let phase: String = one(client, "SELECT phase FROM partition_router.status");
    let kinds: String = one(
        client,
        "SELECT string_agg(relname || ' ' || relkind::text, ', ' ORDER BY relname) FROM pg_class
         WHERE relnamespace = 's'::regnamespace AND relname IN ('t', 't_legacy', 't_partitioned', 't_unique')",
    );
    let expected: &[&str] = match phase.as_str() {
        "live" => &["t r, t_partitioned p"],
        "switched" => &["t p, t_legacy r"],
        "done" => &["t p", "t p, t_unique r", "t p, t_legacy r"],
        other => panic!("the pair is {other}"),
    };
    assert!(expected.contains(&kinds.as_str()), "{phase}: {kinds}");
    let (seen, there): (i64, i64) = (
        one(client, "SELECT count FROM s.v"),
        one(client, "SELECT count(*) FROM s.t"),
    );
    assert!(seen <= there, "the view is one of the table: {seen} of {there}");
    if phase != "done" {
        equal(client, phase == "switched");
    }
    phase
}

/// Runs `call` and ends it so much later; gives its error.
fn ended(
    database: &Database,
    call: &'static str,
    end: End,
    delay: Duration,
    room: u32,
) -> Option<postgres::Error> {
    let mut holder = connect(database);
    let mut caller = connect(database);
    let pid: i32 = one(&mut caller, "SELECT pg_backend_pid()");
    if end == End::Lock {
        run(&mut holder, &["BEGIN", "SELECT count(*) FROM s.t"]);
        run(&mut caller, &["SET partition_router.lock_timeout = '1ms'"]);
    }
    let call = std::thread::spawn(move || caller.batch_execute(call).err());
    std::thread::sleep(delay); // the instant is random
    match end {
        End::Cancel => run(&mut holder, &[&format!("SELECT pg_cancel_backend({pid})")]),
        End::Terminate => run(&mut holder, &[&format!("SELECT pg_terminate_backend({pid})")]),
        End::Kill => kill(pid),
        // By the server's own user: nobody else may.
        End::FullDisk => run(
            &mut holder,
            &[&format!(
                "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; prlimit --pid {pid} --fsize={room} 2>&1 || ! test -d /proc/{pid}'"
            )],
        ),
        End::Postmaster => {
            cluster_sh(&["crash", database.cluster.directory()]);
            cluster_sh(&["start", database.cluster.directory()]);
        }
        End::Lock => {}
    }
    let error = call.join().expect("the thread ends");
    if end == End::Lock {
        run(&mut holder, &["COMMIT"]);
    }
    // A session that died takes all the others with it: none is to be begun before that. One that was told to end does not, though what
    // it says of it may be lost with its connection.
    let died = end != End::Terminate && error.as_ref().is_some_and(|error| error.code().is_none());
    let ended = Instant::now();
    while died && holder.simple_query("SELECT 1").is_ok() {
        assert!(
            ended.elapsed() < Duration::from_secs(60),
            "{end:?}: the server goes on"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    error
}

/// Ends one call, looks, and calls again until it is done. `typical` is how long it takes when nobody is in its way.
fn trial(database: &Database, random: &mut ChaCha8Rng, call: &'static str, after: &str, typical: Duration) {
    let ends = if is_stress() { &ENDS[..] } else { &ENDS[..5] };
    let end = *ends.choose(random).expect("there are some");
    let delay = typical.mul_f64(random.random_range(0.0..1.2));
    let room = 8192 * random.random_range(1..200);
    let delay = if end == End::FullDisk { delay / 4 } else { delay };
    let before = whole(&mut connect(database));
    let error = ended(database, call, end, delay, room);
    println!(
        "{call} ended by {end:?} after {delay:?}, room {room}: {:?}",
        error.as_ref().map(|e| e.code().map(|c| c.code().to_string()))
    );
    let mut client = connect(database);
    let now = whole(&mut client);
    assert!(now == before || now == after, "{call}, {end:?}: {now}");
    if error.is_none() {
        assert_eq!(now, after, "{call}, {end:?}: it said that it was done");
        return;
    }
    if end == End::Lock {
        assert_eq!(
            error.as_ref().and_then(|e| e.code()).map(|c| c.code()),
            Some("55P03")
        );
        assert_eq!(now, before);
    }
    for _ in 0..20 {
        match client.batch_execute(call) {
            Ok(()) => break,
            // A writer was in the way all the time; or the first call had come to its very end.
            Err(error) if error.code().is_some_and(|c| c.code() == "55P03") => {}
            Err(error) => {
                let code = error.code().map(|c| c.code().to_string());
                assert!(
                    code.as_deref() == Some("PR012") && now == after,
                    "{call} again after {end:?}: {error:?}"
                );
                break;
            }
        }
    }
    assert_eq!(whole(&mut client), after, "{call} again after {end:?}");
}

fn timed(client: &mut Client, call: &str) -> Duration {
    let started = Instant::now();
    while let Err(error) = client.batch_execute(call) {
        assert!(
            error.code().is_some_and(|c| c.code() == "55P03"),
            "{call}: {error:?}"
        );
    }
    started.elapsed()
}

/// A pair from the first switchover to its end, with so many interrupted trips there and back; and all its rows.
fn life(cluster: &Arc<Cluster>, random: &mut ChaCha8Rng, trips: usize) {
    let database = Database::on(Arc::clone(cluster), "anywhere");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &["CREATE VIEW s.v AS SELECT count(*) FROM s.t"]);
    let done = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&database, &done));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let there = timed(&mut client, THERE);
            let back = timed(&mut client, BACK);
            drop(client);
            for _ in 0..trips {
                trial(&database, random, THERE, "switched", there);
                trial(&database, random, BACK, "live", back);
            }
            trial(&database, random, THERE, "switched", there);
            let call = *[DROP, GUARD, KEEP].choose(random).expect("there are three");
            trial(&database, random, call, "done", there / 2);
        }));
        done.store(true, Ordering::Relaxed);
        let written = writer.join().expect("no write failed");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        written
    });
    // A COMMIT whose answer never came may have taken place.
    let there: i64 = one(&mut connect(&database), "SELECT count(*) FROM s.t");
    let told = 1000 + written;
    assert!(
        (told..=told + 2 * trips as i64 + 2).contains(&there),
        "{there} rows, {told} were told to be there"
    );
}

#[test]
fn whatever_ends_a_call_the_pair_is_before_or_after_and_the_same_call_finishes() {
    let seed = std::env::var("PARTITION_ROUTER_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(clock_seed);
    println!("anywhere: PARTITION_ROUTER_SEED={seed}");
    let cluster = Arc::new(Cluster::start(&["full_page_writes=on", "shared_buffers=32MB"]));
    let (lives, trips) = if is_stress() { (25, 5) } else { (1, 2) };
    for life_number in 0..lives {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(life_number);
        life(&cluster, &mut random, trips);
    }
}
