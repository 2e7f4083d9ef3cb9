//! The change feed: every key that changed is told, once, whatever happens to those who write, to the consumer, to the server and
//! to the cache.

#[path = "../common/mod.rs"]
mod common;
mod events;
mod life;
mod redis;
mod refused;

use common::{Database, run, texts};
use postgres::Client;

const TABLE: &[&str] = &[
    "CREATE TABLE revenues (id int PRIMARY KEY, at date NOT NULL, cents int NOT NULL DEFAULT 0)",
    "INSERT INTO revenues SELECT g, date '2026-01-01' + g, g FROM generate_series(1, 100) g",
];
const ENABLE: &str = "SELECT partition_router.enable_change_feed('revenues', ARRAY['id'], name => 'r')";

/// A migrated table with a feed of which nothing waits.
fn live(name: &str) -> (Database, Client) {
    let (database, mut client) = common::migrated_revenues(name, TABLE);
    run(&mut client, &[ENABLE]);
    assert_eq!(taken(&mut client), ["r *"]);
    (database, client)
}

/// What waits, and no longer does: `feed key,key`, or `feed *` for every key.
fn taken(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT feed || ' ' || COALESCE(array_to_string(key, ',', 'NULL'), '*')
         FROM partition_router.take_changes(1000000) ORDER BY feed, length(key[1]), key",
    )
}

/// What one transaction tells.
fn told(client: &mut Client, statements: &[&str]) -> Vec<String> {
    run(client, statements);
    taken(client)
}
