//! One throwaway server for the tests of a file (`scripts/cluster.sh`), one database a test.
#![allow(dead_code)] // each test file uses its own part

pub mod memory;

use postgres::{Client, Config, NoTls};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// A server that stops when the last test that uses it is done.
pub struct Cluster {
    directory: PathBuf,
    socket: String,
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster.sh")
}

/// Runs `scripts/cluster.sh`; gives what it prints.
pub fn cluster_sh(arguments: &[&str]) -> String {
    let output = Command::new(script())
        .args(arguments)
        .output()
        .expect("scripts/cluster.sh runs");
    assert!(
        output.status.success(),
        "cluster.sh {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cluster.sh prints UTF-8")
}

impl Cluster {
    /// Starts a server of its own, with further settings (`name=value`).
    pub fn start(settings: &[&str]) -> Cluster {
        Cluster::started("start", &[], settings)
    }

    /// A hot standby of this server.
    pub fn standby(&self, settings: &[&str]) -> Cluster {
        Cluster::started("standby", &[self.directory()], settings)
    }

    fn started(verb: &str, of: &[&str], settings: &[&str]) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("target/clusters/{}_{number}", std::process::id()));
        let path = directory.to_str().expect("the path is UTF-8").to_string();
        let mut arguments = vec![verb, path.as_str()];
        arguments.extend(of);
        for setting in settings {
            arguments.extend(["-c", setting]);
        }
        let socket = cluster_sh(&arguments)
            .lines()
            .find_map(|l| {
                l.strip_prefix("PGHOST=")
                    .map(|s| s.trim_matches('\'').to_string())
            })
            .expect("cluster.sh prints PGHOST");
        Cluster { directory, socket }
    }

    /// The server that the tests of this process share.
    pub fn shared() -> Arc<Cluster> {
        Cluster::shared_with(&[])
    }

    /// The same with settings, which are the same in all of a process.
    pub fn shared_with(settings: &[&str]) -> Arc<Cluster> {
        static SHARED: OnceLock<Mutex<Weak<Cluster>>> = OnceLock::new();
        let mut shared = SHARED
            .get_or_init(Default::default)
            .lock()
            .expect("no test panicked in here");
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Cluster::start(settings));
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    /// A session on a database.
    pub fn connect(&self, database: &str) -> Client {
        self.connect_as("postgres", database)
    }

    pub fn connect_as(&self, user: &str, database: &str) -> Client {
        self.config(user, database)
            .connect(NoTls)
            .expect("the server takes a connection")
    }

    /// How to connect, for sessions that want something special.
    pub fn config(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.host(&self.socket).user(user).dbname(database);
        config
    }

    /// How another server connects to a database of this one.
    pub fn conninfo(&self, database: &str) -> String {
        format!("host={} port=5432 user=postgres dbname={database}", self.socket)
    }

    /// The directory of the server's socket.
    pub fn socket(&self) -> &str {
        &self.socket
    }

    pub fn directory(&self) -> &str {
        self.directory.to_str().expect("the path is UTF-8")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        cluster_sh(&["destroy", self.directory()]);
    }
}

/// A database of its own for one test, with the extension.
pub struct Database {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

impl Database {
    pub fn new(test: &str) -> Database {
        Database::on(Cluster::shared(), test)
    }

    pub fn on(cluster: Arc<Cluster>, test: &str) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{test}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name: String = name
            .chars()
            .rev()
            .take(60)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        cluster
            .connect("postgres")
            .batch_execute(&format!("CREATE DATABASE \"{name}\""))
            .expect("CREATE DATABASE");
        let database = Database { cluster, name };
        database
            .connect()
            .batch_execute("CREATE EXTENSION partition_router")
            .expect("CREATE EXTENSION");
        database
    }

    pub fn connect(&self) -> Client {
        self.cluster.connect(&self.name)
    }

    pub fn connect_as(&self, user: &str) -> Client {
        self.cluster.connect_as(user, &self.name)
    }

    /// A session, and what its NOTICEs say.
    pub fn connect_hearing(&self) -> (Client, Receiver<String>) {
        self.connect_hearing_as("postgres")
    }

    pub fn connect_hearing_as(&self, user: &str) -> (Client, Receiver<String>) {
        let (sender, notices) = channel();
        let mut config = self.cluster.config(user, &self.name);
        config.notice_callback(move |notice| {
            sender
                .send(notice.message().to_string())
                .expect("the test listens")
        });
        let client = config.connect(NoTls).expect("the server takes a connection");
        (client, notices)
    }

