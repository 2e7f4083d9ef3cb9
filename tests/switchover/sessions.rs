//! Sessions that run while the names swap: they go on, and nobody waits longer than the budget.

use super::common::{Database, one, run};
use super::{BACK, TABLES, THERE, equal, phase};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn prepared_statements_and_functions_of_running_sessions_go_on() {
    let database = Database::new("running");
    let mut client = database.connect();
    let mut session = database.connect();
    run(&mut client, TABLES);
    run(
        &mut session,
        &[
            "CREATE FUNCTION s.add(o int) RETURNS int LANGUAGE plpgsql AS '
                DECLARE r s.t; n int;
                BEGIN
                    INSERT INTO s.t (at, org, note) VALUES (''2025-02-02'', o, ''by function'') RETURNING * INTO r;
                    UPDATE s.t SET note = note || ''!'' WHERE id = r.id;
                    SELECT count(*) INTO n FROM s.t WHERE org = o;
                    RETURN n;
                END'",
            "CREATE FUNCTION s.names(o int) RETURNS SETOF text LANGUAGE sql AS 'SELECT note FROM s.t WHERE org = o'",
            "SET plan_cache_mode = force_generic_plan",
        ],
    );
    let select = session
        .prepare("SELECT * FROM s.t WHERE id = $1")
        .expect("it can be prepared");
    let insert = session
        .prepare("INSERT INTO s.t (at, org, note) VALUES ('2025-03-03', $1, 'prepared') RETURNING id")
        .expect("it can be prepared");
    let mut rows = 1000;
    for (call, kind) in [(THERE, "p"), (BACK, "r"), (THERE, "p")] {
        for _ in 0..2 {
            let id: i32 = session.query_one(&insert, &[&1]).expect("it goes on").get(0);
            let row = session.query_one(&select, &[&id]).expect("it goes on");
            assert_eq!(row.get::<_, String>("note"), "prepared");
            let counted: i32 = one(&mut session, "SELECT s.add(1)");
            rows += 2;
            let names: i64 = one(&mut session, "SELECT count(*) FROM s.names(1)");
            assert_eq!(names, i64::from(counted));
        }
        run(&mut client, &[call]);
        let now: String = one(
            &mut client,
            "SELECT relkind::text FROM pg_class WHERE oid = 's.t'::regclass",
        );
        assert_eq!(now, kind);
    }
    let id: i32 = session.query_one(&insert, &[&1]).expect("it goes on").get(0);
    assert_eq!(session.query(&select, &[&id]).expect("it goes on").len(), 1);
    rows += 1;
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.t"), rows);
    equal(&mut client, true);
}

#[test]
fn a_reader_in_the_way_is_named_and_nobody_queues_behind_the_swap() {
    let database = Database::new("reader");
    let mut client = database.connect();
    let mut reader = database.connect();
    run(&mut client, TABLES);
    let pid: i32 = one(&mut reader, "SELECT pg_backend_pid()");
    run(&mut reader, &["BEGIN", "SELECT count(*) FROM s.t"]);
    run(&mut client, &["SET partition_router.lock_timeout = '5ms'"]);
    let done = AtomicBool::new(false);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whoever queued behind a request that waits for the reader would wait as long as the reader stays.
            let mut bystander = database.connect();
            run(&mut bystander, &["SET lock_timeout = '10s'"]);
            while !done.load(Ordering::Relaxed) {
                run(
                    &mut bystander,
                    &[
                        "UPDATE s.t SET note = note WHERE id = 1",
                        "SELECT count(*) FROM s.t WHERE org = 1",
                    ],
                );
            }
        });
        let error = client.batch_execute(THERE).expect_err("the table is in use");
        done.store(true, Ordering::Relaxed);
        error
    });
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.code().code(), "55P03", "{error:?}");
    let detail = error.detail().unwrap_or_default();
    assert!(detail.contains(&format!("pid {pid}")), "{detail}");
    assert!(detail.contains("SELECT count(*) FROM s.t"), "{detail}");
    assert_eq!(phase(&mut client), "live");
    equal(&mut client, false);
    // The dry run says who is in the way, too.
    assert_named(&database, "CALL partition_router.switchover('s.t', true)", pid);
    run(&mut reader, &["COMMIT"]);
    run(&mut client, &[THERE]);
    equal(&mut client, true);
    // The same of the end.
    run(&mut reader, &["BEGIN", "SELECT count(*) FROM s.t_legacy"]);
    assert_named(&database, "CALL partition_router.cleanup('s.t', true)", pid);
    run(&mut reader, &["COMMIT"]);
    run(&mut client, &["CALL partition_router.cleanup('s.t')"]);
}

/// Asserts that a dry run names the session that is in the way, and for how long each lock is waited for and held.
fn assert_named(database: &Database, call: &str, pid: i32) {
    let (mut other, notices) = database.connect_hearing();
    run(&mut other, &[call]);
    let notices: Vec<String> = notices.try_iter().collect();
    let told = |what: &str, with: &str| notices.iter().any(|n| n.contains(what) && n.contains(with));
    assert!(told("in the way now", &format!("pid {pid}")), "{notices:?}");
    assert!(
        told("IN ACCESS EXCLUSIVE MODE", "wait for it 100 ms at most"),
        "{notices:?}"
    );
}

#[test]
fn a_view_that_comes_while_the_locks_are_awaited_follows_the_name() {
    let database = Database::new("meanwhile");
    let mut client = database.connect();
    let mut reader = database.connect();
    let mut other = database.connect();
    run(&mut client, TABLES);
    run(&mut reader, &["BEGIN", "SELECT count(*) FROM s.t"]);
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    run(&mut client, &["SET partition_router.lock_timeout = '2s'"]);
    let call = std::thread::spawn(move || client.batch_execute(THERE).map(|()| client));
    let waits = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)");
    while !one::<bool>(&mut other, &waits) {
        assert!(!call.is_finished(), "the reader is in the way");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // The reader reads already, so nobody is in its way.
    run(
        &mut reader,
        &["CREATE VIEW s.late AS SELECT count(*) FROM s.t", "COMMIT"],
    );
    let mut client = call.join().expect("the thread ends").expect("the call ends well");
    let of: String = one(
        &mut client,
        "SELECT DISTINCT refobjid::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
         WHERE r.ev_class = 's.late'::regclass AND refclassid = 'pg_class'::regclass AND d.deptype = 'n'
           AND refobjid <> r.ev_class",
    );
    assert_eq!(of, "s.t");
    run(
        &mut client,
        &["INSERT INTO s.t (at, org) VALUES ('2025-02-02', 1)"],
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count FROM s.late"), 1001);
}
