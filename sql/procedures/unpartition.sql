-- Back to one plain table. Each step is a transaction; as in procedures.sql, no operator is used and every name has its schema.

CREATE FUNCTION partition_router.unpartition_step(relation regclass, step text) RETURNS boolean
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'unpartition_step_wrapper';
COMMENT ON FUNCTION partition_router.unpartition_step IS 'internal to unpartition: one step; true when it is to be called again in another transaction';
REVOKE ALL ON FUNCTION partition_router.unpartition_step FROM PUBLIC;

CREATE PROCEDURE partition_router.unpartition(
    relation regclass,
    cancel boolean DEFAULT false,
    dry_run boolean DEFAULT false
) LANGUAGE plpgsql AS $$
DECLARE
    stage pg_catalog.text;
BEGIN
    IF relation IS NULL OR cancel IS NULL OR dry_run IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'no argument may be null',
            HINT = 'Name a partitioned table; cancel and dry_run have defaults.';
    END IF;
    IF dry_run THEN
        PERFORM partition_router.unpartition_step(relation, 'DRY RUN');
        RETURN;
    END IF;
    FOREACH stage IN ARRAY CASE WHEN cancel THEN ARRAY['CANCEL'] ELSE ARRAY['PREPARE', 'COPY', 'PROVE',
        'PRE-FLIGHT', 'PRE-MIGRATION', 'SWAP', 'POST-MIGRATION', 'POST-SWITCH'] END LOOP
        LOOP
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            EXIT WHEN NOT partition_router.unpartition_step(relation, stage);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.unpartition IS 'back to one plain table, online: a copy that is kept in step, a proof, and the names swap; the partitioned table is kept in step until abandon() drops it; call it again to go on';
REVOKE ALL ON PROCEDURE partition_router.unpartition FROM PUBLIC;
