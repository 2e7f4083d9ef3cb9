//! What maintenance should do for one partitioned table: which partitions to create and which to retire, and what is
//! left alone and why. Pure: the caller brings what the server says ([`State`]) and runs what comes out
//! ([`Decisions`]).

#[cfg(test)]
mod tests;

use crate::bounds::{BoundsError, Edge, MAX_PARTITIONS, Point, RangePartition, Scheme};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// How many missing slots in a row are bridged: to a row of the default partition, or between two partitions. What is
/// farther away is an outlier: a wrong date must not drag the partitions of a century behind it.
pub const MAX_GAP: i128 = 100;

/// So many rows far from the others are no slip: they get their partitions, but nothing is bridged or premade for them.
pub const NO_SLIP: i64 = 100;

/// What happens to a partition past its retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionAction {
    Drop,
    Detach,
    Archive,
}

impl RetentionAction {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "drop" => Some(Self::Drop),
            "detach" => Some(Self::Detach),
            "archive" => Some(Self::Archive),
            _ => None,
        }
    }
}

impl fmt::Display for RetentionAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Detach => "detach",
            Self::Archive => "archive",
        })
    }
}

/// The rules.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub scheme: Scheme,
    pub premake: u32,
    /// Partitions that end here or before are past their retention.
    pub cutoff: Option<Point>,
    /// So many of those that have begun are kept, and older ones are past their retention.
    pub count: Option<usize>,
    /// So many of those that have begun stay, whatever their age.
    pub at_least: usize,
}

impl Policy {
    /// Where retention ends, from age and number: what ends there or before goes.
    fn cutoff(&self, state: &State) -> Option<Point> {
        let current = state.now.or(state.newest);
        let has_begun = |start: &Point| current.is_none_or(|current| *start <= current);
        let mut begun: Vec<Point> = state
            .partitions
            .iter()
            .filter_map(|p| at(p.start))
            .filter(has_begun)
            .collect();
        begun.sort_by(|a, b| b.cmp(a));
        let nth = |n: usize| n.checked_sub(1).and_then(|n| begun.get(n)).copied();
        let wanted = self.cutoff.max(self.count.and_then(nth))?;
        match self.at_least {
            0 | 1 => Some(wanted),
            // With fewer than that everything stays.
            n => nth(n).map(|kept| wanted.min(kept)),
        }
    }
}

/// A partition that exists, other than the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    pub name: String,
    pub start: Edge,
    pub end: Edge,
    /// Why it stays whatever its age.
    pub held: Option<String>,
}

/// Rows of the default partition that lie close to each other: in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    pub at: Point,
    pub rows: i64,
    /// One of the values, as the server prints it.
    pub example: String,
}

/// What the server says.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub partitions: Vec<Existing>,
    pub strays: Vec<Stray>,
    /// Rows of the default partition that no aligned partition can hold (infinities, no key), with one of their values.
    pub unplaceable: Option<(i64, String)>,
    /// The time now, for keys that are times.
    pub now: Option<Point>,
    /// A value in the newest slot that has rows, the default's left out.
    pub newest: Option<Point>,
    /// Why nothing may be retired now.
    pub frozen: Option<String>,
}

/// Why a partition is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Premake,
    Gap,
    RowsInDefault(i64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Premake => f.write_str("ahead of now and of the newest row"),
            Self::Gap => f.write_str("missing between two partitions"),
            Self::RowsInDefault(rows) => write!(f, "{rows} rows are in the default partition"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    pub partition: RangePartition,
    pub reason: Reason,
}

/// Something that maintenance saw and left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    pub partition: Option<String>,
    pub rows: Option<i64>,
    pub reason: String,
    /// Whether later runs leave it alone as well, until somebody does something about it.
    #[serde(default)]
    pub for_good: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    pub create: Vec<Create>,
    /// Names of partitions past their retention, oldest first.
    pub retire: Vec<String>,
    pub skipped: Vec<Skip>,
}

impl Decisions {
    /// Whether there is nothing to do and nothing to say.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.retire.is_empty() && self.skipped.is_empty()
    }
}

/// What to do for one table.
///
/// # Errors
/// `TooMany` when `premake` alone wants more partitions than one call may create.
pub fn decide(policy: &Policy, state: &State) -> Result<Decisions, BoundsError> {
    let mut decisions = Decisions::default();
    let mut taken = Taken::new(&state.partitions);
    let (first, last) = window(policy, state)?;
    let mut wanted: BTreeMap<i128, Reason> = (first..=last).map(|slot| (slot, Reason::Premake)).collect();
    adopt(policy, state, &taken, &mut wanted, &mut decisions.skipped);
    for (&slot, &reason) in &wanted {
        taken.create(&policy.scheme, slot, reason, &mut decisions.create);
    }
    for slot in gaps(policy, policy.cutoff(state), &taken, decisions.create.len()) {
        taken.create(&policy.scheme, slot, Reason::Gap, &mut decisions.create);
    }
    decisions
        .create
        .sort_by_key(|c| (!matches!(c.reason, Reason::Premake), c.partition.start));
    retire(policy, state, &mut decisions);
    Ok(decisions)
}

