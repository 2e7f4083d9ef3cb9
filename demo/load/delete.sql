\set kind random(1, 10)
\set id random(1, :rows)
\if :kind <= 6
DELETE FROM revenues WHERE id = :id;
\elif :kind <= 9
DELETE FROM expenses WHERE id = 1 + :id / 2;
\else
DELETE FROM daily_cash_balances WHERE id = 1 + :id / 5;
\endif
