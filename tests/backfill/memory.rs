//! The memory of the backend that copies does not grow with the rows.

use super::{one, pid, run, step};
use crate::common::Database;
use crate::common::memory::peak_kb;
use postgres::Client;

/// The most memory that a session has while it copies the whole table in one batch.
fn peak_of_copy(database: &Database, name: &str) -> u64 {
    let mut client = database.connect();
    step(&mut client, name);
    let backend = pid(&mut client);
    peak_kb(backend, || {
        run(
            &mut client,
            &[&format!(
                "SELECT partition_router.backfill_step('{name}', 2000000000)"
            )],
        );
        assert_eq!(
            one::<String>(
                &mut client,
                &format!(
                    "SELECT stage FROM partition_router.copy_state c JOIN partition_router.pair p ON p.id = c.pair_id
                     WHERE p.legacy = '{name}'::regclass"
                )
            ),
            "index"
        );
    })
}

fn captured(client: &mut Client, name: &str, rows: i64, day_of: &str, text: &str) {
    run(
        client,
        &[
            &format!(
                "CREATE TABLE {name} (id int PRIMARY KEY, d date NOT NULL, t text) WITH (autovacuum_enabled = off)"
            ),
            &format!("ALTER TABLE {name} ALTER t SET STORAGE EXTERNAL"),
            &format!(
                "INSERT INTO {name} SELECT g, date '2026-01-01' + ({day_of}), {text} FROM generate_series(1, {rows}) g"
            ),
            &format!("SELECT partition_router.create_twin('{name}', 'd', partition_interval => '1 day')"),
            &format!("SELECT partition_router.start_sync('{name}')"),
        ],
    );
}

/// What the larger table may take more: less than a hundredth of what it holds more.
const SLACK_KB: u64 = 4_000;

#[test]
fn a_batch_of_the_copy_takes_no_more_memory_for_more_rows() {
    let database = Database::new("memory");
    let mut client = database.connect();
    for (shape, day_of, text, few, many) in [
        ("scattered", "g % 240", "repeat('x', 700)", 30_000, 90_000),
        ("in_order", "g / 400", "repeat('x', 700)", 30_000, 90_000),
        ("toasted", "g % 24", "repeat('x', 20000)", 1_500, 6_000),
    ] {
        captured(&mut client, &format!("{shape}_few"), few, day_of, text);
        captured(&mut client, &format!("{shape}_many"), many, day_of, text);
        let few = peak_of_copy(&database, &format!("{shape}_few"));
        let many = peak_of_copy(&database, &format!("{shape}_many"));
        println!("{shape}: {few} kB, {many} kB");
        assert!(many <= few + SLACK_KB, "{shape}: {few} kB became {many} kB");
    }
}
