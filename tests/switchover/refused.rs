//! Bad calls are errors with their own SQLSTATE, before anything is locked.

use super::common::{Cluster, Database, one, plant, run};
use super::{BACK, TABLES, THERE, phase};
use postgres::Client;
use postgres::error::DbError;

pub fn refused(client: &mut Client, statement: &str) -> DbError {
    let error = client.batch_execute(statement).expect_err(statement);
    error.as_db_error().expect("the server answered").clone()
}

/// Asserts that a call is refused while somebody reads the table: had it asked for a lock, it would have got 55P03.
fn refused_before_a_lock(database: &Database, client: &mut Client, call: &str, sqlstate: &str, detail: &str) {
    let mut reader = database.connect();
    run(&mut reader, &["BEGIN", "SELECT count(*) FROM s.t"]);
    let error = refused(client, call);
    assert_eq!(error.code().code(), sqlstate, "{call}: {error:?}");
    assert!(error.hint().is_some_and(|hint| hint.ends_with('.')), "{error:?}");
    let told = format!("{} {}", error.message(), error.detail().unwrap_or_default());
    assert!(
        told.to_lowercase().contains(&detail.to_lowercase()),
        "{detail}: {error:?}"
    );
    run(&mut reader, &["COMMIT"]);
}

#[test]
fn the_wrong_phase_names_the_call_that_leads_on() {
    let database = Database::new("phase");
    let mut client = database.connect();
    run(&mut client, &TABLES[..TABLES.len() - 1]);
    for call in [THERE, BACK, "CALL partition_router.cleanup('s.t')"] {
        assert_eq!(refused(&mut client, call).code().code(), "PR011");
    }
    run(&mut client, &["SELECT partition_router.create_twin('s.t', 'at')"]);
    for (call, hint) in [
        (THERE, "Call partition_router.start_sync()."),
        (BACK, "Call partition_router.start_sync()."),
        (
            "CALL partition_router.cleanup('s.t')",
            "Call partition_router.start_sync().",
        ),
    ] {
        let error = refused(&mut client, call);
        assert_eq!(
            (error.code().code(), error.hint()),
            ("PR012", Some(hint)),
            "{call}"
        );
    }
    run(&mut client, &["SELECT partition_router.start_sync('s.t')"]);
    assert_eq!(
        refused(&mut client, THERE).hint(),
        Some("Call partition_router.backfill().")
    );
    run(&mut client, &["CALL partition_router.migrate('s.t', 'at')"]);
    for call in [BACK, "CALL partition_router.cleanup('s.t')"] {
        let error = refused(&mut client, call);
        assert_eq!(error.code().code(), "PR012");
        assert_eq!(
            error.hint(),
            Some("Call partition_router.switchover()."),
            "{call}"
        );
    }
    run(&mut client, &[THERE]);
    let error = refused(&mut client, THERE);
    assert_eq!(error.code().code(), "PR012");
    assert!(
        error.hint().is_some_and(|hint| hint.contains("rollback()")),
        "{error:?}"
    );
    for call in [
        "switchover(NULL)",
        "rollback('s.t', NULL)",
        "cleanup('s.t', NULL)",
    ] {
        assert_eq!(
            refused(&mut client, &format!("CALL partition_router.{call}"))
                .code()
                .code(),
            "22004"
        );
    }
    assert_eq!(
        refused(&mut client, "BEGIN; CALL partition_router.rollback('s.t')")
            .code()
            .code(),
        "2D000",
        "a call that commits cannot be part of a transaction"
    );
}

#[test]
fn only_the_owner_of_all_that_follows_may_switch() {
    let database = Database::new("owner");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE ROLE so_owner",
            "CREATE ROLE so_other",
            "CREATE SCHEMA s AUTHORIZATION so_owner",
            "GRANT USAGE ON SCHEMA s TO so_other",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA partition_router TO so_owner, so_other",
            "GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA partition_router TO so_owner, so_other",
            "SET ROLE so_owner",
        ],
    );
    run(&mut client, &TABLES[1..]);
    run(&mut client, &["SET ROLE so_other"]);
    for call in [THERE, "SELECT partition_router.plan('switchover', 's.t')"] {
        refused_before_a_lock(&database, &mut client, call, "42501", "must be owner of");
    }
    run(
        &mut client,
        &[
            "RESET ROLE",
            "CREATE VIEW s.theirs AS SELECT id FROM s.t",
            "SET ROLE so_owner",
        ],
    );
    refused_before_a_lock(&database, &mut client, THERE, "42501", "view s.theirs");
    run(
        &mut client,
        &[
            "RESET ROLE",
            "DROP VIEW s.theirs",
            "ALTER SCHEMA s OWNER TO postgres",
            "GRANT USAGE ON SCHEMA s TO so_owner",
            "SET ROLE so_owner",
        ],
    );
    refused_before_a_lock(
        &database,
        &mut client,
        THERE,
        "42501",
        "permission denied for schema",
    );
    run(
        &mut client,
        &[
            "RESET ROLE",
            "ALTER SCHEMA s OWNER TO so_owner",
            "SET ROLE so_owner",
            "CREATE VIEW s.mine AS SELECT id FROM s.t",
            THERE,
            BACK,
            "RESET ROLE",
            "DROP OWNED BY so_owner, so_other CASCADE",
            "DROP ROLE so_owner, so_other",
        ],
    );
}

