//! Maintenance, by sessions on a real server.

mod advise;
mod analyze;
mod archives;
mod calls;
#[path = "../common/mod.rs"]
mod common;
mod crew;
mod deep;
mod default;
mod indexes;
mod keys;
mod killed;
mod missing;
mod pairs;
mod partman;
mod rest;
mod retention;
mod session;
mod templates;

use session::Session;

/// Every partition of a table with its rows, the default among them: `name=rows`.
fn partitions(session: &mut Session, table: &str) -> Vec<String> {
    let names = session.column(&format!(
        "SELECT t.relid::text FROM pg_partition_tree('{table}') t WHERE t.level = 1 ORDER BY 1"
    ));
    names
        .into_iter()
        .map(|name| {
            let rows = session.one(&format!("SELECT count(*)::text FROM {name}"));
            format!("{name}={rows}")
        })
        .collect()
}

fn events(session: &mut Session, filter: &str) -> Vec<String> {
    session.column(&format!(
        "SELECT concat_ws(' ', action, partition, status, row_count, sqlstate)
         FROM partition_router.maintenance_event WHERE {filter} ORDER BY id"
    ))
}

/// A table with a default and no other partition, under maintenance by month.
fn managed(session: &mut Session, name: &str, premake: i32) {
    session.run(&format!(
        "CREATE TABLE {name} (id int, at timestamp NOT NULL, note text) PARTITION BY RANGE (at);
         CREATE TABLE {name}_default PARTITION OF {name} DEFAULT;
         SELECT partition_router.manage('{name}', '1 month', premake => {premake})"
    ));
}

/// The suffix of the month some months from now.
fn month(session: &mut Session, ahead: i32) -> String {
    session.one(&format!(
        "SELECT to_char(timezone('UTC', now()) + {ahead} * interval '1 month', '\"_\"YYYY_MM')"
    ))
}

#[test]
fn premake_is_ahead_of_now_and_of_the_newest_row() {
    let mut s = Session::new("premake");
    managed(&mut s, "t", 2);
    s.run("CALL partition_router.run_maintenance('t')");
    let expected: Vec<_> = (0..=2).map(|n| format!("t{}=0", month(&mut s, n))).collect();
    assert_eq!(partitions(&mut s, "t")[..3], expected);
    s.run("INSERT INTO t VALUES (1, timezone('UTC', now()) + interval '2 months')");
    s.run("CALL partition_router.run_maintenance()");
    assert!(partitions(&mut s, "t").contains(&format!("t{}=0", month(&mut s, 4))));
    let before = s.one("SELECT count(*)::text FROM partition_router.maintenance_event");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(
        s.one("SELECT count(*)::text FROM partition_router.maintenance_event"),
        before
    );
}