/// The slots from now (or the newest row) to `premake` after the newer of both.
fn window(policy: &Policy, state: &State) -> Result<(i128, i128), BoundsError> {
    let scheme = &policy.scheme;
    let slot = |point: Option<Point>| point.map(|p| scheme.slot(p));
    let start = state.partitions.iter().filter_map(|p| at(p.start)).min();
    let (first, mut last) = match (slot(state.now), slot(state.newest), slot(start)) {
        (Some(now), Some(newest), _) if newest - now <= MAX_GAP => (now, now.max(newest)),
        (Some(now), _, _) => (now, now),
        (None, Some(newest), _) => (newest, newest),
        // An integer key without a row in a partition: begin with what is there, where most rows wait, or at zero.
        (None, None, Some(start)) => (start, start),
        (None, None, None) => {
            let fullest = by_slot(policy, state)
                .into_iter()
                .max_by_key(|&(slot, (rows, _))| (rows, -slot));
            fullest.map_or((0, 0), |(slot, _)| (slot, slot))
        }
    };
    last += i128::from(policy.premake);
    let needed = (last - first + 1).unsigned_abs();
    if needed > MAX_PARTITIONS as u128 {
        return Err(BoundsError::TooMany {
            needed,
            limit: MAX_PARTITIONS,
            value: "premake".into(),
        });
    }
    Ok((first, last))
}

/// Takes in the slots that rows of the default partition need, nearest first, and premakes ahead of the newest. What
/// lies farther than [`MAX_GAP`] from everything else is taken for a slip and reported, unless it is many rows.
fn adopt(
    policy: &Policy,
    state: &State,
    taken: &Taken,
    wanted: &mut BTreeMap<i128, Reason>,
    skipped: &mut Vec<Skip>,
) {
    let (mut low, mut high) = taken.span(&policy.scheme);
    for &slot in [wanted.first_key_value(), wanted.last_key_value()]
        .into_iter()
        .flatten()
        .map(|(slot, _)| slot)
    {
        (low, high) = (low.min(slot), high.max(slot));
    }
    let (below, above): (Vec<_>, Vec<_>) = by_slot(policy, state)
        .into_iter()
        .partition(|(slot, _)| *slot < low);
    let (mut far, mut many) = (LeftAlone::default(), LeftAlone::default());
    let mut outlying: Vec<Vec<Held>> = Vec::new();
    let mut newest = None;
    for held in above.into_iter().chain(below.into_iter().rev()) {
        let slot = held.0;
        if (low - slot).max(slot - high) - 1 > MAX_GAP {
            match outlying.last_mut().filter(|cluster| is_near(cluster, slot)) {
                Some(cluster) => cluster.push(held),
                None => outlying.push(vec![held]),
            }
            continue;
        }
        (low, high) = (low.min(slot), high.max(slot));
        newest = newest.max(Some(slot));
        take_in(held, wanted, &mut many);
    }
    if let Some(newest) = newest {
        for ahead in newest + 1..=newest + i128::from(policy.premake) {
            wanted.entry(ahead).or_insert(Reason::Premake);
        }
    }
    for cluster in outlying {
        if cluster.iter().map(|(_, (rows, _))| rows).sum::<i64>() < NO_SLIP {
            cluster
                .into_iter()
                .for_each(|(_, (rows, example))| far.add(rows, example));
        } else {
            cluster
                .into_iter()
                .for_each(|held| take_in(held, wanted, &mut many));
        }
    }
    if let Some((rows, example)) = &state.unplaceable {
        let mut never = LeftAlone::default();
        never.add(*rows, example);
        never.report("no partition can hold them", true, skipped);
    }
    far.report("far away from every partition", true, skipped);
    many.report(
        "their partitions are more than one call may create",
        false,
        skipped,
    );
}

/// A slot with the number of rows that wait for it, and one of their values.
type Held<'a> = (i128, (i64, &'a str));

fn is_near(cluster: &[Held], slot: i128) -> bool {
    cluster
        .last()
        .is_some_and(|(last, _)| (slot - last).abs() - 1 <= MAX_GAP)
}

fn take_in<'a>(
    (slot, (rows, example)): Held<'a>,
    wanted: &mut BTreeMap<i128, Reason>,
    many: &mut LeftAlone<'a>,
) {
    if wanted.len() < MAX_PARTITIONS || wanted.contains_key(&slot) {
        wanted.insert(slot, Reason::RowsInDefault(rows));
    } else {
        many.add(rows, example);
    }
}

/// The rows of the default partition, slot by slot.
fn by_slot<'a>(policy: &Policy, state: &'a State) -> BTreeMap<i128, (i64, &'a str)> {
    let mut strays = BTreeMap::new();
    for stray in &state.strays {
        strays
            .entry(policy.scheme.slot(stray.at))
            .or_insert((0, stray.example.as_str()))
            .0 += stray.rows;
    }
    strays
}

