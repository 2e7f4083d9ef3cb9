-- What one would write by hand: a row trigger that puts keys into a table with a number, and notifies.
CREATE TABLE outbox (id bigserial PRIMARY KEY, key text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO outbox (key) VALUES (OLD.id);
    ELSE
        INSERT INTO outbox (key) VALUES (NEW.id);
    END IF;
    PERFORM pg_notify('outbox', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON revenues FOR EACH ROW EXECUTE FUNCTION tell();
