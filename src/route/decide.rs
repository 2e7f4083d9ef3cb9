//! The decision, pure. In this order: kill switch, phase and proof, what the call asks for, excluded tenants, pilots,
//! the share of tenants, the setting.

use crate::pair::Phase;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Legacy,
    Twin,
}

/// Who reads the twin.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rollout {
    /// The share of tenants, 0 to 100.
    pub percent: i32,
    pub pilots: HashSet<String>,
    pub excluded: HashSet<String>,
}

/// Whether both sides were found equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// By the last verify.
    Proven,
    /// The last verify found a difference, so many seconds after 1970.
    Refuted(i64),
    /// There was no verify.
    None,
}

/// All that a decision depends on.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    pub routing_enabled: bool,
    pub phase: Phase,
    pub proof: Proof,
    /// What the call asks for.
    pub requested: Option<bool>,
    pub use_partitioned_tables: bool,
    pub tenant: Option<&'a str>,
    pub rollout: &'a Rollout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub side: Side,
    pub reason: Reason,
}

/// Why a side is read. The texts are in the reference; tools may depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    NotPaired,
    LegacyGone,
    KillSwitch,
    Phase(Phase),
    Unproven(Proof),
    AskedFor,
    Excluded,
    Pilot,
    Share(i32),
    Setting,
    Default,
    /// What keeps a statement on the legacy that would read the twin otherwise.
    Kept(Kept),
}

/// What keeps plain SQL on the legacy. The numbers are kept in plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kept {
    NotTransparent = 1,
    Writes,
    LocksRows,
    SystemColumn,
    Tablesample,
    Only,
    Cursor,
    WriteUnderWay,
    Truncated,
    Layout,
    Columns,
    TwinGone,
    Replication,
    Internal,
}

impl Kept {
    const ALL: [Kept; 14] = [
        Kept::NotTransparent,
        Kept::Writes,
        Kept::LocksRows,
        Kept::SystemColumn,
        Kept::Tablesample,
        Kept::Only,
        Kept::Cursor,
        Kept::WriteUnderWay,
        Kept::Truncated,
        Kept::Layout,
        Kept::Columns,
        Kept::TwinGone,
        Kept::Replication,
        Kept::Internal,
    ];

    /// The one with this number.
    pub fn from_number(number: u8) -> Option<Kept> {
        Kept::ALL.into_iter().find(|kept| *kept as u8 == number)
    }

    fn text(self) -> &'static str {
        match self {
            Kept::NotTransparent => "transparent is off",
            Kept::Writes => "the statement writes",
            Kept::LocksRows => "the statement locks rows",
            Kept::SystemColumn => "a system column is read",
            Kept::Tablesample => "TABLESAMPLE",
            Kept::Only => "ONLY",
            Kept::Cursor => "an updatable cursor",
            Kept::WriteUnderWay => "a write is under way",
            Kept::Truncated => "truncated in this transaction",
            Kept::Layout => "the snapshot is older than a change of partitions",
            Kept::Columns => "the columns differ",
            Kept::TwinGone => "the twin is gone",
            Kept::Replication => "a worker of replication reads",
            Kept::Internal => "partition_router itself reads",
        }
    }
}

