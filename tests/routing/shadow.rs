//! Dark reads: what is compared, what is noted, and that nobody who reads can tell.

use crate::Routed;
use crate::common::{one, plant, run, sqlstate, texts};
use postgres::Client;

const NOTED: &str =
    "SELECT concat_ws(' ', is_equal, twin_rows, legacy_rows, twin_ms >= 0, legacy_ms >= 0, error)
    FROM partition_router.shadow_reads ORDER BY id";

fn sampled(test: &str) -> Routed {
    let mut routed = Routed::new(test);
    routed.run(&[
        "UPDATE revenues SET side = 'both'",
        "SET partition_router.shadow_sample = 1",
    ]);
    routed
}

fn noted(c: &mut Client) -> Vec<String> {
    run(c, &["SET partition_router.shadow_sample = 0"]);
    let noted = texts(c, NOTED);
    run(
        c,
        &[
            "DELETE FROM partition_router.shadow_read",
            "SET partition_router.shadow_sample = 1",
        ],
    );
    noted
}

#[test]
fn equal_reads_are_noted_as_equal() {
    let mut routed = sampled("equal");
    let c = &mut routed.client;
    for (query, rows) in [
        ("SELECT * FROM revenues", 500),
        (
            "SELECT org, sum(amount), avg(amount::float8) FROM revenues GROUP BY org",
            10,
        ),
        ("SELECT id FROM revenues ORDER BY id DESC LIMIT 7", 7),
        ("SELECT r FROM revenues r WHERE id < 4", 3),
        ("SELECT string_agg(org, ',' ORDER BY id) FROM revenues", 1),
        ("SELECT max(org) FROM revenues", 1),
        ("SELECT * FROM revenues WHERE false", 0),
    ] {
        run(c, &[query]);
        assert_eq!(noted(c), [format!("t {rows} {rows} t t")], "{query}");
    }
    run(
        c,
        &[
            "PREPARE p(text) AS SELECT * FROM revenues WHERE org = $1",
            "EXECUTE p('3')",
        ],
    );
    assert_eq!(noted(c), ["t 50 50 t t"]);
    let text: Vec<String> = {
        run(c, &["SELECT 1; SELECT count(*) FROM revenues ; SELECT 2"]);
        texts(c, "SELECT query FROM partition_router.shadow_reads")
    };
    assert_eq!(text, ["SELECT count(*) FROM revenues"]);
}

#[test]
fn a_difference_is_noted_and_the_reader_gets_the_twins_answer() {
    let mut routed = sampled("different");
    let c = &mut routed.client;
    run(c, &["SET partition_router.shadow_sample = 0"]);
    plant(
        c,
        "revenues_partitioned",
        &[
            "DELETE FROM revenues_partitioned WHERE id = 5",
            "UPDATE revenues_partitioned SET amount = -1 WHERE id = 6",
        ],
    );
    run(c, &["SET partition_router.shadow_sample = 1"]);
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM revenues"), 499);
    assert_eq!(noted(c), ["f 1 1 t t"]);
    assert_eq!(texts(c, "SELECT amount::text FROM revenues WHERE id = 6"), ["-1"]);
    assert_eq!(noted(c), ["f 1 1 t t"]);
    assert!(texts(c, "SELECT amount::text FROM revenues WHERE id = 5").is_empty());
    assert_eq!(noted(c), ["f 0 1 t t"]);
    assert_eq!(texts(c, "SELECT amount::text FROM revenues WHERE id = 7"), ["7"]);
    assert_eq!(noted(c), ["t 1 1 t t"]);
}

#[test]
fn what_cannot_be_compared_is_not() {
    let mut routed = sampled("not_compared");
    let c = &mut routed.client;
    run(
        c,
        &[
            "CREATE SEQUENCE s",
            "CREATE FUNCTION writes() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT nextval(''s'')::int'",
        ],
    );
    for query in [
        "SELECT nextval('s') FROM revenues",
        "SELECT writes() FROM revenues WHERE id < 9",
        "SELECT random() FROM revenues",
        "SELECT id FROM revenues LIMIT 3",
        "SELECT id FROM revenues ORDER BY org LIMIT 3",
        "SELECT DISTINCT ON (org) id FROM revenues",
        "SELECT count(*) FROM (SELECT org FROM revenues LIMIT 3) x",
        "SELECT array_agg(id) FROM revenues",
        "SELECT string_agg(org, ',') FROM revenues",
        "SELECT row_number() OVER (ORDER BY org) FROM revenues",
        "SELECT id FROM revenues FOR UPDATE",
        "SELECT count(*) FROM pg_class",
        "EXPLAIN ANALYZE SELECT * FROM revenues",
    ] {
        run(c, &[query]);
        assert!(noted(c).is_empty(), "{query}");
    }
    run(
        c,
        &[
            "SET partition_router.use_partitioned_tables = off",
            "SELECT id FROM revenues",
        ],
    );
    assert!(noted(c).is_empty(), "a read of the legacy");
    assert_eq!(one::<i64>(c, "SELECT nextval('s')"), 509, "nothing was run twice");
}

#[test]
fn an_error_of_the_comparison_is_noted_and_not_raised() {
    let mut routed = sampled("shadow_error");
    let c = &mut routed.client;
    run(c, &["SET partition_router.shadow_sample = 0"]);
    plant(
        c,
        "revenues_partitioned",
        &["UPDATE revenues_partitioned SET amount = 1 WHERE amount = 8"],
    );
    run(c, &["SET partition_router.shadow_sample = 1", "BEGIN"]);
    assert_eq!(
        texts(c, "SELECT sum(1 / (amount - 8))::text FROM revenues WHERE id = 8"),
        ["0"]
    );
    run(c, &["COMMIT"]);
    assert_eq!(noted(c), ["1 t division by zero"]);
    assert_eq!(sqlstate(c, "SELECT 1 / (amount - 9) FROM revenues"), "22012");
    assert!(noted(c).is_empty(), "a read that fails has no answer to compare");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM revenues"), 500);
}

