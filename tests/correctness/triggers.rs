//! Triggers of the user: what they change and write is carried, and they fire once.

use super::{Scene, compare, everywhere, live, nothing_more, one, run};
use crate::common::Database;

const TABLE: &str = "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, n int NOT NULL DEFAULT 0, t text)";
const ROWS: &str =
    "INSERT INTO a SELECT g, date '2026-01-01' + g % 80, 0, 'row' FROM generate_series(1, 100) g";
const FIRED: &str = "CREATE TABLE fired (id int, what text)";

#[test]
fn a_before_trigger_that_changes_every_part_of_the_row_is_carried_as_it_left_it() {
    let setup = [
        TABLE,
        ROWS,
        "CREATE FUNCTION mangle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             IF TG_OP = 'DELETE' THEN IF OLD.id % 10 = 0 THEN RETURN NULL; END IF; RETURN OLD; END IF;
             IF NEW.id % 10 = 7 THEN RETURN NULL; END IF;
             IF NEW.t = 'move' THEN NEW.d := NEW.d + 31; NEW.id := NEW.id + 1000; NEW.t := 'moved'; END IF;
             NEW.n := NEW.n + 1; RETURN NEW; END$$",
        "CREATE TRIGGER mangle BEFORE INSERT OR UPDATE OR DELETE ON a FOR EACH ROW EXECUTE FUNCTION mangle()",
    ];
    everywhere("mangle", &setup, "'d'", |scene| {
        let target = if scene.at.is_twin() { "id, d" } else { "id" };
        // A partitioned table refuses a BEFORE trigger that moves a row on its way into a partition.
        let moves = !scene.at.is_twin();
        scene.run(&[
            "INSERT INTO {} SELECT g, '2026-02-02', 0, 'new' FROM generate_series(500, 519) g",
            "UPDATE {} SET n = 10 WHERE id BETWEEN 1 AND 20",
            "DELETE FROM {} WHERE id BETWEEN 31 AND 40",
            &format!(
                "INSERT INTO {{}} SELECT id, d, 100, 'upsert' FROM {{}} WHERE id BETWEEN 41 AND 50
                 ON CONFLICT ({target}) DO UPDATE SET n = EXCLUDED.n"
            ),
        ]);
        if moves {
            scene.run(&[
                "UPDATE {} SET t = 'move' WHERE id BETWEEN 51 AND 60",
                "INSERT INTO {} VALUES (600, '2026-01-31', 0, 'move')",
            ]);
        }
        move |scene: &mut Scene| {
            let counted: String = scene.one(
                "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE id BETWEEN 500 AND 599), count(*) FILTER (WHERE n = 11),
                                  count(*) FILTER (WHERE id BETWEEN 31 AND 40), count(*) FILTER (WHERE n = 102), count(*) FILTER (WHERE t = 'moved'))
                 FROM a_partitioned",
            );
            let wanted = if moves {
                "110 18 18 1 9 10"
            } else {
                "109 18 18 1 9 0"
            };
            assert_eq!(counted, wanted, "at {:?}", scene.at);
        }
    });
}

