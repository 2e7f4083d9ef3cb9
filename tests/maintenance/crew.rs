//! Workers that help a drain with indexes, and everything that may become of them.

use crate::common::{Cluster, Database};
use crate::default::{all, first_task, leftovers, waiting};
use crate::events;
use crate::session::Session;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows that are worth a worker.
const MANY: i64 = 120_000;

fn until(s: &mut Session, query: &str) {
    let started = Instant::now();
    while s.one(query) != "true" {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "never came true: {query}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn drain(s: &Session) -> std::thread::JoinHandle<()> {
    let mut other = s.another();
    std::thread::spawn(move || other.run("CALL partition_router.run_maintenance('t')"))
}

/// All rows are where they belong, with the indexes, keys and statistics that they are to have, and nothing is left.
fn assert_whole(s: &mut Session, before: &str) {
    assert_eq!(all(s, "t"), before);
    assert_eq!(leftovers(s), "0 0 0 0");
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "3");
    let partitions: i32 = s
        .one("SELECT count(*)::text FROM pg_inherits WHERE inhparent = 't'::regclass")
        .parse()
        .unwrap();
    assert!(partitions > 10);
    for (what, count, each) in [
        (
            "indexes",
            "SELECT count(*)::text FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
             WHERE x.indisvalid AND i.inhparent IN (SELECT indexrelid FROM pg_index WHERE indrelid = 't'::regclass)",
            "SELECT count(*)::text FROM pg_index WHERE indrelid = 't'::regclass",
        ),
        (
            "indexes of their own",
            "SELECT count(*)::text FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indrelid WHERE i.inhparent = 't'::regclass",
            "SELECT count(*)::text FROM pg_index WHERE indrelid = 't'::regclass",
        ),
        (
            "keys",
            "SELECT count(*)::text FROM pg_constraint WHERE contype = 'f' AND conparentid <> 0 AND convalidated",
            "SELECT count(*)::text FROM pg_constraint WHERE contype = 'f' AND conrelid = 't'::regclass",
        ),
    ] {
        let each: i32 = s.one(each).parse().unwrap();
        assert!(each > 0);
        assert_eq!(s.one(count), (each * partitions).to_string(), "{what}");
    }
}

const WORKERS: &str = "SELECT count(*)::text FROM pg_stat_activity
    WHERE backend_type = 'partition_router drain' AND datname = current_database()";

/// A table whose drain has copied its rows; the next step is the indexes. Gives its rows, and one of the tables to come.
fn copied(s: &mut Session, rows: i64) -> (String, String) {
    waiting(s, "t", rows);
    let before = all(s, "t");
    let task = first_task(s, "t");
    while s.one("SELECT COALESCE((SELECT stage FROM partition_router.drain), 'none')") != "index" {
        s.run(&task);
    }
    s.run("SELECT partition_router.maintenance_let_go()");
    let table = s.one("SELECT format('%I', slots -> 3 -> 'name' ->> 'name') FROM partition_router.drain");
    (before, table)
}

const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND l.mode = 'ShareUpdateExclusiveLock' AND a.backend_type = 'client backend'
      AND a.datname = current_database())::text";

#[test]
fn a_table_that_another_process_is_at_is_done_last_whatever_becomes_of_that_process() {
    for (n, end) in ["COMMIT", "ROLLBACK", "terminate"].into_iter().enumerate() {
        let mut s = Session::new(&format!("drain_busy_{n}"));
        let (before, table) = copied(&mut s, 20_000);
        assert_eq!(
            s.one(&format!(
                "SELECT count(*)::text FROM pg_index WHERE indrelid = '{table}'::regclass"
            )),
            "0"
        );
        let mut worker = s.another();
        worker.run(&format!(
            "BEGIN; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE; CREATE INDEX ON {table} (note)"
        ));
        let draining = drain(&s);
        until(&mut s, WAITS);
        if end == "terminate" {
            let backend = worker.one("SELECT pg_backend_pid()::text");
            s.run(&format!("SELECT pg_terminate_backend({backend}, 10000)"));
        } else {
            worker.run(end);
        }
        draining.join().unwrap();
        assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
        assert_whole(&mut s, &before);
    }
}

#[test]
fn a_drain_that_is_cancelled_takes_its_workers_along_and_the_next_call_goes_on() {
    let mut s = Session::new("drain_cancelled");
    let (before, table) = copied(&mut s, MANY);
    let mut holder = s.another();
    holder.run(&format!(
        "BEGIN; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE"
    ));
    let mut leader = s.another();
    let backend = leader.one("SELECT pg_backend_pid()::text");
    let draining = std::thread::spawn(move || leader.sqlstate("CALL partition_router.run_maintenance('t')"));
    until(&mut s, WAITS);
    s.run(&format!("SELECT pg_cancel_backend({backend})"));
    assert_eq!(draining.join().unwrap(), "57014");
    until(&mut s, &WORKERS.replace("count(*)::text", "(count(*) = 0)::text"));
    holder.run("ROLLBACK");
    assert_eq!(all(&mut s, "t"), before);
    s.run("CALL partition_router.run_maintenance('t')");
    assert_whole(&mut s, &before);
}

