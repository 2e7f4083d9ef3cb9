//! The calls: who may make them, when, with what, and what a dry run prints.

use crate::session::Session;
use crate::{events, managed, month, partitions};

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
fn the_lease_is_held_between_the_transactions_of_a_call() {
    let mut s = Session::new("lease");
    managed(&mut s, "t", 1);
    managed(&mut s, "u", 1);
    let mut first = s.another();
    // Each statement is a transaction, as in the procedure.
    first.run("SELECT partition_router.maintenance_tasks('t')");
    for call in [
        "CALL partition_router.run_maintenance('t')",
        "SELECT partition_router.create_partitions('t')",
    ] {
        assert_eq!(s.sqlstate(call), "55P03", "{call}");
    }
    first.run("SELECT partition_router.maintenance_tasks('u')");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(s.sqlstate("CALL partition_router.run_maintenance('u')"), "55P03");
    assert_eq!(
        first.sqlstate("SELECT partition_router.maintenance_task('u', 'no task')"),
        "22023"
    );
    // An error is told before the transaction has ended, and the lease with it; the next statement comes after that.
    first.run("SELECT");
    s.run("CALL partition_router.run_maintenance('u')");
    first.run("CALL partition_router.run_maintenance('t')");
    s.run("CALL partition_router.run_maintenance('t')");
    first.run("CALL partition_router.run_maintenance()");
    assert_eq!(
        s.one(
            "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ),
        "0",
        "nothing is held after a call"
    );
}

#[test]
fn one_part_of_maintenance_leaves_the_other_alone() {
    let mut s = Session::new("part");
    managed(&mut s, "t", 0);
    s.run(
        "INSERT INTO t VALUES (1, timezone('UTC', now()) - interval '5 months');
         SELECT partition_router.set_policy('t', retention => '1 month')",
    );
    s.run("CALL partition_router.run_maintenance('t', part => 'create')");
    let old = month(&mut s, -5);
    assert!(partitions(&mut s, "t").contains(&format!("t{old}=1")));
    let rest = partitions(&mut s, "t").len();
    s.run("SELECT partition_router.set_policy('t', premake => 7)");
    s.run("CALL partition_router.run_maintenance('t', dry_run => true, part => 'cleanup')");
    let printed = s.notices();
    assert!(
        printed.iter().all(|n| n.contains("DROP TABLE")) && !printed.is_empty(),
        "{printed:?}"
    );
    s.run("CALL partition_router.run_maintenance('t', part => 'cleanup')");
    assert!(partitions(&mut s, "t").len() < rest);
    s.run("CALL partition_router.run_maintenance('t', part => 'create')");
    assert!(partitions(&mut s, "t").len() > 7);
    assert_eq!(
        s.sqlstate("CALL partition_router.run_maintenance('t', part => 'half')"),
        "22023"
    );
}

#[test]
fn partitions_are_created_in_every_table_before_one_is_retired_in_any() {
    let mut s = Session::new("order");
    for table in ["a", "b"] {
        managed(&mut s, table, 0);
        s.run(&format!(
            "INSERT INTO {table} VALUES (1, timezone('UTC', now()) - interval '5 months');
             CALL partition_router.run_maintenance('{table}');
             SELECT partition_router.set_policy('{table}', retention => '4 months', premake => 2)"
        ));
    }
    s.run("DELETE FROM partition_router.maintenance_event; CALL partition_router.run_maintenance()");
    let done = s.column(
        "SELECT parent || ' ' || action FROM partition_router.maintenance_event WHERE status = 'done' ORDER BY id",
    );
    let last_created = done.iter().rposition(|e| e.ends_with("create")).expect("created");
    let first_dropped = done.iter().position(|e| e.ends_with("drop")).expect("dropped");
    assert!(last_created < first_dropped, "{done:?}");
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
    // Before PostgreSQL 17 no interval is infinite, and the word no length of time.
    let has_infinite = s.one("SELECT (current_setting('server_version_num')::int >= 170000)::text") == "true";
    for infinite in ["infinity", "-infinity"] {
        assert_eq!(
            s.sqlstate(&format!(
                "SELECT partition_router.set_policy('t', retention => '{infinite}')"
            )),
            if has_infinite { "22023" } else { "22007" },
            "{infinite}"
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

#[test]
fn a_snapshot_that_stays_cannot_drop() {
    let mut s = Session::new("isolation");
    s.run(
        "CREATE TABLE t (at date) PARTITION BY RANGE (at);
         CREATE TABLE t_1990 PARTITION OF t FOR VALUES FROM ('1990-01-01') TO ('1991-01-01');
         SELECT partition_router.manage('t', '1 year');
         BEGIN ISOLATION LEVEL REPEATABLE READ",
    );
    assert_eq!(
        s.sqlstate("SELECT partition_router.drop_partition('t_1990')"),
        "0A000"
    );
    s.run("ROLLBACK; SET default_transaction_isolation = 'serializable'");
    s.run("CALL partition_router.run_maintenance('t')");
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    assert!(partitions(&mut s, "t").len() > 3);
}
