WITH a AS (DELETE FROM @from@ WHERE id <= @changes@ RETURNING *)
DELETE FROM @to@ t USING a WHERE t.id = a.id AND t.occurred_at = a.occurred_at
