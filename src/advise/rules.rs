//! What to advise, from what was seen. Pure: numbers and texts go in, findings come out.

use crate::bounds::Interval;
use std::fmt;

/// A partition below this costs more in the catalog and in planning than it saves.
const SMALL: i64 = 64 << 20;
/// A partition above this takes long to vacuum, to index and to archive.
const LARGE: i64 = 16 << 30;
/// What a partition is best at, between the two.
const BEST: f64 = (1_u64 << 30) as f64;
/// So many partitions are planned for without much ado.
const MANY: usize = 1_000;
/// Fewer small partitions than this do no harm.
const FEW: usize = 36;
/// So many partitions with rows are needed to speak of a usual size.
const ENOUGH: usize = 3;
/// A plan that takes longer than this is worth a word, in milliseconds.
const SLOW_PLAN: f64 = 20.0;
/// Queries and partitions that are named.
const NAMED: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    pub severity: Severity,
    pub topic: &'static str,
    pub message: String,
    pub hint: String,
}

/// A leaf partition.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub name: String,
    /// With indexes and TOAST.
    pub bytes: i64,
    /// Scans since statistics were reset, by sequence and by index.
    pub scans: i64,
    pub is_default: bool,
    /// Directly below the root and the newest of its ranges, so not full yet.
    pub is_newest: bool,
}

/// A statement that pg_stat_statements has seen on the table.
#[derive(Debug, Clone)]
pub struct Query {
    pub text: String,
    pub calls: i64,
    pub milliseconds: f64,
    /// Of those, spent in planning; 0 where that is not tracked.
    pub planning: f64,
}

#[derive(Debug, Clone)]
pub enum Cut {
    /// By range: the interval, where a policy says it.
    Range(Option<Interval>),
    /// By hash, into so many.
    Hash(usize),
    List,
}

#[derive(Debug, Clone)]
pub struct Seen {
    pub cut: Cut,
    pub key: Option<String>,
    pub leaves: Vec<Leaf>,
    /// What it takes to plan a read of all partitions, in milliseconds.
    pub planning: f64,
    /// `None` where pg_stat_statements is not to be asked.
    pub queries: Option<Vec<Query>>,
}

/// Everything there is to say, a warning or an all-clear for each topic.
pub fn advise(seen: &Seen) -> Vec<Advice> {
    let mut all = vec![match &seen.cut {
        Cut::Range(Some(interval)) => interval_advice(seen, *interval),
        Cut::Range(None) => info(
            "interval",
            "the table is not under maintenance, so nothing says its interval",
            "Put it under maintenance with partition_router.manage().",
        ),
        Cut::Hash(partitions) => hash_advice(seen, *partitions),
        Cut::List => info("interval", "lists have no interval", "Nothing is to be done."),
    }];
    all.push(planning(seen));
    all.push(pruning(seen));
    all.push(never_read(seen));
    all
}

fn advice(
    severity: Severity,
    topic: &'static str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Advice {
    Advice {
        severity,
        topic,
        message: message.into(),
        hint: hint.into(),
    }
}

