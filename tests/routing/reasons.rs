//! What keeps a read on the legacy is kept, and counted and told under its name.

use crate::common::{run, texts};
use crate::{Routed, SIDE};
use postgres::Client;

/// The reasons of what was decided since the last look, but for the statements that write.
fn reasons(c: &mut Client) -> Vec<String> {
    let reasons = texts(
        c,
        "SELECT DISTINCT reason FROM partition_router.routing_stats WHERE reason <> 'the statement writes' ORDER BY reason",
    );
    run(c, &["SELECT partition_router.reset_routing_stats()"]);
    reasons
}

/// The line of EXPLAIN.
fn explained(c: &mut Client) -> String {
    texts(c, "EXPLAIN SELECT side FROM revenues")
        .into_iter()
        .find(|line| line.starts_with("Routing: "))
        .expect("a line")
}

#[test]
fn a_twin_with_other_columns_is_not_read() {
    let mut routed = Routed::new("columns");
    let c = &mut routed.client;
    run(
        c,
        &[
            "SET partition_router.carry_ddl = off",
            "SET plan_cache_mode = force_generic_plan",
            "PREPARE p AS SELECT DISTINCT side FROM revenues",
            "SELECT partition_router.reset_routing_stats()",
        ],
    );
    for (there, back) in [
        (
            "ALTER TABLE revenues ADD extra int",
            "ALTER TABLE revenues DROP extra",
        ),
        (
            "ALTER TABLE revenues_partitioned RENAME amount TO cents",
            "ALTER TABLE revenues_partitioned RENAME cents TO amount",
        ),
        (
            "ALTER TABLE revenues_partitioned ALTER amount TYPE bigint",
            "ALTER TABLE revenues_partitioned ALTER amount TYPE int",
        ),
    ] {
        assert_eq!(texts(c, SIDE), ["twin"], "{there}");
        assert_eq!(texts(c, "EXECUTE p"), ["twin"], "{there}");
        assert_eq!(reasons(c), ["setting"], "{there}");
        run(c, &[there]);
        // Planned before and planned now.
        assert_eq!(texts(c, "EXECUTE p"), ["legacy"], "{there}");
        assert_eq!(texts(c, SIDE), ["legacy"], "{there}");
        assert_eq!(reasons(c), ["the columns differ"], "{there}");
        assert_eq!(explained(c), "Routing: revenues -> revenues (the columns differ)");
        let told = "SELECT reason FROM partition_router.explain_route_query('SELECT side FROM revenues')";
        assert_eq!(texts(c, told), ["the columns differ"], "{there}");
        run(c, &[back]);
        reasons(c);
    }
    assert_eq!(texts(c, "EXECUTE p"), ["twin"]);
    assert_eq!(texts(c, SIDE), ["twin"]);
}

#[test]
fn a_write_under_way_is_told() {
    let mut routed = Routed::new("under_way");
    let c = &mut routed.client;
    run(
        c,
        &[
            "CREATE FUNCTION side_now() RETURNS text LANGUAGE plpgsql VOLATILE AS
             $$ BEGIN RETURN (SELECT side FROM revenues WHERE id = 1); END $$",
            "SELECT partition_router.reset_routing_stats()",
        ],
    );
    assert_eq!(texts(c, "SELECT side_now()"), ["twin"]);
    assert_eq!(reasons(c), ["setting"]);
    // The first row is made before anything is written.
    let insert = "INSERT INTO revenues (org, at, side) SELECT 'x', '2026-01-05', side_now() FROM generate_series(1, 2) RETURNING side";
    assert_eq!(texts(c, insert), ["twin", "legacy"]);
    assert_eq!(reasons(c), ["a write is under way", "setting"]);
    let update = "UPDATE revenues SET side = side_now() WHERE id IN (2, 3) RETURNING side";
    run(c, &["BEGIN", "SELECT pg_current_xact_id()"]);
    assert_eq!(texts(c, update), ["legacy", "legacy"]);
    run(c, &["COMMIT"]);
    assert_eq!(reasons(c), ["a write is under way"]);
}

#[test]
fn a_truncate_in_the_transaction_is_told() {
    let mut routed = Routed::new("truncated");
    let c = &mut routed.client;
    run(
        c,
        &[
            "SELECT partition_router.reset_routing_stats()",
            "BEGIN",
            "TRUNCATE revenues",
        ],
    );
    assert!(texts(c, SIDE).is_empty());
    assert_eq!(
        explained(c),
        "Routing: revenues -> revenues (truncated in this transaction)"
    );
    run(c, &["ROLLBACK"]);
    assert_eq!(reasons(c), ["truncated in this transaction"]);
    assert_eq!(texts(c, SIDE), ["twin"]);
    assert_eq!(reasons(c), ["setting"]);
}

#[test]
fn a_twin_that_is_gone_is_told() {
    let mut routed = Routed::new("gone");
    let c = &mut routed.client;
    let mut other = routed.database.connect();
    run(
        c,
        &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT FROM pg_class"],
    );
    run(&mut other, &["SELECT partition_router.abandon('revenues')"]);
    run(&mut other, &["SELECT partition_router.reset_routing_stats()"]);
    assert_eq!(
        texts(c, "SELECT partition_router.route('revenues')::text"),
        ["revenues"]
    );
    assert_eq!(reasons(c), ["the twin is gone"]);
    assert_eq!(
        texts(c, "SELECT reason FROM partition_router.explain_route('revenues')"),
        ["the twin is gone"]
    );
    assert_eq!(texts(c, SIDE), ["legacy"]);
    run(c, &["COMMIT"]);
}
