//! Many sessions, few values: whatever they do, the table has each id and each code once, and the guard has its rows.

use super::common::{Database, clock_seed, is_stress, one, run};
use super::{guarded, in_step};
use postgres::Client;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn statement(random: &mut ChaCha8Rng) -> String {
    let (id, other) = (random.random_range(1..120), random.random_range(1..120));
    let day = random.random_range(0..150);
    let at = format!("timestamp '2025-01-01' + interval '{day} days'");
    match random.random_range(0..10) {
        0 | 1 => format!("INSERT INTO s.t (id, at, code) VALUES ({id}, {at}, 'r{other}')"),
        2 => format!(
            "INSERT INTO s.t (id, at, note, amount) VALUES ({id}, {at}, 'x{}', 6000)",
            other % 9
        ),
        3 => format!("INSERT INTO s.t (id, at) SELECT g, {at} FROM generate_series({id}, {id} + 60) g"),
        4 => format!("UPDATE s.t SET at = {at} WHERE id = {id}"),
        5 => format!("UPDATE s.t SET id = {other} WHERE id = {id}"),
        6 => format!("UPDATE s.t SET code = 'r{other}', org = 1 WHERE id BETWEEN {id} AND {id} + 3"),
        7 => format!("DELETE FROM s.t WHERE id BETWEEN {id} AND {id} + 5"),
        8 => format!("DELETE FROM s.t_2025_02 WHERE id BETWEEN {id} AND {id} + 20"),
        _ => format!("INSERT INTO s.child SELECT 1000 + max(id) + {id}, {other} FROM s.child"),
    }
}

/// What a session does; gives how many statements were refused for a constraint.
fn session(database: &Database, seed: u64, rounds: usize) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut client = database.connect();
    let mut refused = 0;
    for _ in 0..rounds {
        let many = random.random_range(1..4);
        let mut text: Vec<String> = (0..many).map(|_| statement(&mut random)).collect();
        if random.random_range(0..4) == 0 {
            text.push("ROLLBACK".into());
        } else {
            text.push("COMMIT".into());
        }
        let text = format!("BEGIN; {}", text.join("; "));
        if let Err(error) = client.batch_execute(&text) {
            let code = error.code().map(|c| c.code().to_string()).unwrap_or_default();
            // A session may also be the victim of a deadlock: rows are locked in the order in which they are named. And a row that it
            // waited for may have moved to another partition, which the server answers with 40001.
            assert!(
                ["23505", "23503", "40P01", "40001"].contains(&code.as_str()),
                "{text}: {error:?}"
            );
            refused += 1;
            run(&mut client, &["ROLLBACK"]);
        }
    }
    refused
}

fn once(client: &mut Client, columns: &str, condition: &str) {
    let twice: i64 = one(
        client,
        &format!(
            "SELECT count(*) FROM (SELECT FROM s.t WHERE {condition} GROUP BY {columns} HAVING count(*) > 1) d"
        ),
    );
    assert_eq!(twice, 0, "{columns}");
}

#[test]
fn many_sessions_with_few_values_leave_each_value_once() {
    let seed = std::env::var("PARTITION_ROUTER_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(clock_seed);
    println!("unique: PARTITION_ROUTER_SEED={seed}");
    let (sessions, rounds) = if is_stress() { (8, 2000) } else { (4, 100) };
    let (database, mut client) = guarded("random");
    let refused: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sessions)
            .map(|number| {
                let database = &database;
                scope.spawn(move || session(database, seed + number, rounds))
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("no other error"))
            .sum()
    });
    assert!(refused > 0, "the sessions got into each other's way");
    once(&mut client, "id", "true");
    once(&mut client, "code", "code IS NOT NULL");
    once(&mut client, "lower(note)", "amount > 5000 AND note IS NOT NULL");
    in_step(&mut client);
    let dangling: i64 = one(
        &mut client,
        "SELECT count(*) FROM s.child WHERE NOT EXISTS (SELECT FROM s.t WHERE t.id = child.parent)",
    );
    assert_eq!(dangling, 0);
}
