//! What verify need not read again, and what it must.

mod common;

use common::{Cluster, Database, one, plant, run, texts};
use postgres::Client;
use std::sync::Arc;

/// A live pair of about 33 MB a side, whose rows lie in no order of their partitions. On a server of its own: what was written is
/// known only when no transaction that is older runs, in any database, and autovacuum has one.
fn live(name: &str) -> (Database, Client) {
    live_on(Arc::new(Cluster::start(&["autovacuum=off"])), name)
}

fn live_on(cluster: Arc<Cluster>, name: &str) -> (Database, Client) {
    let database = Database::on(cluster, name);
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, note text, extra int) WITH (autovacuum_enabled = off)",
            "ALTER TABLE t ALTER note SET STORAGE PLAIN",
            "INSERT INTO t SELECT g, date '2026-01-01' + g * 37 % 120, repeat('x', 1900), g FROM generate_series(1, 16800) g",
            "CALL partition_router.migrate('t', 'at', premake => 0)",
        ],
    );
    (database, client)
}

/// Verifies, and gives whether both sides are equal and how many rows were read and hashed.
fn verify(client: &mut Client, arguments: &str) -> (bool, i64) {
    let passed = one(
        client,
        &format!("SELECT bool_and(matches) FROM partition_router.verify('t'{arguments})"),
    );
    let read = one(
        client,
        "SELECT (detail ->> 'rows_read')::bigint FROM partition_router.run_log
         WHERE operation = 'verify' ORDER BY id DESC LIMIT 1",
    );
    (passed, read)
}

fn checksums(client: &mut Client, arguments: &str) -> Vec<String> {
    texts(
        client,
        &format!(
            "SELECT concat_ws(' ', partition, legacy_rows, twin_rows, legacy_checksum, twin_checksum)
             FROM partition_router.verify('t'{arguments}) ORDER BY 1"
        ),
    )
}

/// Processes that took part in the last proof.
fn processes(client: &mut Client) -> i64 {
    one(
        client,
        "SELECT (detail ->> 'processes')::bigint FROM partition_router.run_log
         WHERE operation = 'verify' ORDER BY id DESC LIMIT 1",
    )
}

const ROWS: i64 = 16800;

#[test]
fn only_what_was_written_since_the_last_pass_is_read_again() {
    let (_database, mut client) = live("written");
    let c = &mut client;
    assert_eq!(verify(c, ""), (true, 0), "migrate has verified");
    assert_eq!(verify(c, ", full => true"), (true, 2 * ROWS));
    let february: i64 = one(
        c,
        "SELECT count(*) FROM t WHERE at >= '2026-02-01' AND at < '2026-03-01'",
    );
    run(c, &["UPDATE t SET extra = 0 WHERE at = '2026-02-03'"]);
    let (passed, read) = verify(c, "");
    assert!(
        passed && read > 0 && read <= 2 * february,
        "{read} rows of {february}"
    );
    assert_eq!(verify(c, ""), (true, 0));
    assert_eq!(checksums(c, ""), checksums(c, ", full => true"));
    // Inserts, deletes, rows that move.
    run(
        c,
        &[
            "DELETE FROM t WHERE id = 5",
            "INSERT INTO t VALUES (20000, '2026-04-01', 'new', 1)",
            "UPDATE t_partitioned SET at = '2026-03-03' WHERE id = 9",
        ],
    );
    assert!(verify(c, "").0);
    assert_eq!(checksums(c, ""), checksums(c, ", full => true"));
}

#[test]
fn vacuum_changes_pages_and_nothing_that_is_known() {
    let (_database, mut client) = live("vacuum");
    let c = &mut client;
    run(c, &["UPDATE t SET extra = 0 WHERE id % 100 = 0"]);
    assert!(verify(c, "").0);
    run(c, &["VACUUM (FREEZE) t", "VACUUM (FREEZE) t_partitioned"]);
    assert_eq!(verify(c, ""), (true, 0));
    // The visibility map says so from now on; and it hears of a write.
    assert_eq!(verify(c, ""), (true, 0));
    run(c, &["UPDATE t SET extra = 1 WHERE id = 4000"]);
    let (passed, read) = verify(c, "");
    assert!(passed && read > 0 && read < ROWS);
    assert_eq!(checksums(c, ""), checksums(c, ", full => true"));
}

