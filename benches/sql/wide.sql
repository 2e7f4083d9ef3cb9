-- A table that makes the proof work: text compressed in the row and out of line, numeric, jsonb, a dropped column and
-- columns with fast defaults, which the first rows do not hold. Variable: rows.
CREATE FUNCTION noise(seed bigint, blocks int) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$SELECT string_agg(md5(seed || '/' || i), '') FROM generate_series(1, blocks) i$$;
CREATE TABLE revenues (
    id          serial PRIMARY KEY,
    gone        text,
    occurred_at timestamp NOT NULL,
    amount      numeric(14, 2) NOT NULL,
    rate        numeric NOT NULL,
    details     jsonb NOT NULL,
    note        text,
    inside      text,
    outside     text
);
INSERT INTO revenues (gone, occurred_at, amount, rate, details, note, inside, outside)
SELECT 'gone ' || g, bench.first_month() + (g * 62500000::bigint / :rows) * interval '1 second', g % 100000 / 7.0, g / 13.0,
       jsonb_build_object('n', g, 'tags', jsonb_build_array('a', g % 7, NULL), 'rate', g / 3.0), 'note ' || g,
       CASE WHEN g % 4 = 0 THEN repeat('inline ' || g, 280) END,
       CASE WHEN g % 20 = 0 THEN noise(g, 150) END
FROM generate_series(1, :rows) g;
ALTER TABLE revenues DROP COLUMN gone;
ALTER TABLE revenues ADD COLUMN later int NOT NULL DEFAULT 7, ADD COLUMN source text NOT NULL DEFAULT 'web';
INSERT INTO revenues (occurred_at, amount, rate, details, note)
SELECT occurred_at, amount, rate, details, note FROM revenues LIMIT :rows / 10;
