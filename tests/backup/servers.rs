//! Whole servers: a base backup that is promoted, and `pg_upgrade`.

use super::common::{Cluster, Database, cluster_sh, one, run};
use super::{assert_goes_on, assert_healthy, facts, world};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn place(cluster: &Cluster) -> String {
    let place =
        std::fs::read_to_string(format!("{}/where", cluster.directory())).expect("the cluster has a place");
    place.trim().to_string()
}

/// Runs a program of the server as its user, where that may write.
fn as_server_user(program: &str, place: &str, arguments: &[&str]) {
    let config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
    let bin = Command::new(config)
        .arg("--bindir")
        .output()
        .expect("pg_config runs");
    let bin = String::from_utf8(bin.stdout).expect("a path").trim().to_string();
    let is_root = Command::new("id").arg("-u").output().expect("id runs").stdout == b"0\n";
    let mut command = Command::new(if is_root { "runuser" } else { "env" });
    if is_root {
        command.args(["-u", "postgres", "--"]);
    }
    let output = command
        .arg(format!("{bin}/{program}"))
        .args(["-b", &bin, "-B", &bin])
        .args(arguments)
        .current_dir(format!("{place}/data"))
        .stdin(Stdio::null())
        .output()
        .expect("the program is there");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_base_backup_and_an_upgraded_server_are_as_they_were_and_every_pair_goes_on() {
    let old = Arc::new(Cluster::start(&[]));
    let database = Database::on(old.clone(), "servers");
    let name = database.name.clone();
    let mut client = database.connect();
    world(&mut client);
    let before = facts(&mut client);
    drop(client);

    let backup = old.standby(&[]);
    run(&mut backup.connect("postgres"), &["SELECT pg_promote()"]);
    let mut client = backup.connect(&name);
    assert_eq!(facts(&mut client), before);
    assert_healthy(&mut client);
    assert_goes_on(&mut client);
    drop((client, backup));

    let new = Cluster::start(&[]);
    let system = "SELECT system_identifier FROM pg_control_system()";
    let identifier: i64 = one(&mut new.connect("postgres"), system);
    for cluster in [&*old, &new] {
        cluster_sh(&["stop", cluster.directory()]);
    }
    let (from, to) = (place(&old), place(&new));
    as_server_user(
        "pg_upgrade",
        &to,
        &[
            "-d",
            &format!("{from}/data"),
            "-D",
            &format!("{to}/data"),
            "-U",
            "postgres",
            "-s",
            "/tmp",
        ],
    );
    for cluster in [&new, &*old] {
        cluster_sh(&["start", cluster.directory()]);
    }
    let mut client = new.connect(&name);
    assert_eq!(one::<i64>(&mut client, system), identifier);
    assert_eq!(facts(&mut client), before);
    assert_healthy(&mut client);
    assert_goes_on(&mut client);
}

#[test]
fn a_standby_that_is_promoted_when_its_primary_stops_goes_on_from_there_with_its_own_worker() {
    let settings = ["shared_preload_libraries=partition_router", "shared_buffers=32MB"];
    let primary = Arc::new(Cluster::start(&settings));
    // Its database goes with the servers: it cannot be dropped where it is when the primary has stopped.
    let mut admin = primary.connect("postgres");
    run(
        &mut admin,
        &[
            "CREATE DATABASE moved",
            "CREATE ROLE janitor LOGIN",
            "ALTER DATABASE moved SET partition_router.maintenance_role = 'janitor'",
        ],
    );
    let mut client = primary.connect("moved");
    run(&mut client, &["CREATE EXTENSION partition_router"]);
    let standby = primary.standby(&[]);
    // Everything is made while it follows, the copy's half way as well.
    world(&mut client);
    run(
        &mut client,
        &[
            "CREATE TABLE swept (at date NOT NULL) PARTITION BY RANGE (at)",
            "ALTER TABLE swept OWNER TO janitor",
            "GRANT CREATE ON SCHEMA public TO janitor",
            "SELECT partition_router.manage('swept', '1 month')",
            "SELECT partition_router.create_partitions('swept')",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO janitor",
            "ALTER DATABASE moved SET partition_router.maintenance_interval = '1s'",
        ],
    );
    let sides = |facts: Vec<String>| {
        let steady = |fact: &String| !fact.contains("swept") && !fact.contains("maintenance");
        facts.into_iter().filter(steady).collect::<Vec<_>>()
    };
    let before = sides(facts(&mut client));
    drop((client, admin));
    cluster_sh(&["stop", primary.directory()]);

    let mut promoter = standby.connect("postgres");
    let runs = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'partition_router launcher'";
    assert_eq!(one::<i64>(&mut promoter, runs), 0, "no launcher on a standby");
    run(&mut promoter, &["SELECT pg_promote()"]);
    let mut client = standby.connect("moved");
    assert_eq!(sides(facts(&mut client)), before);
    // The worker makes what is due: one partition is gone.
    let newest = "SELECT (max(partition::text))::text FROM partition_router.partitions WHERE parent = 'swept'::regclass";
    let newest: String = one(&mut client, newest);
    run(&mut client, &[&format!("DROP TABLE {newest}")]);
    let started = Instant::now();
    while !one::<bool>(
        &mut client,
        &format!("SELECT to_regclass('{newest}') IS NOT NULL"),
    ) {
        assert!(started.elapsed() < Duration::from_secs(60), "no worker came");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(one::<i64>(&mut promoter, runs), 1);
    // An interval that a busy machine keeps: health says when it is not kept.
    run(
        &mut promoter,
        &["ALTER DATABASE moved SET partition_router.maintenance_interval = '1h'"],
    );
    let mut client = standby.connect("moved");
    assert_healthy(&mut client);
    assert_goes_on(&mut client);
}
