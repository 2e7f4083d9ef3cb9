-- What people and exporters read. The views show names, numbers and states, no rows of a user's table.

-- The tree is read from pg_inherits: pg_partition_tree() would lock every partition until the transaction ends, which is more than
-- the lock table holds where there are many.
CREATE VIEW partition_router.partitions AS
WITH RECURSIVE tree AS (
    SELECT m.parent, i.inhrelid AS oid
    FROM (SELECT p.twin AS parent FROM partition_router.pair p
          UNION
          SELECT y.parent FROM partition_router.policy y) m
    JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) m.parent::oid
    UNION ALL
    SELECT t.parent, i.inhrelid
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
SELECT t.parent,
       c.oid::pg_catalog.regclass AS partition,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bounds,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) OPERATOR(pg_catalog.=) 'DEFAULT' AS is_default,
       GREATEST(c.reltuples, 0)::bigint AS estimated_rows,
       pg_catalog.pg_total_relation_size(c.oid) AS total_bytes,
       pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size(c.oid)) AS total_size,
       EXISTS (SELECT FROM partition_router.hold h WHERE h.partition OPERATOR(pg_catalog.=) c.oid::pg_catalog.regclass) AS is_held
FROM tree t
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.oid
WHERE c.relkind OPERATOR(pg_catalog.<>) 'p';
COMMENT ON VIEW partition_router.partitions IS 'each partition of a twin or of a table under maintenance, with bounds and size, and whether it is held';
COMMENT ON COLUMN partition_router.partitions.parent IS 'the partitioned table at the top of the tree';
COMMENT ON COLUMN partition_router.partitions.partition IS 'a table that holds rows';
COMMENT ON COLUMN partition_router.partitions.bounds IS 'its bounds, as the server writes them';
COMMENT ON COLUMN partition_router.partitions.is_default IS 'whether it takes the rows that fit nowhere else';
COMMENT ON COLUMN partition_router.partitions.estimated_rows IS 'rows, as of the last VACUUM or ANALYZE';
COMMENT ON COLUMN partition_router.partitions.total_bytes IS 'what table, indexes and TOAST take on disk';
COMMENT ON COLUMN partition_router.partitions.total_size IS 'the same, for people';
COMMENT ON COLUMN partition_router.partitions.is_held IS 'whether hold() keeps it from being retired';

CREATE VIEW partition_router.status AS
SELECT p.legacy,
       p.twin,
       p.phase,
       p.strategy,
       p.partition_key,
       p.partition_interval,
       (WITH RECURSIVE tree AS (
            SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) p.twin::oid
            UNION ALL
            SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
        SELECT pg_catalog.count(*) FROM tree t
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table k WHERE k.partrelid OPERATOR(pg_catalog.=) t.oid)) AS partitions,
       p.created_at,
       p.live_at,
       p.verified_at,
       p.verified_level,
       COALESCE(r.percent, 0) AS rollout_percent,
       COALESCE(r.pilots, '{}') AS pilots,
       COALESCE(r.excluded, '{}') AS excluded,
       y.premake,
       y.retention,
       y.retention_action,
       p.guard
FROM partition_router.pair p
LEFT JOIN partition_router.rollout r ON r.pair_id OPERATOR(pg_catalog.=) p.id
LEFT JOIN partition_router.policy y ON y.parent OPERATOR(pg_catalog.=) p.twin;
COMMENT ON VIEW partition_router.status IS 'each pair: phase, proof, rollout and policy';
COMMENT ON COLUMN partition_router.status.legacy IS 'the plain table; NULL when the pair is done';
COMMENT ON COLUMN partition_router.status.twin IS 'the partitioned one';
COMMENT ON COLUMN partition_router.status.phase IS 'prepared, copying, live, switched or done';
COMMENT ON COLUMN partition_router.status.strategy IS 'range, hash or list';
COMMENT ON COLUMN partition_router.status.partition_key IS 'the column by which the twin is partitioned';
COMMENT ON COLUMN partition_router.status.partition_interval IS 'of range: what a partition spans';
COMMENT ON COLUMN partition_router.status.partitions IS 'how many tables its rows lie in, the default among them';
COMMENT ON COLUMN partition_router.status.created_at IS 'when the twin was made';
COMMENT ON COLUMN partition_router.status.live_at IS 'when both sides were in step for the first time';
COMMENT ON COLUMN partition_router.status.verified_at IS 'when both sides were last proven equal; NULL after a verify that failed';
COMMENT ON COLUMN partition_router.status.verified_level IS 'by what: counts, checksum or rows';
COMMENT ON COLUMN partition_router.status.rollout_percent IS 'the share of tenants that read the twin';
COMMENT ON COLUMN partition_router.status.pilots IS 'tenants that read it whatever the share';
COMMENT ON COLUMN partition_router.status.excluded IS 'tenants that never do';
COMMENT ON COLUMN partition_router.status.premake IS 'partitions that maintenance keeps ahead';
COMMENT ON COLUMN partition_router.status.retention IS 'how old a partition grows; NULL keeps everything';
COMMENT ON COLUMN partition_router.status.retention_action IS 'what becomes of an older one: drop, detach or archive';
COMMENT ON COLUMN partition_router.status.guard IS 'the table that keeps unique what has no partition key in it; phase done';

