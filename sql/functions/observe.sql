-- What people and machines ask for. They read names, numbers and states, no value of a user's table: pg_monitor may call them (views.sql).

CREATE FUNCTION partition_router.metrics(exact boolean DEFAULT false) RETURNS jsonb
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'metrics_wrapper';
COMMENT ON FUNCTION partition_router.metrics(boolean) IS 'counts, deltas and triggers of every pair, for machines; with exact every row is counted, else those of small pairs';
REVOKE ALL ON FUNCTION partition_router.metrics(boolean) FROM PUBLIC;

CREATE FUNCTION partition_router.verify_partitions() RETURNS jsonb
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'verify_partitions_wrapper';
COMMENT ON FUNCTION partition_router.verify_partitions() IS 'the checks of the view health, for machines';
REVOKE ALL ON FUNCTION partition_router.verify_partitions() FROM PUBLIC;

CREATE FUNCTION partition_router.health_checks() RETURNS TABLE (relation text, "check" text, status text, message text, mend text)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'health_checks_wrapper';
COMMENT ON FUNCTION partition_router.health_checks() IS 'internal: the rows of the view health';
REVOKE ALL ON FUNCTION partition_router.health_checks() FROM PUBLIC;

CREATE FUNCTION partition_router.openmetrics() RETURNS text
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'openmetrics_wrapper';
COMMENT ON FUNCTION partition_router.openmetrics() IS 'everything that a rule or a panel asks for, as OpenMetrics text';
REVOKE ALL ON FUNCTION partition_router.openmetrics() FROM PUBLIC;

CREATE FUNCTION partition_router.report() RETURNS text
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'report_page_wrapper';
COMMENT ON FUNCTION partition_router.report() IS 'one self-contained page of HTML: health, migrations, and each partitioned table with its partitions';
REVOKE ALL ON FUNCTION partition_router.report() FROM PUBLIC;

CREATE FUNCTION partition_router.chart(relation regclass) RETURNS TABLE (partition text, bounds text, estimated_rows bigint, size text, bar text)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'chart_wrapper';
COMMENT ON FUNCTION partition_router.chart(regclass) IS 'the sizes of the partitions of a table, or of the twin of a pair, as bars of text';
REVOKE ALL ON FUNCTION partition_router.chart(regclass) FROM PUBLIC;

CREATE FUNCTION partition_router.table_figures() RETURNS TABLE (
     relation text,
     partitions bigint,
     partitions_ahead bigint,
     premake bigint,
     bytes bigint,
     bytes_source text,
     estimated_rows bigint,
     default_rows bigint,
     default_rows_to_move bigint,
     maintenance_failed boolean,
     maintenance_last_run double precision,
     archives_unfinished bigint,
     archive_lag double precision
)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'table_figures_wrapper';
COMMENT ON FUNCTION partition_router.table_figures() IS 'internal: the rows of the view table_metrics';
REVOKE ALL ON FUNCTION partition_router.table_figures() FROM PUBLIC;

CREATE FUNCTION partition_router.pair_figures() RETURNS TABLE (
     relation text,
     twin text,
     phase text,
     strategy text,
     estimated_legacy_rows bigint,
     estimated_twin_rows bigint,
     proven_rows bigint,
     proven_at double precision,
     is_proven boolean,
     rollout_percent int,
     backfill_ratio double precision,
     backfill_rows bigint,
     backfill_rows_total bigint,
     backfill_seconds_left double precision,
     sync_errors bigint
)
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'pair_figures_wrapper';
COMMENT ON FUNCTION partition_router.pair_figures() IS 'internal: the rows of the view pair_metrics';
REVOKE ALL ON FUNCTION partition_router.pair_figures() FROM PUBLIC;
