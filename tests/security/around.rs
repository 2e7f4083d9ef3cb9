//! Attacks from beside: names that shadow, objects that were there first, schemas that look like other extensions', and doors
//! that must be locked.

use crate::common::{one, run, sqlstate, texts};
use crate::scene::Scene;

/// What of the server's the hostile schema `public` offers under the same name. All log themselves.
const SHADOWS: &[&str] = &[
    "CREATE FUNCTION public.spring(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN RAISE LOG 'MARK|%|%|%||', what, current_user, session_user; RETURN true; END$$",
    "CREATE FUNCTION public.same(pg_catalog.int4, pg_catalog.int4) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT public.spring('int =')$$",
    "CREATE FUNCTION public.same(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT public.spring('text =')$$",
    "CREATE FUNCTION public.same(pg_catalog.oid, pg_catalog.oid) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT public.spring('oid =')$$",
    "CREATE FUNCTION public.same(pg_catalog.name, pg_catalog.text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT public.spring('name = text')$$",
    "CREATE FUNCTION public.same(pg_catalog.interval, pg_catalog.interval) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT public.spring('interval >=')$$",
    "CREATE OPERATOR public.= (LEFTARG = pg_catalog.int4, RIGHTARG = pg_catalog.int4, FUNCTION = public.same)",
    "CREATE OPERATOR public.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = public.same)",
    "CREATE OPERATOR public.= (LEFTARG = pg_catalog.oid, RIGHTARG = pg_catalog.oid, FUNCTION = public.same)",
    "CREATE OPERATOR public.= (LEFTARG = pg_catalog.name, RIGHTARG = pg_catalog.text, FUNCTION = public.same)",
    "CREATE OPERATOR public.>= (LEFTARG = pg_catalog.interval, RIGHTARG = pg_catalog.interval, FUNCTION = public.same)",
    "CREATE OPERATOR public.<> (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = public.same)",
    "CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.spring('type text'))",
    "CREATE DOMAIN public.name AS pg_catalog.name CHECK (public.spring('type name'))",
    "CREATE DOMAIN public.int4 AS pg_catalog.int4 CHECK (public.spring('type int4'))",
    "CREATE DOMAIN public.bool AS pg_catalog.bool CHECK (public.spring('type bool'))",
    "CREATE DOMAIN public.regclass AS pg_catalog.regclass CHECK (public.spring('type regclass'))",
    "CREATE DOMAIN public.jsonb AS pg_catalog.jsonb CHECK (public.spring('type jsonb'))",
    "CREATE DOMAIN public.timestamptz AS pg_catalog.timestamptz CHECK (public.spring('type timestamptz'))",
    "CREATE DOMAIN public.interval AS pg_catalog.interval CHECK (public.spring('type interval'))",
    "CREATE FUNCTION public.lower(pg_catalog.text) RETURNS pg_catalog.text LANGUAGE sql IMMUTABLE AS $$SELECT public.spring('lower()')::pg_catalog.text$$",
    "CREATE FUNCTION public.now() RETURNS pg_catalog.timestamptz LANGUAGE sql AS $$SELECT CASE WHEN public.spring('now()') THEN pg_catalog.now() END$$",
    "CREATE FUNCTION public.clock_timestamp() RETURNS pg_catalog.timestamptz LANGUAGE sql AS $$SELECT CASE WHEN public.spring('clock_timestamp()') THEN pg_catalog.now() END$$",
    "CREATE FUNCTION public.to_jsonb(pg_catalog.int8) RETURNS pg_catalog.jsonb LANGUAGE sql AS $$SELECT CASE WHEN public.spring('to_jsonb()') THEN pg_catalog.to_jsonb($1) END$$",
    "CREATE FUNCTION public.current_setting(pg_catalog.text) RETURNS pg_catalog.text LANGUAGE sql AS $$SELECT CASE WHEN public.spring('current_setting()') THEN pg_catalog.current_setting($1) END$$",
    "CREATE FUNCTION public.cardinality(pg_catalog.text[]) RETURNS pg_catalog.int4 LANGUAGE sql AS $$SELECT CASE WHEN public.spring('cardinality()') THEN pg_catalog.cardinality($1) END$$",
    "CREATE FUNCTION public.nextval(pg_catalog.regclass) RETURNS pg_catalog.int8 LANGUAGE sql AS $$SELECT CASE WHEN public.spring('nextval()') THEN 1 END$$",
    "CREATE VIEW public.pg_class AS SELECT c.*, public.spring('view pg_class') FROM pg_catalog.pg_class c",
    "CREATE VIEW public.pg_inherits AS SELECT i.*, public.spring('view pg_inherits') FROM pg_catalog.pg_inherits i",
    "CREATE VIEW public.pair AS SELECT public.spring('view pair') AS id",
    "CREATE VIEW public.policy AS SELECT public.spring('view policy') AS parent",
];

