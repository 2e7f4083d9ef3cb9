//! The proof that is renewed by schedule: pg_cron calls maintenance, and `health` says what it found.

mod common;

use common::{Cluster, Database, one, plant, run};
use postgres::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What `health` says of the pair's parity, and in which words.
const PARITY: &str =
    "SELECT status || ': ' || message FROM partition_router.health WHERE \"check\" = 'parity'";

#[test]
fn a_proof_scheduled_with_pg_cron_shows_in_health() {
    let cluster = Arc::new(Cluster::start(&[
        "shared_preload_libraries=pg_cron",
        "cron.database_name=postgres",
        "cron.use_background_workers=on",
        "max_worker_processes=20",
    ]));
    let database = Database::on(cluster.clone(), "scheduled");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, n int)",
            "INSERT INTO t SELECT g, date '2026-01-01' + g % 60, g FROM generate_series(1, 500) g",
            "CALL partition_router.migrate('t', 'at')",
            &format!(
                "ALTER DATABASE \"{}\" SET partition_router.verify_interval = 0",
                database.name
            ),
        ],
    );
    assert!(one::<String>(c, PARITY).starts_with("ok: "));
    // A fault that nobody has looked for yet.
    plant(c, "t", &["UPDATE t SET n = -1 WHERE id = 7"]);
    assert!(one::<String>(c, PARITY).starts_with("ok: "));
    let mut cron = cluster.connect("postgres");
    run(
        &mut cron,
        &[
            "CREATE EXTENSION pg_cron",
            &format!(
                "SELECT cron.schedule_in_database('parity', '* * * * *', 'CALL partition_router.run_maintenance()', '{}')",
                database.name
            ),
        ],
    );
    // The server's clock decides when: at the next full minute.
    until_in(c, &mut cron, "fail");
    let log = "SELECT count(*) FROM partition_router.run_log WHERE operation = 'verify' AND stage = 'FAILED'";
    assert!(one::<i64>(c, log) >= 1);
    run(c, &["SELECT partition_router.repair('t')"]);
    until_in(c, &mut cron, "ok");
    run(&mut cron, &["SELECT cron.unschedule('parity')"]);
}

/// Waits until `health` has that status; when it never does, the jobs say why.
fn until_in(client: &mut Client, cron: &mut Client, status: &str) {
    let started = Instant::now();
    while !one::<String>(client, PARITY).starts_with(status) {
        if started.elapsed() > Duration::from_secs(180) {
            let jobs = common::texts(
                cron,
                "SELECT concat_ws(' ', status, return_message) FROM cron.job_run_details ORDER BY runid DESC LIMIT 5",
            );
            panic!(
                "health never said {status}, but {}; jobs: {jobs:?}",
                one::<String>(client, PARITY)
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
