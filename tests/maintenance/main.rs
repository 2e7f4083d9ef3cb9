//! Maintenance, by sessions on a real server.

#[path = "../common/mod.rs"]
mod common;
mod pairs;
mod session;

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

#[test]
fn retention_drops_detaches_or_archives() {
    let mut s = Session::new("retention");
    s.run("CREATE SCHEMA attic");
    for (table, rules) in [
        ("a", "retention => '2 months'"),
        ("b", "retention => '2 months', retention_action => 'detach'"),
        (
            "c",
            "retention => '2 months', retention_action => 'archive', archive_schema => 'attic'",
        ),
    ] {
        managed(&mut s, table, 0);
        s.run(&format!(
            "INSERT INTO {table} SELECT n, timezone('UTC', now()) - n * interval '1 month' FROM generate_series(0, 5) n;
             CALL partition_router.run_maintenance('{table}');
             SELECT partition_router.set_policy('{table}', {rules});
             CALL partition_router.run_maintenance('{table}')"
        ));
        assert_eq!(s.one(&format!("SELECT count(*)::text FROM {table}")), "3");
        assert_eq!(partitions(&mut s, table).len(), 4);
    }
    let old = month(&mut s, -5);
    let find = |s: &mut Session, name: String| s.one(&format!("SELECT count(*)::text FROM {name}"));
    assert_eq!(
        s.one(&format!("SELECT COALESCE(to_regclass('a{old}')::text, 'gone')")),
        "gone"
    );
    assert_eq!(find(&mut s, format!("b{old}")), "1");
    assert_eq!(find(&mut s, format!("attic.c{old}")), "1");
}

#[test]
fn retention_never_takes_the_newest_partition() {
    let mut s = Session::new("newest");
    s.run(
        "CREATE TABLE t (at date) PARTITION BY RANGE (at);
         CREATE TABLE t_1990 PARTITION OF t FOR VALUES FROM ('1990-01-01') TO ('1991-01-01');
         CREATE TABLE t_1991 PARTITION OF t FOR VALUES FROM ('1991-01-01') TO ('1992-01-01');
         INSERT INTO t VALUES ('1990-05-05'), ('1991-05-05');
         INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake, retention)
             VALUES ('t', 't', '1 year', 0, '1 day');
         CALL partition_router.run_maintenance('t')",
    );
    let found = partitions(&mut s, "t");
    assert!(!found.contains(&"t_1990=1".into()), "{found:?}");
    s.run(
        "CREATE TABLE x (at date) PARTITION BY RANGE (at);
         CREATE TABLE x_p PARTITION OF x FOR VALUES FROM ('1990-01-01') TO (MAXVALUE);
         INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake, retention)
             VALUES ('x', 'x', '1 year', 0, '1 day');
         CALL partition_router.run_maintenance('x')",
    );
    assert_eq!(partitions(&mut s, "x"), ["x_p=0"]);
}

#[test]
fn retention_is_frozen_while_copying() {
    let mut s = Session::new("frozen");
    managed(&mut s, "t", 0);
    s.run(
        "INSERT INTO t VALUES (1, now() - interval '3 months');
         CALL partition_router.run_maintenance('t');
         SELECT partition_router.set_policy('t', retention => '1 month');
         CREATE TABLE legacy (id int PRIMARY KEY, at timestamp);
         INSERT INTO partition_router.pair (legacy, twin, base_name, strategy, partition_key, phase)
             VALUES ('legacy', 't', 't', 'range', 'at', 'copying')",
    );
    let before = partitions(&mut s, "t");
    for phase in ["copying", "prepared"] {
        s.run(&format!("UPDATE partition_router.pair SET phase = '{phase}'; CALL partition_router.run_maintenance('legacy')"));
        assert_eq!(partitions(&mut s, "t"), before);
    }
    let reasons = s.column("SELECT message FROM partition_router.maintenance_event WHERE status = 'skipped'");
    assert!(
        reasons.iter().any(|r| r.contains("copying")) && reasons.iter().any(|r| r.contains("prepared")),
        "{reasons:?}"
    );
    assert_eq!(s.sqlstate("SELECT partition_router.create_partitions('t')"), "");
    s.run("UPDATE partition_router.pair SET phase = 'copying'");
    assert_eq!(
        s.sqlstate("SELECT partition_router.create_partitions('t')"),
        "PR012"
    );
}