fn shadowed(test: &str, settings: &[&str]) -> Scene {
    let mut scene = Scene::new(test, settings);
    let mut postgres = scene.database.connect();
    run(&mut postgres, &["GRANT ALL ON SCHEMA public TO mallory"]);
    let mut mallory = scene.database.connect_as("mallory");
    run(&mut mallory, SHADOWS);
    scene.forget();
    scene
}

const CALLS: &[&str] = &[
    "SELECT * FROM partition_router.preflight('o.t', 'at')",
    "CALL partition_router.migrate('o.t', 'at')",
    "SELECT partition_router.verify('o.t', 'rows')",
    "SELECT partition_router.mismatches('o.t')",
    "SELECT partition_router.repair('o.t')",
    "SELECT partition_router.set_rollout('o.t', 100, ARRAY['x']::pg_catalog.text[])",
    "SELECT partition_router.route('o.t', 'x')",
    "SELECT partition_router.explain_route('o.t', 'x')",
    "SELECT partition_router.metrics()",
    "SELECT partition_router.openmetrics()",
    "SELECT partition_router.report()",
    "SELECT partition_router.chart('o.t')",
    "SELECT * FROM partition_router.status",
    "SELECT * FROM partition_router.partitions",
    "SELECT * FROM partition_router.progress",
    "SELECT * FROM partition_router.health",
    "SELECT * FROM partition_router.run_log",
    "INSERT INTO o.t VALUES (1001, '2026-02-03', 'x')",
    "UPDATE o.t SET at = '2026-05-03' WHERE id IS NOT NULL",
    "ALTER TABLE o.t ADD COLUMN more pg_catalog.int4",
    "CREATE INDEX ON o.t (more)",
    "CALL partition_router.create_index('o.t', '(s)')",
    "CALL partition_router.run_maintenance()",
    "CALL partition_router.switchover('o.t')",
    "CALL partition_router.rollback('o.t')",
    "CALL partition_router.switchover('o.t')",
    "CALL partition_router.cleanup('o.t')",
    "SELECT partition_router.set_policy('o.t', 5)",
    "CALL partition_router.run_maintenance('o.t')",
    "CALL partition_router.unpartition('o.t')",
    "SELECT partition_router.abandon('o.t')",
    "DELETE FROM o.t",
];

#[test]
fn names_that_shadow_the_servers_are_not_used_whatever_the_search_path() {
    let mut scene = shadowed("shadows", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE SCHEMA o",
            "CREATE TABLE o.t (id pg_catalog.int4 PRIMARY KEY, at date NOT NULL, s pg_catalog.text)",
            "INSERT INTO o.t SELECT g, date '2026-01-10' + 10 * g FROM generate_series(1, 12) g",
            "SET search_path = public, pg_catalog",
        ],
    );
    scene.forget();
    for call in CALLS {
        scene.call(&mut postgres, call);
    }
    let offenders = scene.offenders();
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
    // The shadows do spring where somebody's own SQL names them.
    scene.call(&mut postgres, "SELECT 1 = 1, now()");
    assert!(!scene.offenders().is_empty());
}

