-- Entered twice, or deleted before and entered anew under its old number.
\set kind random(1, 10)
\set id random(1, :rows)
\set org random_exponential(1, :orgs, 8)
\set property 3 * :org - random(0, 2)
\set cents random(0, 250000)
\set age random(0, :seconds)
\if :kind <= 6
INSERT INTO revenues (id, org_id, amount_cents, occurred_at, status)
VALUES (:id, :org, :cents, localtimestamp - :age * interval '1 second', 'paid')
ON CONFLICT (id) DO UPDATE SET amount_cents = excluded.amount_cents, status = excluded.status, updated_at = now();
\elif :kind <= 9
INSERT INTO expenses (id, org_id, amount_cents, occurred_at)
VALUES (1 + :id / 2, :org, :cents, localtimestamp - :age * interval '1 second')
ON CONFLICT (id) DO UPDATE SET occurred_at = excluded.occurred_at, updated_at = now();
\else
INSERT INTO daily_cash_balances (org_id, property_id, balance_date, deposits_cents)
VALUES (:org, :property, current_date - :age % 4, :cents)
ON CONFLICT (org_id, property_id, balance_date)
DO UPDATE SET deposits_cents = daily_cash_balances.deposits_cents + excluded.deposits_cents, updated_at = now();
\endif
