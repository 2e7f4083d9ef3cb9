\set id random(:least, :rows)
\set sec :id * :step
\set amount random(1, 250000)
UPDATE @from@ SET amount_cents = :amount, updated_at = now() WHERE id = :id @and@;
