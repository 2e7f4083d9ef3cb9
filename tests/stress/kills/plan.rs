//! What the seed of a kill decides: the call, whom to kill, and when.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Migrate,
    /// Small batches.
    Backfill,
    /// None at all: live sync.
    Writes,
    Verify,
    Repair,
    Maintenance,
    Abandon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Caller,
    /// A background worker of the backfill, or the caller when there is none.
    Worker,
    Writer,
    Postmaster,
}

/// What a seed does.
#[derive(Debug)]
pub struct Plan {
    pub call: Call,
    pub victim: Victim,
    /// The kill comes when the migration is in this stage or behind it …
    pub stage: &'static str,
    /// … and so much later.
    pub delay: Duration,
    /// Processes of the backfill: its session, and background workers.
    pub workers: u32,
}

pub const STAGES: [&str; 9] = [
    "none", "prepared", "begin", "copy", "index", "drain", "flip", "finish", "done",
];

impl Plan {
    pub fn random(random: &mut ChaCha8Rng) -> Plan {
        use Call::*;
        let calls = [
            (Migrate, 4),
            (Backfill, 6),
            (Writes, 2),
            (Verify, 1),
            (Repair, 2),
            (Maintenance, 2),
            (Abandon, 3),
        ];
        let victims = [Victim::Caller, Victim::Writer, Victim::Postmaster];
        let workers = *[1, 3].choose(random).expect("there are two");
        let (call, _) = *calls
            .choose_weighted(random, |(_, weight)| *weight)
            .expect("there are calls");
        let migrates = [Migrate, Backfill].contains(&call);
        Plan {
            call,
            victim: match victims.choose(random).expect("there are three") {
                Victim::Caller if call == Writes => Victim::Postmaster,
                Victim::Caller if migrates && workers > 1 && random.random() => Victim::Worker,
                victim => *victim,
            },
            stage: if migrates {
                STAGES.choose(random).expect("there are stages")
            } else {
                "done"
            },
            delay: Duration::from_micros(random.random_range(0..if migrates { 12_000 } else { 60_000 })),
            workers,
        }
    }
}
