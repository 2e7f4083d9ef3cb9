//! What is unique without the partition key stays unique when the legacy is gone, and foreign keys that point in keep their meaning.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod changes;
mod keys;
mod races;
mod random;

use common::{Database, one, run};
use postgres::Client;
use postgres::error::DbError;

/// A table that is unique in three ways that no partition can check, with a table that points at it.
pub const TABLES: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.orgs (id int PRIMARY KEY)",
    "INSERT INTO s.orgs VALUES (1), (2), (3)",
    "CREATE TABLE s.t (id serial PRIMARY KEY, at timestamp NOT NULL, org int REFERENCES s.orgs ON DELETE CASCADE, code text UNIQUE,
        note text CHECK (note <> ''), amount int)",
    "CREATE INDEX ON s.t (amount)",
    "CREATE UNIQUE INDEX one_open ON s.t (lower(note)) WHERE amount > 5000",
    "CREATE TABLE s.child (id int PRIMARY KEY, parent int CONSTRAINT points REFERENCES s.t ON DELETE CASCADE ON UPDATE CASCADE)",
    "INSERT INTO s.t (at, org, code, note, amount)
        SELECT timestamp '2025-01-01' + g * interval '4 hours', 1 + g % 3, 'c' || g, 'n' || g, g FROM generate_series(1, 1000) g",
    "INSERT INTO s.child SELECT g, g FROM generate_series(1, 100) g",
    "CALL partition_router.migrate('s.t', 'at', keep_unique => true)",
];
pub const THERE: &str = "CALL partition_router.switchover('s.t')";
pub const END: &str = "CALL partition_router.cleanup('s.t')";

/// A table whose legacy has become its guard.
pub fn guarded(name: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &[THERE, END]);
    (database, client)
}

pub fn refused(client: &mut Client, statement: &str) -> DbError {
    let error = client.batch_execute(statement).expect_err(statement);
    error.as_db_error().expect("the server answered").clone()
}

/// Asserts that a statement breaks the constraint that the table had before it was migrated.
pub fn breaks(client: &mut Client, statement: &str, constraint: &str) {
    let error = refused(client, statement);
    assert_eq!(error.code().code(), "23505", "{statement}: {error:?}");
    assert_eq!(
        (error.schema(), error.table(), error.constraint()),
        (Some("s"), Some("t"), Some(constraint)),
        "{statement}: {error:?}"
    );
    assert!(
        error.message().contains(&format!("\"{constraint}\"")) && !error.message().contains("_legacy"),
        "{error:?}"
    );
    assert_eq!(error.hint(), None, "{error:?}");
}

/// Asserts that the guard has the rows of the table.
pub fn in_step(client: &mut Client) {
    for (left, right) in [("t", "t_unique"), ("t_unique", "t")] {
        let columns = "id, at, code, note, amount";
        let differ: i64 = one(
            client,
            &format!(
                "SELECT count(*) FROM (SELECT {columns} FROM s.{left} EXCEPT ALL SELECT {columns} FROM s.{right}) d"
            ),
        );
        assert_eq!(differ, 0, "rows of {left} that {right} lacks");
    }
}
