-- shape: storage and compression
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a text COMPRESSION lz4, b text COMPRESSION pglz, c bytea);
ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE MAIN, ALTER c SET STORAGE PLAIN;

-- shape: statistics targets
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b text);
ALTER TABLE t ALTER a SET STATISTICS 1000, ALTER b SET STATISTICS 0;
ALTER TABLE t ALTER a SET (n_distinct = -0.5, n_distinct_inherited = 30);

-- shape: storage parameters
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_enabled = false,
    parallel_workers = 3, user_catalog_table = true);

-- shape: storage parameters of its toast table
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a text) WITH (toast.autovacuum_enabled = false, toast.vacuum_truncate = off, fillfactor = 90,
    toast_tuple_target = 512);

-- shape: extended statistics
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b int, c text);
CREATE STATISTICS all_kinds ON a, b FROM t;
CREATE STATISTICS some_kinds (ndistinct, dependencies) ON b, c FROM t;
CREATE STATISTICS expressions (mcv) ON (a + b), lower(c) FROM t;
ALTER STATISTICS some_kinds SET STATISTICS 321;
COMMENT ON STATISTICS all_kinds IS 'statistics';

-- shape: tablespace
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL) TABLESPACE shape_space;

-- shape: clustered
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int);
CREATE INDEX by_a ON t (a);
ALTER TABLE t CLUSTER ON by_a;
