-- A correction that leaves the row in its partition.
\set kind random(1, 10)
\set id random(1, :rows)
\set cents random(0, 250000)
\if :kind <= 6
UPDATE revenues SET status = 'paid', amount_cents = :cents, updated_at = now() WHERE id = :id;
\elif :kind <= 9
UPDATE expenses SET description = NULLIF(description || ' (corrected)', ''), updated_at = now() WHERE id = 1 + :id / 2;
\else
UPDATE daily_cash_balances SET closing_cents = :cents, notes = NULL, updated_at = now() WHERE id = 1 + :id / 5;
\endif
