//! What is told of routing: the log, the counters, EXPLAIN, and the two functions that explain a query.

use crate::common::{Database, one, run, sqlstate, texts};
use crate::{Routed, SIDE};

fn log_of(database: &Database, marker: &str) -> Vec<String> {
    std::fs::read_to_string(format!("{}/log", database.cluster.directory()))
        .expect("the log")
        .lines()
        .filter(|line| line.contains(marker))
        .filter_map(|line| line.split_once("LOG:  ").or_else(|| line.split_once("DETAIL:  ")))
        .map(|(_, message)| message.to_string())
        .collect()
}

#[test]
fn each_decision_is_a_line_with_tenant_and_reason() {
    let mut routed = Routed::new("line");
    let marker = format!("marker_{}", routed.database.name);
    let c = &mut routed.client;
    run(
        c,
        &[
            "SELECT partition_router.set_rollout('revenues', pilots => '{3}', tenant_column => 'org')",
            &format!("SET application_name = '{marker}'"),
            "SET partition_router.log_partition_routing = on",
            SIDE,
            "SELECT FROM revenues WHERE org = '3'",
            "BEGIN",
            "SET LOCAL partition_router.tenant = 'o''b'",
            "SELECT FROM revenues FOR SHARE",
            "COMMIT",
            "EXPLAIN SELECT FROM revenues",
            "SET partition_router.transparent = off",
            SIDE,
        ],
    );
    assert_eq!(
        log_of(&routed.database, &marker),
        [
            "[PartitionRouting] SELECT - revenues -> revenues_partitioned",
            "Tenant: none. Reason: setting.",
            "[PartitionRouting] SELECT - revenues -> revenues_partitioned",
            "Tenant: 3. Reason: pilot.",
            "[PartitionRouting] SELECT - revenues -> revenues",
            "Tenant: o'b. Reason: the statement locks rows.",
        ]
    );
}

const COUNTS: &str =
    "SELECT concat_ws(' ', legacy, target, reason, decisions) FROM partition_router.routing_stats ORDER BY 1";

#[test]
fn decisions_are_counted_by_table_target_and_reason_across_sessions() {
    let mut routed = Routed::new("counts");
    routed.run(&["SELECT partition_router.reset_routing_stats()"]);
    assert!(texts(&mut routed.client, COUNTS).is_empty());
    for _ in 0..3 {
        assert_eq!(routed.side(), "twin");
    }
    let mut other = Routed::session(&routed.database);
    run(
        &mut other,
        &[
            SIDE,
            "SELECT FROM revenues FOR UPDATE",
            "SELECT partition_router.route('revenues')",
            "SET partition_router.enable_partition_routing = off",
            SIDE,
            "SET partition_router.transparent = off",
            SIDE,
        ],
    );
    let expected = [
        "revenues revenues kill switch 1",
        "revenues revenues the statement locks rows 1",
        "revenues revenues_partitioned setting 5",
    ];
    assert_eq!(texts(&mut routed.client, COUNTS), expected);
    // Another database counts for itself.
    let elsewhere = Database::new("counts_elsewhere");
    assert!(texts(&mut elsewhere.connect(), COUNTS).is_empty());
    routed.run(&["SELECT partition_router.reset_routing_stats()"]);
    assert!(texts(&mut other, COUNTS).is_empty());
    run(&mut other, &["SET partition_router.transparent = on", SIDE]);
    assert_eq!(texts(&mut other, COUNTS), ["revenues revenues kill switch 1"]);
}