CREATE VIEW partition_router.policies AS
SELECT y.parent,
       pg_catalog.pg_get_partkeydef(y.parent::oid) AS partition_key,
       y.partition_interval,
       y.origin,
       y.timezone,
       y.premake,
       y.retention,
       y.retention_count,
       y.min_partitions,
       y.retention_action,
       y.archive_schema,
       y.archive_format,
       y.archive_function,
       y.template,
       y.base_name,
       y.created_at,
       y.last_run_at,
       y.last_error,
       y.left_alone
FROM partition_router.policy y
WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) y.parent::oid);
COMMENT ON VIEW partition_router.policies IS 'each table under maintenance, of a pair or not: its policy, and how the last run ended';
COMMENT ON COLUMN partition_router.policies.parent IS 'the partitioned table';
COMMENT ON COLUMN partition_router.policies.partition_key IS 'how it is partitioned, and by what';
COMMENT ON COLUMN partition_router.policies.partition_interval IS 'what a partition spans';
COMMENT ON COLUMN partition_router.policies.origin IS 'where some partition begins, and all others are counted from; NULL for the usual place';
COMMENT ON COLUMN partition_router.policies.timezone IS 'the zone that days and months of a timestamptz key are cut in';
COMMENT ON COLUMN partition_router.policies.premake IS 'partitions that maintenance keeps ahead';
COMMENT ON COLUMN partition_router.policies.retention IS 'partitions wholly older than this are retired; NULL keeps everything';
COMMENT ON COLUMN partition_router.policies.retention_count IS 'of the partitions that have begun so many are kept; NULL keeps any number';
COMMENT ON COLUMN partition_router.policies.min_partitions IS 'of the partitions that have begun never fewer are left, whatever their age';
COMMENT ON COLUMN partition_router.policies.retention_action IS 'what becomes of a partition past its retention: drop, detach or archive';
COMMENT ON COLUMN partition_router.policies.archive_schema IS 'where detached and archived partitions go as tables';
COMMENT ON COLUMN partition_router.policies.archive_format IS 'archives are files of this format in partition_router.archive_directory: csv or parquet';
COMMENT ON COLUMN partition_router.policies.archive_function IS 'the signature of the function that archives';
COMMENT ON COLUMN partition_router.policies.template IS 'the table that new partitions take after; NULL for the newest partition';
COMMENT ON COLUMN partition_router.policies.base_name IS 'new partitions are named after it';
COMMENT ON COLUMN partition_router.policies.created_at IS 'since when the table is under maintenance';
COMMENT ON COLUMN partition_router.policies.last_run_at IS 'when maintenance last looked at it';
COMMENT ON COLUMN partition_router.policies.last_error IS 'what went wrong then; NULL when nothing did';
COMMENT ON COLUMN partition_router.policies.left_alone IS 'what the last run saw and left alone, with the reasons; for_good: later runs will, too';

CREATE VIEW partition_router.holds AS
SELECT h.partition,
       pg_catalog.pg_partition_root(h.partition) AS parent,
       h.reason,
       h.held_at,
       h.held_by
FROM partition_router.hold h
WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) h.partition::oid);
COMMENT ON VIEW partition_router.holds IS 'each partition that neither retention nor drop_partition() may take away';
COMMENT ON COLUMN partition_router.holds.partition IS 'the partition; with it those below';
COMMENT ON COLUMN partition_router.holds.parent IS 'the partitioned table at the top of the tree; NULL when the partition was detached';
COMMENT ON COLUMN partition_router.holds.reason IS 'why it is held';
COMMENT ON COLUMN partition_router.holds.held_at IS 'since when';
COMMENT ON COLUMN partition_router.holds.held_by IS 'who held it';

