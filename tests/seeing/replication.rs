//! Replicas, subscribers and slots: what `health`, `metrics()` and the views of figures say of them, to a monitor.

use super::common::{Cluster, Database, cluster_sh, one, run};
use super::health::{mend_of, status};
use postgres::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server of its own, whose slots and replicas are nobody else's, and a monitor of a database there.
fn world(test: &str, settings: &[&str]) -> (Arc<Cluster>, Database, Client) {
    let cluster = Arc::new(Cluster::start(settings));
    let database = Database::on(Arc::clone(&cluster), test);
    run(
        &mut database.connect(),
        &[
            "CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
            "CREATE TABLE t (id int PRIMARY KEY)",
        ],
    );
    let watcher = database.connect_as("watcher");
    (cluster, database, watcher)
}

fn until(client: &mut Client, query: &str) {
    let started = Instant::now();
    while !one::<bool>(client, query) {
        assert!(started.elapsed() < Duration::from_secs(60), "never so: {query}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_slot_that_nobody_reads_is_told_before_the_disk_is_full() {
    let (_cluster, database, mut watcher) = world("slots", &["wal_level=logical"]);
    let (w, mut client) = (&mut watcher, database.connect());
    let (found, message) = status(w, "replication_slots");
    assert_eq!(
        (found.as_str(), message.as_str()),
        ("ok", "there is no replication slot")
    );
    run(
        &mut client,
        &[
            "SELECT pg_create_physical_replication_slot('unread', true)",
            "SELECT pg_create_logical_replication_slot('subscriber', 'pgoutput')",
            "INSERT INTO t SELECT generate_series(1, 40000)",
        ],
    );
    // 1 GB is allowed by default.
    assert_eq!(status(w, "replication_slots").0, "ok");
    run(w, &["SET partition_router.max_slot_wal = '1 MB'"]);
    let told = "SELECT string_agg(concat_ws(' ', status, split_part(message, ' keeps', 1), message ~ 'keeps [0-9]+ MB of log',
                    message ~ 'nobody reads it', mend), ', ' ORDER BY message)
                FROM partition_router.health WHERE \"check\" = 'replication_slots'";
    assert_eq!(
        one::<String>(w, told),
        "warn slot subscriber t t, warn slot unread t t"
    );
    let figures = "SELECT string_agg(concat_ws(' ', slot, kind, is_active, is_lost, wal_status, kept_bytes > 1000000, lag_bytes > 1000000),
                       ', ' ORDER BY slot) FROM partition_router.slot_metrics";
    assert_eq!(
        one::<String>(w, figures),
        "subscriber logical f f reserved t t, unread physical f f reserved t t"
    );
    assert_eq!(
        one::<String>(
            w,
            "SELECT string_agg(concat_ws(' ', s ->> 'name', s ->> 'kind', s ->> 'active', s ->> 'walStatus',
                 (s ->> 'keptBytes')::bigint > 1000000), ', ' ORDER BY s ->> 'name')
             FROM jsonb_array_elements(partition_router.metrics() #> '{replication,slots}') s"
        ),
        "subscriber logical false reserved t, unread physical false reserved t"
    );
    for family in ["kept_bytes", "lag_bytes"] {
        let sample = format!(
            "SELECT partition_router.openmetrics() ~ 'partition_router_slot_{family}\\{{slot=\"unread\",kind=\"physical\"\\}} [1-9]'"
        );
        assert!(one::<bool>(w, &sample), "{family}");
    }
    run(
        &mut client,
        &[
            "SELECT pg_drop_replication_slot('unread')",
            "SELECT pg_drop_replication_slot('subscriber')",
        ],
    );
    assert_eq!(status(w, "replication_slots").0, "ok");
}

#[test]
fn a_slot_that_has_lost_its_log_fails_until_it_is_dropped() {
    let (_cluster, database, mut watcher) =
        world("lost", &["max_slot_wal_keep_size=1MB", "min_wal_size=32MB"]);
    let (w, mut client) = (&mut watcher, database.connect());
    run(
        &mut client,
        &["SELECT pg_create_physical_replication_slot('left', true)"],
    );
    assert_eq!(status(w, "replication_slots").0, "ok");
    for _ in 0..4 {
        run(
            &mut client,
            &[
                "INSERT INTO t SELECT COALESCE(max(id), 0) + 1 FROM t",
                "SELECT pg_switch_wal()",
                "CHECKPOINT",
            ],
        );
    }
    let (found, message) = status(w, "replication_slots");
    assert_eq!(found, "fail", "{message}");
    assert!(message.starts_with("slot left is lost"), "{message}");
    assert!(one::<bool>(
        w,
        "SELECT is_lost FROM partition_router.slot_metrics"
    ));
    assert!(one::<bool>(
        w,
        "SELECT partition_router.openmetrics() LIKE '%partition_router_slot_lost{slot=\"left\",kind=\"physical\"} 1.0%'"
    ));
    let mend = mend_of(w, "replication_slots");
    run(&mut client, &[&mend]);
    assert_eq!(status(w, "replication_slots").0, "ok");
}

