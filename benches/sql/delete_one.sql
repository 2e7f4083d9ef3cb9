\set id :id + 1
DELETE FROM revenues WHERE id = :id;
