//! Columns.

use super::{Pair, SIDES, carried_from_each_side};

#[test]
fn a_column_is_added_renamed_and_dropped_on_both_sides() {
    carried_from_each_side(
        "columns",
        &[
            "ALTER TABLE {} ADD COLUMN x int",
            "ALTER TABLE {} ADD COLUMN \"Y y\" text NOT NULL DEFAULT 'it''s'",
            "ALTER TABLE {} ADD COLUMN IF NOT EXISTS x int",
            "ALTER TABLE {} RENAME COLUMN x TO \"X\"",
            "ALTER TABLE {} RENAME \"Y y\" TO x",
            "ALTER TABLE {} DROP COLUMN x",
            "ALTER TABLE {} DROP COLUMN IF EXISTS x",
            "ALTER TABLE {} ADD COLUMN x numeric(10, 2) DEFAULT 1.50, DROP COLUMN t, ADD COLUMN t varchar(9) COLLATE \"C\"",
            "ALTER TABLE {} ADD COLUMN at timestamptz NOT NULL DEFAULT now()",
            "ALTER TABLE {} ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) STORED",
            "ALTER TABLE {} ALTER COLUMN twice DROP EXPRESSION",
            "ALTER TABLE {} ADD COLUMN tags text[] DEFAULT '{a,b}' CHECK (cardinality(tags) > 0)",
            "ALTER TABLE IF EXISTS {} DROP COLUMN tags",
        ],
    );
}

#[test]
fn old_rows_have_the_fast_default_on_both_sides() {
    for side in SIDES {
        let mut pair = Pair::live("fast_default");
        pair.run(&[&format!("ALTER TABLE {side} ADD COLUMN x int NOT NULL DEFAULT 7")]);
        for table in SIDES {
            assert_eq!(
                pair.one::<i64>(&format!("SELECT count(*) FROM {table} WHERE x = 7")),
                100
            );
        }
        pair.run(&[
            "UPDATE a SET n = n + 1 WHERE id < 10",
            "INSERT INTO a_partitioned VALUES (500, '2026-02-01')",
        ]);
        assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE x = 7"), 101);
        pair.in_step();
    }
}

#[test]
fn a_default_that_differs_from_row_to_row_is_refused_and_goes_in_three_statements() {
    for side in SIDES {
        let mut pair = Pair::live("volatile");
        for default in ["DEFAULT random()", "DEFAULT gen_random_uuid()::text"] {
            let kind = if default.contains("uuid") {
                "text"
            } else {
                "float8"
            };
            pair.refuses(
                &format!("ALTER TABLE {side} ADD COLUMN x {kind} {default}"),
                "another value for each row",
            );
        }
        pair.refuses(
            &format!("ALTER TABLE {side} ADD COLUMN x serial"),
            "another value for each row",
        );
        pair.run(&[
            &format!("ALTER TABLE {side} ADD COLUMN x float8"),
            &format!("ALTER TABLE {side} ALTER COLUMN x SET DEFAULT random()"),
            &format!("UPDATE {side} SET x = DEFAULT"),
            "INSERT INTO a VALUES (500, '2026-02-01')",
            "INSERT INTO a_partitioned VALUES (501, '2026-02-01')",
        ]);
        assert_eq!(pair.one::<i64>("SELECT count(DISTINCT x) FROM a"), 102);
        pair.in_step();
    }
}

#[test]
fn a_function_that_says_stable_and_is_not_cannot_give_the_sides_different_values() {
    let mut pair = Pair::live("not_stable");
    pair.run(&["CREATE FUNCTION f() RETURNS float8 LANGUAGE sql STABLE AS 'SELECT random()'"]);
    for side in SIDES {
        pair.refuses(
            &format!("ALTER TABLE {side} ADD COLUMN x float8 DEFAULT f()"),
            "another value on each side",
        );
    }
    pair.in_step();
}

#[test]
fn a_column_added_with_one_default_and_given_another_is_refused() {
    let mut pair = Pair::live("two_defaults");
    pair.refuses(
        "ALTER TABLE a ADD COLUMN x int DEFAULT 1, ALTER COLUMN x SET DEFAULT 2",
        "with one default and then given another",
    );
    pair.run(&[
        "ALTER TABLE a ADD COLUMN x int DEFAULT 1",
        "ALTER TABLE a ALTER COLUMN x SET DEFAULT 2",
    ]);
    pair.in_step();
}

