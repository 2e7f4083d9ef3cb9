//! `create_index`: an index on every partition, with nobody kept out.

use crate::common::Database;
use crate::session::Session;
use std::thread;
use std::time::{Duration, Instant};

const TABLE: &str = "CREATE TABLE t (id int NOT NULL, at date NOT NULL, note text) PARTITION BY RANGE (at);
    CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
    CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2025-02-01') TO ('2025-03-01') PARTITION BY HASH (id);
    CREATE TABLE t_2_0 PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE t_2_1 PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE t_default PARTITION OF t DEFAULT;
    INSERT INTO t SELECT g, date '2025-01-01' + g % 80, 'note ' || g FROM generate_series(1, 2000) g";

/// The indexes of the tree below `t`: how many there are, and how many of them are whole and attached or the root's.
fn indexes(s: &mut Session) -> String {
    s.one(
        "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE i.indisvalid
                AND (i.indrelid = 't'::regclass OR EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid))))
         FROM pg_partition_tree('t') t JOIN pg_index i ON i.indrelid = t.relid",
    )
}

/// Waits until a query gives true.
#[track_caller]
fn until(s: &mut Session, what: &str, query: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while s.one(&format!("SELECT ({query})::text")) != "true" {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

const BUILD_WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index p JOIN pg_stat_activity a USING (pid)
    WHERE p.datname = current_database() AND p.phase LIKE 'waiting for %' AND a.backend_type = 'partition_router index')";

#[test]
fn an_index_comes_on_every_partition_and_is_the_roots() {
    let mut s = Session::new("index");
    s.run(TABLE);
    s.run("CALL partition_router.create_index('t', 'CREATE INDEX CONCURRENTLY t_note ON public.t (lower(note)) INCLUDE (id) WITH (fillfactor = 70) WHERE id > 5')");
    assert_eq!(indexes(&mut s), "6 6");
    assert_eq!(
        s.one("SELECT pg_get_indexdef('t_2_1_note'::regclass)"),
        "CREATE INDEX t_2_1_note ON public.t_2_1 USING btree (lower(note)) INCLUDE (id) WITH (fillfactor='70') WHERE (id > 5)"
    );
    // A partition that comes later has it, and a second call has nothing to do.
    s.run("CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')");
    s.run("CALL partition_router.create_index('t', 'CREATE INDEX t_note ON t (lower(note)) INCLUDE (id) WITH (fillfactor = 70) WHERE id > 5')");
    assert_eq!(indexes(&mut s), "7 7");
    // An index that a partition has already is taken in.
    s.run("CREATE UNIQUE INDEX mine ON t_1 (id, at, note)");
    s.run("CALL partition_router.create_index('t', 'CREATE UNIQUE INDEX ON t (id, at, note)')");
    assert_eq!(indexes(&mut s), "14 14");
    s.run("CALL partition_router.create_index('t', '(at DESC, id)')");
    assert_eq!(indexes(&mut s), "21 21");
    assert_eq!(
        s.one("SELECT count(*)::text FROM partition_router.maintenance_event WHERE action = 'create index' AND status = 'done'"),
        "13"
    );
}

#[test]
fn a_definition_that_is_no_index_of_the_table_is_refused() {
    let mut s = Session::new("index_refused");
    s.run(TABLE);
    s.run("CREATE TABLE plain (id int); CREATE SCHEMA other; CREATE TABLE other.t (id int) PARTITION BY HASH (id)");
    for (definition, expected) in [
        ("CREATE TABLE x ()", "22023"),
        ("CREATE INDEX ON t (id); DROP TABLE plain", "22023"),
        ("(id); DROP TABLE plain", "22023"),
        ("CREATE INDEX ON plain (id)", "22023"),
        ("CREATE INDEX ON other.t (id)", "22023"),
        ("", "42601"),
        ("(no_such_column)", "42703"),
        ("CREATE UNIQUE INDEX ON t (note)", "0A000"),
        ("CREATE INDEX plain ON t (id)", "42P07"),
    ] {
        for dry_run in ["false", "true"] {
            // That a name is taken shows when it is given.
            if (definition, dry_run) == ("CREATE INDEX plain ON t (id)", "true") {
                continue;
            }
            assert_eq!(
                s.sqlstate(&format!(
                    "CALL partition_router.create_index('t', '{definition}', {dry_run})"
                )),
                expected,
                "{definition}"
            );
        }
    }
    assert_eq!(
        s.sqlstate("CALL partition_router.create_index('plain', '(id)')"),
        "42809"
    );
    assert_eq!(
        s.sqlstate("CALL partition_router.create_index('t', NULL)"),
        "22004"
    );
    assert_eq!(indexes(&mut s), "0 0");
    assert_eq!(s.one("SELECT to_regclass('plain')::text"), "plain");
}

#[test]
fn a_dry_run_prints_every_step_and_changes_nothing() {
    let mut s = Session::new("index_dry");
    s.run(TABLE);
    s.notices();
    s.run("CALL partition_router.create_index('t', '(id)', dry_run => true)");
    let notices = s.notices();
    assert_eq!(notices.len(), 11, "{notices:?}");
    assert!(
        notices[0].contains("ON ONLY \"public\".\"t\" USING btree (id)"),
        "{notices:?}"
    );
    assert!(
        notices
            .iter()
            .any(|n| n.contains("CREATE INDEX CONCURRENTLY \"t_2_1_id_idx\" ON \"public\".\"t_2_1\""))
    );
    assert_eq!(indexes(&mut s), "0 0");
}

#[test]
fn writers_go_on_while_a_build_waits_and_a_cancelled_call_is_resumed() {
    let mut s = Session::new("index_kill");
    s.run(TABLE);
    let mut writer = s.another();
    writer.run("BEGIN; UPDATE t_1 SET note = 'held' WHERE id = 7");
    let mut builder = s.another();
    let pid = builder.one("SELECT pg_backend_pid()::text");
    let call = thread::spawn(move || builder.sqlstate("CALL partition_router.create_index('t', '(note)')"));
    until(&mut s, "the build waits for the writer", BUILD_WAITS);
    // Everybody else writes every partition, and reads.
    s.run("SET lock_timeout = '2s'; UPDATE t SET note = note || '!' WHERE id > 1000; INSERT INTO t VALUES (9, '2025-01-02', 'x')");
    s.run(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(call.join().expect("the call ends"), "57014");
    until(
        &mut s,
        "the worker ends with its leader",
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'partition_router index' AND datname = current_database())",
    );
    let left = indexes(&mut s);
    assert_ne!(left, "6 6");
    assert_eq!(
        s.one("SELECT count(*)::text FROM pg_index WHERE NOT indisvalid AND indrelid <> 't'::regclass AND indrelid <> 't_2'::regclass"),
        "1",
        "what a killed build leaves"
    );
    writer.run("COMMIT");
    s.run("CALL partition_router.create_index('t', '(note)')");
    assert_eq!(indexes(&mut s), "6 6");
}

/// The valid indexes of both sides of a pair whose keys are these: on the legacy, on the twin's root, and on all of its leaves.
fn on_both(s: &mut Session, keys: &str) -> String {
    s.one(&format!(
        "SELECT concat_ws(' ', count(*) FILTER (WHERE t.relid = 'p'::regclass), count(*) FILTER (WHERE t.relid = 'p_partitioned'::regclass),
             bool_and(i.indisvalid), count(*) = 2 + (SELECT count(*) FROM pg_partition_tree('p_partitioned') WHERE isleaf))
         FROM (SELECT relid FROM pg_partition_tree('p_partitioned') UNION SELECT 'p'::regclass) t
         JOIN pg_index i ON i.indrelid = t.relid AND pg_get_indexdef(i.indexrelid) LIKE '% USING btree ({keys})%'"
    ))
}