CREATE VIEW partition_router.progress AS
SELECT p.legacy,
       p.twin,
       p.phase,
       s.stage,
       s.rows_copied OPERATOR(pg_catalog.+) s.rows_logged AS rows_done,
       e.rows_total,
       CASE WHEN s.stage OPERATOR(pg_catalog.=) 'copy'
            THEN pg_catalog.round(100.0 OPERATOR(pg_catalog.*) s.next_block OPERATOR(pg_catalog./) GREATEST(s.blocks, 1), 1)
            ELSE 100.0 END AS percent,
       CASE WHEN EXTRACT(epoch FROM s.busy) OPERATOR(pg_catalog.>) 0
            THEN pg_catalog.round((s.rows_copied OPERATOR(pg_catalog.+) s.rows_logged)
                 OPERATOR(pg_catalog./) EXTRACT(epoch FROM s.busy)) END AS rows_per_second,
       CASE WHEN s.stage OPERATOR(pg_catalog.=) 'copy' AND s.next_block OPERATOR(pg_catalog.>) 0
            THEN s.busy OPERATOR(pg_catalog.*) ((s.blocks OPERATOR(pg_catalog.-) s.next_block)::double precision
                 OPERATOR(pg_catalog./) s.next_block) END AS eta,
       s.rows_drained,
       s.started_at,
       s.updated_at,
       (SELECT pg_catalog.string_agg(DISTINCT b.pid::text, ', ')
        FROM pg_catalog.pg_locks l
        CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) AS b(pid)
        WHERE NOT l.granted AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
              WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
          AND l.relation OPERATOR(pg_catalog.=) ANY (ARRAY[p.legacy::oid, p.twin::oid])
          AND l.mode OPERATOR(pg_catalog.=) ANY (ARRAY['ShareRowExclusiveLock', 'AccessExclusiveLock'])) AS blocked_by,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l
        WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted AND l.objsubid OPERATOR(pg_catalog.=) 2
          AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
              WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
          AND l.classid OPERATOR(pg_catalog.=) 'partition_router.copy_state'::pg_catalog.regclass::oid
          AND l.objid OPERATOR(pg_catalog.=) p.id::oid) AS workers
FROM partition_router.pair p
JOIN partition_router.copy_state s ON s.pair_id OPERATOR(pg_catalog.=) p.id
CROSS JOIN LATERAL (SELECT CASE
        WHEN s.stage OPERATOR(pg_catalog.<>) 'copy' THEN s.rows_copied OPERATOR(pg_catalog.+) s.rows_logged
        WHEN s.next_block OPERATOR(pg_catalog.>) 0
        THEN ((s.rows_copied OPERATOR(pg_catalog.+) s.rows_logged)::numeric OPERATOR(pg_catalog.*) s.blocks
              OPERATOR(pg_catalog./) s.next_block)::bigint
        ELSE s.rows_total END AS rows_total) e;
COMMENT ON VIEW partition_router.progress IS 'each copy: stage, rows done of the total (told from the blocks read so far), rate, time of work left (pauses come on top), who blocks it, and the background workers that help';
COMMENT ON COLUMN partition_router.progress.legacy IS 'the plain table';
COMMENT ON COLUMN partition_router.progress.twin IS 'the partitioned one';
COMMENT ON COLUMN partition_router.progress.phase IS 'the phase of the pair';
COMMENT ON COLUMN partition_router.progress.stage IS 'copy, index, drain, flip, finish or done';
COMMENT ON COLUMN partition_router.progress.rows_done IS 'rows copied, and rows left to the change log';
COMMENT ON COLUMN partition_router.progress.rows_total IS 'all rows, told from the blocks that were read so far';
COMMENT ON COLUMN partition_router.progress.percent IS 'of the copy; 100 in the later stages';
COMMENT ON COLUMN partition_router.progress.rows_per_second IS 'rows done by the time that was worked';
COMMENT ON COLUMN partition_router.progress.eta IS 'time of work that is left of the copy; pauses come on top';
COMMENT ON COLUMN partition_router.progress.rows_drained IS 'keys of the change log that were carried over';
COMMENT ON COLUMN partition_router.progress.started_at IS 'when the copy began';
COMMENT ON COLUMN partition_router.progress.updated_at IS 'when a batch was last committed';
COMMENT ON COLUMN partition_router.progress.blocked_by IS 'the processes that a strong lock on either side waits for';
COMMENT ON COLUMN partition_router.progress.workers IS 'background workers that help just now';

