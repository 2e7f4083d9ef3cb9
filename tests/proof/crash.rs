//! What a proof remembers outlives no crash that its evidence does not outlive.

use crate::common::{Cluster, cluster_sh, is_stress, one, plant, run};
use crate::{live_on, told, truth};
use postgres::{Client, NoTls};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// A server whose commits are not on disk when they return, and with checkpoints that a test makes itself.
fn careless() -> Arc<Cluster> {
    Arc::new(Cluster::start(&[
        "synchronous_commit=off",
        "wal_writer_delay=10s",
        "autovacuum=off",
    ]))
}

fn again(cluster: &Cluster, how: &str) {
    cluster_sh(&[how, cluster.directory()]);
    if how != "restart" {
        cluster_sh(&["start", cluster.directory()]);
    }
}

fn assert_told_is_true(client: &mut Client, what: &str) {
    let equal = truth(client);
    for time in 0..2 {
        assert_eq!(told(client), equal, "{what}, asked {time}");
    }
}

#[test]
fn a_write_right_before_a_crash_is_looked_at_after_it() {
    let cluster = careless();
    let (database, mut client) = live_on(cluster.clone(), "crash");
    let leaf: String = one(
        &mut client,
        "SELECT tableoid::regclass::text FROM t_partitioned WHERE id = 1",
    );
    let seed = crate::common::clock_seed();
    println!("crash: seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let rounds = if is_stress() { 40 } else { 4 };
    let mut differed = 0;
    for round in 0..rounds {
        let c = &mut client;
        run(c, &["SELECT partition_router.repair('t')"]);
        if random.random_bool(0.5) {
            run(c, &["VACUUM (FREEZE) t", "VACUUM (FREEZE) t_partitioned"]);
        }
        for _ in 0..2 {
            assert!(told(c), "round {round}");
        }
        match random.random_range(0..3) {
            0 => run(c, &["CHECKPOINT"]),
            // The commit of the proof is on disk, and what comes now need not be.
            1 => run(
                c,
                &[
                    "SET synchronous_commit = on",
                    "SELECT partition_router.verify('t')",
                    "SET synchronous_commit = off",
                ],
            ),
            _ => {}
        }
        let id = random.random_range(1..1000);
        let write = match random.random_range(0..5) {
            0 => format!("UPDATE {leaf} SET n = -{round} WHERE id = (SELECT max(id) FROM {leaf})"),
            1 => format!(
                "INSERT INTO {leaf} (id, at) VALUES ({}, '2026-01-07')",
                10_000 + round
            ),
            2 => format!("DELETE FROM {leaf} WHERE id = (SELECT min(id) FROM {leaf})"),
            3 => format!("UPDATE {leaf} SET v = v || '{round}'"),
            _ => format!("DELETE FROM {leaf} WHERE id <> {id}"),
        };
        let synchronous = if random.random_bool(0.7) { "on" } else { "off" };
        run(
            c,
            &[
                "SET partition_router.carry_ddl = off",
                &format!("ALTER TABLE {leaf} DISABLE TRIGGER USER"),
                &format!("SET synchronous_commit = {synchronous}"),
                &write,
            ],
        );
        // Sometimes the proof has seen it, sometimes a checkpoint has, sometimes nobody.
        match random.random_range(0..4) {
            0 => assert!(!told(c), "round {round}: {write}"),
            1 => run(c, &["CHECKPOINT"]),
            _ => {}
        }
        let how = ["crash", "kill", "crash", "restart"][random.random_range(0..4)];
        again(&cluster, how);
        client = database.connect();
        let c = &mut client;
        differed += i64::from(!truth(c));
        assert_told_is_true(
            c,
            &format!("round {round}: {write}, synchronous_commit {synchronous}, {how}"),
        );
        plant(c, &leaf, &[]);
    }
    assert!(!is_stress() || differed > 0, "no write outlived its crash");
}

#[test]
fn a_crash_during_a_proof_leaves_nothing_that_vouches() {
    let cluster = careless();
    let (database, mut client) = live_on(cluster.clone(), "crash_during");
    run(&mut client, &["SET synchronous_commit = on"]);
    plant(&mut client, "t", &["UPDATE t SET n = -1 WHERE id = 5"]);
    run(&mut client, &["BEGIN", "SELECT partition_router.repair('t')"]);
    assert!(told(&mut client), "in its own transaction all is equal");
    again(&cluster, "crash");
    let mut client = database.connect();
    assert!(!truth(&mut client));
    assert!(
        !told(&mut client),
        "neither the repair nor its proof was committed"
    );
}

/// A copy of a server's files, with a server of its own.
struct Copy {
    data: PathBuf,
    bin: PathBuf,
}

impl Copy {
    /// `pg_basebackup` of a running server; with `standby` it goes on following it.
    fn of(cluster: &Cluster, name: &str, standby: bool) -> Copy {
        let place = std::fs::read_to_string(format!("{}/where", cluster.directory()))
            .expect("the cluster has a place");
        let place = PathBuf::from(place.trim());
        let config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
        let bin = Command::new(config)
            .arg("--bindir")
            .output()
            .expect("pg_config runs");
        let bin = PathBuf::from(String::from_utf8_lossy(&bin.stdout).trim());
        // Beside the server's own files, where its user may write.
        let copy = Copy {
            data: place.join("data").join(format!("pg_copy_{name}")),
            bin,
        };
        let (data, socket) = (copy.data.display().to_string(), cluster.socket().to_string());
        let mut arguments = vec![
            "-D", &data, "-h", &socket, "-U", "postgres", "-c", "fast", "-X", "stream",
        ];
        if standby {
            arguments.push("-R");
        }
        copy.run("pg_basebackup", &arguments);
        copy
    }

    /// Runs a program of the server as the server's user.
    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // A server that was started keeps what it inherits: not the pipes of this process.
        let status = command
            .args(arguments)
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .expect("the program is there");
        assert!(status.success(), "{arguments:?}");
    }

    /// Starts it; the port tells it from the server that it was copied from.
    fn start(&self) {
        let (data, log) = (
            self.data.display().to_string(),
            self.data.join("log").display().to_string(),
        );
        self.run(
            "pg_ctl",
            &["-D", &data, "-l", &log, "-w", "-o", "-c port=5433", "start"],
        );
    }

    fn connect(&self, cluster: &Cluster, database: &str) -> Client {
        let mut config = cluster.config("postgres", database);
        config
            .port(5433)
            .connect(NoTls)
            .expect("the copy takes a connection")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            let data = self.data.display().to_string();
            self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
        }
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

#[test]
fn a_standby_and_the_server_that_it_becomes_tell_the_truth() {
    let cluster = Arc::new(Cluster::start(&["autovacuum=off"]));
    let (database, mut client) = live_on(cluster.clone(), "promoted");
    let c = &mut client;
    run(c, &["VACUUM (FREEZE) t", "VACUUM (FREEZE) t_partitioned"]);
    for _ in 0..2 {
        assert!(told(c));
    }
    let copy = Copy::of(&cluster, "standby", true);
    copy.start();
    let mut standby = copy.connect(&cluster, &database.name);
    assert!(told(&mut standby), "a standby can look");
    // A fault that the primary proves false; the standby has it when it has been sent.
    plant(c, "t", &["UPDATE t SET n = -1 WHERE id = 5"]);
    let sent: String = one(c, "SELECT pg_current_wal_lsn()::text");
    crate::until(
        &mut standby,
        &format!("SELECT pg_last_wal_replay_lsn() >= '{sent}'::pg_lsn"),
    );
    assert!(!told(&mut standby), "the standby has the fault too");
    run(c, &["SELECT partition_router.repair('t')"]);
    for _ in 0..2 {
        assert!(told(c));
    }
    let sent: String = one(c, "SELECT pg_current_wal_lsn()::text");
    crate::until(
        &mut standby,
        &format!("SELECT pg_last_wal_replay_lsn() >= '{sent}'::pg_lsn"),
    );
    assert!(told(&mut standby));
    run(&mut standby, &["SELECT pg_promote()"]);
    crate::until(&mut standby, "SELECT NOT pg_is_in_recovery()");
    assert_told_is_true(&mut standby, "promoted");
    plant(
        &mut standby,
        "t_partitioned",
        &["DELETE FROM t_partitioned WHERE id = 6"],
    );
    assert!(!told(&mut standby));
    run(&mut standby, &["SELECT partition_router.repair('t')"]);
    assert_told_is_true(&mut standby, "repaired");
    // The old server goes on by itself.
    plant(c, "t", &["DELETE FROM t WHERE id = 7"]);
    assert!(!told(c));
}

#[test]
fn a_server_restored_from_a_base_backup_tells_the_truth() {
    let cluster = Arc::new(Cluster::start(&["autovacuum=off"]));
    let (database, mut client) = live_on(cluster.clone(), "restored");
    for (name, fault) in [
        ("equal", None),
        ("unequal", Some("UPDATE t SET n = -1 WHERE id = 5")),
    ] {
        for _ in 0..2 {
            assert!(told(&mut client));
        }
        if let Some(fault) = fault {
            plant(&mut client, "t", &[fault]);
        }
        let copy = Copy::of(&cluster, name, false);
        copy.start();
        let mut restored = copy.connect(&cluster, &database.name);
        assert_eq!(truth(&mut restored), fault.is_none(), "{name}");
        assert_told_is_true(&mut restored, name);
        plant(
            &mut restored,
            "t_partitioned",
            &["DELETE FROM t_partitioned WHERE id = 6"],
        );
        assert!(!told(&mut restored), "{name}: a fault of its own");
    }
}
