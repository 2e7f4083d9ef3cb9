//! The decision, pure. In this order: kill switch, phase and proof, what the call asks for, excluded tenants, pilots,
//! the share of tenants, the setting.

use crate::pair::Phase;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Legacy,
    Twin,
}

/// Who reads the twin.
#[derive(Debug, Clone, Default)]
pub struct Rollout {
    /// The share of tenants, 0 to 100.
    pub percent: i32,
    pub pilots: Vec<String>,
    pub excluded: Vec<String>,
}

/// All that a decision depends on.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub routing_enabled: bool,
    pub phase: Phase,
    /// The last verify found both sides equal.
    pub proven: bool,
    /// What the call asks for.
    pub requested: Option<bool>,
    pub use_partitioned_tables: bool,
    pub tenant: Option<String>,
    pub rollout: Rollout,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub side: Side,
    pub reason: String,
}

/// A tenant's place among a hundred: the same on every server and in every version (XXH3 of its text, modulo 100).
pub fn bucket(tenant: &str) -> u64 {
    xxh3_64(tenant.as_bytes()) % 100
}

pub fn decide(inputs: &Inputs) -> Decision {
    let legacy = |reason: &str| Decision {
        side: Side::Legacy,
        reason: reason.into(),
    };
    let twin = |reason: &str| Decision {
        side: Side::Twin,
        reason: reason.into(),
    };
    if inputs.phase == Phase::Done {
        return twin("the legacy is gone");
    }
    if !inputs.routing_enabled {
        return legacy("kill switch");
    }
    if !inputs.phase.is_in_step() {
        return legacy(&format!("phase is {}", inputs.phase));
    }
    if !inputs.proven {
        return legacy("not proven equal");
    }
    match inputs.requested {
        Some(true) => return twin("asked for"),
        Some(false) => return legacy("asked for"),
        None => {}
    }
    if let Some(tenant) = &inputs.tenant {
        if inputs.rollout.excluded.contains(tenant) {
            return legacy("excluded");
        }
        if inputs.rollout.pilots.contains(tenant) {
            return twin("pilot");
        }
        if bucket(tenant) < inputs.rollout.percent.max(0) as u64 {
            return twin(&format!("in the first {} %", inputs.rollout.percent));
        }
    } else if inputs.rollout.percent >= 100 {
        return twin("in the first 100 %");
    }
    if inputs.use_partitioned_tables {
        twin("setting")
    } else {
        legacy("default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs {
            routing_enabled: true,
            phase: Phase::Live,
            proven: true,
            requested: None,
            use_partitioned_tables: false,
            tenant: Some("42".into()),
            rollout: Rollout::default(),
        }
    }

    #[test]
    fn the_legacy_is_read_by_default() {
        assert_eq!(
            decide(&inputs()),
            Decision {
                side: Side::Legacy,
                reason: "default".into()
            }
        );
    }

    #[test]
    fn the_kill_switch_beats_everything() {
        let killed = Inputs {
            routing_enabled: false,
            requested: Some(true),
            use_partitioned_tables: true,
            rollout: Rollout {
                percent: 100,
                pilots: vec!["42".into()],
                excluded: vec![],
            },
            ..inputs()
        };
        assert_eq!(decide(&killed).reason, "kill switch");
        assert_eq!(decide(&killed).side, Side::Legacy);
    }

    #[test]
    fn an_unproven_twin_is_never_read() {
        for phase in [Phase::Prepared, Phase::Copying] {
            let early = Inputs {
                phase,
                requested: Some(true),
                ..inputs()
            };
            assert_eq!(decide(&early).side, Side::Legacy);
        }
        let unproven = Inputs {
            proven: false,
            requested: Some(true),
            ..inputs()
        };
        assert_eq!(decide(&unproven).reason, "not proven equal");
    }

    #[test]
    fn excluded_beats_pilot_and_pilot_beats_share() {
        let both = Inputs {
            rollout: Rollout {
                percent: 100,
                pilots: vec!["42".into()],
                excluded: vec!["42".into()],
            },
            ..inputs()
        };
        assert_eq!(decide(&both).reason, "excluded");
        let pilot = Inputs {
            rollout: Rollout {
                percent: 0,
                pilots: vec!["42".into()],
                excluded: vec![],
            },
            ..inputs()
        };
        assert_eq!(decide(&pilot).reason, "pilot");
    }

    #[test]
    fn raising_the_share_only_ever_adds_tenants() {
        let reads_twin = |tenant: u32, percent| {
            let rollout = Rollout {
                percent,
                ..Rollout::default()
            };
            decide(&Inputs {
                tenant: Some(tenant.to_string()),
                rollout,
                ..inputs()
            })
            .side
                == Side::Twin
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
        let asked = Inputs {
            requested: Some(false),
            use_partitioned_tables: true,
            rollout: Rollout {
                percent: 100,
                ..Rollout::default()
            },
            ..inputs()
        };
        assert_eq!(
            decide(&asked),
            Decision {
                side: Side::Legacy,
                reason: "asked for".into()
            }
        );
    }
}
