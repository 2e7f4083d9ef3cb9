//! However the library is loaded, and whatever else is loaded with it, before or after.

use crate::common::{Cluster, Database, one, run, texts};
use crate::marked::{self, ROUTED, SIDE, side};
use crate::ways::rows_of;
use postgres::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server with these settings and a marked pair on it.
fn server_with(settings: &[&str], test: &str) -> (Database, Client) {
    let settings: Vec<&str> = settings.iter().copied().chain(["shared_buffers=32MB"]).collect();
    let database = Database::on(Arc::new(Cluster::start(&settings)), test);
    let mut owner = database.connect();
    run(&mut owner, marked::TABLE);
    marked::migrate(&mut owner);
    (database, owner)
}

/// Flips that a new session must see, whatever hooks are chained.
fn flips(database: &Database, load: &[&str]) {
    let mut session = database.connect();
    run(&mut session, load);
    let c = &mut session;
    run(c, &["PREPARE q AS SELECT side FROM revenues WHERE id = 0"]);
    for (statement, wanted) in [
        ("SELECT 1", "legacy"),
        (ROUTED, "twin"),
        ("SET partition_router.enable_partition_routing = off", "legacy"),
        ("SET partition_router.enable_partition_routing = on", "twin"),
        ("SET partition_router.transparent = off", "legacy"),
    ] {
        run(c, &[statement]);
        for _ in 0..3 {
            assert_eq!(side(c), wanted, "{statement}");
            assert_eq!(one::<String>(c, "EXECUTE q"), wanted, "{statement}");
        }
    }
}

#[test]
fn the_library_routes_however_it_is_loaded() {
    for settings in [
        &["shared_preload_libraries=partition_router"][..],
        &["session_preload_libraries=partition_router"],
        &[
            "shared_preload_libraries=partition_router",
            "session_preload_libraries=partition_router",
        ],
    ] {
        let (database, _owner) = server_with(settings, "loaded");
        flips(&database, &[]);
        flips(&database, &["LOAD 'partition_router'"]);
    }
}

#[test]
fn load_in_a_session_that_has_plans_cached_routes_them() {
    let (database, _owner) = server_with(&[], "load");
    flips(&database, &["LOAD 'partition_router'"]);
    let mut session = database.connect();
    let c = &mut session;
    run(
        c,
        &[
            "PREPARE q AS SELECT side FROM revenues WHERE id = 0",
            "SET partition_router.transparent = on",
        ],
    );
    for _ in 0..7 {
        assert_eq!(
            one::<String>(c, "EXECUTE q"),
            "legacy",
            "the library is not loaded"
        );
    }
    run(c, &["LOAD 'partition_router'", ROUTED]);
    assert_eq!(one::<String>(c, "EXECUTE q"), "twin");
    assert_eq!(side(c), "twin");
}

fn works_next_to_the_others(libraries: &str) {
    let (database, mut owner) = server_with(
        &[
            &format!("shared_preload_libraries={libraries}"),
            "auto_explain.log_min_duration=0",
            "auto_explain.log_nested_statements=on",
            "auto_explain.log_analyze=on",
            "pg_stat_statements.track=all",
            "compute_query_id=on",
            "cron.database_name=postgres",
            "cron.use_background_workers=on",
        ],
        "neighbours",
    );
    run(&mut owner, &["CREATE EXTENSION pg_stat_statements"]);
    flips(&database, &[]);
    let c = &mut owner;
    // A query has one identity, whichever side it reads.
    run(c, &["SELECT pg_stat_statements_reset()"]);
    assert_eq!(side(c), "legacy");
    run(c, &[ROUTED]);
    assert_eq!(side(c), "twin");
    let calls = "SELECT string_agg(calls || ' ' || rows, ', ') FROM pg_stat_statements
                 WHERE query LIKE 'SELECT side FROM revenues%'";
    assert_eq!(one::<String>(c, calls), "2 2", "{libraries}");
    // auto_explain logs the plan that ran.
    let log =
        std::fs::read_to_string(format!("{}/log", database.cluster.directory())).expect("the server's log");
    assert!(
        log.contains("revenues_2026_01"),
        "{libraries}: no plan of the twin in the log"
    );
    assert!(!log.contains("XX000"), "{libraries}");
    let all: Vec<String> = texts(c, "SELECT DISTINCT side FROM revenues WHERE id < 10");
    assert_eq!(all, ["twin"], "{libraries}");
    // pg_cron runs a job in a background worker, where it is routed as in a session.
    let name = &database.name;
    run(
        c,
        &[
            "CREATE TABLE seen (side text)",
            &format!("ALTER DATABASE \"{name}\" SET partition_router.transparent = on"),
            &format!("ALTER DATABASE \"{name}\" SET partition_router.use_partitioned_tables = on"),
        ],
    );
    let mut keeper = database.cluster.connect("postgres");
    run(&mut keeper, &["CREATE EXTENSION pg_cron"]);
    let job = format!(
        "SELECT cron.schedule_in_database('look', '1 seconds', $$
             DO 'DECLARE found text; BEGIN SELECT side INTO found FROM revenues WHERE id = 0;
                 INSERT INTO seen VALUES (found); END' $$, '{name}')"
    );
    // Seconds came with pg_cron 1.5; an older one begins jobs at full minutes.
    if rows_of(&mut keeper, &job).is_error() {
        run(&mut keeper, &[&job.replace("1 seconds", "* * * * *")]);
    }
    let started = Instant::now();
    while one::<i64>(c, "SELECT count(*) FROM seen") == 0 {
        assert!(started.elapsed() < Duration::from_secs(180), "the job never ran");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        texts(c, "SELECT DISTINCT side FROM seen"),
        ["twin"],
        "{libraries}"
    );
    run(&mut keeper, &["SELECT cron.unschedule('look')"]);
}

#[test]
fn it_works_next_to_other_libraries_before_and_after_it() {
    // Together, since either waits for a full minute.
    std::thread::scope(|scope| {
        for libraries in [
            "pg_stat_statements,auto_explain,pg_cron,partition_router",
            "partition_router,pg_stat_statements,auto_explain,pg_cron",
        ] {
            scope.spawn(move || works_next_to_the_others(libraries));
        }
    });
}

#[test]
fn explain_of_every_format_says_that_it_was_routed() {
    let (_database, mut owner) = marked::marked("explained");
    let c = &mut owner;
    let plan = |c: &mut Client, options: &str, query: &str| {
        texts(c, &format!("EXPLAIN ({options}) {query}")).join("\n")
    };
    for query in [
        SIDE,
        "SELECT count(*) FROM revenues",
        "SELECT * FROM (SELECT * FROM revenues LIMIT 1) x",
    ] {
        for options in ["COSTS OFF", "VERBOSE", "ANALYZE, TIMING OFF"] {
            run(c, &["RESET partition_router.transparent"]);
            let plain = plan(c, options, query);
            assert!(!plain.to_lowercase().contains("rout"), "{plain}");
            run(c, &[ROUTED]);
            let routed = plan(c, options, query);
            assert!(routed.contains("revenues_2026_01"), "{routed}");
            assert!(routed.contains("revenues -> revenues_partitioned"), "{routed}");
        }
    }
    for format in ["JSON", "XML", "YAML"] {
        let row = c
            .query_one(&format!("EXPLAIN (FORMAT {format}, COSTS OFF) {SIDE}"), &[])
            .expect("explains");
        let raw: crate::ways::Raw = row.get(0);
        let text = String::from_utf8(raw.0.expect("not NULL")).expect("UTF-8");
        assert!(text.contains("revenues_partitioned"), "{format}: {text}");
    }
}
