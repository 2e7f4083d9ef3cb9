//! DDL inside of transactions, blocks and functions: it is carried, and undone, with the statement.

use super::{Pair, SIDES, run};
use crate::common::sqlstate;

#[test]
fn ddl_in_a_transaction_that_wrote_is_carried_and_rolled_back_with_it() {
    for side in SIDES {
        for end in ["COMMIT", "ROLLBACK"] {
            let mut pair = Pair::live("wrote");
            pair.run(&[
                "BEGIN",
                "UPDATE a SET n = n + 1 WHERE id < 50",
                "INSERT INTO a_partitioned VALUES (500, '2026-02-01', 500, 1, 'before')",
                &format!("ALTER TABLE {side} ADD COLUMN x int DEFAULT 1"),
                "INSERT INTO a VALUES (501, '2026-02-01', 501, 1, 'after', 2)",
                &format!("ALTER TABLE {side} RENAME COLUMN t TO text"),
                "UPDATE a_partitioned SET text = 'all', x = x + 1",
                &format!("ALTER TABLE {side} ALTER n TYPE bigint, ADD CHECK (n >= 0)"),
                "DELETE FROM a WHERE id = 9",
                end,
            ]);
            assert_eq!(pair.in_step(), if end == "COMMIT" { 101 } else { 100 });
        }
    }
}

#[test]
fn ddl_rolled_back_to_a_savepoint_is_undone_on_both_sides() {
    for side in SIDES {
        let mut pair = Pair::live("savepoint");
        pair.run(&[
            "BEGIN",
            "SAVEPOINT s",
            &format!("ALTER TABLE {side} ADD COLUMN x int, DROP COLUMN t"),
            "UPDATE a SET x = 5",
            "ROLLBACK TO s",
            "UPDATE a_partitioned SET t = 'still there'",
            &format!("ALTER TABLE {side} ADD COLUMN y int"),
            "SAVEPOINT t",
        ]);
        assert_eq!(
            sqlstate(
                &mut pair.client,
                &format!("ALTER TABLE {side} ADD COLUMN z int DEFAULT 'no number'")
            ),
            "22P02"
        );
        pair.run(&[
            "ROLLBACK TO t",
            &format!("ALTER TABLE {side} ADD COLUMN z int"),
            "COMMIT",
        ]);
        pair.in_step();
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE t = 'still there' AND z IS NULL"),
            100
        );
    }
}

#[test]
fn ddl_in_a_block_whose_error_is_caught_leaves_nothing_and_the_next_is_carried() {
    let mut pair = Pair::live("caught");
    pair.run(&[
        "DO $$ BEGIN
            BEGIN
                ALTER TABLE a ADD COLUMN x int;
                ALTER TABLE a DROP COLUMN id;
            EXCEPTION WHEN OTHERS THEN
                ALTER TABLE a ADD COLUMN y int DEFAULT 3;
            END;
            BEGIN
                ALTER TABLE a_partitioned ADD COLUMN z int;
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
         END $$",
        "CREATE FUNCTION f(c text) RETURNS void LANGUAGE plpgsql AS
         $$ BEGIN EXECUTE format('ALTER TABLE a_partitioned ADD COLUMN %I int', c); END $$",
        "SELECT f('one'), f('two')",
    ]);
    assert_eq!(
        pair.one::<String>(
            "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = 'a'::regclass AND attnum > 5 AND NOT attisdropped"
        ),
        "y one two"
    );
    pair.in_step();
}

#[test]
fn ddl_works_at_every_isolation_level() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut pair = Pair::unpaired("isolation");
        let mut old = pair.database.connect();
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        // Its snapshot is older than the pair.
        run(&mut old, &[&begin, "SELECT 1 FROM parents"]);
        pair.run(&[
            "CALL partition_router.migrate('a', 'd')",
            "ALTER TABLE a ADD COLUMN w int",
        ]);
        run(
            &mut old,
            &[
                "ALTER TABLE a ADD COLUMN x int DEFAULT 4",
                "ALTER TABLE a_partitioned RENAME COLUMN x TO y",
                "ALTER TABLE a DROP COLUMN w",
                "CREATE INDEX ON a (n)",
                "COMMIT",
            ],
        );
        pair.in_step();
    }
}

#[test]
fn other_event_triggers_see_and_may_do_ddl_of_their_own() {
    let mut pair = Pair::live("others");
    pair.run(&[
        "CREATE TABLE seen (tag text, what text)",
        "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
         $$ BEGIN
             INSERT INTO public.seen SELECT command_tag, object_identity FROM pg_event_trigger_ddl_commands();
             IF (SELECT count(*) FROM public.seen) < 3 THEN ALTER TABLE public.a ADD COLUMN IF NOT EXISTS more int; END IF;
         END $$",
        "CREATE EVENT TRIGGER a_first ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION note()",
        "CREATE EVENT TRIGGER z_last ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION note()",
        "ALTER TABLE a_partitioned ADD COLUMN x int",
        "DROP EVENT TRIGGER a_first",
        "DROP EVENT TRIGGER z_last",
    ]);
    pair.in_step();
    assert_eq!(
        pair.one::<i64>(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attname IN ('x', 'more')"
        ),
        2
    );
}

#[test]
fn the_log_tells_what_was_carried() {
    let mut pair = Pair::live("log");
    pair.run(&[
        "ALTER TABLE a ADD COLUMN x int",
        "ALTER TABLE a SET (fillfactor = 90)",
    ]);
    let logged = "SELECT string_agg(detail ->> 'statements', ' ') FROM partition_router.run_log WHERE operation = 'ddl'";
    assert_eq!(
        pair.one::<String>(logged),
        "[\"ALTER TABLE \\\"public\\\".\\\"a_partitioned\\\" ADD COLUMN \\\"x\\\" integer\"]"
    );
}
