-- What placing a partition elsewhere has to know of it, as one jsonb: $1 is its oid, $2 the name of a server or NULL.
SELECT pg_catalog.jsonb_build_object(
    'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname),
    'kind', c.relkind,
    'owner', c.relowner::bigint,
    'parent', p.oid::bigint,
    'parent_name', pg_catalog.jsonb_build_object('schema', pn.nspname, 'name', p.relname),
    'strategy', t.partstrat,
    'bounds', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
    'condition', pg_catalog.pg_get_partition_constraintdef(c.oid),
    'keys', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k.place)
             FROM pg_catalog.unnest(t.partattrs) WITH ORDINALITY AS k(number, place)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid AND a.attnum = k.number),
    'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'definitions', (SELECT pg_catalog.jsonb_agg(pg_catalog.concat(pg_catalog.quote_ident(a.attname), ' ',
                        pg_catalog.format_type(a.atttypid, a.atttypmod),
                        (SELECT pg_catalog.format(' COLLATE %I.%I', cn.nspname, o.collname)
                         FROM pg_catalog.pg_collation o JOIN pg_catalog.pg_namespace cn ON cn.oid = o.collnamespace
                         WHERE o.oid = a.attcollation AND a.attcollation <> y.typcollation),
                        CASE WHEN a.attnotnull THEN ' NOT NULL' END) ORDER BY a.attnum)
                    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'generated', (SELECT a.attname FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '' ORDER BY a.attnum LIMIT 1),
    'unique_index', (SELECT x.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
                     WHERE i.indrelid = p.oid AND i.indisunique ORDER BY i.indexrelid LIMIT 1),
    'foreign_key', (SELECT k.conname FROM pg_catalog.pg_constraint k
                    WHERE k.contype = 'f' AND p.oid IN (k.conrelid, k.confrelid) ORDER BY k.oid LIMIT 1),
    'in_pair', EXISTS (SELECT FROM partition_router.pair r
                       WHERE r.phase <> 'done' AND (r.twin::oid IN (SELECT x.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) x)
                          OR r.legacy::oid IN (SELECT x.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) x))
                          OR r.guard IS NOT NULL AND r.twin::oid IN (SELECT x.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) x)),
    'file_node', COALESCE(pg_catalog.pg_relation_filenode(c.oid), 0)::bigint,
    'placed_on', (SELECT s.srvname FROM pg_catalog.pg_foreign_table f JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver
                  WHERE f.ftrelid = c.oid),
    'server', (SELECT pg_catalog.jsonb_build_object(
                   'is_postgres', COALESCE(h.proname = 'postgres_fdw_handler', false),
                   'may_use', pg_catalog.has_server_privilege(c.relowner, s.oid, 'USAGE'),
                   'is_mapped', EXISTS (SELECT FROM pg_catalog.pg_user_mappings m
                                        WHERE m.srvid = s.oid AND m.umuser IN (0, c.relowner)))
               FROM pg_catalog.pg_foreign_server s
               JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
               LEFT JOIN pg_catalog.pg_proc h ON h.oid = w.fdwhandler
               WHERE s.srvname = $2))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = p.oid
WHERE c.oid = $1 AND c.relispartition
