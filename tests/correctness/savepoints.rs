//! Subtransactions that are rolled back, on purpose or by an error.

use super::{PLAIN, Scene, everywhere, live};

#[test]
fn what_a_savepoint_undoes_is_undone_on_both_sides() {
    everywhere("savepoint", &PLAIN, "'d'", |scene| {
        scene.run(&[
            "BEGIN",
            "UPDATE {} SET n = 1000 WHERE id = 1",
            "SAVEPOINT s1",
            "DELETE FROM {} WHERE id <= 50",
            "SAVEPOINT s2",
            "INSERT INTO {} VALUES (1, '2026-02-02', 7, 7, 'again')",
            "UPDATE {} SET d = d + 31 WHERE id BETWEEN 60 AND 70",
            "SAVEPOINT s3",
            "UPDATE {} SET id = id + 1000 WHERE id BETWEEN 60 AND 65",
            "RELEASE s3",
            "ROLLBACK TO s2",
            "INSERT INTO {} VALUES (600, '2026-02-02', 600, 7, 'gone')",
            "ROLLBACK TO s1",
            "ROLLBACK TO s1",
            "UPDATE {} SET d = d + 31 WHERE id = 2",
            "SAVEPOINT s1",
            "UPDATE {} SET d = d + 31 WHERE id = 2",
            "RELEASE s1",
            "INSERT INTO {} VALUES (601, '2026-02-02', 601, 7, 'stays')",
            "COMMIT",
            "BEGIN",
            "DELETE FROM {}",
            "ROLLBACK",
            // A key that was given up and taken in turns.
            "BEGIN",
            "DELETE FROM {} WHERE id = 3",
            "SAVEPOINT s",
            "INSERT INTO {} VALUES (3, '2026-03-03', 3, -3, 'one')",
            "ROLLBACK TO s",
            "INSERT INTO {} VALUES (3, '2026-01-03', 3, -4, 'two')",
            "COMMIT",
        ]);
        |scene: &mut Scene| {
            let rows = "SELECT string_agg(concat_ws(' ', id, d, n), ', ' ORDER BY id) FROM a_partitioned WHERE id <= 3 OR id > 100";
            assert_eq!(
                scene.one::<String>(rows),
                "1 2026-01-02 1000, 2 2026-03-06 2, 3 2026-01-03 -4, 601 2026-02-02 7",
                "at {:?}",
                scene.at
            );
        }
    });
}

#[test]
fn exceptions_at_every_depth_leave_both_sides_equal() {
    everywhere("exceptions", &PLAIN, "'d'", |scene| {
        let side = scene.at.side();
        scene.run(&[
            &format!(
                "CREATE FUNCTION deep(level int) RETURNS void LANGUAGE plpgsql AS $$BEGIN
                     INSERT INTO {side} VALUES (1000 + level, '2026-02-02', 1000 + level, level, 'deep');
                     BEGIN
                         UPDATE {side} SET n = n + 1000, d = d + 31 WHERE id = level;
                         IF level < 80 THEN PERFORM deep(level + 1); END IF;
                         IF level % 3 = 0 THEN RAISE 'no'; END IF;
                     EXCEPTION WHEN raise_exception THEN
                         UPDATE {side} SET t = 'caught' WHERE id = level;
                     END; END$$"
            ),
            "SELECT deep(1)",
            // More subtransactions than fit into a backend's cache of them, each with its own error.
            &format!(
                "DO $$BEGIN FOR i IN 1..200 LOOP BEGIN
                     INSERT INTO {side} VALUES (2000 + i, '2026-02-02', 2000 + i, i, 'loop');
                     UPDATE {side} SET d = '2026-01-01' WHERE id = 2000 + i;
                     IF i % 2 = 0 THEN PERFORM 1 / (i % 2); END IF;
                     UPDATE {side} SET id = id + 1000 WHERE id = 2000 + i;
                     INSERT INTO {side} VALUES (1, '2026-01-02', 1, 1, 'a duplicate');
                 EXCEPTION WHEN division_by_zero THEN UPDATE {side} SET n = -i WHERE id = 90;
                           WHEN unique_violation THEN DELETE FROM {side} WHERE id = 3000 - i; END; END LOOP; END$$"
            ),
        ]);
        |scene: &mut Scene| {
            let counted: String = scene.one(
                "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE t = 'deep'), count(*) FILTER (WHERE t = 'caught'), min(n)) FROM a_partitioned",
            );
            assert_eq!(counted, "103 3 1 -200", "at {:?}", scene.at);
        }
    });
}

