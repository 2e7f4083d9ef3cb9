//! Routing: which side a read uses, and that a query's answer does not depend on it.

#[path = "../common/mod.rs"]
mod common;

mod cached;
mod decisions;
mod kept;
mod middle;
mod reach;
mod reasons;
mod rights;
mod rows;
mod shadow;
mod snapshots;
mod tenants;
mod told;
mod transparent;

use common::{Database, one, plant, run};
use postgres::Client;

/// A live and proven pair `revenues`, and a session in which plain SQL is routed to the twin.
pub struct Routed {
    pub database: Database,
    pub client: Client,
}

/// 500 rows over three months. The column `gone` is dropped, so that the twin numbers its columns otherwise. `side` says
/// which table a row was read from: only here the sides differ, by hand, and no `verify` comes after that.
const TABLES: &[&str] = &[
    "CREATE TABLE revenues (id serial PRIMARY KEY, gone int, org text, at timestamp NOT NULL, amount int, side text)",
    "ALTER TABLE revenues DROP COLUMN gone",
    "INSERT INTO revenues (org, at, amount, side)
     SELECT (g % 10)::text, timestamp '2026-01-01' + g % 90 * interval '1 day', g, 'legacy' FROM generate_series(1, 500) g",
    "CREATE INDEX ON revenues (org)",
];

/// Which side a session reads.
pub const SIDE: &str = "SELECT DISTINCT side FROM revenues";

impl Routed {
    pub fn new(test: &str) -> Routed {
        Routed::on(Database::new(test))
    }

    pub fn on(database: Database) -> Routed {
        let mut client = database.connect();
        run(&mut client, TABLES);
        run(&mut client, &["CALL partition_router.migrate('revenues', 'at')"]);
        plant(
            &mut client,
            "revenues_partitioned",
            &["UPDATE revenues_partitioned SET side = 'twin'"],
        );
        drop(client);
        let client = Routed::session(&database);
        Routed { database, client }
    }

    /// Another session, in which plain SQL is routed to the twin.
    pub fn session(database: &Database) -> Client {
        let mut client = database.connect();
        run(
            &mut client,
            &[
                "LOAD 'partition_router'",
                "SET partition_router.transparent = on",
                "SET partition_router.use_partitioned_tables = on",
            ],
        );
        client
    }

    pub fn run(&mut self, statements: &[&str]) {
        run(&mut self.client, statements);
    }

    pub fn one<T: for<'b> postgres::types::FromSql<'b>>(&mut self, query: &str) -> T {
        one(&mut self.client, query)
    }

    /// The side that plain SQL reads.
    pub fn side(&mut self) -> String {
        self.one(SIDE)
    }
}
