//! Every shape of a read finds the twin, and gives what it gives on the legacy.

use crate::common::{one, run, texts};
use crate::{Routed, SIDE};

/// Reads, each of one text, that must be the same on both sides.
const READS: &[&str] = &[
    "SELECT count(*)::text FROM revenues",
    "SELECT sum(a.amount)::text FROM revenues a JOIN revenues b USING (id) WHERE b.org = '3'",
    "SELECT string_agg(x::text, ',' ORDER BY x) FROM (SELECT id FROM revenues WHERE amount < 20) s(x)",
    "WITH w AS (SELECT org, sum(amount) AS s FROM revenues GROUP BY org) SELECT string_agg(w::text, ' ' ORDER BY org) FROM w",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r JOIN revenues ON id = n + 1 WHERE n < 20)
     SELECT max(n)::text FROM r",
    "SELECT string_agg(id::text, ',' ORDER BY id) FROM
     (SELECT id FROM revenues WHERE org = '1' UNION SELECT id FROM revenues WHERE org = '2'
      EXCEPT SELECT id FROM revenues WHERE amount > 100) u",
    "SELECT string_agg(x::text, ',' ORDER BY x) FROM
     (SELECT rank() OVER (PARTITION BY org ORDER BY amount) AS x FROM revenues) s",
    "SELECT string_agg(format('%s:%s', o, l.id), ',' ORDER BY o) FROM generate_series(1, 9) o
     CROSS JOIN LATERAL (SELECT id FROM revenues WHERE org = o::text ORDER BY id DESC LIMIT 1) l",
    "SELECT count(*)::text FROM generate_series(1, 20) g WHERE EXISTS (SELECT FROM revenues r WHERE r.id = g AND r.org > '4')",
    "SELECT (SELECT max(amount) FROM revenues r WHERE r.org = o.org)::text FROM (SELECT '7' AS org) o",
    "SELECT count(*)::text FROM revenues r LEFT JOIN revenues s ON s.id = r.id + 400 WHERE s.id IS NULL",
    "SELECT string_agg(j::text, ',' ORDER BY j::text) FROM (SELECT id, org FROM revenues a NATURAL JOIN revenues b WHERE id < 5) j",
    "SELECT grouping(org)::text || count(*) FROM revenues GROUP BY ROLLUP (org) ORDER BY 1 DESC LIMIT 1",
    "SELECT count(DISTINCT r.org)::text FROM revenues r, revenues_partitioned p WHERE r.id = p.id",
    "SELECT name::text FROM (SELECT min(org) AS name FROM revenues HAVING count(*) > 5) h",
    "SELECT (array_agg(amount ORDER BY amount DESC))[1]::text FROM revenues AS r (i, o, a, amount, s)",
    "SELECT count(*)::text FROM (revenues a JOIN revenues b ON a.id = b.id) AS j WHERE j IS NOT NULL",
    "SELECT count(*)::text FROM revenues WHERE (id, org) IN (SELECT id, org FROM revenues WHERE at < '2026-02-01')",
    "VALUES ((SELECT count(*)::text FROM revenues))",
];

#[test]
fn every_shape_of_a_read_gives_the_same_on_both_sides() {
    let mut routed = Routed::new("shapes");
    routed.run(&["SET partition_router.use_partitioned_tables = off"]);
    let on_legacy: Vec<_> = READS.iter().map(|q| texts(&mut routed.client, q)).collect();
    routed.run(&["SET partition_router.use_partitioned_tables = on"]);
    for (query, expected) in READS.iter().zip(on_legacy) {
        assert_eq!(texts(&mut routed.client, query), expected, "{query}");
        let plan = texts(&mut routed.client, &format!("EXPLAIN {query}")).join("\n");
        assert!(!plan.contains("on revenues "), "{query}: {plan}");
        assert!(
            plan.contains("revenues_2026_01") || plan.contains("revenues_partitioned"),
            "{query}: {plan}"
        );
    }
}