#[test]
fn types_change_on_both_sides_to_the_same_values() {
    carried_from_each_side(
        "types",
        &[
            "ALTER TABLE {} ALTER COLUMN n TYPE bigint",
            "ALTER TABLE {} ALTER n TYPE numeric(12, 2) USING n / 3.0",
            "ALTER TABLE {} ALTER n TYPE numeric(12, 2) USING n + id",
            "ALTER TABLE {} ALTER COLUMN t TYPE varchar(40) COLLATE \"C\" USING upper(t)",
            "ALTER TABLE {} ALTER n SET DEFAULT 5, ALTER t SET DEFAULT 'abc'",
            "ALTER TABLE {} ALTER n TYPE text, ALTER t TYPE text USING t || n::text",
            "ALTER TABLE {} ALTER n DROP DEFAULT, ALTER n TYPE boolean USING n LIKE '%1%', ALTER n SET DEFAULT true",
            "ALTER TABLE {} ALTER id TYPE bigint",
            "ALTER TABLE {} ALTER u TYPE bigint USING -u::bigint",
        ],
    );
}

#[test]
fn a_using_expression_finds_what_the_session_finds() {
    for side in SIDES {
        let mut pair = Pair::live("using_path");
        pair.run(&[
            "CREATE SCHEMA app",
            "CREATE FUNCTION app.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 10'",
            "SET search_path = app, public",
            &format!("ALTER TABLE {side} ALTER n TYPE int USING f(n)"),
        ]);
        assert_eq!(pair.one::<i32>("SELECT n FROM a_partitioned WHERE id = 3"), 30);
        pair.in_step();
    }
}

#[test]
fn a_volatile_using_expression_is_refused() {
    let mut pair = Pair::live("volatile_using");
    for side in SIDES {
        pair.refuses(
            &format!("ALTER TABLE {side} ALTER n TYPE float8 USING random()"),
            "another value for each call",
        );
    }
}

#[test]
fn defaults_not_null_and_storage_follow() {
    carried_from_each_side(
        "properties",
        &[
            "ALTER TABLE {} ALTER n SET DEFAULT 5",
            "ALTER TABLE {} ALTER n SET NOT NULL, ALTER t SET DEFAULT 'x' || current_user",
            "ALTER TABLE {} ALTER n DROP NOT NULL, ALTER n DROP DEFAULT",
            "ALTER TABLE {} ALTER t SET STORAGE EXTERNAL, ALTER t SET STATISTICS 500",
            "ALTER TABLE {} ALTER t SET STATISTICS -1",
            "ALTER TABLE {} ALTER t SET COMPRESSION pglz",
            "ALTER TABLE {} ALTER t SET STORAGE MAIN, ALTER t SET COMPRESSION default",
        ],
    );
}

#[test]
fn planner_options_of_a_column_reach_every_partition() {
    let mut pair = Pair::live("n_distinct");
    let set = "SELECT count(*) FROM pg_attribute WHERE attname = 'n' AND 'n_distinct=7' = ANY (attoptions)";
    let tables: i64 = pair.one("SELECT count(*) FROM pg_partition_tree('a_partitioned')");
    pair.run(&["ALTER TABLE a ALTER n SET (n_distinct = 7)"]);
    assert_eq!(pair.one::<i64>(set), tables + 1);
    pair.run(&["ALTER TABLE a ALTER n RESET (n_distinct)"]);
    assert_eq!(pair.one::<i64>(set), 0);
}

#[test]
fn the_partition_key_and_the_primary_key_can_be_renamed() {
    for side in SIDES {
        let mut pair = Pair::live("rename_key");
        pair.run(&[
            &format!("ALTER TABLE {side} RENAME COLUMN d TO \"The day\""),
            &format!("ALTER TABLE {side} RENAME COLUMN id TO key"),
        ]);
        assert_eq!(
            pair.one::<String>("SELECT partition_key::text FROM partition_router.status"),
            "The day"
        );
        pair.run(&[
            "INSERT INTO a VALUES (500, '2026-02-01', 500, 1, 'new')",
            "UPDATE a_partitioned SET \"The day\" = '2026-03-05' WHERE key = 500",
            "DELETE FROM a WHERE key = 7",
            "UPDATE a_partitioned SET key = 7000 WHERE key = 8",
        ]);
        pair.alike();
        assert_eq!(pair.rows(), 100);
        pair.run(&[
            "SELECT partition_router.set_policy('a', premake => 20)",
            "CALL partition_router.run_maintenance('a')",
            "CREATE INDEX ON a (n, \"The day\")",
        ]);
        pair.alike();
    }
}

#[test]
fn identity_columns_share_one_sequence() {
    let mut pair = Pair::live("identity");
    pair.refuses(
        "ALTER TABLE a ADD COLUMN x int GENERATED ALWAYS AS IDENTITY",
        "another value for each row",
    );
    pair.run(&[
        "ALTER TABLE a ALTER n SET NOT NULL",
        "ALTER TABLE a ALTER n ADD GENERATED BY DEFAULT AS IDENTITY (START 1000)",
        "INSERT INTO a (id, d) VALUES (500, '2026-02-01')",
        "INSERT INTO a_partitioned (id, d) VALUES (501, '2026-02-01')",
        "ALTER TABLE a ALTER n SET GENERATED ALWAYS",
        "ALTER TABLE a ALTER n RESTART WITH 2000",
        "INSERT INTO a_partitioned (id, d) VALUES (502, '2026-02-01')",
    ]);
    let drawn = "SELECT string_agg(n::text, ' ' ORDER BY id) FROM a WHERE id >= 500";
    assert_eq!(pair.one::<String>(drawn), "1000 1001 2000");
    pair.rows();
    pair.refuses(
        "ALTER TABLE a_partitioned ALTER id ADD GENERATED ALWAYS AS IDENTITY",
        "its partitions would not be",
    );
    pair.run(&["ALTER TABLE a ALTER n DROP IDENTITY"]);
    pair.in_step();
    assert_eq!(
        pair.one::<i64>("SELECT count(*) FROM pg_class WHERE relkind = 'S' AND relname LIKE 'a\\_%'"),
        0
    );
}

