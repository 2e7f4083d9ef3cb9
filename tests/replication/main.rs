//! Logical replication between two servers: into either side of a pair, and out of it.

#[path = "../common/mod.rs"]
mod common;

mod switched;

use common::{Cluster, Database, assert_equal_sides, one, plant, run};
use postgres::Client;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

type Servers = (Arc<Cluster>, Arc<Cluster>);

/// The two servers that the tests of this file share.
fn servers() -> Servers {
    static SHARED: OnceLock<Mutex<(Weak<Cluster>, Weak<Cluster>)>> = OnceLock::new();
    let mut shared = SHARED
        .get_or_init(Default::default)
        .lock()
        .expect("no test panicked in here");
    if let (Some(one), Some(other)) = (shared.0.upgrade(), shared.1.upgrade()) {
        return (one, other);
    }
    let start = || {
        Arc::new(Cluster::start(&[
            "wal_level=logical",
            "shared_buffers=32MB",
            "max_logical_replication_workers=12",
            "max_sync_workers_per_subscription=2",
            "max_worker_processes=20",
            "wal_retrieve_retry_interval=100ms",
        ]))
    };
    let servers = (start(), start());
    *shared = (Arc::downgrade(&servers.0), Arc::downgrade(&servers.1));
    servers
}

/// A database on each server; the subscription goes when the test ends.
struct Link {
    publisher: Database,
    subscriber: Database,
    /// Sessions on both.
    origin: Client,
    target: Client,
}

impl Link {
    fn new(test: &str) -> Link {
        let (publisher, subscriber) = servers();
        let publisher = Database::on(publisher, test);
        let subscriber = Database::on(subscriber, test);
        let (origin, target) = (publisher.connect(), subscriber.connect());
        Link {
            publisher,
            subscriber,
            origin,
            target,
        }
    }

    /// Subscribes to the publication `p`.
    fn subscribe(&mut self) {
        self.subscribe_with("copy_data = true");
    }

    /// Subscribes with `options`.
    fn subscribe_with(&mut self, options: &str) {
        let subscribe = format!(
            "CREATE SUBSCRIPTION \"{}\" CONNECTION '{}' PUBLICATION p WITH ({options})",
            self.subscriber.name,
            self.publisher.cluster.conninfo(&self.publisher.name)
        );
        run(&mut self.target, &[&subscribe]);
    }

    /// Waits until a query gives the same on both servers.
    fn until_same(&mut self, query: &str) {
        let started = Instant::now();
        let wanted: Option<String> = one(&mut self.origin, query);
        loop {
            let found: Option<String> = one(&mut self.target, query);
            if found == wanted {
                return;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "{query}: {wanted:?}, but there {found:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            run(
                &mut self.target,
                &[&format!(
                    "DROP SUBSCRIPTION IF EXISTS \"{}\"",
                    self.subscriber.name
                )],
            );
        }
    }
}

const COLUMNS: &str = "id, d, n, t";

/// All of a table's rows, in one text.
fn content(table: &str) -> String {
    format!(
        "SELECT md5(string_agg(concat_ws('|', id, d, n, md5(t)), ',' ORDER BY id, d)) FROM {table} WHERE id < 10000"
    )
}

fn create(table: &str, key: &str) -> String {
    format!("CREATE TABLE {table} (id int, d date NOT NULL, n int, t text, PRIMARY KEY ({key}))")
}

fn fill(table: &str, from: i32) -> String {
    format!(
        "INSERT INTO {table} SELECT g, date '2026-01-01' + g % 80, g, repeat(md5(g::text), 1 + g % 3 * 60)
         FROM generate_series({from}, {from} + 99) g"
    )
}

/// What the publisher does: every kind of change, keys too.
fn changes(table: &str, first: i32) -> Vec<String> {
    let id = |offset: i32| first + offset;
    vec![
        format!(
            "INSERT INTO {table} SELECT g, '2026-02-02', 0, 'new' FROM generate_series({}, {}) g",
            id(200),
            id(220)
        ),
        format!(
            "UPDATE {table} SET n = -1 WHERE id BETWEEN {} AND {}",
            id(0),
            id(10)
        ),
        format!("UPDATE {table} SET t = 'short' WHERE id = {}", id(2)),
        format!(
            "UPDATE {table} SET d = d + 31, n = -2 WHERE id BETWEEN {} AND {}",
            id(5),
            id(15)
        ),
        format!(
            "UPDATE {table} SET id = id + 300 WHERE id BETWEEN {} AND {}",
            id(20),
            id(25)
        ),
        format!(
            "UPDATE {table} SET id = id + 300, d = d + 31 WHERE id BETWEEN {} AND {}",
            id(26),
            id(29)
        ),
        format!("DELETE FROM {table} WHERE id BETWEEN {} AND {}", id(40), id(45)),
        "BEGIN".into(),
        format!("DELETE FROM {table} WHERE id = {}", id(50)),
        "SAVEPOINT s".into(),
        format!("DELETE FROM {table} WHERE id > {}", id(50)),
        "ROLLBACK TO s".into(),
        format!(
            "INSERT INTO {table} VALUES ({}, '2026-03-03', -3, 'again')",
            id(50)
        ),
        format!("UPDATE {table} SET d = d - 31 WHERE id = {}", id(50)),
        "COMMIT".into(),
    ]
}

