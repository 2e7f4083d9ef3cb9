//! Plain SQL that names the legacy and reads the twin: never another answer, whatever the statement, the session, the
//! snapshot, the pooler or the server. `make test` runs slices of the long ones, `make stress`
//! (`PARTITION_ROUTER_STRESS=full`) the whole; `PARTITION_ROUTER_SEED=n` repeats a run's choices.

#[path = "../common/mod.rs"]
mod common;

mod expressions;
mod flips;
mod generated;
mod grammar;
mod load;
mod marked;
mod neighbours;
mod pooled;
mod pooler;
mod pruning;
mod shapes;
mod smith;
mod snapshots;
mod standby;
mod ways;
mod world;

use common::Cluster;
use std::sync::Arc;

/// The server that the tests here share: every session has the library.
pub fn server() -> Arc<Cluster> {
    Cluster::shared_with(&["session_preload_libraries=partition_router"])
}

/// The seed of a run: that of the environment, or the clock's. Printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("PARTITION_ROUTER_SEED")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or_else(common::clock_seed);
    println!("{test}: seed {seed} (PARTITION_ROUTER_SEED={seed} runs it again)");
    seed
}