#[test]
fn a_name_that_is_taken_is_told() {
    let database = Database::new("taken");
    let mut client = database.connect();
    run(&mut client, TABLES);
    for taken in [
        "TABLE s.t_legacy (id int)",
        "TYPE s.t_legacy AS (id int)",
        "VIEW s.t_legacy AS SELECT 1",
    ] {
        run(&mut client, &[&format!("CREATE {taken}")]);
        refused_before_a_lock(&database, &mut client, THERE, "42P07", "t_legacy");
        let kind = taken.split(' ').next().expect("a kind");
        run(&mut client, &[&format!("DROP {kind} s.t_legacy")]);
    }
    run(&mut client, &[THERE, "CREATE TABLE s.t_partitioned (id int)"]);
    refused_before_a_lock(&database, &mut client, BACK, "42P07", "t_partitioned");
    assert_eq!(phase(&mut client), "switched");
    run(&mut client, &["DROP TABLE s.t_partitioned", BACK]);
}

#[test]
fn what_would_be_lost_is_listed() {
    let database = Database::new("lost");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &["CREATE FUNCTION s.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"],
    );
    for (create, told, drop) in [
        (
            "CREATE TABLE s.rows (r s.t)",
            "table s.rows uses the row type",
            "DROP TABLE s.rows",
        ),
        (
            "CREATE TABLE s.rows (r s.t[])",
            "uses the row type",
            "DROP TABLE s.rows",
        ),
        (
            "CREATE DOMAIN s.rows AS s.t CHECK (true)",
            "type s.rows uses the row type",
            "DROP DOMAIN s.rows",
        ),
        (
            "CREATE FUNCTION s.all_rows() RETURNS SETOF s.t LANGUAGE sql AS 'SELECT * FROM s.t'",
            "function s.all_rows() uses the row type",
            "DROP FUNCTION s.all_rows",
        ),
        (
            "CREATE FUNCTION s.label(s.t) RETURNS text LANGUAGE sql AS 'SELECT $1.note'",
            "function s.label",
            "DROP FUNCTION s.label",
        ),
        (
            "CREATE VIEW s.whole AS SELECT x FROM s.t x",
            "uses the row type",
            "DROP VIEW s.whole",
        ),
        (
            "CREATE TEMP VIEW temporary AS SELECT id FROM s.t",
            "temporary is temporary",
            "DROP VIEW temporary",
        ),
        (
            "CREATE VIEW s.both AS SELECT a.id FROM s.t a JOIN s.t_partitioned b USING (id)",
            "reads both sides",
            "DROP VIEW s.both",
        ),
        (
            "CREATE VIEW s.grouped AS SELECT id, note FROM s.t GROUP BY id",
            "groups by a primary key",
            "DROP VIEW s.grouped",
        ),
        (
            "CREATE RULE mine AS ON DELETE TO s.t WHERE false DO ALSO NOTHING",
            "rule mine acts on t alone",
            "DROP RULE mine ON s.t",
        ),
        (
            "CREATE TABLE s.named (t regclass DEFAULT 's.t')",
            "default value for column t of table s.named",
            "DROP TABLE s.named",
        ),
        (
            "CREATE TRIGGER alone BEFORE INSERT ON s.t_partitioned FOR EACH ROW EXECUTE FUNCTION s.nothing()",
            "is on \"s\".\"t_partitioned\" alone",
            "DROP TRIGGER alone ON s.t_partitioned",
        ),
        (
            "CREATE PUBLICATION two FOR TABLE s.t, s.t_partitioned",
            "names both sides",
            "DROP PUBLICATION two",
        ),
    ] {
        run(&mut client, &[create]);
        refused_before_a_lock(&database, &mut client, THERE, "PR021", told);
        run(&mut client, &[drop]);
    }
    run(&mut client, &[THERE]);
}

#[test]
fn a_prepared_transaction_on_the_table_is_named() {
    let database = Database::on(
        Cluster::start(&["max_prepared_transactions=4"]).into(),
        "two_phase",
    );
    let mut client = database.connect();
    run(&mut client, TABLES);
    for (call, note) in [
        (THERE, "one"),
        (BACK, "two"),
        (THERE, "three"),
        (
            "CALL partition_router.cleanup('s.t', keep_unique => true)",
            "four",
        ),
    ] {
        run(
            &mut client,
            &[
                "BEGIN",
                &format!("UPDATE s.t SET note = '{note}' WHERE id = 1"),
                "PREPARE TRANSACTION 'half done'",
            ],
        );
        refused_before_a_lock(
            &database,
            &mut client,
            call,
            "PR020",
            "Prepared transactions: 'half done'.",
        );
        run(&mut client, &["COMMIT PREPARED 'half done'", call]);
        assert_eq!(
            one::<String>(&mut client, "SELECT note FROM s.t WHERE id = 1"),
            note
        );
    }
}

#[test]
fn sides_that_differ_keep_their_names() {
    let database = Database::new("differ");
    let mut client = database.connect();
    run(&mut client, TABLES);
    plant(
        &mut client,
        "s.t",
        &["UPDATE s.t SET note = 'another' WHERE id = 1"],
    );
    let error = refused(&mut client, THERE);
    assert_eq!(error.code().code(), "PR014", "{error:?}");
    assert_eq!(phase(&mut client), "live");
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT relkind::text FROM pg_class WHERE oid = 's.t'::regclass"
        ),
        "r"
    );
    run(&mut client, &["SELECT partition_router.repair('s.t')", THERE]);
    assert_eq!(phase(&mut client), "switched");
}
