//! Keys and where partitions begin: ULIDs, and origins of the caller's.

use super::session::Session;
use super::{events, partitions};

/// Makes a ULID of a time and a number.
const ULID: &str = "CREATE FUNCTION ulid(at timestamptz, tail bigint) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((ms >> (5 * (9 - i))) & 31)::int + 1, 1), '' ORDER BY i) || lpad(tail::text, 16, '0')
    FROM generate_series(0, 9) i, (SELECT (extract(epoch FROM at) * 1000)::bigint AS ms) x $$";

#[test]
fn ulids_have_partitions_by_their_time_whatever_their_type_and_case() {
    let mut s = Session::new("ulid");
    s.run(ULID);
    for (table, kind, case) in [
        ("a", "text", "upper"),
        ("b", "varchar(26)", "lower"),
        ("c", "char(26)", "upper"),
    ] {
        s.run(&format!(
            "CREATE TABLE {table} (id {kind} COLLATE \"C\" NOT NULL) PARTITION BY RANGE (id);
             CREATE TABLE {table}_default PARTITION OF {table} DEFAULT;
             INSERT INTO {table} SELECT {case}(ulid(timestamptz '2025-01-31 12:00Z' + n % 24 * interval '1 hour', n)) FROM generate_series(0, 239) n;
             INSERT INTO {table} VALUES ('no ulid');
             SELECT partition_router.manage('{table}', '1 month', premake => 0);
             CALL partition_router.run_maintenance('{table}')"
        ));
        let found = partitions(&mut s, table);
        for expected in [
            format!("{table}_2025_01=120"),
            format!("{table}_2025_02=120"),
            format!("{table}_default=1"),
        ] {
            assert!(found.contains(&expected), "{expected} in {found:?}");
        }
        let reported = s.column(&format!(
            "SELECT message FROM partition_router.maintenance_log WHERE status = 'skipped' AND parent LIKE '%{table}'"
        ));
        assert!(
            reported.iter().any(|message| message.contains("no ulid")),
            "{reported:?}"
        );
        // By hand too, and a bound may be short.
        s.run(&format!(
            "SELECT partition_router.create_range_partition('{table}', '{table}_old', '00', '01')"
        ));
        // Ahead of what is newest in partitions, and nothing anew.
        s.run(&format!(
            "SELECT partition_router.set_policy('{table}', premake => 2);
             INSERT INTO {table} SELECT {case}(ulid(now(), 1));
             CALL partition_router.run_maintenance('{table}');
             CALL partition_router.run_maintenance('{table}')"
        ));
        let ahead = s.one("SELECT to_char(timezone('UTC', now()) + interval '2 months', '_YYYY_MM')");
        assert!(partitions(&mut s, table).contains(&format!("{table}{ahead}=0")));
    }
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    // Retention goes by their time.
    s.run(
        "SELECT partition_router.set_policy('a', retention => '1 month', retention_action => 'drop');
         CALL partition_router.run_maintenance('a')",
    );
    assert!(
        !partitions(&mut s, "a")
            .iter()
            .any(|name| name.starts_with("a_2025_0"))
    );
}

