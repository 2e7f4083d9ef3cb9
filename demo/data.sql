-- The data set, the same on every machine: rows are hashed from their number. Variables:
--   rows   revenues to make (default 1,000,000); expenses are half of it, cash balances a fifth,
--          organizations a hundredth but at least 100, three properties each
-- Twenty-four months end today. Organization 1 holds a tenth of all rows and the first ten a sixth;
-- some columns are NULL, one text in 200 is long enough for TOAST, one row in 20 was updated later.

\if :{?rows}
\else
  \set rows 1000000
\endif
\set ON_ERROR_STOP on
SELECT greatest(:rows / 100, 100) AS orgs, :rows / 2 AS expenses, :rows / 5 AS balances \gset
SELECT 3 * :orgs AS properties, date_trunc('month', localtimestamp) - interval '23 months' AS first \gset
SELECT extract(epoch FROM localtimestamp - :'first')::bigint AS seconds,
       localtimestamp::date - :'first'::date AS days \gset
-- The properties that hand in a balance every day: two fifths of those rows.
SELECT greatest(:balances * 2 / 5 / :days, 1) AS daily \gset

BEGIN;

-- A whole number from 0 up to n - 1, fixed by the row and a salt.
CREATE FUNCTION pg_temp.pick(i bigint, salt bigint, n bigint) RETURNS bigint
  LANGUAGE sql IMMUTABLE RETURN (hashint8extended(i, salt) & 9223372036854775807) % n;

-- Few large organizations, many small ones.
CREATE FUNCTION pg_temp.org(i bigint, salt bigint, orgs bigint) RETURNS int
  LANGUAGE sql IMMUTABLE RETURN 1 + floor(orgs * (pg_temp.pick(i, salt, 1000000) / 1000000.0::float8) ^ 4)::int;

-- Rows arrive in the order of time, within a day or so; every tenth is entered late.
CREATE FUNCTION pg_temp.at(i bigint, salt bigint, n bigint, seconds bigint) RETURNS interval
  LANGUAGE sql IMMUTABLE RETURN CASE WHEN i % 10 = 0 THEN pg_temp.pick(i, salt, seconds)
    ELSE greatest(i * seconds / n - pg_temp.pick(i, salt, 86400), 0) END * interval '1 second';

CREATE FUNCTION pg_temp.words(i bigint, salt bigint, about text) RETURNS text
  LANGUAGE sql IMMUTABLE RETURN CASE pg_temp.pick(i, salt, 400)
    WHEN 0 THEN (SELECT string_agg(md5((i * 128 + k)::text), ' ') FROM generate_series(1, 100) k)
    WHEN 1 THEN (SELECT string_agg(md5((i * 128 + k)::text), ' ') FROM generate_series(1, 200) k)
    WHEN 2 THEN repeat(about || ' ', 150)
    WHEN 3 THEN 'Frühstück für zwei – ' || about || ' «100 %» ''\n'
    WHEN 4 THEN '客室 ' || i || ' 宿泊料'
    WHEN 5 THEN ''
    ELSE CASE WHEN i % 7 = 0 THEN NULL ELSE about || ', no. ' || i END END;

\echo organizations and properties
INSERT INTO organizations (name, created_at)
SELECT 'Organization ' || i, :'first'::timestamptz - i % 1000 * interval '1 day'
FROM generate_series(1, :orgs) i;

INSERT INTO properties (org_id, name, created_at)
SELECT 1 + (i - 1) / 3, 'House ' || i, :'first'::timestamptz - i % 1000 * interval '1 day'
FROM generate_series(1, :properties) i;

\echo revenues
INSERT INTO revenues (org_id, property_id, amount_cents, occurred_at, description, category,
                      payment_method, status, created_by_user_id, created_at, updated_at)
