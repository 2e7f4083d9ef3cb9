//! Generated SELECTs give the same multiset routed and not, or fail with the same SQLSTATE, in every way that a client can
//! run them.

use crate::common::{Database, is_stress, run, texts};
use crate::grammar::{Generated, generate};
use crate::marked::ROUTED;
use crate::ways::{self, Answer, Way};
use crate::world::{PAIRS, ROLES, become_role, world};
use postgres::Client;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Settings of the planner for some queries in a row, the same in both sessions.
const PROFILES: &[(&str, &str)] = &[
    ("default", "RESET ALL"),
    (
        "parallel",
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         SET min_parallel_index_scan_size = 0; SET max_parallel_workers_per_gather = 2",
    ),
    (
        "forced parallel",
        // It has another name from PostgreSQL 16 on.
        "SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
         SET parallel_setup_cost = 0; SET min_parallel_table_scan_size = 0",
    ),
    (
        "partitionwise",
        "SET enable_partitionwise_join = on; SET enable_partitionwise_aggregate = on",
    ),
    (
        "no hash",
        "SET enable_hashjoin = off; SET enable_hashagg = off; SET enable_seqscan = off",
    ),
    (
        "nested loops",
        "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = on",
    ),
    (
        "no pruning",
        "SET enable_partition_pruning = off; SET constraint_exclusion = on",
    ),
    (
        "geqo",
        "SET geqo_threshold = 2; SET join_collapse_limit = 2; SET from_collapse_limit = 1",
    ),
    ("small memory", "SET work_mem = '64kB'; SET jit = off"),
];

/// What a run did.
#[derive(Default)]
struct Tally {
    queries: u64,
    rows: u64,
    errors: BTreeMap<String, u64>,
    ways: BTreeMap<&'static str, u64>,
    features: BTreeMap<&'static str, u64>,
    /// Of those that name a pair and may be routed: the plan names the twin; only the legacy; neither (an empty result).
    on_twin: u64,
    on_legacy: u64,
    on_neither: u64,
    too_long: u64,
    /// Denied on one side, and empty without a look at the rights on the other.
    unchecked: u64,
    differ: Vec<String>,
    /// Queries that stayed on the legacy though nothing keeps them there.
    stayed: Vec<String>,
}

/// The two sessions that run the same.
struct Sessions {
    plain: Client,
    routed: Client,
    partitions: BTreeSet<String>,
}

impl Sessions {
    fn new(database: &Database) -> Sessions {
        let (mut plain, mut routed) = (database.connect(), database.connect());
        let partitions = texts(
            &mut plain,
            "SELECT c.relname::text FROM partition_router.pair p, LATERAL pg_partition_tree(p.twin) t JOIN pg_class c ON c.oid = t.relid",
        );
        run(&mut routed, &[ROUTED]);
        Sessions {
            plain,
            routed,
            partitions: partitions.into_iter().collect(),
        }
    }

    fn settle(&mut self, profile: &str, role: &str) {
        for client in [&mut self.plain, &mut self.routed] {
            run(
                client,
                &[
                    "RESET ROLE",
                    "DEALLOCATE ALL",
                    "RESET ALL",
                    profile,
                    "SET statement_timeout = '3s'",
                ],
            );
            become_role(client, role);
        }
        run(&mut self.routed, &[ROUTED]);
    }

    fn compare(&mut self, query: &Generated, way: Way, tally: &mut Tally) -> Result<(), String> {
        tally.queries += 1;
        let (wanted, found) = match way {
            // One session flips back and forth, with what it has cached.
            Way::Flipped => ways::flipped(&mut self.routed, query),
            _ => (
                ways::ask(&mut self.plain, query, way),
                ways::ask(&mut self.routed, query, way),
            ),
        };
        let is_timeout = |a: &Answer| matches!(a, Answer::Error(code) if code == "57014");
        if is_timeout(&wanted) || is_timeout(&found) {
            tally.too_long += 1;
            return Ok(());
        }
        match &wanted {
            Answer::Rows(rows) => tally.rows += rows.len() as u64,
            Answer::Error(code) => *tally.errors.entry(code.clone()).or_default() += 1,
        }
        if wanted == found {
            return Ok(());
        }
        // The server itself forgets the rights on a subquery that it never plans, because what is around it is empty.
        // Which of several proofs of that comes first differs with partitions.
        if [&wanted, &found].into_iter().any(Answer::is_denied)
            && [&wanted, &found].into_iter().any(Answer::is_nothing)
        {
            tally.unchecked += 1;
            return Ok(());
        }
        Err(format!(
            "{way:?}: {}\nparameters {:?}\nunrouted: {}\nrouted:   {}",
            query.sql,
            query.parameters,
            wanted.brief(&found),
            found.brief(&wanted)
        ))
    }

