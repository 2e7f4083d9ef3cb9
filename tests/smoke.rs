//! The five-minute tour, as a test.

mod common;

use common::{Database, assert_equal_sides, one, run};

#[test]
fn migrate_ends_live_and_proven_equal() {
    let database = Database::new("migrate");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE revenues (id serial PRIMARY KEY, occurred_at timestamp NOT NULL, amount int)",
            "INSERT INTO revenues (occurred_at, amount)
             SELECT timestamp '2026-01-15' + g % 200 * interval '1 day', g FROM generate_series(1, 5000) g",
            "CALL partition_router.migrate('revenues', 'occurred_at')",
            "INSERT INTO revenues (occurred_at, amount) VALUES ('2026-03-03', 1), ('2031-01-01', 2)",
            "UPDATE revenues SET occurred_at = '2026-09-09' WHERE id = 7",
            "DELETE FROM revenues_partitioned WHERE id = 8",
        ],
    );
    assert_equal_sides(
        &mut client,
        "revenues",
        "revenues_partitioned",
        "id, occurred_at, amount",
    );
    assert_eq!(
        one::<String>(&mut client, "SELECT phase FROM partition_router.status"),
        "live"
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM revenues"), 5001);
}