SELECT org, CASE WHEN i % 23 <> 0 THEN 3 * org - pg_temp.pick(i, 2, 3) END, pg_temp.pick(i, 3, 250000), at,
       pg_temp.words(i, 4, 'Room ' || pg_temp.pick(i, 5, 900)),
       (ARRAY['room', 'room', 'room', 'restaurant', 'bar', 'spa', 'parking', 'event', NULL])[1 + pg_temp.pick(i, 6, 9)],
       (ARRAY['card', 'card', 'cash', 'transfer', 'voucher', NULL])[1 + pg_temp.pick(i, 7, 6)],
       (ARRAY['paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'paid', 'refunded', 'void', 'pending'])[1 + pg_temp.pick(i, 8, 10)],
       CASE WHEN i % 5 <> 0 THEN 1 + pg_temp.pick(i, 9, 5000) END, at, at
FROM generate_series(1, :rows::bigint) i,
     LATERAL (SELECT pg_temp.org(i, 1, :orgs) AS org, :'first'::timestamp + pg_temp.at(i, 10, :rows, :seconds) AS at OFFSET 0) x;

\echo expenses
INSERT INTO expenses (org_id, property_id, amount_cents, occurred_at, description, category,
                      payment_method, status, created_by_user_id, created_at, updated_at)
SELECT org, CASE WHEN i % 19 <> 0 THEN 3 * org - pg_temp.pick(i, 12, 3) END, pg_temp.pick(i, 13, 900000), at,
       pg_temp.words(i, 14, 'Invoice ' || pg_temp.pick(i, 15, 90000)),
       (ARRAY['wages', 'wages', 'laundry', 'food', 'energy', 'repairs', 'marketing', NULL])[1 + pg_temp.pick(i, 16, 8)],
       (ARRAY['transfer', 'transfer', 'card', 'cash', NULL])[1 + pg_temp.pick(i, 17, 5)],
       (ARRAY['paid', 'paid', 'paid', 'paid', 'approved', 'pending'])[1 + pg_temp.pick(i, 18, 6)],
       CASE WHEN i % 4 <> 0 THEN 1 + pg_temp.pick(i, 19, 5000) END, at, at
FROM generate_series(1, :expenses::bigint) i,
     LATERAL (SELECT pg_temp.org(i, 11, :orgs) AS org, :'first'::timestamp + pg_temp.at(i, 20, :expenses, :seconds) AS at OFFSET 0) x;

\echo daily cash balances
-- The first :daily properties have every day, the others a few days each: never one day twice.
INSERT INTO daily_cash_balances (org_id, property_id, balance_date, opening_cents, deposits_cents,
                                 withdrawals_cents, closing_cents, notes, created_at, updated_at)
SELECT 1 + (property - 1) / 3, property, day, pg_temp.pick(i, 23, 500000), pg_temp.pick(i, 24, 200000),
       pg_temp.pick(i, 25, 90000), CASE WHEN i % 11 <> 0 THEN pg_temp.pick(i, 26, 600000) END,
       pg_temp.words(i, 27, 'Counted twice'), day + time '23:30', day + time '23:30'
FROM generate_series(0, :balances::bigint - 1) i,
     LATERAL (SELECT i - :daily * :days AS rest, :properties - :daily AS others OFFSET 0) x,
     LATERAL (SELECT CASE WHEN rest < 0 THEN 1 + i % :daily ELSE :daily + 1 + rest % others END AS property,
                     :'first'::date + CASE WHEN rest < 0 THEN i / :daily
                       ELSE (rest / others + pg_temp.pick(rest % others, 22, :days)) % :days END::int AS day OFFSET 0) y;

\echo rows updated later
UPDATE revenues SET status = 'paid', updated_at = created_at + interval '3 days' WHERE id % 20 = 0;
UPDATE expenses SET status = 'approved', updated_at = created_at + interval '9 days' WHERE id % 20 = 10;
UPDATE daily_cash_balances SET closing_cents = opening_cents, updated_at = created_at + interval '1 day' WHERE id % 20 = 5;

COMMIT;