#[test]
fn a_subscriber_is_a_replica_of_its_own_kind() {
    let (cluster, database, mut watcher) = world("subscribed", &["wal_level=logical"]);
    let (w, mut client) = (&mut watcher, database.connect());
    let subscriber = Cluster::start(&[]);
    let mut there = subscriber.connect("postgres");
    run(&mut client, &["CREATE PUBLICATION p FOR TABLE t"]);
    run(
        &mut there,
        &[
            "CREATE TABLE t (id int PRIMARY KEY)",
            &format!(
                "CREATE SUBSCRIPTION follower CONNECTION '{}' PUBLICATION p",
                cluster.conninfo(&database.name)
            ),
        ],
    );
    let standby = cluster.standby(&[]);
    run(&mut client, &["INSERT INTO t VALUES (1)"]);
    until(
        w,
        "SELECT COALESCE(string_agg(concat_ws(' ', replica, kind), ', ' ORDER BY kind), '') = 'follower logical, walreceiver physical'
         FROM partition_router.replica_metrics",
    );
    assert!(one::<bool>(
        w,
        "SELECT partition_router.openmetrics() ~ 'replica_lag_seconds\\{replica=\"follower\",kind=\"logical\"\\} [0-9]'"
    ));
    until(
        w,
        "SELECT concat_ws(' ', kind, is_active, is_lost) = 'logical t f' FROM partition_router.slot_metrics WHERE slot = 'follower'",
    );
    assert!(status(w, "replica_lag").1.starts_with("replicas: 2"));
    // Two of one name are two series.
    let other = cluster.standby(&[]);
    until(
        w,
        "SELECT count(DISTINCT replica) = 2 AND bool_and(replica ~ '^walreceiver [0-9]+$')
         FROM partition_router.replica_metrics WHERE kind = 'physical'",
    );
    drop((standby, other));
    run(&mut there, &["DROP SUBSCRIPTION follower"]);
}

#[test]
fn a_standby_says_that_its_replay_is_paused_or_that_nothing_comes() {
    // No database of a test's own: it could not be dropped when its server has stopped.
    let cluster = Cluster::start(&[]);
    run(
        &mut cluster.connect("postgres"),
        &[
            "CREATE EXTENSION partition_router",
            "CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
        ],
    );
    let standby = cluster.standby(&[]);
    let mut watcher = standby.connect_as("watcher", "postgres");
    let mut admin = standby.connect("postgres");
    let w = &mut watcher;
    let is = |wanted: &str| {
        format!("SELECT status = '{wanted}' FROM partition_router.health WHERE \"check\" = 'standby'")
    };
    until(w, &is("ok"));
    assert!(one::<bool>(
        w,
        "SELECT is_standby AND is_receiving AND NOT is_paused AND primary_server LIKE '%:5432' FROM partition_router.standby_metrics"
    ));
    run(&mut admin, &["SELECT pg_wal_replay_pause()"]);
    let (found, message) = status(w, "standby");
    assert_eq!(found, "warn", "{message}");
    assert!(one::<bool>(
        w,
        "SELECT partition_router.openmetrics() ~ 'partition_router_standby_paused[^\n]* 1.0'"
    ));
    let mend = mend_of(w, "standby");
    run(&mut admin, &[&mend]);
    until(w, &is("ok"));
    cluster_sh(&["stop", cluster.directory()]);
    until(w, &is("warn"));
    assert!(
        status(w, "standby")
            .1
            .starts_with("nothing comes from the primary")
    );
    run(w, &["SET partition_router.max_replica_lag = 0"]);
    let (found, message) = status(w, "replica_lag");
    assert_eq!(found, "warn", "{message}");
    // Promoted, it is no standby.
    run(&mut admin, &["SELECT pg_promote()"]);
    assert_eq!(
        one::<i64>(
            w,
            "SELECT count(*) FROM partition_router.health WHERE \"check\" = 'standby'"
        ),
        0
    );
    assert_eq!(status(w, "replica_lag").1, "no replica is connected");
}
