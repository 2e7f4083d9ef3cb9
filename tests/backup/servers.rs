//! Whole servers: a base backup that is promoted, and `pg_upgrade`.

use super::common::{Cluster, Database, cluster_sh, one, run};
use super::{assert_goes_on, assert_healthy, facts, world};
use std::process::{Command, Stdio};
use std::sync::Arc;

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
