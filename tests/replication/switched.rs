//! Logical replication and names that swap: out of a pair and into it, by root and by partition.

use super::{Link, change, compare, content, create, fill, one, run};

#[test]
fn a_publication_of_the_legacy_goes_on_after_the_names_have_swapped_and_swapped_back() {
    // How the twin's partitions are published, by its root or by themselves: what the switchover makes of the publication counts.
    let mut link = Link::new("switched_out");
    run(
        &mut link.origin,
        &[
            &create("a", "id"),
            &fill("a", 1),
            "CREATE PUBLICATION p FOR TABLE a",
        ],
    );
    run(&mut link.target, &[&create("a", "id")]);
    link.subscribe();
    link.until_same(&content("a"));
    run(&mut link.origin, &["CALL partition_router.migrate('a', 'd')"]);
    change(&mut link.origin, "a", 1);
    link.until_same(&content("a"));
    run(
        &mut link.origin,
        &["CALL partition_router.switchover('a')", &fill("a", 3000)],
    );
    change(&mut link.origin, "a", 3000);
    link.until_same(&content("a"));
    run(
        &mut link.origin,
        &["CALL partition_router.rollback('a')", &fill("a", 5000)],
    );
    change(&mut link.origin, "a", 5000);
    link.until_same(&content("a"));
    compare(&mut link.origin);
    // Nothing came twice, and no row of the other side's name.
    assert_eq!(
        one::<i64>(&mut link.origin, "SELECT count(*) FROM a"),
        one::<i64>(&mut link.target, "SELECT count(*) FROM a")
    );
}

#[test]
fn a_twin_that_is_published_by_its_partitions_reaches_the_same_partitions() {
    let mut link = Link::new("by_partition");
    run(
        &mut link.origin,
        &[
            &create("a", "id"),
            &fill("a", 1),
            "CALL partition_router.migrate('a', 'd')",
            "CREATE PUBLICATION p FOR TABLE a_partitioned WITH (publish_via_partition_root = false)",
        ],
    );
    let partitions: Vec<String> = super::common::texts(
        &mut link.origin,
        "SELECT format('CREATE TABLE %I PARTITION OF a_partitioned %s', c.relname, pg_get_expr(c.relpartbound, c.oid))
         FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
         WHERE i.inhparent = 'a_partitioned'::regclass ORDER BY 1",
    );
    run(
        &mut link.target,
        &[
            "CREATE TABLE a_partitioned (id int, d date NOT NULL, n int, t text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d)",
        ],
    );
    for partition in &partitions {
        run(&mut link.target, &[partition]);
    }
    link.subscribe();
    link.until_same(&content("a_partitioned"));
    // Written to either side, moved between partitions.
    for (side, first) in [("a", 1), ("a_partitioned", 2000)] {
        if first > 1 {
            run(&mut link.origin, &[&fill(side, first)]);
        }
        change(&mut link.origin, side, first);
        compare(&mut link.origin);
        link.until_same(&content("a_partitioned"));
    }
    link.until_same("SELECT string_agg(tableoid::regclass || ':' || id, ',' ORDER BY id) FROM a_partitioned");
}

#[test]
fn what_is_applied_to_the_legacys_name_arrives_after_the_names_have_swapped_and_swapped_back() {
    let mut link = Link::new("switched_into");
    for client in [&mut link.origin, &mut link.target] {
        run(client, &[&create("a", "id")]);
    }
    run(
        &mut link.origin,
        &[
            &fill("a", 1),
            // The name becomes that of a table whose key has the partition key in it.
            "ALTER TABLE a REPLICA IDENTITY FULL",
            "CREATE PUBLICATION p FOR TABLE a",
        ],
    );
    link.subscribe();
    link.until_same(&content("a"));
    run(&mut link.target, &["CALL partition_router.migrate('a', 'd')"]);
    change(&mut link.origin, "a", 1);
    link.until_same(&content("a"));
    compare(&mut link.target);
    for (turn, first, other) in [
        ("switchover", 3000, "a_legacy"),
        ("rollback", 5000, "a_partitioned"),
        ("switchover", 7000, "a_legacy"),
    ] {
        // A worker that has begun before remembers that it knows the table; a new one asks anew.
        let switch = |what| format!("ALTER SUBSCRIPTION \"{}\" {what}", link.subscriber.name);
        let (off, on) = (switch("DISABLE"), switch("ENABLE"));
        run(
            &mut link.target,
            &[&format!("CALL partition_router.{turn}('a')"), &off],
        );
        // It would not notice what is switched off and on in a moment.
        let workers = "SELECT count(*) FROM pg_stat_activity
            WHERE backend_type LIKE 'logical replication%worker' AND datname = current_database()";
        let begun = std::time::Instant::now();
        while one::<i64>(&mut link.target, workers) > 0 {
            assert!(begun.elapsed().as_secs() < 60, "the worker never ends");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        run(&mut link.target, &[&on]);
        run(&mut link.origin, &[&fill("a", first)]);
        change(&mut link.origin, "a", first);
        link.until_same(&content("a"));
        super::assert_equal_sides(&mut link.target, "a", other, super::COLUMNS);
    }
}
