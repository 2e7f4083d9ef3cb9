-- One table as the catalog has it, as one jsonb: $1 is its oid. Expressions and definitions are deparsed by
-- the server; with search_path pinned to pg_catalog every name in them is schema-qualified.
SELECT pg_catalog.jsonb_build_object(
    'oid', c.oid::bigint,
    'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'kind', c.relkind,
    'persistence', c.relpersistence,
    'is_partition', c.relispartition,
    'is_system', n.nspname IN ('pg_catalog', 'information_schema', 'partition_router') OR n.nspname LIKE 'pg\_toast%',
    'is_inherited', EXISTS (SELECT FROM pg_catalog.pg_inherits h
                            WHERE (h.inhparent = c.oid AND c.relkind = 'r') OR (h.inhrelid = c.oid AND NOT c.relispartition)),
    'is_typed', c.reloftype <> 0,
    'owner', pg_catalog.pg_get_userbyid(c.relowner),
    'access_method', am.amname,
    'tablespace', (SELECT t.spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = c.reltablespace),
    'options', COALESCE(pg_catalog.to_jsonb(c.reloptions), '[]')
        || COALESCE((SELECT pg_catalog.jsonb_agg('toast.' || o) FROM pg_catalog.pg_class tc, pg_catalog.unnest(tc.reloptions) o
                     WHERE tc.oid = c.reltoastrelid), '[]'),
    'row_security', c.relrowsecurity,
    'force_row_security', c.relforcerowsecurity,
    'replica_identity', c.relreplident,
    'comment', pg_catalog.obj_description(c.oid, 'pg_class'),
    'estimated_rows', GREATEST(c.reltuples, 0)::bigint,
    'columns', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'number', a.attnum,
            'name', a.attname,
            'collation', CASE WHEN a.attcollation <> bt.typcollation THEN (
                SELECT pg_catalog.format('%I.%I', cn.nspname, co.collname)
                FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
                WHERE co.oid = a.attcollation) END,
            'default', (SELECT pg_catalog.pg_get_expr(v.adbin, v.adrelid, false) FROM pg_catalog.pg_attrdef v
                        WHERE v.adrelid = c.oid AND v.adnum = a.attnum),
            'storage', a.attstorage,
            'compression', a.attcompression,
            'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod),
            'base_type', CASE bt.typtype WHEN 'd' THEN pg_catalog.format_type(bt.typbasetype, NULL)
                                         ELSE pg_catalog.format_type(a.atttypid, NULL) END,
            'not_null', a.attnotnull,
            'generated', a.attgenerated <> '',
            'is_virtual', a.attgenerated = 'v',
            'identity', a.attidentity <> '',
            'sequence', CASE WHEN a.attidentity <> '' THEN (
                SELECT pg_catalog.jsonb_build_object('schema', sn.nspname, 'name', s.relname)
                FROM pg_catalog.pg_depend d
                JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
                JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
                WHERE d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype = 'i'
                  AND d.classid = 'pg_catalog.pg_class'::regclass LIMIT 1) END,
            'options', (
                SELECT COALESCE(pg_catalog.jsonb_agg(o), '[]') FROM pg_catalog.unnest(a.attoptions) o
                WHERE pg_catalog.split_part(o, '=', 1) IN ('n_distinct', 'n_distinct_inherited')),
            'statistics_target', NULLIF(COALESCE((pg_catalog.to_jsonb(a) ->> 'attstattarget')::int, -1), -1)
        ) ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type bt ON bt.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'checks', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'oid', k.oid::bigint,
            'name', k.conname,
            'expression', pg_catalog.pg_get_expr(k.conbin, k.conrelid, false),
            'comment', pg_catalog.obj_description(k.oid, 'pg_constraint'),
            'valid', k.convalidated) ORDER BY k.conname), '[]')
        FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'),
    'indexes', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'oid', i.indexrelid::bigint,
            'name', ic.relname,
            'method', iam.amname,
            'unique', i.indisunique,
            'primary', i.indisprimary,
            'valid', i.indisvalid,
            'exclusion', i.indisexclusion,
            'constraint', con.conname,
            'deferrable', COALESCE(con.condeferrable, false),
            'deferred', COALESCE(con.condeferred, false),
            'nulls_not_distinct', COALESCE((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false),
            'key_columns', (
                SELECT COALESCE(pg_catalog.jsonb_agg(ka.attname ORDER BY k.ord), '[]')
                FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, ord)
                LEFT JOIN pg_catalog.pg_attribute ka ON ka.attrelid = c.oid AND ka.attnum = k.attnum AND k.attnum > 0
                WHERE k.ord <= i.indnkeyatts),
            'keys', (
                SELECT pg_catalog.jsonb_agg(
                    pg_catalog.pg_get_indexdef(i.indexrelid, k::int, false)
                    || CASE WHEN i.indcollation[k - 1] <> 0
                            THEN (SELECT pg_catalog.format(' COLLATE %I.%I', cn.nspname, co.collname)
                                  FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
                                  WHERE co.oid = i.indcollation[k - 1]) ELSE '' END
                    || (SELECT pg_catalog.format(' %I.%I', pn.nspname, oc.opcname)
                            || CASE WHEN ia.attoptions IS NULL THEN '' ELSE
                               (SELECT ' (' || pg_catalog.string_agg(pg_catalog.format('%I = %L',
                                       pg_catalog.split_part(o, '=', 1), pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ') || ')'
                                FROM pg_catalog.unnest(ia.attoptions) o) END
                        FROM pg_catalog.pg_opclass oc JOIN pg_catalog.pg_namespace pn ON pn.oid = oc.opcnamespace
                        WHERE oc.oid = i.indclass[k - 1])
                    || CASE WHEN pg_catalog.pg_index_column_has_property(i.indexrelid, k::int, 'orderable') THEN
                            CASE WHEN pg_catalog.pg_index_column_has_property(i.indexrelid, k::int, 'desc') THEN ' DESC' ELSE ' ASC' END
                         || CASE WHEN pg_catalog.pg_index_column_has_property(i.indexrelid, k::int, 'nulls_first') THEN ' NULLS FIRST' ELSE ' NULLS LAST' END
                       ELSE '' END
                    ORDER BY k)
                FROM pg_catalog.generate_series(1, i.indnkeyatts) k
                JOIN pg_catalog.pg_attribute ia ON ia.attrelid = i.indexrelid AND ia.attnum = k),
            'include', (
                SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.pg_get_indexdef(i.indexrelid, k::int, false) ORDER BY k), '[]')
                FROM pg_catalog.generate_series(i.indnkeyatts + 1, i.indnatts) k),
            'predicate', pg_catalog.pg_get_expr(i.indpred, i.indrelid, false),
            'options', COALESCE(pg_catalog.to_jsonb(ic.reloptions), '[]'),
            'tablespace', (SELECT t.spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = ic.reltablespace),
            'comment', pg_catalog.obj_description(ic.oid, 'pg_class'),
            'constraint_comment', pg_catalog.obj_description(con.oid, 'pg_constraint'),
            'replica_identity', i.indisreplident,
            'clustered', i.indisclustered,
            'targets', (
                SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(ia.attnum, pg_catalog.to_jsonb(ia) -> 'attstattarget')
                                                     ORDER BY ia.attnum), '[]')
                FROM pg_catalog.pg_attribute ia
                WHERE ia.attrelid = ic.oid AND (pg_catalog.to_jsonb(ia) ->> 'attstattarget')::int >= 0)
        ) ORDER BY i.indisprimary DESC, i.indisunique DESC, ic.relname), '[]')
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
        JOIN pg_catalog.pg_am iam ON iam.oid = ic.relam
        LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x') AND con.conrelid = c.oid
        WHERE i.indrelid = c.oid),
    'foreign_keys', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'oid', f.oid::bigint,
            'name', f.conname,
            'definition', pg_catalog.pg_get_constraintdef(f.oid),
            'references', f.confrelid::bigint,
            'comment', pg_catalog.obj_description(f.oid, 'pg_constraint'),
            'valid', f.convalidated
        ) ORDER BY f.oid), '[]')
        FROM pg_catalog.pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f'
         -- A key that points at a partitioned table has one more for each partition.
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint whole WHERE whole.oid = f.conparentid AND whole.conrelid = f.conrelid)),
    'referenced_by', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', f.conname, 'relation', f.conrelid::regclass::text,
            'table', pg_catalog.jsonb_build_object('schema', fn.nspname, 'name', fc.relname),
            'oid', fc.oid::bigint, 'kind', fc.relkind,
            'columns', (SELECT pg_catalog.jsonb_agg(fa.attname ORDER BY k.ord)
                        FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k(attnum, ord)
                        JOIN pg_catalog.pg_attribute fa ON fa.attrelid = f.confrelid AND fa.attnum = k.attnum),
            'definition', pg_catalog.pg_get_constraintdef(f.oid),
            'on_delete', f.confdeltype, 'valid', f.convalidated,
            'comment', pg_catalog.obj_description(f.oid, 'pg_constraint'),
            'owned', pg_catalog.pg_has_role(fc.relowner, 'USAGE')) ORDER BY f.conname, fc.oid), '[]')
        FROM pg_catalog.pg_constraint f
        JOIN pg_catalog.pg_class fc ON fc.oid = f.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = fc.relnamespace
        WHERE f.confrelid = c.oid AND f.contype = 'f' AND f.conparentid = 0),
    'triggers', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', x.tgname, 'enabled', x.tgenabled, 'comment', x.comment, 'ours', x.ours, 'head', x.head, 'row', x.is_row,
            'transition', x.has_transition,
            'tail', CASE WHEN pg_catalog.starts_with(x.definition, x.prefix)
                         THEN pg_catalog.substr(x.definition, pg_catalog.length(x.prefix) + 1) END
        ) ORDER BY x.tgname), '[]')
        FROM (
            SELECT t.tgname, t.tgenabled, pg_catalog.obj_description(t.oid, 'pg_trigger') AS comment, t.tgtype & 1 = 1 AS is_row,
                   t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL AS has_transition,
                   pn.nspname = 'partition_router' AS ours,
                   pg_catalog.pg_get_triggerdef(t.oid, false) AS definition,
                   h.head, h.head || pg_catalog.format('%I.%I', n.nspname, c.relname) AS prefix
            FROM pg_catalog.pg_trigger t
            JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
            JOIN pg_catalog.pg_namespace pn ON pn.oid = p.pronamespace
            CROSS JOIN LATERAL (SELECT
                CASE WHEN t.tgconstraint <> 0 THEN 'CREATE CONSTRAINT TRIGGER ' ELSE 'CREATE TRIGGER ' END
                || pg_catalog.quote_ident(t.tgname)
                || CASE WHEN t.tgtype & 2 = 2 THEN ' BEFORE ' WHEN t.tgtype & 64 = 64 THEN ' INSTEAD OF ' ELSE ' AFTER ' END
                || pg_catalog.array_to_string(ARRAY[
                     CASE WHEN t.tgtype & 4 = 4 THEN 'INSERT' END,
                     CASE WHEN t.tgtype & 8 = 8 THEN 'DELETE' END,
                     CASE WHEN t.tgtype & 16 = 16 THEN 'UPDATE' || COALESCE((
                         SELECT ' OF ' || pg_catalog.string_agg(pg_catalog.quote_ident(ua.attname), ', ' ORDER BY u.ord)
                         FROM pg_catalog.unnest(t.tgattr::int2[]) WITH ORDINALITY AS u(attnum, ord)
                         JOIN pg_catalog.pg_attribute ua ON ua.attrelid = c.oid AND ua.attnum = u.attnum), '') END,
                     CASE WHEN t.tgtype & 32 = 32 THEN 'TRUNCATE' END], ' OR ')
                || ' ON ' AS head) h
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
              AND COALESCE((pg_catalog.to_jsonb(t) ->> 'tgparentid')::bigint, 0) = 0
        ) x),
    'policies', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', p.polname,
            'comment', pg_catalog.obj_description(p.oid, 'pg_policy'),
            'definition',
                CASE WHEN p.polpermissive THEN ' AS PERMISSIVE' ELSE ' AS RESTRICTIVE' END
                || ' FOR ' || CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END
                || ' TO ' || (SELECT pg_catalog.string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r)) END, ', ')
                              FROM pg_catalog.unnest(p.polroles) r)
                || COALESCE(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid, false) || ')', '')
                || COALESCE(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid, false) || ')', ''))
            ORDER BY p.polname), '[]')
        FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid),
    'owner_lacks', (
        SELECT COALESCE(pg_catalog.jsonb_agg(d.privilege_type), '[]')
        FROM pg_catalog.aclexplode(pg_catalog.acldefault('r', c.relowner)) d
        WHERE c.relacl IS NOT NULL AND d.grantee = c.relowner
          AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) e
                          WHERE e.grantee = c.relowner AND e.privilege_type = d.privilege_type)),
    'grants', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'privilege', g.privilege_type,
            'column', g.attname,
            'grantee', CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
            'grantable', g.is_grantable)), '[]')
        FROM (
            SELECT e.privilege_type, e.grantee, e.is_grantable, NULL::name AS attname
            FROM pg_catalog.aclexplode(c.relacl) e WHERE e.grantee <> c.relowner
            UNION ALL
            SELECT e.privilege_type, e.grantee, e.is_grantable, ga.attname
            FROM pg_catalog.pg_attribute ga, pg_catalog.aclexplode(ga.attacl) e
            WHERE ga.attrelid = c.oid AND ga.attnum > 0 AND NOT ga.attisdropped AND e.grantee <> c.relowner
        ) g)
)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
WHERE c.oid = $1
