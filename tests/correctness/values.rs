//! Every kind of value, as it is: what is stored, not what is printed.

use super::{Scene, everywhere, one};

const TYPES: [&str; 13] = [
    "CREATE DOMAIN cents AS bigint CHECK (VALUE >= 0)",
    "CREATE DOMAIN price AS cents NOT NULL DEFAULT 3",
    "CREATE DOMAIN codes AS text[] CHECK (cardinality(VALUE) < 9)",
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
    "CREATE TYPE place AS (street text, no int, at cents)",
    "CREATE TYPE trip AS (stops place[], m mood)",
    "CREATE TYPE span AS RANGE (SUBTYPE = numeric, MULTIRANGE_TYPE_NAME = spanmultirange)",
    "CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, d timestamptz NOT NULL, c cents, p price, k codes,
         m mood, ms mood[], pl place, tr trip, trs trip[], r int4range, nr span, mr datemultirange, nmr spanmultirange,
         j jsonb, js json, b bytea, f4 float4, f8 float8, nn numeric, iv interval, u uuid, bits bit varying, ch char(5),
         nm name, ts tsvector, pt point, mac macaddr, ip inet, mny money, ci char, oi oid, x xml, lsn pg_lsn, arr int[][],
         twice numeric GENERATED ALWAYS AS (nn * 2) STORED, hash text GENERATED ALWAYS AS (md5(js::text || 'x')) STORED)",
    "INSERT INTO a (d, c, k, m, ms, pl, tr, trs, r, nr, mr, nmr, j, js, b, f4, f8, nn, iv, u, bits, ch, nm, ts, pt, mac, ip, mny, ci, oi, x, lsn, arr)
     SELECT timestamptz '2026-01-01 UTC' + g * interval '1 day 1 minute', g, ARRAY['a', NULL], 'ok', ARRAY['sad', NULL]::mood[],
            ('s', g, g)::place, ROW(ARRAY[('s', g, NULL)::place, NULL], 'happy')::trip, ARRAY[ROW(NULL, 'ok')::trip],
            int4range(g, g + 5), span(g, NULL, '[]'), datemultirange(daterange('2026-01-01', '2026-02-01')), spanmultirange(span(1, 2), span(3, g + 4)),
            jsonb_build_object('g', g, 'n', NULL), '{\"b\" : 1,  \"b\":2}', decode(md5(g::text), 'hex'),
            CASE g % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN '-Infinity' ELSE g / 7.0 END, CASE g % 3 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' ELSE g / 7.0 END,
            CASE g % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '1.1000' WHEN 2 THEN 'Infinity' ELSE g / 7.0 END, '1 mon -3 days', md5(g::text)::uuid, B'0101', 'ab',
            'nm', 'fat cat', '(1,2)', '08:00:2b:01:02:03', '10.0.0.1/8', 12.5, 'c', g, '<a>1</a>', '16/B374D848', ARRAY[[1, 2], [3, NULL]]
     FROM generate_series(1, 60) g",
    "INSERT INTO a (d) VALUES ('2026-01-15'), ('infinity'), ('-infinity')",
    "CREATE FUNCTION bump(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1'",
    "CREATE INDEX ON a (lower(ch)) WHERE c > 5",
    "CREATE INDEX ON a USING gin (j)",
];

