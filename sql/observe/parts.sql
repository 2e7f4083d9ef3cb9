-- The partitions of the tables in $1, one jsonb a table: of each its name, bounds, estimated rows, bytes with indexes and TOAST.
-- $2: whether bytes are measured; else they are what the last VACUUM or ANALYZE saw. Takes no lasting lock.
WITH RECURSIVE tree AS (
    SELECT i.inhparent AS root, i.inhrelid AS oid
    FROM pg_inherits i WHERE i.inhparent = ANY ($1)
    UNION ALL
    SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
), index_pages AS (
    SELECT x.indrelid, sum(c.relpages) AS pages
    FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
    WHERE NOT $2 GROUP BY x.indrelid
)
SELECT jsonb_build_object('root', t.root::bigint, 'parts', jsonb_agg(jsonb_build_array(
    c.relname, pg_get_expr(c.relpartbound, c.oid), GREATEST(c.reltuples, 0)::bigint,
    CASE WHEN $2 THEN COALESCE(pg_total_relation_size(c.oid), 0)
         ELSE (c.relpages + COALESCE(s.relpages, 0) + COALESCE(x.pages, 0)) * current_setting('block_size')::bigint END)
    ORDER BY c.oid))
FROM tree t
JOIN pg_class c ON c.oid = t.oid AND c.relkind <> 'p' AND c.relpartbound IS NOT NULL
LEFT JOIN pg_class s ON s.oid = c.reltoastrelid AND NOT $2
LEFT JOIN index_pages x ON x.indrelid = c.oid
GROUP BY t.root
