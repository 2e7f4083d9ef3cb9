//! Single queries in which routing could show: types of rows, rights, locks, cursors that are written through, and
//! everything that has to stay on the legacy.

use crate::common::{Database, one, run, sqlstate, texts};
use crate::marked::{ROUTED, explain, marked, side};
use crate::ways::rows_of;
use crate::world::{become_role, world};
use postgres::Client;

/// Two sessions, the second routed.
fn both(database: &Database) -> (Client, Client) {
    let (plain, mut routed) = (database.connect(), database.connect());
    run(&mut routed, &[ROUTED]);
    (plain, routed)
}

#[test]
fn rows_keep_the_type_of_the_legacy() {
    let database = world("types");
    let (mut plain, mut routed) = both(&database);
    for query in [
        "SELECT pg_typeof(r), pg_typeof(array_agg(r)) FROM revenues r GROUP BY r",
        "SELECT pg_typeof(x) FROM (SELECT r FROM revenues r) x",
        "SELECT pg_typeof(x.r) FROM (SELECT r FROM revenues r) x",
        "SELECT revenues FROM revenues WHERE id < 20",
        "SELECT public.revenues.id, revenues.* FROM public.revenues WHERE id < 20",
        "SELECT (r).* FROM revenues r WHERE id < 20",
        "SELECT (array_agg(r ORDER BY id))[3].note FROM revenues r",
        "SELECT * FROM unnest((SELECT array_agg(r ORDER BY id) FROM revenues r)) u",
        "SELECT r = (SELECT q FROM revenues q WHERE q.id = r.id) FROM revenues r",
        "SELECT r IN (SELECT q FROM revenues q WHERE q.id < 9) FROM revenues r",
        "SELECT * FROM revenues r WHERE r = ANY (SELECT one_of(4))",
        "SELECT describe(r), r.describe, describe(r.*) FROM revenues r",
        "SELECT jsonb_populate_record(r, '{\"note\": \"other\"}') FROM revenues r",
        "SELECT json_populate_record(NULL::revenues, to_json(r)) = r FROM revenues r",
        "SELECT to_jsonb(r), row_to_json(r), to_json(array_agg(r)) FROM revenues r GROUP BY r",
        "SELECT hash_record(r), r::text::revenues = r FROM revenues r",
        "SELECT r FROM orgs o LEFT JOIN revenues r ON r.id = o.id + 175",
        "SELECT r IS NULL, r IS NOT NULL, count(r) OVER () FROM orgs o LEFT JOIN revenues r ON r.id = o.id + 175",
        "SELECT coalesce(r, one_of(1)) FROM orgs o LEFT JOIN revenues r ON r.id = o.id + 175",
        "SELECT r FROM revenues r FULL JOIN stays s ON s.id = r.id + 100",
        "SELECT CASE WHEN r.id < 5 THEN r END FROM revenues r",
        "SELECT max(r::text), min(r.note) FROM revenues r",
        "SELECT DISTINCT r FROM revenues r WHERE org = 3",
        "SELECT r FROM revenues r WHERE org = 3 EXCEPT SELECT q FROM revenues q WHERE paid",
        "SELECT r FROM revenues r WHERE org = 3 UNION SELECT revenues_of(4)",
        "SELECT * FROM revenues r(a, b, c) WHERE a < 5",
        "SELECT r FROM revenues r(a, b, c) WHERE a < 5",
        "SELECT to_jsonb(r) FROM revenues r(a, b, c) WHERE a < 5",
        "SELECT id, note, count(*) FROM revenues GROUP BY id",
        "SELECT * FROM revenues GROUP BY id",
        "SELECT FROM revenues",
        "TABLE revenues",
        "SELECT count(*) FROM revenues r, revenues_partitioned t WHERE r.id = t.id",
        "SELECT * FROM revenues NATURAL JOIN stays",
        "SELECT * FROM revenues JOIN stays USING (id, org)",
        "SELECT j.* FROM (revenues r JOIN orgs o ON o.id = r.org) AS j(x) WHERE x < 9",
        "SELECT (SELECT (SELECT (SELECT r.note || q.note FROM revenues q WHERE q.id = r.id)) FROM orgs LIMIT 1) FROM revenues r",
        "SELECT late, later, twice FROM revenues WHERE twice > 100",
        "SELECT * FROM (SELECT *, row_number() OVER (ORDER BY id) FROM revenues) x WHERE row_number < 4",
    ] {
        let wanted = rows_of(&mut plain, query);
        assert!(!wanted.is_error(), "{query}: {wanted:?}");
        assert_eq!(rows_of(&mut routed, query), wanted, "{query}");
        assert!(
            explain(&mut routed, query).contains("revenues_20"),
            "{query} was not routed"
        );
    }
    // What is made of a routed query has the types of the legacy.
    for client in [&mut plain, &mut routed] {
        run(
            client,
            &[
                "CREATE TEMP TABLE kept AS SELECT r, r.id, array_agg(r) AS all FROM revenues r GROUP BY r, r.id",
            ],
        );
        let types: Vec<String> = texts(
            client,
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'kept'::regclass AND attnum > 0 ORDER BY attnum",
        );
        assert_eq!(types, ["revenues", "integer", "revenues[]"]);
    }
}

