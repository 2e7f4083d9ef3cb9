//! The backfill, held at its critical points while another session writes.
//!
//! It is made of steps that are one transaction each. So a test runs a step, leaves its transaction open, lets another
//! session act, and commits.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod crash;
mod flip;
mod locks;
mod memory;
mod races;
mod workers;

use common::{Database, assert_equal_sides, one, run};
use postgres::Client;
use std::time::{Duration, Instant};

/// Rows of a table that needs several steps: the copy reads 128 blocks at a time, and eight rows fill a block.
const ROWS: i64 = 2200;
const COLUMNS: &str = "id, d, u, n, t";

/// Makes the table `name` with [`ROWS`] rows. Some blocks near the end have room, so that an update moves a row from the
/// first blocks to them.
fn create(client: &mut Client, name: &str) {
    run(
        client,
        &[
            &format!(
                "CREATE TABLE {name} (id int PRIMARY KEY, d date NOT NULL, u int, n int DEFAULT 0, t text, UNIQUE (u, d))
                 WITH (autovacuum_enabled = off)"
            ),
            &format!(
                "INSERT INTO {name} SELECT g, date '2026-01-01' + g % 80, g, g, repeat('x', 900)
                 FROM generate_series(1, {}) g",
                ROWS + 60
            ),
            &format!("DELETE FROM {name} WHERE id BETWEEN {} AND {}", ROWS - 99, ROWS - 40),
            &format!("VACUUM {name}"),
        ],
    );
}

/// A table whose changes are captured; nothing is copied yet.
fn capture(client: &mut Client, name: &str) {
    create(client, name);
    run(
        client,
        &[
            &format!("SELECT partition_router.create_twin('{name}', 'd')"),
            &format!("SELECT partition_router.start_sync('{name}')"),
        ],
    );
}

/// The stage of the backfill, `begin` before its first step.
fn stage(client: &mut Client, name: &str) -> String {
    one(
        client,
        &format!(
            "SELECT COALESCE((SELECT c.stage FROM partition_router.copy_state c JOIN partition_router.pair p ON p.id = c.pair_id
                              WHERE p.legacy = '{name}'::regclass), 'begin')"
        ),
    )
}

fn step(client: &mut Client, name: &str) -> bool {
    one(
        client,
        &format!("SELECT partition_router.backfill_step('{name}', 100)"),
    )
}

/// Goes on until the backfill is in this stage.
fn steps_until(client: &mut Client, name: &str, wanted: &str) {
    for _ in 0..200 {
        if stage(client, name) == wanted {
            return;
        }
        assert!(step(client, name), "the backfill ended before {wanted}");
    }
    panic!("the backfill never came to {wanted}");
}

/// Ends the backfill and asserts that the pair is live and equal. Gives the number of rows.
fn finish(client: &mut Client, name: &str) -> i64 {
    run(client, &[&format!("CALL partition_router.backfill('{name}')")]);
    assert_eq!(stage(client, name), "done");
    assert_eq!(
        one::<String>(
            client,
            &format!("SELECT phase FROM partition_router.pair WHERE legacy = '{name}'::regclass")
        ),
        "live"
    );
    assert_equal_sides(client, name, &format!("{name}_partitioned"), COLUMNS);
    one(client, &format!("SELECT count(*) FROM {name}"))
}

/// Waits until `condition`, a query of one boolean, holds.
fn until(client: &mut Client, condition: &str) {
    let started = Instant::now();
    while !one::<bool>(client, condition) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "never came true: {condition}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// A database with two sessions: one for the backfill, one for the application.
fn two_sessions(test: &str) -> (Database, Client, Client) {
    let database = Database::new(test);
    let (backfill, application) = (database.connect(), database.connect());
    (database, backfill, application)
}
