-- What is about the server and the database as a whole, as one jsonb.
SELECT jsonb_build_object(
    'database', current_database(),
    'standby', (SELECT jsonb_build_object('is_standby', s.is_standby, 'is_paused', s.is_paused, 'is_receiving', s.is_receiving,
            'seconds', s.lag_seconds, 'primary', s.primary_server,
            'wants_primary', s.is_standby AND EXISTS (SELECT FROM pg_settings g WHERE g.name = 'primary_conninfo' AND g.setting <> ''))
        FROM partition_router.standby_metrics s),
    'replicas', (SELECT COALESCE(jsonb_agg(jsonb_build_object('name', r.replica, 'kind', r.kind, 'seconds', r.lag_seconds,
            'bytes', r.lag_bytes) ORDER BY r.replica), '[]') FROM partition_router.replica_metrics r),
    'slots', (SELECT COALESCE(jsonb_agg(jsonb_build_object('name', s.slot, 'kind', s.kind, 'is_active', s.is_active,
            'is_lost', s.is_lost, 'wal_status', s.wal_status, 'kept', s.kept_bytes, 'lag', s.lag_bytes) ORDER BY s.slot), '[]')
        FROM partition_router.slot_metrics s),
    'workers', (SELECT COALESCE(jsonb_object_agg(w.backend_type, w.number), '{}') FROM (
            SELECT a.backend_type, count(*) AS number FROM pg_stat_activity a
            WHERE a.backend_type LIKE 'partition\_router %' AND (a.datname = current_database() OR a.backend_type LIKE '% launcher')
            GROUP BY a.backend_type) w),
    'session_user', session_user,
    'shared_preload', current_setting('shared_preload_libraries'),
    'session_preload', (SELECT jsonb_build_object('value', g.setting, 'source', g.source, 'of_database', (
            SELECT substr(x.entry, length('session_preload_libraries=') + 1)
            FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase CROSS JOIN unnest(s.setconfig) AS x(entry)
            WHERE d.datname = current_database() AND s.setrole = 0 AND x.entry LIKE 'session\_preload\_libraries=%'))
        FROM pg_settings g WHERE g.name = 'session_preload_libraries'),
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