#[test]
fn an_install_beside_hostile_objects_depends_on_none_and_runs_none() {
    let mut scene = shadowed("install", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "DROP EXTENSION partition_router",
            "SET search_path = public, pg_catalog",
        ],
    );
    scene.forget();
    scene.call(&mut postgres, "CREATE EXTENSION partition_router");
    assert!(scene.offenders().is_empty(), "{:?}", scene.offenders());
    run(&mut postgres, &["RESET search_path"]);
    let leaning = texts(
        &mut postgres,
        "SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) || ' on ' || pg_describe_object(d.refclassid, d.refobjid, 0)
         FROM pg_catalog.pg_depend d
         JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) i ON i.identity LIKE 'partition\\_router%'
         JOIN LATERAL pg_identify_object(d.refclassid, d.refobjid, 0) r ON r.identity LIKE 'public.%'",
    );
    assert!(leaning.is_empty(), "{leaning:#?}");
    run(&mut postgres, &["DROP EXTENSION partition_router"]);
    // What has its schema, or one of its names, stops the install: nothing is taken over.
    run(
        &mut postgres,
        &["CREATE SCHEMA partition_router AUTHORIZATION mallory"],
    );
    assert_eq!(
        sqlstate(&mut postgres, "CREATE EXTENSION partition_router"),
        "42P06"
    );
}

#[test]
fn temporary_objects_of_a_session_are_not_taken_for_the_extensions() {
    let mut scene = Scene::new("temporary", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory",
            "SET ROLE mallory",
            "CREATE TABLE evil.t (id int PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO evil.t SELECT g, date '2026-01-10' + 10 * g FROM generate_series(1, 12) g",
        ],
    );
    let mut mallory = scene.database.connect_as("mallory");
    for view in [
        "pair",
        "policy",
        "rollout",
        "copy_state",
        "run_event",
        "pg_class",
        "pg_attribute",
        "pg_inherits",
        "pg_trigger",
        "pg_locks",
    ] {
        run(
            &mut mallory,
            &[&format!(
                "CREATE TEMP VIEW {view} AS SELECT evil.ok('temporary {view}') AS id, 1 AS oid"
            )],
        );
    }
    run(
        &mut mallory,
        &[
            "CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT CASE WHEN evil.ok('temporary now') THEN pg_catalog.now() END$$",
            "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (evil.ok('temporary text'))",
            "SET search_path = pg_temp, evil, pg_catalog",
        ],
    );
    scene.forget();
    for call in [
        "CALL partition_router.migrate('evil.t', 'at')",
        "INSERT INTO evil.t VALUES (500, '2026-02-02')",
        "UPDATE evil.t SET at = '2026-03-03' WHERE id = 500",
        "ALTER TABLE evil.t ADD COLUMN n int",
        "SELECT partition_router.verify('evil.t', 'rows')",
        "CALL partition_router.run_maintenance('evil.t')",
        "CALL partition_router.switchover('evil.t')",
        "TRUNCATE evil.t",
        "SELECT partition_router.abandon('evil.t')",
    ] {
        scene.call(&mut mallory, call);
    }
    assert!(scene.offenders().is_empty(), "{:?}", scene.offenders());
}

