//! Maintenance by the clock: through pg_cron, and without it by a background worker.

mod common;

use common::{Cluster, Database, one, plant, run, sqlstate, texts};
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

/// A table under maintenance, of which partitions are due.
fn due(client: &mut Client, name: &str) {
    run(
        client,
        &[
            &format!("CREATE TABLE {name} (at timestamp) PARTITION BY RANGE (at)"),
            &format!("SELECT partition_router.manage('{name}', '1 day', premake => 2)"),
        ],
    );
}

fn partitions(client: &mut Client, table: &str) -> i64 {
    one(
        client,
        &format!("SELECT count(*) FROM pg_inherits WHERE inhparent = '{table}'::regclass"),
    )
}

/// Waits until a query gives true; when it never does, `what` says what was waited for.
fn until(client: &mut Client, what: &str, query: &str) {
    let started = Instant::now();
    while !one::<bool>(client, query) {
        assert!(started.elapsed() < Duration::from_secs(120), "{what} never came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the server's log has the words.
fn until_said(log: &dyn Fn() -> String, words: &str) {
    let started = Instant::now();
    while !log().contains(words) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the log never said: {words}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn jobs_of_pg_cron_create_and_clean_up_and_go_again() {
    let cluster = Arc::new(Cluster::start(&[
        "shared_preload_libraries=pg_cron",
        "cron.database_name=postgres",
        "cron.use_background_workers=on",
        "max_worker_processes=20",
    ]));
    let mut client = cluster.connect("postgres");
    let c = &mut client;
    run(c, &["CREATE EXTENSION partition_router"]);
    let schedule = "SELECT partition_router.schedule_maintenance('* * * * *')";
    assert_eq!(sqlstate(c, schedule), "PR070", "before CREATE EXTENSION pg_cron");
    run(c, &["CREATE EXTENSION pg_cron"]);
    due(c, "t");
    run(c, &["SELECT partition_router.schedule_maintenance()"]);
    let jobs = "SELECT concat_ws('|', jobname, schedule, command, database) FROM cron.job ORDER BY jobid";
    assert_eq!(
        texts(c, jobs),
        [
            "partition_router create|0 2 1 * *|CALL partition_router.run_maintenance(part => 'create')|postgres",
            "partition_router cleanup|0 3 15 * *|CALL partition_router.run_maintenance(part => 'cleanup')|postgres",
        ]
    );
    assert_eq!(
        sqlstate(c, "SELECT partition_router.schedule_maintenance('when I say so')"),
        "22023"
    );
    run(c, &[schedule]);
    assert_eq!(texts(c, jobs).len(), 2, "the schedules changed, no job came");
    // The server's clock decides when: at the next full minute.
    until(
        c,
        "the job",
        "SELECT count(*) = 3 FROM pg_inherits WHERE inhparent = 't'::regclass",
    );
    assert_eq!(
        texts(c, "SELECT job FROM partition_router.unschedule_maintenance()"),
        ["partition_router create", "partition_router cleanup"]
    );
    assert_eq!(texts(c, jobs), [""; 0]);
    run(c, &["SELECT partition_router.unschedule_maintenance()"]);
    // In another database: the hint is what to run, and where.
    let other = Database::on(cluster.clone(), "elsewhere");
    let mut o = other.connect();
    let error = o
        .batch_execute("SELECT partition_router.schedule_maintenance()")
        .expect_err("pg_cron is elsewhere");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "PR070");
    let hint = error.hint().expect("a hint");
    assert!(
        hint.contains("database \"postgres\"") && hint.contains(&other.name),
        "{hint}"
    );
    let statements = hint.split_once("run there ").expect("statements").1;
    let statements = statements.split_once("; or let").expect("statements").0;
    run(c, &[statements]);
    assert_eq!(
        texts(c, "SELECT DISTINCT database FROM cron.job"),
        [other.name.as_str()]
    );
}

#[test]
fn a_background_worker_maintains_each_database_that_wants_it_and_never_as_superuser() {
    let cluster = Arc::new(Cluster::start(&["shared_preload_libraries=partition_router"]));
    let wanting = Database::on(cluster.clone(), "wanting");
    let other = Database::on(cluster.clone(), "other");
    let (mut w, mut o) = (wanting.connect(), other.connect());
    run(
        &mut w,
        &["CREATE ROLE app NOLOGIN", "CREATE ROLE keeper LOGIN IN ROLE app"],
    );
    for c in [&mut w, &mut o] {
        run(
            c,
            &[
                "GRANT CREATE ON SCHEMA public TO app",
                "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO keeper",
            ],
        );
        due(c, "of_superuser");
        due(c, "of_app");
        run(
            c,
            &[
                "ALTER TABLE of_app OWNER TO app",
                "CREATE TABLE broken (at timestamp) PARTITION BY RANGE (at)",
                "SELECT partition_router.manage('broken', '1 day', premake => 0)",
                "ALTER TABLE broken OWNER TO app",
                "DO $$BEGIN EXECUTE format('CREATE VIEW %I AS SELECT 1',
                    'broken_' || to_char(timezone('UTC', now()), 'YYYY_MM_DD')); END$$",
            ],
        );
    }
    let set = |role: &str| {
        format!(
            "ALTER DATABASE \"{0}\" SET partition_router.maintenance_role = '{role}';
             ALTER DATABASE \"{0}\" SET partition_router.maintenance_interval = '1s'",
            wanting.name
        )
    };
    let log = || std::fs::read_to_string(format!("{}/log", cluster.directory())).expect("the server's log");
    run(&mut w, &[&set("postgres")]);
    until_said(&log, "role \"postgres\" is a superuser");
    assert_eq!(partitions(&mut w, "of_app"), 0);
    run(&mut w, &[&set("keeper")]);
    until(
        &mut w,
        "the worker",
        "SELECT count(*) = 3 FROM pg_inherits WHERE inhparent = 'of_app'::regclass",
    );
    until(
        &mut w,
        "the error of the broken table",
        "SELECT count(*) > 0 FROM partition_router.maintenance_log WHERE parent = 'public.broken' AND sqlstate = '42P07'",
    );
    until(
        &mut w,
        "a second run",
        "SELECT count(*) > 1 FROM partition_router.maintenance_log WHERE parent = 'public.broken' AND sqlstate = '42P07'",
    );
    assert_eq!(
        partitions(&mut w, "of_superuser"),
        0,
        "the keeper is no member of its owner"
    );
    assert_eq!(
        partitions(&mut o, "of_app"),
        0,
        "the other database has no such setting"
    );
    assert!(
        one::<bool>(
            &mut w,
            "SELECT bool_and(status = 'fail') FROM partition_router.health WHERE relation = 'public.broken' AND \"check\" = 'maintenance'"
        ),
        "health names the broken table"
    );
    // One that may not call it does nothing.
    run(&mut w, &["DELETE FROM partition_router.maintenance_event"]);
    run(
        &mut w,
        &["REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA partition_router FROM keeper"],
    );
    until_said(&log, "may not execute partition_router.run_maintenance()");
    let reset = format!("ALTER DATABASE \"{}\" RESET ALL", wanting.name);
    run(&mut w, &[&reset]);
    run(&mut o, &["DROP OWNED BY app, keeper"]);
    run(&mut w, &["DROP OWNED BY app, keeper"]);
}

#[test]
fn a_standby_has_no_launcher_until_it_is_promoted() {
    let primary = Arc::new(Cluster::start(&[
        "shared_preload_libraries=partition_router",
        "shared_buffers=32MB",
    ]));
    let database = Database::on(primary.clone(), "promotion");
    let mut client = database.connect();
    let c = &mut client;
    run(c, &["CREATE ROLE keeper LOGIN"]);
    due(c, "t");
    run(
        c,
        &[
            "ALTER TABLE t OWNER TO keeper",
            "GRANT CREATE ON SCHEMA public TO keeper",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO keeper",
        ],
    );
    let standby = primary.standby(&[]);
    run(
        c,
        &[&format!(
            "ALTER DATABASE \"{0}\" SET partition_router.maintenance_role = 'keeper';
             ALTER DATABASE \"{0}\" SET partition_router.maintenance_interval = '1h'",
            database.name
        )],
    );
    const LAUNCHERS: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'partition_router launcher'";
    until(c, "the launcher", &format!("SELECT ({LAUNCHERS}) = 1"));
    let written: String = one(c, "SELECT pg_current_wal_lsn()::text");
    let mut s = standby.connect(&database.name);
    let s = &mut s;
    until(
        s,
        "the settings",
        &format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"),
    );
    assert_eq!(one::<i64>(s, LAUNCHERS), 0, "on a standby");
    assert!(one::<bool>(s, "SELECT pg_promote()"));
    until(s, "the launcher", &format!("SELECT ({LAUNCHERS}) = 1"));
    until(
        s,
        "maintenance after the promotion",
        "SELECT count(*) = 3 FROM pg_inherits WHERE inhparent = 't'::regclass",
    );
}
