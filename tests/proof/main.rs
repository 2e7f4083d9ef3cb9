//! The proof beside everything else that goes on: writers, old snapshots, crashes, and repair under traffic.

#[path = "../common/mod.rs"]
mod common;

mod crash;
mod kept;
mod load;
mod many;
mod memory;
mod repair;
mod snapshots;
mod unchanged;

use common::{Cluster, Database, one, run};
use postgres::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A pair of four months: `t` and `t_partitioned`, with rows that hold toasted text.
const TABLE: &[&str] = &[
    "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, v text, n int, big text)",
    "ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    "INSERT INTO t SELECT g, date '2026-01-01' + g % 120, 'v' || g, g, CASE WHEN g % 40 = 0 THEN repeat(md5(g::text), 100) END
     FROM generate_series(1, 1000) g",
];

fn live_on(cluster: Arc<Cluster>, name: &str) -> (Database, Client) {
    let database = Database::on(cluster, name);
    let mut client = database.connect();
    run(&mut client, TABLE);
    run(
        &mut client,
        &["CALL partition_router.migrate('t', 'at', premake => 0)"],
    );
    (database, client)
}

fn live(name: &str) -> (Database, Client) {
    live_on(Cluster::shared(), name)
}

/// Whether `verify` says that the sides are equal.
fn told(client: &mut Client) -> bool {
    one(
        client,
        "SELECT bool_and(matches) FROM partition_router.verify('t')",
    )
}

/// Whether they are, asked of the server.
fn truth(client: &mut Client) -> bool {
    let columns: String = one(
        client,
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) FROM pg_attribute
         WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped",
    );
    one(
        client,
        &format!(
            "SELECT NOT EXISTS ((SELECT {columns} FROM t EXCEPT ALL SELECT {columns} FROM t_partitioned)
                UNION ALL (SELECT {columns} FROM t_partitioned EXCEPT ALL SELECT {columns} FROM t))"
        ),
    )
}

/// Inserted, updated, deleted.
fn repaired(client: &mut Client) -> (i64, i64, i64) {
    repair::mended(client).expect("repair can be called")
}

fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// Waits until a query says true.
fn until(client: &mut Client, query: &str) {
    let started = Instant::now();
    while !one::<bool>(client, query) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "never came true: {query}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until that backend waits for a lock.
fn until_blocked(client: &mut Client, pid: i32) {
    until(
        client,
        &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"),
    );
}

/// Of many cases all in `make stress`, and else one of a number: another one each day.
struct Slice {
    of: u64,
    next: u64,
}

impl Slice {
    fn of(number: u64) -> Slice {
        Slice {
            of: if common::is_stress() { 1 } else { number },
            next: common::clock_seed() / 86_400,
        }
    }

    fn takes(&mut self) -> bool {
        self.next += 1;
        self.next.is_multiple_of(self.of)
    }
}
