-- A partition goes to another server, and comes back. Each step is a transaction; as in procedures.sql, no operator is used and every
-- name has its schema.

CREATE FUNCTION partition_router.place_step(partition regclass, server name) RETURNS boolean
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'place_step_wrapper';
COMMENT ON FUNCTION partition_router.place_step IS 'internal to place: one step; true when there is another, for another transaction';
REVOKE ALL ON FUNCTION partition_router.place_step FROM PUBLIC;

CREATE FUNCTION partition_router.place_dry_run(partition regclass, server name) RETURNS void
    LANGUAGE c SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'place_dry_run_wrapper';
COMMENT ON FUNCTION partition_router.place_dry_run IS 'internal: prints what place() would do';
REVOKE ALL ON FUNCTION partition_router.place_dry_run FROM PUBLIC;

CREATE FUNCTION partition_router.out_of_bounds() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '23514',
        MESSAGE = pg_catalog.format('new row for relation "%s" violates partition constraint', TG_TABLE_NAME),
        DETAIL = 'The row belongs to another partition, and this one is on another server.',
        HINT = 'Delete the row and insert it anew, by the partitioned table.';
END
$$;
COMMENT ON FUNCTION partition_router.out_of_bounds() IS 'internal: the trigger of a partition by hash on another server, for rows that are not its own';
REVOKE ALL ON FUNCTION partition_router.out_of_bounds() FROM PUBLIC;

CREATE PROCEDURE partition_router.place(
    partition regclass,
    server name,
    dry_run boolean DEFAULT false
) LANGUAGE plpgsql AS $$
BEGIN
    IF partition IS NULL OR dry_run IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'partition and dry_run must not be null',
            HINT = 'Name a partition; server may be null: the partition comes back.';
    END IF;
    IF dry_run THEN
        PERFORM partition_router.place_dry_run(partition, server);
        RETURN;
    END IF;
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        EXIT WHEN NOT partition_router.place_step(partition, server);
    END LOOP;
END
$$;
COMMENT ON PROCEDURE partition_router.place IS 'moves a partition to a server of postgres_fdw, copied, read back and proven equal, while applications write; with NULL as server back again; call it again to go on';
REVOKE ALL ON PROCEDURE partition_router.place FROM PUBLIC;
