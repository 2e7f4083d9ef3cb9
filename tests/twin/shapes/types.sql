-- shape: domains
CREATE DOMAIN cents AS bigint NOT NULL DEFAULT 0 CHECK (VALUE >= 0);
CREATE DOMAIN moment AS timestamptz;
CREATE TABLE t (id int PRIMARY KEY, at moment NOT NULL, amount cents);

-- shape: enums
CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, m mood DEFAULT 'so so', ms mood[]);
CREATE INDEX ON t (m);

-- shape: composites
CREATE TYPE place AS (street text, number int);
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, home place, homes place[], CHECK ((home).number > 0));

-- shape: ranges
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int4range, b tstzrange DEFAULT 'empty', c int8multirange, d span);
CREATE INDEX ON t USING gist (a);

-- shape: arrays and json
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a int[], b text[][], c json, d jsonb, e jsonpath, f tsvector, g xml);
CREATE INDEX ON t USING gin (a);
CREATE INDEX ON t USING gin (d);
CREATE INDEX ON t USING gin (f);

-- shape: numbers and bits
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a numeric(12, 3), b numeric, c real, d float8, e bit(5), f varbit(9), g money, h char(3), i "char", j oid);

-- shape: times
CREATE TABLE t (id int PRIMARY KEY, at timestamp(3) NOT NULL, a time, b timetz(2), c interval day to second(3), d interval(0));

-- shape: network and geometry
CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, a inet, b cidr, c macaddr, d point, e box, f polygon, g uuid DEFAULT gen_random_uuid());
CREATE INDEX ON t USING gist (e);
CREATE INDEX ON t USING spgist (a inet_ops);

-- shape: key of timestamptz
CREATE TABLE t (id int, at timestamptz NOT NULL, PRIMARY KEY (id, at));
INSERT INTO t VALUES (1, now()), (2, now());
