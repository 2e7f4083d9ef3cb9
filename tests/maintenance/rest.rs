//! Many tables in one call: those with nothing to do are passed over together, and none that has something to do is among them;
//! what is due ahead of a table is made in one transaction.

use crate::common::clock_seed;
use crate::session::Session;
use crate::{events, managed, month, partitions};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The tables that a call for all goes through, one by one.
fn looked_at(s: &mut Session) -> Vec<String> {
    s.column(
        "SELECT x.t::text FROM unnest(partition_router.maintenance_targets(NULL, 'all')) x (t) ORDER BY 1",
    )
}

#[test]
fn tables_with_nothing_to_do_are_passed_over_in_one_transaction() {
    let mut s = Session::new("at_rest");
    for table in ["a", "b", "c"] {
        managed(&mut s, table, 2);
    }
    assert_eq!(looked_at(&mut s), ["a", "b", "c"], "partitions are missing");
    s.run("CALL partition_router.run_maintenance()");
    for table in ["a", "b", "c"] {
        s.run(&format!("INSERT INTO {table} VALUES (1, timezone('UTC', now()))"));
    }
    s.run("UPDATE partition_router.policy SET last_error = 'old', last_run_at = NULL");
    assert_eq!(looked_at(&mut s), [""; 0]);
    s.run("CALL partition_router.run_maintenance()");
    assert_eq!(
        s.column(
            "SELECT count(DISTINCT xmin::text) || ' ' || count(last_run_at) || ' ' || count(last_error) FROM partition_router.policy"
        ),
        ["1 3 0"],
        "that they were looked at is noted"
    );
    // Whoever is at a policy is not waited for.
    let mut other = s.another();
    other.run("BEGIN; UPDATE partition_router.policy SET premake = 2 WHERE parent = 'b'::regclass");
    assert_eq!(looked_at(&mut s), ["b"]);
    other.run("ROLLBACK");
}

#[test]
fn no_table_with_something_to_do_is_passed_over() {
    let mut s = Session::new("not_at_rest");
    let next = month(&mut s, 2);
    for (table, trouble) in [
        ("stray", "INSERT INTO stray VALUES (1, '2001-01-01')".to_owned()),
        ("ahead", "INSERT INTO ahead VALUES (1, timezone('UTC', now()) + interval '1 month')".into()),
        ("gap", format!("DROP TABLE gap{}", month(&mut s, 1))),
        ("short", format!("DROP TABLE short{next}")),
        ("wish", "SELECT partition_router.set_policy('wish', premake => 3)".into()),
        (
            "old",
            "CREATE TABLE old_first PARTITION OF old FOR VALUES FROM (MINVALUE) TO ('2001-01-01');
             CREATE TABLE old_rest PARTITION OF old FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
             SELECT partition_router.set_policy('old', retention => '2 years')"
                .into(),
        ),
        (
            "held",
            "CREATE TABLE held_first PARTITION OF held FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
             SELECT partition_router.set_policy('held', retention => '2 years');
             SELECT partition_router.hold('held_first')"
                .into(),
        ),
        ("bad", "UPDATE partition_router.policy SET partition_interval = 'nonsense' WHERE parent = 'bad'::regclass".into()),
    ] {
        managed(&mut s, table, 2);
        s.run("CALL partition_router.run_maintenance()");
        assert_eq!(looked_at(&mut s), [""; 0], "{table} is at rest");
        s.run(&trouble);
        assert_eq!(looked_at(&mut s), [table]);
        s.run("CALL partition_router.run_maintenance()");
        if table == "bad" {
            assert_eq!(events(&mut s, "status = 'failed'").len(), 1, "an error is told");
        }
        s.run(&format!("DROP TABLE {table}"));
    }
    // Numbers tell no time: their newest row is looked for.
    s.run(
        "CREATE TABLE n (id int) PARTITION BY RANGE (id);
         CREATE TABLE n_default PARTITION OF n DEFAULT;
         SELECT partition_router.manage('n', '10', premake => 1);
         CALL partition_router.run_maintenance()",
    );
    assert_eq!(looked_at(&mut s), ["n"]);
}

