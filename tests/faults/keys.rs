//! Keys that compare as equal and differ in their bytes, and keys that no float holds.

use crate::common::{Database, one, plant, run};
use postgres::Client;

const TABLE: &[&str] = &[
    "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "CREATE EXTENSION citext",
    "CREATE TABLE k (n numeric, s text COLLATE nocase, c char(6), ci citext, f float8, ts timestamptz, u uuid, at date NOT NULL, v int,
        PRIMARY KEY (n, s, c, ci, f, ts, u))",
    "INSERT INTO k SELECT g + 12345678901234567890.125, 'Key ' || g, 'c' || g, 'Ci ' || g, CASE g % 3 WHEN 0 THEN 0 WHEN 1 THEN g / 7.0 ELSE 'NaN' END,
        CASE g % 4 WHEN 0 THEN 'infinity' ELSE timestamptz '2026-01-01 12:34:56.789123+02' + g * interval '1 microsecond' END,
        md5(g::text)::uuid, date '2026-01-01' + g % 90, g FROM generate_series(1, 120) g",
    "CALL partition_router.migrate('k', 'at', premake => 0)",
];

/// Kind, the value that tells a row, columns.
fn named(client: &mut Client) -> Vec<(String, Option<i32>, Vec<String>)> {
    let rows = client
        .query(
            "SELECT kind, COALESCE(legacy ->> 'v', twin ->> 'v')::int, columns FROM partition_router.mismatches('k', 1000)
             ORDER BY 2, 1",
            &[],
        )
        .expect("mismatches can be called");
    let columns = |row: &postgres::Row| {
        let mut columns = row.get::<_, Option<Vec<String>>>(2).unwrap_or_default();
        columns.sort();
        columns
    };
    rows.iter()
        .map(|row| (row.get(0), row.get(1), columns(row)))
        .collect()
}

#[test]
fn a_key_that_is_equal_in_other_bytes_is_a_row_that_differs() {
    let database = Database::new("keys");
    let mut client = database.connect();
    let c = &mut client;
    run(c, TABLE);
    plant(
        c,
        "k_partitioned",
        &[
            "UPDATE k_partitioned SET n = n + 0.00000 WHERE v = 1",
            "UPDATE k_partitioned SET s = upper(s) WHERE v = 2",
            "UPDATE k_partitioned SET ci = upper(ci::text) WHERE v = 4",
            "UPDATE k_partitioned SET f = '-0' WHERE v = 3",
            "UPDATE k_partitioned SET n = n + 0.0000, ci = lower(ci::text), v = v WHERE v = 12",
            "UPDATE k_partitioned SET v = 1000 + v WHERE v IN (20, 21, 24)",
            "DELETE FROM k_partitioned WHERE v IN (30, 31, 32)",
        ],
    );
    plant(c, "k", &["DELETE FROM k WHERE v IN (40, 41, 44)"]);
    let strings = |columns: &[&str]| columns.iter().map(|c| c.to_string()).collect::<Vec<_>>();
    let mut expected = vec![
        ("different".to_string(), Some(1), strings(&["n"])),
        ("different".to_string(), Some(2), strings(&["s"])),
        ("different".to_string(), Some(3), strings(&["f"])),
        ("different".to_string(), Some(4), strings(&["ci"])),
        ("different".to_string(), Some(12), strings(&["ci", "n"])),
    ];
    expected.extend([20, 21, 24].map(|v| ("different".to_string(), Some(v), strings(&["v"]))));
    expected.extend([30, 31, 32].map(|v| ("missing".to_string(), Some(v), vec![])));
    expected.extend([40, 41, 44].map(|v| ("extra".to_string(), Some(v), vec![])));
    assert_eq!(named(c), expected);
    let repair = |c: &mut Client, dry: bool| -> String {
        one(
            c,
            &format!(
                "SELECT concat_ws(' ', inserted, updated, deleted) FROM partition_router.repair('k', {dry})"
            ),
        )
    };
    assert_eq!(repair(c, true), "3 8 3");
    assert_eq!(repair(c, false), "3 8 3");
    assert_eq!(named(c), []);
    assert_eq!(repair(c, false), "0 0 0");
    let equal: i64 = one(
        c,
        "SELECT count(*) FROM k l FULL JOIN k_partitioned t USING (v) WHERE l.n IS NULL OR t.n IS NULL
         OR record_image_ne(ROW(l.n, l.s, l.c, l.ci, l.f, l.ts, l.u, l.at), ROW(t.n, t.s, t.c, t.ci, t.f, t.ts, t.u, t.at))",
    );
    assert_eq!(equal, 0);
    assert!(one::<bool>(
        c,
        "SELECT bool_and(matches) FROM partition_router.verify('k', 'rows')"
    ));
}

