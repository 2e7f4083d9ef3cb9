//! A pair whose sides differ in one column of ten rows, so that an answer tells which side was read.

use crate::common::{Database, one, plant, run, texts};
use postgres::Client;

/// The settings under which plain SQL reads the twin.
pub const ROUTED: &str =
    "SET partition_router.transparent = on; SET partition_router.use_partitioned_tables = on";

/// The side that a statement reads.
pub const SIDE: &str = "SELECT side FROM revenues WHERE id = 0";

/// 300 rows over six months, and ten of them, `id` 0 to 9 of the tenants `org-0` to `org-9`, that say where they are.
pub const TABLE: &[&str] = &[
    "CREATE TABLE revenues (id int PRIMARY KEY, org text NOT NULL, at timestamp NOT NULL, cents bigint NOT NULL, side text)",
    "INSERT INTO revenues SELECT g, 'org-' || g % 10, timestamp '2026-01-01' + g % 180 * interval '1 day', g * 100, 'both'
     FROM generate_series(0, 299) g",
];

pub fn migrate(client: &mut Client) {
    run(client, &["CALL partition_router.migrate('revenues', 'at')"]);
    mark(client);
}

/// Makes the ten rows differ. The proof stays recorded.
pub fn mark(client: &mut Client) {
    plant(
        client,
        "revenues",
        &["UPDATE revenues SET side = 'legacy' WHERE id < 10"],
    );
    plant(
        client,
        "revenues_partitioned",
        &["UPDATE revenues_partitioned SET side = 'twin' WHERE id < 10"],
    );
}

/// A database with the marked pair, and a session of its owner.
pub fn marked(test: &str) -> (Database, Client) {
    let database = Database::on(crate::server(), test);
    let mut client = database.connect();
    run(&mut client, TABLE);
    migrate(&mut client);
    (database, client)
}

pub fn side(client: &mut Client) -> String {
    one(client, SIDE)
}

/// What `EXPLAIN` says of a statement.
pub fn explain(client: &mut Client, statement: &str) -> String {
    texts(client, &format!("EXPLAIN (COSTS OFF) {statement}")).join("\n")
}