CREATE VIEW partition_router.calls AS
SELECT c.pid,
       c.relation,
       c.call,
       c.stage,
       c.done,
       c.total,
       c.unit,
       CASE WHEN c.total OPERATOR(pg_catalog.>) 0
            THEN pg_catalog.round(LEAST(100.0 OPERATOR(pg_catalog.*) c.done OPERATOR(pg_catalog./) c.total, 100.0), 1) END AS percent,
       pg_catalog.round(c.rate::numeric) AS per_second,
       pg_catalog.make_interval(secs => c.seconds_left) AS eta,
       c.blocked_by,
       pg_catalog.to_timestamp(c.began) AS stage_began_at
FROM partition_router.calls_at_work() c;
COMMENT ON VIEW partition_router.calls IS 'long calls at work in this database: stage, how far it is, rate, time left, and who blocks it';
COMMENT ON COLUMN partition_router.calls.pid IS 'the process that works: of a session, or of a background worker';
COMMENT ON COLUMN partition_router.calls.relation IS 'the table that the call names';
COMMENT ON COLUMN partition_router.calls.call IS 'the call, or archive for that part of run_maintenance';
COMMENT ON COLUMN partition_router.calls.stage IS 'what it is at';
COMMENT ON COLUMN partition_router.calls.done IS 'units of this stage that are done';
COMMENT ON COLUMN partition_router.calls.total IS 'units of this stage; NULL where nobody can tell before the end';
COMMENT ON COLUMN partition_router.calls.unit IS 'what is counted: rows, blocks, partitions or keys';
COMMENT ON COLUMN partition_router.calls.percent IS 'done of total';
COMMENT ON COLUMN partition_router.calls.per_second IS 'units a second since the stage began';
COMMENT ON COLUMN partition_router.calls.eta IS 'time left of this stage, if it goes on as it went';
COMMENT ON COLUMN partition_router.calls.blocked_by IS 'the processes that it waits for now';
COMMENT ON COLUMN partition_router.calls.stage_began_at IS 'when this stage began; where a call goes on with one, when it went on';

CREATE VIEW partition_router.health AS
SELECT relation, "check", status, message, mend FROM partition_router.health_checks();
COMMENT ON VIEW partition_router.health IS 'one row a check: ok, warn or fail, with the call that mends it';
COMMENT ON COLUMN partition_router.health.relation IS 'the table, or the database for what is about the server';
COMMENT ON COLUMN partition_router.health."check" IS 'what is looked at';
COMMENT ON COLUMN partition_router.health.status IS 'ok, warn or fail';
COMMENT ON COLUMN partition_router.health.message IS 'what was found';
COMMENT ON COLUMN partition_router.health.mend IS 'SQL that mends it, to be run as it is';

CREATE VIEW partition_router.table_metrics AS
SELECT relation, partitions, partitions_ahead, premake, bytes, bytes_source, estimated_rows, default_rows, default_rows_to_move,
       maintenance_failed, maintenance_last_run, archives_unfinished, archive_lag
FROM partition_router.table_figures();
COMMENT ON VIEW partition_router.table_metrics IS 'figures of each twin and table under maintenance, for exporters; times are seconds';
COMMENT ON COLUMN partition_router.table_metrics.relation IS 'the twin, or the table under maintenance';
COMMENT ON COLUMN partition_router.table_metrics.partitions IS 'tables that its rows lie in, the default among them';
COMMENT ON COLUMN partition_router.table_metrics.premake IS 'partitions that are to be ahead';
COMMENT ON COLUMN partition_router.table_metrics.bytes IS 'what all of it takes on disk';
COMMENT ON COLUMN partition_router.table_metrics.estimated_rows IS 'rows, as of the last VACUUM or ANALYZE';
COMMENT ON COLUMN partition_router.table_metrics.maintenance_failed IS 'whether the last run had an error';
COMMENT ON COLUMN partition_router.table_metrics.archives_unfinished IS 'archives that were begun and are not done';
COMMENT ON COLUMN partition_router.table_metrics.partitions_ahead IS 'partitions that begin after now; of a plain number, above the last one with rows; NULL where there is no such order';
COMMENT ON COLUMN partition_router.table_metrics.bytes_source IS 'measured, or estimated: of more than 2,000 partitions, what the last VACUUM or ANALYZE saw';
COMMENT ON COLUMN partition_router.table_metrics.default_rows IS 'rows in the default partition, counted up to 100001';
COMMENT ON COLUMN partition_router.table_metrics.default_rows_to_move IS 'those of them that maintenance moves: all that its last run did not leave alone; NULL without a policy';
COMMENT ON COLUMN partition_router.table_metrics.maintenance_last_run IS 'seconds since 1970';
COMMENT ON COLUMN partition_router.table_metrics.archive_lag IS 'seconds since the oldest unfinished archive last changed';

