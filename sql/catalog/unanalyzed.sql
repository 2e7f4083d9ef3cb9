-- The partitioned tables under maintenance, and the twins of pairs in step, that role $1 may analyse and whose own statistics are too old, of
-- all or of $2 alone. Autovacuum analyses partitions and never the table above them: it is due when the partitions that
-- autovacuum has analysed since, because enough of them has changed, hold more rows than autovacuum would let change.
WITH RECURSIVE target AS (
    SELECT c.oid, pg_catalog.pg_stat_get_last_analyze_time(c.oid) AS analyzed
    FROM (SELECT p.parent::oid AS oid FROM partition_router.policy p
          UNION SELECT p.twin::oid FROM partition_router.pair p WHERE p.phase IN ('live', 'switched', 'done')) t
    JOIN pg_catalog.pg_class c ON c.oid = t.oid AND c.relkind = 'p'
    WHERE pg_catalog.pg_has_role($1, c.relowner, 'USAGE') AND (c.oid = $2 OR $2 IS NULL)
      AND NOT EXISTS (SELECT FROM partition_router.pair p
                      WHERE p.twin::oid = c.oid AND p.phase IN ('prepared', 'copying'))
), tree AS (
    SELECT t.oid AS root, t.analyzed, c.oid, c.relkind, c.reltuples
    FROM target t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE c.relkind = 'p' OR c.reltuples > 0
    UNION ALL
    SELECT t.root, t.analyzed, c.oid, c.relkind, c.reltuples
    FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE t.relkind = 'p' AND (c.relkind = 'p' OR c.reltuples > 0)
)
SELECT pg_catalog.to_jsonb(t.root::bigint)
FROM tree t WHERE t.relkind = 'r'
GROUP BY t.root, t.analyzed
HAVING t.analyzed IS NULL
    OR pg_catalog.sum(t.reltuples) FILTER (WHERE pg_catalog.pg_stat_get_last_autoanalyze_time(t.oid) > t.analyzed)
       > pg_catalog.current_setting('autovacuum_analyze_threshold')::float8
         + pg_catalog.current_setting('autovacuum_analyze_scale_factor')::float8 * pg_catalog.sum(t.reltuples)
ORDER BY t.root
