//! What would stop or surprise a migration is told before anything is built, and asking changes nothing.

#[path = "../common/mod.rs"]
mod common;
mod shapes;

use common::{Cluster, Database, one, run, texts};
use postgres::Client;
use shapes::{PLAIN, SHAPES};

/// `severity code message` of each finding; every hint is a sentence.
fn findings(client: &mut Client, arguments: &str) -> Vec<(String, String, String)> {
    client
        .query(
            &format!(
                "SELECT p.* FROM pg_class c, partition_router.preflight(c.oid, 'at'{arguments}) p
                 WHERE c.relnamespace = 's'::regnamespace AND c.relname ~ '^t+$'"
            ),
            &[],
        )
        .unwrap_or_else(|error| panic!("{arguments}: {error:?}"))
        .into_iter()
        .map(|row| {
            let hint: String = row.get("hint");
            let message: String = row.get("message");
            assert!(hint.ends_with('.') && hint.len() > 10, "{message}: {hint}");
            (row.get("severity"), row.get("code"), message)
        })
        .collect()
}

/// On a server that decodes WAL and watches statements.
fn database(name: &str) -> Database {
    let settings = ["wal_level=logical", "shared_preload_libraries=pg_stat_statements"];
    Database::on(Cluster::shared_with(&settings), name)
}

#[test]
fn each_shape_is_told_with_its_code() {
    let database = database("shapes");
    let mut client = database.connect();
    for shape in SHAPES {
        run(&mut client, &["CREATE SCHEMA s"]);
        run(&mut client, shape.make);
        let found = findings(&mut client, shape.arguments);
        let is_it = |(severity, code, message): &(String, String, String)| {
            severity == shape.severity && code == shape.code && message.contains(shape.says)
        };
        assert!(found.iter().any(is_it), "{}: {found:#?}", shape.name);
        run(
            &mut client,
            &[
                "SET client_min_messages = warning",
                "DROP SCHEMA s CASCADE",
                "DROP PUBLICATION IF EXISTS of_t, of_s",
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 's_l_o_t'",
            ],
        );
    }
}

#[test]
fn an_error_is_what_stops_create_twin_and_nothing_else_does() {
    let database = database("stops");
    let mut client = database.connect();
    for shape in SHAPES.iter().filter(|shape| shape.code != "replication_slot") {
        run(&mut client, &["CREATE SCHEMA s"]);
        run(&mut client, shape.make);
        let found = findings(&mut client, shape.arguments);
        let errors: Vec<_> = found
            .iter()
            .filter(|(severity, ..)| severity == "error")
            .collect();
        let create = format!(
            "SELECT t.* FROM pg_class c, partition_router.create_twin(c.oid, 'at'{}, dry_run => true) t
             WHERE c.relnamespace = 's'::regnamespace AND c.relname ~ '^t+$'",
            shape.arguments
        );
        match client.batch_execute(&create) {
            Ok(()) => assert!(errors.is_empty(), "{}: {errors:?}", shape.name),
            // What has a default that does not fit an integer key is only a warning.
            Err(_) if shape.code == "interval" && shape.severity == "warning" => {}
            Err(error) => {
                let message = error.as_db_error().expect("the server answered").message();
                let said = |(_, _, told): &&(String, String, String)| told.starts_with(message);
                assert!(errors.iter().any(said), "{}: {message}, {errors:?}", shape.name);
            }
        }
        run(
            &mut client,
            &[
                "SET client_min_messages = warning",
                "DROP SCHEMA s CASCADE",
                "DROP PUBLICATION IF EXISTS of_t, of_s",
            ],
        );
    }
}

#[test]
fn of_a_clean_table_nothing_is_said_but_what_it_takes() {
    let database = database("clean");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            "CREATE TABLE s.t (id int, at date, n int, PRIMARY KEY (id, at))",
            "CREATE INDEX ON s.t (n)",
            "INSERT INTO s.t SELECT g, date '2026-01-01' + g % 90, g FROM generate_series(1, 500) g",
        ],
    );
    let codes: Vec<_> = findings(&mut client, "")
        .into_iter()
        .map(|(severity, code, _)| format!("{severity} {code}"))
        .collect();
    assert_eq!(codes, ["info disk", "info sync_cost"]);
}

