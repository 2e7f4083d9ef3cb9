//! What people and machines see, and what of the SQL surface there is.

mod common;

use common::{Database, migrated_revenues, one, plant, run, sqlstate, texts};
use postgres::Client;

const TABLES: &[&str] = &[
    "CREATE TABLE revenues (id serial PRIMARY KEY, at date NOT NULL)",
    "INSERT INTO revenues (at) SELECT date '2026-08-01' + g FROM generate_series(1, 90) g",
];

const VIEWS: [&str; 17] = [
    "calls",
    "change_feeds",
    "status",
    "partitions",
    "policies",
    "holds",
    "progress",
    "health",
    "run_log",
    "maintenance_log",
    "routing_stats",
    "shadow_reads",
    "table_metrics",
    "pair_metrics",
    "replica_metrics",
    "slot_metrics",
    "standby_metrics",
];

fn live(name: &str) -> (Database, Client) {
    migrated_revenues(name, TABLES)
}

#[test]
fn metrics_have_the_shape_of_the_design() {
    let (_database, mut client) = live("metrics");
    let c = &mut client;
    let partitions: i64 = one(
        c,
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'revenues_partitioned'::regclass",
    );
    let table = "SELECT (SELECT jsonb_object_agg(key, value) FROM jsonb_each(partition_router.metrics() #> '{tables,0}')
        WHERE key IN ('name', 'partitionCount', 'legacyCount', 'partitionedCount', 'rowCountDelta', 'triggers'))
        = jsonb_build_object('name', 'revenues', 'partitionCount', $P, 'legacyCount', $L, 'partitionedCount', $T,
            'rowCountDelta', $L - $T, 'triggers', '[\"INSERT\", \"UPDATE\", \"DELETE\"]'::jsonb)";
    let shape = |l: i64, t: i64| {
        table
            .replace("$P", &partitions.to_string())
            .replace("$L", &l.to_string())
            .replace("$T", &t.to_string())
    };
    assert!(one::<bool>(c, &shape(90, 90)));
    plant(c, "revenues", &["DELETE FROM revenues WHERE id = 1"]);
    assert!(one::<bool>(c, &shape(89, 90)));
    let types = "SELECT string_agg(key || ' ' || jsonb_typeof(value), ', ' ORDER BY key) FROM jsonb_each(partition_router.metrics())";
    assert_eq!(
        one::<String>(c, types),
        "partitionedTablesEnabled boolean, replication object, tables array, timestamp string"
    );
    assert!(one::<bool>(
        c,
        "SELECT m ->> 'timestamp' ~ '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z$'
            AND (m ->> 'timestamp')::timestamptz BETWEEN now() - interval '1 minute' AND now() + interval '1 minute'
         FROM partition_router.metrics() m"
    ));
    let enabled = "SELECT (partition_router.metrics() ->> 'partitionedTablesEnabled')::boolean";
    assert!(!one::<bool>(c, enabled));
    run(c, &["SET partition_router.use_partitioned_tables = on"]);
    assert!(one::<bool>(c, enabled));
    run(c, &["SET partition_router.enable_partition_routing = off"]);
    assert!(!one::<bool>(c, enabled));
}

#[test]
fn metrics_and_health_see_a_disabled_trigger() {
    let (_database, mut client) = live("disabled");
    let c = &mut client;
    let events = "SELECT partition_router.metrics() #>> '{tables,0,triggers}'";
    let valid = "SELECT (partition_router.verify_partitions() ->> 'valid')::boolean";
    assert!(one::<bool>(c, valid));
    run(
        c,
        &[
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE revenues DISABLE TRIGGER sync_to_partitioned_revenues_u",
        ],
    );
    assert_eq!(one::<String>(c, events), "[\"INSERT\", \"DELETE\"]");
    assert!(!one::<bool>(c, valid));
    let failing = "SELECT \"check\" || ' ' || status FROM partition_router.health WHERE status <> 'ok'";
    assert_eq!(texts(c, failing), ["sync fail"]);
    // ENABLE is not enough: a session in replica mode would not fire it.
    run(
        c,
        &["ALTER TABLE revenues ENABLE TRIGGER sync_to_partitioned_revenues_u"],
    );
    assert_eq!(texts(c, failing), ["sync fail"]);
    run(
        c,
        &["ALTER TABLE revenues ENABLE ALWAYS TRIGGER sync_to_partitioned_revenues_u"],
    );
    assert!(texts(c, failing).is_empty());
}

