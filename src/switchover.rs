//! The names swap: at the switchover the twin takes the legacy's name, at the rollback the legacy takes it back. Sync runs both
//! ways before, at and after that moment, so no row is touched. A call goes through stages, each a transaction; the swap
//! itself is one of them, so that a pair is before it or after it, never between.

pub mod cleanup;
mod in_the_way;
pub mod redefine;
pub mod snapshots;
mod subscriptions;
mod swap;

use crate::backfill;
use crate::catalog::{dependents, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::Literal;
use crate::locks;
use crate::pair::{Pair, Phase, store};
use crate::parity::digest::Tally;
use crate::parity::{self, Extent, Level};
use crate::plan::switchover::SwapPlan;
use crate::plan::{Plan, dress};
use crate::{session, settings, spi};
use pgrx::pg_sys::Oid;
use serde_json::{Value, json};
use std::str::FromStr;
use std::time::Instant;

pub use swap::{is_unpartition, swap_back, twin_name};

/// Which way the name goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `switchover()`: to the twin.
    There,
    /// `rollback()`: to the legacy.
    Back,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Direction::There => "switchover",
            Direction::Back => "rollback",
        }
    }

    fn phase_before(self) -> Phase {
        match self {
            Direction::There => Phase::Live,
            Direction::Back => Phase::Switched,
        }
    }

    fn phase_after(self) -> Phase {
        match self {
            Direction::There => Phase::Switched,
            Direction::Back => Phase::Live,
        }
    }

    /// The side that loses the name, and the one that takes it.
    fn sides(self, pair: &Pair) -> (Oid, Oid) {
        match self {
            Direction::There => (pair.legacy, pair.twin),
            Direction::Back => (pair.twin, pair.legacy),
        }
    }
}

impl FromStr for Direction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Direction::There, Direction::Back]
            .into_iter()
            .find(|d| d.name() == text)
            .ok_or_else(|| Error::BadArgument {
                argument: "operation".into(),
                reason: "it is neither switchover nor rollback".into(),
                hint: "Call partition_router.switchover() or partition_router.rollback().".into(),
            })
    }
}

/// The stages of a call, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Everything that could stand in the way, and the proof.
    PreFlight,
    /// Statistics for the planner, and the proof of what changed meanwhile.
    PreMigration,
    /// The swap.
    Swap,
    /// What changed around the swap is proven.
    PostMigration,
    /// The end: what came since is proven, too.
    PostSwitch,
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "PRE-FLIGHT" => Ok(Stage::PreFlight),
            "PRE-MIGRATION" => Ok(Stage::PreMigration),
            "SWAP" => Ok(Stage::Swap),
            "POST-MIGRATION" => Ok(Stage::PostMigration),
            "POST-SWITCH" => Ok(Stage::PostSwitch),
            _ => Err(no_stage("switchover")),
        }
    }
}

/// What is said to the name of a stage that there is none of.
fn no_stage(call: &str) -> Error {
    Error::BadArgument {
        argument: "stage".into(),
        reason: format!("{call}() has no such stage"),
        hint: format!("Call partition_router.{call}()."),
    }
}

/// Goes through one stage. Gives whether it has to be gone through once more, in another transaction: when something that
/// refers to the tables came while the locks were awaited.
pub fn step(relation: Oid, operation: &str, stage: &str) -> Result<bool> {
    let (direction, text, stage) = (operation.parse::<Direction>()?, stage, stage.parse::<Stage>()?);
    session::require_read_committed(direction.name())?;
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    store::require_owner(pair.twin)?;
    let is_swapped = pair.phase == direction.phase_after() && is_unfinished(&pair, direction)?;
    if !is_swapped && !matches!(stage, Stage::PostMigration | Stage::PostSwitch) {
        require_phase(&pair, direction)?;
    }
    match stage {
        Stage::PreFlight if is_swapped => {
            pgrx::notice!(
                "{}: the names are swapped already, what is left is done",
                direction.name()
            );
        }
        Stage::PreMigration | Stage::Swap if is_swapped => {}
        Stage::PreFlight => {
            swap::wait_for_old_snapshots(&pair, direction)?;
            let swap = swap::require_possible(&pair, direction)?;
            tell_staying(&swap, direction);
            prove(&pair, direction.name(), text)?;
        }
        Stage::PreMigration => {
            execute::run(&prepare(&pair, direction)?, Mode::Run)?;
            prove(&pair, direction.name(), text)?;
        }
        Stage::Swap => return swap::run(relation, direction),
        Stage::PostMigration => {
            prove(&pair, direction.name(), text)?;
            swap::prove_keys(&pair, direction)?;
        }
        Stage::PostSwitch => prove(&pair, direction.name(), text)?,
    }
    Ok(false)
}

