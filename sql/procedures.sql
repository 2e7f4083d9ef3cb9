-- Procedures commit between steps, so they cannot have a SET clause: they use no operator, and name every function with
-- its schema. The steps themselves run with a pinned search_path.

CREATE PROCEDURE partition_router.migrate(
    legacy regclass,
    partition_key name,
    strategy text DEFAULT 'range',
    partition_interval text DEFAULT '1 month',
    partitions int DEFAULT 16,
    premake int DEFAULT 3,
    twin name DEFAULT NULL,
    dry_run boolean DEFAULT false,
    keep_unique boolean DEFAULT false,
    origin text DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    more boolean;
BEGIN
    PERFORM partition_router.migrate_check(legacy);
    -- A dry_run of NULL is no leave to change anything: create_twin() refuses it.
    IF dry_run IS NOT FALSE THEN
        PERFORM partition_router.create_twin(
            legacy, partition_key, strategy, partition_interval, partitions, premake, twin, dry_run, keep_unique, origin);
        RETURN;
    END IF;
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        PERFORM partition_router.muster_workers(legacy, 50000, '0');
        more := partition_router.migrate_step(
            legacy, partition_key, strategy, partition_interval, partitions, premake, twin, keep_unique, origin);
        EXIT WHEN NOT more;
    END LOOP;
    PERFORM partition_router.dismiss_workers();
END
$$;
COMMENT ON PROCEDURE partition_router.migrate(regclass, name, text, text, int, int, name, boolean, boolean, text) IS
    'the main job in one call: twin, sync, copy, parity; ends live and proven equal, reads still on the legacy';
REVOKE ALL ON PROCEDURE partition_router.migrate(regclass, name, text, text, int, int, name, boolean, boolean, text) FROM PUBLIC;

CREATE PROCEDURE partition_router.backfill(
    relation regclass,
    batch_rows int DEFAULT 50000,
    pause interval DEFAULT '0',
    max_duration interval DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    more boolean;
    started pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    IF relation IS NULL OR batch_rows IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'relation and batch_rows must not be null',
            HINT = 'Name the table to copy; batch_rows has a default.';
    END IF;
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        PERFORM partition_router.muster_workers(relation, batch_rows, pause);
        more := partition_router.backfill_step(relation, batch_rows, pause);
        EXIT WHEN NOT more;
        COMMIT;
        EXIT WHEN pg_catalog.interval_ge(
            pg_catalog.timestamptz_mi(pg_catalog.clock_timestamp(), started), max_duration);
    END LOOP;
    PERFORM partition_router.dismiss_workers();
END
$$;
COMMENT ON PROCEDURE partition_router.backfill(regclass, int, interval, interval) IS
    'copies the rows that were there before sync began, in batches of about batch_rows with a pause before each, alone or with partition_router.backfill_workers; call it again to go on';
REVOKE ALL ON PROCEDURE partition_router.backfill(regclass, int, interval, interval) FROM PUBLIC;
