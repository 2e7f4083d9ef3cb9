-- Sequences that feed a smallint or integer column of a legacy, a twin or a table under maintenance, one jsonb each: how much of
-- what the column can hold is used up. No lock lasts.
WITH tables AS (
    SELECT p.legacy::oid AS oid, p.legacy::oid AS shown FROM partition_router.pair p WHERE p.phase <> 'done'
    UNION
    SELECT p.twin::oid, CASE WHEN p.phase = 'done' THEN p.twin::oid ELSE p.legacy::oid END FROM partition_router.pair p
    UNION
    SELECT y.parent::oid, y.parent::oid FROM partition_router.policy y
    WHERE NOT EXISTS (SELECT FROM partition_router.pair p WHERE p.twin::oid = y.parent::oid)
), owned AS MATERIALIZED (
    SELECT s.seqrelid, s.seqtypid, s.seqmax, d.refobjid, d.refobjsubid
    FROM pg_sequence s
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refclassid = 'pg_class'::regclass
        AND d.deptype IN ('a', 'i')
    WHERE s.seqincrement > 0
), fed AS (
    SELECT DISTINCT ON (s.seqrelid) t.shown, t.oid, a.attname, s.seqrelid, s.seqtypid,
           LEAST(s.seqmax, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 ELSE 2147483647 END) AS most
    FROM tables t
    JOIN owned s ON s.refobjid = t.oid
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = s.refobjsubid AND a.atttypid IN ('int2'::regtype, 'int4'::regtype)
    ORDER BY s.seqrelid, (t.oid = t.shown) DESC
)
SELECT jsonb_build_object(
    'shown', f.shown::bigint,
    'relation', f.shown::regclass::text,
    'sequence', f.seqrelid::regclass::text,
    'column', f.attname,
    'used', COALESCE(pg_sequence_last_value(f.seqrelid), 0)::double precision / f.most,
    'mend', format('ALTER TABLE %s ALTER COLUMN %I TYPE bigint', f.oid::regclass, f.attname)
        || CASE WHEN f.seqtypid <> 'int8'::regtype THEN format('; ALTER SEQUENCE %s AS bigint', f.seqrelid::regclass) ELSE '' END)
FROM fed f
ORDER BY f.shown::regclass::text, f.seqrelid::regclass::text
