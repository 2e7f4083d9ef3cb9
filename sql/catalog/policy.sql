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
    'timezone', p.timezone)
FROM partition_router.policy p WHERE p.parent::oid = $1