CREATE VIEW partition_router.pair_metrics AS
SELECT relation, twin, phase, strategy, estimated_legacy_rows, estimated_twin_rows, proven_rows, proven_at, is_proven, rollout_percent,
       backfill_ratio, backfill_rows, backfill_rows_total, backfill_seconds_left, sync_errors
FROM partition_router.pair_figures();
COMMENT ON VIEW partition_router.pair_metrics IS 'figures of each pair, for exporters; times are seconds';
COMMENT ON COLUMN partition_router.pair_metrics.relation IS 'the legacy, or the twin when there is none any more';
COMMENT ON COLUMN partition_router.pair_metrics.twin IS 'the partitioned table';
COMMENT ON COLUMN partition_router.pair_metrics.phase IS 'prepared, copying, live, switched or done';
COMMENT ON COLUMN partition_router.pair_metrics.strategy IS 'range, hash or list';
COMMENT ON COLUMN partition_router.pair_metrics.estimated_legacy_rows IS 'rows of the legacy, as of its last VACUUM or ANALYZE';
COMMENT ON COLUMN partition_router.pair_metrics.estimated_twin_rows IS 'the same of the twin';
COMMENT ON COLUMN partition_router.pair_metrics.rollout_percent IS 'the share of tenants that read the twin';
COMMENT ON COLUMN partition_router.pair_metrics.backfill_rows IS 'rows done';
COMMENT ON COLUMN partition_router.pair_metrics.backfill_rows_total IS 'all rows, told from the blocks that were read so far';
COMMENT ON COLUMN partition_router.pair_metrics.backfill_seconds_left IS 'time of work that is left of the copy';
COMMENT ON COLUMN partition_router.pair_metrics.proven_rows IS 'of the last verify that passed, which both sides had';
COMMENT ON COLUMN partition_router.pair_metrics.proven_at IS 'when that was, in seconds since 1970';
COMMENT ON COLUMN partition_router.pair_metrics.is_proven IS 'whether the pair counts as proven equal now';
COMMENT ON COLUMN partition_router.pair_metrics.backfill_ratio IS 'how much of the copy is done, from 0 to 1';
COMMENT ON COLUMN partition_router.pair_metrics.sync_errors IS 'statements that failed because a change could not reach the other side, since the server keeps count';

CREATE VIEW partition_router.replica_metrics AS
SELECT CASE WHEN pg_catalog.count(*) OVER (PARTITION BY r.name) OPERATOR(pg_catalog.>) 1
            THEN pg_catalog.concat(r.name, ' ', r.pid) ELSE r.name END AS replica,
       r.kind,
       COALESCE(EXTRACT(epoch FROM r.replay_lag)::double precision, 0) AS lag_seconds,
       COALESCE(pg_catalog.pg_wal_lsn_diff(r.written, r.replay_lsn), 0)::bigint AS lag_bytes
FROM (SELECT s.pid,
             CASE WHEN s.application_name OPERATOR(pg_catalog.<>) '' THEN s.application_name ELSE s.pid::text END AS name,
             CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_replication_slots o WHERE o.active_pid OPERATOR(pg_catalog.=) s.pid
                     AND o.slot_type OPERATOR(pg_catalog.=) 'logical') THEN 'logical' ELSE 'physical' END AS kind,
             s.replay_lag, s.replay_lsn,
             CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                  ELSE pg_catalog.pg_current_wal_lsn() END AS written
      FROM pg_catalog.pg_stat_replication s
      WHERE s.state OPERATOR(pg_catalog.=) 'streaming' OR s.replay_lsn IS NOT NULL) r;
COMMENT ON VIEW partition_router.replica_metrics IS 'each replica and each subscriber that is connected, and how far it is behind';
COMMENT ON COLUMN partition_router.replica_metrics.replica IS 'its application_name, and the pid of its sender where several have that name, or where it has none';
COMMENT ON COLUMN partition_router.replica_metrics.kind IS 'physical, or logical for a subscriber';
COMMENT ON COLUMN partition_router.replica_metrics.lag_seconds IS 'between what was written here and what it has replayed';
COMMENT ON COLUMN partition_router.replica_metrics.lag_bytes IS 'log that it has not replayed';