#[test]
fn rights_are_those_on_the_legacy() {
    let database = world("rights");
    let (mut plain, mut routed) = both(&database);
    let mut owner = database.connect();
    run(
        &mut owner,
        &[
            "DROP ROLE IF EXISTS only_twin, only_legacy, some_columns",
            "CREATE ROLE only_twin",
            "CREATE ROLE only_legacy",
            "CREATE ROLE some_columns",
            "GRANT SELECT ON revenues_partitioned TO only_twin",
            "GRANT SELECT ON revenues TO only_legacy",
            "REVOKE ALL ON revenues_partitioned FROM only_legacy",
            "GRANT SELECT (id, note) ON revenues TO some_columns",
            "GRANT SELECT ON revenues_partitioned TO some_columns",
        ],
    );
    let roles = ["only_twin", "only_legacy", "some_columns"];
    for role in roles {
        for client in [&mut plain, &mut routed] {
            become_role(client, role);
        }
        for query in [
            "SELECT * FROM revenues",
            "SELECT r FROM revenues r",
            "SELECT id FROM revenues",
            "SELECT id, note FROM revenues WHERE note = 'aa'",
            "SELECT id FROM revenues WHERE cents > 5",
            "SELECT id FROM revenues ORDER BY cents",
            "SELECT count(*) FROM revenues",
            "SELECT to_jsonb(r) FROM revenues r",
            "SELECT FROM revenues",
            "SELECT id FROM revenues WHERE EXISTS (SELECT FROM revenues q WHERE q.paid)",
            "WITH x AS (SELECT cents FROM revenues) SELECT 1",
            "SELECT * FROM revenues_of(3)",
            "EXPLAIN (COSTS OFF) SELECT cents FROM revenues WHERE false",
        ] {
            let is_explain = query.starts_with("EXPLAIN");
            let (wanted, found) = (rows_of(&mut plain, query), rows_of(&mut routed, query));
            if !is_explain || wanted.is_error() || found.is_error() {
                assert_eq!(found, wanted, "{role}: {query}");
            }
        }
        for client in [&mut plain, &mut routed] {
            run(client, &["RESET ROLE"]);
        }
    }
    // Rights that go, go for plans that are cached.
    become_role(&mut routed, "only_legacy");
    run(&mut routed, &["PREPARE q AS SELECT count(*) FROM revenues"]);
    for _ in 0..7 {
        assert_eq!(one::<i64>(&mut routed, "EXECUTE q"), 182);
    }
    run(&mut owner, &["REVOKE SELECT ON revenues FROM only_legacy"]);
    assert_eq!(sqlstate(&mut routed, "EXECUTE q"), "42501");
    run(&mut owner, &["GRANT SELECT ON revenues TO only_legacy"]);
    assert_eq!(one::<i64>(&mut routed, "EXECUTE q"), 182);
    run(
        &mut owner,
        &[
            "DROP OWNED BY only_twin, only_legacy, some_columns",
            "DROP ROLE only_twin, only_legacy, some_columns",
        ],
    );
}

