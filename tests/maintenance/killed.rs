//! Maintenance that is killed at random instants: the next call goes on, and nothing is lost or dropped unarchived.

use crate::archives::Directory;
use crate::common::{Cluster, Database, clock_seed, is_stress, limit_files, one, run};
use postgres::{Client, NoTls};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A new session, as soon as the server takes one.
fn session(database: &Database, directory: &Directory) -> Client {
    let place = std::fs::read_to_string(format!("{}/where", database.cluster.directory())).unwrap();
    let parameters = format!(
        "host={}/socket port=5432 user=postgres dbname={}",
        place.trim(),
        database.name
    );
    let started = Instant::now();
    loop {
        if let Ok(mut client) = Client::connect(&parameters, NoTls)
            && client
                .batch_execute(&format!(
                    "LOAD 'partition_router'; SET partition_router.archive_directory = '{}'",
                    directory.path()
                ))
                .is_ok()
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

const CONTENT: &str = "SELECT count(*) || ' ' || md5(string_agg(x::text, '/' ORDER BY x.at, x.id)) FROM t x";

fn prepare(client: &mut Client, format: &str) -> String {
    run(
        client,
        &[
            "DROP TABLE IF EXISTS t CASCADE",
            "DELETE FROM partition_router.policy",
            "DELETE FROM partition_router.archives",
            "CREATE TABLE t (id bigint, at timestamp NOT NULL, note text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)",
            "CREATE TABLE t_default PARTITION OF t DEFAULT",
            "INSERT INTO t SELECT n, timezone('UTC', now()) - n % 120 * interval '1 day', md5(n::text) FROM generate_series(1, 9000) n",
            &format!(
                "SELECT partition_router.manage('t', '1 month', premake => 2, retention => '1 month', retention_action => 'archive', archive_format => '{format}')"
            ),
        ],
    );
    one(client, CONTENT)
}

/// Everything is where it belongs, once a call has come through.
fn check(client: &mut Client, directory: &Directory, before: &str, seed: u64) {
    for _ in 0..2 {
        run(client, &["CALL partition_router.run_maintenance('t')"]);
    }
    let failed: Option<String> = one(client, "SELECT last_error FROM partition_router.policy");
    assert_eq!(failed, None, "seed {seed}");
    let pending: i64 = one(
        client,
        "SELECT (SELECT count(*) FROM partition_router.archives WHERE state NOT IN ('archived', 'restored'))
              + (SELECT count(*) FROM partition_router.drain) + (SELECT count(*) FROM t_default)
              + (SELECT count(*) FROM pg_class WHERE relname LIKE 'partition_router_d%' AND relnamespace = 'public'::regnamespace)",
    );
    assert_eq!(pending, 0, "seed {seed}");
    let archived: i64 = one(
        client,
        "SELECT COALESCE(sum(row_count), 0)::bigint FROM partition_router.archives",
    );
    let left: i64 = one(client, "SELECT count(*) FROM t");
    assert_eq!(archived + left, 9000, "seed {seed}");
    assert!(archived > 0, "seed {seed}");
    run(
        client,
        &[
            "SELECT partition_router.restore_archive(id) FROM partition_router.archives WHERE state = 'archived'",
        ],
    );
    assert_eq!(one::<String>(client, CONTENT), before, "seed {seed}");
    let partial = std::fs::read_dir(directory.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().to_string_lossy().ends_with(".partial"))
        .count();
    assert_eq!(partial, 0, "seed {seed}");
}

#[test]
fn killed_at_random_instants_nothing_is_lost_or_dropped_unarchived() {
    let cluster = Arc::new(Cluster::start(&["max_connections=20", "shared_buffers=64MB"]));
    let database = Database::on(cluster, "maintenance_killed");
    let directory = Directory::new("killed");
    let seed = std::env::var("PARTITION_ROUTER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(clock_seed);
    println!("PARTITION_ROUTER_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut client = session(&database, &directory);
    // How long a call takes that nobody disturbs.
    let before = prepare(&mut client, "csv");
    let started = Instant::now();
    run(&mut client, &["CALL partition_router.run_maintenance('t')"]);
    let whole = started.elapsed();
    check(&mut client, &directory, &before, seed);
    let kills = if is_stress() { 50 } else { 5 };
    for kill in 0..kills {
        let before = prepare(&mut client, if kill % 2 == 0 { "csv" } else { "parquet" });
        // Once or twice: a call that goes on after a kill may be killed as well.
        for _ in 0..rng.random_range(1..=2) {
            let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
            let mut witness = session(&database, &directory);
            // The session stays when its call has ended: then an idle one is killed, which is as good.
            let call = std::thread::spawn(move || {
                let _outcome = client.batch_execute("CALL partition_router.run_maintenance('t')");
                client
            });
            // The instant is what is random here, not what is waited for.
            std::thread::sleep(whole.mul_f64(rng.random_range(0.0..1.1)));
            let status = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .status()
                .unwrap();
            assert!(status.success());
            let killed = call.join().unwrap();
            // A new session before the server has noticed would be ended with all others.
            while witness.batch_execute("SELECT 1").is_ok() {
                std::thread::sleep(Duration::from_millis(2));
            }
            drop(killed);
            client = session(&database, &directory);
        }
        check(&mut client, &directory, &before, seed);
    }
}

#[test]
fn where_nothing_more_can_be_written_nothing_is_dropped() {
    let cluster = Arc::new(Cluster::start(&["max_connections=20", "shared_buffers=256MB"]));
    let database = Database::on(cluster, "maintenance_full");
    let directory = Directory::new("full");
    let mut client = session(&database, &directory);
    run(
        &mut client,
        &[
            "CREATE TABLE t (id bigint, at timestamp NOT NULL, note text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at)",
            "CREATE TABLE t_default PARTITION OF t DEFAULT",
            "INSERT INTO t SELECT n, date_trunc('month', timezone('UTC', now())) - interval '3 months', md5(n::text) || md5((-n)::text)
             FROM generate_series(1, 450000) n",
            "SELECT partition_router.manage('t', '1 month', premake => 0)",
        ],
    );
    let backend: i32 = one(&mut client, "SELECT pg_backend_pid()");
    let content = "SELECT count(*) || ' ' || sum(hashtextextended(note, id)) FROM t";
    let before: String = one(&mut client, content);
    // A segment of WAL must find its place.
    let limit = (17 << 20).to_string();
    let failed =
        "SELECT count(*) FROM partition_router.maintenance_event WHERE status = 'failed' AND action = $a";
    let archive = |format: &str| {
        format!("retention => '1 month', retention_action => 'archive', archive_format => '{format}'")
    };
    let mut rounds = vec![
        ("'drain'", "premake => 0".to_owned()),
        ("'retire'", archive("csv")),
    ];
    if is_stress() {
        rounds.push(("'retire'", archive("parquet")));
    }
    for (action, rules) in rounds {
        run(
            &mut client,
            &[
                "DELETE FROM partition_router.maintenance_event",
                &format!("SELECT partition_router.set_policy('t', {rules})"),
            ],
        );
        // The backend is not to write what others have left in memory.
        run(&mut client, &["CHECKPOINT"]);
        limit_files(&mut client, backend, &limit);
        run(
            &mut client,
            &["CALL partition_router.run_maintenance('t', part => 'all')"],
        );
        limit_files(&mut client, backend, "unlimited");
        assert!(
            one::<i64>(&mut client, &failed.replace("$a", action)) > 0,
            "{action} {rules}"
        );
        assert_eq!(one::<String>(&mut client, content), before, "{action} {rules}");
        run(
            &mut client,
            &["CALL partition_router.run_maintenance('t', part => 'create')"],
        );
    }
    for _ in 0..2 {
        run(&mut client, &["CALL partition_router.run_maintenance('t')"]);
    }
    let archived: i64 = one(
        &mut client,
        "SELECT sum(row_count)::bigint FROM partition_router.archives WHERE state = 'archived'",
    );
    assert_eq!(
        (archived, one::<i64>(&mut client, "SELECT count(*) FROM t")),
        (450_000, 0)
    );
}
