-- A partitioned table and the partitions directly below it, as one jsonb: $1 is its oid. Bounds are deparsed by the
-- server: run with DateStyle ISO and with TimeZone set to the zone that the partitions are cut in.
SELECT pg_catalog.jsonb_build_object(
    'oid', c.oid::bigint,
    'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'display', c.oid::pg_catalog.regclass::text,
    'owner', c.relowner::bigint,
    'owner_name', pg_catalog.pg_get_userbyid(c.relowner),
    'strategy', t.partstrat,
    'key', CASE WHEN t.partnatts = 1 THEN a.attname END,
    'key_type', CASE k.typtype WHEN 'd' THEN pg_catalog.format_type(k.typbasetype, NULL)
                               ELSE pg_catalog.format_type(a.atttypid, NULL) END,
    'collations', pg_catalog.jsonb_build_array(COALESCE(a.attcollation, 0)::bigint, t.partcollation[0]::bigint),
    'columns', (SELECT pg_catalog.jsonb_agg(x.attname ORDER BY x.attnum) FROM pg_catalog.pg_attribute x
                WHERE x.attrelid = c.oid AND x.attnum > 0 AND NOT x.attisdropped AND x.attgenerated = ''),
    'sequence_defaults', (
        SELECT COALESCE(pg_catalog.jsonb_agg(DISTINCT x.attname), '[]')
        FROM pg_catalog.pg_attrdef v
        JOIN pg_catalog.pg_attribute x ON x.attrelid = v.adrelid AND x.attnum = v.adnum
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = v.oid
                                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
        WHERE v.adrelid = c.oid),
    'replica_identity', c.relreplident,
    'tablespace', (SELECT s.spcname FROM pg_catalog.pg_tablespace s WHERE s.oid = c.reltablespace),
    'referenced', EXISTS (SELECT FROM pg_catalog.pg_constraint f
                          WHERE f.contype = 'f' AND f.conparentid = 0
                            AND (f.confrelid = c.oid OR c.relispartition AND f.confrelid IN (
                                SELECT x.relid FROM pg_catalog.pg_partition_ancestors(c.oid) x))),
    -- What a DETACH CONCURRENTLY that did not come to its end left behind.
    'half_detached', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('schema', pn.nspname, 'name', p.relname)), '[]')
        FROM pg_catalog.pg_inherits i
        JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid
        JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
        WHERE i.inhparent = c.oid AND i.inhdetachpending),
    -- The newest partition, where it has what LIKE and ATTACH do not bring to the next one.
    'template', (
        SELECT p.oid::bigint FROM pg_catalog.pg_class p
        WHERE p.oid = newest.oid
          AND (newest.is_keyed OR p.relkind = 'p' OR p.relreplident = 'i' OR p.relacl IS NOT NULL OR p.relrowsecurity OR p.relforcerowsecurity
               OR EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.oid = p.reltoastrelid AND o.reloptions IS NOT NULL)
               OR EXISTS (SELECT FROM pg_catalog.pg_attribute x
                          WHERE x.attrelid = p.oid AND x.attnum > 0 AND NOT x.attisdropped
                            AND (x.attstattarget > 0 OR x.attoptions::text LIKE '%n_distinct%' OR x.attacl IS NOT NULL))
               OR EXISTS (SELECT FROM pg_catalog.pg_policy o WHERE o.polrelid = p.oid))),
    'has_targets', EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s
                           WHERE s.stxrelid = c.oid AND (pg_catalog.to_jsonb(s) ->> 'stxstattarget')::int >= 0)
                OR EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute x ON x.attrelid = i.indexrelid
                           WHERE i.indrelid = c.oid AND i.indexprs IS NOT NULL
                             AND (pg_catalog.to_jsonb(x) ->> 'attstattarget')::int >= 0),
    'is_keyed', newest.is_keyed,
    'is_deep', COALESCE((SELECT p.relkind = 'p' FROM pg_catalog.pg_class p WHERE p.oid = newest.oid), false),
    'default', (SELECT pg_catalog.jsonb_build_object('schema', dn.nspname, 'name', d.relname)
                FROM pg_catalog.pg_class d JOIN pg_catalog.pg_namespace dn ON dn.oid = d.relnamespace
                WHERE d.oid = t.partdefid),
    'default_oid', NULLIF(t.partdefid, 0)::bigint,
    'partitions', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'oid', p.oid::bigint,
            'name', pg_catalog.jsonb_build_object('schema', pn.nspname, 'name', p.relname),
            'display', p.oid::pg_catalog.regclass::text,
            'bounds', pg_catalog.pg_get_expr(p.relpartbound, 0),
            'is_foreign', p.relkind = 'f',
            'options', COALESCE(pg_catalog.to_jsonb(p.reloptions), '[]')) ORDER BY p.oid), '[]')
        FROM pg_catalog.pg_inherits i
        JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid
        JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
        WHERE i.inhparent = c.oid AND p.oid <> t.partdefid AND NOT i.inhdetachpending))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = c.oid
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = t.partattrs[0] AND t.partattrs[0] > 0
LEFT JOIN pg_catalog.pg_type k ON k.oid = a.atttypid
-- The newest partition that is here: a foreign one has nothing for others to take after. A key of its own is a unique index that the
-- table above has none of.
CROSS JOIN LATERAL (
    SELECT n.oid, EXISTS (SELECT FROM pg_catalog.pg_index x
                          WHERE x.indrelid = n.oid AND x.indisunique AND x.indisvalid
                            AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = x.indexrelid)) AS is_keyed
    FROM (SELECT pg_catalog.max(i.inhrelid) AS oid
          FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid
          WHERE i.inhparent = c.oid AND i.inhrelid <> t.partdefid AND NOT i.inhdetachpending AND p.relkind <> 'f') n) newest
WHERE c.oid = $1