#[test]
fn rows_in_the_default_move_when_their_partition_is_created() {
    let mut s = Session::new("drain");
    s.run(
        "CREATE TABLE t (id int, at timestamp NOT NULL, twice int GENERATED ALWAYS AS (id * 2) STORED,
                         PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE t_default PARTITION OF t DEFAULT;
         CREATE TABLE child (id int, at timestamp, FOREIGN KEY (id, at) REFERENCES t ON DELETE CASCADE);
         CREATE TABLE seen (what text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN INSERT INTO seen VALUES (TG_OP); RETURN COALESCE(NEW, OLD); END$$;
         INSERT INTO t SELECT n, timestamp '2025-01-15' + n * interval '1 day' FROM generate_series(1, 60) n;
         INSERT INTO child SELECT id, at FROM t;
         CREATE TRIGGER see AFTER INSERT OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION see();
         SELECT partition_router.manage('t', '1 month', premake => 0);
         CALL partition_router.run_maintenance('t')",
    );
    let found = partitions(&mut s, "t");
    for expected in ["t_2025_01=16", "t_2025_02=28", "t_2025_03=16", "t_default=0"] {
        assert!(found.contains(&expected.to_string()), "{expected} in {found:?}");
    }
    assert_eq!(s.one("SELECT count(*)::text FROM child"), "60");
    assert_eq!(s.one("SELECT count(*)::text FROM seen"), "0");
    assert_eq!(s.one("SELECT count(*)::text FROM t WHERE twice = id * 2"), "60");
    assert_eq!(
        events(&mut s, "partition = 't_2025_02'"),
        ["create t_2025_02 done 28"]
    );
}

#[test]
fn one_bad_date_stays_in_the_default_and_is_reported() {
    let mut s = Session::new("bad_date");
    managed(&mut s, "t", 3);
    s.run("INSERT INTO t VALUES (1, '2999-01-01'), (2, 'infinity'), (3, '0019-05-01')");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(partitions(&mut s, "t").len(), 5);
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "3");
    let reported =
        s.column("SELECT message FROM partition_router.maintenance_event WHERE status = 'skipped'");
    assert!(reported.iter().any(|m| m.contains("2999-01-01")), "{reported:?}");
    assert!(reported.iter().any(|m| m.contains("infinity")), "{reported:?}");
    // What has not changed is not reported again; what has is.
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(events(&mut s, "status = 'skipped'").len(), reported.len());
    s.run("INSERT INTO t VALUES (4, '2888-01-01'); CALL partition_router.run_maintenance('t')");
    assert_eq!(events(&mut s, "status = 'skipped'").len(), reported.len() + 1);
    let health =
        "SELECT status || ': ' || message FROM partition_router.health WHERE \"check\" = 'default_partition'";
    let told = s.one(health);
    assert!(
        told.starts_with("ok: 4 rows are in the default partition, and maintenance leaves them there"),
        "{told}"
    );
}

