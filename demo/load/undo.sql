-- A clerk who thinks again: what comes after the savepoint never happened.
\set org random_exponential(1, :orgs, 8)
\set cents random(0, 250000)
\set age random(0, :seconds)
BEGIN;
INSERT INTO revenues (org_id, amount_cents, occurred_at) VALUES (:org, :cents, localtimestamp) RETURNING id \gset
SAVEPOINT entered;
UPDATE revenues SET occurred_at = localtimestamp - :age * interval '1 second', description = 'wrong month' WHERE id = :id;
ROLLBACK TO entered;
UPDATE revenues SET description = 'corrected' WHERE id = :id;
COMMIT;
