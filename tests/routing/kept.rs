//! What stays on the legacy.

use crate::common::{run, sqlstate, texts};
use crate::{Routed, SIDE};

#[test]
fn what_only_the_legacy_can_serve_stays_there() {
    let mut routed = Routed::new("kept");
    let c = &mut routed.client;
    assert_eq!(texts(c, SIDE), ["twin"]);
    run(c, &["CREATE TABLE log (side text)"]);
    for query in [
        "SELECT DISTINCT side FROM (SELECT side FROM revenues WHERE id = 1 FOR UPDATE) s",
        "SELECT side FROM revenues WHERE id = 1 FOR SHARE",
        "SELECT DISTINCT side FROM revenues WHERE ctid IS NOT NULL",
        "SELECT DISTINCT side || (tableoid = 'revenues'::regclass)::text FROM revenues",
        "SELECT DISTINCT side FROM revenues TABLESAMPLE system (100)",
        "SELECT DISTINCT side FROM ONLY revenues",
        "WITH w AS (UPDATE revenues SET amount = amount RETURNING side) SELECT DISTINCT side FROM w",
        "WITH w AS (INSERT INTO log SELECT side FROM revenues RETURNING side) SELECT DISTINCT side FROM w",
    ] {
        let side = texts(c, query).join("");
        assert!(side.starts_with("legacy"), "{query}: {side}");
    }
}

#[test]
fn a_cursor_that_may_be_updated_through_stays_on_the_legacy() {
    let mut routed = Routed::new("current_of");
    let c = &mut routed.client;
    run(
        c,
        &[
            "BEGIN",
            "DECLARE c CURSOR FOR SELECT side FROM revenues WHERE id < 3",
            "CREATE VIEW v AS SELECT side, id FROM revenues",
            "DECLARE d CURSOR FOR SELECT side FROM v",
        ],
    );
    assert_eq!(texts(c, "FETCH 1 FROM c"), ["legacy"]);
    assert_eq!(texts(c, "FETCH 1 FROM d"), ["legacy"]);
    run(
        c,
        &["UPDATE revenues SET amount = 7 WHERE CURRENT OF c", "COMMIT"],
    );
    assert_eq!(texts(c, "SELECT amount::text FROM revenues WHERE id = 1"), ["7"]);
}

#[test]
fn a_cursor_of_a_read_only_transaction_reads_the_twin() {
    let mut routed = Routed::new("read_only_cursor");
    let c = &mut routed.client;
    let declare = "DECLARE c CURSOR FOR SELECT side FROM revenues WHERE id < 3";
    run(
        c,
        &["CREATE FUNCTION opened() RETURNS text LANGUAGE plpgsql AS
           $$ DECLARE p CURSOR FOR SELECT side FROM revenues; found text; BEGIN
              OPEN p; FETCH p INTO found; CLOSE p; RETURN found; END $$"],
    );
    let opened = |c: &mut postgres::Client| texts(c, "SELECT opened()").join("");
    // The plan is cached where the cursor is a read, and where it is not.
    for (begin, wanted) in [("BEGIN READ ONLY", "twin"), ("BEGIN", "legacy")].repeat(7) {
        run(c, &[begin, declare]);
        assert_eq!(texts(c, "FETCH 1 FROM c"), [wanted], "{begin}");
        assert_eq!(opened(c), wanted, "{begin}");
        run(c, &["COMMIT"]);
    }
    // What only a subtransaction may not write, the transaction around it may.
    run(
        c,
        &[
            "BEGIN",
            "SAVEPOINT s",
            "SET LOCAL transaction_read_only = on",
            declare,
            "RELEASE s",
        ],
    );
    assert_eq!(texts(c, "FETCH 1 FROM c"), ["legacy"]);
    run(
        c,
        &["UPDATE revenues SET amount = 8 WHERE CURRENT OF c", "COMMIT"],
    );
    assert_eq!(texts(c, "SELECT amount::text FROM revenues WHERE id = 1"), ["8"]);
}

#[test]
fn the_extension_itself_reads_what_it_names() {
    let mut routed = Routed::new("internal");
    let c = &mut routed.client;
    let differing = texts(c, "SELECT kind FROM partition_router.mismatches('revenues', 3)");
    assert_eq!(differing, ["different", "different", "different"]);
    for level in ["counts", "checksum", "rows"] {
        let verdict = texts(
            c,
            &format!("SELECT bool_and(matches)::text FROM partition_router.verify('revenues', '{level}')"),
        );
        assert_eq!(
            verdict,
            [if level == "counts" { "true" } else { "false" }],
            "{level}"
        );
    }
    run(c, &["SELECT partition_router.repair('revenues')"]);
    assert_eq!(
        texts(c, "SELECT DISTINCT side FROM revenues_partitioned"),
        ["legacy"]
    );
}

#[test]
fn writes_go_where_they_are_sent() {
    let mut routed = Routed::new("writes");
    let c = &mut routed.client;
    run(
        c,
        &[
            "INSERT INTO revenues (org, at, amount, side) VALUES ('x', '2026-02-02', 1, 'new')",
            "UPDATE revenues SET amount = amount + 1 WHERE org = 'x'",
        ],
    );
    for table in ["ONLY revenues", "revenues_partitioned", "revenues"] {
        let rows = texts(c, &format!("SELECT amount::text FROM {table} WHERE org = 'x'"));
        assert_eq!(rows, ["2"], "{table}");
    }
    run(
        c,
        &["DELETE FROM revenues WHERE id IN (SELECT id FROM revenues WHERE org = 'x')"],
    );
    assert!(texts(c, "SELECT id::text FROM revenues WHERE org = 'x'").is_empty());
    assert_eq!(sqlstate(c, "SELECT nothing FROM revenues"), "42703");
}
