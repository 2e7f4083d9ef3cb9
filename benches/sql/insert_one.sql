\set sec random(0, 62000000)
\set org random(1, 10000)
\set amount random(1, 250000)
INSERT INTO @from@ (org_id, property_id, amount_cents, occurred_at, description, category, payment_method, status)
VALUES (:org, :org, :amount, :first::timestamp + :sec * interval '1 second', 'Room 12, one night', 'room', 'card', 'pending');