#[test]
fn an_error_inside_the_sync_is_caught_like_any_other() {
    // The other side refuses; what the statement did is undone with it, and the session goes on.
    live("sync_error", &PLAIN, "'d'", |scene| {
        let (side, other) = (
            scene.at.side(),
            if scene.at.side() == "a" {
                "a_partitioned"
            } else {
                "a"
            },
        );
        scene.run(&[
            &format!("ALTER TABLE {other} ADD CONSTRAINT small CHECK (n < 1000)"),
            &format!(
                "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN IF NEW.n >= 1000 THEN UPDATE {side} SET t = 'nested' WHERE id = NEW.id + 1; END IF; RETURN NULL; END$$"
            ),
            &format!("CREATE TRIGGER note AFTER UPDATE ON {side} FOR EACH ROW EXECUTE FUNCTION note()"),
            "BEGIN",
            "UPDATE {} SET n = -1 WHERE id = 1",
            "SAVEPOINT s",
        ]);
        assert_eq!(scene.sqlstate("UPDATE {} SET n = 950 + id"), "23514");
        scene.run(&[
            "ROLLBACK TO s",
            "UPDATE {} SET d = d + 31 WHERE id = 2",
            "SAVEPOINT s",
        ]);
        assert_eq!(
            scene.sqlstate("INSERT INTO {} VALUES (500, '2026-02-02', 500, 1000, 'x')"),
            "23514"
        );
        scene.run(&[
            "ROLLBACK TO s",
            "DELETE FROM {} WHERE id = 3",
            "COMMIT",
            &format!(
                "DO $$BEGIN
                     BEGIN UPDATE {side} SET n = n + 950; EXCEPTION WHEN check_violation THEN UPDATE {side} SET n = n + 1; END;
                     BEGIN UPDATE {side} SET n = 2000, d = d + 31 WHERE id = 4; EXCEPTION WHEN check_violation THEN NULL; END;
                     UPDATE {side} SET d = d + 31 WHERE id = 5;
                 END$$"
            ),
            "UPDATE {} SET n = n + 1",
        ]);
        |scene: &mut Scene| {
            let counted: String =
                scene.one("SELECT concat_ws(' ', count(*), sum(n), count(*) FILTER (WHERE t = 'nested')) FROM a_partitioned");
            // 5050 - 1 - 1 - 3, and twice one for each of the rows.
            assert_eq!(
                counted,
                format!("99 {} 0", 5050 - 5 + 2 * 99),
                "on {:?}",
                scene.at
            );
        }
    });
}

#[test]
fn a_replica_session_is_carried_as_any_other() {
    everywhere("replica", &PLAIN, "'d'", |scene| {
        scene.run(&[
            "SET session_replication_role = replica",
            "INSERT INTO {} VALUES (500, '2026-02-02', 500, 1, 'replica'), (501, '2026-02-02', 501, 1, 'replica')",
            "UPDATE {} SET d = d + 31 WHERE id <= 5",
            "UPDATE {} SET id = id + 1000 WHERE id BETWEEN 6 AND 8",
            "DELETE FROM {} WHERE id BETWEEN 9 AND 12",
            "BEGIN",
            "SET LOCAL session_replication_role = local",
            "UPDATE {} SET n = -1 WHERE id = 20",
            "SAVEPOINT s",
            "DELETE FROM {}",
            "ROLLBACK TO s",
            "COMMIT",
        ]);
        |scene: &mut Scene| {
            assert_eq!(scene.one::<i64>("SELECT count(*) FROM a_partitioned"), 98);
            scene.run(&["SET session_replication_role = replica", "TRUNCATE {}"]);
            assert_eq!(super::compare(&mut scene.keeper, "a"), 0);
        }
    });
}
