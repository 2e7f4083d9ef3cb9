//! Rows as a whole have the legacy's type, whatever the twin's columns are.

use crate::Routed;
use crate::common::{run, texts};

#[test]
fn whole_rows_are_of_the_legacys_type() {
    let mut routed = Routed::new("whole_rows");
    let c = &mut routed.client;
    run(
        c,
        &[
            "ALTER TABLE revenues ADD COLUMN note text DEFAULT 'n'",
            "ALTER TABLE revenues DROP COLUMN amount",
            "CREATE FUNCTION takes(r revenues) RETURNS text LANGUAGE sql AS 'SELECT r.id || r.org'",
            "CREATE FUNCTION takes_plpgsql(r revenues) RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN RETURN pg_typeof(r)::text || r.id || r.note; END $$",
            "CREATE VIEW v AS SELECT r, r.id FROM revenues r",
        ],
    );
    let queries = [
        "SELECT r::text FROM revenues r WHERE id < 4 ORDER BY id",
        "SELECT to_jsonb(r)::text FROM revenues r WHERE id < 4 ORDER BY id",
        "SELECT row_to_json(r)::text FROM revenues r WHERE id = 3",
        "SELECT pg_typeof(r)::text FROM revenues r WHERE id = 3",
        "SELECT takes(r) FROM revenues r WHERE id < 4 ORDER BY id",
        "SELECT takes_plpgsql(r) FROM revenues r WHERE id < 4 ORDER BY id",
        "SELECT r.takes FROM revenues r WHERE id = 2",
        "SELECT (r).org FROM (SELECT r FROM revenues r WHERE id < 4) s ORDER BY (r).id",
        "SELECT (r).note FROM v WHERE id < 4 ORDER BY (r).id",
        "SELECT count(r)::text FROM revenues r",
        "SELECT count(*)::text FROM revenues r WHERE r IS NOT NULL",
        "SELECT s::text FROM revenues r LEFT JOIN revenues s ON s.id = r.id + 498 WHERE r.id < 5 ORDER BY r.id",
        "SELECT array_agg(r ORDER BY r.id)::text FROM revenues r WHERE id < 3",
        "SELECT max(r::text) FROM (SELECT r FROM revenues r GROUP BY r) s",
        "SELECT (SELECT r FROM revenues r WHERE r.id = o)::text FROM generate_series(1, 2) o ORDER BY o",
        "SELECT (SELECT to_jsonb(r) FROM (SELECT 1) x)::text FROM revenues r WHERE id = 4",
        "SELECT r::text FROM revenues r WHERE r IN (SELECT s FROM revenues s WHERE s.id = 5)",
        "SELECT jsonb_populate_record(r, '{\"org\": \"z\"}')::text FROM revenues r WHERE id = 6",
        "SELECT x::text FROM revenues r, LATERAL (SELECT r.*) x WHERE r.id = 7",
        "SELECT id || org || note FROM revenues WHERE id = 8",
        "WITH w AS MATERIALIZED (SELECT r FROM revenues r WHERE id < 3) SELECT (r).id || (r).note FROM w ORDER BY 1",
        "SELECT r::text FROM revenues r WHERE id = 1 UNION ALL SELECT r::text FROM revenues r WHERE id = 2 ORDER BY 1",
        "SELECT hash_record(r)::text FROM revenues r WHERE id = 1",
    ];
    // The sides are equal from here on.
    run(c, &["UPDATE revenues SET side = 'both'"]);
    run(c, &["SET partition_router.use_partitioned_tables = off"]);
    let legacy: Vec<_> = queries.iter().map(|q| texts_or_null(c, q)).collect();
    run(c, &["SET partition_router.use_partitioned_tables = on"]);
    for (query, expected) in queries.iter().zip(legacy) {
        assert_eq!(texts_or_null(c, query), expected, "{query}");
        let plan = texts(c, &format!("EXPLAIN {query}")).join("\n");
        assert!(
            plan.contains("revenues_20") || plan.contains("revenues_part"),
            "{query}: {plan}"
        );
    }
}

fn texts_or_null(c: &mut postgres::Client, query: &str) -> Vec<Option<String>> {
    c.query(query, &[])
        .unwrap_or_else(|e| panic!("{query}: {e:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[test]
fn a_result_is_described_as_the_legacys() {
    let mut routed = Routed::new("described");
    let c = &mut routed.client;
    let legacy: u32 = crate::one(c, "SELECT 'revenues'::regclass::oid");
    let described = c.prepare("SELECT id, side, at FROM revenues").expect("prepared");
    let columns: Vec<_> = described
        .columns()
        .iter()
        .map(|column| (column.name().to_string(), column.table_oid(), column.column_id()))
        .collect();
    let expected = [("id", 1), ("side", 6), ("at", 4)].map(|(n, i)| (n.to_string(), Some(legacy), Some(i)));
    assert_eq!(columns, expected);
    let rows = c.query(&described, &[]).expect("rows");
    assert_eq!(rows.len(), 500);
    assert_eq!(rows[0].get::<_, String>("side"), "twin");
}