    /// Runs a program of the server's installation, `pg_dump` say, on this server; gives what it prints.
    pub fn program(&self, name: &str, arguments: &[&str]) -> String {
        let config = std::env::var("PG_CONFIG").ok().filter(|path| !path.is_empty());
        let directory = Command::new(config.as_deref().unwrap_or("pg_config"))
            .arg("--bindir")
            .output()
            .expect("pg_config runs");
        let directory = String::from_utf8(directory.stdout).expect("a path");
        let output = Command::new(format!("{}/{name}", directory.trim()))
            .args(["-h", self.cluster.socket(), "-p", "5432", "-U", "postgres"])
            .args(arguments)
            .output()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The schema as `pg_dump` writes it: of the whole database, or what `options` choose.
    pub fn schema_dump(&self, options: &[&str]) -> String {
        let arguments = [&["--schema-only"], options, &[self.name.as_str()]].concat();
        // Newer minor versions draw a random key for these two lines.
        self.program("pg_dump", &arguments)
            .lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

/// A database with these tables, whose `revenues` is migrated by its column `at`.
pub fn migrated_revenues(name: &str, tables: &[&str]) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, tables);
    run(&mut client, &["CALL partition_router.migrate('revenues', 'at')"]);
    (database, client)
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // the server may be down; the database goes with the cluster
        }
        // A session that is still open goes with its database.
        self.cluster
            .connect("postgres")
            .batch_execute(&format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name))
            .unwrap_or_else(|error| eprintln!("database {} was not dropped: {error}", self.name));
    }
}

/// A seed that is another one each time: seconds since 1970.
pub fn clock_seed() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the clock is after 1970")
        .as_secs()
}

/// Whether the long way was asked for (`make stress`).
pub fn is_stress() -> bool {
    std::env::var("PARTITION_ROUTER_STRESS").is_ok_and(|s| s == "full")
}

/// Runs statements one by one: a procedure that commits cannot run among others.
pub fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client
            .batch_execute(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

/// Ends a `statement_timeout`, which holds for the statement that ends it as for any.
pub fn end_statement_timeout(client: &mut Client) {
    while let Err(error) = client.batch_execute("RESET statement_timeout") {
        let code = error.as_db_error().map(|e| e.code().code());
        assert_eq!(code, Some("57014"), "{error:?}");
    }
}

/// Changes one side of a pair only: what a session could do that switches its triggers off.
pub fn plant(client: &mut Client, table: &str, statements: &[&str]) {
    run(
        client,
        &[
            "SET partition_router.carry_ddl = off",
            &format!("ALTER TABLE {table} DISABLE TRIGGER USER"),
        ],
    );
    run(client, statements);
    let enable: String = one(
        client,
        &format!(
            "SELECT string_agg(format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', tgrelid::regclass, tgname), ';')
             FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND NOT tgisinternal"
        ),
    );
    run(client, &[&enable, "RESET partition_router.carry_ddl"]);
}

/// Lets no file that a backend writes grow beyond so many bytes: what a full disk does to files. Asked for by the server's user,
/// to whom the backend belongs. Or `unlimited`.
pub fn limit_files(client: &mut Client, backend: i32, bytes: &str) {
    let program = format!("prlimit --pid {backend} --fsize={bytes}:");
    run(client, &[&format!("COPY (SELECT) TO PROGRAM '{program}'")]);
}

/// The only value of a query.
pub fn one<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, query: &str) -> T {
    client
        .query_one(query, &[])
        .unwrap_or_else(|e| panic!("{query}: {e:?}"))
        .get(0)
}

/// The first column of a query's rows.
pub fn texts(client: &mut Client, query: &str) -> Vec<String> {
    client
        .query(query, &[])
        .unwrap_or_else(|e| panic!("{query}: {e:?}"))
        .into_iter()
        .map(|row| row.get(0))
        .collect()
}

/// The SQLSTATE with which a statement fails.
pub fn sqlstate(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).expect_err(statement);
    error
        .as_db_error()
        .unwrap_or_else(|| panic!("{statement}: {error}"))
        .code()
        .code()
        .to_string()
}

/// Asserts that both sides of a pair hold the same rows, by the extension and by plain SQL.
pub fn assert_equal_sides(client: &mut Client, legacy: &str, twin: &str, columns: &str) {
    let different: i64 = one(
        client,
        &format!(
            "SELECT count(*) FROM (
                (SELECT {columns} FROM {legacy} EXCEPT ALL SELECT {columns} FROM {twin})
                UNION ALL
                (SELECT {columns} FROM {twin} EXCEPT ALL SELECT {columns} FROM {legacy})) d"
        ),
    );
    assert_eq!(different, 0, "{legacy} and {twin} differ");
    let all_match: bool = one(
        client,
        &format!("SELECT bool_and(matches) FROM partition_router.verify('{legacy}', 'rows')"),
    );
    assert!(all_match, "verify found a difference between {legacy} and {twin}");
}