/// Rows that stay in the default partition.
#[derive(Default)]
struct LeftAlone<'a> {
    rows: i64,
    examples: Vec<&'a str>,
}

impl<'a> LeftAlone<'a> {
    fn add(&mut self, rows: i64, example: &'a str) {
        self.rows += rows;
        self.examples.push(example);
    }

    fn report(self, why: &str, for_good: bool, skipped: &mut Vec<Skip>) {
        if self.examples.is_empty() {
            return;
        }
        let named = self
            .examples
            .iter()
            .take(5)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let reason = format!("rows stay in the default partition, {why}: keys such as {named}");
        skipped.push(Skip {
            partition: None,
            rows: Some(self.rows),
            reason,
            for_good,
        });
    }
}

/// The slots missing between two neighbours, but for those past retention and for gaps too wide to be meant.
fn gaps(policy: &Policy, cutoff: Option<Point>, taken: &Taken, created: usize) -> Vec<i128> {
    let scheme = &policy.scheme;
    let mut missing = Vec::new();
    for (end, start) in taken.holes() {
        let first = scheme.slot(end);
        let last = if scheme.floor(start) == Edge::At(start) {
            scheme.slot(start) - 1
        } else {
            scheme.slot(start)
        };
        let first = cutoff.map_or(first, |cutoff| first.max(scheme.slot(cutoff)));
        if last - first < MAX_GAP {
            missing.extend(first..=last);
        }
    }
    missing.truncate(MAX_PARTITIONS.saturating_sub(created));
    missing
}

/// The partitions that lie wholly before the cutoff, oldest first: never the newest one.
pub fn due<'a>(policy: &Policy, state: &'a State) -> Vec<&'a Existing> {
    let Some(cutoff) = policy.cutoff(state) else {
        return Vec::new();
    };
    let newest = state.partitions.iter().map(|p| p.end).max();
    let past = |p: &&Existing| p.end <= Edge::At(cutoff) && Some(p.end) != newest;
    let mut due: Vec<_> = state.partitions.iter().filter(past).collect();
    due.sort_by_key(|p| p.start);
    due
}

fn retire(policy: &Policy, state: &State, decisions: &mut Decisions) {
    for partition in due(policy, state) {
        let name = partition.name.clone();
        let kept = match (&state.frozen, &partition.held) {
            (None, None) => {
                decisions.retire.push(name);
                continue;
            }
            (Some(reason), _) => format!("retention is frozen: {reason}"),
            (None, Some(reason)) => format!("it is held: {reason}"),
        };
        decisions.skipped.push(Skip {
            partition: Some(name),
            rows: None,
            reason: kept,
            for_good: false,
        });
    }
}

/// The ranges that partitions cover, sorted.
struct Taken(Vec<(Edge, Edge)>);

impl Taken {
    fn new(partitions: &[Existing]) -> Self {
        let mut ranges: Vec<_> = partitions.iter().map(|p| (p.start, p.end)).collect();
        ranges.sort();
        Taken(ranges)
    }

    /// The lowest and the highest slot covered; nothing at all is an empty span.
    fn span(&self, scheme: &Scheme) -> (i128, i128) {
        let points = || {
            self.0
                .iter()
                .flat_map(|&(start, end)| [start, end])
                .filter_map(at)
        };
        match (points().min(), points().max()) {
            (Some(low), Some(high)) => (scheme.slot(low), scheme.slot(high)),
            _ => (i128::MAX, i128::MIN),
        }
    }

    /// Creates what of a slot is not covered yet: the whole, a piece beside unaligned neighbours, or nothing.
    fn create(&mut self, scheme: &Scheme, slot: i128, reason: Reason, create: &mut Vec<Create>) {
        let (start, end) = (scheme.slot_start(slot), scheme.slot_start(slot + 1));
        for (start, end) in self.uncovered(start, end) {
            // What no partition can hold (the type's end) needs none.
            if let Ok(partition) = scheme.piece(start, end) {
                let at = self.0.partition_point(|&(taken, _)| taken < start);
                self.0.insert(at, (start, end));
                create.push(Create { partition, reason });
            }
        }
    }

    fn uncovered(&self, mut start: Edge, end: Edge) -> Vec<(Edge, Edge)> {
        let mut free = Vec::new();
        let from = self.0.partition_point(|&(_, taken)| taken <= start);
        for &(taken_start, taken_end) in &self.0[from..] {
            if taken_start >= end {
                break;
            }
            if start < taken_start {
                free.push((start, taken_start));
            }
            start = start.max(taken_end);
        }
        if start < end {
            free.push((start, end));
        }
        free
    }

    /// Where one range ends and the next does not begin.
    fn holes(&self) -> Vec<(Point, Point)> {
        self.0
            .windows(2)
            .filter(|w| w[0].1 < w[1].0)
            .filter_map(|w| at(w[0].1).zip(at(w[1].0)))
            .collect()
    }
}

fn at(edge: Edge) -> Option<Point> {
    match edge {
        Edge::At(point) => Some(point),
        Edge::Min | Edge::Max => None,
    }
}