#[test]
fn every_type_is_carried_byte_for_byte() {
    everywhere("types", &TYPES, "'d'", |scene| {
        scene.run(&[
            "INSERT INTO {} (d, c, nn, f8, k, r, mr) VALUES ('2026-02-02', 9, 1.10, '-0', ARRAY[]::text[], 'empty', datemultirange())",
            "INSERT INTO {} (id, d, p, j) OVERRIDING SYSTEM VALUE VALUES (1000, '2026-02-01 12:00', 5, '[1, {\"a\": null}]')",
            "UPDATE {} SET pl.no = 77, tr.stops[1].street = 'deep', ms[5] = 'happy' WHERE id <= 10",
            "UPDATE {} SET d = d + interval '2 months' WHERE id BETWEEN 5 AND 15 OR id = 1000",
            "UPDATE {} SET d = 'infinity' WHERE id = 16",
            "UPDATE {} SET nn = 1.10000, f8 = 0, f4 = 0 WHERE id = 20",
            "UPDATE {} SET f8 = -f8, f4 = -f4 WHERE id = 20",
            "UPDATE {} SET nn = 1.1 WHERE id = 21",
            "UPDATE {} SET j = j || '{\"more\": [1, 2]}', arr[1][1] = 9, js = NULL WHERE id = 22",
            "UPDATE {} SET nr = nr * span(1, 5), nmr = nmr + spanmultirange(span(100, 200)), k[1] = 'z', ch = 'e', bits = B'1' WHERE id = 23",
            "UPDATE {} SET (m, ms, pl, tr, trs, r, nr, mr, nmr, j, js, b, x, arr) = ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) WHERE id = 24",
            "DELETE FROM {} WHERE id BETWEEN 30 AND 32",
        ]);
        // A partitioned table has no identity column until it takes the name: on the twin it is a default.
        let identity = if scene.at == super::At::Twin {
            "23505"
        } else {
            "428C9"
        };
        for (refused, code) in [
            ("UPDATE {} SET c = -1 WHERE id = 1", "23514"),
            ("UPDATE {} SET p = NULL WHERE id = 1", "23502"),
            ("UPDATE {} SET id = 5 WHERE id = 1", identity),
            ("INSERT INTO {} (id, d) VALUES (5, '2026-01-01')", identity),
            ("UPDATE {} SET twice = 1 WHERE id = 1", "428C9"),
        ] {
            assert_eq!(scene.sqlstate(refused), code, "at {:?}: {refused}", scene.at);
        }
        |scene: &mut Scene| {
            assert_eq!(scene.one::<i64>("SELECT count(*) FROM a_partitioned"), 62);
            for side in ["a", "a_partitioned"] {
                let exact = format!("SELECT concat_ws(' ', f8, f4, nn, twice) FROM {side} WHERE id = 20");
                assert_eq!(
                    scene.one::<String>(&exact),
                    "-0 -0 1.10000 2.20000",
                    "at {:?}",
                    scene.at
                );
            }
            // Neither side has drawn the other's identities.
            let drawn: i64 = scene.one("SELECT count(*) - count(DISTINCT id) FROM a_partitioned");
            assert_eq!(drawn, 0);
        }
    });
}

/// Values kept outside of the row, compressed by either method or not at all, and in the row.
const TOAST: [&str; 6] = [
    "CREATE FUNCTION noise(seed int, blocks int) RETURNS text LANGUAGE sql IMMUTABLE AS
     $$SELECT string_agg(md5(seed || '/' || i), '') FROM generate_series(1, blocks) i$$",
    "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int, pglz text COMPRESSION pglz, lz4 text COMPRESSION lz4,
                     external text STORAGE EXTERNAL, main text STORAGE MAIN, wide jsonb, tiny text)",
    "ALTER TABLE a ALTER external SET STORAGE EXTERNAL, ALTER main SET STORAGE MAIN",
    "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, g, repeat('pglz ' || g, 3000) || noise(g, 100), repeat('lz4 ' || g, 3000) || noise(-g, 100),
            noise(g, 200), repeat('main', 1500), jsonb_build_object('k', noise(g, 300)), 'tiny' FROM generate_series(1, 60) g",
    "UPDATE a SET n = n + 1 WHERE id % 2 = 0",
    "INSERT INTO a SELECT 60 + g, date '2026-01-01' + g, 0, repeat('x', 1800 + g), repeat('y', 1990 + g), NULL, '', '{}', NULL FROM generate_series(1, 40) g",
];

#[test]
fn values_outside_of_the_row_are_carried_whether_they_change_or_not() {
    let mut setup = TOAST.to_vec();
    setup[1] = "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int, pglz text COMPRESSION pglz, lz4 text COMPRESSION lz4,
                     external text, main text, wide jsonb, tiny text)";
    everywhere("toast", &setup, "'d'", |scene| {
        scene.run(&[
            // The large values stay as they are.
            "UPDATE {} SET n = -1 WHERE id BETWEEN 1 AND 10",
            "UPDATE {} SET d = d + 31, n = -2 WHERE id BETWEEN 6 AND 15",
            "UPDATE {} SET id = id + 1000 WHERE id BETWEEN 16 AND 18",
            // One of them changes.
            "UPDATE {} SET external = noise(id + 1000, 250) WHERE id BETWEEN 20 AND 25",
            "UPDATE {} SET pglz = lz4, lz4 = pglz WHERE id BETWEEN 24 AND 30",
            "UPDATE {} SET pglz = NULL, main = noise(id, 400), wide = wide || '{\"a\": 1}' WHERE id BETWEEN 31 AND 35",
            "INSERT INTO {} SELECT id + 2000, d, n, pglz, lz4, external, main, wide, tiny FROM {} WHERE id BETWEEN 40 AND 45",
            "DELETE FROM {} WHERE id BETWEEN 50 AND 52",
            "BEGIN",
            "UPDATE {} SET external = noise(7, 500) WHERE id = 55",
            "SAVEPOINT s",
            "UPDATE {} SET external = 'short', lz4 = noise(8, 500) WHERE id = 55",
            "ROLLBACK TO s",
            "UPDATE {} SET n = 0 WHERE id = 55",
            "COMMIT",
        ]);
        |scene: &mut Scene| {
            assert_eq!(
                scene.one::<i64>("SELECT count(*) FROM a_partitioned"),
                100 + 6 - 3
            );
            // Vacuumed, so that nothing lives on what a dead row left behind.
            for table in ["a", "a_partitioned"] {
                super::run(&mut scene.keeper, &[&format!("VACUUM {table}")]);
            }
            super::compare(&mut scene.keeper, "a");
            let length =
                "SELECT length(external) || ' ' || length(wide::text) FROM a_partitioned WHERE id = 55";
            assert_eq!(one::<String>(&mut scene.keeper, length), "16000 9609");
        }
    });
}

