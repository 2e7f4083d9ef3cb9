//! Triggers of the user beside ours.

use super::{Pair, SIDES};

/// A pair whose table has these triggers, carried to the twin as the migration does.
fn pair(test: &str, triggers: &[&str]) -> Pair {
    let mut statements = vec![
        "CREATE TABLE fired (n int, what text)",
        "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int NOT NULL DEFAULT 0, t text)",
        "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, 0, 'row' FROM generate_series(1, 100) g",
    ];
    statements.extend(triggers);
    Pair::new(test, &statements, "'d'")
}

#[test]
fn a_before_trigger_that_changes_the_row_fires_once_and_its_change_is_carried() {
    for side in SIDES {
        let mut pair = pair(
            "before",
            &[
                "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN NEW.n := NEW.n + 1; NEW.t := NEW.t || '!'; RETURN NEW; END$$",
                "CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION stamp()",
            ],
        );
        pair.run(&[
            &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 0, 'new')"),
            &format!("UPDATE {side} SET t = 'upd' WHERE id <= 5"),
        ]);
        assert_eq!(pair.rows(), 101);
        assert_eq!(pair.one::<String>("SELECT n || t FROM a WHERE id = 500"), "1new!");
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a WHERE n = 1 AND t = 'upd!'"),
            5
        );
    }
}

#[test]
fn an_after_trigger_fires_once_for_a_change_on_either_side() {
    for side in SIDES {
        let mut pair = pair(
            "once",
            &[
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO fired VALUES (COALESCE(NEW.id, OLD.id), TG_OP); RETURN NULL; END$$",
                "CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON a FOR EACH ROW EXECUTE FUNCTION note()",
            ],
        );
        pair.run(&[
            &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 0, 'new')"),
            &format!("UPDATE {side} SET n = 1 WHERE id = 500"),
            &format!("DELETE FROM {side} WHERE id = 500"),
        ]);
        assert_eq!(pair.rows(), 100);
        assert_eq!(
            pair.one::<String>("SELECT string_agg(what, ' ' ORDER BY what) FROM fired"),
            "DELETE INSERT UPDATE"
        );
    }
}

#[test]
fn an_after_trigger_may_change_the_row_that_fired_it() {
    for side in SIDES {
        let mut pair = pair("same_row", &[]);
        pair.run(&[
            &format!(
                "CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN UPDATE {side} SET n = n + 1, t = 'by trigger' WHERE id = NEW.id; RETURN NULL; END$$"
            ),
            &format!(
                "CREATE TRIGGER up AFTER INSERT OR UPDATE ON {side} FOR EACH ROW WHEN (NEW.n = 10) EXECUTE FUNCTION count_up()"
            ),
            &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 10, 'new'), (501, '2026-01-01', 5, 'new')"),
            &format!("UPDATE {side} SET n = 10 WHERE id <= 10"),
            &format!("UPDATE {side} SET n = 10, id = id + 600 WHERE id <= 5"),
        ]);
        assert_eq!(pair.rows(), 102);
        assert_eq!(
            pair.one::<i64>("SELECT count(*) FROM a_partitioned WHERE n = 11 AND t = 'by trigger'"),
            11
        );
    }
}

#[test]
fn an_after_trigger_may_move_delete_and_add_other_rows_of_the_pair() {
    for (side, other) in [
        ("a", "a"),
        ("a", "a_partitioned"),
        ("a_partitioned", "a"),
        ("a_partitioned", "a_partitioned"),
    ] {
        let mut pair = pair("other_rows", &[]);
        pair.run(&[
            &format!(
                "CREATE FUNCTION ripple() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                     IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
                     UPDATE {other} SET n = n + 1, d = d + 31 WHERE id IN (NEW.id + 1, NEW.id);
                     DELETE FROM {other} WHERE id = NEW.id + 2;
                     INSERT INTO {other} VALUES (NEW.id + 1000, NEW.d, 0, 'ripple');
                     RETURN NULL; END$$"
            ),
            &format!("CREATE TRIGGER ripple AFTER UPDATE ON {side} FOR EACH ROW EXECUTE FUNCTION ripple()"),
            &format!("UPDATE {side} SET n = 7 WHERE id IN (10, 20, 30)"),
            &format!("UPDATE {side} SET id = id + 5000 WHERE id = 40"),
        ]);
        assert_eq!(pair.rows(), 100 + 4 - 3, "{side} then {other}");
        // While a statement runs, the other side does not have its rows yet.
        if side == other {
            assert_eq!(pair.one::<i64>("SELECT count(*) FROM a WHERE n = 8"), 3);
        }
    }
}

#[test]
fn a_before_trigger_that_refuses_a_row_on_its_way_to_another_partition_is_followed() {
    let mut pair = pair("swallow", &[]);
    pair.run(&[
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN IF NEW.id = 20 THEN RETURN NULL; END IF; RETURN NEW; END$$",
        "CREATE TRIGGER refuse BEFORE INSERT ON a_partitioned FOR EACH ROW EXECUTE FUNCTION refuse()",
        "UPDATE a_partitioned SET d = d + 100, t = 'moved ' || id WHERE id BETWEEN 18 AND 24",
    ]);
    assert_eq!(pair.rows(), 99);
    assert_eq!(
        pair.one::<i64>("SELECT count(*) FROM a WHERE t = 'moved ' || id"),
        6
    );
}

#[test]
fn a_statement_trigger_that_writes_to_the_same_table_is_carried_once() {
    for side in SIDES {
        let mut pair = pair("statement", &[]);
        pair.run(&[
            &format!(
                "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                     IF pg_trigger_depth() < 2 THEN UPDATE {side} SET n = n + 100 WHERE id BETWEEN 2 + 49 * (TG_WHEN = 'BEFORE')::int AND 3 + 49 * (TG_WHEN = 'BEFORE')::int; END IF; RETURN NULL; END$$"
            ),
            &format!("CREATE TRIGGER aaa BEFORE UPDATE ON {side} FOR EACH STATEMENT EXECUTE FUNCTION more()"),
            &format!("CREATE TRIGGER zzz AFTER UPDATE ON {side} FOR EACH STATEMENT EXECUTE FUNCTION more()"),
            &format!("UPDATE {side} SET n = n + 1 WHERE id <= 2"),
        ]);
        assert_eq!(pair.rows(), 100);
        assert_eq!(pair.one::<i64>("SELECT sum(n) FROM a"), 402);
    }
}

#[test]
fn triggers_of_both_sides_do_not_chase_each_other() {
    let mut pair = pair("loop", &[]);
    pair.run(&[
        "SET statement_timeout = '20s'",
        "UPDATE a SET n = 1",
        "UPDATE a_partitioned SET n = n + 1",
        "UPDATE a SET d = d + 31",
        "UPDATE a_partitioned SET d = d + 31",
    ]);
    assert_eq!(pair.rows(), 100);
    assert_eq!(pair.one::<i64>("SELECT sum(n) FROM a"), 200);
}