#[test]
fn row_and_statement_triggers_fire_once_for_a_change_of_either_side() {
    let setup = [
        TABLE,
        ROWS,
        FIRED,
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             INSERT INTO fired VALUES (CASE WHEN TG_LEVEL = 'ROW' THEN COALESCE(OLD.id, NEW.id) END,
                                       concat_ws(' ', TG_WHEN, TG_LEVEL, TG_OP));
             IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END$$",
        "CREATE TRIGGER r BEFORE INSERT OR UPDATE OR DELETE ON a FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TRIGGER ra AFTER INSERT OR UPDATE OR DELETE ON a FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE TRIGGER s BEFORE INSERT OR UPDATE OR DELETE ON a FOR EACH STATEMENT EXECUTE FUNCTION note()",
        "CREATE TRIGGER sa AFTER INSERT OR UPDATE OR DELETE ON a FOR EACH STATEMENT EXECUTE FUNCTION note()",
        "CREATE TRIGGER ta AFTER TRUNCATE ON a FOR EACH STATEMENT EXECUTE FUNCTION note()",
        "TRUNCATE fired",
    ];
    everywhere("once", &setup, "'d'", |scene| {
        scene.run(&[
            "TRUNCATE fired",
            "INSERT INTO {} VALUES (500, '2026-02-02', 1, 'x'), (501, '2026-02-02', 1, 'x')",
            "UPDATE {} SET n = 2 WHERE id >= 500",
            "DELETE FROM {} WHERE id = 500",
            "UPDATE {} SET n = 3 WHERE id = -1",
        ]);
        |scene: &mut Scene| {
            let fired = scene.one::<String>(
                "SELECT string_agg(what || ' ' || times, ', ' ORDER BY what) FROM (SELECT what, count(*) AS times FROM fired GROUP BY what) x",
            );
            assert_eq!(
                fired,
                "AFTER ROW DELETE 1, AFTER ROW INSERT 2, AFTER ROW UPDATE 2, \
                 AFTER STATEMENT DELETE 1, AFTER STATEMENT INSERT 1, AFTER STATEMENT UPDATE 2, \
                 BEFORE ROW DELETE 1, BEFORE ROW INSERT 2, BEFORE ROW UPDATE 2, \
                 BEFORE STATEMENT DELETE 1, BEFORE STATEMENT INSERT 1, BEFORE STATEMENT UPDATE 2",
                "at {:?}",
                scene.at
            );
            scene.run(&["TRUNCATE fired", "TRUNCATE {}"]);
            assert_eq!(
                scene.one::<i64>("SELECT count(*) FROM fired"),
                1,
                "at {:?}",
                scene.at
            );
            assert_eq!(compare(&mut scene.keeper, "a"), 0);
        }
    });
}

#[test]
fn triggers_that_write_to_the_same_table_are_carried_at_every_moment() {
    for event in ["BEFORE", "AFTER"] {
        let trigger = format!(
            "CREATE TRIGGER ripple {event} UPDATE ON a FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ripple()"
        );
        let setup = [
            TABLE,
            ROWS,
            "CREATE FUNCTION ripple() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 EXECUTE format('UPDATE %s SET n = n + 1, d = d + 31 WHERE id = $1 + 1', TG_RELID::regclass) USING NEW.id;
                 EXECUTE format('DELETE FROM %s WHERE id = $1 + 2', TG_RELID::regclass) USING NEW.id;
                 EXECUTE format('INSERT INTO %s VALUES ($1 + 1000, $2, 0, ''ripple'')', TG_RELID::regclass) USING NEW.id, NEW.d;
                 EXECUTE format('UPDATE %s SET id = id + 1 WHERE id = $1 + 1000', TG_RELID::regclass) USING NEW.id;
                 RETURN NEW; END$$",
            &trigger,
        ];
        everywhere("ripple", &setup, "'d'", |scene| {
            // In a leaf TG_RELID is the leaf, whose bounds do not take every day.
            if scene.at.is_twin() {
                scene.run(&[
                    "CREATE OR REPLACE FUNCTION ripple() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                     UPDATE {} SET n = n + 1, d = d + 31 WHERE id = NEW.id + 1;
                     DELETE FROM {} WHERE id = NEW.id + 2;
                     INSERT INTO {} VALUES (NEW.id + 1000, NEW.d, 0, 'ripple');
                     UPDATE {} SET id = id + 1 WHERE id = NEW.id + 1000;
                     RETURN NEW; END$$",
                ]);
            }
            scene.run(&[
                "UPDATE {} SET n = 7 WHERE id IN (10, 20, 30)",
                "UPDATE {} SET id = id + 5000 WHERE id = 40",
                "BEGIN",
                "UPDATE {} SET n = 7 WHERE id IN (50, 60)",
                "SAVEPOINT s",
                "UPDATE {} SET n = 8 WHERE id IN (70, 80)",
                "ROLLBACK TO s",
                "UPDATE {} SET n = 8 WHERE id = 80",
                "COMMIT",
            ]);
            |scene: &mut Scene| {
                let counted: String = scene.one(
                    "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE t = 'ripple'), count(*) FILTER (WHERE n = 1)) FROM a_partitioned",
                );
                // Of 5040 there are no neighbours.
                assert_eq!(counted, "101 7 6", "at {:?}", scene.at);
            }
        });
    }
}

