//! PgBouncer in transaction mode: one server session serves transactions of different tenants, and nothing of one reaches
//! the next.

use crate::common::{Database, is_stress, one, run};
use crate::marked::marked;
use postgres::{Client, NoTls, SimpleQueryMessage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A pooler on a port of the loopback, with fewer server sessions than clients.
pub struct Pooler {
    process: Child,
    port: u16,
    directory: PathBuf,
}

pub const SERVER_SESSIONS: usize = 3;
const CLIENTS: u64 = 8;

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim() == "0"
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

impl Pooler {
    pub fn start(database: &Database) -> Pooler {
        let port = free_port();
        let directory =
            std::env::temp_dir().join(format!("partition_router_pooler.{}_{port}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory for the pooler");
        let file = |name: &str| {
            directory
                .join(name)
                .to_str()
                .expect("the path is UTF-8")
                .to_string()
        };
        let settings = format!(
            "[databases]\n{} = host={} port=5432 user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {SERVER_SESSIONS}\n\
             max_client_conn = 50\nlogfile = {}\nlog_connections = 0\nlog_disconnections = 0\nignore_startup_parameters = extra_float_digits\n",
            database.name,
            database.cluster.socket(),
            file("log"),
        );
        std::fs::write(file("ini"), settings).expect("the pooler's settings are written");
        let mut command = if is_root() {
            // It refuses to run as root: as the servers, it runs as postgres.
            let owned = Command::new("chown")
                .args(["-R", "postgres:", &file("")])
                .status();
            assert!(owned.expect("chown runs").success());
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "pgbouncer"]);
            command
        } else {
            Command::new("pgbouncer")
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let process = command
            // Debian has it where only root looks.
            .env("PATH", format!("{path}:/usr/sbin"))
            .arg(file("ini"))
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer runs: scripts/setup.sh test installs it");
        Pooler {
            process,
            port,
            directory,
        }
    }

    pub fn connect(&mut self, database: &str) -> Client {
        let started = Instant::now();
        loop {
            let client = postgres::Config::new()
                .host("127.0.0.1")
                .port(self.port)
                .user("postgres")
                .dbname(database)
                .connect(NoTls);
            match client {
                Ok(client) => return client,
                Err(error) => {
                    let ended = self.process.try_wait().expect("its state can be asked for");
                    assert!(
                        ended.is_none() && started.elapsed() < Duration::from_secs(30),
                        "{error:?}: {:?}",
                        std::fs::read_to_string(self.directory.join("log"))
                    );
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// A statement by psql, which says SQLSTATEs.
    pub fn psql(&self, database: &str, statement: &str) -> Child {
        Command::new("psql")
            .args([
                "-X",
                "-v",
                "VERBOSITY=verbose",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-c",
                statement,
            ])
            .args(["-p", &self.port.to_string(), "-d", database])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql runs")
    }
}

/// Whether it was still there.
pub fn signal(signal: &str, process: &Child) -> bool {
    let pid = process.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status();
    sent.is_ok_and(|status| status.success())
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // runuser passes the signal on to the pooler, which ends at once.
        if signal("-TERM", &self.process) {
            self.process.wait().ok();
        }
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    std::fs::remove_dir_all(directory).unwrap_or_else(|e| eprintln!("{directory:?} is left: {e}"));
}

/// What a transaction sees: the tenant, the side that it reads by setting, and by an equality with `org-1` and `org-2`.
const LOOK: &str = "SELECT current_setting('partition_router.tenant') AS tenant,
    (SELECT side FROM revenues WHERE id = 0) AS side,
    current_setting('partition_router.use_partitioned_tables') AS switch, pg_backend_pid()::text AS pid";

/// One transaction; gives the answers to [`LOOK`], one after the other.
fn transaction(client: &mut Client, statements: &str) -> Vec<[String; 4]> {
    let messages = client
        .simple_query(statements)
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) if row.len() == 4 => {
                Some([0, 1, 2, 3].map(|n| row.get(n).unwrap_or("NULL").to_string()))
            }
            _ => None,
        })
        .collect()
}

/// So many transactions of one client. Gives what was wrong.
fn tenants(client: &mut Client, seed: u64, number: u64, twin: &AtomicU64) -> Result<(), String> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let side_of = |tenant: u32| {
        if tenant.is_multiple_of(3) {
            "twin"
        } else {
            "legacy"
        }
    };
    let expect = |what: &str, found: &[[String; 4]], wanted: [&str; 3]| {
        let wrong = found.iter().find(|row| row[..3] != wanted);
        match wrong {
            _ if found.is_empty() => Err(format!("{what}: no answer")),
            Some(row) => Err(format!("{what}: {row:?}, not {wanted:?}")),
            None => {
                if wanted[1] == "twin" {
                    twin.fetch_add(found.len() as u64, Ordering::Relaxed);
                }
                Ok(())
            }
        }
    };
    for _ in 0..number {
        let tenant = random.random_range(0..60);
        let name = format!("tenant {tenant}");
        let set = format!("SET LOCAL partition_router.tenant = '{name}'");
        match random.random_range(0..10) {
            0..4 => {
                let found = transaction(client, &format!("BEGIN; {set}; {LOOK}; {LOOK}; COMMIT"));
                expect("SET LOCAL", &found, [&name, side_of(tenant), "off"])?;
            }
            4 | 5 => {
                let found = transaction(client, LOOK);
                expect("no tenant", &found, ["", "legacy", "off"])?;
            }
            6 => {
                let found = transaction(client, &format!("BEGIN; {set}; {LOOK}; ROLLBACK"));
                expect("rolled back", &found, [&name, side_of(tenant), "off"])?;
            }
            7 => {
                // The statement fails, and the transaction with it.
                let failed = client.simple_query(&format!("BEGIN; {set}; {LOOK}; SELECT 1 / 0"));
                if failed.is_ok() {
                    return Err("a division by zero succeeded".into());
                }
                client.batch_execute("ROLLBACK").map_err(|e| e.to_string())?;
            }
            8 => {
                let switch = "SET LOCAL partition_router.use_partitioned_tables = on";
                let found = transaction(client, &format!("BEGIN; {switch}; {LOOK}; COMMIT"));
                expect("switch", &found, ["", "twin", "on"])?;
            }
            _ => {
                // Tenants by turns in the transactions of one session, as the pooler sees fit.
                let two = format!(
                    "BEGIN; {set}; {LOOK}; COMMIT; BEGIN; SET LOCAL partition_router.tenant = 'tenant 0'; COMMIT"
                );
                expect(
                    "by turns",
                    &transaction(client, &two),
                    [&name, side_of(tenant), "off"],
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn behind_a_pooler_no_tenant_and_no_route_leaks_into_the_next_transaction() {
    let number = if is_stress() { 100_000 } else { 2_000 };
    let seed = crate::seed("pooler");
    let (database, mut owner) = marked("pooler");
    run(
        &mut owner,
        &[
            &format!(
                "ALTER DATABASE \"{}\" SET partition_router.transparent = on",
                database.name
            ),
            "SELECT partition_router.set_rollout('revenues', 0,
                 (SELECT array_agg('tenant ' || t) FROM generate_series(0, 59, 3) t))",
        ],
    );
    let mut pooler = Pooler::start(&database);
    let clients: Vec<_> = (0..CLIENTS).map(|_| pooler.connect(&database.name)).collect();
    let twin = AtomicU64::new(0);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(n, mut client)| {
                let twin = &twin;
                scope.spawn(move || tenants(&mut client, seed + n as u64, number / CLIENTS, twin).err())
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|t| t.join().expect("the client's thread ends"))
            .collect()
    });
    let sessions: i64 = one(
        &mut owner,
        &format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
            database.name
        ),
    );
    let twin = twin.into_inner();
    println!(
        "pooler: {number} transactions of {CLIENTS} clients in {sessions} server sessions, {twin} answers from the twin"
    );
    assert!(failures.is_empty(), "seed {seed}: {failures:?}");
    assert!(sessions <= SERVER_SESSIONS as i64, "{sessions} server sessions");
    assert!(twin * 5 > number, "only {twin} answers from the twin");
}
