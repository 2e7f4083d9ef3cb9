-- Every table below the partitioned table $1, parents first, each as one jsonb. Not pg_partition_tree(), which locks them.
WITH RECURSIVE tree AS (
    SELECT i.inhrelid, 1 AS level FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1
    UNION ALL
    SELECT i.inhrelid, tree.level + 1 FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.inhrelid)
SELECT pg_catalog.jsonb_build_object(
    'oid', c.oid::bigint,
    'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname))
FROM tree
JOIN pg_catalog.pg_class c ON c.oid = tree.inhrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY tree.level, c.relname
