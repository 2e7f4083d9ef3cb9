-- For each column of $2 in table $1 the equality operator: that of the primary key's operator class where it is
-- part of the key, else that of the type's default btree operator class.
SELECT pg_catalog.jsonb_build_object(
    'name', k.name,
    'operator_schema', n.nspname,
    'operator', o.oprname)
FROM pg_catalog.unnest($2::pg_catalog.text[]) WITH ORDINALITY AS k(name, ord)
JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attname = k.name::pg_catalog.name
JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
CROSS JOIN LATERAL (
    SELECT f.amopopr
    FROM (SELECT i.indclass[x.ord - 1] AS opclass, 1 AS preference
          FROM pg_catalog.pg_index i
          CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS x(attnum, ord)
          WHERE i.indrelid = $1 AND i.indisprimary AND x.attnum = a.attnum AND x.ord <= i.indnkeyatts
          UNION ALL
          SELECT c.oid, 2 FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod
          WHERE m.amname = 'btree' AND c.opcdefault
            AND (c.opcintype = CASE y.typtype WHEN 'd' THEN y.typbasetype ELSE y.oid END
                 OR c.opcintype = 'pg_catalog.anyenum'::pg_catalog.regtype AND y.typtype = 'e'
                 OR c.opcintype = 'pg_catalog.text'::pg_catalog.regtype
                    AND a.atttypid = 'pg_catalog.varchar'::pg_catalog.regtype)) w
    JOIN pg_catalog.pg_opclass c ON c.oid = w.opclass
    JOIN pg_catalog.pg_amop f ON f.amopfamily = c.opcfamily AND f.amopstrategy = 3
         AND f.amoplefttype = c.opcintype AND f.amoprighttype = c.opcintype
    ORDER BY w.preference LIMIT 1) e
JOIN pg_catalog.pg_operator o ON o.oid = e.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
ORDER BY k.ord