/// Foreign keys that stay with the legacy are in force there; before it can go they have to be changed.
fn tell_staying(swap: &SwapPlan, direction: Direction) {
    if direction == Direction::There {
        for key in &swap.staying {
            pgrx::notice!("switchover: stays with the legacy, and keeps cleanup from dropping it: {key}");
        }
    }
}

fn require_phase(pair: &Pair, direction: Direction) -> Result<()> {
    if pair.phase == direction.phase_before() {
        return Ok(());
    }
    let next = match pair.phase {
        Phase::Live => "partition_router.switchover()",
        other => other.next_call(),
    };
    Err(Error::WrongPhase {
        relation: store::display_name(pair.twin)?,
        phase: pair.phase.to_string(),
        call: match direction {
            Direction::There => "switch over",
            Direction::Back => "roll back",
        }
        .into(),
        next: next.into(),
    })
}

/// Whether the last call swapped the names and did not come to its end.
fn is_unfinished(pair: &Pair, direction: Direction) -> Result<bool> {
    let last: Option<String> = session::with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(stage) FROM partition_router.run_event
             WHERE operation = $2 AND detail -> 'pair' = pg_catalog.to_jsonb($1) ORDER BY id DESC LIMIT 1",
            &[pair.id.into(), direction.name().into()],
        )
        .map(|mut rows| rows.pop())
    })?;
    Ok(last.is_some_and(|stage| stage == SWAPPED || stage == "POST-MIGRATION"))
}

/// Whether the names are swapped back and nothing of that is left to do.
pub fn is_rolled_back(pair: &Pair) -> Result<bool> {
    Ok(pair.phase == Phase::Live && !is_unfinished(pair, Direction::Back)?)
}

/// The line of `run_log` that is written with the swap.
const SWAPPED: &str = "SWAPPED";

/// The table that has the name that applications use.
fn main_name(pair: &Pair) -> Result<String> {
    store::display_name(match pair.phase {
        Phase::Switched | Phase::Done => pair.twin,
        _ => pair.legacy,
    })
}

/// What can be made equal, and known, before anybody has to wait: comments, statistics targets, and statistics.
fn prepare(pair: &Pair, direction: Direction) -> Result<Plan> {
    let (from, to) = direction.sides(pair);
    let (mine, theirs) = (load::table_def(from)?, load::table_def(to)?);
    let mut plan = dress::follow(&mine, &theirs, &pair.partition_key);
    plan.extend(dress::statistics(
        &dependents::statistics(from)?,
        &dependents::statistics(to)?,
    ));
    let name = store::display_name(direction.sides(pair).1)?;
    plan.push(
        "give the planner the statistics of the side that takes the name",
        format!("ANALYZE {name}"),
    );
    Ok(plan)
}