#[test]
fn row_security_and_barriers_hide_rows_from_functions_that_leak() {
    let database = world("leaks");
    let mut owner = database.connect();
    run(
        &mut owner,
        &[
            "CREATE FUNCTION leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
           $$BEGIN RAISE NOTICE '%', $1; RETURN true; END$$",
        ],
    );
    for (role, query) in [
        ("gen_tenant", "SELECT id FROM stays WHERE leak(id)"),
        ("gen_tenant", "SELECT id FROM stays s WHERE leak(s)"),
        ("gen_tenant", "SELECT id FROM v_invoker WHERE leak(id)"),
        ("gen_tenant", "SELECT id FROM v_barrier WHERE leak(org)"),
        ("gen_tenant", "SELECT id FROM v_nested WHERE leak(org)"),
        ("gen_tenant", "SELECT e.id FROM events e WHERE leak(e.org)"),
        (
            "gen_tenant",
            "SELECT e.id FROM events e JOIN stays s ON leak(s.org) AND leak(e.org) AND s.id = e.id",
        ),
        ("gen_reader", "SELECT id FROM events WHERE leak(kind)"),
        ("gen_clerk", "SELECT id FROM stays WHERE leak(nights)"),
    ] {
        let mut heard = vec![];
        for settings in ["SELECT 1", ROUTED] {
            let (mut session, notices) = database.connect_hearing();
            run(&mut session, &[settings]);
            become_role(&mut session, role);
            let ids = rows_of(&mut session, query);
            let mut notices: Vec<String> = notices.try_iter().collect();
            notices.sort();
            heard.push((ids, notices));
        }
        assert!(!heard[0].1.is_empty(), "{role}: {query} shows nothing");
        assert_eq!(heard[1], heard[0], "{role}: {query}");
    }
    // Who asks may change while the plan stays.
    let (mut plain, mut routed) = both(&database);
    for client in [&mut plain, &mut routed] {
        run(
            client,
            &["PREPARE q AS SELECT id, org FROM stays", "SET row_security = on"],
        );
    }
    for role in ["gen_reader", "gen_tenant", "postgres", "gen_tenant", "gen_clerk"] {
        for org in [3, 4] {
            for client in [&mut plain, &mut routed] {
                become_role(client, role);
                run(client, &[&format!("SET app.org = '{org}'")]);
            }
            let wanted = rows_of(&mut plain, "EXECUTE q");
            assert_eq!(rows_of(&mut routed, "EXECUTE q"), wanted, "{role}, {org}");
        }
    }
    for client in [&mut plain, &mut routed] {
        run(client, &["SET row_security = off"]);
        become_role(client, "gen_tenant");
        assert_eq!(sqlstate(client, "SELECT * FROM stays"), "42501");
    }
}