#[test]
fn another_file_or_another_format_ends_what_is_known() {
    let (_database, mut client) = live("format");
    let c = &mut client;
    run(c, &["VACUUM FULL t"]);
    assert_eq!(verify(c, ""), (true, ROWS), "the legacy alone");
    run(c, &["ALTER TABLE t ADD COLUMN more int DEFAULT 7"]);
    assert_eq!(verify(c, ""), (true, 2 * ROWS));
    run(
        c,
        &["TRUNCATE t", "INSERT INTO t VALUES (1, '2026-01-01', 'one', 1)"],
    );
    assert!(verify(c, "").0);
    assert_eq!(checksums(c, ""), checksums(c, ", full => true"));
}

#[test]
fn a_write_around_the_triggers_is_seen() {
    let (_database, mut client) = live("around");
    let c = &mut client;
    assert_eq!(verify(c, ""), (true, 0));
    plant(
        c,
        "t_partitioned",
        &["UPDATE t_partitioned SET extra = -1 WHERE id = 77"],
    );
    assert!(!verify(c, "").0);
    let named = texts(
        c,
        "SELECT concat_ws(' ', kind, key ->> 'id', columns) FROM partition_router.mismatches('t')",
    );
    assert_eq!(named, ["different 77 {extra}"]);
    run(c, &["SELECT partition_router.repair('t')"]);
    assert!(verify(c, "").0);
    // A swap that leaves every number as it was.
    plant(
        c,
        "t",
        &[
            "DELETE FROM t WHERE id = 100",
            "INSERT INTO t SELECT 100, at, note, -5 FROM t_partitioned WHERE id = 100",
        ],
    );
    assert!(!verify(c, "").0);
}

/// The page of such a row is older than the pass, and the row is not: its commit does not touch the page.
#[test]
fn a_row_whose_transaction_was_open_during_the_pass_is_seen_after_it() {
    let (database, mut client) = live("open");
    let c = &mut client;
    run(
        c,
        &[
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE t_2026_02 DISABLE TRIGGER USER",
            "RESET partition_router.carry_ddl",
        ],
    );
    let mut open = database.connect();
    run(
        &mut open,
        &[
            "BEGIN",
            "UPDATE t_2026_02 SET extra = -1 WHERE id = (SELECT min(id) FROM t_2026_02)",
        ],
    );
    for _ in 0..2 {
        // The checkpoint, and the first pass, are places in the log that the open transaction is older than.
        run(c, &["CHECKPOINT"]);
        assert!(verify(c, "").0, "not committed, not seen");
    }
    run(&mut open, &["COMMIT"]);
    assert!(!verify(c, "").0);
}

#[test]
fn a_pass_that_is_rolled_back_leaves_no_mark() {
    let (_database, mut client) = live("rolled_back");
    let c = &mut client;
    run(
        c,
        &[
            "UPDATE t SET extra = 0 WHERE id = 1",
            "BEGIN",
            "SELECT partition_router.verify('t')",
            "ROLLBACK",
        ],
    );
    assert!(verify(c, "").1 > 0, "what was written is read again");
    // Nor does one believe what it has written itself.
    run(
        c,
        &[
            "BEGIN",
            "UPDATE t SET extra = 8 WHERE id = 2",
            "SELECT partition_router.verify('t')",
            "UPDATE t SET extra = 9 WHERE id = 2",
        ],
    );
    assert!(verify(c, "").0);
    run(c, &["COMMIT"]);
    assert!(verify(c, "").0);
    assert_eq!(checksums(c, ""), checksums(c, ", full => true"));
}

