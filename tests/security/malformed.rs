//! Calls whose arguments make no sense, over every function and procedure: each ends with an answer or an error that has a
//! meaning of its own, never with an internal one, and the server stays up. A slice runs in `make test`, 50,000 in `make stress`;
//! `PARTITION_ROUTER_SEED=n` runs seed n.

use crate::common::{Cluster, Database, clock_seed, is_stress, one, run};
use postgres::Client;
use rand::Rng;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

struct Function {
    name: String,
    is_procedure: bool,
    /// Name and type of each argument.
    arguments: Vec<(String, String)>,
}

/// What is asked about, of every kind that a relation can be of; `{long}` is a name of 63 bytes.
const WORLD: &[&str] = &[
    "CREATE SCHEMA o",
    "CREATE TABLE o.t (id int PRIMARY KEY, at date NOT NULL, n int, s text)",
    "INSERT INTO o.t SELECT g, date '2026-01-10' + 10 * g, g FROM generate_series(1, 12) g",
    "CREATE TABLE o.plain (id int PRIMARY KEY, at timestamptz NOT NULL, n bigint)",
    "CREATE TABLE o.\"Qu'o\"\"te; --\" (id int PRIMARY KEY, \"a't\"\"; --\" date NOT NULL)",
    "CREATE TABLE o.{long} (id int PRIMARY KEY, at date NOT NULL)",
    "CREATE TABLE o.\"größe 表 🐘\" (id int PRIMARY KEY, \"zeit 時\" date NOT NULL)",
    "CREATE TABLE o.m (at date) PARTITION BY RANGE (at)",
    "CREATE TABLE o.m_default PARTITION OF o.m DEFAULT",
    "CREATE TABLE o.m_2026_01 PARTITION OF o.m FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
    "CREATE TABLE o.h (id int PRIMARY KEY) PARTITION BY HASH (id)",
    "CREATE TABLE o.h_0 PARTITION OF o.h FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    "CREATE TABLE o.l (k text) PARTITION BY LIST (k)",
    "CREATE TABLE o.e (at date, n int) PARTITION BY RANGE ((n + 1), at)",
    "CREATE TABLE o.none ()",
    "CREATE VIEW o.v AS SELECT * FROM o.t",
    "CREATE MATERIALIZED VIEW o.kept AS SELECT 1 AS one",
    "CREATE SEQUENCE o.q",
    "CREATE TYPE o.c AS (id int, at date)",
    "CREATE UNLOGGED TABLE o.u (id int PRIMARY KEY, at date NOT NULL)",
    "CREATE TABLE o.parent (id int PRIMARY KEY, at date NOT NULL)",
    "CREATE TABLE o.child () INHERITS (o.parent)",
    "CREATE FOREIGN DATA WRAPPER nowhere",
    "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
    "CREATE FOREIGN TABLE o.f (id int, at date) SERVER nowhere",
    "CREATE EXTENSION postgres_fdw",
    "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{socket}', port '5432', dbname 'elsewhere')",
    "CREATE USER MAPPING FOR postgres SERVER elsewhere OPTIONS (user 'postgres')",
    "CREATE TABLE o.p (id bigint NOT NULL, at date NOT NULL) PARTITION BY RANGE (at)",
    "CREATE TABLE o.p_2025_01 PARTITION OF o.p FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
    "INSERT INTO o.p SELECT g, date '2025-01-01' + g FROM generate_series(1, 30) g",
    "CALL partition_router.migrate('o.t', 'at')",
    "SELECT partition_router.manage('o.m', '1 month')",
    "SELECT partition_router.manage('o.p', '1 month')",
    "SELECT partition_router.enable_change_feed('o.m', ARRAY['at'])",
    "SELECT partition_router.create_twin('o.plain', 'at')",
];

/// The place of a partition on the other server, which is another database of this one.
const ELSEWHERE: &[&str] = &[
    "CREATE SCHEMA o",
    "CREATE TABLE o.p_2025_01 (id bigint NOT NULL, at date NOT NULL, CHECK (at >= '2025-01-01' AND at < '2025-02-01'))",
];

