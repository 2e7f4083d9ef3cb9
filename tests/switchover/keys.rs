//! Foreign keys that point at the table, triggers, comments and targets: they follow the name, both ways.

use super::common::{Database, assert_equal_sides, one, run, sqlstate, texts};
use super::{BACK, THERE};
use postgres::Client;

const WORLD: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.t (id int, at date, n int, note text, PRIMARY KEY (id, at), CONSTRAINT wide UNIQUE (n, at))",
    "INSERT INTO s.t SELECT g, date '2026-01-01' + g % 90, g FROM generate_series(1, 300) g",
    "CREATE TABLE s.child (id int PRIMARY KEY, t int, at date, n int,
        CONSTRAINT to_key FOREIGN KEY (t, at) REFERENCES s.t ON UPDATE CASCADE,
        CONSTRAINT to_wide FOREIGN KEY (n, at) REFERENCES s.t (n, at) ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED)",
    "COMMENT ON CONSTRAINT to_key ON s.child IS 'whose'",
    "INSERT INTO s.child SELECT id, id, at, n FROM s.t WHERE id <= 100",
    "CREATE TABLE s.loose (t int, at date)",
    "INSERT INTO s.loose VALUES (-1, '2026-01-01')",
    "ALTER TABLE s.loose ADD CONSTRAINT unproven FOREIGN KEY (t, at) REFERENCES s.t NOT VALID",
    "CALL partition_router.migrate('s.t', 'at')",
];

/// Every foreign key of the children, with the table that it points at and whether it is proven.
fn keys(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT concat_ws(' ', conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint'))
         FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 AND conrelid IN ('s.child'::regclass, 's.loose'::regclass)
         ORDER BY conname",
    )
}

fn holds(client: &mut Client, other: &str) {
    for dangling in [
        "INSERT INTO s.child VALUES (1000, -5, '2026-01-01', NULL)",
        "INSERT INTO s.child VALUES (1000, NULL, '2026-01-01', -5)",
        "INSERT INTO s.loose VALUES (-2, '2026-01-01')",
        "DELETE FROM s.t WHERE id = 50",
        &format!("DELETE FROM {other} WHERE id = 50"),
    ] {
        assert_eq!(sqlstate(client, dangling), "23503", "{dangling}");
    }
    let next: i32 = one(client, "SELECT max(id) + 1 FROM s.t");
    run(
        client,
        &[
            &format!("INSERT INTO s.t VALUES ({next}, '2026-02-03', {next})"),
            &format!("INSERT INTO s.child VALUES ({next}, {next}, '2026-02-03', {next})"),
            // To another partition: the one key goes with it, the other would be broken.
            &format!("UPDATE s.child SET n = NULL WHERE id = {next}"),
            &format!("UPDATE s.t SET at = '2026-03-04' WHERE id = {next}"),
        ],
    );
    assert_eq!(
        one::<String>(client, &format!("SELECT at::text FROM s.child WHERE id = {next}")),
        "2026-03-04"
    );
    assert_equal_sides(client, "s.t", other, "id, at, n");
}

#[test]
fn foreign_keys_that_have_the_partition_key_follow_the_name_there_and_back() {
    let database = Database::new("keys_in");
    let mut client = database.connect();
    run(&mut client, WORLD);
    let before = keys(&mut client);
    assert_eq!(before.len(), 3);
    for _ in 0..2 {
        run(&mut client, &[THERE]);
        assert_eq!(keys(&mut client), before);
        holds(&mut client, "s.t_legacy");
        run(&mut client, &[BACK]);
        assert_eq!(keys(&mut client), before);
        holds(&mut client, "s.t_partitioned");
    }
    run(&mut client, &[THERE, "CALL partition_router.cleanup('s.t')"]);
    assert_eq!(keys(&mut client), before);
    assert_eq!(sqlstate(&mut client, "DELETE FROM s.t WHERE id = 50"), "23503");
}

