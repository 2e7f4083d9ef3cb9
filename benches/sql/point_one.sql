\set id random(25, :rows)
\set sec :id * :step
SELECT amount_cents, status FROM @from@ WHERE id = :id AND occurred_at = timestamp '@first@' + :sec * interval '1 second';
