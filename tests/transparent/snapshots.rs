//! No snapshot reads a twin that was not live and proven in it; no read in the middle of a write sees what it would not
//! have seen on the legacy.

use crate::common::{Database, one, run, texts};
use crate::marked::{self, ROUTED, explain, marked, side};
use postgres::Client;

const LEVELS: [&str; 2] = ["REPEATABLE READ", "SERIALIZABLE"];

fn reads_twin(client: &mut Client, statement: &str) -> bool {
    explain(client, statement).contains("revenues_20")
}

/// A session with plans cached, in which a snapshot is taken by `SELECT` from another table.
fn session_of(database: &Database) -> Client {
    let mut session = database.connect();
    run(
        &mut session,
        &[
            ROUTED,
            "PREPARE counted AS SELECT count(*) FROM revenues",
            "PREPARE at_side(int) AS SELECT side FROM revenues WHERE id = $1",
            "CREATE FUNCTION pg_temp.counted() RETURNS bigint LANGUAGE plpgsql AS
             $$BEGIN RETURN (SELECT count(*) FROM revenues); END$$",
        ],
    );
    for _ in 0..7 {
        counts(&mut session);
    }
    session
}

/// The number of rows, asked in each way.
fn counts(session: &mut Client) -> [i64; 3] {
    [
        one(session, "SELECT count(*) FROM revenues"),
        one(session, "EXECUTE counted"),
        one(session, "SELECT pg_temp.counted()"),
    ]
}

/// Begins a transaction whose snapshot is of now.
fn begin(session: &mut Client, level: &str) {
    run(
        session,
        &[
            &format!("BEGIN ISOLATION LEVEL {level}"),
            "SELECT count(*) FROM pg_class",
        ],
    );
}

#[test]
fn a_snapshot_older_than_live_reads_the_legacy_with_cached_plans() {
    for level in LEVELS {
        let (database, mut owner) = marked("old_live");
        let mut session = session_of(&database);
        assert_eq!(
            one::<String>(&mut session, "EXECUTE at_side(0)"),
            "twin",
            "{level}"
        );
        run(&mut owner, &["SELECT partition_router.abandon('revenues')"]);
        begin(&mut session, level);
        marked::migrate(&mut owner);
        let mut young = session_of(&database);
        assert_eq!(side(&mut young), "twin", "{level}");
        for _ in 0..2 {
            // The rows of the twin are younger than this snapshot: it would see none.
            assert_eq!(counts(&mut session), [300; 3], "{level}");
            assert_eq!(
                one::<String>(&mut session, "EXECUTE at_side(0)"),
                "legacy",
                "{level}"
            );
            assert!(!reads_twin(&mut session, "SELECT * FROM revenues"), "{level}");
        }
        run(&mut session, &["COMMIT"]);
        assert_eq!(
            one::<String>(&mut session, "EXECUTE at_side(0)"),
            "twin",
            "{level}"
        );
        assert_eq!(counts(&mut session), [300; 3], "{level}");
        assert!(reads_twin(&mut session, "SELECT * FROM revenues"), "{level}");
    }
}

#[test]
fn a_snapshot_older_than_the_proof_reads_the_legacy() {
    for level in LEVELS {
        let database = Database::on(crate::server(), "old_proof");
        let mut owner = database.connect();
        run(&mut owner, marked::TABLE);
        run(
            &mut owner,
            &[
                "SELECT partition_router.create_twin('revenues', 'at')",
                "SELECT partition_router.start_sync('revenues')",
                "CALL partition_router.backfill('revenues')",
            ],
        );
        let mut session = session_of(&database);
        begin(&mut session, level);
        run(&mut owner, &["SELECT partition_router.verify('revenues')"]);
        for _ in 0..2 {
            assert!(!reads_twin(&mut session, "SELECT * FROM revenues"), "{level}");
            assert!(!reads_twin(&mut session, "EXECUTE counted"), "{level}");
        }
        run(&mut session, &["COMMIT"]);
        assert!(reads_twin(&mut session, "SELECT * FROM revenues"), "{level}");
        assert!(reads_twin(&mut session, "EXECUTE counted"), "{level}");
    }
}

