//! PREPARE TRANSACTION, a restart of the server, and what comes after.

use super::{At, PLAIN, Scene, compare, one, run, steps_until, until};
use crate::common::{Cluster, Database, cluster_sh};
use postgres::Client;
use std::sync::Arc;

/// Stops the server and starts it again. Every session is lost.
fn restart(database: &Database) {
    cluster_sh(&["restart", database.cluster.directory()]);
}

fn session(database: &Database) -> Client {
    super::session(database, "public")
}

/// Two prepared transactions: `kept` and `undone`.
fn prepare(client: &mut Client, side: &str) {
    run(
        client,
        &[
            "BEGIN",
            &format!("UPDATE {side} SET d = d + 31, n = -1 WHERE id <= 10"),
            &format!("DELETE FROM {side} WHERE id BETWEEN 11 AND 15"),
            "SAVEPOINT s",
            &format!("DELETE FROM {side} WHERE id BETWEEN 16 AND 20"),
            "ROLLBACK TO s",
            &format!("UPDATE {side} SET id = id + 1000, n = -1 WHERE id IN (21, 22)"),
            &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 500, -1, 'prepared')"),
            "PREPARE TRANSACTION 'kept'",
            "BEGIN",
            &format!("DELETE FROM {side} WHERE id > 50 AND id < 100"),
            &format!("INSERT INTO {side} VALUES (501, '2026-02-02', 501, 1, 'undone')"),
            "PREPARE TRANSACTION 'undone'",
        ],
    );
}

fn check(client: &mut Client) {
    assert_eq!(compare(client, "a"), 100 - 5 + 1);
    assert_eq!(
        one::<i64>(client, "SELECT count(*) FROM a_partitioned WHERE n = -1"),
        13
    );
}

#[test]
fn prepared_transactions_outlive_a_restart_and_end_on_both_sides() {
    let cluster = Arc::new(Cluster::start(&["shared_buffers=32MB"]));
    // Live: each side.
    for at in At::LIVE {
        let database = Database::on(Arc::clone(&cluster), "prepared_live");
        let mut client = session(&database);
        run(&mut client, &PLAIN);
        run(&mut client, &["CALL partition_router.migrate('a', 'd')"]);
        prepare(&mut client, at.side());
        restart(&database);
        let mut client = session(&database);
        assert_eq!(compare(&mut client, "a"), 100);
        // A row of a prepared transaction is locked, on both sides.
        for side in ["a", "a_partitioned"] {
            run(&mut client, &["SET lock_timeout = '50ms'"]);
            let blocked =
                crate::common::sqlstate(&mut client, &format!("UPDATE {side} SET n = 0 WHERE id = 11"));
            assert_eq!(blocked, "55P03", "{side}");
        }
        run(
            &mut client,
            &["COMMIT PREPARED 'kept'", "ROLLBACK PREPARED 'undone'"],
        );
        check(&mut client);
    }
    // While copying: the transactions are prepared before one of its stages and end after another. They hold their ids
    // across the horizon, and their locks keep the flip waiting.
    for (prepared, ended) in [
        ("begin", "copy"),
        ("begin", "flip"),
        ("copy", "index"),
        ("index", "flip"),
        ("drain", "flip"),
    ] {
        let database = Database::on(Arc::clone(&cluster), "prepared_copying");
        let mut client = session(&database);
        run(&mut client, &PLAIN);
        run(
            &mut client,
            &[
                "SELECT partition_router.create_twin('a', 'd')",
                "SELECT partition_router.start_sync('a')",
            ],
        );
        steps_until(&mut client, prepared);
        prepare(&mut client, "a");
        restart(&database);
        let mut client = session(&database);
        steps_until(&mut client, ended);
        if ended == "flip" {
            // It steps back as long as they are there, and is none the worse for it.
            run(
                &mut client,
                &[
                    "SET partition_router.lock_timeout = '1ms'",
                    "SET statement_timeout = '500ms'",
                ],
            );
            let code = crate::common::sqlstate(&mut client, super::STEP);
            assert!(["57014", "55P03"].contains(&code.as_str()), "{code}");
            run(
                &mut client,
                &["RESET statement_timeout", "RESET partition_router.lock_timeout"],
            );
        }
        run(
            &mut client,
            &["COMMIT PREPARED 'kept'", "ROLLBACK PREPARED 'undone'"],
        );
        run(&mut client, &["CALL partition_router.backfill('a')"]);
        check(&mut client);
    }
    // A transaction that has not touched the table at all holds the horizon: everything younger goes through the log.
    let database = Database::on(Arc::clone(&cluster), "prepared_horizon");
    let mut client = session(&database);
    run(
        &mut client,
        &[
            "CREATE TABLE b (id int)",
            "BEGIN",
            "INSERT INTO b VALUES (1)",
            "PREPARE TRANSACTION 'old'",
        ],
    );
    restart(&database);
    let mut client = session(&database);
    run(&mut client, &PLAIN);
    run(
        &mut client,
        &[
            "CALL partition_router.migrate('a', 'd')",
            "UPDATE a SET d = d + 31 WHERE id < 10",
        ],
    );
    assert_eq!(compare(&mut client, "a"), 100);
    let counted = "SELECT rows_copied || ' ' || rows_logged FROM partition_router.copy_state";
    assert_eq!(one::<String>(&mut client, counted), "0 100");
    run(&mut client, &["COMMIT PREPARED 'old'"]);
    compare(&mut client, "a");
}

#[test]
fn a_prepared_transaction_ends_in_another_session() {
    super::everywhere("prepared", &PLAIN, "'d'", |scene| {
        let names = ["kept", "undone"].map(|name| format!("{name}_{}", scene.schema));
        scene.run(&[
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "UPDATE {} SET d = d + 31, n = -1 WHERE id <= 10",
            "DELETE FROM {} WHERE id = 11",
            &format!("PREPARE TRANSACTION '{}'", names[0]),
            "BEGIN",
            "DELETE FROM {} WHERE id > 50",
            &format!("PREPARE TRANSACTION '{}'", names[1]),
        ]);
        if scene.at == At::Drained {
            // The flip asks for its locks until they are gone.
            let pid = super::pid(&mut scene.keeper);
            let other = scene.session();
            let mut keeper = std::mem::replace(&mut scene.keeper, other);
            let flip = std::thread::spawn(move || {
                run(&mut keeper, &[super::STEP]);
                keeper
            });
            until(
                &mut scene.keeper,
                &format!(
                    "SELECT count(*) > 0 FROM pg_locks WHERE pid = {pid} AND NOT granted AND relation = 'a'::regclass"
                ),
            );
            scene.keeper_run(&[
                &format!("COMMIT PREPARED '{}'", names[0]),
                &format!("ROLLBACK PREPARED '{}'", names[1]),
            ]);
            scene.keeper = flip.join().expect("the flip comes through");
        } else {
            let mut other = scene.session();
            run(
                &mut other,
                &[
                    &format!("COMMIT PREPARED '{}'", names[0]),
                    &format!("ROLLBACK PREPARED '{}'", names[1]),
                ],
            );
        }
        |scene: &mut Scene| {
            let counted = "SELECT count(*) || ' ' || count(*) FILTER (WHERE n = -1) FROM a_partitioned";
            assert_eq!(scene.one::<String>(counted), "99 10", "at {:?}", scene.at);
        }
    });
}
