-- The policy of partitioned table $1, as one jsonb.
SELECT pg_catalog.jsonb_build_object(
    'base_name', p.base_name,
    'partition_interval', p.partition_interval,
    'premake', p.premake,
    'retention', p.retention::text,
    'retention_count', p.retention_count,
    'min_partitions', p.min_partitions,
    'retention_action', p.retention_action,
    'archive_schema', p.archive_schema,
    'archive_format', p.archive_format,
    'archive_function', p.archive_function,
    'timezone', p.timezone,
    'origin', p.origin,
    'template', CASE WHEN p.template IS NOT NULL THEN pg_catalog.jsonb_build_object(
        'oid', p.template::oid::bigint,
        'name', (SELECT pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = p.template::oid),
        'kind', (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid = p.template::oid)) END)
FROM partition_router.policy p WHERE p.parent::oid = $1
