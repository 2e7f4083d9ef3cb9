\set id random(25, :rows)
\set amount random(1, 250000)
UPDATE revenues SET amount_cents = :amount, updated_at = now() WHERE id = :id;