const RELATIONS: &[&str] = &[
    "'o.t'::regclass",
    "'o.t_partitioned'::regclass",
    "'o.t_2026_02'::regclass",
    "'o.t_default'::regclass",
    "'o.t_pkey'::regclass",
    "'o.plain'::regclass",
    "'o.plain_partitioned'::regclass",
    "'o.\"Qu''o\"\"te; --\"'::regclass",
    "'o.{long}'::regclass",
    "'o.\"größe 表 🐘\"'::regclass",
    "'o.m'::regclass",
    "'o.m_default'::regclass",
    "'o.m_2026_01'::regclass",
    "'o.p'::regclass",
    "'o.p_2025_01'::regclass",
    "'o.h'::regclass",
    "'o.h_0'::regclass",
    "'o.l'::regclass",
    "'o.e'::regclass",
    "'o.none'::regclass",
    "'o.v'::regclass",
    "'o.kept'::regclass",
    "'o.q'::regclass",
    "'o.c'::regclass",
    "'o.u'::regclass",
    "'o.parent'::regclass",
    "'o.child'::regclass",
    "'o.f'::regclass",
    "'pg_temp.tmp'::regclass",
    "'pg_class'::regclass",
    "'pg_authid'::regclass",
    "'pg_database_oid_index'::regclass",
    "'information_schema.tables'::regclass",
    "'partition_router.pair'::regclass",
    "'partition_router.status'::regclass",
    "(SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'o.t'::regclass)",
    "0::oid::regclass",
    "1::oid::regclass",
    "4294967295::oid::regclass",
    "2147483648::oid::regclass",
    "NULL::regclass",
];

const TEXTS: &[&str] = &[
    "NULL",
    "''",
    "' '",
    "'range'",
    "'hash'",
    "'list'",
    "'RANGE'",
    "'at'",
    "'id'",
    "'n'",
    "'1 month'",
    "'-1 month'",
    "'0 days'",
    "'1000000 years'",
    "'1e308'",
    "'NaN'",
    "'infinity'",
    "'-infinity'",
    "'9999999999999999999999999999'",
    "'-1'",
    "'10'",
    "'''; DROP SCHEMA o CASCADE; --'",
    "'\"'",
    "'\\'",
    "E'\\n\\t\\x01'",
    "'%s%n%d'",
    "'größe 表 🐘'",
    "U&'\\200F\\0301'",
    "repeat('x', 63)",
    "repeat('ü', 32)",
    "repeat('y', 100000)",
    "'../../etc/passwd'",
    "'/dev/null'",
    "'{}'",
    "'[]'",
    "'null'",
    "'{\"Create\": 1}'",
    "'{\"name\": \"o.m_2026_01\", \"kind\": \"retire\"}'",
    "'2026-01-01'",
    "'2026-13-45'",
    "'10000-01-01'",
    "'4713-01-01 BC'",
    "'MINVALUE'",
    "'MAXVALUE'",
    "'all'",
    "'create'",
    "'cleanup'",
    "'switchover'",
    "'rollback'",
    "'abandon'",
    "'run_maintenance'",
    "'PRE-FLIGHT'",
    "'PRE-MIGRATION'",
    "'SWAP'",
    "'POST-SWITCH'",
    "'END'",
    "'DRY RUN'",
    "'PREPARE'",
    "'COPY'",
    "'CANCEL'",
    "'checksum'",
    "'rows'",
    "'counts'",
    "'drop'",
    "'detach'",
    "'archive'",
    "'csv'",
    "'parquet'",
    "'UTC'",
    "'Mars/Olympus'",
    "'America/New_York'",
    "'SELECT 1'",
    "'SELECT * FROM o.t'",
    "'SELECT * FROM o.t; SELECT 1'",
    "'DELETE FROM o.t'",
    "'SELECT 1 / 0'",
    "'('",
    "'(n)'",
    "'CREATE INDEX ON o.t (n)'",
    "'CREATE INDEX x ON o.m (at) WHERE false'",
    "'* * * * *'",
    "'99 99 99 99 99'",
    "'public'",
    "'o, pg_catalog'",
    "'\"'",
    "'00000'",
    "'ZZZZZ'",
    "'PR0'",
    "'TABLE o.t'",
    "'VALUES (1)'",
    "'COPY o.t TO STDOUT'",
    "'nowhere'",
    "'elsewhere'",
];

