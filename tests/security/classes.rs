//! One test for each class of attack that other extensions and the server have suffered, where no other test of this directory is about
//! it. docs/security.md says which one is.

use crate::common::{one, run, sqlstate, texts};
use crate::scene::Scene;

/// A scene in which `mallory` may call everything.
fn granted(test: &str) -> Scene {
    let scene = Scene::new(test, &[]);
    run(
        &mut scene.database.connect(),
        &["GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory"],
    );
    scene
}

/// Names of tables, columns and partitions that are SQL, in everything that is configured: they are identifiers and no more.
#[test]
fn cve_2026_61781_configured_names_are_never_run() {
    let scene = granted("names");
    let mut postgres = scene.database.connect();
    let name = "x\"';ALTER ROLE mallory SUPERUSER;--";
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let literal = format!("'{}'", name.replace('\'', "''"));
    let mut mallory = scene.database.connect_as("mallory");
    run(
        &mut mallory,
        &[
            &format!("CREATE TABLE evil.{quoted} (id int, {quoted} date NOT NULL, PRIMARY KEY (id))"),
            &format!(
                "INSERT INTO evil.{quoted} SELECT g, date '2026-01-01' + g FROM generate_series(1, 40) g"
            ),
            &format!(
                "CREATE TABLE evil.\"p{}\" (at date) PARTITION BY RANGE (at)",
                &quoted[1..quoted.len() - 1]
            ),
        ],
    );
    run(
        &mut postgres,
        &[
            &format!("CREATE SCHEMA {quoted} AUTHORIZATION mallory"),
            &format!("CALL partition_router.migrate(format('evil.%I', {literal})::regclass, {literal})"),
            &format!("SELECT partition_router.set_rollout(format('evil.%I', {literal})::regclass, 50, ARRAY[{literal}], ARRAY[{literal}])"),
            &format!("SELECT partition_router.enable_change_feed(format('evil.%I', {literal})::regclass, ARRAY[{literal}], name => {literal})"),
            &format!("CALL partition_router.switchover(format('evil.%I', {literal})::regclass)"),
            &format!("SELECT partition_router.manage(format('evil.%I', 'p' || {literal})::regclass, '1 month', retention => '1 year',
                          retention_action => 'archive', archive_schema => {literal})"),
            &format!("SELECT partition_router.create_range_partition(format('evil.%I', 'p' || {literal})::regclass, 'q' || {literal}, '1999-01-01', '1999-02-01')"),
            &format!("SELECT partition_router.hold(format('evil.%I', 'q' || {literal})::regclass, {literal})"),
            "CALL partition_router.run_maintenance()",
            &format!("SELECT partition_router.release(format('evil.%I', 'q' || {literal})::regclass)"),
            "CALL partition_router.run_maintenance()",
            "CALL partition_router.run_maintenance()",
            "SELECT partition_router.restore_archive(1)",
            "SELECT partition_router.metrics(), partition_router.openmetrics(), partition_router.report()",
            "SELECT * FROM partition_router.health",
        ],
    );
    assert_eq!(
        texts(&mut postgres, "SELECT state FROM partition_router.archives"),
        ["restored"]
    );
    assert!(!one::<bool>(
        &mut postgres,
        "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"
    ));
}

/// A table is kept as a table, and not as a text that is run some day. A function is a text, since no dump could restore it before it is
/// there; it is looked up as `regprocedure` each time, with the owner's rights to call it.
#[test]
fn cve_2026_61818_tables_are_configured_as_regclass() {
    let scene = granted("types");
    let kept = texts(
        &mut scene.database.connect(),
        "SELECT format('%s.%s %s', attrelid::regclass, attname, format_type(atttypid, NULL)) FROM pg_attribute
         WHERE attnum > 0 AND (attrelid, attname::text) IN
             (VALUES ('partition_router.policy'::regclass, 'parent'), ('partition_router.policy', 'template'),
                     ('partition_router.policy', 'archive_schema'),
                     ('partition_router.pair', 'legacy'), ('partition_router.pair', 'twin'), ('partition_router.hold', 'partition'))
         ORDER BY 1",
    );
    assert_eq!(
        kept,
        [
            "partition_router.hold.partition regclass",
            "partition_router.pair.legacy regclass",
            "partition_router.pair.twin regclass",
            "partition_router.policy.archive_schema name",
            "partition_router.policy.parent regclass",
            "partition_router.policy.template regclass",
        ]
    );
}