#[test]
fn a_write_to_the_other_side_inside_a_trigger_ends_equal() {
    // While a statement runs, the other side does not have its rows yet: who writes there then writes over them.
    for (side, other) in [("a", "a_partitioned"), ("a_partitioned", "a")] {
        for timing in ["BEFORE", "AFTER"] {
            for level in ["ROW", "STATEMENT"] {
                let database = Database::new("crosswise");
                let mut client = database.connect();
                run(
                    &mut client,
                    &[
                        TABLE,
                        ROWS,
                        "CALL partition_router.migrate('a', 'd')",
                        &format!(
                            "CREATE FUNCTION cross_over() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                                 UPDATE {other} SET t = 'crossed' WHERE id IN (5, 6, 7, 1005);
                                 UPDATE {other} SET d = d + 31 WHERE id IN (8, 108);
                                 DELETE FROM {other} WHERE id = 9;
                                 INSERT INTO {other} VALUES (9, '2026-03-09', 9, 'crossed') ON CONFLICT DO NOTHING;
                                 RETURN NEW; END$$"
                        ),
                        &format!("CREATE TRIGGER cross_over {timing} INSERT OR UPDATE ON {side} FOR EACH {level} EXECUTE FUNCTION cross_over()"),
                    ],
                );
                // A BEFORE row trigger may find the row changed under it: then the server refuses.
                for statement in [
                    format!("UPDATE {side} SET n = n + 1 WHERE id = 5"),
                    format!("UPDATE {side} SET n = n + 1, d = d + 31 WHERE id BETWEEN 4 AND 8"),
                    format!("UPDATE {side} SET id = id + 1000 WHERE id = 5"),
                    format!("INSERT INTO {side} VALUES (108, '2026-01-09', 0, 'new')"),
                    format!("UPDATE {side} SET id = id + 2000 WHERE id IN (6, 7, 9, 30)"),
                ] {
                    let code = super::outcome(&mut client, &statement);
                    assert!(
                        ["", "27000", "23505"].contains(&code.as_str()),
                        "{timing} {level} on {side}: {statement}: {code}"
                    );
                    compare(&mut client, "a");
                }
            }
        }
    }
}

#[test]
fn triggers_may_write_to_another_pair_and_back() {
    for (side, other) in [
        ("a", "b"),
        ("a_partitioned", "b_partitioned"),
        ("a", "b_partitioned"),
        ("a_partitioned", "b"),
    ] {
        let database = Database::new("other_pair");
        let mut client = database.connect();
        run(
            &mut client,
            &[
                TABLE,
                ROWS,
                "CREATE TABLE b (LIKE a INCLUDING ALL)",
                "INSERT INTO b TABLE a",
                "CALL partition_router.migrate('a', 'd')",
                "CALL partition_router.migrate('b', 'id', 'hash', partitions => 4)",
                &format!(
                    "CREATE FUNCTION to_b() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                         IF TG_OP = 'DELETE' THEN DELETE FROM {other} WHERE id = OLD.id; RETURN OLD; END IF;
                         UPDATE {other} SET n = NEW.n, d = NEW.d, id = NEW.id WHERE id = NEW.id;
                         IF NOT FOUND THEN INSERT INTO {other} VALUES (NEW.*); END IF;
                         RETURN NEW; END$$"
                ),
                &format!(
                    "CREATE FUNCTION to_a() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                         UPDATE {side} SET t = concat(t, '!') WHERE id = NEW.id + 1 AND id < 90; RETURN NEW; END$$"
                ),
                &format!("CREATE TRIGGER to_b AFTER INSERT OR UPDATE OR DELETE ON {side} FOR EACH ROW EXECUTE FUNCTION to_b()"),
                &format!("CREATE TRIGGER to_a AFTER UPDATE ON {other} FOR EACH ROW WHEN (pg_trigger_depth() < 5) EXECUTE FUNCTION to_a()"),
                &format!("UPDATE {side} SET n = 1 WHERE id IN (1, 10, 30)"),
                &format!("INSERT INTO {side} VALUES (500, '2026-02-02', 5, 'new')"),
                &format!("DELETE FROM {side} WHERE id BETWEEN 50 AND 59"),
                &format!("UPDATE {side} SET d = d + 31, n = 2 WHERE id BETWEEN 60 AND 69"),
            ],
        );
        assert_eq!(compare(&mut client, "a"), 91, "{side} to {other}");
        assert_eq!(compare(&mut client, "b"), 91, "{side} to {other}");
        let lost = "SELECT count(*) FROM a_partitioned a FULL JOIN b_partitioned b USING (id) WHERE (a.n, a.d) IS DISTINCT FROM (b.n, b.d)";
        assert_eq!(one::<i64>(&mut client, lost), 0);
    }
}

