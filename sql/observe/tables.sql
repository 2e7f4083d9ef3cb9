-- Every partitioned table that is the twin of a pair or under maintenance, one jsonb each, without its partitions. $1: how many
-- of the newest partitions come along with their bounds; NULL is all. The tree is read from pg_inherits: pg_partition_tree()
-- would lock every partition until the transaction ends, which is more than the lock table holds where there are many.
WITH RECURSIVE root AS (
    SELECT p.twin::oid AS oid FROM partition_router.pair p
    UNION
    SELECT y.parent::oid FROM partition_router.policy y
), tree AS (
    SELECT r.oid AS root, i.inhrelid AS oid, 1 AS level
    FROM root r JOIN pg_inherits i ON i.inhparent = r.oid
    UNION ALL
    SELECT t.root, i.inhrelid, t.level + 1
    FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
), total AS (
    SELECT t.root,
           count(*) FILTER (WHERE c.relkind <> 'p') AS leaves,
           bool_or(c.relkind = 'p') AS is_deep,
           COALESCE(sum(GREATEST(c.reltuples, 0)) FILTER (WHERE c.relkind <> 'p'), 0)::bigint AS estimate
    FROM tree t JOIN pg_class c ON c.oid = t.oid
    GROUP BY t.root
)
SELECT jsonb_build_object(
    'root', r.oid::bigint,
    'name', r.oid::regclass::text,
    'strategy', k.partstrat,
    'key_type', format_type(CASE WHEN y.typtype = 'd' THEN y.typbasetype ELSE y.oid END, NULL),
    'single_key', k.partnatts = 1,
    'is_deep', COALESCE(n.is_deep, false),
    'leaves', COALESCE(n.leaves, 0),
    'estimate', COALESCE(n.estimate, 0),
    'default', NULLIF(k.partdefid, 0)::bigint,
    'is_copied', EXISTS (SELECT FROM partition_router.pair p WHERE p.twin::oid = r.oid AND p.phase = 'copying'),
    'policy', CASE WHEN o.parent IS NOT NULL THEN jsonb_build_object(
        'interval', o.partition_interval,
        'premake', o.premake,
        'retention', o.retention::text,
        'archive_format', o.archive_format,
        'last_run_epoch', EXTRACT(epoch FROM o.last_run_at)::double precision,
        'last_run_age', EXTRACT(epoch FROM clock_timestamp() - o.last_run_at)::double precision,
        'last_error', o.last_error,
        'left_alone', o.left_alone,
        'local_now', to_char(clock_timestamp() AT TIME ZONE o.timezone, 'YYYY-MM-DD HH24:MI:SS.US')) END,
    'bounds', COALESCE((
        SELECT jsonb_agg(pg_get_expr(pc.relpartbound, pc.oid) ORDER BY pc.oid DESC)
        FROM (SELECT i.inhrelid FROM pg_inherits i
              WHERE i.inhparent = r.oid AND k.partstrat = 'r' AND o.parent IS NOT NULL AND i.inhrelid <> k.partdefid
              -- As a number, or the planner would walk through the catalog by its index of oids.
              ORDER BY i.inhrelid::bigint DESC LIMIT $1) b
        JOIN pg_class pc ON pc.oid = b.inhrelid), '[]'))
FROM root r
JOIN pg_class c ON c.oid = r.oid
JOIN pg_partitioned_table k ON k.partrelid = r.oid
LEFT JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = k.partattrs[0]
LEFT JOIN pg_type y ON y.oid = a.atttypid
LEFT JOIN partition_router.policy o ON o.parent::oid = r.oid
LEFT JOIN total n ON n.root = r.oid
ORDER BY r.oid::regclass::text