fn change(client: &mut Client, table: &str, first: i32) {
    for statement in changes(table, first) {
        run(client, &[&statement]);
    }
}

fn compare(client: &mut Client) {
    assert_equal_sides(client, "a", "a_partitioned", COLUMNS);
}

fn step_until(client: &mut Client, stage: &str) {
    let query = "SELECT COALESCE((SELECT stage FROM partition_router.copy_state), 'begin')";
    while one::<String>(client, query) != stage {
        assert!(one::<bool>(
            client,
            "SELECT partition_router.backfill_step('a', 100)"
        ));
    }
}

const IDENTITIES: [&str; 2] = ["DEFAULT", "FULL"];

#[test]
fn changes_that_are_applied_to_the_legacy_reach_the_twin_while_copying_and_live() {
    for identity in IDENTITIES {
        for subscribed_at in ["begin", "copy", "index", "flip", "live"] {
            let mut link = Link::new("into_legacy");
            for client in [&mut link.origin, &mut link.target] {
                run(client, &[&create("a", "id")]);
            }
            run(
                &mut link.origin,
                &[
                    &fill("a", 1),
                    &format!("ALTER TABLE a REPLICA IDENTITY {identity}"),
                    "CREATE PUBLICATION p FOR TABLE a",
                ],
            );
            // Rows that the subscriber has of its own are copied by the backfill.
            run(
                &mut link.target,
                &[
                    &fill("a", 20000),
                    "SELECT partition_router.create_twin('a', 'd')",
                    "SELECT partition_router.start_sync('a')",
                ],
            );
            if subscribed_at == "live" {
                run(&mut link.target, &["CALL partition_router.backfill('a')"]);
            } else {
                step_until(&mut link.target, subscribed_at);
            }
            link.subscribe();
            link.until_same(&content("a"));
            change(&mut link.origin, "a", 1);
            link.until_same(&content("a"));
            run(&mut link.target, &["CALL partition_router.backfill('a')"]);
            compare(&mut link.target);
            // Live now, whatever it was before.
            run(&mut link.origin, &[&fill("a", 5000)]);
            change(&mut link.origin, "a", 5000);
            link.until_same(&content("a"));
            link.until_same(&content("a"));
            compare(&mut link.target);
            assert_eq!(
                one::<i64>(
                    &mut link.target,
                    "SELECT count(*) FROM a_partitioned WHERE id >= 20000"
                ),
                100
            );
            run(&mut link.origin, &["TRUNCATE a", &fill("a", 7000)]);
            link.until_same(&content("a"));
            compare(&mut link.target);
            assert_eq!(
                one::<i64>(&mut link.target, "SELECT count(*) FROM a_partitioned"),
                100
            );
        }
    }
}

#[test]
fn a_truncate_that_is_applied_while_copying_empties_both_sides() {
    for at in ["begin", "copy", "index", "flip"] {
        let mut link = Link::new("truncate");
        for client in [&mut link.origin, &mut link.target] {
            run(client, &[&create("a", "id")]);
        }
        run(
            &mut link.origin,
            &[&fill("a", 1), "CREATE PUBLICATION p FOR TABLE a"],
        );
        link.subscribe();
        link.until_same(&content("a"));
        run(
            &mut link.target,
            &[
                "SELECT partition_router.create_twin('a', 'd')",
                "SELECT partition_router.start_sync('a')",
            ],
        );
        step_until(&mut link.target, at);
        run(
            &mut link.origin,
            &[
                "UPDATE a SET n = 0",
                "TRUNCATE a",
                "INSERT INTO a VALUES (5, '2026-02-02', 5, 'after')",
            ],
        );
        link.until_same(&content("a"));
        run(&mut link.target, &["CALL partition_router.backfill('a')"]);
        compare(&mut link.target);
        assert_eq!(
            one::<i64>(&mut link.target, "SELECT count(*) FROM a_partitioned"),
            1,
            "at {at}"
        );
    }
}

