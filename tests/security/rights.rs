//! Who may call what, in a world in which every call of [`CALLS`] has something to do.

use crate::calls::Asks::{Owner, Reader, Trigger};
use crate::calls::By::{self, Everybody, Grant, Monitor};
use crate::calls::{Asks, CALLS};
use crate::common::{Database, one, run, texts};
use postgres::Client;
use std::collections::BTreeMap;

/// What a procedure that commits says in a transaction: each commits between its steps. What these do alone, the tests about them show.
const COMMITS: &str = "2D000";

/// What even a superuser is told here: the phase is another, it is no partition of that kind, no task, no other server, no pg_cron and no
/// pg_partman.
const REFUSING: &[(&str, &str)] = &[
    ("cleanup_dry_run", "PR012"),
    ("cleanup_step", "PR012"),
    ("import_partman", "22023"),
    ("maintenance_task", "22023"),
    ("place_dry_run", "PR023"),
    ("place_step", "PR023"),
    ("schedule_maintenance", "PR070"),
    ("start_sync", "PR012"),
    ("unpartition_step", "PR004"),
    ("unschedule_maintenance", "PR070"),
];

const ROLES: [&str; 5] = ["superuser", "owner", "writer", "monitor", "stranger"];

/// A live pair, a managed table and some more, all of `right_owner`.
fn world(test: &str) -> (Database, Client) {
    world_on(Database::new(test))
}

/// The same in a database that there is.
pub fn world_on(database: Database) -> (Database, Client) {
    let mut client = database.connect();
    for role in ROLES {
        let attribute = if role == "superuser" { "SUPERUSER" } else { "" };
        let name = role_name(role);
        run(
            &mut client,
            &[&format!(
                "DO $$BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name} LOGIN {attribute}; END IF; END$$"
            )],
        );
    }
    run(
        &mut client,
        &[
            "GRANT pg_monitor TO right_monitor",
            "CREATE SCHEMA o AUTHORIZATION right_owner",
            "SET ROLE right_owner",
            "CREATE TABLE o.t (id int PRIMARY KEY, at date NOT NULL, n int)",
            "CREATE TABLE o.plain (id int PRIMARY KEY, at date NOT NULL)",
            "CREATE TABLE o.m (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE o.m_2026_01 PARTITION OF o.m FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
            "CREATE TABLE o.free (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE o.old (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE o.old_2000_01 PARTITION OF o.old FOR VALUES FROM ('2000-01-01') TO ('2000-02-01')",
            "INSERT INTO o.old VALUES ('2000-01-02')",
            "CREATE FUNCTION o.keep(part regclass) RETURNS regclass LANGUAGE plpgsql AS $$BEGIN
                 EXECUTE format('CREATE TABLE o.old_kept AS SELECT * FROM %s', part); RETURN 'o.old_kept'::regclass; END$$",
            "CREATE MATERIALIZED VIEW o.kept AS SELECT 1 AS one",
            "GRANT USAGE ON SCHEMA o TO PUBLIC",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA o TO right_writer",
            "RESET ROLE",
            "CALL partition_router.migrate('o.t', 'at')",
            "SELECT partition_router.manage('o.m', '1 month')",
            "SELECT partition_router.manage('o.old', '1 month', retention => '1 year', retention_action => 'archive', archive_function => 'o.keep(regclass)')",
            "CALL partition_router.run_maintenance('o.old')",
            "CALL partition_router.run_maintenance('o.old')",
            "SELECT partition_router.enable_change_feed('o.t', ARRAY['id'])",
            // The owner of a partitioned table with a feed was given this, so that he can add partitions.
            "REVOKE EXECUTE ON FUNCTION partition_router.change_feed() FROM right_owner",
        ],
    );
    (database, client)
}

fn role_name(role: &str) -> String {
    format!("right_{role}")
}

fn has_execute(role: &str, by: By) -> bool {
    match by {
        Grant => role == "superuser",
        Monitor => ["superuser", "monitor"].contains(&role),
        Everybody => true,
    }
}