#[test]
fn health_tells_what_to_do_in_every_phase() {
    let database = Database::new("health");
    let mut client = database.connect();
    let c = &mut client;
    run(c, TABLES);
    let phase = "SELECT concat_ws('|', status, mend) FROM partition_router.health WHERE \"check\" = 'phase'";
    run(c, &["SELECT partition_router.create_twin('revenues', 'at')"]);
    for expected in ["start_sync", "backfill"] {
        let row: String = one(c, phase);
        let (status, mend) = row.split_once('|').expect("a mend");
        assert_eq!(status, "warn");
        assert!(mend.contains(expected), "{mend}");
        run(c, &[mend]);
    }
    assert_eq!(one::<String>(c, phase), "ok");
    let parity =
        "SELECT concat_ws('|', status, mend) FROM partition_router.health WHERE \"check\" = 'parity'";
    let row: String = one(c, parity);
    let (status, mend) = row.split_once('|').expect("a mend");
    assert_eq!(status, "fail");
    run(c, &[mend]);
    assert_eq!(one::<String>(c, parity), "ok");
}

#[test]
fn status_partitions_and_progress_tell_what_there_is() {
    let (_database, mut client) = live("views");
    let c = &mut client;
    assert_eq!(
        one::<String>(
            c,
            "SELECT concat_ws(' ', legacy, twin, phase, strategy, partition_key, partition_interval, live_at IS NOT NULL,
                verified_at IS NOT NULL, verified_level, rollout_percent) FROM partition_router.status"
        ),
        "revenues revenues_partitioned live range at 1 month t t checksum 0"
    );
    assert_eq!(
        one::<String>(
            c,
            "SELECT concat_ws(' ', phase, stage, rows_done, rows_total, percent) FROM partition_router.progress"
        ),
        "live done 90 90 100.0"
    );
    assert_eq!(
        one::<String>(
            c,
            "SELECT string_agg(partition::text, ' ') FROM partition_router.partitions WHERE is_default"
        ),
        "revenues_default"
    );
    assert!(one::<bool>(
        c,
        "SELECT count(*) = (SELECT partitions FROM partition_router.status) AND bool_and(bounds IS NOT NULL AND total_bytes > 0)
         FROM partition_router.partitions"
    ));
    let stages = texts(
        c,
        "SELECT operation || ' ' || stage FROM partition_router.run_log ORDER BY id",
    );
    for stage in ["create_twin PREPARED", "backfill LIVE", "verify PASSED"] {
        assert!(stages.iter().any(|s| s == stage), "{stages:?}");
    }
}

#[test]
fn a_monitor_without_other_rights_sees_everything() {
    let (database, mut client) = live("monitor");
    let role = format!("monitor_{}", database.name);
    run(
        &mut client,
        &[
            "CREATE SCHEMA hidden",
            "CREATE TABLE hidden.t (id int PRIMARY KEY, at date NOT NULL)",
            "CALL partition_router.migrate('hidden.t', 'at')",
            &format!("CREATE ROLE {role} LOGIN IN ROLE pg_monitor"),
        ],
    );
    let mut monitor = database.connect_as(&role);
    let m = &mut monitor;
    for dropped in [false, true] {
        if dropped {
            run(
                &mut client,
                &[
                    "SET partition_router.carry_ddl = off",
                    "DROP TABLE revenues CASCADE",
                    "DROP TABLE hidden.t_partitioned",
                ],
            );
        }
        for view in VIEWS {
            run(m, &[&format!("SELECT * FROM partition_router.{view}")]);
        }
        assert_eq!(one::<i64>(m, "SELECT count(*) FROM partition_router.status"), 2);
        let tables = "SELECT jsonb_array_length(partition_router.metrics() -> 'tables')";
        assert_eq!(one::<i32>(m, tables), 2);
        let valid = "SELECT (partition_router.verify_partitions() ->> 'valid')::boolean";
        assert_eq!(one::<bool>(m, valid), !dropped);
    }
    for statement in [
        "SELECT * FROM partition_router.pair",
        "SELECT partition_router.abandon('revenues_partitioned')",
        "SELECT * FROM revenues_partitioned",
    ] {
        assert_eq!(sqlstate(m, statement), "42501", "{statement}");
    }
    drop(monitor);
    run(&mut client, &[&format!("DROP ROLE {role}")]);
}

