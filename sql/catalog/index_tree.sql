-- The table $1 with every table below it, if it is partitioned, parents first, and what indexes each has: rows of one jsonb. A definition is
-- what the server prints behind the table's name, so that those of two tables can be compared, and made anew on another.
SELECT pg_catalog.jsonb_build_object(
    'oid', c.oid::bigint,
    'parent', t.parentrelid::oid::bigint,
    'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'kind', c.relkind,
    'indexes', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'oid', i.indexrelid::bigint,
            'name', ic.relname,
            'unique', i.indisunique,
            'valid', i.indisvalid,
            'attached_to', (SELECT h.inhparent::bigint FROM pg_catalog.pg_inherits h WHERE h.inhrelid = i.indexrelid),
            'is_building', NOT i.indisvalid AND EXISTS (
                SELECT FROM pg_catalog.pg_stat_get_progress_info('CREATE INDEX') p
                WHERE p.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
                  AND p.relid = c.oid),
            'definition', pg_catalog.substr(d.whole, pg_catalog.length(d.head) + 1)) ORDER BY i.indexrelid), '[]')
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
        CROSS JOIN LATERAL (
            SELECT pg_catalog.pg_get_indexdef(i.indexrelid) AS whole, pg_catalog.format('CREATE %sINDEX %I ON %s%I.%I USING ',
                CASE WHEN i.indisunique THEN 'UNIQUE ' END, ic.relname, CASE WHEN c.relkind = 'p' THEN 'ONLY ' END,
                n.nspname, c.relname) AS head) d
        WHERE i.indrelid = c.oid AND i.indislive AND NOT i.indisexclusion AND NOT i.indisprimary
          AND pg_catalog.starts_with(d.whole, d.head)))
FROM (SELECT p.relid, p.parentrelid, p.level FROM pg_catalog.pg_partition_tree($1) p
      UNION ALL
      SELECT $1::oid::regclass, NULL, 0 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree($1))) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY t.level, c.relname
