//! `chart()` in psql.

use super::common::{Database, run, sqlstate, texts};

#[test]
fn bars_are_as_long_as_partitions_are_large() {
    let database = Database::new("chart");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE s (on_day date NOT NULL, x text) PARTITION BY RANGE (on_day)",
            "CREATE TABLE s_b PARTITION OF s FOR VALUES FROM ('2025-02-01') TO ('2025-03-01')",
            "CREATE TABLE s_a PARTITION OF s FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "CREATE TABLE s_c PARTITION OF s FOR VALUES FROM ('2025-03-01') TO ('2025-04-01')",
            "CREATE TABLE s_default PARTITION OF s DEFAULT",
            "ALTER TABLE s_b ALTER x SET STORAGE PLAIN",
            "INSERT INTO s SELECT '2025-02-02', repeat('x', 2000) FROM generate_series(1, 2000)",
            "INSERT INTO s SELECT '2025-01-02', repeat('x', 2000) FROM generate_series(1, 1000)",
        ],
    );
    let rows = texts(
        c,
        "SELECT format('%s %s', partition, length(bar)) FROM partition_router.chart('s')",
    );
    // About 40, 20, what is not nothing, and nothing.
    assert_eq!(rows[1], "s_b 40");
    assert!(["s_a 20", "s_a 21"].contains(&rows[0].as_str()), "{rows:?}");
    assert_eq!(rows[3].split(' ').next(), Some("s_default"));
    let drawn = database.program(
        "psql",
        &[
            "-d",
            &database.name,
            "-c",
            "SELECT * FROM partition_router.chart('s')",
        ],
    );
    assert!(drawn.contains("████████"), "{drawn}");
    run(c, &["CREATE TABLE plain (id int)"]);
    assert_eq!(
        sqlstate(c, "SELECT * FROM partition_router.chart('plain')"),
        "0A000"
    );
}
