//! The memory of a proof, of naming what differs and of mending it does not grow with the rows.

use crate::common::memory::peak_kb;
use crate::common::{Database, is_stress, one, plant, run};
use crate::pid;
use postgres::Client;

/// The most memory that a new session has while it runs a call.
fn peak_of(database: &Database, call: &str) -> u64 {
    let mut client = database.connect();
    let backend = pid(&mut client);
    peak_kb(backend, || run(&mut client, &["SET work_mem = '1MB'", call]))
}

#[test]
fn no_call_takes_more_memory_for_more_differences() {
    let database = Database::new("memory_differences");
    let mut client = database.connect();
    let few = if is_stress() { 100_000 } else { 30_000 };
    for (table, rows) in [("few", few), ("many", few * 4)] {
        run(
            &mut client,
            &[
                &format!("CREATE TABLE {table} (id int PRIMARY KEY, at date NOT NULL, v text)"),
                &format!(
                    "INSERT INTO {table} SELECT g, date '2026-01-01' + g % 60, repeat('v', 40) FROM generate_series(1, {rows}) g"
                ),
                &format!("CALL partition_router.migrate('{table}', 'at', premake => 0)"),
            ],
        );
        let twin = format!("{table}_partitioned");
        plant(
            &mut client,
            &twin,
            &[&format!("UPDATE {twin} SET v = 'other' WHERE id % 10 <> 0")],
        );
    }
    compare_all(&database, &mut client);
}

/// What five times the rows may take more.
const SLACK_KB: u64 = 4_000;

#[test]
fn no_call_takes_more_memory_for_more_rows() {
    let database = Database::new("memory");
    let mut client = database.connect();
    let few = if is_stress() { 200_000 } else { 20_000 };
    for (table, rows) in [("few", few), ("many", few * 5)] {
        run(
            &mut client,
            &[
                &format!(
                    "CREATE TABLE {table} (id int PRIMARY KEY, at date NOT NULL, n numeric, v text, big text) WITH (autovacuum_enabled = off)"
                ),
                &format!("ALTER TABLE {table} ALTER big SET STORAGE EXTERNAL"),
                &format!(
                    "INSERT INTO {table} SELECT g, date '2026-01-01' + g % 120, g / 7.0, repeat('v', 600),
                        CASE WHEN g % 50 = 0 THEN repeat('x', 9000) END FROM generate_series(1, {rows}) g"
                ),
                &format!("CALL partition_router.migrate('{table}', 'at', premake => 0)"),
            ],
        );
    }
    for level in ["counts", "checksum", "rows"] {
        compare(
            &database,
            &format!("SELECT FROM partition_router.verify('{{}}', '{level}', full => true)"),
        );
    }
    // As many differences in both, one in each page at most.
    for (table, rows) in [("few", few), ("many", few * 5)] {
        plant(
            &mut client,
            table,
            &[
                &format!("UPDATE {table} SET v = 'other' WHERE id % {} = 0", rows / 500),
                &format!(
                    "UPDATE {table} SET big = repeat('y', 9000) WHERE id % {} = 1",
                    rows / 100
                ),
                &format!("DELETE FROM {table} WHERE id % {} = 2", rows / 500),
            ],
        );
    }
    compare_all(&database, &mut client);
}

/// Compares each call; the last ones mend what differs.
fn compare_all(database: &Database, client: &mut Client) {
    compare(database, "SELECT FROM partition_router.verify('{}')");
    compare(database, "SELECT FROM partition_router.mismatches('{}', 100)");
    compare(
        database,
        "SELECT FROM partition_router.repair('{}', dry_run => true)",
    );
    compare(database, "SELECT FROM partition_router.repair('{}')");
    for table in ["few", "many"] {
        let equal = format!("SELECT bool_and(matches) FROM partition_router.verify('{table}', 'rows')");
        assert!(one::<bool>(client, &equal), "{table}");
    }
}

fn compare(database: &Database, call: &str) {
    let few = peak_of(database, &call.replace("{}", "few"));
    let many = peak_of(database, &call.replace("{}", "many"));
    println!("{call}: {few} kB, {many} kB");
    assert!(many <= few + SLACK_KB, "{call}: {few} kB became {many} kB");
}