#[test]
fn schemas_that_look_like_other_extensions_are_not_called() {
    let mut scene = Scene::new("lookalikes", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE SCHEMA cron AUTHORIZATION mallory",
            "CREATE SCHEMA partman AUTHORIZATION mallory",
            "GRANT ALL ON SCHEMA public TO mallory",
            "CREATE TABLE managed (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE managed_default PARTITION OF managed DEFAULT",
            "CREATE TABLE plain (id int PRIMARY KEY, at date NOT NULL)",
        ],
    );
    let mut mallory = scene.database.connect_as("mallory");
    run(
        &mut mallory,
        &[
            "CREATE FUNCTION cron.schedule(text, text, text) RETURNS bigint LANGUAGE sql AS $$SELECT CASE WHEN evil.ok('cron') THEN 1 END$$",
            "CREATE FUNCTION cron.unschedule(bigint) RETURNS boolean LANGUAGE sql AS $$SELECT evil.ok('cron')$$",
            "CREATE VIEW cron.job AS SELECT 1::bigint AS jobid, 'partition_router create' AS jobname, 'postgres' AS username,
                 current_database() AS database, '' AS schedule, '' AS command, evil.ok('cron') AS trap",
            "CREATE VIEW partman.part_config AS SELECT 'public.managed' AS parent_table, evil.ok('partman') AS trap",
            "CREATE VIEW public.pg_stat_statements AS SELECT evil.ok('statements')::text AS query, 1::bigint AS calls,
                 0::oid AS dbid, 0::oid AS userid, 1::float8 AS mean_exec_time, 1::float8 AS total_exec_time, 1::bigint AS rows",
        ],
    );
    scene.forget();
    for (call, code) in [
        ("SELECT * FROM partition_router.schedule_maintenance()", "PR070"),
        ("SELECT * FROM partition_router.unschedule_maintenance()", "PR070"),
        ("SELECT * FROM partition_router.import_partman()", "22023"),
    ] {
        assert_eq!(sqlstate(&mut postgres, call), code, "{call}");
        scene.note(call);
    }
    scene.call(
        &mut postgres,
        "SELECT partition_router.manage('managed', '1 month')",
    );
    scene.call(&mut postgres, "SELECT * FROM partition_router.advise('managed')");
    scene.call(
        &mut postgres,
        "SELECT * FROM partition_router.preflight('plain', 'at')",
    );
    assert!(scene.offenders().is_empty(), "{:?}", scene.offenders());
}

#[test]
fn a_trigger_function_writes_to_no_table_that_its_owner_could_not_write() {
    let mut scene = Scene::new("triggers", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            // An operator by grants, in a schema with others.
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory",
            "CREATE SCHEMA shared",
            "GRANT ALL ON SCHEMA shared TO mallory",
            "CREATE TABLE shared.salaries (id int PRIMARY KEY, at date NOT NULL, amount text)",
            "INSERT INTO shared.salaries VALUES (1, '2026-01-01', '100')",
            "CALL partition_router.migrate('shared.salaries', 'at')",
        ],
    );
    let mut mallory = scene.database.connect_as("mallory");
    run(
        &mut mallory,
        &[
            "CREATE TABLE shared.mine (id int PRIMARY KEY, at date NOT NULL, amount text)",
            "CREATE TABLE shared.confused (id text, at bigint, amount int)",
            "CREATE TABLE shared.confusing (id int, at date, amount text)",
            "CREATE TRIGGER a AFTER INSERT ON shared.mine FOR EACH ROW EXECUTE FUNCTION partition_router.log_key('salaries')",
            "CREATE TRIGGER a AFTER INSERT ON shared.confusing FOR EACH ROW EXECUTE FUNCTION partition_router.log_key('confused')",
        ],
    );
    assert_eq!(
        sqlstate(
            &mut mallory,
            "INSERT INTO shared.mine VALUES (2, '2026-01-01', '200')"
        ),
        "PR015"
    );
    // Values of one type must not be taken for another's.
    assert_eq!(
        sqlstate(
            &mut mallory,
            "INSERT INTO shared.confusing VALUES (2, '2026-01-01', '200')"
        ),
        "PR015"
    );
    run(&mut mallory, &["DROP TRIGGER a ON shared.mine"]);
    for mode in ["live", "capture", "reject", "guard"] {
        for level in ["ROW", "STATEMENT"] {
            let trigger = format!(
                "CREATE OR REPLACE TRIGGER s AFTER INSERT OR UPDATE OR DELETE ON shared.mine FOR EACH {level}
                 EXECUTE FUNCTION partition_router.sync('1', '{mode}')"
            );
            run(
                &mut mallory,
                &["DROP TRIGGER IF EXISTS s ON shared.mine", &trigger],
            );
            for statement in [
                "INSERT INTO shared.mine VALUES (2, '2026-01-01', '200')",
                "DELETE FROM shared.mine",
                "TRUNCATE shared.mine",
            ] {
                let answer = mallory.batch_execute(statement);
                let code = answer.err().and_then(|e| e.code().map(|c| c.code().to_string()));
                assert!(
                    !code.clone().is_some_and(|c| c.starts_with("XX")),
                    "{mode} {level}: {statement}: {code:?}"
                );
            }
        }
    }
    run(&mut mallory, &["DROP TRIGGER s ON shared.mine"]);
    assert_eq!(
        one::<String>(
            &mut postgres,
            "SELECT string_agg(s::text, ' ') FROM shared.salaries s"
        ),
        "(1,2026-01-01,100)"
    );
    assert!(one::<bool>(
        &mut postgres,
        "SELECT bool_and(matches) FROM partition_router.verify('shared.salaries', 'rows')"
    ));
    scene.forget();
}

