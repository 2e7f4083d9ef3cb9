\set id :id + 1
\set sec :id * :step
WITH a AS (DELETE FROM @from@ WHERE id = :id @and@ RETURNING *)
DELETE FROM @to@ t USING a WHERE t.id = a.id AND t.occurred_at = a.occurred_at;
