//! A pair, its phases, and which call leads from one to the next.

pub mod store;

use crate::ident::Ident;
use std::fmt;
use std::str::FromStr;

/// Where a pair is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The twin exists and is empty.
    Prepared,
    /// Changes of the legacy are captured, the backfill runs.
    Copying,
    /// Both sides are in step.
    Live,
    /// The names are swapped, the legacy is kept in step.
    Switched,
    /// The legacy is dropped, the partitions are maintained.
    Done,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Prepared => "prepared",
            Phase::Copying => "copying",
            Phase::Live => "live",
            Phase::Switched => "switched",
            Phase::Done => "done",
        }
    }

    /// The call that leads on from this phase.
    pub fn next_call(self) -> &'static str {
        match self {
            Phase::Prepared => "partition_router.start_sync()",
            Phase::Copying => "partition_router.backfill()",
            Phase::Live => "partition_router.switchover()",
            Phase::Switched => "partition_router.rollback() or partition_router.cleanup()",
            Phase::Done => "partition_router.run_maintenance()",
        }
    }

    /// Whether both sides hold the same rows in every snapshot that sees this phase.
    pub fn is_in_step(self) -> bool {
        matches!(self, Phase::Live | Phase::Switched)
    }

    /// Whether the twin can be left behind and the untouched legacy kept.
    pub fn can_abandon(self) -> bool {
        self != Phase::Done
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [
            Phase::Prepared,
            Phase::Copying,
            Phase::Live,
            Phase::Switched,
            Phase::Done,
        ]
        .into_iter()
        .find(|p| p.as_str() == text)
        .ok_or_else(|| format!("unknown phase {text}"))
    }
}

/// How rows are divided among partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    Range,
    Hash,
    List,
}

impl Strategy {
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Range => "range",
            Strategy::Hash => "hash",
            Strategy::List => "list",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "range" => Ok(Strategy::Range),
            "hash" => Ok(Strategy::Hash),
            "list" => Ok(Strategy::List),
            _ => Err(format!("unknown strategy {text}")),
        }
    }
}

/// A legacy table and its twin. `O` is the type of an oid, so that this module needs no server.
#[derive(Debug, Clone, PartialEq)]
pub struct PairOf<O> {
    pub id: i32,
    pub legacy: O,
    pub twin: O,
    /// The legacy's name when the twin was created; partitions and triggers are named after it.
    pub base_name: Ident,
    pub strategy: Strategy,
    pub partition_key: Ident,
    pub partition_interval: Option<String>,
    pub partitions: Option<i32>,
    pub phase: Phase,
    pub verified_at: Option<String>,
    /// `cleanup()` shall make a guard of the legacy.
    pub keep_unique: bool,
    /// What the legacy has become, when the pair is done.
    pub guard: Option<O>,
}

impl<O> PairOf<O> {
    /// Whether the twin has another table that follows each of its rows: the legacy, or the guard.
    pub fn is_followed(&self) -> bool {
        self.phase.is_in_step() || self.guard.is_some()
    }

    /// Whether rows of the twin are anybody else's affair: not of a pair that is done and has no guard.
    pub fn is_in_force(&self) -> bool {
        self.phase != Phase::Done || self.guard.is_some()
    }
}

pub use store::Pair;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_keep_their_names() {
        for name in ["prepared", "copying", "live", "switched", "done"] {
            assert_eq!(name.parse::<Phase>().map(Phase::as_str), Ok(name));
        }
        assert!("ready".parse::<Phase>().is_err());
    }

    #[test]
    fn only_a_pair_in_step_may_be_read_through_its_twin() {
        assert!(Phase::Live.is_in_step() && Phase::Switched.is_in_step());
        assert!(!Phase::Copying.is_in_step() && !Phase::Prepared.is_in_step());
    }

    #[test]
    fn abandon_is_possible_as_long_as_there_is_a_legacy() {
        assert!(Phase::Copying.can_abandon() && Phase::Switched.can_abandon());
        assert!(!Phase::Done.can_abandon());
    }
}
