-- A new entry: mostly of today, some entered late. A new balance is for one of the last four days.
\set kind random(1, 10)
\set org random_exponential(1, :orgs, 8)
\set property 3 * :org - random(0, 2)
\set cents random(0, 250000)
\set age random_exponential(0, :seconds, 12)
\if :kind <= 6
INSERT INTO revenues (org_id, property_id, amount_cents, occurred_at, description, category, payment_method)
VALUES (:org, :property, :cents, localtimestamp - :age * interval '1 second', 'Walk-in ' || :cents, 'room', 'card');
\elif :kind <= 9
INSERT INTO expenses (org_id, amount_cents, occurred_at, description, category)
VALUES (:org, :cents, localtimestamp - :age * interval '1 second', repeat('Delivery note ' || :cents || '. ', 1 + :cents % 300), 'food');
\else
INSERT INTO daily_cash_balances (org_id, property_id, balance_date, opening_cents)
VALUES (:org, :property, current_date - :age % 4, :cents)
ON CONFLICT DO NOTHING;
\endif