#[test]
fn a_partition_that_others_point_at_is_kept_with_a_clear_error() {
    let mut s = Session::new("referenced");
    s.run(
        "CREATE TABLE t (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE t_default PARTITION OF t DEFAULT;
         INSERT INTO t SELECT n, current_date - n * 31 FROM generate_series(0, 4) n;
         SELECT partition_router.manage('t', '1 month', premake => 0);
         CALL partition_router.run_maintenance('t');
         CREATE TABLE child (id int, at date, FOREIGN KEY (id, at) REFERENCES t);
         INSERT INTO child SELECT id, at FROM t WHERE id = 4;
         SELECT partition_router.set_policy('t', retention => '1 month');
         CALL partition_router.run_maintenance('t')",
    );
    let failed = events(&mut s, "status = 'failed'");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].ends_with("23503"), "{failed:?}");
    assert_eq!(s.one("SELECT count(*)::text FROM t WHERE id = 4"), "1");
    assert_eq!(
        s.one("SELECT count(*)::text FROM t WHERE id = 3"),
        "0",
        "the next one is retired all the same"
    );
}

#[test]
fn a_second_call_gets_55p03_or_skips() {
    let mut s = Session::new("twice");
    managed(&mut s, "t", 1);
    managed(&mut s, "u", 1);
    let mut first = s.another();
    first.run("BEGIN; SELECT partition_router.maintenance_tasks('t')");
    assert_eq!(s.sqlstate("CALL partition_router.run_maintenance('t')"), "55P03");
    assert_eq!(
        s.sqlstate("SELECT partition_router.create_partitions('t')"),
        "55P03"
    );
    s.run("CALL partition_router.run_maintenance()");
    assert_eq!(partitions(&mut s, "u").len(), 3);
    assert_eq!(partitions(&mut s, "t").len(), 1);
    assert_eq!(events(&mut s, "status = 'skipped'"), ["run skipped"]);
    first.run("ROLLBACK");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(partitions(&mut s, "t").len(), 3);
}

#[test]
fn maintenance_that_is_off_does_nothing_and_says_so() {
    let mut s = Session::new("off");
    managed(&mut s, "t", 1);
    s.run("SET partition_router.enable_partition_maintenance = off; CALL partition_router.run_maintenance()");
    assert_eq!(partitions(&mut s, "t"), ["t_default=0"]);
    assert!(s.notices().iter().any(|n| n.contains("maintenance is off")));
    assert_eq!(events(&mut s, "true"), ["run skipped"]);
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let mut s = Session::new("dry");
    managed(&mut s, "t", 1);
    s.run("INSERT INTO t VALUES (1, now())");
    s.notices();
    for call in [
        "CALL partition_router.run_maintenance('t', dry_run => true)",
        "CALL partition_router.run_maintenance(dry_run => true)",
        "SELECT partition_router.create_partitions('t', dry_run => true)",
    ] {
        s.run(call);
        let printed = s.notices();
        assert_eq!(
            printed.iter().filter(|n| n.contains("ATTACH PARTITION")).count(),
            2,
            "{call}: {printed:?}"
        );
        assert!(printed.iter().any(|n| n.contains("WITH moved AS")), "{call}");
    }
    s.run("SELECT partition_router.create_range_partition('t', 'x', '1999-01-01', '1999-02-01', dry_run => true)");
    s.run("SELECT partition_router.set_policy('t', premake => 7, dry_run => true)");
    assert!(
        s.notices()
            .iter()
            .any(|n| n.contains("UPDATE partition_router.policy"))
    );
    assert_eq!(partitions(&mut s, "t"), ["t_default=1"]);
    assert_eq!(s.one("SELECT premake::text FROM partition_router.policy"), "1");
    assert_eq!(events(&mut s, "true"), [""; 0]);
}

#[test]
fn hash_pairs_have_nothing_to_premake() {
    let mut s = Session::new("hash");
    s.run(
        "CREATE TABLE legacy (id int PRIMARY KEY);
         CREATE TABLE h (id int PRIMARY KEY) PARTITION BY HASH (id);
         CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         INSERT INTO partition_router.pair (legacy, twin, base_name, strategy, partition_key, phase)
             VALUES ('legacy', 'h', 'h', 'hash', 'id', 'live');
         CALL partition_router.run_maintenance('legacy');
         CALL partition_router.run_maintenance('h');
         CALL partition_router.run_maintenance()",
    );
    assert_eq!(
        s.column("SELECT partition_router.create_partitions('legacy')"),
        [""; 0]
    );
    assert_eq!(
        s.sqlstate("SELECT partition_router.set_policy('h', premake => 5)"),
        "42809"
    );
}

