-- The change feed: what tells of changed rows, and what takes them.

CREATE FUNCTION partition_router.change_feed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'change_feed';
COMMENT ON FUNCTION partition_router.change_feed() IS 'trigger function that writes the keys of changed rows into the outbox; installed by enable_change_feed()';
REVOKE ALL ON FUNCTION partition_router.change_feed() FROM PUBLIC;

CREATE FUNCTION partition_router.enable_change_feed(
     relation regclass,
     key_columns text[],
     name text DEFAULT NULL,
     retention interval DEFAULT '7 days',
     max_lag interval DEFAULT '1 minute',
     notify boolean DEFAULT true,
     dry_run boolean DEFAULT false
) RETURNS void
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'enable_change_feed_wrapper';
COMMENT ON FUNCTION partition_router.enable_change_feed(regclass, text[], text, interval, interval, boolean, boolean) IS 'from now on the keys of all changed rows of a table, or of both sides of a pair, are written to an outbox in the same transaction; called again it changes how';
REVOKE ALL ON FUNCTION partition_router.enable_change_feed(regclass, text[], text, interval, interval, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION partition_router.disable_change_feed(relation regclass, dry_run boolean DEFAULT false) RETURNS void
     LANGUAGE c STRICT SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'disable_change_feed_wrapper';
COMMENT ON FUNCTION partition_router.disable_change_feed(regclass, boolean) IS 'ends the change feed of a table; changes that nobody has taken go with it';
REVOKE ALL ON FUNCTION partition_router.disable_change_feed(regclass, boolean) FROM PUBLIC;

CREATE FUNCTION partition_router.take_changes(max_events int DEFAULT 1000, feed text DEFAULT NULL) RETURNS TABLE (feed text, key text[], changed_at timestamptz)
     LANGUAGE c SET search_path = pg_catalog, pg_temp
     AS 'MODULE_PATHNAME', 'take_changes_wrapper';
COMMENT ON FUNCTION partition_router.take_changes(int, text) IS 'takes changes out of the outbox, of feeds whose key columns the caller may read: gone when this transaction commits, back when it does not; a NULL key stands for every key of the feed';
REVOKE ALL ON FUNCTION partition_router.take_changes(int, text) FROM PUBLIC;