#[test]
fn a_monitor_sees_every_part_of_every_policy_and_who_holds_what() {
    let (database, mut client) = live("policies");
    let role = format!("watcher_{}", database.name);
    run(
        &mut client,
        &[
            &format!("CREATE ROLE {role} LOGIN IN ROLE pg_monitor"),
            "CREATE TABLE visits (at timestamptz NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE visits_default PARTITION OF visits DEFAULT",
            "CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
            "INSERT INTO visits VALUES ('infinity')",
            "SELECT partition_router.manage('visits', '1 month', premake => 5, retention => '2 years', retention_action => 'detach',
                 min_partitions => 2, template => 'visits_old')",
            "SELECT partition_router.hold('visits_old', 'case 17')",
            "CALL partition_router.run_maintenance('visits')",
        ],
    );
    // A column that joins the policy joins the view.
    assert_eq!(
        texts(
            &mut client,
            "SELECT attname::text FROM pg_attribute WHERE attrelid = 'partition_router.policy'::regclass AND attnum > 0
             EXCEPT SELECT attname::text FROM pg_attribute WHERE attrelid = 'partition_router.policies'::regclass"
        ),
        [""; 0]
    );
    let mut m = database.connect_as(&role);
    assert_eq!(
        texts(
            &mut m,
            "SELECT concat_ws(' | ', parent, partition_key, partition_interval, premake, retention, retention_action, min_partitions,
                 template, timezone, last_run_at > created_at, last_error, left_alone #>> '{0,rows}', left_alone #>> '{0,for_good}')
             FROM partition_router.policies ORDER BY parent::text"
        ),
        [
            "revenues_partitioned | RANGE (at) | 1 month | 3 | drop | 1 | UTC",
            "visits | RANGE (at) | 1 month | 5 | 2 years | detach | 2 | visits_old | UTC | t | 1 | true"
        ]
    );
    let holds = "SELECT concat_ws(' | ', partition, parent, reason, held_at <= now(), held_by) FROM partition_router.holds";
    assert_eq!(
        texts(&mut m, holds),
        ["visits_old | visits | case 17 | t | postgres"]
    );
    // Of what is gone nothing is left to see, before maintenance forgets it.
    run(&mut client, &["DROP TABLE visits"]);
    assert!(texts(&mut m, holds).is_empty());
    assert_eq!(
        one::<i64>(&mut m, "SELECT count(*) FROM partition_router.policies"),
        1
    );
    drop(m);
    run(&mut client, &[&format!("DROP ROLE {role}")]);
}