#[test]
fn rows_of_hundreds_of_columns_and_of_no_other_column_are_carried() {
    let columns: Vec<String> = (0..250).map(|i| format!("c{i} int DEFAULT {i}")).collect();
    let create = format!(
        "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, {})",
        columns.join(", ")
    );
    let setup = [
        create.as_str(),
        "INSERT INTO a (id, d, c7) SELECT g, date '2026-01-01' + g % 80, NULL FROM generate_series(1, 30) g",
    ];
    everywhere("wide", &setup, "'d'", |scene| {
        scene.run(&[
            "UPDATE {} SET c249 = NULL, c3 = -3 WHERE id <= 10",
            "UPDATE {} SET d = d + 31 WHERE id BETWEEN 5 AND 15",
            "INSERT INTO {} (id, d) VALUES (500, '2026-02-02')",
            "DELETE FROM {} WHERE id = 20",
        ]);
        super::nothing_more
    });
    // Nothing but a key, which is all of the row.
    let setup = [
        "CREATE TABLE a (id bigint PRIMARY KEY)",
        "INSERT INTO a SELECT generate_series(1, 100)",
    ];
    everywhere("narrow", &setup, "'id', 'hash', partitions => 3", |scene| {
        scene.run(&[
            "INSERT INTO {} VALUES (500), (501)",
            "UPDATE {} SET id = id + 1000 WHERE id <= 10",
            "UPDATE {} SET id = id WHERE id > 50",
            "DELETE FROM {} WHERE id BETWEEN 20 AND 29",
            "INSERT INTO {} VALUES (500), (600) ON CONFLICT DO NOTHING",
        ]);
        |scene: &mut Scene| assert_eq!(scene.one::<i64>("SELECT count(*) FROM a_partitioned"), 93)
    });
}

#[test]
fn keys_that_are_equal_but_not_the_same_are_carried() {
    // numeric 1.0 and 1.00, citext-like collations, and padded characters are equal keys with other bytes.
    let setup = [
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE a (k numeric, s text COLLATE nocase, c char(4), f float8, at timestamptz NOT NULL, n int, PRIMARY KEY (k, s, c, f))",
        "INSERT INTO a SELECT g, 'Key' || g, 'c', CASE WHEN g % 2 = 0 THEN 0 ELSE '-0' END, timestamptz '2026-01-01 UTC' + g * interval '1 day', g
         FROM generate_series(1, 60) g",
    ];
    everywhere("equal_keys", &setup, "'at'", |scene| {
        scene.run(&[
            "UPDATE {} SET k = k + 0.00 WHERE n <= 10",
            "UPDATE {} SET s = upper(s), n = -1 WHERE n BETWEEN 5 AND 15",
            "UPDATE {} SET f = -f WHERE n BETWEEN 20 AND 25",
            "UPDATE {} SET k = k + 0.000, at = at + interval '1 month' WHERE n BETWEEN 30 AND 35",
            "DELETE FROM {} WHERE k = 40.0 AND s = 'KEY40'",
            "INSERT INTO {} SELECT k + 0.0, lower(s), c, -f, at, -5 FROM {} WHERE n BETWEEN 41 AND 45 ON CONFLICT DO NOTHING",
        ]);
        |scene: &mut Scene| assert_eq!(scene.one::<i64>("SELECT count(*) FROM a_partitioned"), 59)
    });
}
