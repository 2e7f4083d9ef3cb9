-- The calls of maintenance. What changes something is for those whom an administrator lets: nothing is left to PUBLIC.

CREATE FUNCTION partition_router.manage(
    parent regclass,
    partition_interval text,
    premake int DEFAULT 3,
    retention interval DEFAULT NULL,
    retention_action text DEFAULT 'drop',
    archive_schema name DEFAULT NULL,
    timezone text DEFAULT 'UTC',
    retention_count int DEFAULT NULL,
    min_partitions int DEFAULT 1,
    dry_run boolean DEFAULT false,
    archive_format text DEFAULT NULL,
    archive_function regprocedure DEFAULT NULL,
    origin text DEFAULT NULL,
    template regclass DEFAULT NULL
) RETURNS void LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'manage_wrapper';
COMMENT ON FUNCTION partition_router.manage IS 'puts a table that is partitioned by range under maintenance, with no pair; or the partitions of one by hash or list, where they have ranges; template is a table that new partitions take after';
REVOKE ALL ON FUNCTION partition_router.manage FROM PUBLIC;

CREATE FUNCTION partition_router.set_policy(
    relation regclass,
    premake int DEFAULT NULL,
    retention interval DEFAULT NULL,
    retention_action text DEFAULT NULL,
    archive_schema name DEFAULT NULL,
    timezone text DEFAULT NULL,
    retention_count int DEFAULT NULL,
    min_partitions int DEFAULT NULL,
    dry_run boolean DEFAULT false,
    archive_format text DEFAULT NULL,
    archive_function regprocedure DEFAULT NULL,
    origin text DEFAULT NULL,
    template regclass DEFAULT NULL
) RETURNS void LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'set_policy_wrapper';
COMMENT ON FUNCTION partition_router.set_policy IS 'changes what maintenance does for a table; NULL keeps a value, and an empty origin or the table itself as template takes that back';
REVOKE ALL ON FUNCTION partition_router.set_policy FROM PUBLIC;

CREATE FUNCTION partition_router.create_partitions(
    relation regclass,
    premake int DEFAULT NULL,
    dry_run boolean DEFAULT false
) RETURNS SETOF text LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'create_partitions_wrapper';
COMMENT ON FUNCTION partition_router.create_partitions IS 'creates the partitions that are due now; gives their names';
REVOKE ALL ON FUNCTION partition_router.create_partitions FROM PUBLIC;

CREATE FUNCTION partition_router.create_range_partition(
    relation regclass,
    partition name,
    lower text,
    upper text,
    dry_run boolean DEFAULT false
) RETURNS void STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'create_range_partition_wrapper';
COMMENT ON FUNCTION partition_router.create_range_partition IS 'creates one partition by name, with rows of the default partition that belong to it; bounds are half-open, and MINVALUE or MAXVALUE where they are open';
REVOKE ALL ON FUNCTION partition_router.create_range_partition FROM PUBLIC;

CREATE FUNCTION partition_router.drop_partition(
    partition regclass,
    dry_run boolean DEFAULT false
) RETURNS void STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'drop_partition_wrapper';
COMMENT ON FUNCTION partition_router.drop_partition IS 'drops one partition by name; of a live pair only when it is empty';
REVOKE ALL ON FUNCTION partition_router.drop_partition FROM PUBLIC;

CREATE FUNCTION partition_router.hold(partition regclass, reason text DEFAULT NULL)
    RETURNS void LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'hold_wrapper';
COMMENT ON FUNCTION partition_router.hold IS 'lets neither retention nor drop_partition() take a partition away';
REVOKE ALL ON FUNCTION partition_router.hold FROM PUBLIC;

CREATE FUNCTION partition_router.release(partition regclass)
    RETURNS boolean STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'release_wrapper';
COMMENT ON FUNCTION partition_router.release IS 'ends the hold of a partition; false when there was none';
REVOKE ALL ON FUNCTION partition_router.release FROM PUBLIC;

CREATE FUNCTION partition_router.log_key() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'log_key';
COMMENT ON FUNCTION partition_router.log_key() IS 'trigger function: logs the keys of changed rows of a default partition that is drained';
REVOKE ALL ON FUNCTION partition_router.log_key() FROM PUBLIC;

CREATE FUNCTION partition_router.restore_archive(archive bigint)
    RETURNS regclass STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'restore_archive_wrapper';
COMMENT ON FUNCTION partition_router.restore_archive IS 'brings an archived partition back: filled, proven equal to what was archived, attached and held';
REVOKE ALL ON FUNCTION partition_router.restore_archive FROM PUBLIC;

