//! `kill -9`: the server restarts, and the next call goes on.

use super::{ROWS, capture, finish, pid, run, stage, step, steps_until};
use crate::common::{Cluster, Database, limit_files};
use postgres::{Client, NoTls};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Kills a backend, and waits until the server has thrown everybody out and is about to recover.
fn kill(database: &Database, pid: i32) {
    let mut witness = reconnect(database);
    let status = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success());
    let killed = Instant::now();
    while witness.batch_execute("SELECT 1").is_ok() {
        assert!(
            killed.elapsed() < Duration::from_secs(30),
            "the server did not notice"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A new session, as soon as the server has recovered.
fn reconnect(database: &Database) -> Client {
    let parameters = format!(
        "host={}/socket port=5432 user=postgres dbname={}",
        std::fs::read_to_string(format!("{}/where", database.cluster.directory()))
            .expect("where it lies")
            .trim(),
        database.name
    );
    let started = Instant::now();
    loop {
        if let Ok(mut client) = Client::connect(&parameters, NoTls)
            && client.batch_execute("SELECT 1").is_ok()
        {
            return client;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the server does not come back"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn killed_at_any_step_it_ends_the_same() {
    let cluster = Arc::new(Cluster::start(&["max_connections=20", "shared_buffers=64MB"]));
    let database = Database::on(cluster, "killed");
    let mut met = Vec::new();
    let mut client = database.connect();
    for hold in 0..100 {
        let name = format!("t{hold}");
        capture(&mut client, &name);
        let mut at = stage(&mut client, &name);
        for _ in 0..hold {
            if at == "done" {
                break;
            }
            step(&mut client, &name);
            at = stage(&mut client, &name);
        }
        if at == "done" {
            break;
        }
        // Once a stage is enough, but each batch of the copy counts.
        if at != "copy" && met.contains(&at) {
            run(
                &mut client,
                &[&format!("SELECT partition_router.abandon('{name}')")],
            );
            continue;
        }
        run(
            &mut client,
            &[
                &format!("UPDATE {name} SET d = d + 31, n = -1 WHERE id IN (1, 900, 2200)"),
                "BEGIN",
            ],
        );
        step(&mut client, &name);
        let victim = pid(&mut client);
        kill(&database, victim);
        client = reconnect(&database);
        assert_eq!(stage(&mut client, &name), at, "the step left something behind");
        run(&mut client, &[&format!("DELETE FROM {name} WHERE id = 2")]);
        assert_eq!(finish(&mut client, &name), ROWS - 1);
        run(
            &mut client,
            &[
                &format!("SELECT partition_router.abandon('{name}')"),
                &format!("DROP TABLE {name}"),
            ],
        );
        met.push(at);
    }
    for wanted in ["begin", "copy", "index", "drain", "flip", "finish"] {
        assert!(met.iter().any(|s| s == wanted), "{wanted} was not met: {met:?}");
    }
}

#[test]
fn a_crash_of_the_server_under_load_loses_nothing() {
    let cluster = Arc::new(Cluster::start(&["max_connections=20", "shared_buffers=64MB"]));
    let database = Database::on(Arc::clone(&cluster), "crashed");
    let mut client = database.connect();
    capture(&mut client, "a");
    drop(client);
    for round in 0..3 {
        let (mut backfill, mut writer) = (reconnect(&database), reconnect(&database));
        let load = std::thread::spawn(move || {
            let mut written = 0;
            for i in 0.. {
                let id = 1 + (i * 37 + round * 11) % 2000;
                let statement = format!(
                    "UPDATE a SET n = n + 1, d = date '2026-01-01' + {} WHERE id = {id}",
                    i % 80
                );
                if writer.batch_execute(&statement).is_err() {
                    break;
                }
                written += 1;
            }
            written
        });
        let call = std::thread::spawn(move || {
            let _ = backfill.batch_execute("CALL partition_router.backfill('a', 100, '20ms')");
        });
        let mut watcher = reconnect(&database);
        // Not at the same place each time.
        let wanted = ["begin", "copy", "index"][round];
        super::until(
            &mut watcher,
            &format!(
                "SELECT array_position(o, COALESCE((SELECT stage FROM partition_router.copy_state), 'begin'))
                     >= array_position(o, '{wanted}')
                 FROM (VALUES (ARRAY['begin', 'copy', 'index', 'drain', 'flip', 'finish', 'done'])) AS stages(o)"
            ),
        );
        drop(watcher);
        crate::common::cluster_sh(&["crash", cluster.directory()]);
        call.join().expect("the session ends");
        assert!(load.join().expect("the session ends") >= 0);
        crate::common::cluster_sh(&["start", cluster.directory()]);
    }
    let mut client = reconnect(&database);
    assert_eq!(finish(&mut client, "a"), ROWS);
}

#[test]
fn a_killed_worker_takes_the_server_down_and_the_next_call_ends_equal() {
    let cluster = Arc::new(Cluster::start(&["max_connections=20", "shared_buffers=64MB"]));
    let database = Database::on(Arc::clone(&cluster), "worker");
    let (mut backfill, mut other, mut holder) = (database.connect(), database.connect(), database.connect());
    capture(&mut backfill, "a");
    step(&mut backfill, "a"); // takes the indexes off the twin, which the lock would be in the way of
    run(&mut backfill, &["SET partition_router.backfill_workers = 2"]);
    run(
        &mut holder,
        &["BEGIN", "LOCK TABLE a_2026_02 IN ACCESS EXCLUSIVE MODE"],
    );
    let call = std::thread::spawn(move || backfill.batch_execute("CALL partition_router.backfill('a', 100)"));
    let worker = "FROM pg_stat_activity WHERE datname = current_database()
        AND backend_type = 'partition_router backfill' AND wait_event_type = 'Lock'";
    super::until(&mut other, &format!("SELECT count(*) > 0 {worker}"));
    let victim: i32 = super::one(&mut other, &format!("SELECT pid {worker} LIMIT 1"));
    kill(&database, victim);
    assert!(call.join().expect("the thread ends").is_err());
    let mut client = reconnect(&database);
    assert_eq!(stage(&mut client, "a"), "copy");
    run(&mut client, &["DELETE FROM a WHERE id = 2"]);
    assert_eq!(finish(&mut client, "a"), ROWS - 1);
}

#[test]
fn a_file_that_cannot_grow_only_stops_the_call() {
    let database = Database::new("full");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL DEFAULT '2026-01-01', u int, n int, t text)",
            "CREATE INDEX ON a (t)",
            // Texts that do not compress, so that an index of them is as large as the table.
            "CREATE FUNCTION noise(g int) RETURNS text LANGUAGE sql
             RETURN (SELECT string_agg(md5((g * 31 + i)::text), '') FROM generate_series(1, 30) i)",
            "INSERT INTO a (id, t) SELECT g, noise(g) FROM generate_series(1, 42000) g",
            "SELECT partition_router.create_twin('a', 'id', 'hash', partitions => 2)",
            "SELECT partition_router.start_sync('a')",
        ],
    );
    for (round, wanted) in ["copy", "index", "drain"].into_iter().enumerate() {
        steps_until(&mut client, "a", wanted);
        // Rows for which no page has room.
        let insert = format!(
            "INSERT INTO a (id, t) SELECT {round}00000 + 50000 + g, noise(g) FROM generate_series(1, 200) g"
        );
        run(&mut client, &[&insert]);
        let mut limited = database.connect();
        let backend = pid(&mut limited);
        // More than a segment of the WAL, less than a partition.
        limit_files(&mut client, backend, "18000000");
        let error = limited
            .batch_execute("CALL partition_router.backfill('a')")
            .expect_err("it cannot grow");
        let message = error
            .as_db_error()
            .map(|e| e.message().to_string())
            .unwrap_or_default();
        assert!(
            message.starts_with("could not extend file") || message.starts_with("could not write"),
            "{wanted}: {error:?}"
        );
        assert_eq!(stage(&mut client, "a"), wanted, "the step left something behind");
        run(&mut client, &[&format!("UPDATE a SET n = {round} WHERE id = 1")]);
    }
    assert_eq!(finish(&mut client, "a"), 42_600);
}
