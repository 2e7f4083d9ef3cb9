-- Rows for the one-row statements. The time of a row follows from its id, so that a statement on the twin can name both
-- without a look-up. Variable: rows.
INSERT INTO revenues (org_id, property_id, amount_cents, occurred_at, description, category, payment_method, status,
    created_by_user_id, created_at, updated_at)
SELECT org_id, property_id, amount_cents, bench.first_month() + (24 + n) * (60000000 / :rows) * interval '1 second',
       description, category, payment_method, status, created_by_user_id, created_at, updated_at
FROM (SELECT row_number() OVER () AS n, r.* FROM bench.rows(:rows) r) numbered
ORDER BY n;
