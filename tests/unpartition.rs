//! `unpartition`: back to one plain table, while applications write.

mod common;

use common::{Cluster, Database, assert_equal_sides, one, run, sqlstate, texts};
use postgres::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const TABLE: &[&str] = &[
    "CREATE TABLE t (id int NOT NULL, at date NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
    "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
    "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2025-02-01') TO ('2025-03-01') PARTITION BY HASH (id)",
    "CREATE TABLE t_2_0 PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "CREATE TABLE t_2_1 PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "CREATE TABLE t_default PARTITION OF t DEFAULT",
    "INSERT INTO t SELECT g, date '2025-01-01' + g % 80, repeat('n', 50) || g FROM generate_series(1, 9000) g",
];

const CALL: &str = "CALL partition_router.unpartition('t')";

fn with_table(name: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(&mut client, TABLE);
    (database, client)
}

/// One step of the call, in a transaction of its own; true while there is more.
fn step(client: &mut Client, step: &str) -> bool {
    one(
        client,
        &format!("SELECT partition_router.unpartition_step('t', '{step}')"),
    )
}

/// From nothing to both tables in step.
fn prepare(client: &mut Client) {
    while step(client, "PREPARE") {}
}

fn kind(client: &mut Client, table: &str) -> String {
    one(
        client,
        &format!(
            "SELECT COALESCE((SELECT relkind::text FROM pg_class WHERE oid = to_regclass('{table}')), 'none')"
        ),
    )
}

#[test]
fn a_table_that_is_written_all_the_while_ends_plain_and_equal() {
    let (database, mut client) = with_table("unpartition_load");
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|number| {
            let (mut client, stop) = (database.connect(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut written = 0_u64;
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    at = (at + 37) % 9000;
                    for statement in [
                        format!(
                            "INSERT INTO t VALUES ({}, '2025-01-05', 'new')",
                            100_000 * (number + 1) + written
                        ),
                        format!("UPDATE t SET note = note || '!' WHERE id BETWEEN {at} AND {at} + 5"),
                        format!("UPDATE t SET at = at + 20 WHERE id = {}", at + 11),
                        format!("DELETE FROM t WHERE id = {}", at + 3 * number + 20),
                    ] {
                        match client.batch_execute(&statement) {
                            Ok(()) => written += 1,
                            // Writers among themselves: a row that another moved or locked first.
                            Err(error) => {
                                let code = error
                                    .code()
                                    .unwrap_or_else(|| panic!("{statement}: {error:?}"))
                                    .code()
                                    .to_owned();
                                assert!(
                                    ["40001", "40P01"].contains(&code.as_str()),
                                    "{statement}: {error:?}"
                                );
                            }
                        }
                    }
                }
                written
            })
        })
        .collect();
    run(&mut client, &[CALL]);
    stop.store(true, Ordering::Relaxed);
    let written: u64 = writers
        .into_iter()
        .map(|w| w.join().expect("a writer ends"))
        .sum();
    assert!(written > 0);
    assert_eq!(kind(&mut client, "t"), "r");
    assert_eq!(kind(&mut client, "t_partitioned"), "p");
    assert_equal_sides(&mut client, "t", "t_partitioned", "id, at, note");
    let rows: i64 = one(&mut client, "SELECT count(*) FROM t");
    run(&mut client, &["SELECT partition_router.abandon('t')"]);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM t"), rows);
    assert_eq!(kind(&mut client, "t_partitioned"), "none");
    let triggers: i64 = one(
        &mut client,
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass",
    );
    assert_eq!(triggers, 0);
}

