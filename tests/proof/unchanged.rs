//! Partitions that nobody wrote since their last proof are not read again, and whatever writes, the next proof says how
//! it is.

use crate::common::{Cluster, Database, one, plant, run};
use crate::{Slice, live, live_on, told, truth};
use postgres::Client;
use std::sync::Arc;

/// Ways to change one side alone, with its triggers off. `{leaf}` is the first month of the twin, `{stack}` all of a column.
const WRITES: &[(&str, &[&str])] = &[
    ("UPDATE of the legacy", &["UPDATE t SET n = n + 1 WHERE id = 5"]),
    ("UPDATE that is HOT", &["UPDATE t SET v = v || 'x' WHERE id = 6"]),
    (
        "UPDATE of a toasted value",
        &["UPDATE t SET big = repeat(md5('other'), 100) WHERE id = 40"],
    ),
    ("UPDATE of a key", &["UPDATE t SET at = at + 31 WHERE id = 7"]),
    (
        "INSERT into the legacy",
        &["INSERT INTO t (id, at) VALUES (7000, '2026-01-05')"],
    ),
    ("DELETE of the legacy", &["DELETE FROM t WHERE id = 8"]),
    (
        "UPDATE of the twin",
        &["UPDATE t_partitioned SET n = n + 1 WHERE id = 9"],
    ),
    ("DELETE of the twin", &["DELETE FROM t_partitioned WHERE id = 10"]),
    (
        "UPDATE of a leaf",
        &["UPDATE {leaf} SET n = n + 1 WHERE id = (SELECT min(id) FROM {leaf})"],
    ),
    (
        "INSERT into a leaf",
        &["INSERT INTO {leaf} (id, at) VALUES (7001, '2026-01-05')"],
    ),
    (
        "DELETE of a leaf",
        &["DELETE FROM {leaf} WHERE id = (SELECT max(id) FROM {leaf})"],
    ),
    (
        "COPY into a leaf",
        &[
            "COPY (SELECT 7002, date '2026-01-05') TO '/tmp/pr_proof_copy_{pid}'",
            "COPY {leaf} (id, at) FROM '/tmp/pr_proof_copy_{pid}'",
            "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm -f /tmp/pr_proof_copy_{pid}'",
        ],
    ),
    (
        "COPY FREEZE into a leaf",
        &[
            "COPY (SELECT 7003, date '2026-01-05') TO '/tmp/pr_proof_copy_{pid}'",
            "BEGIN; TRUNCATE {leaf}; COPY {leaf} (id, at) FROM '/tmp/pr_proof_copy_{pid}' (FREEZE); COMMIT",
            "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm -f /tmp/pr_proof_copy_{pid}'",
        ],
    ),
    (
        "MERGE into the legacy",
        &["MERGE INTO t USING (VALUES (11)) s (id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = -11"],
    ),
    (
        "MERGE into a leaf",
        &[
            "MERGE INTO {leaf} l USING (SELECT min(id) AS id FROM {leaf}) s ON l.id = s.id WHEN MATCHED THEN DELETE",
        ],
    ),
    (
        "an upsert",
        &["INSERT INTO t (id, at) VALUES (12, '2026-01-13') ON CONFLICT (id) DO UPDATE SET n = -12"],
    ),
    ("TRUNCATE of a leaf", &["TRUNCATE {leaf}"]),
    (
        "TRUNCATE of the legacy",
        &["BEGIN; TRUNCATE t; INSERT INTO t (id, at) VALUES (1, '2026-01-02'); COMMIT"],
    ),
    (
        "a rewrite that changes values",
        &[
            "ALTER TABLE t ALTER v TYPE varchar USING v || 'x'",
            "ALTER TABLE t ALTER v TYPE text",
        ],
    ),
    (
        "a rewrite of the twin",
        &[
            "ALTER TABLE t_partitioned ALTER v TYPE varchar USING v || 'y'",
            "ALTER TABLE t_partitioned ALTER v TYPE text",
        ],
    ),
    (
        "VACUUM FULL and a write",
        &[
            "VACUUM FULL {leaf}",
            "UPDATE {leaf} SET n = -13 WHERE id = (SELECT min(id) FROM {leaf})",
        ],
    ),
    (
        "a write and CLUSTER",
        &[
            "UPDATE {leaf} SET n = -14 WHERE id = (SELECT min(id) FROM {leaf})",
            "CLUSTER {leaf} USING {leaf}_pkey",
        ],
    ),
    (
        "a write and VACUUM FREEZE",
        &[
            "UPDATE {leaf} SET n = -15 WHERE id = (SELECT min(id) FROM {leaf})",
            "VACUUM (FREEZE) {leaf}",
        ],
    ),
    (
        "a write to the legacy and VACUUM FREEZE",
        &[
            "DELETE FROM t WHERE id = 16",
            "VACUUM (FREEZE) t",
            "VACUUM (FREEZE) t_partitioned",
        ],
    ),
    (
        "a write and VACUUM FULL of all",
        &[
            "UPDATE t SET n = -17 WHERE id = 17",
            "VACUUM FULL t",
            "VACUUM FULL t_partitioned",
        ],
    ),
    (
        "a delete whose space is used again",
        &[
            "DELETE FROM {leaf} WHERE id = (SELECT min(id) FROM {leaf})",
            "VACUUM {leaf}",
            "INSERT INTO {leaf} (id, at) VALUES (7004, '2026-01-05')",
            "VACUUM {leaf}",
        ],
    ),
    (
        "names of columns exchanged, and no row written",
        &[
            "ALTER TABLE t ADD w text; ALTER TABLE t_partitioned ADD w text",
            "UPDATE t SET w = 'w'; UPDATE t_partitioned SET w = 'w'",
            "SELECT {settle}",
            "ALTER TABLE t RENAME v TO x; ALTER TABLE t RENAME w TO v; ALTER TABLE t RENAME x TO w",
        ],
    ),
    (
        "columns with other fast defaults, and no row written",
        &["ALTER TABLE t ADD f int DEFAULT 1; ALTER TABLE t_partitioned ADD f int DEFAULT 2"],
    ),
    (
        "a partition exchanged for a table",
        &[
            "ALTER TABLE t_partitioned DETACH PARTITION {leaf}",
            "CREATE TABLE changed (LIKE {leaf} INCLUDING ALL)",
            "INSERT INTO changed SELECT id, at, v, -18, big FROM {leaf}",
            "ALTER TABLE {leaf} RENAME TO old_leaf",
            "ALTER TABLE changed RENAME TO {leaf}",
            "ALTER TABLE t_partitioned ATTACH PARTITION {leaf} FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        ],
    ),
    (
        "a partition changed while it was detached",
        &[
            "ALTER TABLE t_partitioned DETACH PARTITION {leaf}",
            "UPDATE {leaf} SET n = -19 WHERE id = (SELECT min(id) FROM {leaf})",
            "ALTER TABLE t_partitioned ATTACH PARTITION {leaf} FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        ],
    ),
    (
        "triggers dropped and made again",
        &[
            "CREATE TEMP TABLE kept AS SELECT pg_get_triggerdef(oid) AS make, tgname FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal",
            "DO $$ DECLARE r record; BEGIN FOR r IN TABLE kept LOOP EXECUTE format('DROP TRIGGER %I ON t', r.tgname); END LOOP; END $$",
            "UPDATE t SET n = -20 WHERE id = 20",
            "DO $$ DECLARE r record; BEGIN FOR r IN TABLE kept LOOP EXECUTE r.make; END LOOP; END $$",
        ],
    ),
    (
        "a writer whose subtransaction was rolled back",
        &[
            "BEGIN; UPDATE t SET n = -21 WHERE id = 21; SAVEPOINT s; UPDATE t SET n = -22 WHERE id = 22; ROLLBACK TO s; COMMIT",
        ],
    ),
    (
        "a row killed by pg_surgery",
        &[
            "CREATE EXTENSION pg_surgery",
            "DO $$ DECLARE place tid; BEGIN SELECT ctid INTO place FROM {leaf} ORDER BY id LIMIT 1;
             PERFORM heap_force_kill('{leaf}'::regclass, ARRAY[place]); END $$",
        ],
    ),
    (
        "a write in the background that session_replication_role hides",
        &[
            "SET session_replication_role = replica",
            "UPDATE t SET n = -23 WHERE id = 23",
            "RESET session_replication_role",
        ],
    ),
];

/// The triggers of both sides and of all partitions are in force again.
const TRIGGERS_ON: &str = "DO $$ DECLARE r record; BEGIN
    FOR r IN SELECT tgrelid::regclass AS t, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0 AND tgenabled <> 'A' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', r.t, r.tgname);
    END LOOP; END $$";

/// Proves both sides equal until there is nothing left to remember.
fn settle(client: &mut Client, vacuum: bool) {
    if vacuum {
        run(client, &["VACUUM (FREEZE) t", "VACUUM (FREEZE) t_partitioned"]);
    }
    for time in 0..3 {
        assert!(told(client), "settling, {time}");
    }
}

/// Rows that the last proof read.
fn rows_read(client: &mut Client) -> i64 {
    one(
        client,
        "SELECT (detail ->> 'rows_read')::bigint FROM partition_router.run_log
         WHERE operation = 'verify' ORDER BY id DESC LIMIT 1",
    )
}

/// Plants with the triggers of all tables off, and asks. Each write has a pair of its own: some leave their mark.
fn after_each_write(vacuum: bool) {
    let mut slice = Slice::of(if vacuum { 6 } else { 3 });
    for (number, (what, statements)) in WRITES.iter().enumerate() {
        // Those that once went unseen are asked each time.
        let always = what.contains("no row written");
        if !slice.takes() && !always {
            continue;
        }
        let (_database, mut client) = live(&format!("write_{number}"));
        let c = &mut client;
        let leaf: String = one(
            c,
            "SELECT tableoid::regclass::text FROM t_partitioned WHERE at = '2026-01-02' LIMIT 1",
        );
        let pid = crate::pid(c);
        settle(c, vacuum);
        run(c, &["SET partition_router.carry_ddl = off"]);
        for table in ["t", "t_partitioned", &leaf] {
            run(c, &[&format!("ALTER TABLE {table} DISABLE TRIGGER USER")]);
        }
        for statement in *statements {
            if statement.contains("{settle}") {
                settle(c, vacuum);
                continue;
            }
            let statement = statement
                .replace("{leaf}", &leaf)
                .replace("{pid}", &pid.to_string());
            run(c, &[&statement]);
        }
        assert!(!truth(c), "{what}: no difference was planted");
        assert!(!told(c), "{what}: with the triggers still off");
        assert!(!told(c), "{what}: asked again");
        run(c, &[TRIGGERS_ON]);
        assert!(!told(c), "{what}: with the triggers on again");
        let full: bool = one(
            c,
            "SELECT bool_and(matches) FROM partition_router.verify('t', 'checksum', full => true)",
        );
        assert!(!full, "{what}: in full");
        run(c, &["SELECT partition_router.repair('t')"]);
        assert!(truth(c), "{what}: after the repair");
        assert!(told(c), "{what}: told after the repair");
    }
}

#[test]
fn whatever_writes_to_one_side_the_next_proof_finds_it() {
    after_each_write(false);
}

#[test]
fn whatever_writes_to_one_vacuumed_side_the_next_proof_finds_it() {
    after_each_write(true);
}

#[test]
fn what_nobody_wrote_is_not_read_again() {
    // A server of its own: a transaction that is open anywhere keeps what is known back.
    let cluster = Arc::new(Cluster::start(&["autovacuum=off"]));
    let (_database, mut client) = live_on(cluster, "not_read");
    let c = &mut client;
    run(
        c,
        &[
            "INSERT INTO t SELECT g, date '2026-01-01' + g / 100, repeat('x', 900) FROM generate_series(2000, 12000) g",
        ],
    );
    settle(c, false);
    assert_eq!(rows_read(c), 0, "nobody wrote");
    run(c, &["UPDATE t SET n = n + 1 WHERE id = 5"]);
    assert!(told(c));
    let read = rows_read(c);
    assert!(
        read > 0 && read < 11_000,
        "one partition was written through sync: {read} rows of 22,002"
    );
    settle(c, false);
    assert_eq!(rows_read(c), 0, "nobody wrote since");
    run(
        c,
        &["SELECT partition_router.verify('t', 'checksum', full => true)"],
    );
    assert_eq!(rows_read(c), 22_002, "full reads all");
    // Digests and counts of what was not read are those that it has.
    let digests = |c: &mut Client, full: bool| -> String {
        one(
            c,
            &format!(
                "SELECT string_agg(concat_ws(' ', partition, legacy_rows, twin_rows, legacy_checksum, twin_checksum), ',' ORDER BY partition)
                 FROM partition_router.verify('t', 'checksum', full => {full})"
            ),
        )
    };
    assert_eq!(digests(c, false), digests(c, true));
    // While a transaction is open that may have written, its pages are read again; nothing is taken for granted.
    plant(c, "t_partitioned", &["DELETE FROM t_partitioned WHERE id = 6"]);
    assert!(!told(c) && !told(c));
    assert!(rows_read(c) < 22_000, "a failed proof is remembered too");
}

#[test]
fn every_write_through_sync_keeps_the_proof_right() {
    let (_database, mut client) = live("through_sync");
    let c = &mut client;
    for statement in [
        "UPDATE t SET n = -1 WHERE id = 5",
        "UPDATE t_partitioned SET n = -2 WHERE id = 6",
        "DELETE FROM t WHERE id = 7",
        "INSERT INTO t_partitioned (id, at) VALUES (8000, '2026-01-01')",
        "UPDATE t SET at = at + 40 WHERE id BETWEEN 10 AND 20",
        "SET session_replication_role = replica",
        "UPDATE t SET v = 'replica' WHERE id = 30",
        "RESET session_replication_role",
        "ALTER TABLE t ADD COLUMN more int DEFAULT 5",
        "ALTER TABLE t ALTER n TYPE bigint",
        "VACUUM FULL t",
        "ALTER TABLE t DROP COLUMN more",
        "TRUNCATE t",
        "INSERT INTO t SELECT g, date '2026-01-01' + g % 90, 'new', g FROM generate_series(1, 200) g",
    ] {
        run(c, &[statement]);
        for _ in 0..2 {
            assert!(told(c), "{statement}");
        }
        let (by_proof, counted): (i64, i64) = (
            one(
                c,
                "SELECT sum(legacy_rows)::bigint FROM partition_router.verify('t')",
            ),
            one(c, "SELECT count(*) FROM t"),
        );
        assert_eq!(by_proof, counted, "{statement}");
        assert!(truth(c), "{statement}");
    }
}

#[test]
fn what_changes_values_without_a_write_raises_no_alarm() {
    let database = Database::new("renamed");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TYPE mood AS ENUM ('sad', 'ok')",
            "CREATE TYPE place AS (street text, town text)",
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, m mood, p place, n int)",
            "INSERT INTO t SELECT g, date '2026-01-01' + g % 90, 'ok', ROW('s' || g, 't')::place, g FROM generate_series(1, 300) g",
            "CALL partition_router.migrate('t', 'at', premake => 0)",
        ],
    );
    settle(c, false);
    for change in [
        "ALTER TYPE mood RENAME VALUE 'ok' TO 'well'",
        "ALTER TYPE mood ADD VALUE 'glad' BEFORE 'sad'",
        "ALTER TYPE place RENAME ATTRIBUTE street TO road",
        // Exchanged: what was known under the old names says nothing about the new ones.
        "ALTER TYPE place RENAME ATTRIBUTE road TO x; ALTER TYPE place RENAME ATTRIBUTE town TO road; ALTER TYPE place RENAME ATTRIBUTE x TO town",
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'y'; ALTER TYPE mood RENAME VALUE 'well' TO 'sad'; ALTER TYPE mood RENAME VALUE 'y' TO 'well'",
    ] {
        run(c, &[change]);
        // Part of one side is read again, and the rest is not.
        run(c, &["UPDATE t_partitioned SET n = n + 1 WHERE id = 5"]);
        assert!(told(c), "{change}");
        run(c, &["UPDATE t SET n = n + 1 WHERE id = 40"]);
        assert!(told(c), "{change}");
    }
}

