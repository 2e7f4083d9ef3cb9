-- What is about the server and the database as a whole, as one jsonb.
SELECT jsonb_build_object(
    'database', current_database(),
    'is_standby', pg_is_in_recovery(),
    'standby_lag', CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
        THEN EXTRACT(epoch FROM clock_timestamp() - COALESCE(pg_last_xact_replay_timestamp(), pg_postmaster_start_time()))::double precision END,
    'replicas', (SELECT COALESCE(jsonb_agg(jsonb_build_object(
            'name', COALESCE(NULLIF(r.application_name, ''), r.pid::text),
            'seconds', COALESCE(EXTRACT(epoch FROM r.replay_lag)::double precision, 0),
            'bytes', COALESCE(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                                   ELSE pg_current_wal_lsn() END, r.replay_lsn), 0)::double precision)
            ORDER BY r.application_name, r.pid), '[]')
        FROM pg_stat_replication r WHERE r.state = 'streaming' OR r.replay_lsn IS NOT NULL),
    'workers', (SELECT COALESCE(jsonb_object_agg(w.backend_type, w.number), '{}') FROM (
            SELECT a.backend_type, count(*) AS number FROM pg_stat_activity a
            WHERE a.backend_type LIKE 'partition\_router %' AND (a.datname = current_database() OR a.backend_type LIKE '% launcher')
            GROUP BY a.backend_type) w),
    'preloaded', ARRAY(SELECT btrim(x) FROM unnest(string_to_array(
        concat_ws(',', current_setting('shared_preload_libraries'), current_setting('session_preload_libraries')), ',')) AS x),
    'shared_preload', current_setting('shared_preload_libraries'),
    'max_workers', current_setting('max_worker_processes')::int,
    'role', jsonb_build_object(
        'exists', EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1),
        'super', EXISTS (SELECT FROM pg_roles r WHERE r.rolname = $1 AND r.rolsuper)),
    'archives', (SELECT COALESCE(jsonb_agg(x.one), '[]') FROM (
            SELECT jsonb_build_object('relation', a.parent::text, 'state', a.state, 'number', count(*),
                'age', EXTRACT(epoch FROM clock_timestamp() - min(a.changed_at))::double precision) AS one
            FROM partition_router.archives a
            JOIN pg_class c ON c.oid = a.parent::oid
            GROUP BY a.parent, a.state ORDER BY a.parent::text, a.state) x))
