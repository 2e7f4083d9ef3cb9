-- DDL on one side of a pair is carried to the other side, or refused. The function has no pinned search_path: it reads the
-- names in a statement as the statement does, and pins the path for what it runs itself.

CREATE FUNCTION partition_router.carry_ddl() RETURNS event_trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'carry_ddl';
COMMENT ON FUNCTION partition_router.carry_ddl() IS 'trigger function of the event triggers partition_router_*: carries DDL to the other side of a pair, or refuses it';
REVOKE ALL ON FUNCTION partition_router.carry_ddl() FROM PUBLIC;

-- The tags are those of the statements that can change a table of a pair.
CREATE EVENT TRIGGER partition_router_ddl_start ON ddl_command_start
    WHEN TAG IN ('ALTER TABLE', 'ALTER INDEX', 'ALTER TRIGGER', 'CREATE INDEX', 'CREATE TABLE', 'CREATE FOREIGN TABLE',
                 'CREATE TRIGGER', 'DROP INDEX', 'DROP OWNED', 'DROP SCHEMA', 'DROP TABLE', 'DROP FOREIGN TABLE')
    EXECUTE FUNCTION partition_router.carry_ddl();
ALTER EVENT TRIGGER partition_router_ddl_start ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER partition_router_ddl_start IS 'locks both sides of a pair and notes how a table is before a statement changes it; refuses what cannot be carried';

CREATE EVENT TRIGGER partition_router_ddl_end ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER INDEX', 'ALTER TRIGGER', 'CREATE INDEX', 'CREATE SCHEMA', 'CREATE TABLE', 'CREATE TRIGGER',
                 'DROP INDEX')
    EXECUTE FUNCTION partition_router.carry_ddl();
ALTER EVENT TRIGGER partition_router_ddl_end ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER partition_router_ddl_end IS 'carries what a statement changed to the other side of the pair; refuses triggers of change feeds that the extension did not make';

CREATE EVENT TRIGGER partition_router_ddl_drop ON sql_drop
    EXECUTE FUNCTION partition_router.carry_ddl();
ALTER EVENT TRIGGER partition_router_ddl_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER partition_router_ddl_drop IS 'refuses to drop a table of a pair, one of its partitions, or a sync trigger';