#[test]
fn a_row_that_lies_in_a_partition_that_is_not_its_own_is_found() {
    let database = Database::new("misplaced");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE k (id int PRIMARY KEY, at date NOT NULL, v int)",
            "INSERT INTO k SELECT g, date '2026-01-01' + g % 59, g FROM generate_series(1, 200) g",
            "CALL partition_router.migrate('k', 'at', premake => 0)",
            "SET partition_router.carry_ddl = off",
            // What only a superuser can do who takes an unproven constraint for proven: the attached table is not read.
            "ALTER TABLE k_partitioned DETACH PARTITION k_2026_02",
            "ALTER TABLE k_2026_01 DISABLE TRIGGER USER",
            "ALTER TABLE k_2026_02 DISABLE TRIGGER USER",
            "DELETE FROM k_2026_01 WHERE id = 60",
            "INSERT INTO k_2026_02 SELECT 60, date '2026-01-01' + 60 % 59, 60",
            "ALTER TABLE k_2026_02 ADD CONSTRAINT fits CHECK (at >= '2026-02-01' AND at < '2026-03-01' AND at IS NOT NULL) NOT VALID",
            "UPDATE pg_constraint SET convalidated = true WHERE conname = 'fits'",
            "ALTER TABLE k_partitioned ATTACH PARTITION k_2026_02 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')",
            "RESET partition_router.carry_ddl",
        ],
    );
    // Both sides hold the same multiset of rows, and reads of January would miss one.
    let totals: bool = one(
        c,
        "SELECT (SELECT count(*) FROM k) = (SELECT count(*) FROM k_partitioned)",
    );
    assert!(totals);
    let differing: Vec<String> = crate::common::texts(
        c,
        "SELECT concat_ws(' ', partition, legacy_rows - twin_rows) FROM partition_router.verify('k') WHERE NOT matches ORDER BY 1",
    );
    assert_eq!(differing, ["k_2026_01 1", "k_2026_02 -1"]);
}

#[test]
fn true_duplicates_in_pairs_do_not_cancel() {
    let database = Database::new("duplicates");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE k (id int PRIMARY KEY, at date NOT NULL, v int)",
            "INSERT INTO k SELECT g, '2026-01-01', g FROM generate_series(1, 50) g",
            "CALL partition_router.migrate('k', 'at', premake => 0)",
        ],
    );
    // Twice one row in the place of two others, behind the back of the index: the count is right, and so is any XOR of two.
    plant(
        c,
        "k_2026_01",
        &[
            "DELETE FROM k_2026_01 WHERE id IN (7, 8)",
            "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'k_2026_01_pkey'::regclass",
            "INSERT INTO k_2026_01 VALUES (9, '2026-01-01', 9), (9, '2026-01-01', 9)",
            "UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'k_2026_01_pkey'::regclass",
        ],
    );
    let row = c
        .query_one(
            "SELECT legacy_rows, twin_rows, matches FROM partition_router.verify('k') WHERE legacy_rows > 0",
            &[],
        )
        .expect("verify can be called");
    assert_eq!((row.get(0), row.get(1), row.get(2)), (50i64, 50i64, false));
}
