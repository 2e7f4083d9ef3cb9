-- Goes through the tables under maintenance, each task in a transaction of its own: one that fails is recorded and stops
-- no other. Partitions are created in every table before any is retired. A procedure that commits cannot pin its
-- search_path: so no operator is used here, and every function and type is qualified. Decisions are made by the functions
-- that it calls.
CREATE PROCEDURE partition_router.run_maintenance(
    relation regclass DEFAULT NULL,
    dry_run boolean DEFAULT false,
    part text DEFAULT 'all'
) LANGUAGE plpgsql AS $$
DECLARE
    targets pg_catalog.regclass[];
    target pg_catalog.regclass;
    tasks pg_catalog.text[];
    cleaning pg_catalog.text[];
    all_targets pg_catalog.regclass[] := '{}';
    all_tasks pg_catalog.text[] := '{}';
    step pg_catalog.int4;
    more boolean;
    proofs boolean;
    failure_state pg_catalog.text;
    failure pg_catalog.text;
BEGIN
    IF dry_run IS NOT FALSE THEN
        PERFORM partition_router.maintenance_dry_run(relation, part);
        RETURN;
    END IF;
    targets := partition_router.maintenance_targets(relation, part);
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOREACH target IN ARRAY targets LOOP
        BEGIN
            SELECT t.creating, t.cleaning INTO tasks, cleaning FROM partition_router.maintenance_tasks(target, part, true) t;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS failure_state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT;
            tasks := '{}';
            cleaning := '{}';
            PERFORM partition_router.maintenance_failed(target, NULL, failure_state, failure);
        END;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        FOR step IN 1 .. pg_catalog.cardinality(tasks) LOOP
            more := true;
            WHILE more LOOP
                BEGIN
                    more := partition_router.maintenance_task(target, tasks[step]);
                EXCEPTION WHEN OTHERS THEN
                    GET STACKED DIAGNOSTICS failure_state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT;
                    more := false;
                    PERFORM partition_router.maintenance_failed(target, tasks[step], failure_state, failure);
                END;
                COMMIT;
                SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
            END LOOP;
        END LOOP;
        FOR step IN 1 .. pg_catalog.cardinality(cleaning) LOOP
            all_targets := pg_catalog.array_append(all_targets, target);
            all_tasks := pg_catalog.array_append(all_tasks, cleaning[step]);
        END LOOP;
        PERFORM partition_router.maintenance_let_go();
    END LOOP;
    FOR step IN 1 .. pg_catalog.cardinality(all_tasks) LOOP
        target := all_targets[step];
        more := true;
        WHILE more LOOP
            BEGIN
                more := partition_router.maintenance_task(target, all_tasks[step]);
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS failure_state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT;
                more := false;
                PERFORM partition_router.maintenance_failed(target, all_tasks[step], failure_state, failure);
            END;
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        END LOOP;
    END LOOP;
    PERFORM partition_router.maintenance_let_go();
    -- Statistics first, then proofs.
    FOREACH proofs IN ARRAY ARRAY[false, true] LOOP
        IF proofs THEN
            targets := partition_router.maintenance_unproven(relation, part);
        ELSE
            targets := partition_router.maintenance_unanalyzed(relation);
        END IF;
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        FOREACH target IN ARRAY targets LOOP
            BEGIN
                IF proofs THEN
                    PERFORM partition_router.maintenance_verify(target);
                ELSE
                    PERFORM partition_router.maintenance_analyze(target);
                END IF;
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS failure_state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT;
                PERFORM partition_router.maintenance_failed(target, NULL, failure_state, failure);
            END;
            COMMIT;
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.run_maintenance IS 'creates the partitions that are due, moves rows out of the default partition, applies retention, analyses partitioned tables, verifies pairs whose last proof is old; without an argument for every table that the caller owns; part is all, create or cleanup';
REVOKE ALL ON PROCEDURE partition_router.run_maintenance FROM PUBLIC;