#[test]
fn changes_of_rows_that_are_not_copied_yet_arrive_and_deletes_stay() {
    let (_database, mut client) = with_table("unpartition_steps");
    let c = &mut client;
    prepare(c);
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM t_legacy"), 0);
    run(
        c,
        &[
            "DELETE FROM t WHERE id = 8000",
            "UPDATE t SET note = 'mine' WHERE id = 8001",
            "UPDATE t SET at = '2025-02-11' WHERE id = 7999",
            "UPDATE t SET id = 50000 WHERE id = 7998",
            "INSERT INTO t_1 VALUES (50001, '2025-01-11', 'straight into a partition')",
        ],
    );
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM t_legacy"), 4);
    assert!(step(c, "COPY"));
    // What is copied, and what is not, is deleted alike.
    run(c, &["DELETE FROM t WHERE id % 7 = 0"]);
    while step(c, "COPY") {}
    assert_equal_sides(c, "t_legacy", "t", "id, at, note");
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM t_legacy WHERE id IN (8000, 7998, 7)"),
        0
    );
    run(c, &[CALL]);
    assert_eq!(kind(c, "t"), "r");
    // Called again it says so and changes nothing; the way back is the switchover.
    run(c, &[CALL, "CALL partition_router.switchover('t')"]);
    assert_eq!(kind(c, "t"), "p");
    assert_equal_sides(c, "t_legacy", "t", "id, at, note");
}

#[test]
fn an_interrupted_call_goes_on_and_a_rewrite_on_the_way_loses_nothing() {
    let (_database, mut client) = with_table("unpartition_resume");
    let c = &mut client;
    prepare(c);
    step(c, "COPY");
    run(
        c,
        &[
            "BEGIN",
            "SELECT partition_router.unpartition_step('t', 'COPY')",
            "ROLLBACK",
        ],
    );
    let copied: i64 = one(c, "SELECT count(*) FROM t_legacy");
    assert!(copied > 0 && copied < 9000, "{copied}");
    // Rows lie elsewhere now: the copy goes by places.
    run(
        c,
        &[
            "DELETE FROM t WHERE id < 2000",
            "VACUUM FULL t_1",
            "VACUUM FULL t_2_0",
        ],
    );
    run(c, &[CALL]);
    assert_eq!(kind(c, "t"), "r");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM t"), 7001);
    assert_equal_sides(c, "t", "t_partitioned", "id, at, note");
}

/// The tables of `t` that have triggers.
fn with_triggers(client: &mut Client) -> i64 {
    one(
        client,
        "SELECT count(DISTINCT tgrelid) FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('t'))",
    )
}

#[test]
fn triggers_are_laid_a_table_at_a_time_and_let_every_write_pass_until_all_are_there() {
    let (database, mut client) = with_table("unpartition_ahead");
    let c = &mut client;
    let tables: i64 = one(c, "SELECT count(*) FROM pg_partition_tree('t')");
    let mut writer = database.connect();
    // A snapshot that is older than all of it writes later.
    let mut old = database.connect();
    run(
        &mut old,
        &[
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "SELECT count(*) FROM pg_class",
        ],
    );
    let mut laid = with_triggers(c);
    assert_eq!(laid, 0);
    let mut steps = 0;
    while laid < tables {
        assert!(step(c, "PREPARE"));
        let now = with_triggers(c);
        assert!(now - laid <= 1, "{now} of {tables}, {laid} before");
        (laid, steps) = (now, steps + 1);
        assert_eq!(kind(c, "t_legacy"), "none");
        run(
            &mut writer,
            &[
                &format!("INSERT INTO t SELECT 20000 + {steps}, at, 'meanwhile' FROM t WHERE id = 1 LIMIT 1"),
                &format!("UPDATE t SET note = 'changed' WHERE id = {steps}"),
                &format!("DELETE FROM t WHERE id = {steps} + 100"),
            ],
        );
    }
    run(
        &mut old,
        &[
            "INSERT INTO t SELECT 30000, at, 'old' FROM t WHERE id = 1 LIMIT 1",
            "COMMIT",
        ],
    );
    assert_eq!(
        one::<String>(
            c,
            "SELECT mend FROM partition_router.health WHERE \"check\" = 'unpartition'"
        ),
        "CALL partition_router.unpartition('public.t')"
    );
    // Taken back half way, one at a time as well; and begun anew.
    assert!(one::<bool>(
        c,
        "SELECT partition_router.unpartition_step('t', 'CANCEL')"
    ));
    assert!(with_triggers(c) > 0);
    run(c, &["CALL partition_router.unpartition('t', cancel => true)"]);
    assert_eq!(with_triggers(c), 0);
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM partition_router.unpartitioning"),
        0
    );
    assert!(step(c, "PREPARE") && step(c, "PREPARE"));
    // A partition that comes meanwhile, and a column.
    run(
        c,
        &[
            "CREATE TABLE t_late PARTITION OF t FOR VALUES FROM ('2099-01-01') TO ('2099-02-01')",
            "ALTER TABLE t ADD more int DEFAULT 7",
        ],
    );
    prepare(c);
    run(
        c,
        &["INSERT INTO t_late (id, at, note) VALUES (40000, '2099-01-05', 'late')"],
    );
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM t_legacy"), 1);
    run(c, &[CALL]);
    assert_eq!(kind(c, "t"), "r");
    assert_equal_sides(c, "t", "t_partitioned", "id, at, note, more");
}