fn info(topic: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Advice {
    advice(Severity::Info, topic, message, hint)
}

fn warn(topic: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Advice {
    advice(Severity::Warning, topic, message, hint)
}

const FINE: &str = "Nothing is to be done.";

/// The size in the middle, of partitions that are full and have rows.
fn usual(seen: &Seen) -> Option<(usize, i64)> {
    let is_full = |leaf: &&Leaf| !leaf.is_default && !leaf.is_newest && leaf.bytes > 8192 * 2;
    let mut sizes: Vec<i64> = seen
        .leaves
        .iter()
        .filter(is_full)
        .map(|leaf| leaf.bytes)
        .collect();
    sizes.sort_unstable();
    (sizes.len() >= ENOUGH).then(|| (sizes.len(), sizes[sizes.len() / 2]))
}

fn interval_advice(seen: &Seen, interval: Interval) -> Advice {
    let Some((full, size)) = usual(seen) else {
        return info(
            "interval",
            format!("fewer than {ENOUGH} partitions are full: it is too early to say"),
            "Ask again later.",
        );
    };
    let partitions = seen.leaves.len();
    let text = format!("{full} full partitions of {interval}, usually of {}", bytes(size));
    let better = better(interval, size).filter(|better| *better != interval);
    match better {
        Some(longer) if size < SMALL && partitions > FEW => warn(
            "interval",
            format!("{text}: many and small"),
            format!(
                "Choose {longer} when you next migrate or manage such a table: a partition would have about {}.",
                bytes(scaled(size, interval, longer))
            ),
        ),
        Some(shorter) if size > LARGE => warn(
            "interval",
            format!("{text}: slow to vacuum, to index and to archive"),
            format!(
                "Choose {shorter} when you next migrate or manage such a table: a partition would have about {}.",
                bytes(scaled(size, interval, shorter))
            ),
        ),
        _ => info("interval", text, FINE),
    }
}

/// The interval by which partitions come closest to their best size.
fn better(interval: Interval, size: i64) -> Option<Interval> {
    use Interval::*;
    let choices: Vec<Interval> = match interval {
        Step(step) => [1_i64, 10, 100, 1_000]
            .iter()
            .flat_map(|n| [step.checked_mul(*n), Some(step / n)])
            .flatten()
            .filter(|step| *step > 0)
            .map(Step)
            .collect(),
        _ => vec![
            Hours(1),
            Hours(6),
            Days(1),
            Days(7),
            Months(1),
            Months(3),
            Months(12),
        ],
    };
    let distance = |choice: &Interval| (scaled(size, interval, *choice).max(1) as f64 / BEST).ln().abs();
    choices
        .into_iter()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

fn scaled(size: i64, from: Interval, to: Interval) -> i64 {
    (size as f64 * length(to) / length(from)) as i64
}

/// In hours, or in steps.
fn length(interval: Interval) -> f64 {
    match interval {
        Interval::Hours(n) => f64::from(n),
        Interval::Days(n) => f64::from(n) * 24.0,
        Interval::Months(n) => f64::from(n) * 730.5,
        Interval::Step(n) => n as f64,
    }
}

fn hash_advice(seen: &Seen, partitions: usize) -> Advice {
    let total: i64 = seen.leaves.iter().map(|leaf| leaf.bytes).sum();
    let Some(largest) = seen.leaves.iter().max_by_key(|leaf| leaf.bytes) else {
        return info("hash partitions", "there are none", FINE);
    };
    let even = total / partitions.max(1) as i64;
    let text = format!("{partitions} partitions of {} on average", bytes(even));
    if even > LARGE {
        let mut wanted = partitions.max(1);
        while total / wanted as i64 > LARGE / 4 {
            wanted *= 2;
        }
        return warn(
            "hash partitions",
            format!("{text}: slow to vacuum and to index"),
            format!("Use {wanted} partitions: {} each.", bytes(total / wanted as i64)),
        );
    }
    if largest.bytes > SMALL && largest.bytes > even * 4 {
        return warn(
            "hash partitions",
            format!(
                "{text}, and {} has {}: one value of the key has most rows",
                largest.name,
                bytes(largest.bytes)
            ),
            "Partition by a key with more values: more partitions would not part the rows of one.",
        );
    }
    if even < SMALL && partitions > FEW {
        let mut wanted = partitions;
        while wanted > 1 && total / (wanted as i64) < SMALL * 4 {
            wanted = wanted.div_ceil(2);
        }
        return warn(
            "hash partitions",
            format!("{text}: many and small"),
            format!("Use {wanted} partitions: {} each.", bytes(total / wanted as i64)),
        );
    }
    info("hash partitions", text, FINE)
}

fn planning(seen: &Seen) -> Advice {
    let partitions = seen.leaves.len();
    let text = format!(
        "a read of all {partitions} partitions is planned in {:.1} ms",
        seen.planning
    );
    if partitions > MANY || seen.planning > SLOW_PLAN {
        return warn(
            "planning time",
            text,
            "Have fewer partitions: a longer interval or a shorter retention; and name the partition key in queries.",
        );
    }
    let slow = seen
        .queries
        .iter()
        .flatten()
        .find(|q| q.planning > q.milliseconds / 2.0 && q.planning > SLOW_PLAN * q.calls as f64);
    match slow {
        Some(query) => warn(
            "planning time",
            format!(
                "{text}; more than half the time of this query is planning: {}",
                shortened(&query.text)
            ),
            "Prepare it, or name the partition key in it.",
        ),
        None => info("planning time", text, FINE),
    }
}

/// Queries that do not name the partition key read every partition.
fn pruning(seen: &Seen) -> Advice {
    let Some(queries) = &seen.queries else {
        return info(
            "pruning",
            "pg_stat_statements is not in this database, so no queries were seen",
            "Load it with shared_preload_libraries and run CREATE EXTENSION pg_stat_statements.",
        );
    };
    let Some(key) = &seen.key else {
        return info(
            "pruning",
            "the partition key is an expression or several columns",
            FINE,
        );
    };
    let total: f64 = queries.iter().map(|q| q.milliseconds).sum();
    let mut blind: Vec<&Query> = queries
        .iter()
        .filter(|q| !mentions(condition(&q.text), key))
        .collect();
    blind.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    if blind.is_empty() {
        return info(
            "pruning",
            format!(
                "{} queries were seen, and each names \"{key}\" in a condition",
                queries.len()
            ),
            FINE,
        );
    }
    let share: f64 = blind.iter().map(|q| q.milliseconds).sum::<f64>() / total.max(f64::MIN_POSITIVE) * 100.0;
    let named: Vec<String> = blind
        .iter()
        .take(NAMED)
        .map(|q| format!("{} ({} calls)", shortened(&q.text), q.calls))
        .collect();
    warn(
        "pruning",
        format!(
            "{} of {} queries name \"{key}\" in no condition and read every partition, {share:.0} % of the time: {}",
            blind.len(),
            queries.len(),
            named.join("; ")
        ),
        format!("Add a condition on \"{key}\" to them, or choose a partition key that they name."),
    )
}

/// What follows the first WHERE, or ON: where a condition can be.
fn condition(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    let found = ["where", "on"]
        .iter()
        .filter_map(|word| words(&lower).find(|(_, w)| w == word).map(|(at, _)| at))
        .min();
    found.map_or("", |at| &text[at..])
}

/// Every word of a statement, with its place.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// Whether a statement names something: as a word in any case, or between double quotes.
pub fn mentions(text: &str, name: &str) -> bool {
    words(text).any(|(_, word)| word.eq_ignore_ascii_case(name))
        || text.contains(&format!("\"{}\"", name.replace('"', "\"\"")))
}

fn never_read(seen: &Seen) -> Advice {
    let unread: Vec<&Leaf> = seen
        .leaves
        .iter()
        .filter(|leaf| leaf.scans == 0 && leaf.bytes > 8192 * 2 && !leaf.is_default)
        .collect();
    if unread.is_empty() {
        return info(
            "never read",
            "every partition with rows was read since statistics were reset",
            FINE,
        );
    }
    let size: i64 = unread.iter().map(|leaf| leaf.bytes).sum();
    let mut named: Vec<&str> = unread.iter().take(NAMED).map(|leaf| leaf.name.as_str()).collect();
    if unread.len() > NAMED {
        named.push("…");
    }
    warn(
        "never read",
        format!(
            "{} partitions of {} were not read since statistics were reset: {}",
            unread.len(),
            bytes(size),
            named.join(", ")
        ),
        "Let retention take them with partition_router.set_policy(), if they are old.",
    )
}

fn shortened(text: &str) -> String {
    let flat: Vec<&str> = text.split_whitespace().collect();
    let flat = flat.join(" ");
    match flat.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &flat[..end]),
        None => flat,
    }
}

fn bytes(size: i64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (size as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    match value < 10.0 && unit > 0 {
        true => format!("{value:.1} {}", UNITS[unit]),
        false => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests;
