//! What cannot be carried is refused, says why and what to do, and leaves nothing behind.

use super::{Pair, SIDES, one, run};

#[test]
fn keys_stay_what_they_are() {
    for side in SIDES {
        let mut pair = Pair::live("keys");
        pair.refuses(&format!("ALTER TABLE {side} DROP COLUMN id"), "primary key");
        pair.refuses(
            &format!("ALTER TABLE {side} DROP CONSTRAINT {side}_pkey"),
            "primary key",
        );
        pair.refuses(
            &format!("ALTER TABLE {side} DROP CONSTRAINT {side}_pkey, ADD PRIMARY KEY (u, d)"),
            "primary key",
        );
        pair.in_step();
    }
    let mut pair = Pair::live("partition_key");
    pair.refuses("ALTER TABLE a DROP COLUMN d", "partition key");
    pair.refuses("ALTER TABLE a ALTER d TYPE timestamp", "partition key");
    pair.refuses("ALTER TABLE a ALTER d DROP NOT NULL", "takes no NULL");
    // These the server refuses for a partitioned table.
    for statement in ["DROP COLUMN d", "ALTER d TYPE timestamp", "ALTER d DROP NOT NULL"] {
        pair.error(&format!("ALTER TABLE a_partitioned {statement}"));
    }
    pair.in_step();
}

#[test]
fn a_table_of_a_pair_becomes_no_other_kind_of_table() {
    let mut pair = Pair::live("kind");
    pair.run(&[
        "CREATE TABLE p (LIKE a)",
        "CREATE TABLE q (LIKE a) PARTITION BY RANGE (d)",
        "CREATE TYPE row_type AS (id int, d date, u int, n int, t text)",
        "CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler",
    ]);
    pair.refuses("ALTER TABLE a SET UNLOGGED", "unlogged");
    pair.refuses("ALTER TABLE a SET ACCESS METHOD heap2", "access method");
    pair.refuses("ALTER TABLE a INHERIT p", "inherit");
    pair.refuses("ALTER TABLE p INHERIT a", "table of a pair");
    pair.refuses("CREATE TABLE child () INHERITS (a)", "table of a pair");
    pair.refuses("ALTER TABLE a OF row_type", "composite type");
    pair.refuses(
        "ALTER TABLE q ATTACH PARTITION a FOR VALUES FROM ('2020-01-01') TO ('2030-01-01')",
        "table of a pair",
    );
    pair.refuses(
        "ALTER TABLE q ATTACH PARTITION a_partitioned DEFAULT",
        "table of a pair",
    );
    pair.refuses(
        "ALTER TABLE a REPLICA IDENTITY USING INDEX a_pkey",
        "replica identity",
    );
    pair.run(&["CREATE EXTENSION btree_gist", "DROP EXTENSION btree_gist"]);
    pair.refuses("ALTER TABLE a ADD EXCLUDE USING btree (n WITH =)", "exclusion");
    pair.in_step();
}