#[test]
fn a_failed_proof_is_not_remembered_as_one_that_passed() {
    let (_database, mut client) = live("failed");
    let c = &mut client;
    settle(c, false);
    plant(c, "t", &["UPDATE t SET n = -1 WHERE id = 5"]);
    for _ in 0..4 {
        assert!(!told(c));
    }
    let counts: bool = one(
        c,
        "SELECT bool_and(matches) FROM partition_router.verify('t', 'counts')",
    );
    assert!(counts, "the counts are equal");
    assert!(!told(c), "a pass of counts vouches for no checksum");
    let rows: bool = one(
        c,
        "SELECT bool_and(matches) FROM partition_router.verify('t', 'rows')",
    );
    assert!(!rows && !told(c));
}

#[test]
fn a_database_made_from_another_one_is_looked_at_by_itself() {
    let (database, mut client) = live("template");
    settle(&mut client, true);
    drop(client);
    let copy = format!("{}_copy", database.name);
    let mut admin = database.cluster.connect("postgres");
    crate::until(
        &mut admin,
        &format!(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{}')",
            database.name
        ),
    );
    run(
        &mut admin,
        &[&format!(
            "CREATE DATABASE \"{copy}\" TEMPLATE \"{}\"",
            database.name
        )],
    );
    let mut client = database.cluster.connect(&copy);
    plant(&mut client, "t", &["UPDATE t SET n = -1 WHERE id = 5"]);
    assert!(!told(&mut client));
    let mut original = database.connect();
    assert!(told(&mut original));
    plant(
        &mut original,
        "t_partitioned",
        &["DELETE FROM t_partitioned WHERE id = 6"],
    );
    assert!(!told(&mut original));
    drop(client);
    run(&mut admin, &[&format!("DROP DATABASE \"{copy}\" WITH (FORCE)")]);
}