/// The SQLSTATE of a call that leaves nothing behind where it can be rolled back; of one that succeeds, `00000`.
fn outcome(client: &mut Client, call: &str, in_transaction: bool) -> String {
    let result = if in_transaction {
        run(client, &["BEGIN"]);
        let result = client.batch_execute(call);
        run(client, &["ROLLBACK"]);
        result
    } else {
        client.batch_execute(call)
    };
    match result {
        Ok(()) => "00000".into(),
        Err(error) => match error.as_db_error() {
            Some(error) => error.code().code().to_string(),
            None => panic!("{call}: {error}"),
        },
    }
}

#[test]
fn every_function_has_its_line_and_every_role_the_rights_of_that_line() {
    let (database, mut client) = world("rights_table");
    let mut lines: BTreeMap<&str, (By, Asks, &str)> = BTreeMap::new();
    for (signature, by, asks, call) in CALLS {
        assert!(
            lines.insert(signature, (*by, *asks, call)).is_none(),
            "{signature} has two lines"
        );
    }
    let functions = texts(
        &mut client,
        "SELECT substr(oid::regprocedure::text, length('partition_router.') + 1) FROM pg_proc
         WHERE pronamespace = 'partition_router'::regnamespace ORDER BY 1",
    );
    let unknown: Vec<_> = functions
        .iter()
        .filter(|f| !lines.contains_key(f.as_str()))
        .collect();
    assert!(unknown.is_empty(), "these functions have no line: {unknown:#?}");
    let gone: Vec<_> = lines
        .keys()
        .filter(|l| !functions.iter().any(|f| f == *l))
        .collect();
    assert!(gone.is_empty(), "these lines have no function: {gone:#?}");
    for role in ROLES {
        let name = role_name(role);
        let mut session = database.connect_as(&name);
        for (signature, (by, asks, call)) in &lines {
            let may =
                format!("SELECT has_function_privilege('{name}', 'partition_router.{signature}', 'EXECUTE')");
            assert_eq!(
                one::<bool>(&mut client, &may),
                has_execute(role, *by),
                "{role}: {signature}"
            );
            if !has_execute(role, *by) {
                assert_eq!(outcome(&mut session, call, false), "42501", "{role}: {call}");
            } else {
                let got = outcome(&mut session, call, true);
                let name = signature.split('(').next().expect("a name");
                let expected = match REFUSING.iter().find(|(refusing, _)| *refusing == name) {
                    Some((_, code)) => code,
                    None if *asks == Trigger => "0A000",
                    None if call.starts_with("CALL") => COMMITS,
                    None => "00000",
                };
                assert_eq!(got, expected, "{role}: {call}");
            }
        }
    }
}

#[test]
fn execute_alone_opens_no_table_of_somebody_else() {
    let (database, mut client) = world("rights_granted");
    run(
        &mut client,
        &[
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO right_owner, right_writer, right_monitor, right_stranger",
        ],
    );
    let mut wrong = vec![];
    for role in ["writer", "monitor", "stranger", "owner"] {
        let mut session = database.connect_as(&role_name(role));
        for (_, _, asks, call) in CALLS {
            // What is refused can be called as it is; what is not must leave the others something to call.
            let refused = role != "owner" && (*asks == Owner || role != "writer" && *asks == Reader);
            let got = outcome(&mut session, call, !refused);
            let is_right = match asks {
                Owner | Reader if refused => got == "42501",
                Trigger => got == "0A000",
                _ => got != "42501",
            };
            if !is_right || got.starts_with("XX") {
                wrong.push(format!("{role}: {call}: {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Nobody reads the extension's own tables, but for the one that is a view of the reference and has no rows of a user.
    for role in ["owner", "writer", "monitor", "stranger"] {
        let mut session = database.connect_as(&role_name(role));
        for table in texts(
            &mut client,
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'partition_router'::regnamespace AND relkind IN ('r', 'S') AND relname <> 'archives'",
        ) {
            assert_eq!(
                outcome(&mut session, &format!("SELECT * FROM {table}"), false),
                "42501",
                "{role}: {table}"
            );
        }
    }
}