#[test]
fn sync_triggers_can_be_neither_disabled_nor_dropped() {
    let mut pair = Pair::live("sync_triggers");
    for (table, trigger) in [
        ("a", "sync_to_partitioned_a_u"),
        ("a_partitioned", "sync_to_legacy_a_u"),
        ("a_2026_02", "sync_to_legacy_a_u"),
        ("a", "sync_to_partitioned_a"),
        ("a_partitioned", "sync_to_legacy_a"),
    ] {
        for statement in [
            format!("ALTER TABLE {table} DISABLE TRIGGER {trigger}"),
            format!("ALTER TABLE {table} ENABLE TRIGGER {trigger}"),
            format!("ALTER TABLE {table} DISABLE TRIGGER USER"),
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
            format!("ALTER TRIGGER {trigger} ON {table} RENAME TO other"),
            format!("DROP TRIGGER {trigger} ON {table}"),
            format!("DROP TRIGGER {trigger} ON {table} CASCADE"),
            format!(
                "CREATE OR REPLACE TRIGGER {trigger} AFTER UPDATE ON {table} FOR EACH STATEMENT
                 EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
        ] {
            pair.refuses(&statement, "keeps both sides");
        }
    }
    pair.run(&["ALTER TABLE a ENABLE ALWAYS TRIGGER sync_to_partitioned_a_u"]);
    pair.in_step();
}

#[test]
fn a_table_of_a_pair_is_dropped_by_abandon_alone() {
    let mut pair = Pair::live("drop");
    pair.run(&["CREATE SCHEMA app", "ALTER TABLE a_partitioned SET SCHEMA app"]);
    for statement in [
        "DROP TABLE a",
        "DROP TABLE a CASCADE",
        "DROP TABLE app.a_partitioned",
        "DROP SCHEMA app CASCADE",
        "DROP TABLE IF EXISTS parents, a",
    ] {
        pair.refuses(statement, "in phase \"live\"");
    }
    let hint = pair.error("DROP TABLE a").hint().map(str::to_string);
    assert!(hint.is_some_and(|h| h.contains("partition_router.abandon()")));
    pair.run(&["ALTER TABLE app.a_partitioned SET SCHEMA public"]);
    pair.in_step();
    pair.run(&["SELECT partition_router.abandon('a')", "DROP TABLE a"]);
}

#[test]
fn both_tables_may_go_at_once_and_the_pair_with_them() {
    for statement in ["DROP TABLE a_partitioned, a", "DROP SCHEMA app CASCADE"] {
        let mut pair = Pair::live("drop_both");
        pair.run(&["CREATE SCHEMA app"]);
        if statement.contains("SCHEMA") {
            pair.run(&[
                "ALTER TABLE a SET SCHEMA app",
                "ALTER TABLE a_partitioned SET SCHEMA app",
            ]);
        }
        pair.run(&[statement]);
        for table in ["pair", "policy", "rollout", "copy_state"] {
            assert_eq!(
                pair.one::<i64>(&format!("SELECT count(*) FROM partition_router.{table}")),
                0
            );
        }
    }
}

#[test]
fn what_is_left_of_a_pair_that_lost_a_side_may_go() {
    let mut pair = Pair::live("lost");
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "DROP TABLE a",
        "SET partition_router.carry_ddl = on",
        "ALTER TABLE a_partitioned ADD COLUMN x int",
        "DROP TRIGGER sync_to_legacy_a_u ON a_partitioned",
        "DROP TABLE a_partitioned",
    ]);
}

#[test]
fn the_extension_can_be_dropped_whatever_there_is() {
    let mut pair = Pair::live("drop_extension");
    pair.run(&[
        "DROP EXTENSION partition_router CASCADE",
        "ALTER TABLE a DROP COLUMN n",
        "DROP TABLE a_partitioned",
    ]);
    assert_eq!(pair.one::<i64>("SELECT count(*) FROM pg_event_trigger"), 0);
}

#[test]
fn a_superuser_may_switch_it_off_and_writes_then_fail_rather_than_lose_a_column() {
    for side in SIDES {
        let mut pair = Pair::live("off");
        pair.run(&[
            "SET partition_router.carry_ddl = off",
            &format!("ALTER TABLE {side} ADD COLUMN x int DEFAULT 5"),
        ]);
        for table in SIDES {
            let error = pair.error(&format!("UPDATE {table} SET n = n + 1"));
            assert_eq!(error.code().code(), "PR015");
        }
        // The other side is brought up again by the same statement, which then finds nothing to carry.
        let other = if side == "a" { "a_partitioned" } else { "a" };
        pair.run(&[
            "SET partition_router.carry_ddl = on",
            &format!("ALTER TABLE {other} ADD COLUMN x int DEFAULT 5"),
        ]);
        pair.in_step();
    }
}

#[test]
fn only_superusers_may_switch_it_off() {
    let mut pair = Pair::live("who_may");
    let role = format!("plain_{}", pair.database.name);
    pair.run(&[&format!("CREATE ROLE {role} LOGIN")]);
    let mut plain = pair.database.connect_as(&role);
    one::<i64>(&mut plain, "SELECT count(*) FROM partition_router.route('a')");
    assert_eq!(
        super::common::sqlstate(&mut plain, "SET partition_router.carry_ddl = off"),
        "42501"
    );
    assert_eq!(one::<String>(&mut plain, "SHOW partition_router.carry_ddl"), "on");
    drop(plain);
    run(&mut pair.client, &[&format!("DROP ROLE {role}")]);
}
