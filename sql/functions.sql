-- The SQL surface: one declaration, comment and grant a function. search_path is pinned in each.

CREATE FUNCTION partition_router.sync() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'sync_trigger';
COMMENT ON FUNCTION partition_router.sync() IS 'trigger function of the dual write; installed by start_sync()';
-- PUBLIC keeps EXECUTE: whoever adds a partition to a pair's twin gets the root's row trigger on it, and PostgreSQL asks them for the
-- right to its function. It does nothing but as a trigger, and for no table but those of the pair that it names.

CREATE FUNCTION partition_router.is_replication_worker() RETURNS boolean
     LANGUAGE c STRICT STABLE PARALLEL SAFE
     AS 'MODULE_PATHNAME', 'is_replication_worker_wrapper';
COMMENT ON FUNCTION partition_router.is_replication_worker() IS 'whether this backend is a worker of logical replication: its row triggers carry the changes';

CREATE FUNCTION partition_router.preflight(legacy regclass, partition_key name, strategy text DEFAULT 'range') RETURNS TABLE (severity text, code text, message text, hint text)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'preflight_wrapper';
COMMENT ON FUNCTION partition_router.preflight(regclass, name, text) IS 'what would stop or surprise a migration of this table; changes nothing';
REVOKE ALL ON FUNCTION partition_router.preflight(regclass, name, text) FROM PUBLIC;

CREATE FUNCTION partition_router.create_twin(
     legacy regclass,
     partition_key name,
     strategy text DEFAULT 'range',
     partition_interval text DEFAULT '1 month',
     partitions int DEFAULT 16,
     premake int DEFAULT 3,
     twin name DEFAULT NULL,
     dry_run boolean DEFAULT false,
     keep_unique boolean DEFAULT false,
     origin text DEFAULT NULL
) RETURNS TABLE (step int, action text, statement text)
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'create_twin_wrapper';
COMMENT ON FUNCTION partition_router.create_twin(regclass, name, text, text, int, int, name, boolean, boolean, text) IS 'makes the partitioned twin of a table, empty, and returns the steps; a dry run only says how';
REVOKE ALL ON FUNCTION partition_router.create_twin(regclass, name, text, text, int, int, name, boolean, boolean, text) FROM PUBLIC;

CREATE FUNCTION partition_router.start_sync(relation regclass) RETURNS void
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'start_sync_wrapper';
COMMENT ON FUNCTION partition_router.start_sync(regclass) IS 'installs the sync triggers: from now on changes are captured; an empty legacy goes live at once';
REVOKE ALL ON FUNCTION partition_router.start_sync(regclass) FROM PUBLIC;

CREATE FUNCTION partition_router.verify(relation regclass, level text DEFAULT 'checksum', "full" boolean DEFAULT false) RETURNS TABLE (
     partition regclass,
     legacy_rows bigint,
     twin_rows bigint,
     legacy_checksum text,
     twin_checksum text,
     matches boolean
)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'verify_wrapper';
COMMENT ON FUNCTION partition_router.verify(regclass, text, boolean) IS 'compares both sides in one snapshot, by counts, checksum or rows, and records the result; full reads also what is known not to have changed';
REVOKE ALL ON FUNCTION partition_router.verify(regclass, text, boolean) FROM PUBLIC;

CREATE FUNCTION partition_router.mismatches(relation regclass, max_rows int DEFAULT 100) RETURNS TABLE (kind text, key jsonb, legacy jsonb, twin jsonb, columns text[])
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'mismatches_wrapper';
COMMENT ON FUNCTION partition_router.mismatches(regclass, int) IS 'the rows that differ: missing or extra on the twin, or different, and in which columns';
REVOKE ALL ON FUNCTION partition_router.mismatches(regclass, int) FROM PUBLIC;

CREATE FUNCTION partition_router.repair(relation regclass, dry_run boolean DEFAULT false) RETURNS TABLE (inserted bigint, updated bigint, deleted bigint)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'repair_wrapper';
COMMENT ON FUNCTION partition_router.repair(regclass, boolean) IS 'makes the side that is not authoritative equal again, row by row under lock';
REVOKE ALL ON FUNCTION partition_router.repair(regclass, boolean) FROM PUBLIC;

-- Runs no SQL, so it needs no search_path: to pin one would take longer than to decide.
CREATE FUNCTION partition_router.route(relation regclass, tenant text DEFAULT NULL, use_partitioned boolean DEFAULT NULL) RETURNS regclass
     LANGUAGE c STABLE
     AS 'MODULE_PATHNAME', 'route_wrapper';
COMMENT ON FUNCTION partition_router.route(regclass, text, boolean) IS 'the table to read now, for this tenant; use_partitioned overrides rollout and setting';

CREATE FUNCTION partition_router.explain_route(relation regclass, tenant text DEFAULT NULL) RETURNS TABLE (target regclass, reason text)
     LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'explain_route_wrapper';
COMMENT ON FUNCTION partition_router.explain_route(regclass, text) IS 'the table to read now, for this tenant, and why';

CREATE FUNCTION partition_router.set_rollout(
     relation regclass,
     percent int DEFAULT NULL,
     pilots text[] DEFAULT NULL,
     excluded text[] DEFAULT NULL,
     tenant_column name DEFAULT NULL
) RETURNS void
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'set_rollout_wrapper';
COMMENT ON FUNCTION partition_router.set_rollout(regclass, int, text[], text[], name) IS 'who reads the twin: pilots, then a stable share of tenants; NULL keeps a value';
REVOKE ALL ON FUNCTION partition_router.set_rollout(regclass, int, text[], text[], name) FROM PUBLIC;