#[test]
fn a_key_that_was_not_proven_when_the_call_died_is_proven_by_the_next_one() {
    let database = Database::new("unproven");
    let mut client = database.connect();
    run(&mut client, WORLD);
    let before = keys(&mut client);
    for (call, operation) in [(THERE, "switchover"), (BACK, "rollback")] {
        for stage in ["PRE-FLIGHT", "PRE-MIGRATION", "SWAP"] {
            let step = format!("SELECT partition_router.switchover_step('s.t', '{operation}', '{stage}')");
            assert!(!one::<bool>(&mut client, &step), "{stage}");
        }
        let unproven =
            "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 AND NOT convalidated";
        assert_eq!(one::<i64>(&mut client, unproven), 3, "{operation}");
        assert_eq!(
            sqlstate(
                &mut client,
                "INSERT INTO s.child VALUES (1000, -5, '2026-01-01', NULL)"
            ),
            "23503"
        );
        run(&mut client, &[call]);
        assert_eq!(keys(&mut client), before, "{operation}");
    }
}

#[test]
fn foreign_keys_that_cannot_follow_stay_in_force_and_keep_the_legacy() {
    let database = Database::new("keys_stay");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            "CREATE TABLE s.t (id int PRIMARY KEY, at date NOT NULL, UNIQUE (id, at))",
            "INSERT INTO s.t SELECT g, date '2026-01-01' + g % 90 FROM generate_series(1, 300) g",
            "CREATE TABLE s.by_id (t int CONSTRAINT by_id REFERENCES s.t)",
            "CREATE TABLE s.cascades (t int, at date, CONSTRAINT cascades FOREIGN KEY (t, at) REFERENCES s.t (id, at) ON DELETE CASCADE)",
            "INSERT INTO s.by_id VALUES (1)",
            "INSERT INTO s.cascades SELECT id, at FROM s.t WHERE id IN (1, 2)",
        ],
    );
    let told = texts(
        &mut client,
        "SELECT message FROM partition_router.preflight('s.t', 'at') WHERE code = 'foreign_key_in' AND severity = 'warning' ORDER BY 1",
    );
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("\"by_id\" of s.by_id") && told[1].contains("\"cascades\" of s.cascades"),
        "{told:?}"
    );
    run(
        &mut client,
        &["CALL partition_router.migrate('s.t', 'at')", THERE],
    );
    assert_eq!(sqlstate(&mut client, "INSERT INTO s.by_id VALUES (-1)"), "23503");
    assert_eq!(sqlstate(&mut client, "DELETE FROM s.t WHERE id = 1"), "23503");
    // A row that moves under the old name is no row that goes.
    run(
        &mut client,
        &[
            "UPDATE s.t SET at = at WHERE id = 2",
            "DELETE FROM s.t WHERE id = 2",
        ],
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.cascades"), 1);
    let error = client
        .batch_execute("CALL partition_router.cleanup('s.t')")
        .expect_err("keys point at the legacy");
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.code().code(), "PR021");
    let detail = error.detail().unwrap_or_default();
    assert!(
        detail.contains("by_id") && detail.contains("cascades"),
        "{detail}"
    );
    run(&mut client, &[BACK, "SELECT partition_router.abandon('s.t')"]);
    assert_eq!(sqlstate(&mut client, "INSERT INTO s.by_id VALUES (-1)"), "23503");
}

#[test]
fn a_key_of_a_table_of_somebody_else_is_told_before_anything_is_locked() {
    let database = Database::new("keys_owner");
    let mut admin = database.connect();
    let (owner, other) = (
        format!("t_{}", std::process::id()),
        format!("child_{}", std::process::id()),
    );
    run(
        &mut admin,
        &[
            &format!("CREATE ROLE {owner} LOGIN"),
            &format!("CREATE ROLE {other}"),
            &format!("CREATE SCHEMA s AUTHORIZATION {owner}"),
            &format!("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO {owner}"),
            "CREATE TABLE s.t (id int, at date, PRIMARY KEY (id, at))",
            "CREATE TABLE s.child (t int, at date, FOREIGN KEY (t, at) REFERENCES s.t)",
            &format!("ALTER TABLE s.t OWNER TO {owner}"),
            &format!("ALTER TABLE s.child OWNER TO {other}"),
        ],
    );
    let mut client = database.connect_as(&owner);
    run(&mut client, &["CALL partition_router.migrate('s.t', 'at')"]);
    let error = client.batch_execute(THERE).expect_err("the child is another's");
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.code().code(), "42501");
    assert!(error.message().contains("s.child"), "{error:?}");
    assert_eq!(
        one::<String>(&mut admin, "SELECT phase FROM partition_router.status"),
        "live"
    );
    drop(client);
    run(
        &mut admin,
        &[
            "SELECT partition_router.abandon('s.t')",
            "DROP SCHEMA s CASCADE",
            &format!("DROP OWNED BY {owner}, {other}"),
            &format!("DROP ROLE {owner}, {other}"),
        ],
    );
}