const INTEGERS: &[&str] = &[
    "NULL",
    "0",
    "1",
    "-1",
    "2",
    "16",
    "100",
    "101",
    "32768",
    "100000",
    "2147483647",
    "(-2147483648)",
];
const LONG: &[&str] = &[
    "NULL",
    "0",
    "1",
    "-1",
    "2147483648",
    "9223372036854775807",
    "(-9223372036854775808)",
];
const INTERVALS: &[&str] = &[
    "NULL",
    "'0'",
    "'1 microsecond'",
    "'-1 day'",
    "'1 month'",
    "'1 month -40 days'",
    "'178000000 years'",
    "'-178000000 years'",
    "'2147483647 days'",
    "'9000000000000 seconds'",
];
const BOOLEANS: &[&str] = &["NULL", "true", "false"];
const ARRAYS: &[&str] = &[
    "NULL",
    "'{}'",
    "'{NULL}'",
    "'{\"\"}'",
    "'{{a,b},{c,d}}'",
    "'[0:1]={a,b}'",
    "array_fill('x'::text, ARRAY[5000])",
    "ARRAY[repeat('z', 100000)]",
    "ARRAY['''; --', '\"', '表']",
];
const ROUTINES: &[&str] = &[
    "NULL",
    "0::oid::regprocedure",
    "'now()'",
    "'pg_catalog.pg_terminate_backend(int,bigint)'",
    "4294967295::oid::regprocedure",
    "'pg_catalog.upper(text)'",
];

/// A value that may make sense, by the argument's name.
fn plausible(argument: &str) -> Option<&'static str> {
    Some(match argument {
        "relation" | "legacy" => "'o.t'",
        "parent" => "'o.m'",
        "partition" => "'o.p_2025_01'",
        "server" => "'elsewhere'",
        "key_columns" => "'{id}'",
        "view" => "'o.kept'",
        "partition_key" | "tenant_column" => "'at'",
        "strategy" => "'range'",
        "partition_interval" => "'1 month'",
        "part" => "'all'",
        "operation" => "'switchover'",
        "level" => "'rows'",
        "twin" | "template" | "origin" | "archive_function" | "archive_format" | "archive_schema" => "NULL",
        "dry_run" => "true",
        "path" => "'public'",
        "sql" => "'SELECT * FROM o.t'",
        "pause" => "'0'",
        "batch_rows" | "premake" | "partitions" | "max_rows" => "10",
        _ => return None,
    })
}

fn value(random: &mut ChaCha8Rng, argument: &str, kind: &str) -> String {
    let pool = match kind {
        "regclass" => RELATIONS,
        "name" | "text" => TEXTS,
        "integer" => INTEGERS,
        "bigint" => LONG,
        "interval" => INTERVALS,
        "boolean" => BOOLEANS,
        "text[]" => ARRAYS,
        "regprocedure" => ROUTINES,
        other => panic!("no values of type {other}: add them here"),
    };
    let chosen = plausible(argument)
        .filter(|_| random.random_bool(0.5))
        .unwrap_or_else(|| pool.choose(random).expect("no pool is empty"));
    format!("({})::{kind}", chosen.replace("{long}", &"l".repeat(63)))
}

fn functions(client: &mut Client) -> Vec<Function> {
    let rows = client
        .query(
            "SELECT p.proname::text, p.prokind = 'p',
                 COALESCE((SELECT array_agg(COALESCE(p.proargnames[i], '') ORDER BY i) FROM generate_series(1, p.pronargs) i), '{}'),
                 COALESCE((SELECT array_agg(format_type(p.proargtypes[i - 1], NULL) ORDER BY i) FROM generate_series(1, p.pronargs) i), '{}')
             FROM pg_proc p WHERE p.pronamespace = 'partition_router'::regnamespace ORDER BY p.oid",
            &[],
        )
        .expect("the catalog can be read");
    rows.into_iter()
        .map(|row| {
            let (names, types): (Vec<String>, Vec<String>) = (row.get(2), row.get(3));
            Function {
                name: row.get(0),
                is_procedure: row.get(1),
                arguments: names.into_iter().zip(types).collect(),
            }
        })
        .collect()
}

fn session(database: &Database) -> Client {
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "SET client_min_messages = error",
            "SET statement_timeout = '1500ms'",
            "CREATE TEMP TABLE tmp (id int PRIMARY KEY, at date NOT NULL)",
        ],
    );
    client
}