#[test]
fn an_index_of_a_pair_comes_on_both_sides_and_a_cancelled_call_is_resumed() {
    let mut s = Session::new("index_pair");
    s.run(
        "CREATE TABLE p (id int PRIMARY KEY, at date NOT NULL, note text);
         INSERT INTO p SELECT g, date '2026-01-01' + g % 80, 'note ' || g FROM generate_series(1, 2000) g;
         CALL partition_router.migrate('p', 'at')",
    );
    // The legacy is the last: a writer of it stops the build there, when the twin has its index already.
    let mut writer = s.another();
    writer.run("BEGIN; LOCK TABLE p IN ROW EXCLUSIVE MODE");
    let mut builder = s.another();
    let pid = builder.one("SELECT pg_backend_pid()::text");
    let call =
        thread::spawn(move || builder.sqlstate("CALL partition_router.create_index('p', '(lower(note))')"));
    until(
        &mut s,
        "the build waits for the writer of the legacy",
        "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE relid = 'p'::regclass AND phase LIKE 'waiting for %')",
    );
    assert_eq!(
        s.one("SELECT count(*)::text FROM pg_index WHERE indrelid = 'p_partitioned'::regclass AND indisvalid AND indexprs IS NOT NULL"),
        "1"
    );
    s.run("SET lock_timeout = '2s'; UPDATE p SET note = note || '!' WHERE id > 1000; INSERT INTO p VALUES (9999, '2026-01-02', 'x')");
    s.run(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(call.join().expect("the call ends"), "57014");
    until(
        &mut s,
        "the worker ends with its leader",
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'partition_router index' AND datname = current_database())",
    );
    writer.run("COMMIT");
    for _ in 0..2 {
        s.run("CALL partition_router.create_index('p', '(lower(note))')");
        assert_eq!(on_both(&mut s, "lower(note)"), "1 1 t t");
    }
    assert_eq!(s.one("SELECT to_regclass('p_lower_idx')::text"), "p_lower_idx");
    s.notices();
    s.run("CALL partition_router.create_index('p', '(lower(note))', dry_run => true)");
    let notices = s.notices();
    assert_eq!(
        notices
            .iter()
            .filter(|notice| notice.contains("has the index already"))
            .count(),
        2,
        "{notices:?}"
    );
    // A name is given to the side that is named.
    s.run("CALL partition_router.create_index('p', 'CREATE INDEX mine ON p (note, id)')");
    s.run("CALL partition_router.create_index('p_partitioned', 'CREATE UNIQUE INDEX theirs ON p_partitioned (note, at)')");
    assert_eq!(
        s.one("SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = 'mine'::regclass"),
        "p"
    );
    assert_eq!(
        s.one("SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = 'theirs'::regclass"),
        "p_partitioned"
    );
    for keys in ["note, id", "note, at"] {
        assert_eq!(on_both(&mut s, keys), "1 1 t t", "{keys}");
    }
    // What cannot be unique on the twin is refused before anything is made.
    assert_eq!(
        s.sqlstate("CALL partition_router.create_index('p', 'CREATE UNIQUE INDEX ON p (note)')"),
        "0A000"
    );
    assert_eq!(
        s.one("SELECT bool_and(matches)::text FROM partition_router.verify('p', 'rows')"),
        "true"
    );
    // After the switchover as before it.
    s.run(
        "CALL partition_router.switchover('p'); CALL partition_router.create_index('p', '(at DESC, note)')",
    );
    assert_eq!(
        s.one("SELECT string_agg(indrelid::regclass::text, ' ' ORDER BY indrelid::regclass::text) FROM pg_index WHERE indisvalid
                   AND pg_get_indexdef(indexrelid) LIKE '%(at DESC, note)' AND indrelid IN ('p'::regclass, 'p_legacy'::regclass)"),
        "p p_legacy"
    );
    s.run(
        "CREATE TABLE q (id int PRIMARY KEY, at date NOT NULL);
         INSERT INTO q VALUES (1, '2026-01-01');
         SELECT partition_router.create_twin('q', 'at');
         SELECT partition_router.start_sync('q')",
    );
    assert_eq!(
        s.sqlstate("CALL partition_router.create_index('q', '(at)')"),
        "0A000"
    );
}

#[test]
fn a_build_waits_for_no_snapshot_of_its_own_call() {
    let mut s = Session::new("index_snapshot");
    s.run(TABLE);
    // Also with a snapshot taken before, in the same session.
    s.run("SET default_transaction_isolation = 'repeatable read'; SELECT count(*) FROM t");
    s.run("CALL partition_router.create_index('t', '(id)')");
    assert_eq!(indexes(&mut s), "6 6");
}

#[test]
fn duplicates_stop_a_unique_index_with_their_key_and_the_call_goes_on_when_they_are_gone() {
    let mut s = Session::new("index_unique");
    s.run(TABLE);
    s.run("INSERT INTO t SELECT * FROM t WHERE id = 65");
    let call = "CALL partition_router.create_index('t', 'CREATE UNIQUE INDEX one ON t (id, at)')";
    assert_eq!(s.sqlstate(call), "23505");
    s.run("DELETE FROM t WHERE id = 65");
    s.run(call);
    assert_eq!(indexes(&mut s), "6 6");
}

#[test]
fn a_partition_that_is_dropped_meanwhile_stops_nothing() {
    let mut s = Session::new("index_drop");
    s.run(TABLE);
    let mut writer = s.another();
    writer.run("BEGIN; UPDATE t_1 SET note = 'held' WHERE id = 80");
    let mut builder = s.another();
    let call = thread::spawn(move || builder.sqlstate("CALL partition_router.create_index('t', '(note)')"));
    until(&mut s, "the build waits for the writer", BUILD_WAITS);
    s.run("SET lock_timeout = '10s'; DROP TABLE t_2_1");
    writer.run("COMMIT");
    assert_eq!(call.join().expect("the call ends"), "");
    assert_eq!(indexes(&mut s), "5 5");
}

#[test]
fn the_owner_builds_with_their_own_rights_and_nobody_else_does() {
    let database = Database::new("index_rights");
    let mut admin = database.connect();
    for statement in [
        "CREATE ROLE index_owner LOGIN",
        "CREATE ROLE index_other LOGIN",
        "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO index_owner, index_other",
        "CREATE SCHEMA own AUTHORIZATION index_owner",
        "CREATE TABLE own.t (id int, note text) PARTITION BY HASH (id)",
        "CREATE TABLE own.t_0 PARTITION OF own.t FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        "ALTER TABLE own.t OWNER TO index_owner",
        "ALTER TABLE own.t_0 OWNER TO index_owner",
        // A function of the owner's schema is found by the path of the call.
        "CREATE FUNCTION own.twice(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1 || $1'",
    ] {
        admin
            .batch_execute(statement)
            .unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let mut other = database.connect_as("index_other");
    let refused = other.batch_execute("CALL partition_router.create_index('own.t'::regclass, '(id)')");
    let error = refused.expect_err("another role may not");
    // Not even the table's name is theirs to look up.
    assert_eq!(error.code().expect("an error of the server").code(), "42501");
    let mut owner = database.connect_as("index_owner");
    owner.batch_execute("SET search_path = own").expect("SET");
    owner
        .batch_execute("CALL partition_router.create_index('t', '(twice(note))')")
        .expect("the owner may");
    let made: String = owner
        .query_one("SELECT string_agg(tableowner || ' ' || indexdef, '; ' ORDER BY indexdef) FROM pg_indexes JOIN pg_tables USING (schemaname, tablename) WHERE schemaname = 'own' AND tablename = 't_0'", &[])
        .expect("pg_indexes")
        .get(0);
    assert_eq!(
        made,
        "index_owner CREATE INDEX t_0_twice_idx ON own.t_0 USING btree (twice(note))"
    );
    drop(owner);
    drop(other);
    admin.batch_execute("DROP SCHEMA own CASCADE; REVOKE ALL ON ALL ROUTINES IN SCHEMA partition_router FROM index_owner, index_other; DROP ROLE index_owner, index_other").expect("clean up");
}
