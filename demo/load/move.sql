-- A change of the partition key: the row belongs to another partition afterwards. A balance goes to
-- another organization, and only when it is old: those of the last days are upserted, and would meet it.
\set kind random(1, 10)
\set id random(1, :rows)
\set age random(0, :seconds)
\if :kind <= 6
UPDATE revenues SET occurred_at = localtimestamp - :age * interval '1 second', updated_at = now() WHERE id = :id;
\elif :kind <= 9
UPDATE expenses SET occurred_at = localtimestamp - :age * interval '1 second', updated_at = now() WHERE id = 1 + :id / 2;
\else
UPDATE daily_cash_balances SET org_id = 1 + id % :orgs, updated_at = now()
WHERE id = 1 + :id / 5 AND balance_date < current_date - 7;
\endif
