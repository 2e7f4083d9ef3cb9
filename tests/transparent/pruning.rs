//! What PostgreSQL's own regression tests ask of partition pruning, partitionwise joins and partitionwise aggregates, asked
//! of pairs: routed, each query answers as it does on the legacy, and scans the partitions that the same query written
//! against the twin scans.

use crate::common::{Database, is_stress, one, run, texts};
use crate::marked::ROUTED;
use crate::ways::rows_of;
use postgres::Client;
use std::collections::BTreeSet;

/// Pairs of every strategy: `numbers` (RANGE by int), `months` (RANGE by time), `words` (LIST), `hashed` (HASH), and
/// `others`, which has the key ranges of `numbers`.
const TABLES: &[&str] = &[
    "CREATE TABLE numbers (a int PRIMARY KEY, b int, c text)",
    "INSERT INTO numbers SELECT g, g % 25, to_char(g % 12, 'FM0000') FROM generate_series(0, 299) g",
    "CREATE TABLE others (a int PRIMARY KEY, b int, c text)",
    "INSERT INTO others SELECT g, g % 25, to_char(g % 8, 'FM0000') FROM generate_series(0, 299, 3) g",
    "CREATE TABLE months (id int PRIMARY KEY, at timestamp NOT NULL, n int)",
    "INSERT INTO months SELECT g, timestamp '2026-01-01' + g * interval '7 hours', g % 10 FROM generate_series(0, 599) g",
    "CREATE TABLE words (id int, w text NOT NULL, n int, PRIMARY KEY (id, w))",
    "INSERT INTO words SELECT g, (ARRAY['ab', 'cd', 'ef', 'gh'])[1 + g % 4], g % 7 FROM generate_series(0, 199) g",
    "CREATE TABLE hashed (id int PRIMARY KEY, n int, t text)",
    "INSERT INTO hashed SELECT g, g % 11, 'row ' || g FROM generate_series(0, 299) g",
    "CREATE TABLE wanted (a int, at timestamp, w text)",
    "INSERT INTO wanted VALUES (5, '2026-01-05', 'ab'), (6, '2026-01-06', 'cd'), (119, '2026-02-11', NULL), (NULL, NULL, 'zz')",
];

const MIGRATE: &[&str] = &[
    "CALL partition_router.migrate('numbers', 'a', 'range', '50')",
    "CALL partition_router.migrate('others', 'a', 'range', '50')",
    "CALL partition_router.migrate('months', 'at')",
    "CALL partition_router.migrate('words', 'w', 'list')",
    "CALL partition_router.migrate('hashed', 'id', 'hash', partitions => 4)",
    "CREATE INDEX ON numbers (b)",
    "CREATE FUNCTION steady(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END'",
    "CREATE FUNCTION unsteady(int) RETURNS int LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN $1; END'",
    "CREATE FUNCTION fixed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'",
];