#[test]
fn names_with_quotes_capitals_and_unicode_work() {
    let mut s = Session::new("names");
    s.run(
        r#"CREATE SCHEMA "Sch""ema é";
           CREATE TABLE "Sch""ema é"."Re ve""nues" ("At É" timestamptz NOT NULL, "select" int) PARTITION BY RANGE ("At É");
           CREATE TABLE "Sch""ema é"."De fault" PARTITION OF "Sch""ema é"."Re ve""nues" DEFAULT;
           CREATE SCHEMA "Arch'ive";
           INSERT INTO "Sch""ema é"."Re ve""nues" VALUES ('2025-01-15', 1), ('2025-02-15', 2);
           SELECT partition_router.manage('"Sch""ema é"."Re ve""nues"', '1 month', premake => 1,
               retention => '1 month', retention_action => 'archive', archive_schema => 'Arch''ive');
           CALL partition_router.run_maintenance('"Sch""ema é"."Re ve""nues"');
           CALL partition_router.run_maintenance('"Sch""ema é"."Re ve""nues"')"#,
    );
    assert_eq!(
        s.column("SELECT relname::text FROM pg_class WHERE relnamespace = '\"Arch''ive\"'::regnamespace AND relkind = 'r'
                  AND relname LIKE '%2025%' ORDER BY 1")[..2],
        ["Re ve\"nues_2025_01", "Re ve\"nues_2025_02"]
    );
    assert_eq!(
        s.one(r#"SELECT count(*)::text FROM "Arch'ive"."Re ve""nues_2025_01""#),
        "1"
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
}

#[test]
fn timestamptz_follows_the_policys_zone_not_the_sessions() {
    let mut s = Session::new("zones");
    // In Beirut the day 2025-03-30 begins at one o'clock; Samoa skipped 2011-12-30.
    s.run(
        "SET TimeZone = 'America/New_York'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard';
         CREATE TABLE b (at timestamptz) PARTITION BY RANGE (at);
         CREATE TABLE b_default PARTITION OF b DEFAULT;
         INSERT INTO b SELECT timestamptz '2025-03-28 22:30Z' + n * interval '1 hour' FROM generate_series(0, 119) n;
         SELECT partition_router.manage('b', '1 day', premake => 0, timezone => 'Asia/Beirut');
         CREATE TABLE a (at timestamptz) PARTITION BY RANGE (at);
         CREATE TABLE a_default PARTITION OF a DEFAULT;
         INSERT INTO a SELECT timestamptz '2011-12-28 12:30Z' + n * interval '1 hour' FROM generate_series(0, 119) n;
         SELECT partition_router.manage('a', '1 day', premake => 0, timezone => 'Pacific/Apia');
         CALL partition_router.run_maintenance();
         CALL partition_router.run_maintenance()",
    );
    assert_eq!(
        partitions(&mut s, "b")[..6],
        [
            "b_2025_03_29=24",
            "b_2025_03_30=23",
            "b_2025_03_31=24",
            "b_2025_04_01=24",
            "b_2025_04_02=24",
            "b_2025_04_03=1"
        ]
    );
    let apia = partitions(&mut s, "a");
    assert_eq!(
        apia[..3],
        ["a_2011_12_28=22", "a_2011_12_29=24", "a_2011_12_31=24"]
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
}

#[test]
fn integers_epochs_and_uuids_have_partitions_too() {
    let mut s = Session::new("keys");
    s.run(
        "CREATE TABLE i (id int) PARTITION BY RANGE (id);
         CREATE TABLE i_default PARTITION OF i DEFAULT;
         INSERT INTO i SELECT generate_series(-15, 15);
         SELECT partition_router.manage('i', '10', premake => 1);
         CREATE TABLE e (at bigint) PARTITION BY RANGE (at);
         CREATE TABLE e_default PARTITION OF e DEFAULT;
         INSERT INTO e SELECT (extract(epoch FROM timestamptz '2025-01-31 12:00Z') + n * 86400) * 1000
             FROM generate_series(0, 1) n, generate_series(1, 50);
         SELECT partition_router.manage('e', '1 month', premake => 0);
         CREATE TABLE u (id uuid) PARTITION BY RANGE (id);
         CREATE TABLE u_default PARTITION OF u DEFAULT;
         INSERT INTO u VALUES ('01941f29-7bff-7abc-8def-0123456789ab'), ('01941f29-7c00-7abc-8def-0123456789ab');
         SELECT partition_router.manage('u', '1 month', premake => 0);
         CALL partition_router.run_maintenance()",
    );
    assert_eq!(
        partitions(&mut s, "i"),
        [
            "i_default=0",
            "i_n10=10",
            "i_n20=5",
            "i_p0=10",
            "i_p10=6",
            "i_p20=0"
        ]
    );
    let e = partitions(&mut s, "e");
    assert!(
        e.contains(&"e_2025_01=50".into()) && e.contains(&"e_2025_02=50".into()),
        "{e:?}"
    );
    let u = partitions(&mut s, "u");
    assert!(
        u.contains(&"u_2024_12=1".into()) && u.contains(&"u_2025_01=1".into()),
        "{u:?}"
    );
}

#[test]
fn a_failing_table_does_not_stop_the_others() {
    let mut s = Session::new("failing");
    for table in ["a", "b", "c"] {
        managed(&mut s, table, 1);
    }
    let next = month(&mut s, 1);
    s.run(&format!(
        "CREATE VIEW b{next} AS SELECT 1; CALL partition_router.run_maintenance()"
    ));
    assert_eq!(partitions(&mut s, "a").len(), 3);
    assert_eq!(
        partitions(&mut s, "b").len(),
        2,
        "the other partition of the failing table is made"
    );
    assert_eq!(partitions(&mut s, "c").len(), 3);
    assert_eq!(
        events(&mut s, "status = 'failed'"),
        [format!("create b{next} failed 42P07")]
    );
    let error = s.one("SELECT last_error FROM partition_router.policy WHERE parent = 'b'::regclass");
    assert!(error.starts_with("42P07: "), "{error}");
    s.run(&format!(
        "DROP VIEW b{next}; CALL partition_router.run_maintenance()"
    ));
    assert_eq!(partitions(&mut s, "b").len(), 3);
    assert_eq!(
        s.one("SELECT count(*)::text FROM partition_router.policy WHERE last_error IS NOT NULL"),
        "0"
    );
}

#[test]
fn a_failure_that_cannot_be_recorded_ends_no_call_and_is_recorded_as_soon_as_there_is_room() {
    let mut s = Session::new("unrecorded");
    for table in ["a", "b", "c"] {
        managed(&mut s, table, 1);
    }
    let next = month(&mut s, 1);
    // As on a full disk: the log takes nothing, for the first three times.
    s.run(&format!(
        "CREATE VIEW a{next} AS SELECT 1;
         CREATE SEQUENCE times;
         CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN IF nextval('public.times') <= 3 THEN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'no space left'; END IF; RETURN NEW; END$$;
         CREATE TRIGGER no_room BEFORE INSERT ON partition_router.maintenance_event FOR EACH ROW EXECUTE FUNCTION no_room();
         CALL partition_router.run_maintenance()"
    ));
    // What is written when there is room again, at the end of the call at the latest: that the log took nothing, and that the view
    // is in the way.
    assert_eq!(partitions(&mut s, "b").len(), 3);
    assert_eq!(partitions(&mut s, "c").len(), 3);
    let failed = events(&mut s, "status = 'failed'");
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(
        failed.contains(&format!("create a{next} failed 42P07")),
        "{failed:?}"
    );
    assert!(
        failed.iter().any(|event| event.ends_with("failed 53100")),
        "{failed:?}"
    );
    s.run("DROP TRIGGER no_room ON partition_router.maintenance_event");
    s.run(&format!(
        "DROP VIEW a{next}; CALL partition_router.run_maintenance()"
    ));
    assert_eq!(partitions(&mut s, "a").len(), 3);
    assert_eq!(events(&mut s, "status = 'failed'").len(), 2);
}

#[test]
fn two_calls_at_once_make_every_partition_once_and_lose_no_row() {
    let mut s = Session::new("two_calls");
    for table in ["a", "b", "c", "d"] {
        managed(&mut s, table, 2);
        s.run(&format!(
            "INSERT INTO {table} SELECT n, timezone('UTC', now()) - n % 3 * interval '1 month', 'old' FROM generate_series(1, 600) n;
             SELECT partition_router.set_policy('{table}', retention_count => 2)"
        ));
    }
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let mut caller = s.another();
            std::thread::spawn(move || {
                for _ in 0..4 {
                    caller.run("CALL partition_router.run_maintenance()");
                }
            })
        })
        .collect();
    let mut written = 0;
    while calls.iter().any(|call| !call.is_finished()) {
        written += 1;
        s.run(&format!(
            "INSERT INTO a VALUES ({written} + 1000, timezone('UTC', now()), 'new')"
        ));
    }
    for call in calls {
        call.join().unwrap();
    }
    s.run("CALL partition_router.run_maintenance()");
    let failed = events(&mut s, "status = 'failed' AND sqlstate <> '55P03'");
    assert_eq!(failed, [""; 0]);
    assert_eq!(
        s.one("SELECT count(*)::text FROM a WHERE note = 'new'"),
        written.to_string()
    );
    for table in ["a", "b", "c", "d"] {
        // Two months with rows are kept, and made once each: with two ahead, and the default.
        assert_eq!(partitions(&mut s, table).len(), 5, "{table}");
        assert_eq!(
            s.one(&format!("SELECT count(*)::text FROM {table} WHERE note = 'old'")),
            "400"
        );
        let twice = s.one(&format!(
            "SELECT count(*)::text FROM (SELECT FROM partition_router.maintenance_event WHERE parent LIKE '%{table}' AND status = 'done'
             AND action IN ('create', 'drop') GROUP BY partition, action HAVING count(*) > 1) x"
        ));
        assert_eq!(twice, "0", "{table}");
    }
}

#[test]
fn a_reader_is_not_waited_for_beyond_the_budget_and_nobody_queues_behind() {
    let mut s = Session::new("locks");
    managed(&mut s, "t", 0);
    s.run("INSERT INTO t VALUES (1, now())");
    let mut reader = s.another();
    reader.run("BEGIN; SELECT * FROM t_default");
    let mut worker = s.another();
    let maintenance = std::thread::spawn(move || {
        worker.run("SET partition_router.lock_timeout = '20ms'; CALL partition_router.run_maintenance('t')");
    });
    let mut slowest = std::time::Duration::ZERO;
    while !maintenance.is_finished() {
        let start = std::time::Instant::now();
        s.run("INSERT INTO t VALUES (2, now())");
        slowest = slowest.max(start.elapsed());
    }
    maintenance.join().unwrap();
    assert!(slowest.as_millis() < 500, "a writer waited {slowest:?}");
    assert_eq!(events(&mut s, "status = 'failed'").len(), 1);
    assert!(events(&mut s, "status = 'failed'")[0].ends_with("failed 55P03"));
    reader.run("COMMIT");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "0");
}