#[test]
fn a_snapshot_younger_than_the_proof_keeps_its_side_for_all_its_statements() {
    for level in LEVELS {
        let (database, mut owner) = marked("old_proven");
        let mut session = session_of(&database);
        begin(&mut session, level);
        // It finds the sides to differ.
        run(&mut owner, &["SELECT partition_router.verify('revenues')"]);
        let first = side(&mut session);
        assert_eq!(first, "twin", "{level}: it was proven in this snapshot");
        assert_eq!(
            one::<String>(&mut session, "EXECUTE at_side(0)"),
            first,
            "{level}"
        );
        run(&mut session, &["COMMIT"]);
        assert_eq!(side(&mut session), "legacy", "{level}");
        assert_eq!(
            one::<String>(&mut session, "EXECUTE at_side(0)"),
            "legacy",
            "{level}"
        );
    }
}

#[test]
fn a_snapshot_in_which_the_twin_still_is_reads_the_legacy_when_it_is_gone() {
    for level in LEVELS {
        for again in [false, true] {
            let (database, mut owner) = marked("old_gone");
            let mut session = session_of(&database);
            begin(&mut session, level);
            run(&mut owner, &["SELECT partition_router.abandon('revenues')"]);
            if again {
                marked::migrate(&mut owner);
            }
            for _ in 0..2 {
                assert_eq!(counts(&mut session), [300; 3], "{level}, again {again}");
                let found: String = one(&mut session, "EXECUTE at_side(0)");
                assert_eq!(found, "legacy", "{level}, again {again}");
            }
            run(&mut session, &["COMMIT"]);
            let wanted = if again { "twin" } else { "legacy" };
            assert_eq!(side(&mut session), wanted, "{level}, again {again}");
        }
    }
}

