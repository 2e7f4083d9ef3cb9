-- Whether the default of the column $3 of $2 draws from a sequence that belongs to the column of that name of $1.
SELECT pg_catalog.to_jsonb(EXISTS (
    SELECT FROM pg_catalog.pg_attribute l
    JOIN pg_catalog.pg_depend o ON o.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.refobjid = l.attrelid
        AND o.refobjsubid = l.attnum AND o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.deptype IN ('a', 'i')
    JOIN pg_catalog.pg_class s ON s.oid = o.objid AND s.relkind = 'S'
    JOIN pg_catalog.pg_attribute t ON t.attrelid = $2 AND t.attname = l.attname
    JOIN pg_catalog.pg_attrdef v ON v.adrelid = t.attrelid AND v.adnum = t.attnum
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = v.oid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = s.oid
    WHERE l.attrelid = $1 AND l.attname = $3))
