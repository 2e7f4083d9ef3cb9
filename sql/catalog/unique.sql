-- What of the table $1 a guard needs: each valid unique index with the columns that it reads, and each foreign key of the table to
-- itself with its columns, as one jsonb.
SELECT pg_catalog.jsonb_build_object(
    'indexes', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', c.relname,
            'primary', i.indisprimary,
            'columns', (
                SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = i.indrelid AND (
                    a.attnum = ANY (i.indkey::int2[])
                    OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                               WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
                                 AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = i.indrelid
                                 AND d.refobjsubid = a.attnum))),
            'keys', (
                SELECT COALESCE(pg_catalog.jsonb_agg(a.attname), '[]')
                FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, ord)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                WHERE k.ord <= i.indnkeyatts)
        ) ORDER BY i.indisprimary DESC, c.relname), '[]')
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid),
    'self_keys', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', f.conname,
            'acts', f.confupdtype IN ('c', 'n', 'd') OR f.confdeltype IN ('c', 'n', 'd'),
            'columns', (SELECT pg_catalog.jsonb_agg(a.attname) FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey || f.confkey))
        ) ORDER BY f.conname), '[]')
        FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND f.conrelid = $1 AND f.confrelid = $1),
    'is_referenced', EXISTS (SELECT FROM pg_catalog.pg_constraint f
                             WHERE f.contype = 'f' AND f.confrelid = $1 AND f.conrelid <> $1),
    'guard_name_taken', EXISTS (
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_class o ON o.relnamespace = c.relnamespace
        WHERE c.oid = $1 AND o.relname = $2::name
        UNION ALL
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type t ON t.typnamespace = c.relnamespace
        WHERE c.oid = $1 AND t.typname = $2::name)
)