/// Pairs of these queries are written `{numbers}` and so on.
const QUERIES: &[&str] = &[
    // One key and constants.
    "SELECT * FROM {numbers} x",
    "SELECT * FROM {numbers} x WHERE a = 7",
    "SELECT * FROM {numbers} x WHERE 7 = a",
    "SELECT * FROM {numbers} x WHERE a < 50",
    "SELECT * FROM {numbers} x WHERE a <= 50",
    "SELECT * FROM {numbers} x WHERE a > 249",
    "SELECT * FROM {numbers} x WHERE a > 299",
    "SELECT * FROM {numbers} x WHERE a BETWEEN 40 AND 60",
    "SELECT * FROM {numbers} x WHERE a NOT BETWEEN 40 AND 260",
    "SELECT * FROM {numbers} x WHERE a IN (1, 120, 121)",
    "SELECT * FROM {numbers} x WHERE a = ANY (ARRAY[1, 51, NULL])",
    "SELECT * FROM {numbers} x WHERE a = ALL (ARRAY[51, 51])",
    "SELECT * FROM {numbers} x WHERE a <> ALL (ARRAY[1, 2])",
    "SELECT * FROM {numbers} x WHERE a = 1 OR a = 200",
    "SELECT * FROM {numbers} x WHERE a = 1 OR b = 3",
    "SELECT * FROM {numbers} x WHERE (a = 1 AND b = 1) OR (a = 200 AND c = '0001')",
    "SELECT * FROM {numbers} x WHERE a < 20 AND a > 10 AND a <> 15",
    "SELECT * FROM {numbers} x WHERE a = 5 AND a = 6",
    "SELECT * FROM {numbers} x WHERE a > 100 AND a < 90",
    "SELECT * FROM {numbers} x WHERE a IS NULL",
    "SELECT * FROM {numbers} x WHERE a IS NOT NULL",
    "SELECT * FROM {numbers} x WHERE NOT (a >= 50)",
    "SELECT * FROM {numbers} x WHERE a::bigint = 7",
    "SELECT * FROM {numbers} x WHERE a = 7::bigint",
    "SELECT * FROM {numbers} x WHERE a = 7.0",
    "SELECT * FROM {numbers} x WHERE a + 0 = 7",
    "SELECT * FROM {numbers} x WHERE a = 3 + 4",
    "SELECT * FROM {numbers} x WHERE a = NULL",
    "SELECT * FROM {numbers} x WHERE false",
    "SELECT * FROM {numbers} x WHERE a = 7 AND false",
    "SELECT * FROM {numbers} x WHERE a < fixed(40)",
    "SELECT * FROM {numbers} x WHERE a < steady(40)",
    "SELECT * FROM {numbers} x WHERE a < unsteady(40)",
    "SELECT * FROM {numbers} x WHERE b = 3",
    "SELECT a FROM {numbers} x WHERE b = 3 AND a < 100 ORDER BY a",
    "SELECT * FROM {numbers} x ORDER BY a LIMIT 5",
    "SELECT * FROM {numbers} x ORDER BY a DESC LIMIT 5",
    "SELECT max(a), min(a) FROM {numbers} x",
    "SELECT max(a) FROM {numbers} x WHERE a < 70",
    // Time.
    "SELECT * FROM {months} x WHERE at >= '2026-02-01' AND at < '2026-03-01'",
    "SELECT * FROM {months} x WHERE at >= timestamp '2026-02-01' AND at < timestamp '2026-02-01' + interval '1 month'",
    "SELECT * FROM {months} x WHERE at = '2026-01-01'",
    "SELECT * FROM {months} x WHERE at < timestamptz '2026-02-10 00:00+00'",
    "SELECT * FROM {months} x WHERE at < date '2026-02-10'",
    "SELECT * FROM {months} x WHERE at > now()::timestamp + interval '100 years'",
    "SELECT date_trunc('month', at), count(*) FROM {months} x WHERE at >= '2026-02-01' GROUP BY 1",
    "SELECT * FROM {months} x WHERE at IN ('2026-01-01', '2026-05-05')",
    "SELECT * FROM {months} x WHERE at > (SELECT max(at) FROM wanted)",
    "SELECT * FROM {months} x WHERE at = (SELECT '2026-01-08'::timestamp)",
    // Lists.
    "SELECT * FROM {words} x WHERE w = 'ab'",
    "SELECT * FROM {words} x WHERE w <> 'ab'",
    "SELECT * FROM {words} x WHERE w IN ('ab', 'gh')",
    "SELECT * FROM {words} x WHERE w NOT IN ('ab', 'cd')",
    "SELECT * FROM {words} x WHERE w > 'cd'",
    "SELECT * FROM {words} x WHERE w = 'zz'",
    "SELECT * FROM {words} x WHERE w = 'ab' COLLATE \"POSIX\"",
    "SELECT * FROM {words} x WHERE w LIKE 'a%'",
    "SELECT * FROM {words} x WHERE w IS NULL OR w = 'cd'",
    "SELECT w, count(*) FROM {words} x GROUP BY w HAVING w < 'ef'",
    // Hashes.
    "SELECT * FROM {hashed} x WHERE id = 7",
    "SELECT * FROM {hashed} x WHERE id IN (7, 8)",
    "SELECT * FROM {hashed} x WHERE id < 7",
    "SELECT * FROM {hashed} x WHERE id = 7 OR id = 100",
    "SELECT * FROM {hashed} x WHERE id IS NULL",
    "SELECT * FROM {hashed} x WHERE id = 7 AND n = 7",
    // At run time: nested loops, subqueries, LATERAL.
    "SELECT * FROM wanted w JOIN {numbers} x ON x.a = w.a",
    "SELECT * FROM wanted w LEFT JOIN {numbers} x ON x.a = w.a",
    "SELECT * FROM {numbers} x WHERE a IN (SELECT a FROM wanted)",
    "SELECT * FROM {numbers} x WHERE a = (SELECT max(a) FROM wanted)",
    "SELECT * FROM {numbers} x WHERE a < (SELECT min(a) FROM wanted) AND b = 1",
    "SELECT * FROM {numbers} x WHERE EXISTS (SELECT FROM wanted w WHERE w.a = x.a)",
    "SELECT * FROM {numbers} x WHERE NOT EXISTS (SELECT FROM wanted w WHERE w.a = x.a) AND a < 10",
    "SELECT * FROM wanted w, LATERAL (SELECT * FROM {numbers} x WHERE x.a = w.a + 1) y",
    "SELECT (SELECT c FROM {numbers} x WHERE x.a = w.a) FROM wanted w",
    "SELECT * FROM wanted w JOIN {months} x ON x.at = w.at",
    "SELECT * FROM wanted w JOIN {words} x ON x.w = w.w",
    "SELECT * FROM wanted w JOIN {hashed} x ON x.id = w.a",
    "WITH k AS MATERIALIZED (SELECT 5 AS a) SELECT * FROM {numbers} x WHERE a = (SELECT a FROM k)",
    // Joins of pairs, also partitionwise.
    "SELECT * FROM {numbers} x JOIN {others} y ON x.a = y.a",
    "SELECT * FROM {numbers} x JOIN {others} y USING (a) WHERE x.a < 60",
    "SELECT * FROM {numbers} x LEFT JOIN {others} y ON x.a = y.a WHERE x.b = 0",
    "SELECT * FROM {numbers} x RIGHT JOIN {others} y ON x.a = y.a WHERE y.b = 0",
    "SELECT * FROM (SELECT * FROM {numbers} n WHERE n.b = 0) x FULL JOIN (SELECT * FROM {others} o WHERE o.b = 0) y ON x.a = y.a",
    "SELECT * FROM {numbers} x WHERE x.a IN (SELECT y.a FROM {others} y WHERE y.b = 0)",
    "SELECT * FROM {numbers} x WHERE NOT EXISTS (SELECT FROM {others} y WHERE y.a = x.a) AND x.b = 0",
    "SELECT x.a, y.b, z.c FROM {numbers} x, {others} y, {numbers} z WHERE x.a = y.a AND y.a = z.a AND z.b = 0",
    "SELECT x.a, l.a FROM {numbers} x LEFT JOIN LATERAL (SELECT y.a, z.b FROM {others} y JOIN {numbers} z ON y.a = z.a) l ON x.a = l.a WHERE x.b = 0",
    "SELECT x.a FROM {numbers} x, {numbers} y WHERE x.a = y.b AND x.a < 3",
    "SELECT count(*) FROM {numbers} x JOIN {hashed} y ON x.a = y.id",
    // Aggregates, also partitionwise.
    "SELECT a, sum(b), avg(b)::numeric(10,2), count(*) FROM {numbers} x GROUP BY a HAVING avg(b) < 3",
    "SELECT c, sum(a), count(*) FROM {numbers} x GROUP BY c",
    "SELECT c FROM {numbers} x GROUP BY c ORDER BY 1",
    "SELECT c, a, count(*) FROM {numbers} x GROUP BY GROUPING SETS ((c, a), (c)) HAVING count(*) > 2",
    "SELECT y.c, count(*) FROM {numbers} x JOIN {others} y ON x.a = y.a GROUP BY y.c",
    "SELECT w, sum(n) FROM {words} x GROUP BY w",
    "SELECT id, count(*) FROM {hashed} x WHERE id < 9 GROUP BY id",
    "SELECT count(*) FROM {months} x WHERE at >= '2026-03-01'",
    "SELECT sum(a) OVER (PARTITION BY c ORDER BY a) FROM {numbers} x WHERE a < 30",
    "SELECT DISTINCT c FROM {numbers} x WHERE a > 270",
    // Sets.
    "SELECT a FROM {numbers} x WHERE a < 3 UNION ALL SELECT a FROM {others} y WHERE a > 295",
    "SELECT a FROM {numbers} x WHERE a < 60 INTERSECT SELECT a FROM {others} y WHERE a < 20",
    "SELECT * FROM (SELECT a, b FROM {numbers} x UNION ALL SELECT a, b FROM {others} y) u WHERE a = 51",
];

