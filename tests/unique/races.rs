//! Two sessions at the critical point: whoever comes second waits for the first, and then for what became of it.

use super::common::{Database, one, run};
use super::{END, TABLES, THERE, guarded, in_step};
use postgres::Client;
use std::thread::JoinHandle;

type Answer = Result<(), postgres::Error>;

/// Starts a statement in a session of its own and waits until it waits for a lock.
fn blocked(database: &Database, watcher: &mut Client, statement: &'static str) -> JoinHandle<Answer> {
    let mut session = database.connect();
    let pid: i32 = one(&mut session, "SELECT pg_backend_pid()");
    let thread = std::thread::spawn(move || session.batch_execute(statement));
    let waits = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)");
    while !one::<bool>(watcher, &waits) {
        assert!(!thread.is_finished(), "{statement} did not wait");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    thread
}

fn answer(thread: JoinHandle<Answer>) -> Option<(String, Option<String>)> {
    let error = thread.join().expect("the thread ends").err()?;
    let error = error.as_db_error().expect("the server answered");
    Some((error.code().code().into(), error.constraint().map(str::to_string)))
}

fn taken(constraint: &str) -> Option<(String, Option<String>)> {
    Some(("23505".into(), Some(constraint.into())))
}

/// Both halves of each race, on a table in whatever phase.
fn one_of_two_gets_it(database: &Database) {
    let (mut first, mut watcher) = (database.connect(), database.connect());
    for (end, expected) in [("COMMIT", taken("t_pkey")), ("ROLLBACK", None)] {
        run(
            &mut first,
            &[
                "DELETE FROM s.t WHERE id = 5000",
                "BEGIN",
                "INSERT INTO s.t (id, at) VALUES (5000, '2025-02-02')",
            ],
        );
        let second = blocked(
            database,
            &mut watcher,
            "INSERT INTO s.t (id, at) VALUES (5000, '2025-05-05')",
        );
        run(&mut first, &[end]);
        assert_eq!(answer(second), expected, "{end}");
        assert_eq!(
            one::<i64>(&mut watcher, "SELECT count(*) FROM s.t WHERE id = 5000"),
            1
        );
    }
    for (end, expected) in [("COMMIT", None), ("ROLLBACK", taken("t_code_key"))] {
        run(
            &mut first,
            &[
                "DELETE FROM s.t WHERE id IN (6000, 6001)",
                "INSERT INTO s.t (id, at, code) VALUES (6000, '2025-02-02', 'race')",
                "BEGIN",
                "UPDATE s.t SET code = 'other' WHERE id = 6000",
            ],
        );
        let second = blocked(
            database,
            &mut watcher,
            "INSERT INTO s.t (id, at, code) VALUES (6001, '2025-05-05', 'race')",
        );
        run(&mut first, &[end]);
        assert_eq!(answer(second), expected, "{end}");
        assert_eq!(
            one::<i64>(&mut watcher, "SELECT count(*) FROM s.t WHERE code = 'race'"),
            1
        );
    }
    // A row that moves to another partition holds its id all the while.
    run(
        &mut first,
        &[
            "DELETE FROM s.t WHERE id = 7000",
            "INSERT INTO s.t (id, at) VALUES (7000, '2025-02-02')",
            "BEGIN",
            "UPDATE s.t SET at = '2025-04-04' WHERE id = 7000",
        ],
    );
    let second = blocked(
        database,
        &mut watcher,
        "INSERT INTO s.t (id, at) VALUES (7000, '2025-05-05')",
    );
    run(&mut first, &["COMMIT"]);
    assert_eq!(answer(second), taken("t_pkey"));
}

#[test]
fn one_of_two_sessions_gets_an_id_before_the_switchover_after_it_and_without_the_legacy() {
    let database = Database::new("race");
    let mut client = database.connect();
    run(&mut client, TABLES);
    one_of_two_gets_it(&database);
    run(&mut client, &[THERE]);
    one_of_two_gets_it(&database);
    run(&mut client, &[END]);
    one_of_two_gets_it(&database);
    in_step(&mut client);
}

#[test]
fn a_row_that_is_pointed_at_does_not_go_while_the_key_is_being_checked() {
    let (database, mut watcher) = guarded("checked");
    let mut first = database.connect();
    run(&mut first, &["ALTER TABLE s.child DROP CONSTRAINT points"]);
    run(
        &mut first,
        &["ALTER TABLE s.child ADD CONSTRAINT points FOREIGN KEY (parent) REFERENCES s.t_unique"],
    );
    run(&mut first, &["BEGIN", "INSERT INTO s.child VALUES (500, 900)"]);
    let second = blocked(&database, &mut watcher, "DELETE FROM s.t WHERE id = 900");
    run(&mut first, &["COMMIT"]);
    assert_eq!(answer(second), Some(("23503".into(), Some("points".into()))));
    // And the other way round.
    run(&mut first, &["BEGIN", "DELETE FROM s.t WHERE id = 901"]);
    let second = blocked(&database, &mut watcher, "INSERT INTO s.child VALUES (501, 901)");
    run(&mut first, &["COMMIT"]);
    assert_eq!(answer(second), Some(("23503".into(), Some("points".into()))));
    in_step(&mut watcher);
}

#[test]
fn a_writer_that_waits_for_the_end_meets_the_guard() {
    let database = Database::new("meets");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &[THERE]);
    // The end waits for the reader of the legacy, and the writer for the end.
    let (mut reader, mut watcher) = (database.connect(), database.connect());
    run(&mut reader, &["BEGIN", "SELECT count(*) FROM s.t_legacy"]);
    run(&mut client, &["SET partition_router.lock_timeout = '60s'"]);
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    let end = std::thread::spawn(move || client.batch_execute(END));
    while !one::<bool>(
        &mut watcher,
        &format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"),
    ) {
        assert!(!end.is_finished(), "the reader is in the way");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let good = blocked(
        &database,
        &mut watcher,
        "INSERT INTO s.t (id, at) VALUES (5000, '2025-02-02')",
    );
    let bad = blocked(
        &database,
        &mut watcher,
        "INSERT INTO s.t (id, at) VALUES (50, '2025-02-02')",
    );
    run(&mut reader, &["COMMIT"]);
    end.join().expect("the thread ends").expect("the end comes");
    assert_eq!(answer(good), None);
    assert_eq!(answer(bad), taken("t_pkey"));
    in_step(&mut watcher);
}