    /// Which side the plan of a query names.
    fn look_at_plan(&mut self, query: &Generated, tally: &mut Tally) {
        if !query.names_pair || query.stays || !query.parameters.is_empty() {
            return;
        }
        let Ok(rows) = self
            .routed
            .query(&format!("EXPLAIN (COSTS OFF) {}", query.sql), &[])
        else {
            return; // the query fails, and was compared
        };
        let mut sides = (false, false);
        for row in rows {
            let line: String = row.get(0);
            let Some((_, rest)) = line.split_once(" on ") else {
                continue;
            };
            let name = rest.split(' ').next().unwrap_or_default();
            sides.0 |= PAIRS.iter().any(|p| p.name == name);
            sides.1 |= self.partitions.contains(name);
        }
        match sides {
            (true, _) => {
                tally.on_legacy += 1;
                tally.stayed.push(query.sql.clone());
            }
            (false, true) => tally.on_twin += 1,
            (false, false) => tally.on_neither += 1,
        }
    }
}

/// So many queries of a seed, on a world of their own.
fn generated(seed: u64, number: u64) -> Tally {
    let database = world("generated");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let mut sessions = Sessions::new(&database);
    let (mut profile, mut role) = (PROFILES[0], ROLES[0]);
    for n in 0..number {
        if n % 40 == 0 {
            // All roles and profiles come by turns, and meet in all pairs.
            let block = (n / 40) as usize;
            profile = PROFILES[block % PROFILES.len()];
            role = ROLES[(block + block / PROFILES.len()) % ROLES.len()];
            sessions.settle(profile.1, role);
        }
        let way = *Way::ALL.choose(&mut random).expect("there are ways");
        let own = random.random();
        let query = generate(&mut ChaCha8Rng::seed_from_u64(own), way.takes_parameters());
        *tally.ways.entry(way.name()).or_default() += 1;
        for feature in query.features.iter().collect::<BTreeSet<_>>() {
            *tally.features.entry(feature).or_default() += 1;
        }
        if let Err(message) = sessions.compare(&query, way, &mut tally) {
            tally
                .differ
                .push(format!("query {n}, {}, as {role}, {message}", profile.0));
            if tally.differ.len() >= 10 {
                break;
            }
        }
        sessions.look_at_plan(&query, &mut tally);
    }
    tally
}

#[test]
fn generated_queries_give_the_same_routed_and_not() {
    let seed = crate::seed("generated queries");
    let number = if is_stress() { 20_000 } else { 250 };
    let tally = generated(seed, number);
    let planned = tally.on_twin + tally.on_legacy;
    println!(
        "generated queries: {} run both ways, {} rows, {} too long, {} unchecked, {} differ; plans: {} on the twin, {} on the legacy, {} on neither",
        tally.queries,
        tally.rows,
        tally.too_long,
        tally.unchecked,
        tally.differ.len(),
        tally.on_twin,
        tally.on_legacy,
        tally.on_neither
    );
    println!("errors on both sides: {:?}", tally.errors);
    println!("ways: {:?}\nfeatures: {:?}", tally.ways, tally.features);
    for query in tally.stayed.iter().take(5) {
        println!("stayed on the legacy: {query}");
    }
    assert!(
        tally.differ.is_empty(),
        "seed {seed}: {}",
        tally.differ.join("\n\n")
    );
    let failed: u64 = tally.errors.values().sum();
    assert!(failed * 4 < tally.queries, "{failed} of {} fail", tally.queries);
    assert!(
        tally.unchecked <= 3 + tally.queries / 100,
        "{} unchecked",
        tally.unchecked
    );
    assert!(
        tally.too_long * 50 < tally.queries,
        "{} took too long",
        tally.too_long
    );
    assert!(planned * 4 > tally.queries, "only {planned} plans were looked at");
    assert!(
        tally.on_twin * 20 > planned * 19,
        "only {} of {planned} plans read the twin, see above",
        tally.on_twin
    );
}
