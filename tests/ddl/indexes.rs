//! Indexes and unique constraints.

use super::{Pair, SIDES, carried_from_each_side, run, texts};

#[test]
fn indexes_are_made_and_dropped_on_both_sides() {
    for side in SIDES {
        let mut pair = Pair::live("indexes");
        for definition in [
            "(n)",
            "USING hash (t)",
            "(n DESC NULLS LAST, lower(t) COLLATE \"C\") WHERE u > 5",
            "(t text_pattern_ops) INCLUDE (n)",
            "USING brin (d)",
            "(n)",
        ] {
            pair.run(&[&format!("CREATE INDEX ON {side} {definition}")]);
            pair.in_step();
        }
        let count = "SELECT count(*) FROM pg_index WHERE indrelid = '{}'::regclass";
        let names = format!(
            "SELECT indexrelid::regclass::text FROM pg_index i WHERE indrelid = '{side}'::regclass
             AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid) ORDER BY 1"
        );
        for name in texts(&mut pair.client, &names) {
            pair.run(&[
                &format!("ALTER INDEX {name} RENAME TO renamed"),
                "DROP INDEX renamed",
            ]);
            pair.in_step();
        }
        for table in SIDES {
            assert_eq!(pair.one::<i64>(&count.replace("{}", table)), 2);
        }
        // Several at once.
        pair.run(&[
            &format!("CREATE INDEX i1 ON {side} (n)"),
            &format!("CREATE INDEX i2 ON {side} (n)"),
            &format!("CREATE INDEX i3 ON {side} (t)"),
            "DROP INDEX i1, i3",
        ]);
        pair.in_step();
        assert_eq!(pair.one::<i64>(&count.replace("{}", "a")), 3);
    }
}

#[test]
fn a_unique_index_is_widened_by_the_partition_key() {
    let mut pair = Pair::live("unique");
    pair.run(&[
        "ALTER TABLE a ADD CONSTRAINT one UNIQUE (n)",
        "CREATE UNIQUE INDEX two ON a (t) WHERE n > 5",
    ]);
    assert_eq!(
        texts(
            &mut pair.client,
            "SELECT pg_get_indexdef(indexrelid, 1, true) || ' ' || pg_get_indexdef(indexrelid, 2, true) FROM pg_index
             WHERE indrelid = 'a_partitioned'::regclass AND indisunique ORDER BY 1"
        ),
        ["id d", "n d", "t d", "u d"]
    );
    pair.rows();
    // Uniqueness over all partitions is kept by the legacy.
    let twice = "INSERT INTO a_partitioned VALUES (500, '2027-02-01', 500, 1)";
    assert_eq!(pair.error(twice).code().code(), "23505");
    pair.refuses("DROP INDEX a_partitioned_t_d_idx", "unique by fewer columns");
    pair.run(&["ALTER TABLE a DROP CONSTRAINT one", "DROP INDEX two"]);
    pair.in_step();
}

#[test]
fn a_unique_index_of_the_twin_comes_to_the_legacy() {
    carried_from_each_side(
        "unique_twin",
        &[
            "CREATE UNIQUE INDEX ON {} (d, n)",
            "ALTER TABLE {} ADD CONSTRAINT uu UNIQUE (d, u, id)",
            "ALTER TABLE {} DROP CONSTRAINT uu",
        ],
    );
}

#[test]
fn an_index_that_becomes_a_constraint_stays_what_it_is() {
    let mut pair = Pair::live("using_index");
    pair.run(&[
        "CREATE UNIQUE INDEX i ON a (n, d)",
        "ALTER TABLE a ADD CONSTRAINT c UNIQUE USING INDEX i",
    ]);
    pair.in_step();
    pair.run(&["ALTER TABLE a DROP CONSTRAINT c"]);
    pair.in_step();
}