#[test]
fn a_column_goes_with_the_sequence_that_both_sides_draw_from() {
    for drop in [
        "ALTER TABLE a DROP COLUMN s",
        "ALTER TABLE a DROP COLUMN s CASCADE",
        "ALTER TABLE a_partitioned DROP COLUMN s",
    ] {
        let mut pair = Pair::unpaired("serial");
        pair.run(&[
            "ALTER TABLE a ADD COLUMN s serial",
            "CALL partition_router.migrate('a', 'd')",
        ]);
        pair.run(&[drop]);
        pair.in_step();
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM pg_class WHERE relname = 'a_s_seq'"),
            0
        );
    }
}

#[test]
fn an_empty_pair_takes_columns_that_draw_values() {
    let mut pair = Pair::unpaired("empty");
    pair.run(&["DELETE FROM a", "CALL partition_router.migrate('a', 'd')"]);
    pair.run(&[
        "ALTER TABLE a ADD COLUMN s bigserial, ADD COLUMN i int GENERATED ALWAYS AS IDENTITY",
        "INSERT INTO a (id, d) VALUES (1, '2026-01-01')",
        "INSERT INTO a_partitioned (id, d) VALUES (2, '2026-02-01')",
    ]);
    assert_eq!(
        pair.one::<String>("SELECT string_agg(s || ' ' || i, ', ' ORDER BY id) FROM a"),
        "1 1, 2 2"
    );
    assert_eq!(pair.rows(), 2);
}

#[test]
fn dropping_with_cascade_takes_views_of_both_sides() {
    let mut pair = Pair::live("cascade");
    pair.run(&[
        "CREATE VIEW v AS SELECT n FROM a",
        "CREATE VIEW w AS SELECT n FROM a_partitioned",
    ]);
    assert_eq!(pair.error("ALTER TABLE a DROP COLUMN n").code().code(), "2BP01");
    pair.run(&["DROP VIEW v"]);
    // The other side's view is in the way too: nothing is done by half.
    assert_eq!(pair.error("ALTER TABLE a DROP COLUMN n").code().code(), "2BP01");
    pair.alike();
    pair.run(&["ALTER TABLE a DROP COLUMN n CASCADE"]);
    pair.alike();
    assert_eq!(
        pair.one::<i64>("SELECT count(*) FROM pg_views WHERE viewname IN ('v', 'w')"),
        0
    );
}

#[test]
fn a_type_that_goes_with_cascade_goes_from_both_sides() {
    let mut pair = Pair::live("drop_type");
    pair.run(&[
        "CREATE TYPE mood AS ENUM ('ok', 'bad')",
        "ALTER TABLE a ADD COLUMN m mood DEFAULT 'ok'",
        "ALTER TYPE mood ADD VALUE 'good'",
        "INSERT INTO a_partitioned VALUES (500, '2026-02-01', 1, 1, 'x', 'good')",
    ]);
    pair.in_step();
    pair.run(&["DROP TYPE mood CASCADE"]);
    pair.in_step();
}

/// From PostgreSQL 18 on, where it is what one gets who names no kind. Earlier servers refuse the word.
#[test]
fn a_virtual_column_is_virtual_on_both_sides() {
    for side in SIDES {
        let mut pair = Pair::live("virtual");
        let add = format!("ALTER TABLE {side} ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) VIRTUAL");
        if pair.one::<i32>("SELECT current_setting('server_version_num')::int") < 180_000 {
            assert_eq!(pair.error(&add).code().code(), "42601");
            continue;
        }
        pair.run(&[
            &add,
            "UPDATE a SET n = n + 1 WHERE id < 10",
            "INSERT INTO a_partitioned (id, d, n) VALUES (500, '2026-02-01', 21)",
        ]);
        for table in SIDES {
            assert_eq!(
                pair.one::<i64>(&format!("SELECT count(*) FROM {table} WHERE twice = n * 2")),
                pair.one::<i64>(&format!("SELECT count(*) FROM {table} WHERE n IS NOT NULL"))
            );
            assert!(pair.one::<bool>(&format!(
                "SELECT attgenerated = 'v' FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'twice'"
            )));
        }
        pair.in_step();
    }
}