-- These two take the SQL of whoever calls, and so its search_path; they name nothing themselves.
CREATE FUNCTION partition_router.explain_route_query(sql text) RETURNS TABLE (relation regclass, target regclass, tenant text, reason text)
     LANGUAGE c STRICT STABLE
     AS 'MODULE_PATHNAME', 'explain_route_query_wrapper';
COMMENT ON FUNCTION partition_router.explain_route_query(text) IS 'what each place of a query that names a legacy would read, for this session, and why; runs nothing';

CREATE FUNCTION partition_router.compare_plans(sql text) RETURNS TABLE (
     side text,
     cost double precision,
     milliseconds double precision,
     row_count bigint,
     buffers_hit bigint,
     buffers_read bigint,
     partitions bigint,
     plan jsonb
)
     LANGUAGE c STRICT VOLATILE
     AS 'MODULE_PATHNAME', 'compare_plans_wrapper';
COMMENT ON FUNCTION partition_router.compare_plans(text) IS 'runs a query on the legacy and on the twin, as the caller, and says what each took and how many partitions were read';

CREATE FUNCTION partition_router.routing_counts() RETURNS TABLE (legacy regclass, target regclass, reason text, decisions bigint)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'routing_counts_wrapper';
COMMENT ON FUNCTION partition_router.routing_counts() IS 'internal: the rows of the view routing_stats';
REVOKE ALL ON FUNCTION partition_router.routing_counts() FROM PUBLIC;

CREATE FUNCTION partition_router.calls_at_work() RETURNS TABLE (
     pid int,
     relation regclass,
     call text,
     stage text,
     done bigint,
     total bigint,
     unit text,
     rate double precision,
     seconds_left double precision,
     blocked_by text,
     began double precision
)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'calls_at_work_wrapper';
COMMENT ON FUNCTION partition_router.calls_at_work() IS 'internal: the rows of the view calls';
REVOKE ALL ON FUNCTION partition_router.calls_at_work() FROM PUBLIC;

CREATE FUNCTION partition_router.reset_routing_stats() RETURNS void
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'reset_routing_stats_wrapper';
COMMENT ON FUNCTION partition_router.reset_routing_stats() IS 'begins to count routing decisions again, in this database';
REVOKE ALL ON FUNCTION partition_router.reset_routing_stats() FROM PUBLIC;

CREATE FUNCTION partition_router.abandon(relation regclass, dry_run boolean DEFAULT false) RETURNS void
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'abandon_wrapper';
COMMENT ON FUNCTION partition_router.abandon(regclass, boolean) IS 'ends the migration and goes back to the legacy alone: drops the twin and every trigger';
REVOKE ALL ON FUNCTION partition_router.abandon(regclass, boolean) FROM PUBLIC;

CREATE FUNCTION partition_router.plan(operation text, relation regclass) RETURNS TABLE (step int, action text, statement text)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'plan_wrapper';
COMMENT ON FUNCTION partition_router.plan(text, regclass) IS 'the plan of start_sync, backfill, switchover, rollback, cleanup, abandon or run_maintenance as rows; changes nothing';
REVOKE ALL ON FUNCTION partition_router.plan(text, regclass) FROM PUBLIC;

CREATE FUNCTION partition_router.migrate_check(legacy regclass) RETURNS void
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'migrate_check_wrapper';
COMMENT ON FUNCTION partition_router.migrate_check(regclass) IS 'internal: refuses a table that is migrated already';
REVOKE ALL ON FUNCTION partition_router.migrate_check(regclass) FROM PUBLIC;

CREATE FUNCTION partition_router.migrate_step(
     legacy regclass,
     partition_key name,
     strategy text,
     partition_interval text,
     partitions int,
     premake int,
     twin name,
     keep_unique boolean,
     origin text
) RETURNS boolean
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'migrate_step_wrapper';
COMMENT ON FUNCTION partition_router.migrate_step(regclass, name, text, text, int, int, name, boolean, text) IS 'internal: the next step of migrate(); false when there is none';
REVOKE ALL ON FUNCTION partition_router.migrate_step(regclass, name, text, text, int, int, name, boolean, text) FROM PUBLIC;

CREATE FUNCTION partition_router.backfill_step(relation regclass, batch_rows int, pause interval DEFAULT '0') RETURNS boolean
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'backfill_step_wrapper';
COMMENT ON FUNCTION partition_router.backfill_step(regclass, int, interval) IS 'internal: the next step of backfill(); false when there is none';
REVOKE ALL ON FUNCTION partition_router.backfill_step(regclass, int, interval) FROM PUBLIC;

CREATE FUNCTION partition_router.muster_workers(relation regclass, batch_rows int, pause interval) RETURNS void
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'muster_workers_wrapper';
COMMENT ON FUNCTION partition_router.muster_workers(regclass, int, interval) IS 'internal: starts the background workers of a backfill, as many as partition_router.backfill_workers asks for beside the session';
REVOKE ALL ON FUNCTION partition_router.muster_workers(regclass, int, interval) FROM PUBLIC;

CREATE FUNCTION partition_router.dismiss_workers() RETURNS void
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'dismiss_workers_wrapper';
COMMENT ON FUNCTION partition_router.dismiss_workers() IS 'internal: ends the background workers that this session has started';
REVOKE ALL ON FUNCTION partition_router.dismiss_workers() FROM PUBLIC;