#[test]
fn workers_of_a_drain_that_are_ended_leave_nothing_out() {
    let mut s = Session::new("drain_workers");
    waiting(&mut s, "t", MANY);
    let before = all(&mut s, "t");
    let draining = drain(&s);
    let mut ended = 0;
    while !draining.is_finished() {
        ended += s
            .column(
                "SELECT pg_terminate_backend(a.pid)::text FROM pg_stat_activity a
                 WHERE a.backend_type = 'partition_router drain' AND a.datname = current_database()",
            )
            .len();
    }
    draining.join().unwrap();
    assert!(ended > 0, "no worker came");
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    assert_whole(&mut s, &before);
}

/// An index that only clients can build; others count, and fail.
const ONLY_CLIENTS: &str = "CREATE SEQUENCE refused;
    CREATE FUNCTION by_clients(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
        IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type <> 'client backend') THEN
            PERFORM nextval('public.refused');
            RAISE EXCEPTION 'not by a worker';
        END IF;
        RETURN $1;
    END$$";

#[test]
fn what_a_worker_fails_at_is_done_by_the_session() {
    let mut s = Session::new("drain_worker_fails");
    s.run(ONLY_CLIENTS);
    waiting(&mut s, "t", MANY);
    s.run("CREATE INDEX t_by_clients ON t (public.by_clients(left(note, 3)))");
    let before = all(&mut s, "t");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(
        s.one("SELECT is_called::text FROM refused"),
        "true",
        "no worker came"
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    assert_whole(&mut s, &before);
}

/// An index at which workers wait for a lock, and clients fail as soon as one waits.
const NEVER_BUILT: &str = "CREATE FUNCTION never_built(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
        IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type <> 'client backend') THEN
            PERFORM pg_advisory_lock_shared(7);
        END IF;
        WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted) LOOP
            PERFORM pg_sleep(0.002);
        END LOOP;
        RAISE EXCEPTION 'not by anyone';
    END$$";

#[test]
fn a_drain_that_is_cancelled_ends_workers_that_wait() {
    let mut s = Session::new("drain_cancelled_waiting");
    s.run(&NEVER_BUILT.replace("RAISE EXCEPTION 'not by anyone'", "PERFORM pg_sleep(600)"));
    waiting(&mut s, "t", MANY);
    s.run("CREATE INDEX t_never ON ONLY t (public.never_built(left(note, 3)))");
    let mut holder = s.another();
    holder.run("SELECT pg_advisory_lock(7)");
    let mut leader = s.another();
    let backend = leader.one("SELECT pg_backend_pid()::text");
    let draining = std::thread::spawn(move || leader.sqlstate("CALL partition_router.run_maintenance('t')"));
    until(
        &mut s,
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted)::text",
    );
    s.run(&format!("SELECT pg_cancel_backend({backend})"));
    assert_eq!(draining.join().unwrap(), "57014");
    until(&mut s, &WORKERS.replace("count(*)::text", "(count(*) = 0)::text"));
    holder.run("SELECT pg_advisory_unlock(7)");
}

#[test]
fn a_drain_that_fails_takes_its_workers_along() {
    let mut s = Session::new("drain_fails");
    s.run(NEVER_BUILT);
    waiting(&mut s, "t", MANY);
    s.run("CREATE INDEX t_never ON ONLY t (public.never_built(left(note, 3)))");
    let before = all(&mut s, "t");
    let mut holder = s.another();
    holder.run("SELECT pg_advisory_lock(7)");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(events(&mut s, "status = 'failed'"), ["drain failed P0001"]);
    until(&mut s, &WORKERS.replace("count(*)::text", "(count(*) = 0)::text"));
    assert_eq!(all(&mut s, "t"), before);
    holder.run("SELECT pg_advisory_unlock(7)");
    s.run("DROP INDEX t_never");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_whole(&mut s, &before);
}

#[test]
fn a_drain_needs_no_worker() {
    let cluster = Arc::new(Cluster::start(&["max_worker_processes=0"]));
    let mut s = Session::on(Arc::new(Database::on(cluster, "drain_alone")));
    waiting(&mut s, "t", MANY);
    let before = all(&mut s, "t");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    assert_whole(&mut s, &before);
}
