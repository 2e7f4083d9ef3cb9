//! sqlsmith: random statements of everything that the server has, against routed pairs. No crash, and no internal error
//! that the same statement does not give unrouted.

use crate::common::{Cluster, Database, is_stress, one, run};
use crate::ways::{Answer, rows_of};
use crate::world::world_on;
use postgres::Client;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

const ROLE: &str = "DO $$BEGIN IF to_regrole('smith') IS NULL THEN CREATE ROLE smith LOGIN; END IF; END$$";

/// sqlsmith takes the pseudo-types that it does not know for types that a value can have (`anyrange`, `anymultirange`, those of
/// PostgreSQL 14 and later), and two statements of three did not get past the parser. So it is shown a server without what takes
/// or gives such a type. Functions are looked for through the `search_path`, operators in `pg_catalog`.
const KNOWN_TYPES: &[&str] = &[
    "CREATE SCHEMA shown",
    "CREATE VIEW shown.pg_proc AS SELECT * FROM pg_catalog.pg_proc p
     WHERE has_function_privilege('smith', p.oid, 'EXECUTE') AND NOT EXISTS (
         SELECT FROM pg_catalog.pg_type t WHERE (t.oid = p.prorettype OR t.oid = ANY (p.proargtypes))
         AND (t.typname ~ '^any.*(range|compatible|enum)' OR t.typname IN ('cstring', 'internal', 'any')))",
    "DELETE FROM pg_catalog.pg_operator o USING pg_catalog.pg_type t
     WHERE t.oid IN (o.oprleft, o.oprright, o.oprresult)
     AND (t.typname ~ '^any.*(range|compatible|enum)' OR t.typname = 'cstring')",
    "GRANT USAGE ON SCHEMA shown TO smith",
    "GRANT SELECT ON shown.pg_proc TO smith",
    "ALTER ROLE smith SET search_path = shown, pg_catalog, public",
];

/// What a statement that fails left in the server's log.
struct Failed {
    code: String,
    message: String,
    statement: String,
}

/// The server's log, read and emptied piece by piece.
struct Log {
    directory: PathBuf,
}

impl Log {
    fn take(&self) -> Vec<Failed> {
        let mut found = vec![];
        for entry in std::fs::read_dir(&self.directory).expect("the log's directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = std::fs::read(&path).expect("the log is readable");
            for line in String::from_utf8_lossy(&text).lines() {
                let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
                    continue; // the last line may be half written
                };
                let field = |name: &str| line[name].as_str().unwrap_or_default().to_string();
                found.push(Failed {
                    code: field("state_code"),
                    message: field("message"),
                    statement: field("statement"),
                });
            }
            // The server appends: what is read is not needed any more.
            std::fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(0))
                .expect("the log is emptied");
        }
        found
    }
}

/// How many readings of legacies were decided for their twins.
fn routed(client: &mut Client) -> i64 {
    one(
        client,
        "SELECT COALESCE(sum(s.decisions), 0)::bigint FROM partition_router.routing_stats s
         JOIN partition_router.pair p ON s.target = p.twin",
    )
}

/// Lets sqlsmith run so many statements.
fn forge(database: &Database, seed: u64, number: u64) {
    let target = format!(
        "host={} port=5432 user=smith dbname={}",
        database.cluster.socket(),
        database.name
    );
    let output = Command::new("sqlsmith")
        .args([
            &format!("--target={target}"),
            "--exclude-catalog",
            &format!("--max-queries={number}"),
            &format!("--seed={seed}"),
        ])
        .stdout(Stdio::null())
        .output()
        .expect("sqlsmith runs: scripts/setup.sh test installs it");
    assert!(
        output.status.success(),
        "sqlsmith, seed {seed}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn sqlsmith_finds_no_crash_and_no_internal_error() {
    let number = if is_stress() { 100_000 } else { 200 };
    let seed = crate::seed("sqlsmith") % 1_000_000;
    let server = Arc::new(Cluster::start(&[
        "session_preload_libraries=partition_router",
        "logging_collector=on",
        "log_destination=jsonlog",
        "log_rotation_age=0",
        "log_rotation_size=0",
        "shared_buffers=64MB",
    ]));
    let database = world_on(server, "smith");
    let place = std::fs::read_to_string(format!("{}/where", database.cluster.directory()))
        .expect("the cluster's place");
    let log = Log {
        directory: PathBuf::from(place.trim()).join("data/log"),
    };
    let mut owner = database.connect();
    run(
        &mut owner,
        &[
            ROLE,
            // It takes what it has rights on: not the twins and their partitions, so that pairs come often.
            "GRANT SELECT ON orgs, members, v_revenues, v_barrier, v_invoker, v_joined, v_totals, v_rows TO smith",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON revenues, stays, events, ledger TO smith",
            "GRANT pg_read_all_stats, gen_reader TO smith",
            "ALTER ROLE smith SET partition_router.transparent = on",
            "ALTER ROLE smith SET partition_router.use_partitioned_tables = on",
        ],
    );
    run(&mut owner, KNOWN_TYPES);
    let started: String = one(&mut owner, "SELECT pg_postmaster_start_time()::text");
    log.take();
    let before = routed(&mut owner);
    let (mut internal, mut of_server) = (vec![], 0);
    let mut failed = BTreeMap::<String, u64>::new();
    let piece = 5_000.min(number);
    for n in 0..number / piece {
        forge(&database, seed + n, piece);
        let mut smith = database.connect_as("smith");
        for line in log.take() {
            assert!(
                !line.message.contains("terminated by signal"),
                "seed {}: {}",
                seed + n,
                line.message
            );
            if !line.statement.is_empty() {
                *failed.entry(line.code.clone()).or_default() += 1;
            }
            if !line.code.starts_with("XX") {
                continue;
            }
            run(
                &mut smith,
                &[
                    "SET partition_router.transparent = off",
                    "SET statement_timeout = '5s'",
                    "BEGIN",
                ],
            );
            // A random sample may have no row that meets the error.
            let of_the_server = (0..20).any(|_| {
                run(&mut smith, &["SAVEPOINT s"]);
                let unrouted = rows_of(&mut smith, &line.statement);
                run(&mut smith, &["ROLLBACK TO s"]);
                matches!(&unrouted, Answer::Error(code) if code.starts_with("XX"))
            });
            run(&mut smith, &["ROLLBACK"]);
            if of_the_server {
                of_server += 1;
            } else {
                internal.push(format!(
                    "seed {}: {} {}: {}",
                    seed + n,
                    line.code,
                    line.message,
                    line.statement
                ));
            }
        }
    }
    let decided = routed(&mut owner) - before;
    let failures = failed.values().sum::<u64>();
    println!(
        "sqlsmith: {number} statements, {failures} failed, {of_server} with an internal error of the server's own, {} of ours; {decided} readings of twins",
        internal.len()
    );
    println!("sqlsmith: failed with {failed:?}");
    assert!(internal.is_empty(), "{}", internal.join("\n\n"));
    assert_eq!(
        one::<String>(&mut owner, "SELECT pg_postmaster_start_time()::text"),
        started
    );
    assert!(
        failures < number / 2,
        "{failures} of {number} statements failed: {failed:?}"
    );
    assert!(decided > number as i64 / 4, "only {decided} readings of twins");
}