#[test]
fn what_must_stay_on_the_legacy_stays_there() {
    let (_database, mut owner) = marked("stays");
    let c = &mut owner;
    run(
        c,
        &[
            ROUTED,
            "CREATE TABLE other (id int PRIMARY KEY)",
            "INSERT INTO other VALUES (0)",
        ],
    );
    assert_eq!(side(c), "twin");
    for query in [
        "SELECT side FROM revenues WHERE id = 0 FOR UPDATE",
        "SELECT side FROM revenues WHERE id = 0 FOR NO KEY UPDATE",
        "SELECT side FROM revenues WHERE id = 0 FOR SHARE",
        "SELECT side FROM revenues WHERE id = 0 FOR KEY SHARE SKIP LOCKED",
        "SELECT side FROM (SELECT * FROM revenues WHERE id = 0 FOR UPDATE) x",
        "SELECT side FROM revenues r JOIN other o USING (id) FOR UPDATE OF r",
        "SELECT side || substr(ctid::text, 1, 0) FROM revenues WHERE id = 0",
        "SELECT side FROM revenues WHERE id = 0 AND xmin IS NOT NULL",
        "SELECT side FROM revenues WHERE id = 0 AND cmax IS NOT NULL",
        "SELECT side FROM revenues WHERE id = 0 AND tableoid = 'revenues'::regclass",
        "SELECT side FROM revenues r WHERE id = 0 AND (SELECT r.tableoid IS NOT NULL)",
        "SELECT side FROM revenues TABLESAMPLE SYSTEM (100) WHERE id = 0",
        "WITH w AS (INSERT INTO other VALUES (7) ON CONFLICT DO NOTHING RETURNING id) SELECT side FROM revenues WHERE id = 0",
        "INSERT INTO other SELECT id + 100 FROM revenues WHERE id = 0 ON CONFLICT DO NOTHING RETURNING (SELECT side FROM revenues WHERE id = 0)",
        "UPDATE other SET id = id WHERE id = 0 RETURNING (SELECT side FROM revenues WHERE id = 0)",
        "DELETE FROM other USING revenues r WHERE r.id = other.id AND false RETURNING r.side",
    ] {
        let found: Vec<String> = texts(c, query);
        assert!(found.iter().all(|side| side == "legacy"), "{query}: {found:?}");
        assert!(!found.is_empty() || query.starts_with("DELETE"), "{query}");
        assert!(!explain(c, query).contains("revenues_20"), "{query}");
    }
    assert_eq!(
        one::<String>(c, "SELECT tableoid::regclass::text FROM revenues WHERE id = 0"),
        "revenues"
    );
    // A lock on another table of the query does not keep the pair from being routed, or does: the row is the same.
    assert!(
        ["twin", "legacy"].contains(
            &one::<String>(
                c,
                "SELECT side FROM revenues r JOIN other o USING (id) WHERE id = 0 FOR UPDATE OF o"
            )
            .as_str()
        )
    );
}

#[test]
fn row_locks_hold_on_the_legacy() {
    let (database, mut owner) = marked("locks");
    let mut other = database.connect();
    for client in [&mut owner, &mut other] {
        run(client, &[ROUTED, "BEGIN"]);
    }
    run(&mut owner, &["SELECT * FROM revenues WHERE id = 5 FOR UPDATE"]);
    assert_eq!(
        sqlstate(
            &mut other,
            "SELECT * FROM revenues WHERE id = 5 FOR UPDATE NOWAIT"
        ),
        "55P03"
    );
    run(&mut other, &["ROLLBACK", "BEGIN"]);
    let free: Vec<i32> = other
        .query(
            "SELECT id FROM revenues WHERE id IN (5, 6) FOR UPDATE SKIP LOCKED",
            &[],
        )
        .expect("locks")
        .iter()
        .map(|r| r.get(0))
        .collect();
    assert_eq!(free, [6]);
    run(&mut other, &["ROLLBACK"]);
    run(&mut owner, &["ROLLBACK"]);
}

