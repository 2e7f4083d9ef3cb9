-- Adds rows to revenues, evenly over a span of time. Variables: rows, start, seconds (the span), copies (of bench.source).
-- The indexes are built anew: 20,000,000 rows one by one into four indexes would take longer than all that is measured.
ALTER TABLE revenues DROP CONSTRAINT IF EXISTS revenues_pkey;
DROP INDEX IF EXISTS revenues_org_id_occurred_at_idx, revenues_property_id_occurred_at_idx, revenues_occurred_at_idx;
INSERT INTO revenues (org_id, property_id, amount_cents, occurred_at, description, category, payment_method, status,
    created_by_user_id, created_at, updated_at)
SELECT org_id, property_id, amount_cents, :'start'::timestamp + (n * :seconds / :rows) * interval '1 second', description,
       category, payment_method, status, created_by_user_id, created_at, updated_at
FROM (SELECT row_number() OVER () AS n, s.* FROM bench.source s, generate_series(1, :copies) LIMIT :rows) numbered;
ALTER TABLE revenues ADD PRIMARY KEY (id);
CREATE INDEX ON revenues (org_id, occurred_at DESC);
CREATE INDEX ON revenues (property_id, occurred_at DESC);
CREATE INDEX ON revenues (occurred_at) WHERE status = 'pending';
