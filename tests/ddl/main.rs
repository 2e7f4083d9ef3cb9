//! DDL on one side of a pair is carried to the other side in the same statement, or refused with a HINT.

#[path = "../common/mod.rs"]
mod common;

mod columns;
mod constraints;
mod copying;
mod dump;
mod indexes;
mod partitions;
mod refused;
mod rights;
mod sessions;
mod transactions;

use common::{Database, assert_equal_sides, one, run, texts};
use postgres::Client;
use postgres::error::DbError;

/// A pair `a` and `a_partitioned`.
pub struct Pair {
    pub database: Database,
    pub client: Client,
}

pub const TABLE: &[&str] = &[
    "CREATE TABLE parents (id int PRIMARY KEY)",
    "INSERT INTO parents SELECT generate_series(1, 100)",
    "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, u int, n int, t text, UNIQUE (u, d))",
    "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g, g, 'row ' || g FROM generate_series(1, 100) g",
];

impl Pair {
    /// The tables, and no pair yet.
    pub fn unpaired(test: &str) -> Pair {
        let database = Database::new(test);
        let mut client = database.connect();
        run(&mut client, TABLE);
        Pair { database, client }
    }

    /// Live: 100 rows over three months: `id`, `d`, `u` (unique with `d`), `n` and `t`.
    pub fn live(test: &str) -> Pair {
        let mut pair = Pair::unpaired(test);
        pair.run(&["CALL partition_router.migrate('a', 'd')"]);
        pair
    }

    pub fn run(&mut self, statements: &[&str]) {
        run(&mut self.client, statements);
    }

    pub fn one<T: for<'b> postgres::types::FromSql<'b>>(&mut self, query: &str) -> T {
        one(&mut self.client, query)
    }

    /// The error that a statement fails with.
    pub fn error(&mut self, statement: &str) -> DbError {
        let error = self.client.batch_execute(statement).expect_err(statement);
        error
            .as_db_error()
            .unwrap_or_else(|| panic!("{statement}: {error}"))
            .clone()
    }

    /// Asserts that a statement is refused, in words that contain `reason`, and with a HINT.
    pub fn refuses(&mut self, statement: &str, reason: &str) {
        let before = self.shapes();
        let error = self.error(statement);
        assert_eq!(error.code().code(), "PR019", "{statement}: {error:?}");
        assert!(
            error.detail().is_some_and(|d| d.contains(reason)),
            "{statement}: {error:?}"
        );
        assert!(
            error.hint().is_some_and(|h| h.ends_with('.')),
            "{statement}: {error:?}"
        );
        assert_eq!(self.shapes(), before, "{statement} left something behind");
    }

    /// What both sides must have alike, a line each: columns, CHECK constraints, foreign keys, indexes.
    pub fn shape(&mut self, table: &str) -> Vec<String> {
        texts(
            &mut self.client,
            &format!(
                "SELECT format('column %s %s %s %s %s %s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull,
                        CASE WHEN attidentity = '' THEN pg_get_expr(adbin, adrelid) ELSE 'sequence' END, attgenerated,
                        attcollation, attstorage, attcompression, attstattarget)
                 FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                 WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
                 UNION ALL
                 SELECT format('%s %s %s', conname, replace(pg_get_constraintdef(oid), ' NO INHERIT', ''), convalidated)
                 FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype IN ('c', 'f')
                 UNION ALL
                 SELECT format('index %s', regexp_replace(replace(pg_get_indexdef(indexrelid), ' ONLY', ''),
                        'INDEX .* USING', 'USING'))
                 FROM pg_index WHERE indrelid = '{table}'::regclass AND NOT indisprimary
                 UNION ALL
                 SELECT format('table %s %s %s %s', relowner::regrole, relrowsecurity, relforcerowsecurity, relreplident)
                 FROM pg_class WHERE oid = '{table}'::regclass
                 ORDER BY 1"
            ),
        )
    }

    fn shapes(&mut self) -> Vec<Vec<String>> {
        let tables = texts(
            &mut self.client,
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
             ORDER BY 1",
        );
        tables.iter().map(|table| self.shape(table)).collect()
    }

    /// Asserts that both sides are defined alike, and so is each partition.
    pub fn alike(&mut self) {
        let legacy = self.shape("a");
        assert_eq!(legacy, self.shape("a_partitioned"));
        let columns = |shape: Vec<String>| -> Vec<String> {
            shape
                .into_iter()
                .filter(|line| line.starts_with("column") && !line.contains("nextval"))
                .collect()
        };
        for partition in texts(
            &mut self.client,
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'a_partitioned'::regclass",
        ) {
            assert_eq!(
                columns(self.shape(&partition)),
                columns(legacy.clone()),
                "{partition}"
            );
        }
    }

    /// Asserts that both sides are defined alike and hold the same rows, also after a write to each; gives their number.
    pub fn in_step(&mut self) -> i64 {
        self.alike();
        self.run(&[
            "UPDATE a SET u = u + 1000 WHERE id = 1",
            "UPDATE a_partitioned SET u = u + 1000 WHERE id = 2",
        ]);
        self.rows()
    }

    /// Asserts that both sides hold the same rows; gives their number.
    pub fn rows(&mut self) -> i64 {
        let columns: String = self.one(
            "SELECT string_agg(quote_ident(attname) || '::text', ', ') FROM pg_attribute
             WHERE attrelid = 'a'::regclass AND attnum > 0 AND NOT attisdropped",
        );
        assert_equal_sides(&mut self.client, "a", "a_partitioned", &columns);
        self.one("SELECT count(*) FROM a")
    }
}

/// Both sides of a pair.
pub const SIDES: [&str; 2] = ["a", "a_partitioned"];

/// Runs each statement on each side (`{}` is the table), every time on a live pair as the ones before left it, and
/// asserts that the sides stay alike.
pub fn carried_from_each_side(test: &str, statements: &[&str]) {
    for side in SIDES {
        let mut pair = Pair::live(test);
        for statement in statements {
            pair.run(&[&statement.replace("{}", side)]);
            pair.in_step();
        }
    }
}

/// The SQLSTATE that a query fails with.
pub fn sqlstate_of(pair: &mut Pair, query: &str) -> String {
    common::sqlstate(&mut pair.client, query)
}
