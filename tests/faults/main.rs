//! Planted faults: whatever differs between the sides is found by `verify`, named by `mismatches` and mended by `repair`.
//!
//! `make test` plants each kind once, and a crowd; `make stress` (`PARTITION_ROUTER_STRESS=full`) 10,000 faults that are
//! alone in their partition, and as many in crowds. `PARTITION_ROUTER_SEED=n` repeats the choices of a run.

#[path = "../common/mod.rs"]
mod common;

mod keys;
mod kinds;
mod round;
mod world;

use kinds::{SHAPES, Shape};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use world::World;

fn seed() -> u64 {
    let given = std::env::var("PARTITION_ROUTER_SEED").ok();
    given
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(common::clock_seed)
}

/// Plants in one table until `wanted` faults were alone in their partition; gives how many of each kind there were.
fn plant_in(shape: &'static Shape, seed: u64, wanted: usize) -> (BTreeMap<String, usize>, usize) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let kinds = shape.columns.iter().map(|c| c.faults.len()).sum::<usize>() + 9;
    // One of them takes two partitions.
    let mut world = World::new(shape, if wanted == 0 { kinds as i64 + 1 } else { 160 });
    let mut alone = BTreeMap::new();
    let mut planted = 0;
    while planted == 0 || planted < wanted {
        for (kind, number) in round::alone(&mut world, &mut random, planted) {
            planted += number;
            *alone.entry(kind).or_default() += number;
        }
    }
    assert_eq!(alone.len(), kinds, "{}: every kind was planted", shape.table);
    let rounds = if wanted == 0 { 1 } else { 4 };
    let crowded = (0..rounds)
        .map(|_| round::crowded(&mut world, &mut random).values().sum::<usize>())
        .sum();
    (alone, crowded)
}

#[test]
fn every_planted_fault_is_found_named_and_mended() {
    let seed = seed();
    println!("faults: PARTITION_ROUTER_SEED={seed}");
    let wanted = if common::is_stress() {
        10_000 / SHAPES.len()
    } else {
        0
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = SHAPES
            .into_iter()
            .enumerate()
            .map(|(number, shape)| scope.spawn(move || plant_in(shape, seed + number as u64, wanted)))
            .collect();
        let results = threads
            .into_iter()
            .map(|t| t.join().expect("all faults were found"));
        results.collect()
    });
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (alone, _) in &results {
        for (kind, number) in alone {
            *kinds.entry(kind.clone()).or_default() += number;
        }
    }
    let alone: usize = kinds.values().sum();
    let crowded: usize = results.iter().map(|r| r.1).sum();
    println!(
        "faults: {alone} alone in their partition, {} kinds; {crowded} in crowds",
        kinds.len()
    );
    assert!(kinds.len() >= 150, "{} kinds", kinds.len());
    assert!(!common::is_stress() || alone >= 10_000);
}
