-- shape: by hash
-- migrate: 'org', 'hash', partitions => 3
CREATE TABLE t (id int PRIMARY KEY, org int NOT NULL, a text UNIQUE);
CREATE INDEX ON t (org);

-- shape: by list
-- migrate: 'kind', 'list'
CREATE TABLE t (id int PRIMARY KEY, kind text NOT NULL, a int CHECK (a > 0));
INSERT INTO t VALUES (1, 'a', 1), (2, 'b b', 2);

-- shape: by integers
-- migrate: 'id', partition_interval => '100'
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int);
INSERT INTO t (a) SELECT generate_series(1, 250);

-- shape: by epoch
-- migrate: 'ts', premake => 1
CREATE TABLE t (id int PRIMARY KEY, ts bigint NOT NULL, a text);
INSERT INTO t VALUES (1, EXTRACT(epoch FROM now()));

-- shape: by uuid
-- migrate: 'id', partition_interval => '1 year', premake => 1
CREATE TABLE t (id uuid PRIMARY KEY, a int);
CREATE INDEX ON t (a);

-- shape: by a key in the middle
-- migrate: 'Day', partition_interval => '1 week', premake => 1
CREATE TABLE t (a int, "Day" date, b int, PRIMARY KEY (b, "Day", a));
CREATE UNIQUE INDEX ON t ("Day", b);
