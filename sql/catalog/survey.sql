-- Tables $1 that are partitioned by the range of one column with a date or a time, and whose partitions have none below, as far as it takes to
-- see whether there is anything to do: one row a table. Oids and bounds of partitions are each one text; bounds as they are stored,
-- which nobody has to print.
SELECT c.oid, a.attname, pg_catalog.format_type(k.oid, NULL), NULLIF(t.partdefid, 0), x.is_half_detached, x.oids, x.bounds
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = c.oid
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = t.partattrs[0]
JOIN pg_catalog.pg_type d ON d.oid = a.atttypid
CROSS JOIN LATERAL (SELECT CASE d.typtype WHEN 'd' THEN d.typbasetype ELSE d.oid END AS oid) k
CROSS JOIN LATERAL (
    SELECT pg_catalog.string_agg(p.oid::text, E'\n') FILTER (WHERE p.oid <> t.partdefid) AS oids,
           pg_catalog.string_agg(p.relpartbound::text, E'\n') FILTER (WHERE p.oid <> t.partdefid) AS bounds,
           pg_catalog.bool_or(i.inhdetachpending) AS is_half_detached,
           pg_catalog.bool_or(p.relkind = 'p') AS is_deep
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid
    WHERE i.inhparent = c.oid) x
WHERE c.oid = ANY ($1) AND t.partstrat = 'r' AND t.partnatts = 1 AND t.partattrs[0] > 0
    AND k.oid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
    AND x.is_deep IS NOT TRUE