#[test]
fn the_sql_surface_has_the_names_and_defaults_of_the_design() {
    let database = Database::new("surface");
    let mut client = database.connect();
    for (name, arguments) in [
        (
            "migrate",
            "legacy regclass, partition_key name, strategy text DEFAULT 'range'::text, partition_interval text DEFAULT '1 month'::text, partitions integer DEFAULT 16, premake integer DEFAULT 3, twin name DEFAULT NULL::name, dry_run boolean DEFAULT false, keep_unique boolean DEFAULT false, origin text DEFAULT NULL::text",
        ),
        (
            "preflight",
            "legacy regclass, partition_key name, strategy text DEFAULT 'range'::text",
        ),
        (
            "create_twin",
            "legacy regclass, partition_key name, strategy text DEFAULT 'range'::text, partition_interval text DEFAULT '1 month'::text, partitions integer DEFAULT 16, premake integer DEFAULT 3, twin name DEFAULT NULL::name, dry_run boolean DEFAULT false, keep_unique boolean DEFAULT false, origin text DEFAULT NULL::text",
        ),
        ("start_sync", "relation regclass"),
        (
            "backfill",
            "relation regclass, batch_rows integer DEFAULT 50000, pause interval DEFAULT '00:00:00'::interval, max_duration interval DEFAULT NULL::interval",
        ),
        (
            "verify",
            "relation regclass, level text DEFAULT 'checksum'::text, \"full\" boolean DEFAULT false",
        ),
        ("mismatches", "relation regclass, max_rows integer DEFAULT 100"),
        ("repair", "relation regclass, dry_run boolean DEFAULT false"),
        (
            "route",
            "relation regclass, tenant text DEFAULT NULL::text, use_partitioned boolean DEFAULT NULL::boolean",
        ),
        (
            "explain_route",
            "relation regclass, tenant text DEFAULT NULL::text",
        ),
        (
            "set_rollout",
            "relation regclass, percent integer DEFAULT NULL::integer, pilots text[] DEFAULT NULL::text[], excluded text[] DEFAULT NULL::text[], tenant_column name DEFAULT NULL::name",
        ),
        ("abandon", "relation regclass, dry_run boolean DEFAULT false"),
        ("switchover", "relation regclass, dry_run boolean DEFAULT false"),
        ("rollback", "relation regclass, dry_run boolean DEFAULT false"),
        (
            "run_maintenance",
            "relation regclass DEFAULT NULL::regclass, dry_run boolean DEFAULT false, part text DEFAULT 'all'::text",
        ),
        (
            "schedule_maintenance",
            "create_schedule text DEFAULT '0 2 1 * *'::text, cleanup_schedule text DEFAULT '0 3 15 * *'::text",
        ),
        ("unschedule_maintenance", ""),
        ("metrics", "exact boolean DEFAULT false"),
        ("verify_partitions", ""),
        ("openmetrics", ""),
        ("report", ""),
        ("chart", "relation regclass"),
        ("plan", "operation text, relation regclass"),
    ] {
        let query = format!(
            "SELECT replace(pg_get_function_arguments(oid), 'IN ', '') FROM pg_proc
             WHERE pronamespace = 'partition_router'::regnamespace AND proname = '{name}'"
        );
        assert_eq!(texts(&mut client, &query), [arguments], "{name}");
    }
    // These may take more.
    for (name, arguments) in [
        (
            "manage",
            "parent regclass, partition_interval text, premake integer DEFAULT 3, retention interval DEFAULT NULL::interval",
        ),
        (
            "set_policy",
            "relation regclass, premake integer DEFAULT NULL::integer, retention interval DEFAULT NULL::interval, retention_action text DEFAULT NULL::text, archive_schema name DEFAULT NULL::name, timezone text DEFAULT NULL::text",
        ),
        (
            "create_partitions",
            "relation regclass, premake integer DEFAULT NULL::integer",
        ),
        (
            "create_range_partition",
            "relation regclass, partition name, lower text, upper text",
        ),
        ("drop_partition", "partition regclass"),
        ("cleanup", "relation regclass, dry_run boolean DEFAULT false"),
    ] {
        let query = format!(
            "SELECT replace(pg_get_function_arguments(oid), 'IN ', '') FROM pg_proc
             WHERE pronamespace = 'partition_router'::regnamespace AND proname = '{name}'"
        );
        let found = texts(&mut client, &query);
        assert_eq!(found.len(), 1, "{name}");
        assert!(
            found[0].replace('"', "").starts_with(arguments),
            "{name}: {found:?}"
        );
    }
    for (name, result) in [
        (
            "preflight",
            "TABLE(severity text, code text, message text, hint text)",
        ),
        ("create_twin", "TABLE(step integer, action text, statement text)"),
        ("plan", "TABLE(step integer, action text, statement text)"),
        (
            "verify",
            "TABLE(partition regclass, legacy_rows bigint, twin_rows bigint, legacy_checksum text, twin_checksum text, matches boolean)",
        ),
        (
            "mismatches",
            "TABLE(kind text, key jsonb, legacy jsonb, twin jsonb, columns text[])",
        ),
        ("repair", "TABLE(inserted bigint, updated bigint, deleted bigint)"),
        ("route", "regclass"),
        ("explain_route", "TABLE(target regclass, reason text)"),
        ("metrics", "jsonb"),
        ("verify_partitions", "jsonb"),
        ("openmetrics", "text"),
        ("report", "text"),
        (
            "chart",
            "TABLE(partition text, bounds text, estimated_rows bigint, size text, bar text)",
        ),
    ] {
        let query = format!("SELECT pg_get_function_result('partition_router.{name}'::regproc)");
        assert_eq!(
            one::<String>(&mut client, &query).replace('"', ""),
            result,
            "{name}"
        );
    }
    for name in [
        "migrate",
        "backfill",
        "run_maintenance",
        "switchover",
        "rollback",
        "cleanup",
    ] {
        let query =
            format!("SELECT prokind = 'p' FROM pg_proc WHERE oid = 'partition_router.{name}'::regproc");
        assert!(one::<bool>(&mut client, &query), "{name}");
    }
}