CREATE VIEW partition_router.slot_metrics AS
SELECT s.slot,
       s.kind,
       s.is_active,
       s.wal_status OPERATOR(pg_catalog.=) ANY (ARRAY['unreserved', 'lost']) AS is_lost,
       s.wal_status,
       COALESCE(pg_catalog.pg_wal_lsn_diff(s.written, s.restart_lsn), 0)::bigint AS kept_bytes,
       COALESCE(pg_catalog.pg_wal_lsn_diff(s.written, COALESCE(s.confirmed_flush_lsn, s.restart_lsn)), 0)::bigint AS lag_bytes
FROM (SELECT o.slot_name::text AS slot, o.slot_type AS kind, o.active AS is_active, COALESCE(o.wal_status, 'reserved') AS wal_status,
             o.restart_lsn, o.confirmed_flush_lsn,
             CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                  ELSE pg_catalog.pg_current_wal_lsn() END AS written
      FROM pg_catalog.pg_replication_slots o
      WHERE NOT o.temporary) s;
COMMENT ON VIEW partition_router.slot_metrics IS 'each replication slot that lasts, of the whole server: who reads it is told of here also while nobody does';
COMMENT ON COLUMN partition_router.slot_metrics.slot IS 'its name';
COMMENT ON COLUMN partition_router.slot_metrics.kind IS 'physical, or logical for a subscriber';
COMMENT ON COLUMN partition_router.slot_metrics.is_active IS 'whether somebody reads it now';
COMMENT ON COLUMN partition_router.slot_metrics.is_lost IS 'whether log that it needs is gone, or goes with the next checkpoint: who reads it has to begin anew';
COMMENT ON COLUMN partition_router.slot_metrics.wal_status IS 'as pg_replication_slots has it';
COMMENT ON COLUMN partition_router.slot_metrics.kept_bytes IS 'log that the server keeps for it';
COMMENT ON COLUMN partition_router.slot_metrics.lag_bytes IS 'log that its reader has not confirmed';

CREATE VIEW partition_router.standby_metrics AS
SELECT s.is_standby,
       COALESCE(s.is_paused, false) AS is_paused,
       COALESCE(s.is_receiving, false) AS is_receiving,
       COALESCE(CASE WHEN s.is_standby AND (NOT s.is_receiving
                     OR pg_catalog.pg_last_wal_receive_lsn() IS DISTINCT FROM pg_catalog.pg_last_wal_replay_lsn())
            THEN EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) COALESCE(
                pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.pg_postmaster_start_time()))::double precision END, 0) AS lag_seconds,
       s.primary_server
FROM (SELECT r.is_standby,
             CASE WHEN r.is_standby THEN pg_catalog.pg_get_wal_replay_pause_state() OPERATOR(pg_catalog.<>) 'not paused' END AS is_paused,
             CASE WHEN r.is_standby THEN EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver w
                  WHERE w.status OPERATOR(pg_catalog.=) 'streaming') END AS is_receiving,
             CASE WHEN r.is_standby THEN (SELECT pg_catalog.concat_ws(':', w.sender_host, w.sender_port)
                  FROM pg_catalog.pg_stat_wal_receiver w WHERE w.sender_host IS NOT NULL) END AS primary_server
      FROM (SELECT pg_catalog.pg_is_in_recovery() AS is_standby) r) s;
COMMENT ON VIEW partition_router.standby_metrics IS 'one row: whether this server is a standby, and how far it is behind';
COMMENT ON COLUMN partition_router.standby_metrics.is_standby IS 'whether this server replays the log of another';
COMMENT ON COLUMN partition_router.standby_metrics.is_paused IS 'whether its replay is paused';
COMMENT ON COLUMN partition_router.standby_metrics.is_receiving IS 'whether log comes from the primary by streaming';
COMMENT ON COLUMN partition_router.standby_metrics.lag_seconds IS 'since the last transaction that it has replayed, where there is more or where none can come; 0 where it has all, and on a primary';
COMMENT ON COLUMN partition_router.standby_metrics.primary_server IS 'where the log comes from: host and port';

