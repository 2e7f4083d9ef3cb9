-- shape: partial indexes
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b text);
CREATE INDEX some_a ON t (a) WHERE b IS NOT NULL AND a > 5;
CREATE UNIQUE INDEX one_a ON t (a, at) WHERE b = 'x';

-- shape: expression indexes
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b text);
CREATE INDEX low_b ON t (lower(b), (a + 1));
CREATE UNIQUE INDEX one_b ON t (lower(b));
CREATE INDEX by_year ON t ((EXTRACT(year FROM at)));

-- shape: statistics targets of indexed expressions
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b text);
CREATE INDEX low_b ON t (a, lower(b), (a + 1));
ALTER INDEX low_b ALTER COLUMN 2 SET STATISTICS 500;
ALTER INDEX low_b ALTER COLUMN 3 SET STATISTICS 0;

-- shape: order and nulls
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b text);
CREATE INDEX i1 ON t (a DESC, b NULLS FIRST);
CREATE INDEX i2 ON t (a DESC NULLS LAST, b);

-- shape: operator classes and collations
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a text, b varchar, j jsonb, v tsvector);
CREATE INDEX i1 ON t (a text_pattern_ops, b varchar_pattern_ops);
CREATE INDEX i2 ON t (a COLLATE "C", b COLLATE "POSIX" DESC);
CREATE INDEX i3 ON t USING gin (j jsonb_path_ops);
CREATE INDEX i4 ON t USING gist (v tsvector_ops (siglen = 100));

-- shape: covering indexes
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b text);
CREATE INDEX i1 ON t (a) INCLUDE (b, at);
CREATE UNIQUE INDEX i2 ON t (a, at) INCLUDE (b);

-- shape: other methods with options
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b int[], c text);
CREATE INDEX i1 ON t USING brin (at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX i2 ON t USING gin (b) WITH (fastupdate = off, gin_pending_list_limit = 128);
CREATE INDEX i3 ON t USING hash (c) WITH (fillfactor = 60);
CREATE INDEX i4 ON t (a) WITH (fillfactor = 50, deduplicate_items = off);

-- shape: unique nulls
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b int);
CREATE UNIQUE INDEX i1 ON t (a, b) NULLS NOT DISTINCT;
CREATE UNIQUE INDEX i2 ON t (b);

-- shape: equal indexes under two names
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int);
CREATE INDEX first ON t (a);
CREATE INDEX second ON t (a);

-- shape: index comments
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int);
CREATE INDEX by_a ON t (a);
COMMENT ON INDEX by_a IS 'an index';
COMMENT ON INDEX t_pkey IS 'its key';

-- shape: names as long as they may be
CREATE TABLE t (id int, at date NOT NULL, a int, CONSTRAINT kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk PRIMARY KEY (id),
    CONSTRAINT ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc CHECK (a > 0));
CREATE INDEX iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii ON t (a);

-- shape: tablespace of an index
CREATE TABLE t (id int, at date NOT NULL, a int, PRIMARY KEY (id) USING INDEX TABLESPACE shape_space);
CREATE INDEX by_a ON t (a) TABLESPACE shape_space;