#[test]
fn statements_that_were_seen_are_judged() {
    let database = database("statements");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            PLAIN,
            "CREATE SCHEMA \"Stats\"",
            "CREATE EXTENSION pg_stat_statements SCHEMA \"Stats\"",
            "INSERT INTO s.t VALUES (1, '2026-01-01') ON CONFLICT (id) DO NOTHING",
            "SELECT n FROM s.t WHERE id = 1",
            "SELECT n FROM s.t WHERE at = '2026-01-01'",
            "SELECT 1 AS t",
        ],
    );
    let found = findings(&mut client, "");
    let told: Vec<_> = found
        .iter()
        .filter(|(_, code, _)| code == "query_without_key" || code == "on_conflict")
        .map(|(severity, _, message)| format!("{severity} {message}"))
        .collect();
    assert_eq!(
        told,
        [
            "warning a statement seen 1 times, \"INSERT INTO s.t VALUES ($1, $2) ON CONFLICT (id) DO NOTHING\", has ON \
             CONFLICT (id), for which the twin has no unique index",
            "warning a statement seen 1 times does not name \"at\" and will look into every partition: SELECT n FROM s.t \
             WHERE id = $1",
        ]
    );
}

#[test]
fn statistics_of_statements_that_cannot_be_read_are_told() {
    let database = Database::on(Cluster::start(&[]).into(), "not_loaded");
    let mut client = database.connect();
    run(
        &mut client,
        &["CREATE SCHEMA s", PLAIN, "CREATE EXTENSION pg_stat_statements"],
    );
    let found = findings(&mut client, "");
    assert!(
        found
            .iter()
            .any(|(severity, code, _)| severity == "info" && code == "statements_not_seen"),
        "{found:?}"
    );
}

#[test]
fn an_owner_hears_everything_but_what_is_for_monitors() {
    let database = database("owner");
    let mut client = database.connect();
    let role = format!("owner_{}", std::process::id());
    run(
        &mut client,
        &[
            &format!("CREATE ROLE {role} LOGIN"),
            &format!("CREATE SCHEMA s AUTHORIZATION {role}"),
            &format!("GRANT USAGE ON SCHEMA partition_router TO {role}"),
            &format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA partition_router TO {role}"),
        ],
    );
    let mut owner = database.connect_as(&role);
    run(&mut owner, &[PLAIN, "INSERT INTO s.t VALUES (1, '2026-01-01')"]);
    run(&mut client, &["CREATE VIEW public.theirs AS SELECT id FROM s.t"]);
    let found = findings(&mut owner, "");
    let says = |code: &str, text: &str| found.iter().any(|(_, c, m)| c == code && m.contains(text));
    assert!(says("disk", "for members of pg_monitor"), "{found:?}");
    assert!(says("view", "has another owner"), "{found:?}");
    assert!(says("sync_cost", "1 rows of the table"), "{found:?}");
    drop(owner);
    run(
        &mut client,
        &[
            "DROP VIEW public.theirs",
            &format!("DROP OWNED BY {role}"),
            &format!("DROP ROLE {role}"),
        ],
    );
}

#[test]
fn the_trial_runs_no_code_of_the_owner() {
    let database = database("trial");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            "CREATE FUNCTION s.trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'",
            "CREATE FUNCTION s.fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM s.trap(1); RETURN NEW; END'",
            "CREATE TABLE s.t (id int PRIMARY KEY, at date NOT NULL, n int DEFAULT s.trap(1) CHECK (s.trap(n) > 0),
                g int GENERATED ALWAYS AS (s.trap(n)) STORED)",
            "CREATE INDEX ON s.t (s.trap(n))",
            "CREATE INDEX ON s.t (n) WHERE s.trap(n) > 0",
            "CREATE TRIGGER fire BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.fire()",
            "INSERT INTO s.t VALUES (1, '2026-01-01', 2)",
        ],
    );
    run(
        &mut client,
        &[
            "CREATE OR REPLACE FUNCTION s.trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''trapped''; END'",
        ],
    );
    let found = findings(&mut client, "");
    assert!(
        found
            .iter()
            .any(|(_, code, message)| code == "sync_cost" && message.contains("1 rows")),
        "{found:?}"
    );
}

