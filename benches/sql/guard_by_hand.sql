-- What one would write instead of keep_unique: a table of ids that a row trigger in PL/pgSQL keeps.
CREATE TABLE revenues_ids (id int PRIMARY KEY, occurred_at timestamp NOT NULL);
INSERT INTO revenues_ids SELECT id, occurred_at FROM revenues;
CREATE FUNCTION keep_ids() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO revenues_ids VALUES (NEW.id, NEW.occurred_at);
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM revenues_ids WHERE id = OLD.id;
    ELSIF (NEW.id, NEW.occurred_at) IS DISTINCT FROM (OLD.id, OLD.occurred_at) THEN
        UPDATE revenues_ids SET id = NEW.id, occurred_at = NEW.occurred_at WHERE id = OLD.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_ids AFTER INSERT OR UPDATE OR DELETE ON revenues FOR EACH ROW EXECUTE FUNCTION keep_ids();
