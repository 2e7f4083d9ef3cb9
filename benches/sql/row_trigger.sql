-- What one finds in tutorials: a row trigger with an upsert.
CREATE FUNCTION sync_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND (OLD.id, OLD.occurred_at) IS DISTINCT FROM (NEW.id, NEW.occurred_at) THEN
        DELETE FROM @to@ t WHERE t.id = OLD.id AND t.occurred_at = OLD.occurred_at;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO @to@ SELECT NEW.*
        ON CONFLICT (@key@) DO UPDATE SET
            org_id = EXCLUDED.org_id, property_id = EXCLUDED.property_id, amount_cents = EXCLUDED.amount_cents,
            occurred_at = EXCLUDED.occurred_at, description = EXCLUDED.description, category = EXCLUDED.category,
            payment_method = EXCLUDED.payment_method, status = EXCLUDED.status,
            created_by_user_id = EXCLUDED.created_by_user_id, created_at = EXCLUDED.created_at,
            updated_at = EXCLUDED.updated_at;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sync_row AFTER INSERT OR UPDATE OR DELETE ON @from@ FOR EACH ROW EXECUTE FUNCTION sync_row();
