//! `ALTER EXTENSION … UPDATE` in the middle of everything.

use super::common::{Database, one, run};
use super::{assert_goes_on, assert_healthy, facts, world};
use std::path::PathBuf;
use std::process::Command;

/// A script in the server's directory of extensions, for as long as it lives.
struct Script(PathBuf);

impl Script {
    fn new(name: &str, text: &str) -> Script {
        let config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
        let output = Command::new(config)
            .arg("--sharedir")
            .output()
            .expect("pg_config runs");
        let directory = String::from_utf8(output.stdout).expect("a path");
        let path = PathBuf::from(directory.trim()).join("extension").join(name);
        std::fs::write(&path, text).expect("the directory of extensions is writable");
        Script(path)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("the script goes");
    }
}

/// What a version to come would bring: a column, a table that is dumped, another body of a function, a view.
const NEXT: &str = "
ALTER TABLE partition_router.pair ADD COLUMN note text;
CREATE TABLE partition_router.note (pair_id int PRIMARY KEY, text text NOT NULL);
SELECT pg_catalog.pg_extension_config_dump('partition_router.note', '');
CREATE OR REPLACE FUNCTION partition_router.sync() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'sync_trigger';
CREATE VIEW partition_router.notes AS SELECT p.legacy, p.note FROM partition_router.pair p;
";

#[test]
fn an_update_of_the_extension_in_the_middle_of_migrations_changes_nothing_of_them() {
    let current = env!("CARGO_PKG_VERSION");
    let _script = Script::new(&format!("partition_router--{current}--9.9.9.sql"), NEXT);
    let database = Database::new("updated");
    let mut client = database.connect();
    let c = &mut client;
    world(c);
    let before = facts(c);
    // A session that has everything cached, and a transaction that is under way.
    let mut busy = database.connect();
    run(
        &mut busy,
        &["UPDATE t_live SET n = n", "UPDATE t_switched SET n = n"],
    );
    run(c, &["SELECT partition_router.take_changes()"]);
    run(c, &["ALTER EXTENSION partition_router UPDATE TO '9.9.9'"]);
    assert_eq!(
        one::<String>(
            c,
            "SELECT extversion FROM pg_extension WHERE extname = 'partition_router'"
        ),
        "9.9.9"
    );
    assert_eq!(facts(c), before);
    assert_healthy(c);
    run(
        &mut busy,
        &[
            "UPDATE t_live SET n = n",
            "UPDATE t_copy SET n = n + 1 WHERE id = 33",
        ],
    );
    run(c, &["SELECT partition_router.take_changes()"]);
    assert_goes_on(c);
}
