-- What the sync triggers need of pair $1, as one jsonb; no row when a table of the pair is gone.
SELECT pg_catalog.jsonb_build_object(
    'legacy', l.oid::bigint,
    'owner', l.relowner::bigint,
    'twin', t.oid::bigint,
    'twin_schema', (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = t.relnamespace),
    'twin_name', t.relname,
    'is_live', p.phase IN ('live', 'switched') OR p.guard IS NOT NULL,
    'is_guarded', p.guard IS NOT NULL,
    'twin_key', (
        SELECT pg_catalog.jsonb_agg(k.attname ORDER BY k.ord)
        FROM (SELECT a.attname, x.ord
              FROM pg_catalog.pg_index i
              CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS x(attnum, ord)
              JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.attnum
              WHERE i.indrelid = l.oid AND i.indisprimary AND x.ord <= i.indnkeyatts
              UNION ALL
              SELECT p.partition_key, 1000
              WHERE NOT EXISTS (
                  SELECT FROM pg_catalog.pg_index i
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])
                  WHERE i.indrelid = l.oid AND i.indisprimary AND a.attname = p.partition_key)) k),
    -- Not pg_partition_tree(): it locks the partitions, and a writer must not wait for a step of the backfill.
    'partitions', (
        WITH RECURSIVE tree AS (
            SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = t.oid
            UNION ALL
            SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.inhrelid)
        SELECT COALESCE(pg_catalog.jsonb_agg(tree.inhrelid::bigint), '[]') FROM tree),
    'log', (SELECT c.oid::bigint FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE p.phase = 'copying' AND n.nspname = 'partition_router' AND c.relname = 'change_log_' || p.id),
    'lacking', (
        SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attname)
        FROM pg_catalog.pg_attribute a
        WHERE (a.attrelid = l.oid OR a.attrelid = t.oid AND p.guard IS NULL) AND a.attnum > 0 AND NOT a.attisdropped
          AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute o
               WHERE o.attrelid IN (l.oid, t.oid) AND o.attname = a.attname AND o.attnum > 0 AND NOT o.attisdropped) < 2),
    -- The names that unique constraints of the side behind have for whoever writes: those of their counterparts, with the partition key.
    'unique_names', (
        SELECT pg_catalog.jsonb_object_agg(names.behind, names.shown)
        FROM (SELECT ic.relname AS behind, jc.relname AS shown,
                     ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]) AND a.attname <> p.partition_key
                           ORDER BY 1) AS behind_columns,
                     ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = j.indrelid AND a.attnum = ANY (j.indkey::int2[]) AND a.attname <> p.partition_key
                           ORDER BY 1) AS shown_columns
              FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
              JOIN pg_catalog.pg_index j ON j.indrelid = t.oid AND j.indisunique AND j.indisprimary = i.indisprimary
              JOIN pg_catalog.pg_class jc ON jc.oid = j.indexrelid
              WHERE (p.phase = 'switched' OR p.guard IS NOT NULL) AND i.indrelid = l.oid AND i.indisunique
                AND pg_catalog.pg_get_expr(i.indexprs, i.indrelid) IS NOT DISTINCT FROM pg_catalog.pg_get_expr(j.indexprs, j.indrelid)
                AND pg_catalog.pg_get_expr(i.indpred, i.indrelid) IS NOT DISTINCT FROM pg_catalog.pg_get_expr(j.indpred, j.indrelid)) names
        WHERE names.behind_columns = names.shown_columns),
    'has_cascading_updates',
        EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid IN (l.oid, t.oid) AND k.contype = 'f'
                AND (k.confupdtype IN ('c', 'n', 'd') OR k.confdeltype IN ('n', 'd'))),
    'is_referenced', EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.confrelid = l.oid AND k.contype = 'f'),
    'has_other_unique',
        EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid IN (l.oid, t.oid)
                AND i.indisunique AND NOT i.indisprimary),
    -- Only what is not built in can look up a name: what depends on nothing but built-in functions has no such entry.
    'has_expressions',
        EXISTS (
            WITH RECURSIVE tree AS (
                SELECT l.oid AS relid UNION ALL SELECT t.oid
                UNION ALL
                SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relid)
            SELECT FROM tree, LATERAL (
                SELECT d.refclassid FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = tree.relid
                UNION ALL
                SELECT d.refclassid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
                WHERE i.indrelid = tree.relid
                UNION ALL
                SELECT d.refclassid FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
                WHERE k.conrelid = tree.relid AND k.contype = 'c'
                UNION ALL
                SELECT d.refclassid FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
                JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
                WHERE f.adrelid = tree.relid AND a.attgenerated <> '') used
            WHERE used.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass,
                                      'pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_type'::regclass))
)
FROM partition_router.pair p
JOIN pg_catalog.pg_class l ON l.oid = COALESCE(p.legacy, p.guard)
JOIN pg_catalog.pg_class t ON t.oid = p.twin
WHERE p.id = $1