CREATE VIEW partition_router.routing_stats AS
SELECT r.legacy, r.target, r.reason, r.decisions
FROM partition_router.routing_counts() r
WHERE EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) r.legacy::oid);
COMMENT ON VIEW partition_router.routing_stats IS 'how many reads were decided, by table, target and reason';
COMMENT ON COLUMN partition_router.routing_stats.legacy IS 'the legacy that was named';
COMMENT ON COLUMN partition_router.routing_stats.target IS 'the table that was read';
COMMENT ON COLUMN partition_router.routing_stats.reason IS 'why, as explain_route() says it';
COMMENT ON COLUMN partition_router.routing_stats.decisions IS 'how often, since reset_routing_stats()';

-- Texts hold values of rows: the query its constants, an error what it stumbled over.
CREATE VIEW partition_router.shadow_reads AS
SELECT s.id, s.at, CASE WHEN r.may THEN s.query END AS query, s.is_equal, s.twin_rows, s.legacy_rows, s.twin_ms, s.legacy_ms,
       CASE WHEN r.may THEN s.error END AS error, s.by_role
FROM partition_router.shadow_read s
CROSS JOIN LATERAL (
    SELECT pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'
        OR pg_catalog.pg_has_role(pg_catalog.to_regrole(pg_catalog.quote_ident(s.by_role))::oid, 'USAGE') AS may) r;
COMMENT ON VIEW partition_router.shadow_reads IS 'reads of a twin that also ran on the legacy: whether the rows were the same, and what each side took';
COMMENT ON COLUMN partition_router.shadow_reads.id IS 'in the order in which they ended';
COMMENT ON COLUMN partition_router.shadow_reads.at IS 'when';
COMMENT ON COLUMN partition_router.shadow_reads.query IS 'its text, for superusers and members of by_role: it has values in it';
COMMENT ON COLUMN partition_router.shadow_reads.is_equal IS 'whether both gave the same rows; NULL when the legacy gave an error';
COMMENT ON COLUMN partition_router.shadow_reads.twin_rows IS 'rows that the twin gave';
COMMENT ON COLUMN partition_router.shadow_reads.legacy_rows IS 'rows that the legacy gave';
COMMENT ON COLUMN partition_router.shadow_reads.twin_ms IS 'milliseconds on the twin';
COMMENT ON COLUMN partition_router.shadow_reads.legacy_ms IS 'milliseconds on the legacy';
COMMENT ON COLUMN partition_router.shadow_reads.error IS 'what the legacy said instead of rows, for superusers and members of by_role';
COMMENT ON COLUMN partition_router.shadow_reads.by_role IS 'who read';

CREATE VIEW partition_router.run_log AS
SELECT id, at, legacy, operation, stage, detail, by_role FROM partition_router.run_event;
COMMENT ON VIEW partition_router.run_log IS 'what each operation did, with rows, digests and durations';
COMMENT ON COLUMN partition_router.run_log.id IS 'in the order of events';
COMMENT ON COLUMN partition_router.run_log.at IS 'when';
COMMENT ON COLUMN partition_router.run_log.legacy IS 'the table, by the name that it had then';
COMMENT ON COLUMN partition_router.run_log.operation IS 'the call';
COMMENT ON COLUMN partition_router.run_log.stage IS 'the step that was done';
COMMENT ON COLUMN partition_router.run_log.detail IS 'rows, digests, milliseconds: what there is to say about the step';
COMMENT ON COLUMN partition_router.run_log.by_role IS 'who called';

CREATE VIEW partition_router.maintenance_log AS
SELECT id, at, parent, partition, action, status, row_count, sqlstate, message FROM partition_router.maintenance_event;
COMMENT ON VIEW partition_router.maintenance_log IS 'what maintenance did to which partition, and what failed';
COMMENT ON COLUMN partition_router.maintenance_log.id IS 'in the order of events';
COMMENT ON COLUMN partition_router.maintenance_log.at IS 'when';
COMMENT ON COLUMN partition_router.maintenance_log.parent IS 'the partitioned table, by the name that it had then';
COMMENT ON COLUMN partition_router.maintenance_log.partition IS 'the partition that it was about';
COMMENT ON COLUMN partition_router.maintenance_log.action IS 'the task';
COMMENT ON COLUMN partition_router.maintenance_log.status IS 'done, skipped or failed';
COMMENT ON COLUMN partition_router.maintenance_log.row_count IS 'rows that were moved or taken away';
COMMENT ON COLUMN partition_router.maintenance_log.sqlstate IS 'of the error';
COMMENT ON COLUMN partition_router.maintenance_log.message IS 'why it failed or was left alone';