#[test]
fn a_strong_request_gives_way_again_and_again_while_a_reader_stays() {
    let mut s = Session::new("gives_way");
    for (table, rules) in [
        ("moving", "premake => 0"),
        ("dropping", "retention_count => 1, retention_action => 'drop'"),
        ("detaching", "retention_count => 1, retention_action => 'detach'"),
    ] {
        managed(&mut s, table, 0);
        let last = "timezone('UTC', now()) - interval '1 month'";
        s.run(&format!(
            "INSERT INTO {table} SELECT n, {last} FROM generate_series(1, 200) n"
        ));
        if table != "moving" {
            s.run("CALL partition_router.run_maintenance()");
        }
        s.run(&format!("SELECT partition_router.set_policy('{table}', {rules})"));
        let mut reader = s.another();
        reader.run(&format!("BEGIN; SELECT count(*) FROM {table}"));
        let mut caller = s.another();
        let pid = caller.one("SELECT pg_backend_pid()::text");
        let call = format!(
            "SET partition_router.lock_timeout = '20ms'; CALL partition_router.run_maintenance('{table}')"
        );
        let call = std::thread::spawn(move || caller.run(&call));
        // Each of its requests begins at an instant of its own: another one means that the one before was let go of.
        let mut requests = std::collections::BTreeSet::new();
        let mut written = 0;
        while !call.is_finished() {
            // Several looks for each write, which itself may have to stand behind a request until that has ended.
            for _ in 0..20 {
                requests.extend(s.column(&format!(
                    "SELECT waitstart::text FROM pg_locks WHERE pid = {pid} AND NOT granted AND waitstart IS NOT NULL"
                )));
            }
            // Whoever queues behind one goes on while the reader is still there.
            written += 1;
            s.run(&format!(
                "INSERT INTO {table} VALUES ({written} + 1000, timezone('UTC', now()))"
            ));
        }
        call.join().unwrap();
        assert!(requests.len() > 1, "{table}: {requests:?}");
        assert!(written > 1);
        let failed = events(&mut s, &format!("status = 'failed' AND parent LIKE '%{table}'"));
        assert!(
            !failed.is_empty() && failed.iter().all(|event| event.ends_with("failed 55P03")),
            "{failed:?}"
        );
        reader.run("COMMIT");
        s.run(&format!("CALL partition_router.run_maintenance('{table}')"));
        assert_eq!(
            s.one(&format!("SELECT count(*)::text FROM {table} WHERE id > 1000")),
            written.to_string()
        );
    }
}

#[test]
fn rows_written_while_rows_move_are_not_lost() {
    let mut s = Session::new("moving");
    managed(&mut s, "t", 0);
    s.run("INSERT INTO t SELECT n, now(), 'old' FROM generate_series(1, 20000) n");
    let mut writer = s.another();
    let writes = std::thread::spawn(move || {
        for id in 1..=400 {
            writer.run(&format!(
                "UPDATE t SET note = 'new' WHERE id = {id}; INSERT INTO t VALUES ({id} + 20000, now(), 'new')"
            ));
        }
    });
    while !writes.is_finished() {
        s.run("CALL partition_router.run_maintenance('t')");
    }
    writes.join().unwrap();
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(s.one("SELECT count(*)::text FROM t WHERE note = 'new'"), "800");
    assert_eq!(s.one("SELECT count(DISTINCT id)::text FROM t"), "20400");
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "0");
}