impl Reason {
    /// As the counters have it: without what would make another text of it each time.
    pub fn counted(self) -> Cow<'static, str> {
        match self {
            Reason::Unproven(_) => "not proven equal".into(),
            other => other.text(),
        }
    }

    pub fn text(self) -> Cow<'static, str> {
        match self {
            Reason::NotPaired => "not in a pair".into(),
            Reason::LegacyGone => "the legacy is gone".into(),
            Reason::KillSwitch => "kill switch".into(),
            Reason::Phase(phase) => format!("phase is {phase}").into(),
            Reason::Unproven(Proof::Refuted(at)) => match minute_of(at) {
                Some(minute) => format!("not proven equal since {minute}").into(),
                None => "not proven equal".into(),
            },
            Reason::Unproven(_) => "not proven equal".into(),
            Reason::AskedFor => "asked for".into(),
            Reason::Excluded => "excluded".into(),
            Reason::Pilot => "pilot".into(),
            Reason::Share(percent) => format!("in the first {percent} %").into(),
            Reason::Setting => "setting".into(),
            Reason::Default => "default".into(),
            Reason::Kept(kept) => kept.text().into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// A moment to the minute, in UTC. `None` outside of the years that a calendar has.
fn minute_of(seconds: i64) -> Option<String> {
    let at = jiff::Timestamp::from_second(seconds).ok()?;
    Some(at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// A tenant's place among a hundred: the same on every server and in every version (XXH3 of its text, modulo 100).
pub fn bucket(tenant: &str) -> u64 {
    xxh3_64(tenant.as_bytes()) % 100
}

pub fn decide(inputs: &Inputs) -> Decision {
    let legacy = |reason| Decision {
        side: Side::Legacy,
        reason,
    };
    let twin = |reason| Decision {
        side: Side::Twin,
        reason,
    };
    if inputs.phase == Phase::Done {
        return twin(Reason::LegacyGone);
    }
    // The twin is what counts, and the legacy may be one that `unpartition()` is still copying to.
    if inputs.phase == Phase::Switched && inputs.proof != Proof::Proven {
        return twin(Reason::Phase(inputs.phase));
    }
    if !inputs.routing_enabled {
        return legacy(Reason::KillSwitch);
    }
    if inputs.phase == Phase::Switched {
        // The twin is what applications name, and what counts.
        return match inputs.requested {
            Some(false) => legacy(Reason::AskedFor),
            _ => twin(Reason::Phase(inputs.phase)),
        };
    }
    if !inputs.phase.is_in_step() {
        return legacy(Reason::Phase(inputs.phase));
    }
    if inputs.proof != Proof::Proven {
        return legacy(Reason::Unproven(inputs.proof));
    }
    match inputs.requested {
        Some(true) => return twin(Reason::AskedFor),
        Some(false) => return legacy(Reason::AskedFor),
        None => {}
    }
    let rollout = inputs.rollout;
    if let Some(tenant) = inputs.tenant {
        if rollout.excluded.contains(tenant) {
            return legacy(Reason::Excluded);
        }
        if rollout.pilots.contains(tenant) {
            return twin(Reason::Pilot);
        }
        if bucket(tenant) < rollout.percent.max(0) as u64 {
            return twin(Reason::Share(rollout.percent));
        }
    } else if rollout.percent >= 100 {
        return twin(Reason::Share(100));
    }
    if inputs.use_partitioned_tables {
        twin(Reason::Setting)
    } else {
        legacy(Reason::Default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(percent: i32, pilots: &[&str], excluded: &[&str]) -> Rollout {
        let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        Rollout {
            percent,
            pilots: set(pilots),
            excluded: set(excluded),
        }
    }

    fn inputs(rollout: &Rollout) -> Inputs<'_> {
        Inputs {
            routing_enabled: true,
            phase: Phase::Live,
            proof: Proof::Proven,
            requested: None,
            use_partitioned_tables: false,
            tenant: Some("42"),
            rollout,
        }
    }

    fn decided(inputs: &Inputs) -> (Side, String) {
        let decision = decide(inputs);
        (decision.side, decision.reason.to_string())
    }

    #[test]
    fn the_legacy_is_read_by_default() {
        assert_eq!(
            decided(&inputs(&Rollout::default())),
            (Side::Legacy, "default".into())
        );
    }

    #[test]
    fn the_kill_switch_beats_everything() {
        let all = rollout(100, &["42"], &[]);
        let killed = Inputs {
            routing_enabled: false,
            requested: Some(true),
            use_partitioned_tables: true,
            ..inputs(&all)
        };
        assert_eq!(decided(&killed), (Side::Legacy, "kill switch".into()));
    }

    #[test]
    fn after_the_switchover_the_twin_is_the_table() {
        let excluded = rollout(0, &[], &["42"]);
        for (requested, side) in [
            (None, Side::Twin),
            (Some(true), Side::Twin),
            (Some(false), Side::Legacy),
        ] {
            let switched = Inputs {
                phase: Phase::Switched,
                proof: Proof::Proven,
                requested,
                ..inputs(&excluded)
            };
            assert_eq!(decide(&switched).side, side);
            // A legacy that is not proven may be one that rows are still copied to: nobody reads it.
            let copying = Inputs {
                proof: Proof::None,
                routing_enabled: false,
                ..switched
            };
            assert_eq!(decide(&copying).side, Side::Twin);
        }
    }

    #[test]
    fn an_unproven_twin_is_never_read() {
        let all = rollout(100, &["42"], &[]);
        for phase in [Phase::Prepared, Phase::Copying] {
            let early = Inputs {
                phase,
                requested: Some(true),
                ..inputs(&all)
            };
            assert_eq!(decided(&early), (Side::Legacy, format!("phase is {phase}")));
        }
        for (proof, reason) in [
            (Proof::None, "not proven equal"),
            (
                Proof::Refuted(1_795_255_245),
                "not proven equal since 2026-11-21 10:00",
            ),
        ] {
            let unproven = Inputs {
                proof,
                requested: Some(true),
                ..inputs(&all)
            };
            assert_eq!(decided(&unproven), (Side::Legacy, reason.into()));
            assert_eq!(decide(&unproven).reason.counted(), "not proven equal");
        }
    }

    #[test]
    fn excluded_beats_pilot_and_pilot_beats_share() {
        let both = rollout(100, &["42"], &["42"]);
        assert_eq!(decided(&inputs(&both)), (Side::Legacy, "excluded".into()));
        let pilot = rollout(0, &["42"], &[]);
        assert_eq!(decided(&inputs(&pilot)), (Side::Twin, "pilot".into()));
    }

    #[test]
    fn raising_the_share_only_ever_adds_tenants() {
        let reads_twin = |tenant: u32, percent| {
            let rollout = rollout(percent, &[], &[]);
            let tenant = tenant.to_string();
            let inputs = Inputs {
                tenant: Some(&tenant),
                ..inputs(&rollout)
            };
            decide(&inputs).side == Side::Twin
        };
        let mut counts = vec![];
        for percent in [10, 25, 50, 100] {
            counts.push((0..10_000).filter(|t| reads_twin(*t, percent)).count());
            for tenant in 0..10_000 {
                for lower in [10, 25, 50] {
                    assert!(!(lower < percent && reads_twin(tenant, lower) && !reads_twin(tenant, percent)));
                }
            }
        }
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[3], 10_000);
    }

    #[test]
    fn buckets_never_change() {
        assert_eq!(["1", "42", "4711", "org-ü", ""].map(bucket), [64, 73, 41, 80, 38]);
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn what_the_call_asks_for_beats_the_rollout() {
        let all = rollout(100, &["42"], &[]);
        let asked = Inputs {
            requested: Some(false),
            use_partitioned_tables: true,
            ..inputs(&all)
        };
        assert_eq!(decided(&asked), (Side::Legacy, "asked for".into()));
    }

    #[test]
    fn numbers_of_what_keeps_a_statement_lead_back_to_it() {
        for kept in Kept::ALL {
            assert_eq!(Kept::from_number(kept as u8), Some(kept));
            assert!(
                kept.text().len() <= 60,
                "what counts decisions has room for so many bytes: {kept:?}"
            );
        }
        assert_eq!(Kept::from_number(0), None);
        assert_eq!(Kept::from_number(Kept::ALL.len() as u8 + 1), None);
    }
}