#[test]
fn a_deferred_constraint_trigger_writes_at_the_end_of_the_transaction() {
    let setup = [
        TABLE,
        ROWS,
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN UPDATE a SET n = n + 100, d = d + 31 WHERE id IN (NEW.id, 90) AND n < 100; DELETE FROM a WHERE id = NEW.id + 20; RETURN NULL; END$$",
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON a DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()",
    ];
    everywhere("late", &setup, "'d'", |scene| {
        scene.run(&[
            "BEGIN",
            "UPDATE {} SET n = 1 WHERE id IN (1, 2)",
            "UPDATE {} SET n = 2 WHERE id = 2",
            "SAVEPOINT s",
            "UPDATE {} SET n = 1 WHERE id = 3",
            "ROLLBACK TO s",
            "DELETE FROM {} WHERE id = 1",
            "COMMIT",
            "BEGIN",
            "UPDATE {} SET n = 1 WHERE id = 4",
            "SET CONSTRAINTS ALL IMMEDIATE",
            // Immediate, the function finds `a` without the row of a statement on the twin that still runs.
            "SET CONSTRAINTS ALL DEFERRED",
            "UPDATE {} SET n = 5 WHERE id = 5",
            "COMMIT",
        ]);
        |scene: &mut Scene| {
            let late = "SELECT string_agg(id || ':' || n, ' ' ORDER BY id) FROM a_partitioned WHERE n > 0";
            assert_eq!(
                scene.one::<String>(late),
                "2:102 4:101 5:105 90:100",
                "at {:?}",
                scene.at
            );
            assert_eq!(
                scene.one::<i64>("SELECT count(*) FROM a_partitioned WHERE id IN (21, 22, 24, 25)"),
                0
            );
        }
    });
}

#[test]
fn a_rule_that_rewrites_a_write_is_carried() {
    let setup = [
        TABLE,
        ROWS,
        FIRED,
        "CREATE VIEW v AS SELECT * FROM a WHERE id > 0 WITH CHECK OPTION",
    ];
    everywhere("view", &setup, "'d'", |scene| {
        scene.run(&[
            "CREATE OR REPLACE VIEW v AS SELECT * FROM {} WHERE id > 0",
            "INSERT INTO v VALUES (500, '2026-02-02', 1, 'view')",
            "UPDATE v SET d = d + 31 WHERE id <= 5",
            "DELETE FROM v WHERE id = 6",
            "CREATE RULE swallow AS ON DELETE TO v DO INSTEAD UPDATE {} SET n = -7 WHERE id = OLD.id",
            "DELETE FROM v WHERE id IN (7, 8)",
            "CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS $$UPDATE {} SET n = -9 WHERE id = 9 RETURNING n$$",
            "SELECT writes()",
            "UPDATE {} SET n = writes() WHERE id = 10",
            "INSERT INTO {} SELECT 600 + writes(), '2026-01-01', writes(), 'volatile'",
        ]);
        nothing_more
    });
    live("writing_default", &setup, "'d'", |scene| {
        // A default that writes to the table that it is for.
        scene.run(&[
            "CREATE FUNCTION next_n() RETURNS int LANGUAGE sql AS $$UPDATE {} SET n = n + 1 WHERE id = 1 RETURNING n$$",
            "ALTER TABLE {} ALTER n SET DEFAULT next_n()",
            "INSERT INTO {} (id, d) SELECT g, '2026-02-02' FROM generate_series(700, 709) g",
        ]);
        |scene: &mut Scene| assert_eq!(scene.one::<i32>("SELECT n FROM a_partitioned WHERE id = 1"), 10)
    });
}
