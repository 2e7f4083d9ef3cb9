-- Goes through the tables under maintenance, each task in a transaction of its own: one that fails is recorded and stops
-- no other. A procedure that commits cannot pin its search_path: so no operator is used here, and every function and
-- type is qualified. Decisions are made by the functions that it calls.
CREATE PROCEDURE partition_router.run_maintenance(
    relation regclass DEFAULT NULL,
    dry_run boolean DEFAULT false
) LANGUAGE plpgsql AS $$
DECLARE
    targets pg_catalog.regclass[];
    target pg_catalog.regclass;
    tasks pg_catalog.text[];
    task pg_catalog.text;
    more boolean;
    failure_state pg_catalog.text;
    failure pg_catalog.text;
BEGIN
    IF dry_run IS NOT FALSE THEN
        PERFORM partition_router.maintenance_dry_run(relation);
        RETURN;
    END IF;
    targets := partition_router.maintenance_targets(relation);
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOREACH target IN ARRAY targets LOOP
        BEGIN
            tasks := partition_router.maintenance_tasks(target);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS failure_state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT;
            tasks := '{}';
            PERFORM partition_router.maintenance_failed(target, NULL, failure_state, failure);
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        FOREACH task IN ARRAY tasks LOOP
            more := true;
            WHILE more LOOP
                BEGIN
                    more := partition_router.maintenance_task(target, task);
                EXCEPTION WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS failure_state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT;
                    more := false;
                    PERFORM partition_router.maintenance_failed(target, task, failure_state, failure);
                END;
                COMMIT;
                SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            END LOOP;
        END LOOP;
    END LOOP;
    targets := partition_router.maintenance_unproven(relation);
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOREACH target IN ARRAY targets LOOP
        BEGIN
            PERFORM partition_router.maintenance_verify(target);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS failure_state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT;
            PERFORM partition_router.maintenance_failed(target, NULL, failure_state, failure);
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.run_maintenance IS 'creates the partitions that are due, moves rows out of the default partition, applies retention, verifies pairs whose last proof is old; without an argument for every table that the caller owns';
REVOKE ALL ON PROCEDURE partition_router.run_maintenance FROM PUBLIC;