#[test]
fn explain_says_that_a_statement_was_routed() {
    let mut routed = Routed::new("explained");
    let c = &mut routed.client;
    let line = |c: &mut postgres::Client, query: &str| {
        texts(c, query)
            .into_iter()
            .find_map(|line| line.strip_prefix("Routing: ").map(str::to_string))
    };
    let routed_line = Some("revenues -> revenues_partitioned (setting)".to_string());
    assert_eq!(line(c, "EXPLAIN SELECT * FROM revenues"), routed_line);
    assert_eq!(line(c, "EXPLAIN ANALYZE SELECT * FROM revenues"), routed_line);
    let kept = Some("revenues -> revenues (the statement locks rows)".to_string());
    assert_eq!(line(c, "EXPLAIN SELECT * FROM revenues FOR UPDATE"), kept);
    assert_eq!(
        line(
            c,
            "EXPLAIN SELECT FROM revenues a, revenues b WHERE a.ctid IS NULL"
        ),
        Some(
            "revenues -> revenues (a system column is read), revenues -> revenues_partitioned (setting)"
                .into()
        )
    );
    assert_eq!(line(c, "EXPLAIN SELECT * FROM pg_class"), None);
    assert_eq!(
        line(c, "EXPLAIN DECLARE x CURSOR FOR SELECT * FROM revenues"),
        Some("revenues -> revenues (an updatable cursor)".into())
    );
    assert_eq!(
        line(c, "EXPLAIN CREATE TABLE y AS SELECT * FROM revenues"),
        routed_line
    );
    run(
        c,
        &["CREATE FUNCTION inner_query() RETURNS bigint LANGUAGE plpgsql AS
           $$ BEGIN RETURN (SELECT count(*) FROM revenues); END $$"],
    );
    assert_eq!(line(c, "EXPLAIN ANALYZE SELECT inner_query()"), None);
    let plan: String = c
        .query_one("EXPLAIN (FORMAT json) SELECT * FROM revenues", &[])
        .map(|row| row.get::<_, postgres::types::Json<serde_json::Value>>(0).0)
        .expect("a plan")[0]["Routing"]
        .to_string();
    assert_eq!(plan, r#"["revenues -> revenues_partitioned (setting)"]"#);
    run(c, &["SET partition_router.transparent = off"]);
    assert_eq!(line(c, "EXPLAIN SELECT * FROM revenues"), None);
}

#[test]
fn explain_of_a_prepared_statement_says_that_it_was_routed() {
    let mut routed = Routed::new("explain_execute");
    let c = &mut routed.client;
    run(
        c,
        &[
            "PREPARE q(int) AS SELECT side FROM revenues WHERE id = $1",
            "PREPARE other AS SELECT 1",
            "PREPARE w AS UPDATE revenues SET amount = amount WHERE id = 1",
        ],
    );
    let line = |c: &mut postgres::Client, query: &str| {
        texts(c, query)
            .into_iter()
            .filter_map(|line| line.strip_prefix("Routing: ").map(str::to_string))
            .collect::<Vec<_>>()
    };
    let to_twin = ["revenues -> revenues_partitioned (setting)"];
    for mode in ["force_custom_plan", "force_generic_plan"] {
        run(c, &[&format!("SET plan_cache_mode = {mode}")]);
        for explain in ["EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN (COSTS off, VERBOSE)"] {
            assert_eq!(line(c, &format!("{explain} EXECUTE q(1)")), to_twin, "{mode}");
        }
        // The statement is what it was: it can be run, and explained again.
        assert_eq!(texts(c, "EXECUTE q(1)"), ["twin"]);
        run(c, &["SET partition_router.use_partitioned_tables = off"]);
        assert_eq!(
            line(c, "EXPLAIN EXECUTE q(1)"),
            ["revenues -> revenues (default)"]
        );
        run(c, &["SET partition_router.use_partitioned_tables = on"]);
    }
    assert_eq!(
        line(c, "EXPLAIN EXECUTE w"),
        ["revenues -> revenues (the statement writes)"]
    );
    assert!(line(c, "EXPLAIN EXECUTE other").is_empty());
    let plan = c
        .query_one("EXPLAIN (FORMAT json) EXECUTE q(2)", &[])
        .map(|row| row.get::<_, postgres::types::Json<serde_json::Value>>(0).0)
        .expect("a plan");
    assert_eq!(plan[0]["Routing"], serde_json::json!(to_twin));
    // Inside of a function its plan is cached, as a tree that nobody may change.
    run(
        c,
        &[
            "CREATE FUNCTION explained() RETURNS SETOF text LANGUAGE plpgsql AS
           $$ DECLARE l text; BEGIN FOR l IN EXPLAIN EXECUTE q(1) LOOP RETURN NEXT l; END LOOP; END $$",
        ],
    );
    for _ in 0..3 {
        assert_eq!(line(c, "SELECT explained()"), to_twin);
    }
    assert_eq!(sqlstate(c, "EXPLAIN EXECUTE missing"), "26000");
    assert_eq!(sqlstate(c, "EXPLAIN ANALYZE EXECUTE q('x')"), "22P02");
    assert_eq!(sqlstate(c, "EXPLAIN EXECUTE q"), "42601");
    assert_eq!(routed.side(), "twin");
}

#[test]
fn an_explain_that_fails_leaves_nothing_behind() {
    let mut routed = Routed::new("explain_fails");
    let c = &mut routed.client;
    assert_eq!(
        sqlstate(c, "EXPLAIN ANALYZE SELECT 1 / (id - 1) FROM revenues"),
        "22012"
    );
    assert_eq!(routed.side(), "twin");
    let c = &mut routed.client;
    run(
        c,
        &[
            "DO $$ BEGIN EXECUTE 'EXPLAIN ANALYZE SELECT 1 / (id - 1) FROM revenues';
             EXCEPTION WHEN division_by_zero THEN PERFORM count(*) FROM revenues; END $$",
        ],
    );
    assert_eq!(routed.side(), "twin");
}

#[test]
fn a_query_can_be_asked_about_without_running_it() {
    let mut routed = Routed::new("asked_about");
    let c = &mut routed.client;
    run(
        c,
        &[
            "SELECT partition_router.set_rollout('revenues', pilots => '{3}', excluded => '{4}', tenant_column => 'org')",
            "CREATE VIEW v AS SELECT * FROM revenues",
        ],
    );
    let ask = |c: &mut postgres::Client, query: &str| -> Vec<String> {
        c.query(
            "SELECT concat_ws('|', relation, target, tenant, reason) FROM partition_router.explain_route_query($1)",
            &[&query],
        )
        .unwrap_or_else(|e| panic!("{query}: {e:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect()
    };
    for (query, expected) in [
        ("SELECT * FROM revenues", "revenues|revenues_partitioned|setting"),
        (
            "SELECT * FROM v WHERE org = '3'",
            "revenues|revenues_partitioned|3|pilot",
        ),
        (
            "SELECT * FROM revenues WHERE org = '4'",
            "revenues|revenues|4|excluded",
        ),
        (
            "SELECT * FROM revenues WHERE org = $1",
            "revenues|revenues_partitioned|setting",
        ),
        (
            "SELECT * FROM revenues FOR UPDATE",
            "revenues|revenues|the statement locks rows",
        ),
        (
            "SELECT xmin FROM revenues",
            "revenues|revenues|a system column is read",
        ),
        (
            "SELECT * FROM revenues TABLESAMPLE system (1)",
            "revenues|revenues|TABLESAMPLE",
        ),
        ("SELECT * FROM ONLY revenues", "revenues|revenues|ONLY"),
        ("DELETE FROM revenues", "revenues|revenues|the statement writes"),
        (
            "INSERT INTO log SELECT id FROM revenues",
            "revenues|revenues|the statement writes",
        ),
        (
            "DECLARE c CURSOR FOR SELECT * FROM revenues",
            "revenues|revenues|an updatable cursor",
        ),
        (
            "DECLARE c CURSOR FOR SELECT * FROM revenues ORDER BY id",
            "revenues|revenues_partitioned|setting",
        ),
        (
            "CREATE TABLE x AS SELECT * FROM revenues",
            "revenues|revenues_partitioned|setting",
        ),
        (
            "EXPLAIN SELECT * FROM revenues",
            "revenues|revenues_partitioned|setting",
        ),
    ] {
        run(c, &["CREATE TABLE IF NOT EXISTS log (id int)"]);
        assert_eq!(ask(c, query), [expected], "{query}");
    }
    let two = "SELECT * FROM revenues a JOIN revenues b USING (id) WHERE b.org = '4'";
    assert_eq!(
        ask(c, two),
        [
            "revenues|revenues_partitioned|setting",
            "revenues|revenues|4|excluded"
        ]
    );
    assert!(ask(c, "SELECT * FROM pg_class").is_empty());
    assert!(ask(c, "VACUUM revenues").is_empty());
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM revenues"),
        500,
        "the DELETE was not run"
    );
    run(c, &["SET partition_router.transparent = off"]);
    assert_eq!(
        ask(c, "SELECT * FROM revenues"),
        ["revenues|revenues|transparent is off"]
    );
    assert_eq!(
        sqlstate(c, "SELECT partition_router.explain_route_query('SELEC')"),
        "42601"
    );
}

#[test]
fn both_plans_of_a_query_can_be_compared() {
    let mut routed = Routed::new("compared");
    let c = &mut routed.client;
    run(
        c,
        &[
            "SET partition_router.transparent = off",
            "SET partition_router.use_partitioned_tables = off",
        ],
    );
    let compared = texts(
        c,
        "SELECT concat_ws(' ', side, row_count, partitions, cost > 0, milliseconds > 0, buffers_hit + buffers_read > 0)
         FROM partition_router.compare_plans($$SELECT * FROM revenues WHERE at < '2026-03-01' AND at >= '2026-02-01'$$)",
    );
    let february: i64 = one(
        c,
        "SELECT count(*) FROM revenues WHERE at < '2026-03-01' AND at >= '2026-02-01'",
    );
    assert_eq!(
        compared,
        [
            format!("legacy {february} 0 t t t"),
            format!("twin {february} 1 t t t")
        ]
    );
    for refused in [
        "DELETE FROM revenues",
        "SELECT * INTO x FROM revenues",
        "SELECT 1; DROP TABLE revenues",
        "WITH w AS (DELETE FROM revenues RETURNING id) SELECT * FROM w",
        "EXPLAIN SELECT 1",
        "",
    ] {
        let call = format!("SELECT partition_router.compare_plans($q${refused}$q$)");
        assert_eq!(sqlstate(c, &call), "0A000", "{refused}");
    }
    let failing = "SELECT partition_router.compare_plans('SELECT 1 / (id - 1) FROM revenues')";
    assert_eq!(sqlstate(c, failing), "22012");
    assert_eq!(
        one::<String>(c, SIDE),
        "legacy",
        "nothing is left of what the comparison asked for"
    );
}