/// One call, and what it ended with.
fn call(client: &mut Client, random: &mut ChaCha8Rng, function: &Function) -> (String, String, String) {
    let arguments: Vec<String> = function
        .arguments
        .iter()
        .map(|(name, kind)| value(random, name, kind))
        .collect();
    let verb = if function.is_procedure { "CALL" } else { "SELECT" };
    let statement = format!(
        "{verb} partition_router.{}({})",
        function.name,
        arguments.join(", ")
    );
    // What succeeds is undone, so that the world stays as it is. A procedure that commits can be called outside only.
    let is_alone = function.is_procedure && random.random_bool(0.5);
    if !is_alone {
        let begin = [
            "BEGIN",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "BEGIN READ ONLY",
        ]
        .choose(random)
        .expect("three");
        run(client, &[begin]);
    }
    let answer = client.simple_query(&statement);
    if !is_alone && !client.is_closed() {
        run(client, &["ROLLBACK"]);
    }
    match answer {
        Ok(_) => (statement, "00000".into(), String::new()),
        Err(error) => match error.as_db_error() {
            Some(error) => (
                statement,
                error.code().code().to_string(),
                error.message().to_string(),
            ),
            None => (statement, "lost".into(), error.to_string()),
        },
    }
}

#[test]
fn malformed_calls_end_with_an_answer_or_an_error_of_their_own() {
    let number = if is_stress() { 50_000 } else { 1_500 };
    let seed = std::env::var("PARTITION_ROUTER_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(clock_seed);
    println!("malformed calls: seed {seed}");
    let database = Database::on(Arc::new(Cluster::start(&["log_min_messages=panic"])), "malformed");
    let mut postgres = database.connect();
    run(&mut postgres, &["CREATE DATABASE elsewhere"]);
    run(&mut database.cluster.connect("elsewhere"), ELSEWHERE);
    for statement in WORLD {
        let statement = statement
            .replace("{long}", &"l".repeat(63))
            .replace("{socket}", database.cluster.socket());
        run(&mut postgres, &[&statement]);
    }
    let started: String = one(&mut postgres, "SELECT pg_postmaster_start_time()::text");
    let functions = functions(&mut postgres);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut client = session(&database);
    let (mut codes, mut wrong) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, String>::new());
    for n in 0..number {
        let (statement, code, message) = call(&mut client, &mut random, &functions[n % functions.len()]);
        *codes.entry(code.clone()).or_default() += 1;
        if code.starts_with("XX") || code == "lost" {
            let name = functions[n % functions.len()].name.clone();
            wrong
                .entry(format!("{name}: {code} {message}"))
                .or_insert_with(|| statement.chars().take(600).collect());
        }
        if client.is_closed() {
            assert!(wrong.len() < 20, "{wrong:#?}");
            client = session(&database);
        }
    }
    let succeeded = codes.get("00000").copied().unwrap_or_default();
    println!(
        "malformed calls: {number} of {} functions and procedures, {succeeded} succeeded; by SQLSTATE {codes:?}",
        functions.len()
    );
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    assert_eq!(
        one::<String>(&mut postgres, "SELECT pg_postmaster_start_time()::text"),
        started
    );
    assert!(codes.len() > 10, "the calls hardly differ: {codes:?}");
}

/// Found by the 50,000.
#[test]
fn the_index_of_a_partitioned_table_has_no_chart() {
    let database = Database::new("chart_of_an_index");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY HASH (id)",
            "CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        ],
    );
    assert_eq!(
        crate::common::sqlstate(&mut client, "SELECT partition_router.chart('p_pkey')"),
        "0A000"
    );
}

/// Found by the 50,000 since there is a server among the arguments.
#[test]
fn a_server_whose_wrapper_has_no_handler_takes_no_partition() {
    let database = Database::new("server_without_handler");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE FOREIGN DATA WRAPPER nowhere",
            "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
            "CREATE TABLE p (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE p_2025_01 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "SELECT partition_router.manage('p', '1 month')",
        ],
    );
    for dry_run in [true, false] {
        assert_eq!(
            crate::common::sqlstate(
                &mut client,
                &format!("CALL partition_router.place('p_2025_01', 'nowhere', {dry_run})")
            ),
            "PR023"
        );
    }
}
