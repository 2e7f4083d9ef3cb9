\set id random(:least, :rows)
\set sec :id * :step
\set amount random(1, 250000)
WITH a AS (UPDATE @from@ SET amount_cents = :amount, updated_at = now() WHERE id = :id @and@ RETURNING *)
UPDATE @to@ t SET org_id = a.org_id, property_id = a.property_id, amount_cents = a.amount_cents, description = a.description, category = a.category,
    payment_method = a.payment_method, status = a.status, created_by_user_id = a.created_by_user_id,
    created_at = a.created_at, updated_at = a.updated_at
FROM a WHERE t.id = a.id AND t.occurred_at = a.occurred_at;
