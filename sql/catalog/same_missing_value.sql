-- Whether rows that are older than the column $3 have one value in it, in the table $1 and in every partition of $2.
WITH RECURSIVE tree AS (
    SELECT $1::oid AS oid
    UNION ALL
    SELECT $2::oid
    UNION ALL
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
SELECT pg_catalog.to_jsonb(pg_catalog.count(DISTINCT a.attmissingval::text) <= 1)
FROM tree JOIN pg_catalog.pg_attribute a ON a.attrelid = tree.oid
WHERE a.attname = $3 AND a.atthasmissing