/// A table by chance: key, interval, zone, retention; with partitions taken out, rows here and there.
fn by_chance(s: &mut Session, rng: &mut ChaCha8Rng, table: &str) {
    let key = ["date", "timestamp", "timestamptz"][rng.random_range(0..3)];
    let interval = ["1 day", "1 week", "1 month", "3 months", "1 year", "6 hours"]
        [rng.random_range(0..if key == "date" { 5 } else { 6 })];
    let zone = ["UTC", "Asia/Beirut", "America/Sao_Paulo", "Pacific/Apia"][rng.random_range(0..4)];
    s.run(&format!(
        "CREATE TABLE {table} (at {key} NOT NULL) PARTITION BY RANGE (at);
         SELECT partition_router.manage('{table}', '{interval}', premake => {}, timezone => '{zone}')",
        rng.random_range(0..5)
    ));
    if rng.random_bool(0.8) {
        s.run(&format!(
            "CREATE TABLE {table}_default PARTITION OF {table} DEFAULT"
        ));
    }
    s.run(&format!("CALL partition_router.run_maintenance('{table}')"));
    if rng.random_bool(0.5) {
        // Without a default there is no place where it is another day than in UTC.
        s.sqlstate(&format!("INSERT INTO {table} VALUES (timezone('UTC', now()))"));
    }
    if rng.random_bool(0.2) {
        let ahead = ["1 day", "40 days", "100 days", "3 years", "-50 days"][rng.random_range(0..5)];
        s.sqlstate(&format!(
            "INSERT INTO {table} VALUES (timezone('UTC', now()) + interval '{ahead}')"
        ));
    }
    if rng.random_bool(0.2) {
        let names = s.column(&format!(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{table}'::regclass"
        ));
        s.run(&format!("DROP TABLE {}", names[rng.random_range(0..names.len())]));
    }
    if rng.random_bool(0.2) {
        let age = ["1 day", "2 months"][rng.random_range(0..2)];
        s.run(&format!(
            "SELECT partition_router.set_policy('{table}', retention => '{age}')"
        ));
    }
}

#[test]
fn what_is_passed_over_has_nothing_to_do_when_one_looks_closer() {
    let seed = std::env::var("PARTITION_ROUTER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(clock_seed);
    println!("PARTITION_ROUTER_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut s = Session::new("rest_by_chance");
    let tables: Vec<String> = (0..60).map(|n| format!("t{n}")).collect();
    for table in &tables {
        by_chance(&mut s, &mut rng, table);
    }
    let looked_at = looked_at(&mut s);
    let resting: Vec<&String> = tables.iter().filter(|table| !looked_at.contains(table)).collect();
    assert!(resting.len() > 5, "seed {seed}: {} of 60", resting.len());
    for table in resting {
        let due = s.one(&format!(
            "SELECT (t.creating || t.cleaning)::text FROM partition_router.maintenance_tasks('{table}') t"
        ));
        assert_eq!(due, "{}", "seed {seed}: {table}");
    }
    s.run("SELECT partition_router.maintenance_let_go()");
}

/// The transactions that made the partitions of a table, and their number.
fn makers(s: &mut Session, table: &str) -> (usize, usize) {
    let made = s.column(&format!(
        "SELECT i.xmin::text FROM pg_inherits i JOIN pg_partitioned_table p ON p.partrelid = i.inhparent
         WHERE i.inhparent = '{table}'::regclass AND i.inhrelid <> p.partdefid"
    ));
    let distinct: std::collections::HashSet<&String> = made.iter().collect();
    (distinct.len(), made.len())
}

#[test]
fn partitions_ahead_are_made_in_one_transaction_that_nobody_waits_long_for() {
    let mut s = Session::new("at_once");
    managed(&mut s, "t", 5);
    s.run("SET partition_router.lock_timeout = '1min'; CALL partition_router.run_maintenance('t')");
    assert_eq!(makers(&mut s, "t").1, 6);
    assert_eq!(
        s.one("SELECT count(DISTINCT xmin::text)::text FROM partition_router.maintenance_event WHERE action = 'create'"),
        "1"
    );
    assert_eq!(events(&mut s, "action = 'create'").len(), 6);
    // What would hold a lock for longer than half of what others may wait for is left to transactions of its own.
    managed(&mut s, "u", 5);
    s.run("SET partition_router.lock_timeout = '1ms'; CALL partition_router.run_maintenance('u')");
    assert_eq!(makers(&mut s, "u"), (6, 6));
    assert_eq!(events(&mut s, "action = 'create'").len(), 12);
    assert_eq!(partitions(&mut s, "u").len(), 7);
}