#[test]
fn reads_within_functions_and_blocks_are_compared_too() {
    let mut routed = sampled("shadow_nested");
    let c = &mut routed.client;
    run(
        c,
        &["CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql STABLE AS
             $$ DECLARE n bigint; BEGIN SELECT sum(amount) INTO n FROM revenues; RETURN n; END $$"],
    );
    assert_eq!(one::<i64>(c, "SELECT total()"), 125_250);
    assert!(noted(c).iter().all(|line| line == "t 1 1 t t"));
    run(
        c,
        &[
            "BEGIN",
            "SELECT count(*) FROM revenues",
            "SAVEPOINT s",
            "SELECT id FROM revenues",
            "ROLLBACK TO s",
            "COMMIT",
        ],
    );
    assert_eq!(noted(c), ["t 1 1 t t"], "what is rolled back is not noted");
    run(
        c,
        &[
            "BEGIN",
            "INSERT INTO revenues (org, at) VALUES ('x', '2026-01-01')",
        ],
    );
    run(c, &["SELECT count(*) FROM revenues", "COMMIT"]);
    assert_eq!(noted(c), ["t 1 1 t t"]);
}

#[test]
fn a_read_only_transaction_is_noted_in_the_log_alone() {
    let mut routed = sampled("shadow_read_only");
    let marker = format!("marker_{}", routed.database.name);
    let c = &mut routed.client;
    run(
        c,
        &[
            &format!("SET application_name = '{marker}'"),
            "BEGIN READ ONLY",
            "SELECT id FROM revenues WHERE id < 3",
        ],
    );
    assert!(one::<bool>(c, "SELECT pg_current_xact_id_if_assigned() IS NULL"));
    run(c, &["COMMIT"]);
    assert!(noted(c).is_empty());
    let log =
        std::fs::read_to_string(format!("{}/log", routed.database.cluster.directory())).expect("the log");
    let line = log
        .lines()
        .find(|line| line.contains(&marker) && line.contains("shadow read: equal; twin 2 rows"))
        .expect("a line");
    assert!(line.ends_with("SELECT id FROM revenues WHERE id < 3"), "{line}");
}

#[test]
fn a_share_is_a_share() {
    let mut routed = sampled("shadow_share");
    let c = &mut routed.client;
    run(c, &["SET partition_router.shadow_sample = 0.2"]);
    for _ in 0..400 {
        run(c, &["SELECT id FROM revenues WHERE id = 1"]);
    }
    let count = noted(c).len();
    // Five standard deviations of 80.
    assert!((40..120).contains(&count), "{count}");
}

#[test]
fn an_order_that_is_total_counts() {
    let mut routed = sampled("total_order");
    let c = &mut routed.client;
    run(c, &["SET partition_router.shadow_sample = 0"]);
    plant(
        c,
        "revenues_partitioned",
        &["UPDATE revenues_partitioned SET amount = 11 - amount WHERE id IN (5, 6)"],
    );
    run(c, &["SET partition_router.shadow_sample = 1"]);
    run(c, &["SELECT amount FROM revenues ORDER BY id"]);
    assert_eq!(noted(c), ["f 500 500 t t"]);
    run(c, &["SELECT amount FROM revenues"]);
    assert_eq!(noted(c), ["t 500 500 t t"]);
}

#[test]
fn a_comparison_has_the_snapshot_of_its_read() {
    let mut routed = sampled("one_snapshot");
    let mut writer = routed.database.connect();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = std::sync::Arc::clone(&done);
    let writing = std::thread::spawn(move || {
        let mut writes = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            run(&mut writer, &["UPDATE revenues SET amount = amount + 1"]);
            writes += 1;
        }
        writes
    });
    let c = &mut routed.client;
    for _ in 0..100 {
        run(c, &["SELECT count(*), sum(amount) FROM revenues"]);
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let writes: i32 = writing.join().expect("the writer ends");
    let noted = noted(c);
    assert!(writes > 0);
    assert_eq!(noted.len(), 100);
    assert!(noted.iter().all(|line| line == "t 1 1 t t"), "{noted:?}");
}

#[test]
fn a_comparison_sees_nothing_newer_than_its_read() {
    let mut routed = sampled("nothing_newer");
    let mut writer = routed.database.connect();
    run(
        &mut writer,
        &[
            "CREATE TABLE surcharge AS SELECT 0 AS n",
            "CREATE FUNCTION held_up() RETURNS int LANGUAGE plpgsql STABLE AS
             $$ BEGIN PERFORM pg_advisory_lock_shared(7); PERFORM pg_advisory_unlock_shared(7);
             RETURN (SELECT n FROM surcharge); END $$",
            "SELECT pg_advisory_lock(7)",
        ],
    );
    let c = &mut routed.client;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| one::<i64>(c, "SELECT sum(amount) + held_up() FROM revenues"));
        while !one::<bool>(
            &mut writer,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
        ) {
            assert!(!reading.is_finished(), "the read was not held up");
        }
        // The read has its snapshot, and its comparison is yet to come.
        run(
            &mut writer,
            &[
                "UPDATE revenues SET amount = amount + 1",
                "UPDATE surcharge SET n = 1",
                "SELECT pg_advisory_unlock(7)",
            ],
        );
        assert_eq!(reading.join().expect("the read ends"), 125_250);
    });
    assert_eq!(noted(&mut routed.client), ["t 1 1 t t"]);
}