#[test]
fn text_in_another_order_than_its_bytes_is_refused() {
    let mut s = Session::new("ulid_order");
    s.run(
        "CREATE TABLE wrong (id text COLLATE \"und-x-icu\" NOT NULL) PARTITION BY RANGE (id);
         CREATE TABLE half (id text COLLATE \"und-x-icu\" NOT NULL) PARTITION BY RANGE (id COLLATE \"C\");
         CREATE TABLE plain (id text COLLATE \"und-x-icu\" PRIMARY KEY);
         CREATE TABLE posix (id text COLLATE \"POSIX\" NOT NULL) PARTITION BY RANGE (id)",
    );
    for table in ["wrong", "half"] {
        let call = format!("SELECT partition_router.manage('{table}', '1 month')");
        assert_eq!(s.sqlstate(&call), "PR006", "{table}");
    }
    assert_eq!(
        s.sqlstate("SELECT partition_router.create_twin('plain', 'id')"),
        "PR006"
    );
    let findings = s.column(
        "SELECT code || ' ' || hint FROM partition_router.preflight('plain', 'id') WHERE severity = 'error'",
    );
    assert!(
        findings.iter().any(|finding| finding.contains("COLLATE \"C\"")),
        "{findings:?}"
    );
    s.run("SELECT partition_router.manage('posix', '1 month')");
}

#[test]
fn a_table_with_ulids_is_migrated_and_both_sides_stay_equal() {
    let mut s = Session::new("ulid_pair");
    s.run(ULID);
    s.run(
        "CREATE TABLE t (id varchar(26) COLLATE \"C\" PRIMARY KEY, note text);
         INSERT INTO t SELECT ulid(timestamptz '2025-01-01Z' + n * interval '1 hour', n), 'old' FROM generate_series(0, 2000) n;
         CALL partition_router.migrate('t', 'id');
         INSERT INTO t SELECT ulid(now(), n), 'new' FROM generate_series(1, 50) n;
         UPDATE t SET id = ulid(timestamptz '2025-02-02Z', 1) WHERE id = (SELECT min(id) FROM t);
         DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id OFFSET 100 LIMIT 10);
         CALL partition_router.run_maintenance('t')",
    );
    assert_eq!(
        s.one("SELECT bool_and(matches)::text FROM partition_router.verify('t', 'rows')"),
        "true"
    );
    assert_eq!(s.one("SELECT count(*)::text FROM t_default"), "0");
    assert_eq!(
        s.one("SELECT count(*)::text FROM t_2025_01"),
        (744 - 1 - 10).to_string()
    );
    s.run("CALL partition_router.switchover('t'); CALL partition_router.cleanup('t'); CALL partition_router.run_maintenance('t')");
    assert_eq!(
        s.one("SELECT count(*)::text FROM t"),
        (2001 + 50 - 10).to_string()
    );
}

#[test]
fn partitions_begin_at_the_origin_that_is_chosen() {
    let mut s = Session::new("origin");
    for (table, kind, interval, origin, rows, expected) in [
        (
            "fortnight",
            "date",
            "2 weeks",
            "2025-01-13",
            "'2025-01-12'), ('2025-01-13'), ('2025-01-26'), ('2025-01-27'",
            vec![
                "fortnight_2025_w01=100",
                "fortnight_2025_w03=200",
                "fortnight_2025_w05=100",
            ],
        ),
        (
            "shift",
            "timestamptz",
            "8 hours",
            "2025-01-01 06:00",
            "'2025-03-01 05:59:59Z'), ('2025-03-01 06:00Z'), ('2025-03-01 13:59Z'",
            vec!["shift_2025_02_28_22=100", "shift_2025_03_01_06=200"],
        ),
        (
            "ten",
            "timestamp",
            "10 days",
            "2025-03-01 06:00",
            "'2025-03-01 05:00'), ('2025-03-01 06:00'), ('2025-03-11 05:00'",
            vec!["ten_2025_02_19_060000=100", "ten_2025_03_01_060000=200"],
        ),
        (
            "fiscal",
            "timestamp",
            "1 year",
            "April 1, 2020",
            "'2025-03-31'), ('2025-04-01'), ('2026-03-31'",
            vec!["fiscal_2024_04=100", "fiscal_2025_04=200"],
        ),
        (
            "month",
            "timestamptz",
            "1 month",
            "2024-01-15",
            "'2025-03-14 22:59Z'), ('2025-03-14 23:00Z'), ('2025-03-14 23:01Z'",
            vec!["month_2025_02_15=100", "month_2025_03_15=200"],
        ),
        (
            "number",
            "int",
            "10",
            "3",
            "2), (3), (12",
            vec!["number_n7=100", "number_p3=200"],
        ),
    ] {
        s.run(&format!(
            "CREATE TABLE {table} (at {kind} NOT NULL) PARTITION BY RANGE (at);
             CREATE TABLE {table}_default PARTITION OF {table} DEFAULT;
             INSERT INTO {table} SELECT v::{kind} FROM (VALUES ({rows})) x(v), generate_series(1, 100);
             SELECT partition_router.manage('{table}', '{interval}', premake => 0, timezone => 'Europe/Vienna', origin => '{origin}');
             CALL partition_router.run_maintenance('{table}');
             CALL partition_router.run_maintenance('{table}')"
        ));
        let found = partitions(&mut s, table);
        for one in expected {
            assert!(found.contains(&one.to_string()), "{one} in {found:?}");
        }
        assert!(found.contains(&format!("{table}_default=0")));
    }
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    for (table, origin) in [
        ("fortnight", "2025-01-13 06:00"),
        ("fiscal", "2025-01-31"),
        ("number", "2025-01-13"),
    ] {
        let call = format!("SELECT partition_router.set_policy('{table}', origin => '{origin}')");
        assert_eq!(s.sqlstate(&call), "22023", "{table}");
    }
    // Taken back: what comes next is cut as usual, beside what is there.
    s.run("SELECT partition_router.set_policy('fiscal', origin => '')");
    assert_eq!(
        s.one("SELECT count(origin)::text FROM partition_router.policy WHERE parent = 'fiscal'::regclass"),
        "0"
    );
}

#[test]
fn a_twin_is_cut_from_the_origin_and_so_are_the_partitions_that_follow() {
    let mut s = Session::new("origin_pair");
    s.run(
        "CREATE TABLE t (id int, at date NOT NULL, PRIMARY KEY (id, at));
         INSERT INTO t SELECT n, date '2025-01-01' + n FROM generate_series(0, 60) n;
         CALL partition_router.migrate('t', 'at', partition_interval => '2 weeks', origin => '2025-01-01');
         CALL partition_router.run_maintenance('t')",
    );
    let names = s.column(
        "SELECT relname::text FROM pg_class JOIN pg_inherits ON inhrelid = oid WHERE inhparent = 't_partitioned'::regclass ORDER BY 1",
    );
    assert_eq!(names[..2], ["t_2025_01_01", "t_2025_01_15"]);
    let gaps = s.one(
        "SELECT count(*)::text FROM (
             SELECT substring(pg_get_expr(relpartbound, oid) FROM 'FROM \\(''([^'']*)')::date - lag(substring(pg_get_expr(relpartbound, oid) FROM 'TO \\(''([^'']*)')::date) OVER (ORDER BY relname) AS gap
             FROM pg_class JOIN pg_inherits ON inhrelid = oid WHERE inhparent = 't_partitioned'::regclass AND relname NOT LIKE '%default') x
         WHERE gap <> 0",
    );
    assert_eq!(gaps, "0");
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
}

/// Zones with the day around which their clocks change: at midnight, at three minutes to it, of half an hour, of a whole day.
const CHANGES: &[(&str, &str)] = &[
    ("Africa/Cairo", "2023-04-28"),
    ("America/Havana", "2024-03-10"),
    ("America/Havana", "2024-11-03"),
    ("America/St_Johns", "2010-11-07"),
    ("America/Sao_Paulo", "2018-11-04"),
    ("Asia/Beirut", "2022-10-30"),
    ("Australia/Lord_Howe", "2024-04-07"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Kathmandu", "2024-02-29"),
];

#[test]
fn the_server_cuts_days_weeks_and_months_of_every_zone_without_gap_overlap_or_drift() {
    let mut s = Session::new("zones_server");
    for (number, (zone, day)) in CHANGES.iter().enumerate() {
        for (interval, name) in [
            ("1 day", "YYYY_MM_DD"),
            ("1 week", "IYYY_\"w\"IW"),
            ("1 month", "YYYY_MM"),
        ] {
            let table = format!("z{number}_{}", &interval[2..]);
            s.run(&format!(
                "CREATE TABLE {table} (at timestamptz NOT NULL) PARTITION BY RANGE (at);
                 CREATE TABLE {table}_default PARTITION OF {table} DEFAULT;
                 INSERT INTO {table} SELECT timestamptz '{day} 00:00Z' + n * interval '15 minutes' FROM generate_series(-500, 500) n;
                 SELECT partition_router.manage('{table}', '{interval}', premake => 0, timezone => '{zone}');
                 SELECT count(*) FROM partition_router.create_partitions('{table}')"
            ));
            assert_eq!(
                s.one(&format!("SELECT count(*)::text FROM {table}_default")),
                "0",
                "{zone} {interval}"
            );
            // Every row lies where its local date says, but for those whose local time comes twice.
            let elsewhere = s.one(&format!(
                "SELECT count(*)::text FROM {table} WHERE timezone('{zone}', timezone('{zone}', at)) = at
                     AND tableoid::regclass::text <> '{table}_' || to_char(timezone('{zone}', at), '{name}')"
            ));
            assert_eq!(elsewhere, "0", "{zone} {interval}");
            // Neighbours meet, and each begins at midnight, or with the first moment of a day that has none.
            let wrong = s.column(&format!(
                "SELECT concat_ws(' ', lower, upper, previous) FROM (
                     SELECT lower, upper, lag(upper) OVER (ORDER BY lower) AS previous FROM (
                         SELECT substring(b FROM 'FROM \\(''([^'']*)')::timestamptz AS lower, substring(b FROM 'TO \\(''([^'']*)')::timestamptz AS upper
                         FROM pg_inherits i, LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS b FROM pg_class c WHERE c.oid = i.inhrelid) x
                         WHERE i.inhparent = '{table}'::regclass AND b LIKE 'FOR%') r
                     WHERE upper < timestamptz '{day}' + interval '2 months') x
                 WHERE previous <> lower OR lower >= upper
                    OR timezone('{zone}', lower)::time <> '00:00'
                       AND timezone('{zone}', lower)::date = timezone('{zone}', lower - interval '1 microsecond')::date"
            ));
            assert_eq!(wrong, [""; 0], "{zone} {interval}");
        }
    }
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
}