#[test]
fn changes_that_are_applied_to_the_twin_reach_the_legacy_and_nothing_that_points_at_it_is_lost() {
    for identity in IDENTITIES {
        let mut link = Link::new("into_twin");
        run(
            &mut link.origin,
            &[
                &create("a_partitioned", "id, d"),
                &fill("a_partitioned", 1),
                &format!("ALTER TABLE a_partitioned REPLICA IDENTITY {identity}"),
                "CREATE PUBLICATION p FOR TABLE a_partitioned",
            ],
        );
        run(
            &mut link.target,
            &[
                &create("a", "id"),
                &fill("a", 20000),
                "CALL partition_router.migrate('a', 'd')",
            ],
        );
        link.subscribe();
        link.until_same(&content("a_partitioned"));
        compare(&mut link.target);
        assert_eq!(one::<i64>(&mut link.target, "SELECT count(*) FROM a"), 200);
        run(
            &mut link.target,
            &[
                "CREATE TABLE children (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE)",
                "INSERT INTO children SELECT id, id FROM a WHERE id BETWEEN 1 AND 20",
                // What the foreign key does must show in an apply worker, too.
                "DO $$DECLARE name text; BEGIN FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'a'::regclass AND tgconstraint <> 0
                   LOOP EXECUTE format('ALTER TABLE a ENABLE ALWAYS TRIGGER %I', name); END LOOP; END$$",
            ],
        );
        change(&mut link.origin, "a_partitioned", 1);
        link.until_same(&content("a_partitioned"));
        compare(&mut link.target);
        // Moved between partitions, none of the first twenty was ever deleted.
        assert_eq!(
            one::<i64>(&mut link.target, "SELECT count(*) FROM children"),
            20,
            "{identity}"
        );
        run(&mut link.origin, &["DELETE FROM a_partitioned WHERE id <= 4"]);
        link.until_same(&content("a_partitioned"));
        compare(&mut link.target);
        assert_eq!(
            one::<i64>(&mut link.target, "SELECT count(*) FROM children"),
            16,
            "{identity}"
        );
        run(&mut link.target, &["DROP TABLE children"]);
        run(
            &mut link.origin,
            &["TRUNCATE a_partitioned", &fill("a_partitioned", 7000)],
        );
        link.until_same(&content("a_partitioned"));
        compare(&mut link.target);
        assert_eq!(one::<i64>(&mut link.target, "SELECT count(*) FROM a"), 100);
    }
}

