-- The statement triggers of sync, with its transition tables and a function that does nothing.
CREATE FUNCTION sync_nothing() RETURNS trigger LANGUAGE c AS :'library', 'floor_nothing';
CREATE TRIGGER sync_b BEFORE INSERT OR UPDATE OR DELETE ON @from@ FOR EACH STATEMENT EXECUTE FUNCTION sync_nothing();
CREATE TRIGGER sync_i AFTER INSERT ON @from@ REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION sync_nothing();
CREATE TRIGGER sync_u AFTER UPDATE ON @from@ REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
    EXECUTE FUNCTION sync_nothing();
CREATE TRIGGER sync_d AFTER DELETE ON @from@ REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION sync_nothing();