/// Everything that the catalog says of relations, types, functions and constraints of users, and of the extension's own rows.
const CATALOG: &str = "SELECT md5(string_agg(x, E'\\n' ORDER BY x)) FROM (
    SELECT 'class ' || (to_jsonb(c) - '{relpages,reltuples,relallvisible,relfrozenxid,relminmxid}'::text[])::text AS x FROM pg_class c
    UNION ALL SELECT 'attribute ' || a::text FROM pg_attribute a
    UNION ALL SELECT 'type ' || oid || typname FROM pg_type
    UNION ALL SELECT 'constraint ' || oid || conname FROM pg_constraint
    UNION ALL SELECT 'trigger ' || oid || tgname FROM pg_trigger
    UNION ALL SELECT 'proc ' || oid || proname FROM pg_proc
    UNION ALL SELECT 'depend ' || d::text FROM pg_depend d
    UNION ALL SELECT 'pair ' || p::text FROM partition_router.pair p
    UNION ALL SELECT 'event ' || e::text FROM partition_router.run_event e
    UNION ALL SELECT 'row ' || t::text || t.xmin::text || t.xmax::text || t.ctid::text FROM s.t) all_of_it";

#[test]
fn nothing_is_changed_and_no_lock_above_access_share_is_taken() {
    let database = database("locks");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            "CREATE TABLE s.o (id int PRIMARY KEY)",
            "INSERT INTO s.o VALUES (1)",
            "CREATE TABLE s.t (id int PRIMARY KEY, at date NOT NULL, o int REFERENCES s.o, n int CHECK (n > 0))",
            "CREATE INDEX ON s.t (n)",
            "CREATE VIEW s.v AS SELECT id FROM s.t",
            "CREATE TABLE s.child (t int REFERENCES s.t)",
            "INSERT INTO s.t SELECT g, date '2026-01-01' + g % 60, 1, g FROM generate_series(1, 1500) g",
        ],
    );
    // pg_temp of this session comes to be with its first temporary table.
    run(&mut client, &["CREATE TEMP TABLE first ()", "DROP TABLE first"]);
    let before: String = one(&mut client, CATALOG);
    for arguments in ["", ", 'hash'", ", 'list'"] {
        run(&mut client, &["BEGIN"]);
        assert!(findings(&mut client, arguments).len() > 2);
        let locks = texts(
            &mut client,
            "SELECT DISTINCT l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
             WHERE l.pid = pg_backend_pid() AND c.relnamespace = 's'::regnamespace",
        );
        assert_eq!(locks, ["AccessShareLock"], "{arguments}");
        run(&mut client, &["COMMIT"]);
        assert_eq!(one::<String>(&mut client, CATALOG), before, "{arguments}");
    }
    // Whoever holds the table against writers is not in the way, and the other way round.
    let mut other = database.connect();
    run(&mut other, &["BEGIN", "LOCK TABLE s.t IN EXCLUSIVE MODE"]);
    run(&mut client, &["SET lock_timeout = '1s'"]);
    assert!(findings(&mut client, "").len() > 2);
}

#[test]
fn a_transaction_that_may_only_read_hears_all_but_the_trial() {
    let database = database("read_only");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            PLAIN,
            "INSERT INTO s.t VALUES (1, '2026-01-01')",
            "BEGIN READ ONLY",
        ],
    );
    let found = findings(&mut client, "");
    assert!(
        found
            .iter()
            .any(|(_, code, message)| code == "sync_cost" && message.contains("was not measured")),
        "{found:?}"
    );
    run(&mut client, &["COMMIT"]);
}
