-- A statement trigger with transition tables, as one would write it in PL/pgSQL: one an event.
CREATE FUNCTION sync_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO @to@ SELECT * FROM new_rows;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE @to@ t SET org_id = a.org_id, property_id = a.property_id, amount_cents = a.amount_cents,
            description = a.description, category = a.category, payment_method = a.payment_method, status = a.status,
            created_by_user_id = a.created_by_user_id, created_at = a.created_at, updated_at = a.updated_at
        FROM new_rows a WHERE t.id = a.id AND t.occurred_at = a.occurred_at;
    ELSE
        DELETE FROM @to@ t USING old_rows a WHERE t.id = a.id AND t.occurred_at = a.occurred_at;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER sync_insert AFTER INSERT ON @from@ REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_statement();
CREATE TRIGGER sync_update AFTER UPDATE ON @from@ REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_statement();
CREATE TRIGGER sync_delete AFTER DELETE ON @from@ REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_statement();