#[test]
fn an_imported_snapshot_reads_as_the_session_that_exported_it() {
    let (database, mut owner) = marked("exported");
    run(&mut owner, &["SELECT partition_router.abandon('revenues')"]);
    let (mut first, mut second) = (session_of(&database), session_of(&database));
    run(&mut first, &["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
    let name: String = one(&mut first, "SELECT pg_export_snapshot()");
    marked::migrate(&mut owner);
    assert_eq!(side(&mut second), "twin");
    run(
        &mut second,
        &[
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            &format!("SET TRANSACTION SNAPSHOT '{name}'"),
        ],
    );
    assert_eq!(counts(&mut second), [300; 3]);
    assert!(!reads_twin(&mut second, "SELECT * FROM revenues"));
}

/// A pair with a function `look` that reads it into a log, and something to write from.
const WATCHED: &[&str] = &[
    "CREATE TABLE parents (id int PRIMARY KEY, name text)",
    "INSERT INTO parents SELECT g, 'parent ' || g FROM generate_series(1, 5) g",
    "CREATE TABLE revenues (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE ON UPDATE CASCADE,
     at timestamp NOT NULL, cents bigint NOT NULL)",
    "INSERT INTO revenues SELECT g, 1 + g % 5, timestamp '2026-01-01' + g * interval '2 days', g FROM generate_series(1, 60) g",
    "CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY, label text, seen text)",
    // Plain reads in PL/pgSQL, whose plans are cached: what applications have in triggers and functions.
    "CREATE FUNCTION look(label text) RETURNS int LANGUAGE plpgsql AS $$
     DECLARE n bigint; total bigint; months bigint;
     BEGIN
         SELECT count(*), sum(cents) INTO n, total FROM revenues;
         SELECT count(*) INTO months FROM revenues WHERE at >= '2026-02-01' AND at < '2026-03-01' AND cents > 0;
         INSERT INTO log (label, seen) VALUES (label, concat_ws(' ', n, total, months));
         RETURN 1;
     END$$",
    "CREATE FUNCTION look_in_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN PERFORM look(concat_ws(' ', TG_TABLE_NAME, TG_NAME, TG_OP)); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END$$",
];

/// What a session does in one transaction; `{row}` stands for a new row.
const WRITES: &[(&str, &[&str])] = &[
    ("between statements", &[
        "UPDATE revenues SET cents = cents + 1 WHERE id < 20",
        "SELECT look('after update')",
        "DELETE FROM revenues WHERE id > 50",
        "SELECT look('after delete')",
        "INSERT INTO revenues VALUES (100, 1, '2026-02-02', 7)",
        "SELECT look('after insert')",
        "TRUNCATE revenues",
        "SELECT look('after truncate')",
    ]),
    ("a volatile function in UPDATE", &["UPDATE revenues SET cents = cents + 10 * look('set') WHERE id <= 10"]),
    ("a volatile function in WHERE of DELETE", &["DELETE FROM revenues WHERE id <= 10 AND look('where') = 1"]),
    ("a volatile function in INSERT", &[
        "INSERT INTO revenues SELECT 100 + g, 1, '2026-02-03', look('values') FROM generate_series(1, 6) g",
    ]),
    ("a volatile function in RETURNING", &[
        "UPDATE revenues SET cents = 0 WHERE id <= 4 RETURNING look('returning')",
        "DELETE FROM revenues WHERE id <= 4 RETURNING look('returning')",
        "INSERT INTO revenues VALUES (200, 1, '2026-02-03', 5), (201, 1, '2026-04-03', 5) RETURNING look('returning')",
    ]),
    ("a data-modifying CTE", &[
        "WITH changed AS (UPDATE revenues SET cents = 1000 WHERE id <= 10 RETURNING *)
         INSERT INTO log (label, seen) SELECT 'cte', concat_ws(' ', (SELECT count(*) FROM changed),
             (SELECT sum(cents) FROM revenues), (SELECT look('in cte')))",
        "WITH gone AS (DELETE FROM revenues WHERE id = 11 RETURNING look('gone'))
         SELECT count(*), (SELECT look('beside')) FROM revenues, gone",
        "WITH new AS (INSERT INTO revenues VALUES (300, 1, '2026-02-03', 5) RETURNING id)
         SELECT look('outer'), count(*) FROM new",
    ]),
    ("a data-modifying CTE on another table", &[
        "WITH other AS (INSERT INTO log (label, seen) SELECT 'other', sum(cents)::text FROM revenues RETURNING id)
         SELECT count(*), look('outer') FROM other",
    ]),
    ("MERGE", &[
        "MERGE INTO revenues r USING (VALUES (1, 5), (2, 6), (400, 7)) v (id, cents) ON r.id = v.id
         WHEN MATCHED AND r.id = 2 THEN DELETE
         WHEN MATCHED THEN UPDATE SET cents = v.cents + look('matched')
         WHEN NOT MATCHED THEN INSERT VALUES (v.id, 1, '2026-02-05', v.cents + look('not matched'))",
    ]),
    ("ON CONFLICT", &[
        "INSERT INTO revenues SELECT g, 1, '2026-02-05', 1 FROM generate_series(58, 62) g
         ON CONFLICT (id) DO UPDATE SET cents = excluded.cents + look('conflict')",
    ]),
    ("row triggers", &[
        "CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OR DELETE ON revenues FOR EACH ROW EXECUTE FUNCTION look_in_trigger()",
        "CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON revenues FOR EACH ROW EXECUTE FUNCTION look_in_trigger()",
        "UPDATE revenues SET cents = cents * 2, at = at + interval '1 month' WHERE id <= 5",
        "DELETE FROM revenues WHERE id <= 3",
        "INSERT INTO revenues VALUES (500, 1, '2026-02-05', 1), (501, 1, '2026-02-05', 1)",
    ]),
    ("statement triggers before and after those of sync", &[
        "CREATE TRIGGER a_before BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON revenues EXECUTE FUNCTION look_in_trigger()",
        "CREATE TRIGGER a_after AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON revenues EXECUTE FUNCTION look_in_trigger()",
        "CREATE TRIGGER zz_before BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON revenues EXECUTE FUNCTION look_in_trigger()",
        "CREATE TRIGGER zz_after AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON revenues EXECUTE FUNCTION look_in_trigger()",
        "UPDATE revenues SET cents = cents * 2, at = at + interval '1 month' WHERE id <= 5",
        "DELETE FROM revenues WHERE id <= 3",
        "INSERT INTO revenues VALUES (500, 1, '2026-02-05', 1), (501, 1, '2026-02-05', 1)",
        "TRUNCATE revenues",
    ]),
    ("a write in a trigger of a write", &[
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             PERFORM look('before inner'); UPDATE revenues SET cents = cents + 1 WHERE id = NEW.id + 1; PERFORM look('after inner');
             RETURN NULL; END$$",
        "CREATE TRIGGER a_again AFTER UPDATE ON revenues FOR EACH ROW WHEN (pg_trigger_depth() < 2) EXECUTE FUNCTION again()",
        "UPDATE revenues SET cents = 5 WHERE id IN (1, 5, 9)",
    ]),
    ("a deferred constraint trigger", &[
        "CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE OR DELETE ON revenues DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION look_in_trigger()",
        "UPDATE revenues SET cents = 5 WHERE id IN (1, 5)",
        "DELETE FROM revenues WHERE id = 9",
        "SET CONSTRAINTS ALL IMMEDIATE",
    ]),
    ("cascades", &[
        "CREATE TRIGGER before_row BEFORE UPDATE OR DELETE ON revenues FOR EACH ROW EXECUTE FUNCTION look_in_trigger()",
        "CREATE TRIGGER a_after AFTER UPDATE OR DELETE ON revenues EXECUTE FUNCTION look_in_trigger()",
        "CREATE TRIGGER parents_after AFTER UPDATE OR DELETE ON parents FOR EACH ROW EXECUTE FUNCTION look_in_trigger()",
        "UPDATE parents SET id = 10 WHERE id = 1",
        "DELETE FROM parents WHERE id = 2 RETURNING look('returning')",
    ]),
    ("writes on the twin", &[
        "UPDATE revenues_partitioned SET cents = cents + 10 * look('set') WHERE id <= 10",
        "DELETE FROM revenues_partitioned WHERE id <= 4 RETURNING look('returning')",
        "INSERT INTO revenues_partitioned SELECT 100 + g, 1, '2026-02-03', look('values') FROM generate_series(1, 6) g",
        "UPDATE revenues_2026_01 SET cents = cents + 10 * look('leaf') WHERE id <= 10",
        "SELECT look('after')",
    ]),
    ("statement triggers on the twin", &[
        "SET LOCAL partition_router.carry_ddl = off",
        "CREATE TRIGGER a_after AFTER INSERT OR UPDATE OR DELETE ON revenues_partitioned EXECUTE FUNCTION look_in_trigger()",
        "CREATE TRIGGER zz_after AFTER INSERT OR UPDATE OR DELETE ON revenues_partitioned EXECUTE FUNCTION look_in_trigger()",
        "UPDATE revenues_partitioned SET cents = cents * 2, at = at + interval '1 month' WHERE id <= 5",
        "UPDATE revenues SET cents = cents * 3 WHERE id <= 5",
        "DELETE FROM revenues WHERE id = 5",
    ]),
    ("savepoints", &[
        "SAVEPOINT a",
        "UPDATE revenues SET cents = cents + look('inner') WHERE id <= 3",
        "SELECT look('before rollback')",
        "ROLLBACK TO a",
        "SELECT look('after rollback')",
        "DO $$BEGIN UPDATE revenues SET cents = 1 / (id - 3) + look('fails'); EXCEPTION WHEN division_by_zero THEN PERFORM look('caught'); END$$",
        "SELECT look('after')",
    ]),
    ("a cursor opened before a write", &[
        "DECLARE c CURSOR FOR SELECT id, cents FROM revenues ORDER BY id",
        "MOVE 5 FROM c",
        "UPDATE revenues SET cents = 0",
        "DELETE FROM revenues WHERE id = 8",
        "CREATE FUNCTION pg_temp.rest(c refcursor) RETURNS void LANGUAGE plpgsql AS $$DECLARE r record; BEGIN
            LOOP FETCH c INTO r; EXIT WHEN NOT FOUND; INSERT INTO log (label, seen) VALUES ('fetched', r::text); END LOOP; END$$",
        "SELECT pg_temp.rest('c')",
    ]),
    ("a loop that writes what it reads", &[
        "DO $$DECLARE r record; BEGIN FOR r IN SELECT id, cents FROM revenues ORDER BY id LOOP
             UPDATE revenues SET cents = cents + 1 WHERE id >= r.id AND id < r.id + 3;
             INSERT INTO log (label, seen) VALUES ('loop', r::text); PERFORM look('in loop') WHERE r.id % 20 = 0;
         END LOOP; END$$",
    ]),
    ("a stable function in a write", &[
        "CREATE FUNCTION steady() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN RETURN (SELECT sum(cents) FROM revenues); END$$",
        "UPDATE revenues SET cents = steady() WHERE id <= 5",
        "SELECT look('after')",
        "INSERT INTO log (label, seen) SELECT 'row', r::text FROM revenues r WHERE id <= 5 ORDER BY id",
    ]),
    ("a function of SQL in a write", &[
        "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql VOLATILE AS $$SELECT sum(cents)::bigint FROM revenues$$",
        "UPDATE revenues SET cents = total() WHERE id <= 5",
        "INSERT INTO log (label, seen) SELECT 'row', r::text FROM revenues r WHERE id <= 5 ORDER BY id",
    ]),
    ("what writes from what it reads", &[
        "INSERT INTO revenues SELECT id + 1000, parent, at, cents FROM revenues WHERE id <= 10",
        "UPDATE revenues r SET cents = (SELECT sum(cents) FROM revenues q WHERE q.parent = r.parent) WHERE id <= 10",
        "DELETE FROM revenues r USING revenues q WHERE q.id = r.id + 1000",
        "CREATE TEMP TABLE taken ON COMMIT DROP AS SELECT * FROM revenues",
        "INSERT INTO log (label, seen) SELECT 'row', t::text FROM taken t ORDER BY id",
        "SELECT look('after')",
    ]),
];

/// What `look` saw in one transaction, which is rolled back.
fn seen(session: &mut Client, statements: &[&str]) -> Vec<String> {
    run(session, &["BEGIN"]);
    // The plans of `look` are cached before anything is written.
    run(session, &["SELECT look('before')"; 7]);
    run(session, statements);
    let seen = texts(session, "SELECT label || ': ' || seen FROM log ORDER BY id");
    run(session, &["ROLLBACK"]);
    seen
}

#[test]
fn a_read_in_the_middle_of_a_write_sees_what_it_would_see_unrouted() {
    let database = Database::on(crate::server(), "middle");
    let mut owner = database.connect();
    run(&mut owner, WATCHED);
    run(
        &mut owner,
        &["CALL partition_router.migrate('revenues', 'at', premake => 6)"],
    );
    let (mut plain, mut routed) = (database.connect(), database.connect());
    run(&mut routed, &[ROUTED]);
    assert!(reads_twin(
        &mut routed,
        "SELECT count(*), sum(cents) FROM revenues"
    ));
    for (what, statements) in WRITES {
        let wanted = seen(&mut plain, statements);
        assert!(wanted.len() > 7, "{what}: nothing was seen");
        assert_eq!(seen(&mut routed, statements), wanted, "{what}");
    }
    // The same in one session, whose plans were cached unrouted.
    for (what, statements) in WRITES {
        let wanted = seen(&mut plain, statements);
        run(&mut plain, &[ROUTED]);
        assert_eq!(seen(&mut plain, statements), wanted, "{what}, flipped");
        run(&mut plain, &["RESET ALL"]);
    }
}
