//! `pg_dump` and `pg_restore`, in several ways, into another server: files and transactions have other numbers there.

use super::common::{Cluster, Database, one, run, texts};
use super::{assert_goes_on, assert_healthy, facts, target, world};
use std::path::PathBuf;
use std::sync::Arc;

/// A dump of the world, as a directory, and what was in it.
fn dumped(name: &str) -> (PathBuf, Vec<String>) {
    let database = Database::new(name);
    let mut client = database.connect();
    world(&mut client);
    let before = facts(&mut client);
    assert_healthy(&mut client);
    let directory = std::env::temp_dir().join(format!("{}_{}", database.name, std::process::id()));
    let path = directory.to_str().expect("UTF-8");
    database.program("pg_dump", &["-Fd", "-j", "2", "-f", path, &database.name]);
    assert_eq!(facts(&mut client), before, "a dump changes nothing");
    (directory, before)
}

#[test]
fn a_restored_dump_is_as_it_was_and_every_pair_goes_on() {
    let (dump, before) = dumped("dump");
    let path = dump.to_str().expect("UTF-8");
    let elsewhere = Arc::new(Cluster::start(&[]));
    let ways: [&[&[&str]]; 2] = [
        &[&["-j", "3"]],
        &[
            &["--section=pre-data"],
            &["--section=data", "-j", "2"],
            &["--section=post-data"],
        ],
    ];
    for (i, way) in ways.into_iter().enumerate() {
        let (database, mut client) = target(elsewhere.clone(), &format!("restored_{i}"));
        for part in way {
            let arguments = [&["--exit-on-error", "-d", &database.name][..], part, &[path]].concat();
            database.program("pg_restore", &arguments);
        }
        let after = facts(&mut client);
        let differ: Vec<_> = before
            .iter()
            .filter(|fact| !after.contains(fact))
            .chain(after.iter().filter(|fact| !before.contains(fact)))
            .collect();
        assert!(differ.is_empty(), "{way:?}: {differ:#?}");
        assert_healthy(&mut client);
        assert_goes_on(&mut client);
    }
    std::fs::remove_dir_all(dump).expect("the dump is removed");
}

#[test]
fn a_database_made_from_another_one_goes_on_although_its_files_have_the_same_numbers() {
    let original = Database::new("template");
    let mut client = original.connect();
    world(&mut client);
    let before = facts(&mut client);
    drop(client);
    let copy = Database::new("from_template");
    let mut admin = copy.cluster.connect("postgres");
    run(
        &mut admin,
        &[
            &format!("DROP DATABASE {}", copy.name),
            &format!("CREATE DATABASE {} TEMPLATE {}", copy.name, original.name),
        ],
    );
    let mut client = copy.connect();
    assert_eq!(facts(&mut client), before);
    assert_goes_on(&mut client);
    let restarted =
        "SELECT count(*) FROM partition_router.run_log WHERE operation = 'backfill' AND stage = 'RESTART'";
    assert_eq!(one::<i64>(&mut client, restarted), 1);
}

#[test]
fn rows_alone_are_restored_without_being_carried() {
    let database = Database::new("rows_alone");
    let mut client = database.connect();
    for place in ["live", "switched"] {
        super::make(&mut client, place);
    }
    let rows = |c: &mut postgres::Client| ["live", "switched"].map(|place| super::rows(c, place));
    let before = rows(&mut client);
    let file = std::env::temp_dir().join(format!("{}_{}", database.name, std::process::id()));
    let file = file.to_str().expect("UTF-8");
    database.program("pg_dump", &["-Fc", "-f", file, &database.name]);
    let (there, mut client) = target(database.cluster.clone(), "rows_alone_there");
    for part in ["--schema-only", "--data-only"] {
        there.program(
            "pg_restore",
            &[
                "--exit-on-error",
                "--disable-triggers",
                part,
                "-d",
                &there.name,
                file,
            ],
        );
    }
    assert_eq!(rows(&mut client), before);
    // pg_restore lets triggers fire again, and not always: health sees it, and mends it.
    for _ in 0..10 {
        let mends = texts(
            &mut client,
            "SELECT DISTINCT mend FROM partition_router.health WHERE status = 'fail' AND \"check\" IN ('sync', 'partition_sync')",
        );
        let Some(mend) = mends.first() else { break };
        run(&mut client, &[mend]);
    }
    super::assert_healthy(&mut client);
    for place in ["live", "switched"] {
        run(&mut client, &[&format!("UPDATE t_{place} SET n = n + 1")]);
        let proof =
            format!("SELECT bool_and(matches) FROM partition_router.verify('t_{place}', 'rows', true)");
        assert!(one::<bool>(&mut client, &proof), "{place}");
    }
    std::fs::remove_file(file).expect("the dump is removed");
}