#[test]
fn an_index_that_the_other_side_has_already_is_not_made_twice() {
    let mut pair = Pair::live("already");
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "CREATE INDEX ON a (n)",
        "SET partition_router.carry_ddl = on",
        "CREATE INDEX ON a_partitioned (n)",
    ]);
    pair.in_step();
}

#[test]
fn an_index_with_its_columns_dropped_goes_from_both_sides() {
    carried_from_each_side(
        "with_columns",
        &[
            "CREATE INDEX ON {} (n, t)",
            "ALTER TABLE {} DROP COLUMN t",
            "ALTER TABLE {} DROP COLUMN n",
        ],
    );
}

/// The leaf partitions of the twin.
fn partitions(pair: &mut Pair) -> Vec<String> {
    texts(
        &mut pair.client,
        "SELECT relid::text FROM pg_partition_tree('a_partitioned') WHERE isleaf ORDER BY 1",
    )
}

#[test]
fn an_index_is_built_concurrently_once_every_partition_has_it() {
    for (unique, on_legacy, on_partition) in [
        ("", "(n, lower(t))", "(n, lower(t))"),
        ("UNIQUE", "(n)", "(n, d)"),
    ] {
        let mut pair = Pair::live("concurrently");
        let statement = format!("CREATE {unique} INDEX CONCURRENTLY slow ON a {on_legacy}");
        let partitions = partitions(&mut pair);
        for partition in &partitions {
            pair.refuses(&statement, "with writers locked out");
            pair.run(&[&format!(
                "CREATE {unique} INDEX CONCURRENTLY ON {partition} {on_partition}"
            )]);
        }
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM pg_class WHERE relname = 'slow'"),
            0
        );
        let indexes = "SELECT count(*) FROM pg_index JOIN pg_partition_tree('a_partitioned') ON relid = indrelid WHERE isleaf";
        let before = pair.one::<i64>(indexes);
        pair.run(&[&statement]);
        assert_eq!(
            pair.one::<i64>(indexes),
            before,
            "the twin takes in what there is"
        );
        let on_root =
            "SELECT count(*) FROM pg_index WHERE indrelid = 'a_partitioned'::regclass AND indisvalid";
        assert_eq!(pair.one::<i64>(on_root), 3);
        pair.rows();
        pair.run(&["DROP INDEX CONCURRENTLY slow"]);
        assert_eq!(pair.one::<i64>(on_root), 2);
        assert_eq!(pair.one::<i64>(indexes), before - partitions.len() as i64);
        pair.rows();
    }
}

#[test]
fn an_index_made_partition_by_partition_and_attached_comes_to_the_legacy_when_it_is_whole() {
    let mut pair = Pair::live("attach");
    let on_legacy = "SELECT count(*) FROM pg_index WHERE indrelid = 'a'::regclass";
    pair.run(&["CREATE INDEX whole ON ONLY a_partitioned (n)"]);
    let partitions = partitions(&mut pair);
    for (i, partition) in partitions.iter().enumerate() {
        assert_eq!(pair.one::<i64>(on_legacy), 2);
        pair.run(&[
            &format!("CREATE INDEX CONCURRENTLY part_{i} ON {partition} (n)"),
            &format!("ALTER INDEX whole ATTACH PARTITION part_{i}"),
        ]);
    }
    assert_eq!(pair.one::<i64>(on_legacy), 3);
    pair.in_step();
}

#[test]
fn an_index_is_built_while_a_cached_plan_of_another_session_waits() {
    let mut pair = Pair::live("plans");
    let mut other = pair.database.connect();
    run(&mut other, &["SET enable_seqscan = off"]);
    let find = other
        .prepare("SELECT count(*) FROM a_partitioned WHERE n = $1")
        .expect("PREPARE");
    for n in 1..8i32 {
        let row = other.query_one(&find, &[&n]).expect("EXECUTE");
        assert_eq!(row.get::<_, i64>(0), 1);
        if n == 6 {
            pair.run(&["CREATE INDEX ON a (n)"]);
        }
    }
    pair.in_step();
}