CREATE FUNCTION partition_router.schedule_maintenance(
    create_schedule text DEFAULT '0 2 1 * *',
    cleanup_schedule text DEFAULT '0 3 15 * *'
) RETURNS TABLE(job_id bigint, job text, schedule text, command text)
    STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'schedule_maintenance_wrapper';
COMMENT ON FUNCTION partition_router.schedule_maintenance IS 'lets pg_cron create partitions and clean up, as the current user; a second call changes the schedules';
REVOKE ALL ON FUNCTION partition_router.schedule_maintenance FROM PUBLIC;

CREATE FUNCTION partition_router.unschedule_maintenance()
    RETURNS TABLE(job_id bigint, job text, schedule text, command text)
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'unschedule_maintenance_wrapper';
COMMENT ON FUNCTION partition_router.unschedule_maintenance IS 'takes the jobs of schedule_maintenance() away; gives those that were there';
REVOKE ALL ON FUNCTION partition_router.unschedule_maintenance FROM PUBLIC;

CREATE FUNCTION partition_router.import_partman(dry_run boolean DEFAULT false, partman_schema name DEFAULT NULL)
    RETURNS TABLE(relation text, status text, message text)
    LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'import_partman_wrapper';
COMMENT ON FUNCTION partition_router.import_partman IS 'takes the tables over that pg_partman maintains, by the same rules, and switches its maintenance of them off; says for each what was done, or why it was left';
REVOKE ALL ON FUNCTION partition_router.import_partman FROM PUBLIC;

CREATE FUNCTION partition_router.advise(relation regclass)
    RETURNS TABLE(severity text, topic text, message text, hint text)
    STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'advise_wrapper';
COMMENT ON FUNCTION partition_router.advise IS 'what to do about a partitioned table, from its sizes, the queries seen and what planning takes: interval or number of partitions, pruning, partitions never read';
REVOKE ALL ON FUNCTION partition_router.advise FROM PUBLIC;

-- The steps of run_maintenance, each in a transaction of its own.

CREATE FUNCTION partition_router.maintenance_targets(relation regclass, part text)
    RETURNS regclass[] LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_targets_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_targets IS 'internal to run_maintenance: the tables to go through';
REVOKE ALL ON FUNCTION partition_router.maintenance_targets FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_tasks(parent regclass, part text DEFAULT 'all', at_once boolean DEFAULT false)
    RETURNS TABLE(creating text[], cleaning text[]) STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_tasks_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_tasks IS 'internal to run_maintenance: what is due for one table, whose lease is held from now on; with at_once, partitions are made that can be without waiting, and what is left is given';
REVOKE ALL ON FUNCTION partition_router.maintenance_tasks FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_let_go()
    RETURNS void LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_let_go_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_let_go IS 'internal to run_maintenance: gives the lease of a table back';
REVOKE ALL ON FUNCTION partition_router.maintenance_let_go FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_task(parent regclass, task text)
    RETURNS boolean STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_task_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_task IS 'internal to run_maintenance: runs one task, or a batch of it; true while more is to do';
REVOKE ALL ON FUNCTION partition_router.maintenance_task FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_unproven(relation regclass, part text)
    RETURNS regclass[] LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_unproven_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_unproven IS 'internal to run_maintenance: the pairs whose last verify is older than partition_router.verify_interval';
REVOKE ALL ON FUNCTION partition_router.maintenance_unproven FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_verify(legacy regclass)
    RETURNS void STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_verify_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_verify IS 'internal to run_maintenance: verifies a pair, and records the result';
REVOKE ALL ON FUNCTION partition_router.maintenance_verify FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_unanalyzed(relation regclass)
    RETURNS regclass[] LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_unanalyzed_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_unanalyzed IS 'internal to run_maintenance: the partitioned tables whose own statistics are too old';
REVOKE ALL ON FUNCTION partition_router.maintenance_unanalyzed FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_analyze(parent regclass)
    RETURNS void STRICT LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_analyze_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_analyze IS 'internal to run_maintenance: analyses a partitioned table';
REVOKE ALL ON FUNCTION partition_router.maintenance_analyze FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_failed(parent regclass, task text, sqlstate text, message text)
    RETURNS void LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_failed_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_failed IS 'internal to run_maintenance: records a task that failed';
REVOKE ALL ON FUNCTION partition_router.maintenance_failed FROM PUBLIC;

CREATE FUNCTION partition_router.maintenance_dry_run(relation regclass, part text)
    RETURNS void LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'maintenance_dry_run_wrapper';
COMMENT ON FUNCTION partition_router.maintenance_dry_run IS 'internal to run_maintenance: prints what it would do';
REVOKE ALL ON FUNCTION partition_router.maintenance_dry_run FROM PUBLIC;
