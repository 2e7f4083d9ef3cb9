-- The body of docs/catalog.md, a line of markdown a row: what the catalog says about calls, views, settings. $1 has the SQLSTATEs,
-- $2 their conditions. Nothing in it depends on the server's version: names in byte order, types by format_type, no casts in defaults.
WITH privileges AS (
    SELECT p.oid,
           CASE WHEN bool_or(a.grantee = 0) THEN 'everybody'
                WHEN bool_or(a.grantee = 'pg_monitor'::regrole) THEN 'members of pg_monitor, and who is granted EXECUTE'
                ELSE 'who is granted EXECUTE' END AS callers
    FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    WHERE p.pronamespace = 'partition_router'::regnamespace
    GROUP BY p.oid
), routine AS (
    SELECT p.oid, p.proname COLLATE "C" AS name, p.prokind, p.proretset, p.prorettype, r.callers,
           obj_description(p.oid, 'pg_proc') AS said,
           obj_description(p.oid, 'pg_proc') ~ '^internal' OR p.prorettype = 'trigger'::regtype
               OR p.proname IN ('is_replication_worker') OR p.prorettype = 'event_trigger'::regtype AS is_inside
    FROM pg_proc p JOIN privileges r USING (oid)
    WHERE p.pronamespace = 'partition_router'::regnamespace
), argument AS (
    SELECT p.oid, a.at, a.name, format('`%s`', format_type(a.type, NULL)) AS type, coalesce(a.mode, 'i') AS mode,
           regexp_replace(pg_get_function_arg_default(p.oid, a.at::int), '::[a-z ]+(\[\])?$', '') AS preset
    FROM pg_proc p,
         unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes) WITH ORDINALITY a(type, name, mode, at)
    WHERE p.pronamespace = 'partition_router'::regnamespace
), relation AS (
    SELECT c.oid, c.relname COLLATE "C" AS name, obj_description(c.oid, 'pg_class') AS said,
           EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 'pg_monitor'::regrole) AS is_shown
    FROM pg_class c
    WHERE c.relnamespace = 'partition_router'::regnamespace AND c.relkind IN ('r', 'v')
), setting AS (
    SELECT s.name COLLATE "C" AS name,
           CASE WHEN s.boot_val = '' THEN 'empty' ELSE format('`%s%s`', s.boot_val, s.unit) END AS preset,
           CASE s.vartype WHEN 'bool' THEN '`on`, `off`' WHEN 'string' THEN 'text'
                ELSE format('`%s` to `%s%s`', s.min_val, s.max_val, s.unit) END AS range,
           CASE s.context WHEN 'user' THEN 'everybody' WHEN 'superuser' THEN 'superusers' WHEN 'sighup' THEN 'the server''s configuration'
                ELSE s.context END AS setters,
           concat_ws(' ', s.short_desc, nullif(s.extra_desc, '')) AS said
    FROM pg_settings s
    WHERE s.name LIKE 'partition_router.%'
), line(part, name, at, text) AS (
    SELECT 1, NULL, 0, E'## Calls\n\nWho is granted EXECUTE must also own the table that he names ([security](security.md)). Arguments may be named: `premake => 6`.\n'
    UNION ALL
    SELECT 1, name, 1, format(E'### `%s`\n\n%s.\n\n*%s, for %s*{guide:%1$s}\n', name, upper(left(said, 1)) || substr(said, 2),
                               CASE prokind WHEN 'p' THEN 'Procedure' ELSE 'Function' END, callers)
    FROM routine WHERE NOT is_inside
    UNION ALL
    SELECT 1, r.name, 2, E'| argument | type | default |\n| --- | --- | --- |\n'
           || string_agg(format('| `%s` | %s | %s |', a.name, a.type, coalesce('`' || a.preset || '`', '')), E'\n' ORDER BY a.at) || E'\n'
    FROM routine r JOIN argument a USING (oid) WHERE NOT r.is_inside AND a.mode IN ('i', 'b', 'v') GROUP BY r.name
    UNION ALL
    SELECT 1, r.name, 3, 'Returns rows of ' || string_agg(format('`%s` %s', a.name, a.type), ', ' ORDER BY a.at) || E'.\n'
    FROM routine r JOIN argument a USING (oid) WHERE NOT r.is_inside AND a.mode IN ('t', 'o') GROUP BY r.name
    UNION ALL
    SELECT 1, r.name, 3, CASE r.proretset WHEN true THEN 'Returns rows of ' ELSE 'Returns ' END || format(E'`%s`.\n', format_type(r.prorettype, NULL))
    FROM routine r
    WHERE NOT r.is_inside AND r.prokind = 'f' AND r.prorettype NOT IN ('void'::regtype, 'record'::regtype)
      AND NOT EXISTS (SELECT FROM argument a WHERE a.oid = r.oid AND a.mode IN ('t', 'o'))
    UNION ALL
    SELECT 2, NULL, 0, E'## Views\n\nFor members of `pg_monitor`, and for whom SELECT is granted; `archives` is a table.\n'
    UNION ALL
    SELECT 2, r.name, 1, format(E'### `%s`\n\n%s.\n\n| column | type | meaning |\n| --- | --- | --- |\n', r.name, upper(left(r.said, 1)) || substr(r.said, 2))
           || string_agg(format('| `%s` | `%s` | %s |', a.attname, format_type(a.atttypid, NULL), coalesce(col_description(r.oid, a.attnum), '')),
                         E'\n' ORDER BY a.attnum) || E'\n'
    FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE r.is_shown GROUP BY r.oid, r.name, r.said
    UNION ALL
    SELECT 3, NULL, 0, E'## Settings\n\nWhat everybody may set is set for a session, a transaction (`SET LOCAL`), a role or a database.\n\n'
           || E'| setting | default | values | set by | meaning |\n| --- | --- | --- | --- | --- |'
    UNION ALL
    SELECT 3, name, 1, format('| `%s` | %s | %s | %s | %s |', name, preset, range, setters, said) FROM setting
    UNION ALL
    SELECT 4, NULL, 0, E'\n## SQLSTATEs\n\nConditions that PostgreSQL knows keep its code. Each error has a HINT with what leads on. A write that the other side '
           || E'refuses keeps the\nserver''s own code (`23505`, `23514`, …) and gets a HINT that names the pair.\n\n| SQLSTATE | condition |\n| --- | --- |'
    UNION ALL
    SELECT 4, lpad(at::text, 4, '0'), 1, format('| `%s` | %s |', code, condition) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY s(code, condition, at)
    UNION ALL
    SELECT 5, NULL, 0, E'\n## Inside\n\nWhat the calls are made of, for who reads the catalog: not to be called or read by hand, and it may change with any version.\n\n'
           || E'| function | what it is |\n| --- | --- |'
    UNION ALL
    SELECT 5, name, 1, format('| `%s` | %s |', name, said) FROM routine WHERE is_inside
    UNION ALL
    SELECT 6, NULL, 0, E'\n| table | what it is |\n| --- | --- |'
    UNION ALL
    SELECT 6, name, 1, format('| `%s` | %s |', name, said) FROM relation WHERE NOT is_shown
    UNION ALL
    SELECT 7, NULL, 0, E'\n| event trigger | what it is |\n| --- | --- |'
    UNION ALL
    SELECT 7, t.evtname, 1, format('| `%s` | %s |', t.evtname, obj_description(t.oid, 'pg_event_trigger'))
    FROM pg_event_trigger t WHERE t.evtname LIKE 'partition\_router%'
)
SELECT replace(text, '<', '\<') FROM line ORDER BY part, name COLLATE "C" NULLS FIRST, at