#[test]
fn a_call_that_is_cancelled_leaves_the_table_as_it_was() {
    let (_database, mut client) = with_table("unpartition_cancel");
    let c = &mut client;
    run(c, &["SELECT partition_router.manage('t', '1 month')"]);
    assert_eq!(
        sqlstate(c, "CALL partition_router.unpartition('t', cancel => true)"),
        "PR011"
    );
    prepare(c);
    step(c, "COPY");
    // Nothing else ends it, since both sides are not equal.
    for call in [
        "CALL partition_router.rollback('t')",
        "CALL partition_router.cleanup('t')",
        "SELECT partition_router.abandon('t')",
    ] {
        assert_eq!(sqlstate(c, call), "PR014", "{call}");
    }
    run(c, &["CALL partition_router.unpartition('t', cancel => true)"]);
    assert_eq!(kind(c, "t_legacy"), "none");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM t"), 9000);
    let triggers: i64 = one(
        c,
        "SELECT count(*) FROM pg_trigger WHERE tgrelid IN (SELECT relid FROM pg_partition_tree('t'))",
    );
    assert_eq!(triggers, 0);
    run(c, &["CALL partition_router.run_maintenance('t')", CALL]);
    assert_eq!(kind(c, "t"), "r");
    assert_equal_sides(c, "t", "t_partitioned", "id, at, note");
    // A pair that was migrated is not to be let go of in this way.
    run(c, &["CALL partition_router.switchover('t')"]);
    assert_eq!(
        sqlstate(c, "CALL partition_router.unpartition('t', cancel => true)"),
        "PR012"
    );
}

#[test]
fn nobody_reads_the_copy_before_it_is_proven() {
    let (database, mut client) = with_table("unpartition_reads");
    let c = &mut client;
    prepare(c);
    step(c, "COPY");
    for query in [
        "SELECT partition_router.route('t')::text",
        "SELECT partition_router.route('t', use_partitioned => false)::text",
    ] {
        assert_eq!(one::<String>(c, query), "t", "{query}");
        run(c, &["SET partition_router.enable_partition_routing = off"]);
        assert_eq!(one::<String>(c, query), "t", "{query}, kill switch");
        run(c, &["RESET partition_router.enable_partition_routing"]);
    }
    // A snapshot that is older than the copy would see an empty table under the name.
    let mut old = database.connect();
    run(
        &mut old,
        &[
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "SELECT count(*) FROM pg_class",
        ],
    );
    assert_eq!(sqlstate(c, CALL), "55P03");
    assert_eq!(one::<i64>(&mut old, "SELECT count(*) FROM t"), 9000);
    run(&mut old, &["COMMIT"]);
    run(c, &[CALL]);
    assert_eq!(kind(c, "t"), "r");
}

