-- For the pairs whose numbers, legacies, twins and trigger names are in $1 to $5: which events of the legacy carry their sync
-- trigger in force, and the twin and its partitions where their own trigger is missing or not in force, one jsonb a pair.
WITH RECURSIVE wanted AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5) AS w(id, legacy, twin, on_legacy, on_twin)
), tree AS (
    SELECT w.id, w.on_twin::name AS on_twin, w.twin AS oid FROM wanted w
    UNION ALL
    SELECT t.id, t.on_twin, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
), bare AS (
    SELECT t.id, count(*) AS number, (min(t.oid::bigint)::oid)::regclass::text AS first
    FROM tree t
    -- One look into the index for each: the triggers of all tables are many more.
    WHERE (SELECT g.tgenabled FROM pg_trigger g WHERE g.tgrelid = t.oid AND g.tgname = t.on_twin) IS DISTINCT FROM 'A'
    GROUP BY t.id
)
SELECT jsonb_build_object(
    'id', w.id,
    'events', (SELECT COALESCE(jsonb_agg(e.event ORDER BY e.ord), '[]')
               FROM (VALUES ('INSERT', '_i', 1), ('UPDATE', '_u', 2), ('DELETE', '_d', 3)) AS e(event, suffix, ord)
               JOIN pg_trigger g ON g.tgrelid = w.legacy AND g.tgname = (w.on_legacy || e.suffix)::name AND g.tgenabled = 'A'),
    'bare', COALESCE(b.number, 0),
    'first_bare', b.first)
FROM wanted w LEFT JOIN bare b ON b.id = w.id
