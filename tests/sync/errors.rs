//! A change that cannot be carried fails the statement that made it.

use super::Pair;
use crate::common::sqlstate;

/// The SQLSTATE and the hint with which a statement fails. There is a detail, too.
fn failure(pair: &mut Pair, statement: &str) -> (String, String) {
    let error = pair.client.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().expect("the server refused it");
    assert!(
        error.detail().is_some_and(|detail| !detail.is_empty()),
        "{error:?}"
    );
    assert!(error.hint().is_some_and(|hint| hint.ends_with('.')), "{error:?}");
    (
        error.code().code().to_string(),
        error.hint().unwrap_or_default().to_string(),
    )
}

#[test]
fn what_the_twin_refuses_fails_on_the_legacy_with_a_hint() {
    let mut pair = Pair::plain("check");
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "ALTER TABLE a_partitioned ADD CHECK (n < 1000)",
    ]);
    for statement in [
        "INSERT INTO a VALUES (500, '2026-01-01', 500, 1000, 'x')",
        "INSERT INTO a SELECT 500 + g, '2026-01-01', 500 + g, 995 + g, 'x' FROM generate_series(1, 9) g",
        "UPDATE a SET n = 2000 WHERE id = 1",
    ] {
        let (code, hint) = failure(&mut pair, statement);
        assert_eq!(code, "23514", "{statement}");
        assert!(
            hint.contains("partition_router.mismatches()"),
            "{statement}: {hint}"
        );
    }
    assert_eq!(pair.rows(), 100);
    assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE n >= 995"), 0);
}

#[test]
fn a_row_that_no_partition_takes_fails_with_a_hint() {
    let mut pair = Pair::plain("no_partition");
    pair.run(&["SET partition_router.carry_ddl = off", "DROP TABLE a_default"]);
    let (code, hint) = failure(&mut pair, "INSERT INTO a VALUES (500, '2040-01-01', 500, 1, 'x')");
    assert_eq!(code, "23514");
    assert!(!hint.is_empty());
    let (code, _) = failure(&mut pair, "UPDATE a SET d = '2040-01-01' WHERE id = 1");
    assert_eq!(code, "23514");
    assert_eq!(pair.rows(), 100);
}

#[test]
fn a_null_partition_key_is_refused_on_both_sides() {
    let mut pair = Pair::plain("null_key");
    for side in super::SIDES {
        assert_eq!(
            sqlstate(
                &mut pair.client,
                &format!("INSERT INTO {side} VALUES (500, NULL)")
            ),
            "23502"
        );
        assert_eq!(
            sqlstate(
                &mut pair.client,
                &format!("UPDATE {side} SET d = NULL WHERE id = 1")
            ),
            "23502"
        );
    }
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "ALTER TABLE a ALTER d DROP NOT NULL",
    ]);
    let (code, _) = failure(&mut pair, "INSERT INTO a VALUES (500, NULL)");
    assert!(code.starts_with("23"), "{code}");
    assert_eq!(pair.rows(), 100);
}

#[test]
fn a_key_that_is_free_on_the_twin_but_taken_on_the_legacy_is_refused() {
    let mut pair = Pair::plain("taken");
    let (code, hint) = failure(
        &mut pair,
        "INSERT INTO a_partitioned VALUES (1, '2026-02-28', 1, 1, 'twice')",
    );
    assert_eq!(code, "23505");
    assert!(hint.contains("other side"), "{hint}");
    assert_eq!(pair.rows(), 100);
}

#[test]
fn a_column_that_one_side_lacks_fails_the_write() {
    for side in super::SIDES {
        let mut pair = Pair::plain("lacking");
        pair.run(&[
            "SET partition_router.carry_ddl = off",
            &format!("ALTER TABLE {side} ADD COLUMN extra int"),
        ]);
        for written in super::SIDES {
            let (code, hint) = failure(&mut pair, &format!("UPDATE {written} SET n = 0 WHERE id = 1"));
            assert_eq!(code, "PR015");
            assert!(hint.contains("both tables"), "{hint}");
        }
        pair.run(&[
            &format!("ALTER TABLE {side} DROP COLUMN extra"),
            "UPDATE a SET n = 0 WHERE id = 1",
        ]);
        assert_eq!(pair.rows(), 100);
    }
}

#[test]
fn a_failed_statement_leaves_the_session_fit_for_more() {
    let mut pair = Pair::plain("after_error");
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "ALTER TABLE a_partitioned ADD CHECK (n < 1000)",
    ]);
    pair.run(&[
        "BEGIN",
        "INSERT INTO a VALUES (500, '2026-01-01', 500, 1, 'x')",
        "SAVEPOINT s",
    ]);
    failure(&mut pair, "UPDATE a SET n = n + 950");
    pair.run(&[
        "ROLLBACK TO s",
        "UPDATE a SET n = n + 1",
        "UPDATE a_partitioned SET d = d + 31 WHERE id < 9",
        "COMMIT",
    ]);
    assert_eq!(pair.rows(), 101);
    assert_eq!(
        pair.one::<i64>("SELECT sum(n) FROM a_partitioned"),
        5050 + 1 + 101
    );
    pair.run(&[
        "DO $$BEGIN UPDATE a SET n = n + 950; EXCEPTION WHEN check_violation THEN UPDATE a SET n = n + 1; END$$",
        "UPDATE a SET n = n + 1",
    ]);
    assert_eq!(pair.rows(), 101);
    assert_eq!(
        pair.one::<i64>("SELECT sum(n) FROM a_partitioned"),
        5050 + 1 + 303
    );
}

#[test]
fn the_trigger_function_does_nothing_for_a_table_of_no_pair() {
    let mut pair = Pair::plain("stranger");
    pair.run(&[
        "CREATE TABLE stranger (LIKE a)",
        "CREATE TRIGGER t AFTER INSERT ON stranger REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
         EXECUTE FUNCTION partition_router.sync('1', 'live')",
    ]);
    assert_eq!(
        failure(&mut pair, "INSERT INTO stranger VALUES (500, '2026-01-01')").0,
        "PR015"
    );
    assert_eq!(
        sqlstate(&mut pair.client, "SELECT partition_router.sync()"),
        "0A000"
    );
    assert_eq!(pair.rows(), 100);
}
