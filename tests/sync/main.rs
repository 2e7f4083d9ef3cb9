//! Sync of a live pair: what is written to one side is on the other in the same transaction.

#[path = "../common/mod.rs"]
mod common;

mod errors;
mod foreign_keys;
mod keys;
mod large;
mod rights;
mod sessions;
mod statements;
mod transactions;
mod triggers;
mod types;

use common::{Database, assert_equal_sides, one, run};
use postgres::Client;

/// A live pair `a` and `a_partitioned`.
pub struct Pair {
    pub database: Database,
    pub client: Client,
}

impl Pair {
    /// Runs `statements`, which make the table `a`, and migrates it with these arguments.
    pub fn new(test: &str, statements: &[&str], arguments: &str) -> Pair {
        let database = Database::new(test);
        let mut client = database.connect();
        run(&mut client, statements);
        run(
            &mut client,
            &[&format!("CALL partition_router.migrate('a', {arguments})")],
        );
        Pair { database, client }
    }

    /// 100 rows over three months: `id`, `d`, `u` (unique with `d`), `n` and `t`.
    pub fn plain(test: &str) -> Pair {
        Pair::new(
            test,
            &[
                "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, u int, n int, t text, UNIQUE (u, d))",
                "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g, g, 'row ' || g FROM generate_series(1, 100) g",
            ],
            "'d'",
        )
    }

    pub fn run(&mut self, statements: &[&str]) {
        run(&mut self.client, statements);
    }

    pub fn one<T: for<'b> postgres::types::FromSql<'b>>(&mut self, query: &str) -> T {
        one(&mut self.client, query)
    }

    /// Asserts that both sides are equal, and returns the number of rows.
    pub fn rows(&mut self) -> i64 {
        let columns: String = self.one(
            "SELECT string_agg(quote_ident(attname) || '::text', ', ') FROM pg_attribute
             WHERE attrelid = 'a'::regclass AND attnum > 0 AND NOT attisdropped",
        );
        assert_equal_sides(&mut self.client, "a", "a_partitioned", &columns);
        self.one("SELECT count(*) FROM a")
    }
}

/// Both sides of a pair, for statements that must do the same on either.
pub const SIDES: [&str; 2] = ["a", "a_partitioned"];

/// Runs `body` once with each side, on a pair of its own.
pub fn on_each_side(test: &str, body: impl Fn(&mut Pair, &str)) {
    for side in SIDES {
        body(&mut Pair::plain(test), side);
    }
}
