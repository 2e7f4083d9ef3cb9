-- Every pair, one jsonb each: what is remembered of it, and what the catalog says of its two sides. Takes no lock.
WITH proof AS (
    SELECT DISTINCT ON (r.legacy) r.legacy, r.stage, r.at, r.detail
    FROM partition_router.run_event r WHERE r.operation = 'verify'
    ORDER BY r.legacy, r.id DESC
), passed AS (
    SELECT DISTINCT ON (r.legacy) r.legacy, r.at, r.detail
    FROM partition_router.run_event r WHERE r.operation = 'verify' AND r.stage = 'PASSED'
    ORDER BY r.legacy, r.id DESC
)
SELECT jsonb_build_object(
    'id', p.id,
    'legacy', COALESCE(p.legacy::oid::bigint, 0),
    'twin', p.twin::oid::bigint,
    'legacy_name', CASE WHEN l.oid IS NOT NULL THEN p.legacy::text END,
    'legacy_relname', l.relname,
    'twin_name', CASE WHEN t.oid IS NOT NULL THEN p.twin::text END,
    'twin_relname', t.relname,
    'schema', COALESCE(ln.nspname, tn.nspname),
    'base_name', p.base_name,
    'phase', p.phase,
    'strategy', p.strategy,
    'partition_key', p.partition_key,
    'has_guard', p.guard IS NOT NULL,
    'verified_at', to_char(p.verified_at, 'YYYY-MM-DD HH24:MI'),
    'verified_epoch', EXTRACT(epoch FROM p.verified_at)::double precision,
    'verified_age', EXTRACT(epoch FROM clock_timestamp() - p.verified_at)::double precision,
    'verified_level', p.verified_level,
    'percent', COALESCE(r.percent, 0),
    'pilots', COALESCE(cardinality(r.pilots), 0),
    'excluded', COALESCE(cardinality(r.excluded), 0),
    'legacy_estimate', GREATEST(l.reltuples, 0)::bigint,
    'last_stage', f.stage,
    'last_at', to_char(f.at, 'YYYY-MM-DD HH24:MI'),
    'last_differ', (f.detail ->> 'partitions_that_differ')::bigint,
    'last_partitions', f.detail -> 'by_partition',
    'proven_epoch', EXTRACT(epoch FROM v.at)::double precision,
    'proven_at', to_char(v.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'proven_rows', (v.detail ->> 'legacy_rows')::bigint,
    'copy', CASE WHEN s.pair_id IS NOT NULL THEN jsonb_build_object(
        'stage', s.stage,
        'rows', s.rows_copied + s.rows_logged,
        'total', s.rows_total,
        'ratio', CASE WHEN s.stage = 'copy' THEN s.next_block::double precision / GREATEST(s.blocks, 1) ELSE 1 END,
        'seconds_left', CASE WHEN s.stage = 'copy' AND s.next_block > 0
            THEN EXTRACT(epoch FROM s.busy)::double precision * (s.blocks - s.next_block) / s.next_block END) END)
FROM partition_router.pair p
LEFT JOIN pg_class l ON l.oid = p.legacy::oid
LEFT JOIN pg_namespace ln ON ln.oid = l.relnamespace
LEFT JOIN pg_class t ON t.oid = p.twin::oid
LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN partition_router.rollout r ON r.pair_id = p.id
LEFT JOIN partition_router.copy_state s ON s.pair_id = p.id
LEFT JOIN LATERAL (SELECT '"' || replace(ln.nspname, '"', '""') || '"."' || replace(l.relname, '"', '""') || '"' AS name) q ON true
LEFT JOIN proof f ON f.legacy = q.name
LEFT JOIN passed v ON v.legacy = q.name
ORDER BY p.id
