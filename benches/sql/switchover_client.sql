\set id random(1, :rows)
\set cents random(1, 100000)
BEGIN;
UPDATE revenues SET amount_cents = :cents WHERE id = :id;
INSERT INTO revenues (org_id, amount_cents, occurred_at) SELECT 1, :cents, bench.first_month() + random() * interval '600 days';
SELECT count(*) FROM revenues WHERE id = :id;
COMMIT;
