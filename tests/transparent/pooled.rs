//! A whole migration there and back through PgBouncer in transaction mode, beside clients that read and write through the same pool.

use crate::common::{Database, run};
use crate::pooler::{Pooler, SERVER_SESSIONS, signal};
use postgres::{Client, SimpleQueryMessage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CLIENTS: u64 = 5;
/// Rows of each client when it begins.
const ROWS: u64 = 2_000;

/// What a client knows of its rows: their amounts by `id`.
type Known = BTreeMap<u64, i64>;

/// The first row of an answer. Only whole queries go through: a prepared statement would be of one server session.
fn answer(client: &mut Client, query: &str) -> Result<Vec<String>, postgres::Error> {
    let messages = client.simple_query(query)?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.map_or(vec![], |row| {
        (0..row.len())
            .map(|n| row.get(n).unwrap_or("NULL").to_string())
            .collect()
    }))
}

/// Reads and writes the rows of one tenant until it is told to stop; gives what it knows then. What is told to be done again is: `40001`,
/// as the reference says of a transaction that is older than a change of partitions.
fn client(
    mut client: Client,
    org: u64,
    stop: &AtomicBool,
    done: &AtomicU64,
    again: &AtomicU64,
) -> Result<Known, String> {
    let mut random = ChaCha8Rng::seed_from_u64(org);
    let mut known: Known = (0..ROWS).map(|n| (n * CLIENTS + org, 100)).collect();
    let mut next = ROWS * CLIENTS + org;
    while !stop.load(Ordering::Relaxed) {
        let any = known
            .keys()
            .nth(random.random_range(0..known.len()))
            .copied()
            .unwrap_or(org);
        let day = format!("date '2026-01-01' + {}", random.random_range(0..120));
        let mut wanted = known.clone();
        let statement = match random.random_range(0..10) {
            0..3 => {
                wanted.insert(next, 7);
                format!("INSERT INTO bookings VALUES ({next}, {org}, {day}, 7)")
            }
            3..6 => {
                wanted.entry(any).and_modify(|cents| *cents += 1);
                format!("UPDATE bookings SET cents = cents + 1 WHERE id = {any}")
            }
            6 => format!("UPDATE bookings SET at = {day} WHERE id = {any}"),
            7 => {
                wanted.remove(&any);
                format!("DELETE FROM bookings WHERE id = {any}")
            }
            8 => {
                wanted.insert(next, 5);
                wanted.entry(any).and_modify(|cents| *cents *= 2);
                format!(
                    "BEGIN; INSERT INTO bookings VALUES ({next}, {org}, {day}, 5); UPDATE bookings SET cents = cents * 2 WHERE id = {any}; COMMIT"
                )
            }
            _ => format!("BEGIN; DELETE FROM bookings WHERE org = {org}; ROLLBACK"),
        };
        match client.simple_query(&statement) {
            Ok(_) => known = wanted,
            Err(error) => {
                let code = error.as_db_error().map(|e| e.code().code().to_string());
                if code.as_deref() != Some("40001") {
                    return Err(format!("{statement}: {error:?}"));
                }
                again.fetch_add(1, Ordering::Relaxed);
                client.simple_query("ROLLBACK").map_err(|e| e.to_string())?;
            }
        }
        next += CLIENTS;
        let query = format!("SELECT count(*), coalesce(sum(cents), 0) FROM bookings WHERE org = {org}");
        let found = answer(&mut client, &query).map_err(|e| format!("{query}: {e:?}"))?;
        let expected = [known.len().to_string(), known.values().sum::<i64>().to_string()];
        if found != expected {
            return Err(format!("{query} after {statement}: {found:?}, not {expected:?}"));
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(known)
}

/// What the owner of the table does, each on whichever session of the server the pooler has for it.
const THERE_AND_BACK: [&str; 17] = [
    "SELECT partition_router.create_twin('bookings', 'at')",
    "SELECT partition_router.start_sync('bookings')",
    "CALL partition_router.backfill('bookings', batch_rows => 1000)",
    "SELECT bool_and(matches) FROM partition_router.verify('bookings', 'rows')",
    "SELECT partition_router.set_rollout('bookings', percent => 100)",
    "CALL partition_router.switchover('bookings')",
    "CALL partition_router.rollback('bookings')",
    "SELECT bool_and(matches) FROM partition_router.verify('bookings')",
    "SELECT partition_router.abandon('bookings')",
    "CALL partition_router.migrate('bookings', 'at')",
    "SELECT partition_router.set_rollout('bookings', percent => 100)",
    "CALL partition_router.create_index('bookings', '(org)')",
    "CALL partition_router.switchover('bookings')",
    "SELECT bool_and(matches) FROM partition_router.verify('bookings')",
    "CALL partition_router.cleanup('bookings')",
    "SELECT partition_router.set_policy('bookings', premake => 5)",
    "CALL partition_router.run_maintenance('bookings')",
];

#[test]
fn a_migration_there_and_back_goes_through_a_pooler_beside_its_clients() {
    let database = Database::on(crate::server(), "pooled");
    let mut direct = database.connect();
    run(
        &mut direct,
        &[
            &format!(
                "ALTER DATABASE \"{}\" SET partition_router.transparent = on",
                database.name
            ),
            "CREATE TABLE bookings (id bigint PRIMARY KEY, org int NOT NULL, at date NOT NULL, cents bigint NOT NULL)",
            "CREATE INDEX ON bookings (org)",
            &format!(
                "INSERT INTO bookings SELECT g, g % {CLIENTS}, date '2026-01-01' + (g % 90)::int, 100 FROM generate_series(0, {}) g",
                ROWS * CLIENTS - 1
            ),
        ],
    );
    let mut pooler = Pooler::start(&database);
    let clients: Vec<_> = (0..CLIENTS).map(|_| pooler.connect(&database.name)).collect();
    let mut owner = pooler.connect(&database.name);
    let (stop, done, again) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (known, failed) = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .zip(0..)
            .map(|(session, org)| {
                let (stop, done, again) = (&stop, &done, &again);
                scope.spawn(move || client(session, org, stop, done, again))
            })
            .collect();
        let mut failed = None;
        for step in THERE_AND_BACK {
            // Everybody has worked since the last one.
            let before = done.load(Ordering::Relaxed);
            while done.load(Ordering::Relaxed) < before + 2 * CLIENTS
                && !threads.iter().any(|t| t.is_finished())
            {
                std::thread::yield_now();
            }
            match answer(&mut owner, step) {
                Ok(row) if row.first().is_some_and(|value| value == "f") => {
                    failed = Some(format!("{step}: {row:?}"))
                }
                Ok(_) => {}
                Err(error) => failed = Some(format!("{step}: {error:?}")),
            }
            if failed.is_some() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        let known: Vec<_> = threads
            .into_iter()
            .map(|t| t.join().expect("the client's thread ends"))
            .collect();
        (known, failed)
    });
    assert_eq!(failed, None);
    let mut expected = Known::new();
    for known in known {
        expected.append(&mut known.unwrap_or_else(|error| panic!("{error}")));
    }
    let rows = direct
        .query("SELECT id, cents FROM bookings", &[])
        .expect("the rows");
    let found: Known = rows
        .iter()
        .map(|row| (row.get::<_, i64>(0) as u64, row.get(1)))
        .collect();
    assert_eq!(rows.len(), found.len(), "a row is there twice");
    assert!(found == expected, "{} rows, not {}", found.len(), expected.len());
    // Nothing of a call stays with the session of the server that it had.
    let left = answer(
        &mut direct,
        "SELECT count(*), (SELECT count(*) FROM partition_router.maintenance_log WHERE status = 'failed') FROM pg_locks
         WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    assert_eq!(left.expect("an answer"), ["0", "0"]);
    let sessions = answer(
        &mut direct,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
         AND backend_type = 'client backend'",
    );
    let sessions: usize = sessions.expect("an answer")[0].parse().expect("a number");
    assert!(sessions <= SERVER_SESSIONS, "{sessions}");
    let parents = "SELECT count(*) > 5 FROM pg_inherits WHERE inhparent = 'bookings'::regclass";
    assert_eq!(answer(&mut direct, parents).expect("an answer"), ["t"]);
    println!(
        "pooled: {} statements of {CLIENTS} clients, {} done again",
        done.into_inner(),
        again.into_inner()
    );
}

/// What each session of the server is like for whoever has it next: what is set there, its role, and what it has locked. In transactions at
/// the same time, so that each client has another one.
fn sessions(clients: &mut [Client]) -> Vec<Vec<String>> {
    let query =
        "SELECT (SELECT string_agg(concat_ws('=', name, setting), ', ' ORDER BY name) FROM pg_settings
        WHERE source = 'session' AND name !~ '^(application_name|transaction_)'),
        current_user, (SELECT count(*) FROM pg_locks WHERE locktype <> 'virtualxid' AND pid = pg_backend_pid()
            AND relation IS DISTINCT FROM 'pg_locks'::regclass)";
    for client in clients.iter_mut() {
        client.batch_execute("BEGIN").expect("a transaction");
    }
    let found = clients
        .iter_mut()
        .map(|client| answer(client, query).expect("an answer"));
    let found = found.collect();
    for client in clients.iter_mut() {
        client.batch_execute("COMMIT").expect("a transaction");
    }
    found
}

#[test]
fn a_call_that_is_cancelled_through_a_pooler_leaves_its_session_as_it_was() {
    let database = Database::on(crate::server(), "pooled_cancel");
    let mut holder = database.connect();
    run(
        &mut holder,
        &[
            "CREATE TABLE bookings (id bigint PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO bookings SELECT g, date '2026-01-01' + (g % 90)::int FROM generate_series(1, 1000) g",
            "SELECT partition_router.create_twin('bookings', 'at')",
            "SELECT partition_router.start_sync('bookings')",
        ],
    );
    let mut pooler = Pooler::start(&database);
    let mut owner = pooler.connect(&database.name);
    let mut others: Vec<_> = (0..SERVER_SESSIONS)
        .map(|_| pooler.connect(&database.name))
        .collect();
    let before = sessions(&mut others);
    for (call, lock) in [
        (
            "CALL partition_router.backfill('bookings')",
            "bookings_partitioned IN EXCLUSIVE MODE",
        ),
        (
            "SELECT * FROM partition_router.verify('bookings', 'rows')",
            "bookings IN ACCESS EXCLUSIVE MODE",
        ),
        (
            "CALL partition_router.switchover('bookings')",
            "bookings IN ACCESS SHARE MODE",
        ),
        (
            "CALL partition_router.cleanup('bookings')",
            "bookings IN ACCESS SHARE MODE",
        ),
        (
            "CALL partition_router.run_maintenance('bookings')",
            "bookings IN SHARE MODE",
        ),
    ] {
        if call.contains("run_maintenance") {
            let more = "SELECT partition_router.set_policy('bookings', premake => 20)";
            run(&mut holder, &[more]);
        }
        run(&mut holder, &["BEGIN", &format!("LOCK TABLE {lock}")]);
        // What psql does when somebody presses Ctrl-C: it waits for the pooler to pass the request on.
        let mut psql = pooler.psql(&database.name, call);
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let mut ended = None;
        while answer(&mut holder, waiting).expect("an answer") == ["0"] && ended.is_none() {
            ended = psql.try_wait().expect("its state can be asked for");
        }
        assert!(signal("-INT", &psql), "{call}: it has ended");
        let said = psql.wait_with_output().expect("psql ends").stderr;
        let said = String::from_utf8_lossy(&said);
        run(&mut holder, &["COMMIT"]);
        assert!(said.contains("57014"), "{call}: {said}");
        assert_eq!(sessions(&mut others), before, "{call}");
        // On whichever session of the server it is now.
        owner
            .batch_execute(call)
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
}