/// Proves both sides equal, reading only what has changed since the last time, and writes the sums down.
fn prove(pair: &Pair, operation: &str, stage: &str) -> Result<()> {
    let started = Instant::now();
    let verdicts = parity::verify(pair.legacy, Level::Checksum, Extent::Changed)?;
    let (mut legacy, mut twin) = (Tally::default(), Tally::default());
    for verdict in &verdicts {
        legacy.merge(verdict.legacy);
        twin.merge(verdict.twin);
    }
    let differing = verdicts.iter().filter(|v| !v.matches()).count();
    let detail = json!({
        "legacy_rows": legacy.rows,
        "twin_rows": twin.rows,
        "legacy_checksum": legacy.checksum(),
        "twin_checksum": twin.checksum(),
        "partitions_that_differ": differing,
        "ms": locks::milliseconds(started),
    });
    say(
        operation,
        stage,
        &format!(
            "legacy {} rows, checksum {}; twin {} rows, checksum {}",
            legacy.rows,
            legacy.checksum(),
            twin.rows,
            twin.checksum()
        ),
    );
    log(pair, operation, stage, detail)?;
    if differing == 0 {
        return Ok(());
    }
    Err(Error::NotEqual {
        relation: main_name(pair)?,
        partitions: differing,
        rows: (legacy.rows - twin.rows).abs(),
    })
}

/// The same line that `run_log` gets, for the log of a psql session.
fn say(operation: &str, stage: &str, text: &str) {
    pgrx::notice!("{operation} {stage}: {text}");
}

fn log(pair: &Pair, operation: &str, stage: &str, mut detail: Value) -> Result<()> {
    detail["pair"] = json!(pair.id);
    store::log_run(&main_name(pair)?, operation, stage, detail)
}

/// Everything that a call does, as rows; after every check that can be made without a lock.
pub fn plan(relation: Oid, direction: Direction) -> Result<Plan> {
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    store::require_owner(pair.twin)?;
    require_phase(&pair, direction)?;
    let swap = swap::require_possible(&pair, direction)?;
    let name = Literal(&store::display_name(direction.sides(&pair).0)?).to_string();
    let verify = format!("SELECT * FROM partition_router.verify({name})");
    let mut plan = Plan::default();
    plan.push("PRE-FLIGHT: prove both sides equal", verify.clone());
    plan.extend(prepare(&pair, direction)?);
    plan.push("PRE-MIGRATION: prove what changed", verify.clone());
    plan.extend(swap.shown(settings::lock_timeout().as_millis()));
    plan.push(
        format!("the pair is {} from now on", direction.phase_after()),
        format!("-- phase of pair {}: {}", pair.id, direction.phase_after()),
    );
    plan.push(
        "POST-MIGRATION: prove what changed around the swap",
        verify.clone(),
    );
    for key in &swap.moved {
        plan.extend(key.proof());
    }
    plan.push("POST-SWITCH: prove what came since", verify);
    Ok(plan)
}

/// Prints the plan, and who is in the way now.
pub fn dry_run(relation: Oid, operation: &str) -> Result<()> {
    let direction = operation.parse::<Direction>()?;
    let plan = plan(relation, direction)?;
    execute::run(&plan, Mode::DryRun)?;
    let pair = store::get(relation)?;
    let swap = swap::require_possible(&pair, direction)?;
    tell_staying(&swap, direction);
    let locks = swap.locks.iter().map(|lock| Oid::from(lock.oid));
    in_the_way::tell(&in_the_way::lines(locks)?);
    Ok(())
}

/// A pair that stays as it is needs its backfill to have ended with its foreign keys made.
fn require_whole(pair: &Pair) -> Result<()> {
    match backfill::copy_stage(pair)? {
        None | Some(backfill::state::Stage::Done) => Ok(()),
        Some(_) => Err(Error::WrongPhase {
            relation: store::display_name(pair.legacy)?,
            phase: pair.phase.to_string(),
            call: "switch over".into(),
            next: "partition_router.backfill(), which has foreign keys left to make".into(),
        }),
    }
}

fn required_name(oid: Oid) -> Result<crate::ident::RelName> {
    load::rel_name(oid)?.ok_or_else(|| Error::UnknownRelation { oid: oid.to_u32() })
}

/// The steps of the way back, locks included: what `abandon()` does first.
pub fn plan_back(pair: &Pair) -> Result<Plan> {
    let swap = swap::require_possible(pair, Direction::Back)?;
    let mut plan = swap.shown(settings::lock_timeout().as_millis());
    for key in &swap.moved {
        plan.extend(key.proof());
    }
    Ok(plan)
}
