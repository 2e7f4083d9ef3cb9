-- What stands around the table $1 and matters when it is migrated, as one jsonb. Reads the catalog and statistics views only.
WITH own AS (
    SELECT c.oid, c.relname, n.nspname,
           '(^|[^[:alnum:]_])' || pg_catalog.regexp_replace(c.relname::text, '([^[:alnum:]_])', '\\\1', 'g')
               || '($|[^[:alnum:]_])' AS pattern
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1
)
SELECT pg_catalog.jsonb_build_object(
    -- FOR ALL TABLES and TABLES IN SCHEMA as well.
    'publications', (
        SELECT COALESCE(pg_catalog.jsonb_agg(DISTINCT t.pubname), '[]')
        FROM own JOIN pg_catalog.pg_publication_tables t ON t.schemaname = own.nspname AND t.tablename = own.relname),
    -- Physical ones keep WAL, too, but send it as it is.
    'slots', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', s.slot_name, 'active', s.active,
            'behind', CASE WHEN NOT pg_catalog.pg_is_in_recovery()
                           THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint END)
            ORDER BY s.slot_name), '[]')
        FROM pg_catalog.pg_replication_slots s
        WHERE s.slot_type = 'logical' AND s.database = pg_catalog.current_database()),
    'rules', (
        SELECT COALESCE(pg_catalog.jsonb_agg(r.rulename ORDER BY r.rulename), '[]')
        FROM pg_catalog.pg_rewrite r WHERE r.ev_class = $1),
    -- Views that group by the primary key and read other columns: the server notes the constraint as one that they need.
    'grouped_views', (
        SELECT COALESCE(pg_catalog.jsonb_agg(DISTINCT pg_catalog.format('%I.%I', vn.nspname, v.relname)), '[]')
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_constraint'::regclass AND d.refobjid = k.oid
         AND d.classid = 'pg_catalog.pg_rewrite'::regclass
        JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
        JOIN pg_catalog.pg_class v ON v.oid = r.ev_class JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace
        WHERE k.conrelid = $1 AND k.contype = 'p'),
    -- A body that is text is not known to depend on anything.
    'functions', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', p.oid::pg_catalog.regprocedure::text, 'source', p.prosrc) ORDER BY p.oid::pg_catalog.regprocedure::text), '[]')
        FROM own
        JOIN pg_catalog.pg_proc p ON p.prosrc ~* own.pattern
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('c', 'internal')
        JOIN pg_catalog.pg_namespace pn ON pn.oid = p.pronamespace
        WHERE (pg_catalog.to_jsonb(p) ->> 'prosqlbody') IS NULL
          AND pn.nspname NOT IN ('pg_catalog', 'information_schema', 'partition_router')
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                          WHERE e.classid = 'pg_catalog.pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')),
    -- Bodies that the server knows follow the name; what they conflict on is looked up when they run.
    'known_bodies', (
        SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', p.oid::pg_catalog.regprocedure::text, 'source', pg_catalog.pg_get_function_sqlbody(p.oid))
            ORDER BY p.oid::pg_catalog.regprocedure::text), '[]')
        FROM pg_catalog.pg_proc p
        WHERE p.oid IN (SELECT d.objid FROM pg_catalog.pg_depend d
                        WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
                          AND d.refobjid = $1)
          AND pg_catalog.pg_get_function_sqlbody(p.oid) IS NOT NULL),
    'bytes', pg_catalog.pg_total_relation_size($1),
    'file', pg_catalog.pg_relation_filepath($1),
    'may_see_disk', pg_catalog.pg_has_role('pg_monitor', 'USAGE'),
    'locks_per_transaction', pg_catalog.current_setting('max_locks_per_transaction')::bigint,
    'transactions', pg_catalog.current_setting('max_connections')::bigint
                    + pg_catalog.current_setting('max_prepared_transactions')::bigint,
    -- What a trial on temporary tables needs.
    'may_try', NOT pg_catalog.pg_is_in_recovery()
               AND pg_catalog.current_setting('transaction_read_only') = 'off'
               AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP')
               AND pg_catalog.has_table_privilege($1, 'SELECT'),
    'statements', (
        SELECT pg_catalog.format('%I.pg_stat_statements', sn.nspname)
        FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace sn ON sn.oid = e.extnamespace
        JOIN pg_catalog.pg_class v ON v.relnamespace = sn.oid AND v.relname = 'pg_stat_statements'
        WHERE e.extname = 'pg_stat_statements'
          AND pg_catalog.has_schema_privilege(sn.oid, 'USAGE') AND pg_catalog.has_table_privilege(v.oid, 'SELECT'))
)
FROM own