#[test]
fn what_the_table_has_the_plain_one_has_too() {
    let database = Database::new("unpartition_faithful");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE ROLE unpartition_reader",
            "CREATE TABLE customer (id int PRIMARY KEY)",
            "INSERT INTO customer SELECT generate_series(1, 10)",
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY, customer int NOT NULL REFERENCES customer ON DELETE CASCADE,
                 cents int CHECK (cents >= 0), twice int GENERATED ALWAYS AS (cents * 2) STORED, at timestamptz NOT NULL DEFAULT now(),
                 PRIMARY KEY (id, customer)) PARTITION BY HASH (customer)",
            "CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
            "CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
            "CREATE INDEX t_cents ON t (cents) WHERE cents > 5",
            "COMMENT ON TABLE t IS 'what customers pay'",
            "GRANT SELECT ON t TO unpartition_reader",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY own ON t USING (cents > 0)",
            "CREATE TABLE seen (id bigint)",
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NULL; END$$",
            "CREATE TRIGGER see AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION see()",
            "CREATE VIEW total AS SELECT sum(cents) AS cents FROM t",
            "INSERT INTO t (customer, cents) SELECT 1 + g % 10, g FROM generate_series(1, 100) g",
            CALL,
            "SELECT partition_router.abandon('t')",
            "INSERT INTO t (customer, cents) VALUES (3, 7)",
            "DELETE FROM customer WHERE id = 4",
        ],
    );
    assert_eq!(kind(c, "t"), "r");
    assert_eq!(one::<i64>(c, "SELECT max(id) FROM t"), 101);
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM t"), 91);
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM t WHERE twice = cents * 2"),
        91
    );
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM seen"), 101);
    assert_eq!(
        one::<i64>(c, "SELECT cents FROM total"),
        one::<i64>(c, "SELECT sum(cents) FROM t")
    );
    assert_eq!(
        one::<String>(c, "SELECT obj_description('t'::regclass)"),
        "what customers pay"
    );
    assert!(one::<bool>(
        c,
        "SELECT has_table_privilege('unpartition_reader', 't', 'SELECT') AND relrowsecurity FROM pg_class WHERE oid = 't'::regclass"
    ));
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM pg_policy WHERE polrelid = 't'::regclass"),
        1
    );
    assert_eq!(
        texts(
            c,
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1"
        ),
        ["t_cents", "t_pkey"]
    );
    assert_eq!(
        sqlstate(c, "INSERT INTO t (customer, cents) VALUES (3, -1)"),
        "23514"
    );
    run(
        c,
        &[
            "REVOKE ALL ON t FROM unpartition_reader",
            "DROP ROLE unpartition_reader",
        ],
    );
}

#[test]
fn what_cannot_be_made_plain_is_refused_before_anything_is_changed() {
    let (database, mut client) = with_table("unpartition_refused");
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE plain (id int PRIMARY KEY)",
            "CREATE TABLE bare (id int) PARTITION BY HASH (id)",
            "CREATE TABLE two (a int, b int, PRIMARY KEY (a, b)) PARTITION BY RANGE (a, b)",
            "CREATE TABLE child (id int, at date, FOREIGN KEY (id, at) REFERENCES t)",
        ],
    );
    for (table, expected) in [
        ("plain", "42809"),
        ("bare", "PR004"),
        ("two", "0A000"),
        ("t_2", "0A000"),
        ("t", "0A000"),
    ] {
        for dry_run in ["false", "true"] {
            let call = format!("CALL partition_router.unpartition('{table}', dry_run => {dry_run})");
            assert_eq!(sqlstate(c, &call), expected, "{table}");
        }
    }
    run(c, &["DROP TABLE child", "CREATE TABLE t_legacy ()"]);
    assert_eq!(sqlstate(c, CALL), "42P07");
    run(
        c,
        &["DROP TABLE t_legacy", "CREATE VIEW both_ways AS SELECT t FROM t"],
    );
    // The view uses the row type, which a table cannot give away: told before a row is copied.
    assert_eq!(sqlstate(c, CALL), "PR021");
    run(
        c,
        &[
            "DROP VIEW both_ways",
            "CREATE ROLE unpartition_other LOGIN",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO unpartition_other",
        ],
    );
    assert_eq!(
        sqlstate(&mut database.connect_as("unpartition_other"), CALL),
        "42501"
    );
    assert_eq!(kind(c, "t_legacy"), "none");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM partition_router.pair"), 0);
    run(c, &["CALL partition_router.unpartition('t', dry_run => true)"]);
    assert_eq!(kind(c, "t_legacy"), "none");
    // The owner needs no more than to own it.
    run(
        c,
        &[
            "GRANT CREATE ON SCHEMA public TO unpartition_other",
            "DO $$DECLARE r regclass; BEGIN FOR r IN SELECT relid FROM pg_partition_tree('t') LOOP
                 EXECUTE format('ALTER TABLE %s OWNER TO unpartition_other', r); END LOOP; END$$",
        ],
    );
    run(
        &mut database.connect_as("unpartition_other"),
        &[CALL, "SELECT partition_router.abandon('t')"],
    );
    assert_eq!(
        one::<String>(c, "SELECT tableowner::text FROM pg_tables WHERE tablename = 't'"),
        "unpartition_other"
    );
    run(
        c,
        &[
            "DROP OWNED BY unpartition_other CASCADE",
            "DROP ROLE unpartition_other",
        ],
    );
}

