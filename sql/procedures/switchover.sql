-- The names swap, and swap back; the legacy goes. Each stage is a transaction. As in procedures.sql, no operator is used
-- and every name has its schema.

CREATE FUNCTION partition_router.switchover_step(relation regclass, operation text, stage text) RETURNS boolean
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'switchover_step_wrapper';
COMMENT ON FUNCTION partition_router.switchover_step(regclass, text, text) IS 'internal: one stage of switchover() or rollback(); true when it has to be gone through again in another transaction';
REVOKE ALL ON FUNCTION partition_router.switchover_step(regclass, text, text) FROM PUBLIC;

CREATE FUNCTION partition_router.switchover_dry_run(relation regclass, operation text) RETURNS void
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'switchover_dry_run_wrapper';
COMMENT ON FUNCTION partition_router.switchover_dry_run(regclass, text) IS 'internal: prints what switchover() or rollback() would do, and who is in the way';
REVOKE ALL ON FUNCTION partition_router.switchover_dry_run(regclass, text) FROM PUBLIC;

CREATE FUNCTION partition_router.cleanup_step(relation regclass, stage text, keep_legacy boolean, keep_unique boolean) RETURNS boolean
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'cleanup_step_wrapper';
COMMENT ON FUNCTION partition_router.cleanup_step(regclass, text, boolean, boolean) IS 'internal: one stage of cleanup(); true when it has to be gone through again in another transaction';
REVOKE ALL ON FUNCTION partition_router.cleanup_step(regclass, text, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION partition_router.cleanup_dry_run(relation regclass, keep_legacy boolean, keep_unique boolean) RETURNS void
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'cleanup_dry_run_wrapper';
COMMENT ON FUNCTION partition_router.cleanup_dry_run(regclass, boolean, boolean) IS 'internal: prints what cleanup() would do, and who is in the way';
REVOKE ALL ON FUNCTION partition_router.cleanup_dry_run(regclass, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION partition_router.redefine_materialized_view(view regclass, definition text) RETURNS void
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'redefine_materialized_view_wrapper';
COMMENT ON FUNCTION partition_router.redefine_materialized_view(regclass, text) IS 'gives a materialized view another query with the same columns, and keeps its rows: CREATE OR REPLACE, which the server has for views only; a step of switchover()';
REVOKE ALL ON FUNCTION partition_router.redefine_materialized_view(regclass, text) FROM PUBLIC;

CREATE PROCEDURE partition_router.switchover(relation regclass, dry_run boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    stage pg_catalog.text;
BEGIN
    IF relation IS NULL OR dry_run IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'relation and dry_run must not be null',
            HINT = 'Name either side of the pair; dry_run has a default.';
    END IF;
    IF dry_run THEN
        PERFORM partition_router.switchover_dry_run(relation, 'switchover');
        RETURN;
    END IF;
    FOREACH stage IN ARRAY ARRAY['PRE-FLIGHT', 'PRE-MIGRATION', 'SWAP', 'POST-MIGRATION', 'POST-SWITCH'] LOOP
        LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            EXIT WHEN NOT partition_router.switchover_step(relation, 'switchover', stage);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.switchover(regclass, boolean) IS
    'the twin takes the legacy''s name, after a proof that both are equal; the legacy is kept in step as <name>_legacy';
REVOKE ALL ON PROCEDURE partition_router.switchover(regclass, boolean) FROM PUBLIC;

CREATE PROCEDURE partition_router.rollback(relation regclass, dry_run boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    stage pg_catalog.text;
BEGIN
    IF relation IS NULL OR dry_run IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'relation and dry_run must not be null',
            HINT = 'Name either side of the pair; dry_run has a default.';
    END IF;
    IF dry_run THEN
        PERFORM partition_router.switchover_dry_run(relation, 'rollback');
        RETURN;
    END IF;
    FOREACH stage IN ARRAY ARRAY['PRE-FLIGHT', 'PRE-MIGRATION', 'SWAP', 'POST-MIGRATION', 'POST-SWITCH'] LOOP
        LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            EXIT WHEN NOT partition_router.switchover_step(relation, 'rollback', stage);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.rollback(regclass, boolean) IS
    'the names swap back, at any time after a switchover, with every write made since';
REVOKE ALL ON PROCEDURE partition_router.rollback(regclass, boolean) FROM PUBLIC;

CREATE PROCEDURE partition_router.cleanup(
    relation regclass,
    dry_run boolean DEFAULT false,
    keep_legacy boolean DEFAULT false,
    keep_unique boolean DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    stage pg_catalog.text;
BEGIN
    IF relation IS NULL OR dry_run IS NULL OR keep_legacy IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'relation, dry_run and keep_legacy must not be null',
            HINT = 'Name either side of the pair; the others have defaults.';
    END IF;
    IF dry_run THEN
        PERFORM partition_router.cleanup_dry_run(relation, keep_legacy, keep_unique);
        RETURN;
    END IF;
    FOREACH stage IN ARRAY ARRAY['PRE-FLIGHT', 'END'] LOOP
        LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            EXIT WHEN NOT partition_router.cleanup_step(relation, stage, keep_legacy, keep_unique);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.cleanup(regclass, boolean, boolean, boolean) IS
    'ends the migration after a last proof: sync off, the legacy dropped, or kept as a table of its own, or made the guard of unique columns; the partitions stay under maintenance';
REVOKE ALL ON PROCEDURE partition_router.cleanup(regclass, boolean, boolean, boolean) FROM PUBLIC;