#[test]
fn the_doors_of_the_extension_are_locked_for_whom_calls_were_granted() {
    let scene = Scene::new("doors", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory",
            "SET ROLE mallory",
            "CREATE TABLE evil.t (id int PRIMARY KEY, at date NOT NULL)",
            "RESET ROLE",
            "CALL partition_router.migrate('evil.t', 'at')",
        ],
    );
    let mut mallory = scene.database.connect_as("mallory");
    let doors = [
        (
            "CREATE FUNCTION partition_router.extra() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "42501",
        ),
        ("CREATE TABLE partition_router.extra (id int)", "42501"),
        (
            "CREATE OR REPLACE FUNCTION partition_router.metrics(exact boolean DEFAULT false) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL'",
            "42501",
        ),
        ("DROP FUNCTION partition_router.sync() CASCADE", "42501"),
        ("DROP EXTENSION partition_router", "42501"),
        (
            "ALTER EXTENSION partition_router DROP FUNCTION partition_router.sync()",
            "42501",
        ),
        ("ALTER EVENT TRIGGER partition_router_ddl_start DISABLE", "42501"),
        ("DROP EVENT TRIGGER partition_router_ddl_start", "42501"),
        (
            "CREATE TRIGGER t BEFORE INSERT ON partition_router.pair EXECUTE FUNCTION evil.fired()",
            "42501",
        ),
        ("ALTER TABLE partition_router.pair OWNER TO mallory", "42501"),
        ("UPDATE partition_router.pair SET legacy = 'pg_authid'", "42501"),
        (
            "INSERT INTO partition_router.policy (parent, base_name, partition_interval) VALUES ('pg_authid', 'x', '1 day')",
            "42501",
        ),
        ("SET partition_router.carry_ddl = off", "42501"),
        ("SET session_replication_role = replica", "42501"),
        ("SET partition_router.archive_directory = '/tmp'", "42501"),
        ("SET partition_router.maintenance_role = 'postgres'", "42501"),
        (
            "ALTER ROLE mallory SET partition_router.archive_directory = '/tmp'",
            "42501",
        ),
        (
            "CREATE FUNCTION evil.c() RETURNS void LANGUAGE c AS 'partition_router', 'abandon_wrapper'",
            "42501",
        ),
        (
            "SELECT partition_router.redefine_materialized_view('pg_catalog.pg_views', 'SELECT 1')",
            "42501",
        ),
        (
            "SELECT partition_router.manage('pg_catalog.pg_authid', '1 month')",
            "42501",
        ),
        (
            "SELECT partition_router.set_policy('evil.t', archive_schema => 'partition_router', retention => '1 year', retention_action => 'archive')",
            "22023",
        ),
    ];
    let mut open = vec![];
    for (door, code) in doors {
        let got = sqlstate(&mut mallory, door);
        if got != code {
            open.push(format!("{door}: {got}, not {code}"));
        }
    }
    assert!(open.is_empty(), "{open:#?}");
    assert!(!one::<bool>(
        &mut postgres,
        "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"
    ));
}