CREATE VIEW partition_router.change_feed_trigger AS
SELECT pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\000', 1)::int AS feed_id,
       t.tgrelid::pg_catalog.regclass AS relation,
       t.tgname AS trigger,
       t.tgenabled OPERATOR(pg_catalog.=) 'A' AS is_always,
       t.tgtype::int OPERATOR(pg_catalog.&) 1 OPERATOR(pg_catalog.=) 1 AS is_row,
       t.tgparentid OPERATOR(pg_catalog.<>) 0::oid AS is_inherited
FROM pg_catalog.pg_trigger t
WHERE t.tgfoid OPERATOR(pg_catalog.=) 'partition_router.change_feed()'::pg_catalog.regprocedure::oid;
COMMENT ON VIEW partition_router.change_feed_trigger IS 'the triggers that tell of changes, and which of them fire always';
COMMENT ON COLUMN partition_router.change_feed_trigger.feed_id IS 'the number of the feed';
COMMENT ON COLUMN partition_router.change_feed_trigger.relation IS 'the table that it is on';
COMMENT ON COLUMN partition_router.change_feed_trigger.trigger IS 'its name';
COMMENT ON COLUMN partition_router.change_feed_trigger.is_always IS 'whether it fires as a replica as well';
COMMENT ON COLUMN partition_router.change_feed_trigger.is_row IS 'whether it fires for rows, and not for statements';
COMMENT ON COLUMN partition_router.change_feed_trigger.is_inherited IS 'whether it came with the partitioned table';

CREATE VIEW partition_router.change_feeds AS
SELECT f.name,
       ARRAY(SELECT t.relation FROM partition_router.change_feed_trigger t
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relation::oid
             WHERE t.feed_id OPERATOR(pg_catalog.=) f.id AND t.is_row AND NOT t.is_inherited
             ORDER BY c.relkind OPERATOR(pg_catalog.=) 'p', c.oid) AS relations,
       f.key_columns,
       f.notify,
       f.retention,
       f.max_lag,
       COALESCE(e.waiting, 0) AS waiting,
       e.oldest_at,
       f.enabled_at
FROM partition_router.change_feed f
LEFT JOIN (SELECT feed_id, pg_catalog.count(*) AS waiting, pg_catalog.min(changed_at) AS oldest_at
           FROM partition_router.change_event GROUP BY feed_id) e ON e.feed_id OPERATOR(pg_catalog.=) f.id;
COMMENT ON VIEW partition_router.change_feeds IS 'each change feed: its tables, its keys, and how many changes wait, since when';
COMMENT ON COLUMN partition_router.change_feeds.name IS 'by which consumers know it';
COMMENT ON COLUMN partition_router.change_feeds.relations IS 'the tables that tell of changes';
COMMENT ON COLUMN partition_router.change_feeds.key_columns IS 'the columns whose values are told';
COMMENT ON COLUMN partition_router.change_feeds.notify IS 'whether a transaction wakes the consumers by NOTIFY';
COMMENT ON COLUMN partition_router.change_feeds.retention IS 'a change that nobody took for longer becomes one of every key';
COMMENT ON COLUMN partition_router.change_feeds.max_lag IS 'health warns when a change waits longer';
COMMENT ON COLUMN partition_router.change_feeds.waiting IS 'changes that nobody has taken yet';
COMMENT ON COLUMN partition_router.change_feeds.oldest_at IS 'since when the oldest of them waits';
COMMENT ON COLUMN partition_router.change_feeds.enabled_at IS 'when the feed began';

GRANT SELECT ON partition_router.status, partition_router.partitions, partition_router.policies, partition_router.holds,
    partition_router.progress, partition_router.calls,
    partition_router.health, partition_router.run_log, partition_router.maintenance_log,
    partition_router.routing_stats, partition_router.shadow_reads, partition_router.archives,
    partition_router.table_metrics, partition_router.pair_metrics,
    partition_router.replica_metrics, partition_router.slot_metrics, partition_router.standby_metrics, partition_router.change_feeds, partition_router.change_feed_trigger TO pg_monitor;
GRANT EXECUTE ON FUNCTION partition_router.metrics(boolean), partition_router.verify_partitions(),
    partition_router.health_checks(), partition_router.routing_counts(), partition_router.calls_at_work(), partition_router.openmetrics(), partition_router.report(),
    partition_router.chart(regclass), partition_router.table_figures(), partition_router.pair_figures() TO pg_monitor;
