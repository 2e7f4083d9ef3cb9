-- Columns in which the two sides of a pair are not the same, one jsonb each, with the statement that makes the side that is not
-- authoritative as the other. That the twin's partition key may not be NULL is no difference.
WITH pair AS (
    SELECT p.id, p.partition_key,
           CASE WHEN p.phase = 'switched' THEN p.twin::oid ELSE p.legacy::oid END AS model,
           CASE WHEN p.phase = 'switched' THEN p.legacy::oid ELSE p.twin::oid END AS other
    FROM partition_router.pair p
    JOIN pg_class l ON l.oid = p.legacy::oid
    JOIN pg_class t ON t.oid = p.twin::oid
    WHERE p.phase <> 'done'
), model AS (
    SELECT p.id, a.* FROM pair p JOIN pg_attribute a ON a.attrelid = p.model AND a.attnum > 0 AND NOT a.attisdropped
), other AS (
    SELECT p.id, a.* FROM pair p JOIN pg_attribute a ON a.attrelid = p.other AND a.attnum > 0 AND NOT a.attisdropped
), drift AS (
    SELECT COALESCE(m.id, o.id) AS id, COALESCE(m.attname, o.attname) AS attname,
           m.attname IS NULL AS is_extra, o.attname IS NULL AS is_missing,
           format_type(m.atttypid, m.atttypmod) AS type_name, m.attnotnull, m.attgenerated, pg_get_expr(e.adbin, e.adrelid) AS expression,
           (m.atttypid, m.atttypmod, m.attcollation) IS DISTINCT FROM (o.atttypid, o.atttypmod, o.attcollation) AS other_type
    FROM model m FULL JOIN other o ON o.id = m.id AND o.attname = m.attname
    LEFT JOIN pg_attrdef e ON e.adrelid = m.attrelid AND e.adnum = m.attnum
    WHERE m.attname IS NULL OR o.attname IS NULL
       OR (m.atttypid, m.atttypmod, m.attcollation) IS DISTINCT FROM (o.atttypid, o.atttypmod, o.attcollation)
       OR (m.attnotnull <> o.attnotnull
           AND m.attname <> (SELECT p.partition_key FROM pair p WHERE p.id = m.id))
)
SELECT jsonb_build_object(
    'id', d.id,
    'what', d.attname,
    'mend', CASE
        WHEN d.is_extra THEN format('ALTER TABLE %s DROP COLUMN %I', p.other::regclass, d.attname)
        WHEN d.is_missing THEN format('ALTER TABLE %s ADD COLUMN %I %s', p.other::regclass, d.attname, d.type_name)
            || CASE WHEN d.attgenerated <> '' THEN format(' GENERATED ALWAYS AS (%s) %s', d.expression,
                                                          CASE d.attgenerated WHEN 'v' THEN 'VIRTUAL' ELSE 'STORED' END)
                    WHEN d.expression IS NOT NULL THEN ' DEFAULT ' || d.expression ELSE '' END
            || CASE WHEN d.attnotnull THEN ' NOT NULL' ELSE '' END
        WHEN d.other_type THEN format('ALTER TABLE %s ALTER COLUMN %I TYPE %s USING %2$I::%3$s', p.other::regclass, d.attname, d.type_name)
        ELSE format('ALTER TABLE %s ALTER COLUMN %I %s NOT NULL', p.other::regclass, d.attname,
                    CASE WHEN d.attnotnull THEN 'SET' ELSE 'DROP' END) END)
FROM drift d JOIN pair p ON p.id = d.id
ORDER BY d.id, d.attname
