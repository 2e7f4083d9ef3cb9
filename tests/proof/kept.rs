//! Tables too large to be looked at again: `mismatches` and `repair` go by the keys that a failed verify has kept.

use crate::common::{Database, one, plant, run, texts};
use crate::{repaired, told, truth};

const NAMED: &str =
    "SELECT concat_ws(' ', kind, key ->> 'id') FROM partition_router.mismatches('t') ORDER BY 1";

/// A pair whose sides have more than 64 MB together, in few rows.
fn large(name: &str) -> (Database, postgres::Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, v text, n int, big text) WITH (fillfactor = 10)",
            "ALTER TABLE t ALTER big SET STORAGE PLAIN",
            "INSERT INTO t SELECT g, date '2026-01-01' + g % 120, 'v' || g, g, repeat('x', 3900) FROM generate_series(1, 9000) g",
            "CALL partition_router.migrate('t', 'at', premake => 0)",
        ],
    );
    let size: i64 = one(
        &mut client,
        "SELECT (pg_relation_size('t') + sum(pg_relation_size(relid)))::bigint FROM pg_partition_tree('t_partitioned')
         WHERE isleaf",
    );
    assert!(size > 64 << 20, "{size} bytes are looked at again");
    (database, client)
}

#[test]
fn keys_that_a_failed_verify_kept_are_named_as_their_rows_are_now() {
    let (_database, mut client) = large("kept_keys");
    let c = &mut client;
    plant(
        c,
        "t_partitioned",
        &[
            "UPDATE t_partitioned SET n = -1 WHERE id IN (10, 11)",
            "DELETE FROM t_partitioned WHERE id IN (20, 21)",
        ],
    );
    plant(c, "t", &["DELETE FROM t WHERE id IN (30, 31)"]);
    assert!(!told(c));
    assert_eq!(
        texts(c, NAMED),
        [
            "different 10",
            "different 11",
            "extra 30",
            "extra 31",
            "missing 20",
            "missing 21"
        ]
    );
    // What became of some of them since is seen; nothing is named that is equal by now.
    plant(
        c,
        "t_partitioned",
        &[
            "UPDATE t_partitioned SET n = 11 WHERE id = 11",
            "DELETE FROM t_partitioned WHERE id IN (10, 31)",
        ],
    );
    run(c, &["DELETE FROM t WHERE id = 20"]);
    assert_eq!(texts(c, NAMED), ["extra 30", "missing 10", "missing 21"]);
    assert_eq!(repaired(c), (2, 0, 1));
    assert!(truth(c));
    assert_eq!(repaired(c), (0, 0, 0));
    assert!(told(c));
}

#[test]
fn what_differs_since_a_failed_verify_is_found_by_the_next() {
    let (_database, mut client) = large("kept_since");
    let c = &mut client;
    plant(
        c,
        "t_partitioned",
        &["UPDATE t_partitioned SET n = -1 WHERE id = 10"],
    );
    assert!(!told(c));
    plant(c, "t_partitioned", &["DELETE FROM t_partitioned WHERE id = 40"]);
    assert_eq!(texts(c, NAMED), ["different 10"], "the rows of that verify");
    assert!(!told(c));
    assert_eq!(texts(c, NAMED), ["different 10", "missing 40"]);
    // Once mended, the tables are looked at, and no old key.
    plant(c, "t_partitioned", &["DELETE FROM t_partitioned WHERE id = 50"]);
    assert_eq!(repaired(c), (1, 1, 0), "the keys of that verify");
    assert_eq!(texts(c, NAMED), ["missing 50"]);
    assert_eq!(repaired(c), (1, 0, 0));
    assert!(truth(c) && told(c));
}
