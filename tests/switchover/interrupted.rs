//! Whatever ends a call, wherever it is: the pair is before or after, never between, and the same call again finishes.

use super::common::{Cluster, Database, is_stress, one, run, sqlstate};
use super::{BACK, TABLES, THERE, equal, phase};
use postgres::Client;

/// Makes the `nth` DDL command of the sessions named `swapper` wait for an advisory lock that the test holds.
const HOLD: &[&str] = &[
    "CREATE FUNCTION public.hold() RETURNS event_trigger LANGUAGE plpgsql AS $$
     DECLARE n int := coalesce(nullif(current_setting('test.hold', true), ''), '0')::int;
     BEGIN
         IF n = 0 THEN RETURN; END IF;
         PERFORM set_config('test.hold', (n - 1)::text, false);
         IF n = 1 THEN PERFORM pg_advisory_xact_lock(4711); END IF;
     END $$",
    "CREATE EVENT TRIGGER hold ON ddl_command_start EXECUTE FUNCTION public.hold()",
];

enum End {
    Cancel,
    Terminate,
    Kill,
}

fn until(client: &mut Client, condition: &str) -> bool {
    for _ in 0..3000 {
        if one::<bool>(client, &format!("SELECT {condition}")) {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never came true: {condition}");
}

/// Ends `call` at its `nth` DDL command; gives whether it came that far.
fn end_at(database: &Database, nth: usize, call: &'static str, end: &End) -> bool {
    let mut holder = database.connect();
    run(&mut holder, &["SELECT pg_advisory_lock(4711)"]);
    let mut swapper = database.connect();
    run(&mut swapper, &[&format!("SET test.hold = {nth}")]);
    let pid: i32 = one(&mut swapper, "SELECT pg_backend_pid()");
    let thread = std::thread::spawn(move || swapper.batch_execute(call).is_ok());
    until(
        &mut holder,
        &format!(
            "NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})
             OR EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
        ),
    );
    let held: bool = one(
        &mut holder,
        &format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND NOT granted)"
        ),
    );
    if held {
        match end {
            End::Cancel => run(&mut holder, &[&format!("SELECT pg_cancel_backend({pid})")]),
            End::Terminate => run(&mut holder, &[&format!("SELECT pg_terminate_backend({pid})")]),
            End::Kill => {
                let killed = std::process::Command::new("kill")
                    .args(["-9", &pid.to_string()])
                    .status()
                    .expect("kill runs");
                assert!(killed.success());
                // The server ends every session before it recovers.
                while holder.simple_query("SELECT 1").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
        }
        assert!(!thread.join().expect("the thread ends"), "the call was ended");
    } else {
        assert!(
            thread.join().expect("the thread ends"),
            "{call} has no {nth} commands"
        );
    }
    held
}

/// Connects when the server has recovered.
fn reconnect(database: &Database) -> Client {
    for _ in 0..600 {
        let config = database.cluster.config("postgres", &database.name);
        if let Ok(client) = config.connect(postgres::NoTls) {
            return client;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the server does not come back");
}

fn ended_everywhere(database: &Database, end: End, every: usize) {
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &["CREATE VIEW s.v AS SELECT count(*) FROM s.t"]);
    run(&mut client, HOLD);
    for (call, before, after) in [(THERE, "live", "switched"), (BACK, "switched", "live")] {
        let mut nth = 1;
        while end_at(database, nth, call, &end) {
            if let End::Kill = end {
                client = reconnect(database);
            }
            let now = phase(&mut client);
            assert_eq!(now, before, "ended at command {nth} of {call}");
            assert_eq!(one::<i64>(&mut client, "SELECT count FROM s.v"), 1000);
            nth += every;
        }
        assert!(nth > 5, "{call} was ended at {nth} commands");
        assert_eq!(phase(&mut client), after);
        equal(&mut client, after == "switched");
    }
}

#[test]
fn a_cancelled_call_leaves_the_pair_as_it_was() {
    ended_everywhere(
        &Database::new("cancel"),
        End::Cancel,
        if is_stress() { 1 } else { 4 },
    );
}

#[test]
fn a_terminated_call_leaves_the_pair_as_it_was() {
    ended_everywhere(
        &Database::new("terminate"),
        End::Terminate,
        if is_stress() { 1 } else { 5 },
    );
}

#[test]
fn a_killed_backend_leaves_the_pair_as_it_was() {
    let database = Database::on(Cluster::start(&[]).into(), "killed");
    ended_everywhere(&database, End::Kill, if is_stress() { 1 } else { 11 });
}

#[test]
fn a_call_that_ended_after_the_swap_is_finished_by_the_same_call() {
    let database = Database::new("after");
    let mut client = database.connect();
    run(&mut client, TABLES);
    for (call, operation, after) in [(THERE, "switchover", "switched"), (BACK, "rollback", "live")] {
        // What is left when the session ends right after the swap has committed.
        for stage in ["PRE-FLIGHT", "PRE-MIGRATION", "SWAP"] {
            run(
                &mut client,
                &[&format!(
                    "SELECT partition_router.switchover_step('s.t', '{operation}', '{stage}')"
                )],
            );
        }
        assert_eq!(phase(&mut client), after);
        run(&mut client, &[call]);
        assert_eq!(
            one::<String>(
                &mut client,
                "SELECT stage FROM partition_router.run_log ORDER BY id DESC LIMIT 1"
            ),
            "POST-SWITCH"
        );
        assert_eq!(phase(&mut client), after);
        assert_eq!(sqlstate(&mut client, call), "PR012");
        equal(&mut client, after == "switched");
    }
}
