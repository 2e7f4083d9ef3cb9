//! Whom a step of the runbook reaches: sessions that are open already, new ones, one alone.

use crate::common::{Cluster, Database, one, run};
use crate::{Routed, SIDE};
use postgres::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits until a session has read the server's settings anew.
fn until(client: &mut Client, side: &str) {
    let started = Instant::now();
    while one::<String>(client, SIDE) != side {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it does not read the {side}"
        );
        std::thread::yield_now();
    }
}

#[test]
fn each_step_of_the_runbook_reaches_whom_the_page_says() {
    let server = Arc::new(Cluster::start(&["shared_buffers=16MB"]));
    let Routed {
        database,
        client: mut admin,
    } = Routed::on(Database::on(server, "reach"));
    run(
        &mut admin,
        &["SELECT partition_router.set_rollout('revenues', percent => 100)"],
    );
    let name = &database.name;

    // What is set for the database reaches who comes later.
    let mut early = database.connect();
    assert_eq!(one::<String>(&mut early, SIDE), "legacy");
    run(
        &mut admin,
        &[
            &format!("ALTER DATABASE \"{name}\" SET session_preload_libraries = 'partition_router'"),
            &format!("ALTER DATABASE \"{name}\" SET partition_router.transparent = on"),
        ],
    );
    assert_eq!(one::<String>(&mut early, SIDE), "legacy");
    let mut open = database.connect();
    assert_eq!(one::<String>(&mut open, SIDE), "twin");
    let prepared = open.prepare(SIDE).expect("it is prepared");
    let ask = |open: &mut Client| -> String { open.query_one(&prepared, &[]).expect("an answer").get(0) };
    assert_eq!(ask(&mut open), "twin");

    // SET is of one session.
    run(
        &mut admin,
        &["SET partition_router.enable_partition_routing = off"],
    );
    assert_eq!(one::<String>(&mut admin, SIDE), "legacy");
    assert_eq!(ask(&mut open), "twin");
    run(&mut admin, &["RESET partition_router.enable_partition_routing"]);

    // The rollout is everybody's at once, but for who has the setting, or asks for a side.
    let mut switched = database.connect();
    run(
        &mut switched,
        &["SET partition_router.use_partitioned_tables = on"],
    );
    run(
        &mut admin,
        &[
            "SELECT partition_router.set_rollout('revenues', percent => 0, pilots => '{}', excluded => '{out}')",
        ],
    );
    assert_eq!(ask(&mut open), "legacy");
    assert_eq!(one::<String>(&mut open, SIDE), "legacy");
    assert_eq!(one::<String>(&mut switched, SIDE), "twin");
    run(&mut switched, &["SET partition_router.tenant = 'out'"]);
    assert_eq!(one::<String>(&mut switched, SIDE), "legacy");
    run(&mut switched, &["RESET partition_router.tenant"]);
    let asked = "SELECT partition_router.route('revenues', use_partitioned => true)::text";
    assert_eq!(one::<String>(&mut open, asked), "revenues_partitioned");

    // The server's setting reaches every session, but for who has his own, or whose database has.
    let mut own = database.connect();
    run(
        &mut own,
        &[
            "SET partition_router.enable_partition_routing = on",
            "SET partition_router.use_partitioned_tables = on",
        ],
    );
    run(
        &mut admin,
        &[
            "SELECT partition_router.set_rollout('revenues', percent => 100)",
            "ALTER SYSTEM SET partition_router.enable_partition_routing = off",
            "SELECT pg_reload_conf()",
        ],
    );
    until(&mut open, "legacy");
    assert_eq!(ask(&mut open), "legacy");
    until(&mut switched, "legacy");
    assert_eq!(one::<String>(&mut open, asked), "revenues");
    assert_eq!(one::<String>(&mut own, SIDE), "twin");
    let mut later = database.connect();
    until(&mut later, "legacy");
    run(
        &mut admin,
        &[&format!(
            "ALTER DATABASE \"{name}\" SET partition_router.enable_partition_routing = on"
        )],
    );
    assert_eq!(one::<String>(&mut database.connect(), SIDE), "twin");
    run(
        &mut admin,
        &[
            "ALTER SYSTEM RESET partition_router.enable_partition_routing",
            "SELECT pg_reload_conf()",
        ],
    );
    until(&mut open, "twin");
    assert_eq!(ask(&mut open), "twin");
}
