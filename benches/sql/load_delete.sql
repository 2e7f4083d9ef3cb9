\set id random(:least, :rows)
DELETE FROM revenues WHERE id = :id;