#[test]
fn workers_find_what_one_process_finds() {
    let (database, mut client) = live("workers");
    let c = &mut client;
    let alone = checksums(c, ", full => true");
    run(c, &["SET partition_router.verify_workers = 2"]);
    assert_eq!(checksums(c, ", full => true"), alone);
    assert_eq!(processes(c), 2);
    plant(
        c,
        "t_2026_03",
        &["UPDATE t_2026_03 SET extra = -1 WHERE id % 1000 = 0"],
    );
    assert!(!verify(c, "").0);
    assert!(!verify(c, ", full => true").0);
    // Under the snapshot of the leader, whatever was committed since.
    let mut old = database.connect();
    run(
        &mut old,
        &[
            "SET partition_router.verify_workers = 2",
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            "SELECT 1",
        ],
    );
    run(c, &["SELECT partition_router.repair('t')"]);
    let matches: bool = one(
        &mut old,
        "SELECT bool_and(matches) FROM partition_router.verify('t', 'checksum', true)",
    );
    assert!(!matches, "the snapshot is older than the repair");
    run(&mut old, &["COMMIT"]);
    assert!(verify(c, ", full => true").0);
    // What this transaction has written only this process sees.
    run(c, &["BEGIN", "UPDATE t SET extra = 3 WHERE id < 500"]);
    assert_eq!(verify(c, ", full => true"), (true, 2 * ROWS));
    run(c, &["ROLLBACK"]);
}

#[test]
fn workers_read_under_the_leaders_snapshot() {
    let (database, mut client) = live("leaders");
    let c = &mut client;
    let mut old = database.connect();
    run(&mut old, &["SET partition_router.verify_workers = 2"]);
    for round in 0..3 {
        let before = checksums(c, ", full => true");
        run(&mut old, &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"]);
        // Every chunk of both sides is another one in a newer snapshot.
        run(c, &["UPDATE t SET extra = extra + 1"]);
        assert_eq!(checksums(&mut old, ", full => true"), before, "round {round}");
        assert_eq!(processes(&mut old), 2);
        run(&mut old, &["COMMIT"]);
        assert_ne!(checksums(c, ", full => true"), before);
    }
}

#[test]
fn without_free_workers_one_process_proves_alone_and_says_so() {
    let cluster = Cluster::start(&["autovacuum=off", "max_worker_processes=1"]);
    let (database, mut client) = live_on(Arc::new(cluster), "no_workers");
    let alone = checksums(&mut client, ", full => true");
    let (mut hearing, notices) = database.connect_hearing();
    run(&mut hearing, &["SET partition_router.verify_workers = 2"]);
    assert_eq!(checksums(&mut hearing, ", full => true"), alone);
    assert_eq!(processes(&mut hearing), 1);
    let told: Vec<String> = notices.try_iter().collect();
    assert!(told.iter().any(|t| t.contains("1 of 2 processes")), "{told:?}");
}

#[test]
fn maintenance_renews_an_old_proof_and_health_shows_what_it_found() {
    let (_database, mut client) = live("scheduled");
    let c = &mut client;
    let entries =
        "SELECT concat_ws(' ', status, sqlstate, message, row_count) FROM partition_router.maintenance_log
        WHERE action = 'verify' ORDER BY id";
    run(c, &["CALL partition_router.run_maintenance()"]);
    assert!(texts(c, entries).is_empty(), "the proof is not a day old");
    run(
        c,
        &[
            "SET partition_router.verify_interval = 0",
            "CALL partition_router.run_maintenance()",
        ],
    );
    assert_eq!(texts(c, entries), [format!("done both sides are equal {ROWS}")]);
    plant(c, "t_2026_02", &["UPDATE t_2026_02 SET extra = -1"]);
    run(c, &["CALL partition_router.run_maintenance('t')"]);
    let failed = &texts(c, entries)[1];
    assert!(
        failed.starts_with("failed PR014 both sides differ in 1 of "),
        "{failed}"
    );
    assert!(
        failed.ends_with(&format!("the first is public.t_2026_02 {ROWS}")),
        "{failed}"
    );
    let parity = "SELECT concat_ws(' ', status, message LIKE '%differed in 1 partitions', mend)
        FROM partition_router.health WHERE \"check\" = 'parity'";
    assert_eq!(
        one::<String>(c, parity),
        "fail t SELECT * FROM partition_router.repair('public.t'); SELECT * FROM partition_router.verify('public.t')"
    );
    run(
        c,
        &[
            "SELECT partition_router.repair('t')",
            "CALL partition_router.run_maintenance('t')",
        ],
    );
    assert!(one::<String>(c, parity).starts_with("ok"));
    run(
        c,
        &[
            "SET partition_router.verify_interval = -1",
            "CALL partition_router.run_maintenance()",
        ],
    );
    assert_eq!(texts(c, entries).len(), 3);
}
