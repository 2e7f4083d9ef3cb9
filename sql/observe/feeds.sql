-- Each change feed as one jsonb: one of its tables, if it has any, what is missing of it, and how long changes wait.
WITH told AS MATERIALIZED (
    SELECT t.feed_id, t.relation::oid AS oid FROM partition_router.change_feed_trigger t WHERE NOT t.is_inherited),
-- Both sides of a pair, if one has it.
whole AS MATERIALIZED (
    SELECT t.feed_id, c.oid FROM told t JOIN pg_class c ON c.oid = t.oid WHERE NOT c.relispartition
    UNION
    SELECT t.feed_id, s.oid
    FROM told t JOIN partition_router.pair p ON t.oid IN (p.legacy::oid, p.twin::oid)
    CROSS JOIN unnest(ARRAY[p.legacy::oid, p.twin::oid]) AS s(oid)
    JOIN pg_class c ON c.oid = s.oid)
SELECT jsonb_build_object(
    'relation', s.relation,
    'name', f.name,
    'key_columns', f.key_columns,
    'notify', f.notify,
    'retention', f.retention::text,
    'max_lag', f.max_lag::text,
    'retention_seconds', EXTRACT(epoch FROM f.retention)::double precision,
    'max_lag_seconds', EXTRACT(epoch FROM f.max_lag)::double precision,
    'silent', (
        SELECT COALESCE(jsonb_agg(x.oid::regclass::text ORDER BY x.oid), '[]')
        FROM (SELECT w.oid, false AS is_part FROM whole w WHERE w.feed_id = f.id
              UNION
              SELECT i.relid::oid, true FROM whole w CROSS JOIN LATERAL pg_partition_tree(w.oid) i
              WHERE w.feed_id = f.id AND i.relid::oid <> w.oid) x
        WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = x.oid AND c.relkind IN ('r', 'p')) AND NOT (
              EXISTS (SELECT FROM partition_router.change_feed_trigger t
                      WHERE t.feed_id = f.id AND t.relation::oid = x.oid AND t.is_row AND t.is_always)
              AND EXISTS (SELECT FROM partition_router.change_feed_trigger t
                          WHERE t.feed_id = f.id AND t.relation::oid = x.oid AND NOT t.is_row AND t.is_always))),
    'gone', (
        SELECT COALESCE(jsonb_agg(DISTINCT k.name), '[]')
        FROM whole w CROSS JOIN unnest(f.key_columns) AS k(name)
        WHERE w.feed_id = f.id AND NOT EXISTS (
              SELECT FROM pg_attribute a WHERE a.attrelid = w.oid AND a.attname = k.name AND NOT a.attisdropped)),
    'waiting', f.waiting,
    'lag', EXTRACT(epoch FROM clock_timestamp() - f.oldest_at)::double precision,
    'is_late', COALESCE(clock_timestamp() - f.oldest_at > f.max_lag, false),
    'is_lost', COALESCE(clock_timestamp() - f.oldest_at > f.retention, false))
FROM (
    SELECT c.id, c.name, c.key_columns, c.notify, c.retention, c.max_lag, COALESCE(e.waiting, 0) AS waiting, e.oldest_at
    FROM partition_router.change_feed c
    LEFT JOIN (SELECT feed_id, count(*) AS waiting, min(changed_at) AS oldest_at
               FROM partition_router.change_event GROUP BY feed_id) e ON e.feed_id = c.id) f
CROSS JOIN LATERAL (SELECT min(w.oid::regclass::text) AS relation FROM whole w WHERE w.feed_id = f.id) s
ORDER BY f.name
