-- Indexes of the authoritative side of a pair in step for which the other has none that is valid, one jsonb each, with the statement
-- that makes it. A unique index has its counterpart in one whose columns are a part of its own, or it of theirs: the twin's have the
-- partition key as well.
WITH side AS (
    SELECT p.id, p.partition_key, s.relation, s.is_model
    FROM partition_router.pair p
    JOIN pg_class l ON l.oid = p.legacy::oid
    JOIN pg_class t ON t.oid = p.twin::oid
    CROSS JOIN LATERAL (VALUES (p.legacy::oid, p.phase = 'live'), (p.twin::oid, p.phase = 'switched')) AS s(relation, is_model)
    WHERE p.phase IN ('live', 'switched')
), index AS (
    SELECT s.id, s.is_model, s.relation, s.partition_key, x.indexrelid, c.relname, x.indisunique, m.amname, r.relkind,
           ARRAY(SELECT COALESCE(a.attname::text, '') FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k(attnum, ord)
                 LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum AND k.attnum <> 0
                 ORDER BY k.ord) AS columns,
           x.indclass::text AS classes, x.indoption::text AS options, x.indcollation::text AS collations, x.indnkeyatts,
           pg_get_expr(x.indexprs, x.indrelid) AS expressions, pg_get_expr(x.indpred, x.indrelid) AS predicate
    FROM side s
    JOIN pg_index x ON x.indrelid = s.relation AND x.indislive AND x.indisvalid AND NOT x.indisexclusion
    JOIN pg_class c ON c.oid = x.indexrelid
    JOIN pg_am m ON m.oid = c.relam
    JOIN pg_class r ON r.oid = x.indrelid
), missing AS (
    SELECT a.* FROM index a
    WHERE a.is_model AND NOT EXISTS (
        SELECT FROM index b
        WHERE b.id = a.id AND NOT b.is_model AND b.amname = a.amname AND b.indisunique = a.indisunique
          AND b.expressions IS NOT DISTINCT FROM a.expressions AND b.predicate IS NOT DISTINCT FROM a.predicate
          AND CASE WHEN a.indisunique THEN a.columns <@ b.columns OR b.columns <@ a.columns
              ELSE (b.columns, b.classes, b.options, b.collations, b.indnkeyatts)
                 = (a.columns, a.classes, a.options, a.collations, a.indnkeyatts) END)
)
SELECT jsonb_build_object(
    'id', m.id,
    'what', m.relname,
    'mend', CASE
        WHEN m.indisunique AND m.relkind = 'r' THEN
            format('CREATE UNIQUE INDEX ON %s (%s)', o.relation::regclass,
                (SELECT string_agg(COALESCE(quote_ident(NULLIF(k.name, '')), pg_get_indexdef(m.indexrelid, k.ord::int, true)), ', ' ORDER BY k.ord)
                 FROM unnest(m.columns[1:m.indnkeyatts] || CASE WHEN m.partition_key::text = ANY (m.columns[1:m.indnkeyatts]) THEN '{}'::text[]
                                               ELSE ARRAY[m.partition_key::text] END) WITH ORDINALITY AS k(name, ord)))
            || COALESCE(' WHERE ' || m.predicate, '')
        ELSE format('CREATE %sINDEX ON %s USING ', CASE WHEN m.indisunique THEN 'UNIQUE ' END, o.relation::regclass)
            -- What follows the table's name in the definition, told by the length of what comes before: names may hold anything.
            || substr(pg_get_indexdef(m.indexrelid), 1 + length(
                format('CREATE %sINDEX %I ON %s%I.%I USING ', CASE WHEN m.indisunique THEN 'UNIQUE ' END, m.relname,
                       CASE WHEN m.relkind = 'p' THEN 'ONLY ' END, n.nspname, c.relname))) END)
FROM missing m
JOIN side o ON o.id = m.id AND NOT o.is_model
JOIN pg_class c ON c.oid = m.relation
JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY m.id, m.relname
