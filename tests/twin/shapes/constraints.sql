-- shape: checks
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int CHECK (a > 0), b int, CONSTRAINT "a below b" CHECK (a < b OR b IS NULL),
    CHECK (id <> 13 AND at > '1990-01-01'));
COMMENT ON CONSTRAINT "a below b" ON t IS 'a check';

-- shape: check with a function
CREATE FUNCTION is_fine(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 IS DISTINCT FROM 0 $$;
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, CONSTRAINT fine CHECK (is_fine(a)));

-- shape: primary key with a name and a comment
CREATE TABLE t (a int, b text, at date NOT NULL, CONSTRAINT the_key PRIMARY KEY (b, a));
COMMENT ON CONSTRAINT the_key ON t IS 'the key';
COMMENT ON INDEX the_key IS 'its index';

-- shape: primary key that covers
CREATE TABLE t (id int, at date NOT NULL, a int, PRIMARY KEY (id, at) INCLUDE (a) WITH (fillfactor = 70));

-- shape: deferrable keys
CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, at date NOT NULL, a int UNIQUE DEFERRABLE INITIALLY DEFERRED);

-- shape: unique constraints
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int, b int, CONSTRAINT one_a UNIQUE (a), CONSTRAINT one_b UNIQUE (b, at) INCLUDE (a),
    CONSTRAINT no_nulls UNIQUE NULLS NOT DISTINCT (a, b));
COMMENT ON CONSTRAINT one_a ON t IS 'one a';

-- shape: foreign keys out
CREATE TABLE orgs (id int PRIMARY KEY, code text UNIQUE, UNIQUE (id, code));
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, org int REFERENCES orgs, boss int CONSTRAINT "the boss" REFERENCES orgs ON DELETE SET NULL ON UPDATE CASCADE,
    code text REFERENCES orgs (code) DEFERRABLE INITIALLY DEFERRED, FOREIGN KEY (org, code) REFERENCES orgs (id, code) MATCH FULL);
COMMENT ON CONSTRAINT "the boss" ON t IS 'who';

-- shape: foreign key that sets one column
CREATE TABLE orgs (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int DEFAULT 1, b int, FOREIGN KEY (a, b) REFERENCES orgs ON DELETE SET NULL (b));

-- shape: foreign key to a partitioned table
CREATE TABLE orgs (id int PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE orgs_0 PARTITION OF orgs FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, org int REFERENCES orgs);