/// Prepared queries: types, query, and values for EXECUTE.
const PREPARED: &[(&str, &str, &[&str])] = &[
    (
        "int",
        "SELECT * FROM {numbers} x WHERE a = $1",
        &["7", "120", "NULL", "9999"],
    ),
    (
        "int, int",
        "SELECT * FROM {numbers} x WHERE a >= $1 AND a < $2",
        &["5, 60", "60, 5", "0, 300"],
    ),
    (
        "int[]",
        "SELECT * FROM {numbers} x WHERE a = ANY ($1)",
        &["'{1,51}'", "'{}'", "NULL", "'{NULL,7}'"],
    ),
    (
        "timestamp",
        "SELECT * FROM {months} x WHERE at >= $1 AND at < $1 + interval '1 month'",
        &["'2026-02-01'", "'2030-01-01'"],
    ),
    (
        "timestamptz",
        "SELECT * FROM {months} x WHERE at < $1",
        &["'2026-02-01+00'"],
    ),
    (
        "text",
        "SELECT * FROM {words} x WHERE w = $1",
        &["'ab'", "'zz'", "NULL"],
    ),
    (
        "int",
        "SELECT * FROM {hashed} x WHERE id = $1",
        &["7", "8", "NULL"],
    ),
    (
        "int",
        "SELECT * FROM {numbers} x WHERE a = $1 OR a = $1 + 100",
        &["7", "250"],
    ),
    (
        "int",
        "SELECT * FROM {numbers} x LEFT JOIN {others} y ON x.a = y.a WHERE x.a = $1",
        &["6", "7"],
    ),
    (
        "int",
        "SELECT count(*) FROM {numbers} x WHERE a < $1",
        &["7", "170"],
    ),
];