#[test]
fn a_twin_that_is_being_copied_refuses_what_is_applied_and_takes_it_when_it_is_live() {
    // Rows that come with the first copy of a subscription, and rows that come later.
    for (options, errors) in [
        ("copy_data = true", "sync_error_count"),
        ("copy_data = false", "apply_error_count"),
    ] {
        let mut link = Link::new("refused");
        run(
            &mut link.origin,
            &[
                &create("a_partitioned", "id, d"),
                "CREATE PUBLICATION p FOR TABLE a_partitioned",
            ],
        );
        run(
            &mut link.target,
            &[
                &create("a", "id"),
                &fill("a", 20000),
                "SELECT partition_router.create_twin('a', 'd')",
                "SELECT partition_router.start_sync('a')",
            ],
        );
        step_until(&mut link.target, "index");
        if options == "copy_data = true" {
            run(&mut link.origin, &[&fill("a_partitioned", 1)]);
            link.subscribe_with(options);
        } else {
            link.subscribe_with(options);
            run(&mut link.origin, &[&fill("a_partitioned", 1)]);
        }
        let refused = format!(
            "SELECT {errors} > 0 FROM pg_stat_subscription_stats WHERE subname = '{}'",
            link.subscriber.name
        );
        let started = Instant::now();
        while !one::<bool>(&mut link.target, &refused) {
            assert!(started.elapsed() < Duration::from_secs(60), "nothing was refused");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(one::<i64>(&mut link.target, "SELECT count(*) FROM a"), 100);
        // A worker that tries again and again holds the twin while it waits for its slot on the publisher.
        let switch = |what| format!("ALTER SUBSCRIPTION \"{}\" {what}", link.subscriber.name);
        let (off, on) = (switch("DISABLE"), switch("ENABLE"));
        run(
            &mut link.target,
            &[&off, "CALL partition_router.backfill('a')", &on],
        );
        link.until_same(&content("a_partitioned"));
        compare(&mut link.target);
        assert_eq!(one::<i64>(&mut link.target, "SELECT count(*) FROM a"), 200);
    }
}

#[test]
fn either_side_can_be_published_and_every_change_arrives_once() {
    for (published, options, key) in [
        ("a_partitioned", "WITH (publish_via_partition_root)", "id, d"),
        ("a", "", "id"),
    ] {
        let mut link = Link::new("out");
        run(
            &mut link.origin,
            &[
                &create("a", "id"),
                &fill("a", 1),
                "SELECT partition_router.create_twin('a', 'd')",
                "SELECT partition_router.start_sync('a')",
                &format!("CREATE PUBLICATION p FOR TABLE {published} {options}"),
            ],
        );
        run(&mut link.target, &[&create(published, key)]);
        // Subscribed before anything is copied: what the copy writes arrives as it is written.
        link.subscribe();
        let synced = "SELECT COALESCE(bool_and(srsubstate = 'r'), false)::text FROM pg_subscription_rel";
        let started = Instant::now();
        while one::<String>(&mut link.target, synced) != "true" {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the subscription never got ready"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        step_until(&mut link.origin, "index");
        change(&mut link.origin, "a", 1);
        run(&mut link.origin, &["CALL partition_router.backfill('a')"]);
        compare(&mut link.origin);
        link.until_same(&content(published));
        for (side, first) in [("a", 1000), ("a_partitioned", 2000)] {
            run(&mut link.origin, &[&fill(side, first)]);
            change(&mut link.origin, side, first);
            run(
                &mut link.origin,
                &[&format!(
                    "MERGE INTO {side} t USING (SELECT g AS id FROM generate_series({0} + 60, {0} + 70) g) s ON t.id = s.id
                     WHEN MATCHED THEN UPDATE SET d = d + 31",
                    first
                )],
            );
            compare(&mut link.origin);
            link.until_same(&content(published));
        }
        run(
            &mut link.origin,
            &[
                "TRUNCATE a",
                &fill("a", 7000),
                "UPDATE a_partitioned SET n = 1 WHERE id < 7010",
            ],
        );
        compare(&mut link.origin);
        link.until_same(&content(published));
        run(
            &mut link.origin,
            &["TRUNCATE a_partitioned", &fill("a_partitioned", 8000)],
        );
        compare(&mut link.origin);
        link.until_same(&content(published));
        assert_eq!(
            one::<i64>(&mut link.target, &format!("SELECT count(*) FROM {published}")),
            100
        );
    }
}

#[test]
fn a_worker_of_replication_reads_the_legacy() {
    let mut link = Link::new("worker_reads");
    run(
        &mut link.origin,
        &[
            "CREATE TABLE sent (id int PRIMARY KEY)",
            "CREATE PUBLICATION p FOR TABLE sent",
        ],
    );
    let database = link.subscriber.name.clone();
    run(
        &mut link.target,
        &[
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, side text)",
            "INSERT INTO a VALUES (0, '2026-01-01', 'both')",
            "CALL partition_router.migrate('a', 'd')",
        ],
    );
    for (table, side) in [("a", "legacy"), ("a_partitioned", "twin")] {
        plant(
            &mut link.target,
            table,
            &[&format!("UPDATE {table} SET side = '{side}'")],
        );
    }
    // What the database says holds for sessions and workers; calling the extension loads the library in either.
    run(
        &mut link.target,
        &[
            &format!("ALTER DATABASE \"{database}\" SET partition_router.transparent = on"),
            &format!("ALTER DATABASE \"{database}\" SET partition_router.use_partitioned_tables = on"),
            "CREATE TABLE sent (id int PRIMARY KEY)",
            "CREATE TABLE seen (id int, side text, settings text)",
            "CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS
             $$ DECLARE found text; BEGIN PERFORM partition_router.route('a'); SELECT side INTO found FROM a WHERE id = 0;
             INSERT INTO seen VALUES (NEW.id, found, current_setting('partition_router.transparent')
                 || ' ' || current_setting('partition_router.use_partitioned_tables')); RETURN NULL; END $$",
            "CREATE TRIGGER look AFTER INSERT ON sent FOR EACH ROW EXECUTE FUNCTION look()",
            "ALTER TABLE sent ENABLE ALWAYS TRIGGER look",
        ],
    );
    let mut session = link.subscriber.connect();
    run(
        &mut session,
        &[
            "INSERT INTO sent VALUES (1)",
            "SELECT partition_router.reset_routing_stats()",
        ],
    );
    link.subscribe_with("copy_data = false");
    run(
        &mut link.origin,
        &["INSERT INTO sent VALUES (1000)", "INSERT INTO sent VALUES (1001)"],
    );
    link.until_same("SELECT count(*)::text FROM sent WHERE id >= 1000");
    let seen = "SELECT string_agg(concat_ws(' ', id, side, settings), ', ' ORDER BY id) FROM seen";
    assert_eq!(
        one::<String>(&mut session, seen),
        "1 twin on on, 1000 legacy on on, 1001 legacy on on"
    );
    let counted = "SELECT string_agg(reason || ' ' || decisions, ', ' ORDER BY reason) FROM partition_router.routing_stats
                   WHERE reason <> 'setting'";
    assert_eq!(
        one::<String>(&mut session, counted),
        "a worker of replication reads 2"
    );
}