#[test]
fn everything_has_a_comment() {
    let database = Database::new("comments");
    let mut client = database.connect();
    let bare = texts(
        &mut client,
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'partition_router'::regnamespace
            AND coalesce(obj_description(oid, 'pg_proc'), '') = ''
         UNION ALL SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'partition_router'::regnamespace
            AND relkind IN ('r', 'v', 'm', 'p', 'f') AND coalesce(obj_description(oid, 'pg_class'), '') = ''
         UNION ALL SELECT evtname FROM pg_event_trigger WHERE coalesce(obj_description(oid, 'pg_event_trigger'), '') = ''
         UNION ALL SELECT 'the schema' WHERE obj_description('partition_router'::regnamespace, 'pg_namespace') IS NULL",
    );
    assert!(bare.is_empty(), "{bare:?}");
    for view in VIEWS {
        let kind =
            format!("SELECT relkind::text FROM pg_class WHERE oid = 'partition_router.{view}'::regclass");
        assert_eq!(one::<String>(&mut client, &kind), "v");
    }
}

#[test]
fn the_public_may_call_nothing_that_changes_state_and_read_no_table() {
    let database = Database::new("public");
    let mut client = database.connect();
    let allowed = texts(
        &mut client,
        "SELECT p.proname::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         WHERE p.pronamespace = 'partition_router'::regnamespace AND a.grantee = 0 ORDER BY 1",
    );
    assert_eq!(
        allowed,
        [
            "compare_plans",
            "explain_route",
            "explain_route_query",
            "is_replication_worker",
            "route",
            "sync"
        ]
    );
    let readable = texts(
        &mut client,
        "SELECT c.relname::text FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace = 'partition_router'::regnamespace AND a.grantee = 0",
    );
    assert!(readable.is_empty(), "{readable:?}");
    let create = "SELECT has_schema_privilege('public', 'partition_router', 'CREATE')";
    assert!(!one::<bool>(&mut client, create));
    // Functions pin the search_path that they run with, but for those that take SQL of the caller's, or run none.
    let unpinned = texts(
        &mut client,
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'partition_router'::regnamespace
         AND prokind = 'f' AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND proname NOT IN ('is_replication_worker', 'route', 'explain_route_query', 'compare_plans')
         AND NOT coalesce(proconfig::text, '') LIKE '%search_path=pg_catalog, pg_temp%'",
    );
    assert!(unpinned.is_empty(), "{unpinned:?}");
    let definers =
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'partition_router'::regnamespace AND prosecdef";
    assert_eq!(one::<i64>(&mut client, definers), 0);
}
