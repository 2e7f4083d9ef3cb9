-- What refers to the table $1 by its oid and has to follow its name to the table $2 (NULL: to none yet), as one jsonb. Definitions are deparsed
-- by the server while the names are as they are: run again after the swap, they mean the other table.
WITH own AS (
    SELECT c.oid, c.relnamespace, c.relname, pg_catalog.array_remove(ARRAY[c.reltype, t.typarray], 0::oid) AS types
    FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_type t ON t.oid = c.reltype WHERE c.oid = $1
), tree AS (
    SELECT t.relid::oid AS oid FROM pg_catalog.pg_partition_tree($1) t UNION SELECT $1::oid
), dependent AS (
    SELECT DISTINCT d.classid, d.objid, d.refclassid = 'pg_catalog.pg_type'::regclass AS by_type
    FROM pg_catalog.pg_depend d, own
    WHERE d.deptype IN ('n', 'a', 'i')
      AND (d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = own.oid
           OR d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid = ANY (own.types))
      AND NOT (d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = own.oid)
      AND NOT (d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = ANY (own.types))
), rule AS (
    SELECT r.oid, r.rulename, r.ev_class, v.relname, v.relkind, v.relpersistence, v.relowner, v.relnamespace, v.reloptions,
           n.nspname, v.relkind IN ('v', 'm') AND r.rulename = '_RETURN' AS is_view,
           EXISTS (SELECT FROM pg_catalog.pg_depend b
                   WHERE b.classid = 'pg_catalog.pg_rewrite'::regclass AND b.objid = r.oid
                     AND b.refclassid = 'pg_catalog.pg_class'::regclass AND b.refobjid = $2) AS names_both,
           EXISTS (SELECT FROM pg_catalog.pg_depend b JOIN pg_catalog.pg_constraint k ON k.oid = b.refobjid
                   WHERE b.classid = 'pg_catalog.pg_rewrite'::regclass AND b.objid = r.oid
                     AND b.refclassid = 'pg_catalog.pg_constraint'::regclass AND k.conrelid = $1
                     AND pg_catalog.cardinality(k.conkey) < (
                         SELECT pg_catalog.cardinality(o.conkey) FROM pg_catalog.pg_constraint o
                         WHERE o.conrelid = $2 AND o.contype = 'p')) AS needs_key
    FROM dependent d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    JOIN pg_catalog.pg_class v ON v.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
    WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND NOT d.by_type
), routine AS (
    SELECT p.oid, p.proname, p.proowner, p.prokind, n.nspname, p.pronamespace,
           EXISTS (SELECT FROM pg_catalog.pg_depend b
                   WHERE b.classid = 'pg_catalog.pg_proc'::regclass AND b.objid = p.oid
                     AND b.refclassid = 'pg_catalog.pg_class'::regclass AND b.refobjid = $2) AS names_both
    FROM dependent d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND NOT d.by_type
), policy AS (
    SELECT p.oid, p.polname, p.polrelid, p.polqual, p.polwithcheck, t.relname, n.nspname, t.relowner
    FROM dependent d JOIN pg_catalog.pg_policy p ON p.oid = d.objid
    JOIN pg_catalog.pg_class t ON t.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
    WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND p.polrelid IS DISTINCT FROM $2
), follower AS (
    SELECT 1 AS kind_order, 'view' AS kind, pg_catalog.format('%I.%I', r.nspname, r.relname) AS name, r.ev_class AS relation,
           pg_catalog.pg_has_role(r.relowner, 'USAGE') AS owned, r.relowner AS owner, pg_catalog.format(
               'CREATE OR REPLACE VIEW %I.%I%s AS %s', r.nspname, r.relname,
               (SELECT ' WITH (' || pg_catalog.string_agg(pg_catalog.format('%I = %L', pg_catalog.split_part(o, '=', 1),
                       pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ') || ')'
                FROM pg_catalog.unnest(r.reloptions) o),
               pg_catalog.rtrim(pg_catalog.pg_get_viewdef(r.ev_class), ';')) AS statement
    FROM rule r WHERE r.is_view AND r.relkind = 'v'
    UNION ALL
    SELECT 1, 'materialized view', pg_catalog.format('%I.%I', r.nspname, r.relname), r.ev_class,
           pg_catalog.pg_has_role(r.relowner, 'USAGE'), r.relowner, pg_catalog.format(
               'SELECT partition_router.redefine_materialized_view(%L, %L)',
               pg_catalog.format('%I.%I', r.nspname, r.relname),
               pg_catalog.rtrim(pg_catalog.pg_get_viewdef(r.ev_class), ';'))
    FROM rule r WHERE r.is_view AND r.relkind = 'm'
    UNION ALL
    SELECT 2, 'rule', pg_catalog.format('%I on %I.%I', r.rulename, r.nspname, r.relname), r.ev_class,
           pg_catalog.pg_has_role(r.relowner, 'USAGE'), r.relowner,
           pg_catalog.rtrim(pg_catalog.overlay(pg_catalog.pg_get_ruledef(r.oid), 'CREATE OR REPLACE RULE', 1, 11), ';')
    FROM rule r WHERE NOT r.is_view AND r.ev_class <> $1 AND r.ev_class IS DISTINCT FROM $2
    UNION ALL
    SELECT 3, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.oid::pg_catalog.regprocedure::text, 0::oid,
           pg_catalog.pg_has_role(p.proowner, 'USAGE'), p.proowner, pg_catalog.pg_get_functiondef(p.oid)
    FROM routine p
    UNION ALL
    SELECT 4, 'policy', pg_catalog.format('%I on %I.%I', p.polname, p.nspname, p.relname), p.polrelid,
           pg_catalog.pg_has_role(p.relowner, 'USAGE'), p.relowner, pg_catalog.format('ALTER POLICY %I ON %I.%I%s%s', p.polname, p.nspname, p.relname,
               ' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')',
               ' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')')
    FROM policy p
), lost AS (
    SELECT pg_catalog.format('%s uses the row type of %I', pg_catalog.pg_describe_object(d.classid, d.objid, 0), own.relname) AS what
    FROM dependent d, own WHERE d.by_type
    UNION
    SELECT pg_catalog.format('view %I.%I is temporary', r.nspname, r.relname) FROM rule r WHERE r.is_view AND r.relpersistence = 't'
    UNION
    SELECT pg_catalog.format('view %I.%I reads both sides of the pair', r.nspname, r.relname) FROM rule r WHERE r.is_view AND r.names_both
    UNION
    SELECT pg_catalog.format('view %I.%I groups by a primary key that is wider on the other side', r.nspname, r.relname)
    FROM rule r WHERE r.is_view AND r.needs_key
    UNION
    SELECT pg_catalog.format('rule %I names both sides of the pair', r.rulename)
    FROM rule r WHERE NOT r.is_view AND r.ev_class <> $1 AND (r.names_both OR r.ev_class = $2)
    UNION
    SELECT pg_catalog.format('policy %I of the other side reads %I', p.polname, own.relname)
    FROM dependent d JOIN pg_catalog.pg_policy p ON p.oid = d.objid CROSS JOIN own
    WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND p.polrelid = $2
      -- One that reads its own table follows with it.
      AND NOT EXISTS (SELECT FROM policy o WHERE o.polrelid = $1 AND o.polname = p.polname)
    UNION
    SELECT pg_catalog.format('rule %I acts on %I alone', w.rulename, own.relname)
    FROM pg_catalog.pg_rewrite w JOIN own ON w.ev_class = own.oid
    UNION
    SELECT pg_catalog.format('function %s names both sides of the pair', p.oid::pg_catalog.regprocedure) FROM routine p WHERE p.names_both
    UNION
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0)
    FROM dependent d
    WHERE NOT d.by_type
      AND CASE d.classid
          WHEN 'pg_catalog.pg_class'::regclass THEN NOT EXISTS (
              SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid
              AND (c.relkind IN ('i', 'I', 't', 'S') OR c.oid IN (SELECT tree.oid FROM tree)))
          WHEN 'pg_catalog.pg_attrdef'::regclass THEN NOT EXISTS (
              SELECT FROM pg_catalog.pg_attrdef v WHERE v.oid = d.objid AND v.adrelid IN (SELECT tree.oid FROM tree))
          WHEN 'pg_catalog.pg_constraint'::regclass THEN NOT EXISTS (
              SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = d.objid AND (k.conrelid = $1 OR k.confrelid = $1))
          WHEN 'pg_catalog.pg_trigger'::regclass THEN false
          WHEN 'pg_catalog.pg_statistic_ext'::regclass THEN false
          WHEN 'pg_catalog.pg_publication_rel'::regclass THEN false
          WHEN 'pg_catalog.pg_policy'::regclass THEN false
          WHEN 'pg_catalog.pg_rewrite'::regclass THEN false
          WHEN 'pg_catalog.pg_proc'::regclass THEN false
          ELSE true END
)
SELECT pg_catalog.jsonb_build_object(
    'followers', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'kind', f.kind, 'name', f.name, 'relation', f.relation::bigint, 'owned', f.owned, 'owner', f.owner::bigint, 'statement', f.statement)
            ORDER BY f.kind_order, f.relation, f.name), '[]')
        FROM follower f),
    'lost', (SELECT COALESCE(pg_catalog.jsonb_agg(l.what ORDER BY l.what), '[]') FROM lost l),
    'statistics', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', s.stxname),
            'target', NULLIF(COALESCE((pg_catalog.to_jsonb(s) ->> 'stxstattarget')::int, -1), -1),
            'definition', s.stxkind::text || ' ' || pg_catalog.pg_get_statisticsobjdef_columns(s.oid)) ORDER BY s.stxname), '[]')
        FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = $1),
    'sequences', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'column', a.attname, 'oid', s.oid::bigint,
            'name', pg_catalog.jsonb_build_object('schema', sn.nspname, 'name', s.relname),
            'identity', NULLIF(a.attidentity, ''),
            'options', pg_catalog.format('START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s %s',
                q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
            'comment', pg_catalog.obj_description(s.oid, 'pg_class'),
            'grants', (
                SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                    'privilege', g.privilege_type, 'column', NULL,
                    'grantee', CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
                    'grantable', g.is_grantable)), '[]')
                FROM pg_catalog.aclexplode(s.relacl) g WHERE g.grantee <> s.relowner)
            ) ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
        JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
        JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
          AND d.refobjid = $1 AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')),
    'publications', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', p.pubname, 'owned', pg_catalog.pg_has_role(p.pubowner, 'USAGE'), 'via_root', p.pubviaroot,
            'has_other', EXISTS (SELECT FROM pg_catalog.pg_publication_rel o JOIN pg_catalog.pg_class oc ON oc.oid = o.prrelid
                                 WHERE o.prpubid = p.oid AND oc.relkind = 'p' AND o.prrelid <> $1 AND o.prrelid IS DISTINCT FROM $2),
            'has_both', EXISTS (SELECT FROM pg_catalog.pg_publication_rel o WHERE o.prpubid = p.oid AND o.prrelid = $2),
            'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = $1 AND a.attnum::text IN (
                            SELECT x FROM pg_catalog.jsonb_array_elements_text(
                                NULLIF(pg_catalog.to_jsonb(r) -> 'prattrs', 'null')) x)),
            'filter', (SELECT pg_catalog.to_jsonb(t) ->> 'rowfilter' FROM pg_catalog.pg_publication_tables t, own
                       JOIN pg_catalog.pg_namespace n ON n.oid = own.relnamespace
                       WHERE t.pubname = p.pubname AND t.schemaname = n.nspname AND t.tablename = own.relname)
            ) ORDER BY p.pubname), '[]')
        FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = $1),
    -- The triggers by which foreign keys of a side act when a row that they point at changes: on the tables that they point at.
    'actions', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'table', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname), 'oid', c.oid::bigint,
            'trigger', t.tgname, 'enabled', t.tgenabled <> 'D') ORDER BY c.oid, t.oid), '[]')
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_trigger t ON t.tgconstraint = k.oid AND t.tgisinternal AND t.tgrelid = k.confrelid
        JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype = 'f' AND k.confrelid <> k.conrelid AND k.conrelid IN (SELECT tree.oid FROM tree)),
    -- Every name in the schema that an index, a table or a type may take.
    'taken', (
        SELECT pg_catalog.jsonb_agg(DISTINCT x.name)
        FROM own CROSS JOIN LATERAL (
            SELECT c.relname AS name FROM pg_catalog.pg_class c WHERE c.relnamespace = own.relnamespace
            UNION ALL SELECT t.typname FROM pg_catalog.pg_type t WHERE t.typnamespace = own.relnamespace
            UNION ALL SELECT s.stxname FROM pg_catalog.pg_statistic_ext s WHERE s.stxnamespace = own.relnamespace) x),
    'may_create', (SELECT pg_catalog.has_schema_privilege(own.relnamespace, 'CREATE') FROM own)
)