const DRESSED: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.t (id int PRIMARY KEY, at date NOT NULL, a int, b int CONSTRAINT positive CHECK (b > 0))",
    "CREATE INDEX by_sum ON s.t (a, (a + b))",
    "CREATE STATISTICS s.together ON a, b FROM s.t",
    "CREATE FUNCTION s.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER one BEFORE UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.nothing()",
    "CREATE TRIGGER two BEFORE UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.nothing()",
    "INSERT INTO s.t SELECT g, date '2026-01-01' + g % 90, g, g FROM generate_series(1, 300) g",
    "CALL partition_router.migrate('s.t', 'at')",
];

/// Comments, targets and triggers of whatever has the name.
fn dress(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT concat_ws(' ', c.relname, obj_description(c.oid, 'pg_class'),
                (SELECT string_agg(attstattarget::text, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid AND attstattarget >= 0))
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = 's.t'::regclass
         UNION ALL SELECT concat_ws(' ', conname, obj_description(oid, 'pg_constraint')) FROM pg_constraint WHERE conrelid = 's.t'::regclass
         UNION ALL SELECT concat_ws(' ', tgname, tgenabled, obj_description(oid, 'pg_trigger')) FROM pg_trigger
             WHERE tgrelid = 's.t'::regclass AND NOT tgisinternal AND tgname NOT LIKE 'sync%'
         UNION ALL SELECT concat_ws(' ', stxname, stxstattarget) FROM pg_statistic_ext WHERE stxrelid = 's.t'::regclass
         ORDER BY 1",
    )
}

#[test]
fn comments_targets_and_triggers_of_the_name_follow_it_there_and_back() {
    let database = Database::new("dress");
    let mut client = database.connect();
    run(&mut client, DRESSED);
    let changes: [&[&str]; 2] = [
        &[
            "COMMENT ON INDEX s.by_sum IS 'sums'",
            "COMMENT ON CONSTRAINT t_pkey ON s.t IS 'the key'",
            "COMMENT ON CONSTRAINT positive ON s.t IS 'more than none'",
            "ALTER INDEX s.by_sum ALTER COLUMN 2 SET STATISTICS 300",
            "ALTER STATISTICS s.together SET STATISTICS 400",
            "COMMENT ON TRIGGER one ON s.t IS 'of before'",
            "CREATE TRIGGER three AFTER DELETE ON s.t FOR EACH ROW EXECUTE FUNCTION s.nothing()",
            "COMMENT ON TRIGGER three ON s.t IS 'late'",
            "ALTER TABLE s.t DISABLE TRIGGER three",
        ],
        &[
            "COMMENT ON INDEX s.by_sum IS NULL",
            "COMMENT ON CONSTRAINT positive ON s.t IS 'otherwise'",
            "ALTER INDEX s.by_sum ALTER COLUMN 2 SET STATISTICS -1",
            "ALTER STATISTICS s.together SET STATISTICS -1",
            "DROP TRIGGER two ON s.t",
            "COMMENT ON TRIGGER one ON s.t IS NULL",
            "CREATE TRIGGER four AFTER DELETE ON s.t FOR EACH ROW EXECUTE FUNCTION s.nothing()",
            "COMMENT ON TRIGGER four ON s.t IS 'later'",
        ],
    ];
    for (changed, call) in changes.iter().zip([THERE, BACK]) {
        let before = dress(&mut client);
        run(&mut client, changed);
        let changed = dress(&mut client);
        assert_ne!(changed, before);
        run(&mut client, &[call]);
        assert_eq!(dress(&mut client), changed, "{call}");
    }
}
