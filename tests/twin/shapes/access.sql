-- shape: another owner
CREATE TABLE t (id serial PRIMARY KEY, at date NOT NULL, a int);
CREATE INDEX by_a ON t (a);
CREATE STATISTICS st ON a, at FROM t;
ALTER TABLE t OWNER TO shape_owner;

-- shape: grants
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int);
GRANT SELECT ON t TO PUBLIC;
GRANT INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON t TO shape_reader;
GRANT ALL ON t TO "shape Owner 2" WITH GRANT OPTION;

-- shape: column grants
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, "B b" int);
GRANT SELECT (id, "B b"), UPDATE (a) ON t TO shape_reader;
GRANT SELECT (a) ON t TO PUBLIC;
GRANT INSERT (id, at) ON t TO "shape Owner 2" WITH GRANT OPTION;

-- shape: an owner who took rights from himself
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL);
ALTER TABLE t OWNER TO shape_owner;
REVOKE TRUNCATE, DELETE ON t FROM shape_owner;

-- shape: default privileges
ALTER DEFAULT PRIVILEGES IN SCHEMA :schema GRANT SELECT ON TABLES TO shape_reader;
CREATE TABLE t (id serial PRIMARY KEY, at date NOT NULL);

-- shape: default privileges that the table does not have
CREATE TABLE t (id serial PRIMARY KEY, at date NOT NULL);
ALTER DEFAULT PRIVILEGES IN SCHEMA :schema GRANT INSERT ON TABLES TO shape_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA :schema GRANT USAGE ON SEQUENCES TO shape_reader;

-- shape: row security
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int);
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY p1 ON t USING (a > 0) WITH CHECK (a > 1);
CREATE POLICY p2 ON t AS RESTRICTIVE FOR SELECT TO shape_reader, "shape Owner 2" USING (a < 1000);
CREATE POLICY p3 ON t FOR INSERT TO PUBLIC WITH CHECK (id > 0);
CREATE POLICY p4 ON t FOR UPDATE TO shape_reader USING (true);
COMMENT ON POLICY p1 ON t IS 'a policy';

-- shape: forced row security
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int);
ALTER TABLE t FORCE ROW LEVEL SECURITY;
CREATE POLICY "with a sub-select" ON t USING (EXISTS (SELECT FROM t x WHERE x.id = t.a));

-- shape: a comment alone
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL);
COMMENT ON TABLE t IS 'only a comment';