const SETTINGS: &[&str] = &[
    "",
    "SET enable_partitionwise_join = on; SET enable_partitionwise_aggregate = on",
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off",
    "SET enable_partition_pruning = off",
    "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0",
];

fn legacy(query: &str) -> String {
    query.replace(['{', '}'], "")
}

fn by_hand(query: &str) -> String {
    query.replace('}', "_partitioned").replace('{', "")
}

/// The tables that a plan scans, each with whether it was executed.
fn scanned(client: &mut Client, query: &str) -> BTreeSet<(String, bool)> {
    texts(
        client,
        &format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {query}"),
    )
    .iter()
    .filter_map(|line| {
        let (node, rest) = line.split_once(" on ")?;
        // An index is named by the scan of a bitmap; what it scans is in the next line.
        let is_table = node.contains("Scan") && !node.contains("Bitmap Index");
        let table = rest.split(' ').next()?.to_string();
        is_table.then(|| (table, !line.contains("never executed")))
    })
    .collect()
}

/// Counts the plans that executed at most two tables, so that no pruning at all is noticed.
struct Checked {
    queries: u32,
    pruned: u32,
}

fn check(plain: &mut Client, routed: &mut Client, legacy: &str, by_hand: &str, checked: &mut Checked) {
    let wanted = rows_of(plain, legacy);
    assert_eq!(rows_of(routed, legacy), wanted, "{legacy}");
    let on_twin = scanned(plain, by_hand);
    assert_eq!(scanned(routed, legacy), on_twin, "plan of {legacy}");
    checked.queries += 1;
    checked.pruned += u32::from(on_twin.iter().filter(|(_, executed)| *executed).count() <= 2);
}

#[test]
fn regression_queries_on_pruning_answer_and_prune_as_on_the_twin() {
    let database = Database::on(crate::server(), "pruning");
    let (mut plain, mut routed) = (database.connect(), database.connect());
    run(&mut plain, TABLES);
    run(&mut plain, MIGRATE);
    run(&mut plain, &["ANALYZE"]);
    let partitions: i64 = one(
        &mut plain,
        "SELECT count(*) FROM pg_partition_tree('numbers_partitioned') WHERE isleaf",
    );
    assert!(partitions > 5, "{partitions} partitions");
    let mut checked = Checked {
        queries: 0,
        pruned: 0,
    };
    let settings = if is_stress() { SETTINGS } else { &SETTINGS[..2] };
    for settings in settings {
        for client in [&mut plain, &mut routed] {
            run(client, &["RESET ALL", settings]);
        }
        run(&mut routed, &[ROUTED]);
        for query in QUERIES {
            check(
                &mut plain,
                &mut routed,
                &legacy(query),
                &by_hand(query),
                &mut checked,
            );
        }
        for mode in ["force_custom_plan", "force_generic_plan"] {
            for client in [&mut plain, &mut routed] {
                run(client, &[&format!("SET plan_cache_mode = {mode}")]);
            }
            for (types, query, values) in PREPARED {
                for client in [&mut plain, &mut routed] {
                    run(
                        client,
                        &[
                            &format!("PREPARE asked({types}) AS {}", legacy(query)),
                            &format!("PREPARE by_hand({types}) AS {}", by_hand(query)),
                        ],
                    );
                }
                for value in *values {
                    let (asked, by_hand) = (
                        format!("EXECUTE asked({value})"),
                        format!("EXECUTE by_hand({value})"),
                    );
                    check(&mut plain, &mut routed, &asked, &by_hand, &mut checked);
                }
                for client in [&mut plain, &mut routed] {
                    run(client, &["DEALLOCATE ALL"]);
                }
            }
        }
    }
    println!(
        "pruning: {} queries, {} of them in at most two tables",
        checked.queries, checked.pruned
    );
    assert!(
        checked.pruned * 4 > checked.queries,
        "only {} were pruned",
        checked.pruned
    );
}