#[test]
fn a_writer_that_holds_rows_is_given_way_to() {
    let (database, mut client) = with_table("unpartition_locks");
    let c = &mut client;
    prepare(c);
    let mut writer = database.connect();
    run(
        &mut writer,
        &["BEGIN", "UPDATE t SET note = 'held' WHERE id IN (31, 62)"],
    );
    // It gives up after its budget, with who is in the way, and not the writer.
    assert_eq!(sqlstate(c, CALL), "55P03");
    run(
        &mut writer,
        &["UPDATE t SET note = 'held too' WHERE id < 100", "COMMIT"],
    );
    run(c, &[CALL]);
    assert_equal_sides(c, "t", "t_partitioned", "id, at, note");
}

#[test]
fn hash_partitions_are_doubled_while_applications_write() {
    // On a server of its own: a transaction of another test that is older than the copy would make each new one look as old.
    let database = Database::on(Arc::new(Cluster::start(&[])), "unpartition_hash");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE t (id int, org_id int, note text, PRIMARY KEY (id, org_id)) PARTITION BY HASH (org_id)",
            "DO $$BEGIN FOR n IN 0 .. 3 LOOP EXECUTE format(
                 'CREATE TABLE t_%s PARTITION OF t FOR VALUES WITH (MODULUS 4, REMAINDER %s)', n, n); END LOOP; END$$",
            "INSERT INTO t SELECT g, g % 90, 'note' FROM generate_series(1, 3000) g",
        ],
    );
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (mut client, stop) = (database.connect(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut inserted = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                inserted += 1;
                let id = 10_000 + inserted;
                run(
                    &mut client,
                    &[
                        &format!("INSERT INTO t VALUES ({id}, {}, 'new')", id % 90),
                        &format!(
                            "UPDATE t SET note = note || '!' WHERE id = {}",
                            1 + inserted % 3000
                        ),
                    ],
                );
            }
            inserted
        })
    };
    run(
        c,
        &[
            CALL,
            "SELECT partition_router.abandon('t')",
            "CALL partition_router.migrate('t', 'org_id', 'hash', partitions => 8)",
            "CALL partition_router.switchover('t')",
            "CALL partition_router.cleanup('t')",
        ],
    );
    stop.store(true, Ordering::Relaxed);
    let inserted = writer.join().expect("the writer ends");
    assert!(inserted > 0);
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM t"), 3000 + inserted);
    let updated: i64 = one(c, "SELECT sum(length(note) - 4)::bigint FROM t WHERE id <= 3000");
    assert_eq!(updated, inserted);
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 't'::regclass";
    assert_eq!(one::<i64>(c, partitions), 8);
}