#[test]
fn a_cursor_can_be_written_through() {
    let (_database, mut owner) = marked("current_of");
    let c = &mut owner;
    run(c, &[ROUTED]);
    for declare in [
        "DECLARE c CURSOR FOR SELECT * FROM revenues WHERE id = 20",
        "DECLARE c CURSOR FOR SELECT * FROM revenues WHERE id = 20 FOR UPDATE",
        "DECLARE c NO SCROLL CURSOR FOR SELECT id, cents FROM revenues WHERE id = 20",
    ] {
        run(c, &["BEGIN", declare]);
        c.query_one("FETCH c", &[]).expect("fetches");
        run(c, &["UPDATE revenues SET cents = cents + 1 WHERE CURRENT OF c"]);
        let written: i64 = one(
            c,
            "SELECT count(*) FROM revenues_partitioned WHERE id = 20 AND cents = 2001",
        );
        assert_eq!(written, 1, "{declare}");
        run(c, &["ROLLBACK"]);
    }
    run(
        c,
        &[
            "DO $$DECLARE c CURSOR FOR SELECT * FROM revenues WHERE id BETWEEN 30 AND 35; r record; BEGIN
              FOR r IN c LOOP DELETE FROM revenues WHERE CURRENT OF c; END LOOP; END$$",
        ],
    );
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM revenues WHERE id BETWEEN 30 AND 35"),
        0
    );
    assert_eq!(
        one::<i64>(
            c,
            "SELECT count(*) FROM revenues_partitioned WHERE id BETWEEN 30 AND 35"
        ),
        0
    );
}

#[test]
fn everything_that_is_refreshed_or_copied_is_routed() {
    let (_database, mut owner) = marked("refreshed");
    let c = &mut owner;
    run(
        c,
        &[
            "CREATE MATERIALIZED VIEW sides AS SELECT id, side FROM revenues WHERE id < 10",
            "CREATE UNIQUE INDEX ON sides (id)",
        ],
    );
    let of_view = "SELECT string_agg(DISTINCT side, ',') FROM sides";
    assert_eq!(one::<String>(c, of_view), "legacy");
    run(c, &[ROUTED]);
    for (refresh, wanted) in [
        ("REFRESH MATERIALIZED VIEW sides", "twin"),
        (
            "SET partition_router.transparent = off; REFRESH MATERIALIZED VIEW sides",
            "legacy",
        ),
        (
            "SET partition_router.transparent = on; REFRESH MATERIALIZED VIEW CONCURRENTLY sides",
            "twin",
        ),
    ] {
        run(c, &[refresh]);
        assert_eq!(one::<String>(c, of_view), wanted, "{refresh}");
    }
    run(
        c,
        &["CREATE TEMP TABLE t AS SELECT side FROM revenues WHERE id = 0"],
    );
    assert_eq!(one::<String>(c, "SELECT side FROM t"), "twin");
    run(
        c,
        &[
            "BEGIN",
            "DECLARE h CURSOR WITH HOLD FOR SELECT side FROM revenues WHERE id = 0 ORDER BY id",
            "COMMIT",
        ],
    );
    assert_eq!(one::<String>(c, "FETCH h"), "twin");
    run(c, &["BEGIN"]);
    assert_eq!(side(c), "twin");
    run(c, &["PREPARE TRANSACTION 'routed'", "COMMIT PREPARED 'routed'"]);
}

#[test]
fn names_that_hide_the_legacy_are_not_routed() {
    let (_database, mut owner) = marked("hidden");
    let c = &mut owner;
    run(
        c,
        &[ROUTED, "PREPARE q AS SELECT side FROM revenues WHERE id = 0"],
    );
    assert_eq!(one::<String>(c, "EXECUTE q"), "twin");
    run(
        c,
        &["CREATE TEMP TABLE revenues AS SELECT 0 AS id, 'temporary'::text AS side"],
    );
    assert_eq!(side(c), "temporary");
    assert_eq!(
        one::<String>(c, "SELECT side FROM public.revenues WHERE id = 0"),
        "twin"
    );
    let cte =
        "WITH revenues AS (SELECT 0 AS id, 'of the CTE' AS side) SELECT side FROM revenues WHERE id = 0";
    assert_eq!(one::<String>(c, cte), "of the CTE");
    run(c, &["DROP TABLE pg_temp.revenues"]);
    assert_eq!(side(c), "twin");
    run(c, &["ALTER TABLE revenues RENAME TO earnings"]);
    assert_eq!(one::<String>(c, "SELECT side FROM earnings WHERE id = 0"), "twin");
    assert_eq!(sqlstate(c, "SELECT side FROM revenues WHERE id = 0"), "42P01");
}
