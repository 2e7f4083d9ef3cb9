//! Settings that contradict each other or the server, and what mends them.

use super::common::{Cluster, Database, cluster_sh, one, run};
use super::health::{assert_status, mend_of, status};
use super::live;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn settings_that_contradict_are_mended_for_the_next_session() {
    let (database, mut client) = live("settings");
    run(
        &mut client,
        &["SELECT partition_router.set_rollout('revenues', percent => 10)"],
    );
    let name = &database.name;
    for (setting, value, expected) in [
        ("enable_partition_maintenance", "off", "warn"),
        ("maintenance_interval", "'1h'", "fail"),
        ("enable_partition_routing", "off", "warn"),
        ("shadow_sample", "0.5", "warn"),
        ("verify_workers", "16", "warn"),
    ] {
        run(
            &mut client,
            &[&format!(
                "ALTER DATABASE \"{name}\" SET partition_router.{setting} = {value}"
            )],
        );
        let mut session = database.connect();
        // The library brings the settings with it.
        run(&mut session, &["LOAD 'partition_router'"]);
        let (found, message) = status(&mut session, "settings");
        assert_eq!(
            (
                found.as_str(),
                message.contains(setting) || setting == "verify_workers"
            ),
            (expected, true),
            "{message}"
        );
        let mend = mend_of(&mut session, "settings");
        // Each of its statements is one of its own.
        mend.split("; ")
            .for_each(|statement| run(&mut session, &[statement]));
        let mut session = database.connect();
        run(&mut session, &["LOAD 'partition_router'"]);
        assert_status(&mut session, "settings", "ok");
    }
}

#[test]
fn plain_sql_that_no_session_routes_is_told() {
    let (database, mut client) = live("transparent");
    let name = &database.name;
    run(
        &mut client,
        &[&format!(
            "ALTER DATABASE \"{name}\" SET partition_router.transparent = on"
        )],
    );
    let mut session = database.connect();
    run(&mut session, &["LOAD 'partition_router'"]);
    let (found, message) = status(&mut session, "settings");
    assert_eq!(found, "warn", "{message}");
    let mend = mend_of(&mut session, "settings");
    run(&mut session, &[&mend]);
    assert_status(&mut database.connect(), "settings", "ok");
}

#[test]
fn the_mend_that_preloads_the_library_keeps_the_others() {
    let cluster = Arc::new(Cluster::start(&["session_preload_libraries=auto_explain"]));
    let database = Database::on(Arc::clone(&cluster), "preloaded");
    let name = &database.name;
    let role = format!("r_{name}");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            &format!("ALTER DATABASE \"{name}\" SET partition_router.transparent = on"),
            &format!("CREATE ROLE {role} SUPERUSER LOGIN"),
        ],
    );
    let mended = |role: &str, expected: &str| {
        let mut session = database.connect_as(role);
        run(&mut session, &["LOAD 'partition_router'"]);
        assert_status(&mut session, "settings", "warn");
        let mend = mend_of(&mut session, "settings");
        run(&mut session, &[&mend]);
        let mut session = database.connect_as(role);
        assert_status(&mut session, "settings", "ok");
        assert_eq!(
            one::<String>(&mut session, "SHOW session_preload_libraries"),
            expected
        );
    };
    // What the configuration has, what is set for the database in its place, and what is set for a role.
    mended("postgres", "auto_explain, partition_router");
    run(
        &mut client,
        &[&format!(
            "ALTER DATABASE \"{name}\" SET session_preload_libraries = '$libdir/auto_explain', 'pg_prewarm'"
        )],
    );
    mended(
        "postgres",
        "\"$libdir/auto_explain\", pg_prewarm, partition_router",
    );
    run(
        &mut client,
        &[&format!(
            "ALTER ROLE {role} SET session_preload_libraries = 'auto_explain'"
        )],
    );
    mended(&role, "auto_explain, partition_router");
    run(
        &mut client,
        &[&format!(
            "ALTER ROLE {role} IN DATABASE \"{name}\" SET session_preload_libraries = 'pg_prewarm'"
        )],
    );
    mended(&role, "pg_prewarm, partition_router");
}

#[test]
fn a_worker_that_does_not_run_is_told_until_the_library_is_preloaded() {
    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect("postgres");
    run(
        &mut client,
        &[
            "CREATE EXTENSION partition_router",
            "CREATE ROLE keeper LOGIN",
            "ALTER DATABASE postgres SET partition_router.maintenance_role = 'keeper'",
            "ALTER DATABASE postgres SET partition_router.maintenance_interval = '1h'",
        ],
    );
    let mut client = cluster.connect("postgres");
    run(&mut client, &["LOAD 'partition_router'"]);
    assert_status(&mut client, "worker", "fail");
    let mend = mend_of(&mut client, "worker");
    run(&mut client, &[&mend]);
    drop(client);
    cluster_sh(&["restart", cluster.directory()]);
    let mut client = cluster.connect("postgres");
    let started = Instant::now();
    while status(&mut client, "worker").0 != "ok" {
        assert!(started.elapsed() < Duration::from_secs(60), "no launcher");
        std::thread::yield_now();
    }
}