#[test]
fn views_functions_and_copies_read_the_twin() {
    let mut routed = Routed::new("objects");
    let c = &mut routed.client;
    run(
        c,
        &[
            "CREATE VIEW v AS SELECT side, org FROM revenues",
            "CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM revenues WHERE amount > 0",
            "CREATE FUNCTION inlined() RETURNS SETOF revenues LANGUAGE sql STABLE AS 'SELECT * FROM revenues'",
            "CREATE FUNCTION of_org(o text) RETURNS TABLE (side text) LANGUAGE sql STABLE AS
             'SELECT side FROM revenues WHERE org = o'",
            "CREATE FUNCTION volatile_sql() RETURNS SETOF text LANGUAGE sql VOLATILE AS 'SELECT side FROM revenues'",
            "CREATE FUNCTION scalar() RETURNS text LANGUAGE sql STABLE AS 'SELECT DISTINCT side FROM revenues'",
            "CREATE FUNCTION plpgsql() RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT DISTINCT side FROM revenues); END $$",
            "CREATE FUNCTION looped() RETURNS text LANGUAGE plpgsql AS
             $$ DECLARE r revenues; BEGIN FOR r IN SELECT * FROM revenues ORDER BY id LOOP RETURN r.side; END LOOP; END $$",
            "CREATE FUNCTION dynamic() RETURNS text LANGUAGE plpgsql AS
             $$ DECLARE s text; BEGIN EXECUTE 'SELECT DISTINCT side FROM revenues' INTO s; RETURN s; END $$",
            "CREATE MATERIALIZED VIEW m AS SELECT DISTINCT side FROM revenues",
            "CREATE TABLE made AS SELECT DISTINCT side FROM revenues",
        ],
    );
    for (query, who) in [
        ("SELECT DISTINCT side FROM v", "view"),
        ("SELECT DISTINCT side FROM barrier", "security-barrier view"),
        ("SELECT DISTINCT side FROM inlined()", "inlined function"),
        (
            "SELECT DISTINCT side FROM of_org('3')",
            "inlined function with an argument",
        ),
        ("SELECT DISTINCT volatile_sql() AS side", "SQL function"),
        ("SELECT scalar()", "scalar SQL function"),
        ("SELECT plpgsql()", "PL/pgSQL function"),
        ("SELECT looped()", "loop over a query"),
        ("SELECT dynamic()", "dynamic SQL"),
        ("SELECT side FROM m", "materialized view"),
        ("SELECT side FROM made", "CREATE TABLE AS"),
    ] {
        assert_eq!(texts(c, query), ["twin"], "{who}");
    }
    run(
        c,
        &[
            "SET partition_router.use_partitioned_tables = off",
            "REFRESH MATERIALIZED VIEW m",
        ],
    );
    assert_eq!(texts(c, "SELECT side FROM m"), ["legacy"]);
    run(
        c,
        &[
            "SET partition_router.use_partitioned_tables = on",
            "REFRESH MATERIALIZED VIEW m",
        ],
    );
    assert_eq!(texts(c, "SELECT side FROM m"), ["twin"]);
    let mut copied = String::new();
    let mut reader = c
        .copy_out("COPY (SELECT DISTINCT side FROM revenues) TO STDOUT")
        .expect("COPY");
    std::io::Read::read_to_string(&mut reader, &mut copied).expect("rows");
    drop(reader);
    assert_eq!(copied, "twin\n");
}

#[test]
fn partitions_are_pruned_when_planning_and_when_running() {
    let mut routed = Routed::new("pruning");
    let c = &mut routed.client;
    let planned = texts(
        c,
        "EXPLAIN SELECT * FROM revenues WHERE at >= '2026-02-01' AND at < '2026-03-01'",
    )
    .join("\n");
    assert!(
        planned.contains("revenues_2026_02") && !planned.contains("revenues_2026_01"),
        "{planned}"
    );
    run(
        c,
        &[
            "SET plan_cache_mode = force_generic_plan",
            "PREPARE p(timestamp) AS SELECT count(*) FROM revenues WHERE at = $1",
        ],
    );
    let run_time = texts(c, "EXPLAIN EXECUTE p('2026-02-02')").join("\n");
    assert!(run_time.contains("Subplans Removed"), "{run_time}");
}

#[test]
fn a_parallel_plan_reads_the_twin() {
    let mut routed = Routed::new("parallel");
    let c = &mut routed.client;
    run(
        c,
        &[
            "SET parallel_setup_cost = 0",
            "SET parallel_tuple_cost = 0",
            "SET min_parallel_table_scan_size = 0",
        ],
    );
    let plan = texts(
        c,
        "EXPLAIN (ANALYZE, COSTS OFF) SELECT side, count(*) FROM revenues GROUP BY side",
    )
    .join("\n");
    assert!(
        plan.contains("Workers Launched")
            && !plan.contains("Workers Launched: 0")
            && plan.contains("revenues_2026_01"),
        "{plan}"
    );
    assert_eq!(one::<String>(c, SIDE), "twin");
}

#[test]
fn cursors_read_the_twin_and_go_backwards() {
    let mut routed = Routed::new("cursors");
    let c = &mut routed.client;
    run(
        c,
        &[
            "BEGIN",
            "DECLARE sorted SCROLL CURSOR FOR SELECT side FROM revenues ORDER BY id",
            "DECLARE held CURSOR WITH HOLD FOR SELECT side FROM revenues ORDER BY amount",
            "DECLARE fixed INSENSITIVE CURSOR FOR SELECT side FROM revenues",
        ],
    );
    assert_eq!(texts(c, "FETCH FORWARD 2 FROM sorted"), ["twin", "twin"]);
    assert_eq!(texts(c, "FETCH BACKWARD 1 FROM sorted"), ["twin"]);
    assert_eq!(texts(c, "FETCH 1 FROM fixed"), ["twin"]);
    run(c, &["SET LOCAL partition_router.use_partitioned_tables = off"]);
    assert_eq!(
        texts(c, "FETCH 1 FROM sorted"),
        ["twin"],
        "an open cursor goes on where it began"
    );
    run(c, &["COMMIT"]);
    assert_eq!(texts(c, "FETCH 1 FROM held"), ["twin"]);
}

#[test]
fn estimates_come_from_the_twins_statistics() {
    let mut routed = Routed::new("estimates");
    let c = &mut routed.client;
    assert!(
        one::<bool>(
            c,
            "SELECT EXISTS (SELECT FROM pg_stats WHERE tablename = 'revenues_partitioned' AND inherited)"
        ),
        "the twin has statistics when it goes live"
    );
    run(
        c,
        &[
            "VACUUM ANALYZE revenues",
            "VACUUM FULL revenues_partitioned",
            "ANALYZE revenues_partitioned",
        ],
    );
    let rows = |c: &mut postgres::Client| {
        texts(c, "EXPLAIN SELECT FROM revenues WHERE org = '3'")[0]
            .split("rows=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok())
            .expect("an estimate")
    };
    let twin = rows(c);
    run(c, &["SET partition_router.use_partitioned_tables = off"]);
    let legacy = rows(c);
    // Empty partitions count for a row or more each.
    assert!((twin / legacy - 1.0).abs() < 0.5, "{twin} {legacy}");
}
