COPY @from@ (org_id, property_id, amount_cents, occurred_at, description, category, payment_method, status, created_by_user_id, created_at, updated_at) FROM '@file@'