#[test]
fn partitions_by_hand_take_their_rows_from_the_default() {
    let mut s = Session::new("by_hand");
    managed(&mut s, "t", 0);
    s.run("INSERT INTO t VALUES (1, '1999-01-15'), (2, '1999-02-15')");
    s.run("SELECT partition_router.create_range_partition('t', 'Old', 'MINVALUE', '1999-02-01')");
    assert_eq!(s.one("SELECT count(*)::text FROM \"Old\""), "1");
    assert_eq!(
        s.sqlstate("SELECT partition_router.drop_partition('t_default')"),
        "55000"
    );
    s.run("SELECT partition_router.drop_partition('\"Old\"')");
    assert_eq!(partitions(&mut s, "t"), ["t_default=1"]);
    let create = |name: &str, lower: &str, upper: &str| {
        format!("SELECT partition_router.create_range_partition('t', '{name}', '{lower}', '{upper}')")
    };
    s.run(&create("a", "2000-01-01", "2001-01-01"));
    assert_eq!(s.sqlstate(&create("b", "2000-05-01", "2002-01-01")), "42P17");
    assert_eq!(s.sqlstate(&create("b", "2002-05-01", "2002-01-01")), "42P17");
    assert_eq!(s.sqlstate(&create("a", "2003-01-01", "2004-01-01")), "42P07");
    assert_eq!(s.sqlstate(&create("b", "soon", "2004-01-01")), "22007");
    assert_eq!(s.sqlstate("SELECT partition_router.drop_partition('t')"), "42809");
}

#[test]
fn rules_that_cannot_be_kept_are_refused() {
    let mut s = Session::new("rules");
    managed(&mut s, "t", 0);
    s.run(
        "CREATE TABLE i (id int) PARTITION BY RANGE (id); CREATE TABLE plain (id int); CREATE SCHEMA attic",
    );
    for (call, state) in [
        ("manage('t', '1 month')", "PR017"),
        ("manage('plain', '1 month')", "42809"),
        ("manage('i', '5 hours')", "PR008"),
        ("manage('i', '0')", "PR008"),
        ("manage('i', '10', retention => '1 year')", "22023"),
        ("manage('i', '10', premake => 1001)", "22023"),
        ("set_policy('t', retention => '-1 day')", "22023"),
        ("set_policy('t', retention_action => 'burn')", "22023"),
        ("set_policy('t', retention_action => 'archive')", "22023"),
        ("set_policy('t', archive_schema => 'nowhere')", "22023"),
        ("set_policy('t', timezone => 'Mars/Olympus')", "22023"),
        ("set_policy('plain', premake => 1)", "PR016"),
        ("create_partitions('plain')", "PR016"),
    ] {
        assert_eq!(
            s.sqlstate(&format!("SELECT partition_router.{call}")),
            state,
            "{call}"
        );
    }
    s.run(
        "SELECT partition_router.set_policy('t', retention_action => 'archive', archive_schema => 'attic')",
    );
    assert_eq!(
        s.one("SELECT retention::text FROM partition_router.policy"),
        "2 years"
    );
    s.run("SELECT partition_router.set_policy('t', premake => 5)");
    assert_eq!(
        s.one("SELECT concat_ws(' ', premake, retention, archive_schema) FROM partition_router.policy"),
        "5 2 years attic"
    );
}

#[test]
fn partitions_belong_to_the_tables_owner_and_only_the_owner_may() {
    let mut s = Session::new("owner");
    s.run(
        "CREATE ROLE maint_owner; CREATE ROLE maint_other;
         CREATE SCHEMA o AUTHORIZATION maint_owner; CREATE SCHEMA attic;
         GRANT USAGE ON SCHEMA o TO maint_other;
         GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO maint_other, maint_owner;
         SET ROLE maint_owner;
         CREATE TABLE o.t (at date) PARTITION BY RANGE (at);
         SELECT partition_router.manage('o.t', '1 month', premake => 0);
         RESET ROLE;
         CALL partition_router.run_maintenance('o.t')",
    );
    assert_eq!(
        s.column("SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE 't_2%'"),
        ["maint_owner"]
    );
    assert_eq!(
        s.sqlstate("SELECT partition_router.set_policy('o.t', archive_schema => 'attic')"),
        "22023"
    );
    s.run("SET ROLE maint_other");
    assert_eq!(
        s.sqlstate("CALL partition_router.run_maintenance('o.t')"),
        "42501"
    );
    assert_eq!(
        s.sqlstate("SELECT partition_router.set_policy('o.t', premake => 0)"),
        "42501"
    );
    s.run("CALL partition_router.run_maintenance()");
    s.run("RESET ROLE; CREATE ROLE maint_nobody; SET ROLE maint_nobody");
    assert_eq!(s.sqlstate("CALL partition_router.run_maintenance()"), "42501");
    s.run("RESET ROLE; DROP OWNED BY maint_owner, maint_other; DROP ROLE maint_owner, maint_other, maint_nobody");
}