/// Nobody has tables moved into a schema in which he could make none.
#[test]
fn cve_2026_61820_an_archive_schema_asks_for_create() {
    let scene = granted("archive_schema");
    let mut postgres = scene.database.connect();
    let mut mallory = scene.database.connect_as("mallory");
    run(
        &mut postgres,
        &["CREATE SCHEMA shared", "GRANT USAGE ON SCHEMA shared TO mallory"],
    );
    run(
        &mut mallory,
        &[
            "CREATE TABLE evil.t (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE evil.t_1999_01 PARTITION OF evil.t FOR VALUES FROM ('1999-01-01') TO ('1999-02-01')",
            "SELECT partition_router.manage('evil.t', '1 month')",
        ],
    );
    let archive = "SELECT partition_router.set_policy('evil.t', retention => '1 year', retention_action => 'archive', archive_schema => 'shared')";
    assert_eq!(sqlstate(&mut mallory, archive), "22023");
    // What is taken away later counts, also when a superuser calls: it is done as the owner.
    run(&mut postgres, &["GRANT CREATE ON SCHEMA shared TO mallory"]);
    run(&mut mallory, &[archive]);
    run(
        &mut postgres,
        &[
            "REVOKE CREATE ON SCHEMA shared FROM mallory",
            "CALL partition_router.run_maintenance('evil.t')",
            // What was missing between two partitions was made first.
            "CALL partition_router.run_maintenance('evil.t')",
        ],
    );
    assert_eq!(
        texts(
            &mut postgres,
            "SELECT DISTINCT sqlstate FROM partition_router.maintenance_log WHERE status = 'failed'"
        ),
        ["42501"]
    );
    assert!(one::<bool>(
        &mut postgres,
        "SELECT to_regclass('evil.t_1999_01') IS NOT NULL"
    ));
}

/// A function that archives is the owner's to run, and to choose: one that he may not execute is none for him.
#[test]
fn cve_2026_61821_a_function_that_archives_asks_for_execute() {
    let scene = granted("archive_function");
    let mut postgres = scene.database.connect();
    let mut mallory = scene.database.connect_as("mallory");
    run(
        &mut postgres,
        &[
            "CREATE SCHEMA kept",
            "CREATE FUNCTION kept.keep(part regclass) RETURNS regclass LANGUAGE sql SECURITY DEFINER AS 'SELECT part'",
            "REVOKE ALL ON FUNCTION kept.keep(regclass) FROM PUBLIC",
            "GRANT USAGE ON SCHEMA kept TO mallory",
        ],
    );
    run(
        &mut mallory,
        &[
            "CREATE TABLE evil.t (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE evil.t_1999_01 PARTITION OF evil.t FOR VALUES FROM ('1999-01-01') TO ('1999-02-01')",
            "INSERT INTO evil.t VALUES ('1999-01-05')",
            "SELECT partition_router.manage('evil.t', '1 month')",
        ],
    );
    let archive = "SELECT partition_router.set_policy('evil.t', retention => '1 year', retention_action => 'archive', archive_function => 'kept.keep(regclass)')";
    assert_eq!(sqlstate(&mut mallory, archive), "22023");
    // What is taken away later counts, also when a superuser calls.
    run(
        &mut postgres,
        &["GRANT EXECUTE ON FUNCTION kept.keep(regclass) TO mallory"],
    );
    run(&mut mallory, &[archive]);
    run(
        &mut postgres,
        &[
            "REVOKE EXECUTE ON FUNCTION kept.keep(regclass) FROM mallory",
            "CALL partition_router.run_maintenance('evil.t')",
            "CALL partition_router.run_maintenance('evil.t')",
        ],
    );
    let failed = "SELECT DISTINCT sqlstate FROM partition_router.maintenance_log WHERE status = 'failed'";
    assert_eq!(texts(&mut postgres, failed), ["42501"]);
    assert_eq!(one::<i64>(&mut postgres, "SELECT count(*) FROM evil.t"), 1);
}
