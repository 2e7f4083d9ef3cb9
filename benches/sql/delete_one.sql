\set id :id + 1
\set sec :id * :step
DELETE FROM @from@ WHERE id = :id @and@;
