-- Range-partitioned tables $1 whose partitions have none below, as far as it takes to see whether there is anything to do: one jsonb a table. Bounds are
-- deparsed by the server: run with DateStyle ISO and with TimeZone set to the zone that the partitions are cut in.
SELECT pg_catalog.jsonb_build_object(
    'parent', c.oid::bigint,
    'key', a.attname,
    'key_type', CASE k.typtype WHEN 'd' THEN pg_catalog.format_type(k.typbasetype, NULL)
                               ELSE pg_catalog.format_type(a.atttypid, NULL) END,
    'default', NULLIF(t.partdefid, 0)::bigint,
    'is_half_detached', COALESCE(x.is_half_detached, false),
    'oids', COALESCE(pg_catalog.to_jsonb(x.oids), '[]'),
    'bounds', COALESCE(pg_catalog.to_jsonb(x.bounds), '[]'))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = c.oid
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = t.partattrs[0]
JOIN pg_catalog.pg_type k ON k.oid = a.atttypid
CROSS JOIN LATERAL (
    SELECT pg_catalog.array_agg(p.oid::bigint) FILTER (WHERE p.oid <> t.partdefid) AS oids,
           pg_catalog.array_agg(pg_catalog.pg_get_expr(p.relpartbound, 0)) FILTER (WHERE p.oid <> t.partdefid) AS bounds,
           pg_catalog.bool_or(i.inhdetachpending) AS is_half_detached,
           pg_catalog.bool_or(p.relkind = 'p') AS is_deep
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid
    WHERE i.inhparent = c.oid) x
WHERE c.oid = ANY ($1) AND t.partstrat = 'r' AND t.partnatts = 1 AND t.partattrs[0] > 0
    AND x.is_deep IS NOT TRUE
