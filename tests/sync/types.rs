//! Every kind of column.

use super::{Pair, SIDES};
use crate::common::{Database, one, run};

#[test]
fn every_kind_of_value_is_carried_as_it_is() {
    for side in SIDES {
        let mut pair = Pair::new(
            "types",
            &[
                "CREATE DOMAIN money_cents AS bigint CHECK (VALUE >= 0)",
                "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
                "CREATE TYPE place AS (street text, no int)",
                "CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, d timestamp NOT NULL,
                     cents money_cents, m mood, tags text[], p place, r int4range, j jsonb, js json, x xml, b bytea,
                     f float8, nn numeric, iv interval, u uuid, net inet, big text,
                     doubled bigint GENERATED ALWAYS AS (cents * 2) STORED)",
                "INSERT INTO a (d, cents, m, tags, p, r, j, js, b, f, nn, iv, u, net, big)
                 SELECT timestamp '2026-01-01' + g * interval '1 day', g, 'ok', ARRAY['a', NULL, g::text], ('s', g)::place,
                        int4range(g, g + 5), jsonb_build_object('g', g), '{\"b\" : 1}', decode(md5(g::text), 'hex'),
                        CASE g % 3 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' ELSE g / 7.0 END, '1.10', '1 mon', md5(g::text)::uuid, '10.0.0.1',
                        repeat(md5(g::text), 400)
                 FROM generate_series(1, 90) g",
            ],
            "'d'",
        );
        pair.run(&[
            &format!(
                "INSERT INTO {side} (id, d, cents, m, tags, p, r, j, f, nn, big) OVERRIDING SYSTEM VALUE
                 SELECT 1000, '2026-02-01', 5, 'happy', '{{}}', NULL, 'empty', '[1, {{\"a\": null}}]', '-0', 1.100, string_agg(md5(i::text), '')
                 FROM generate_series(1, 20000) i"
            ),
            &format!("INSERT INTO {side} (d, cents) VALUES ('2026-02-02', 9)"),
            &format!("UPDATE {side} SET cents = 10, p.no = 77 WHERE id <= 10"),
            &format!("UPDATE {side} SET d = d + interval '2 months' WHERE id BETWEEN 5 AND 15 OR id = 1000"),
            &format!("UPDATE {side} SET nn = 1.1000, f = 0 WHERE id = 20"),
            &format!("UPDATE {side} SET f = -f WHERE id = 20"),
            &format!("UPDATE {side} SET tags[2] = 'x', m = 'sad' WHERE id = 21"),
        ]);
        assert_eq!(pair.rows(), 92);
        assert_eq!(
            pair.one::<i64>("SELECT sum(doubled)::bigint FROM a_partitioned WHERE id <= 10"),
            200
        );
        assert_eq!(
            pair.one::<i32>("SELECT length(big) FROM a_partitioned WHERE id = 1000"),
            640_000
        );
        assert_eq!(
            pair.one::<String>("SELECT f || ' ' || nn FROM a_partitioned WHERE id = 20"),
            "-0 1.1000"
        );
        assert_eq!(
            pair.one::<String>("SELECT f || ' ' || nn FROM a WHERE id = 20"),
            "-0 1.1000"
        );
    }
}

#[test]
fn dropped_columns_and_fast_defaults_are_copied_and_synced() {
    for side in SIDES {
        let mut pair = Pair::new(
            "shape",
            &[
                "CREATE TABLE a (gone1 text, id int PRIMARY KEY, gone2 int, d date NOT NULL, n int)",
                "INSERT INTO a SELECT 'x', g, g, date '2026-01-01' + g % 80, g FROM generate_series(1, 100) g",
                "ALTER TABLE a DROP COLUMN gone1, DROP COLUMN gone2",
                "ALTER TABLE a ADD COLUMN later text NOT NULL DEFAULT 'fast', ADD COLUMN big numeric DEFAULT 12.50",
                "INSERT INTO a VALUES (101, '2026-01-02', 1, 'own', NULL)",
            ],
            "'d'",
        );
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE later = 'fast' AND big = 12.5"),
            100
        );
        pair.run(&[
            &format!("UPDATE {side} SET n = -1 WHERE id <= 10"),
            &format!("UPDATE {side} SET d = d + 40 WHERE id BETWEEN 5 AND 15"),
            &format!("INSERT INTO {side} (id, d) VALUES (200, '2026-02-02')"),
            &format!("DELETE FROM {side} WHERE id = 50"),
        ]);
        assert_eq!(pair.rows(), 101);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE later = 'fast' AND big = 12.5"),
            100
        );
    }
}

#[test]
fn a_column_added_to_both_sides_in_one_transaction_is_carried() {
    let mut pair = Pair::plain("add_column");
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "BEGIN",
        "ALTER TABLE a ADD COLUMN extra int DEFAULT 7",
        "ALTER TABLE a_partitioned ADD COLUMN extra int DEFAULT 7",
        "UPDATE a SET n = 0 WHERE id = 3",
        "COMMIT",
        "INSERT INTO a VALUES (500, '2026-01-01', 500, 1, 'x', 8)",
        "UPDATE a_partitioned SET extra = 9 WHERE id = 2",
        "UPDATE a SET n = 0 WHERE id = 1",
    ]);
    assert_eq!(pair.rows(), 101);
    assert_eq!(pair.one::<i64>("SELECT sum(extra) FROM a"), 7 * 99 + 8 + 9);
}

#[test]
fn quoted_names_work_everywhere() {
    let database = Database::new("names");
    let mut client = database.connect();
    let (legacy, twin) = (
        "\"Ünï \"\"Q\"\" s\".\"Um Sätze's\"",
        "\"Ünï \"\"Q\"\" s\".\"Um Sätze's_partitioned\"",
    );
    run(
        &mut client,
        &[
            "CREATE SCHEMA \"Ünï \"\"Q\"\" s\"",
            &format!(
                "CREATE TABLE {legacy} (\"Id%\" int PRIMARY KEY, \"Am Tag\" date NOT NULL, \"select\" text)"
            ),
            &format!(
                "INSERT INTO {legacy} SELECT g, date '2026-01-01' + g, 'x' FROM generate_series(1, 50) g"
            ),
            &format!("CALL partition_router.migrate($x${legacy}$x$::regclass, 'Am Tag')"),
        ],
    );
    for side in [legacy, twin] {
        run(
            &mut client,
            &[
                &format!(
                    "UPDATE {side} SET \"Am Tag\" = \"Am Tag\" + 31, \"select\" = 'it''s' WHERE \"Id%\" < 10"
                ),
                &format!("DELETE FROM {side} WHERE \"Id%\" = (SELECT max(\"Id%\") FROM {side})"),
            ],
        );
    }
    assert_eq!(
        one::<i64>(
            &mut client,
            &format!("SELECT count(*) FROM (TABLE {legacy} EXCEPT ALL TABLE {twin}) x")
        ),
        0
    );
    let all_match =
        format!("SELECT bool_and(matches) FROM partition_router.verify($x${twin}$x$::regclass, 'rows')");
    assert!(one::<bool>(&mut client, &all_match));
    assert_eq!(
        one::<i64>(&mut client, &format!("SELECT count(*) FROM {twin}")),
        48
    );
}
