-- A background worker does the work, since CREATE INDEX CONCURRENTLY runs in no function. It waits for every snapshot that is older
-- than what it does: so this session, which waits for it, lets go of its own again and again.
CREATE PROCEDURE partition_router.create_index(
    relation regclass,
    definition text,
    dry_run boolean DEFAULT false
) LANGUAGE plpgsql AS $$
DECLARE
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    more boolean := true;
BEGIN
    IF dry_run IS NOT FALSE THEN
        PERFORM partition_router.create_index_dry_run(relation, definition, path);
        RETURN;
    END IF;
    WHILE more LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        more := partition_router.create_index_step(relation, definition, path);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.create_index IS 'makes an index on every partition CONCURRENTLY and attaches it to the root''s; call it again to go on; the definition is a CREATE INDEX statement, or what follows the table''s name in one';
REVOKE ALL ON PROCEDURE partition_router.create_index FROM PUBLIC;

CREATE FUNCTION partition_router.create_index_step(relation regclass, definition text, path text)
    RETURNS boolean LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'create_index_step_wrapper';
COMMENT ON FUNCTION partition_router.create_index_step IS 'internal to create_index: starts the worker, or waits a moment for it; true while it is at work';
REVOKE ALL ON FUNCTION partition_router.create_index_step FROM PUBLIC;

CREATE FUNCTION partition_router.create_index_dry_run(relation regclass, definition text, path text)
    RETURNS void LANGUAGE c SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'create_index_dry_run_wrapper';
COMMENT ON FUNCTION partition_router.create_index_dry_run IS 'internal to create_index: prints what it would do';
REVOKE ALL ON FUNCTION partition_router.create_index_dry_run FROM PUBLIC;
