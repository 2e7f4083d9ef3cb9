-- The rows that bulk loads take, all columns but id. Variable: rows.
CREATE SCHEMA bench;
CREATE FUNCTION bench.first_month() RETURNS timestamp LANGUAGE sql STABLE
    RETURN date_trunc('month', localtimestamp) - interval '23 months';
CREATE FUNCTION bench.rows(n bigint) RETURNS TABLE (org_id int, property_id int, amount_cents bigint,
    occurred_at timestamp, description text, category text, payment_method text, status text,
    created_by_user_id int, created_at timestamptz, updated_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT 1 + h % 10000, 1 + h % 30000, h % 250000,
           bench.first_month() + (i * 62500000 / n - h % 86400) * interval '1 second'
               + interval '1 day' AS at,
           'Room ' || h % 900 || ', no. ' || i, (ARRAY['room', 'bar', 'spa', NULL])[1 + h % 4],
           (ARRAY['card', 'cash', 'transfer'])[1 + h % 3],
           CASE WHEN h % 10 = 0 THEN 'pending' ELSE 'paid' END, 1 + h % 5000, now(), now()
    FROM generate_series(1, n) i, LATERAL (SELECT (hashint8(i) & 2147483647) AS h OFFSET 0) x
$$;
CREATE TABLE bench.source AS SELECT * FROM bench.rows(:rows);
VACUUM ANALYZE bench.source;
