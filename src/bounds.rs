//! Partition arithmetic: which aligned ranges cover which values, what their partitions are called and how their
//! bounds are written for the server. Pure: no server, no clock, no time zone database. Every partition is a *slot*,
//! a whole number counted from a fixed origin, so that "next", "how many are missing" and "is this gap too wide" are
//! additions; the calendar behind it is jiff's.

mod interval;
mod key;
mod origin;
mod stored;
mod text;
mod ulid;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod zones;

pub use interval::Interval;
pub use key::{EpochUnit, IntegerSize, KeyKind, LetterCase};
pub use stored::{StoredBound, stored_range};
pub use text::{RawBound, civil, range_bounds};

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use std::fmt;

/// What one call may create: a single bad date must not make thousands of partitions.
pub const MAX_PARTITIONS: usize = 2000;

/// A value of the partition key. Times are civil: local times of the policy's zone for `timestamptz` in days and
/// longer, UTC for epochs, UUIDv7, ULIDs and hours, and simply what is stored for `date` and `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    Time(DateTime),
    Number(i128),
}

/// One end of a range. The order is the server's: MINVALUE, then the values, then MAXVALUE. Infinities and times outside
/// the years 1 to 9999 read as the one or the other: no aligned partition lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    Min,
    At(Point),
    Max,
}

/// An end of a range as the server is to be told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    MinValue,
    MaxValue,
    /// The text of a literal of the key's type: quote it and it is ready.
    Literal(String),
    /// A local time of the policy's zone, which only the server can turn into an instant
    /// (`timezone(zone, text::timestamp)`). Never a literal: it would be read in the session's zone.
    /// A local day that the zone skipped ends up empty (lower = upper): leave it out.
    LocalTime(String),
}

/// An aligned, half-open range and what its partition is called after the base name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePartition {
    pub suffix: String,
    pub lower: Bound,
    pub upper: Bound,
    pub start: Edge,
    pub end: Edge,
}

/// Why an interval, a value or a range cannot be used. Messages are short and lower-case; [`BoundsError::hint`] is a
/// sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundsError {
    BadInterval {
        interval: String,
        reason: &'static str,
    },
    WrongKey {
        interval: String,
        key: KeyKind,
    },
    BadOrigin {
        origin: String,
        reason: &'static str,
    },
    BadValue {
        value: String,
    },
    OutOfRange {
        value: String,
    },
    TooMany {
        needed: u128,
        limit: usize,
        value: String,
    },
}

impl fmt::Display for BoundsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadInterval { interval, reason } => {
                write!(f, "invalid partition interval \"{interval}\": {reason}")
            }
            Self::WrongKey { interval, key } => {
                write!(
                    f,
                    "partition interval \"{interval}\" does not fit a partition key of type {key}"
                )
            }
            Self::BadOrigin { origin, reason } => write!(f, "invalid origin \"{origin}\": {reason}"),
            Self::BadValue { value } => write!(f, "cannot read \"{value}\" as a value of the partition key"),
            Self::OutOfRange { value } => write!(f, "no partition can hold the value {value}"),
            Self::TooMany { needed, limit, value } => {
                write!(
                    f,
                    "value {value} of the partition key needs {needed} partitions, more than {limit}"
                )
            }
        }
    }
}

impl std::error::Error for BoundsError {}

impl BoundsError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BadInterval { .. } => {
                "Use hours that divide a day, days, weeks, months that divide a year, or years; or a whole number as the \
                 step of an integer key."
            }
            Self::WrongKey { key, .. } => key.hint(),
            Self::BadOrigin { .. } => {
                "Name where some partition begins: a time such as '2025-04-01', or a whole number for an integer key."
            }
            Self::BadValue { .. } => {
                "Partition keys are dates, timestamps, integers, epochs, UUIDv7 or ULIDs."
            }
            Self::OutOfRange { .. } => "Correct the row, or leave it to the default partition.",
            Self::TooMany { .. } => {
                "Correct the rows with that value, or choose a longer partition interval."
            }
        }
    }
}

/// How a table is cut: the type of its key and the length of a partition, which fit each other, and where some partition
/// begins when that is not the usual place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    key: KeyKind,
    interval: Interval,
    origin: Option<Point>,
}

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);
/// The first Monday after the epoch: ISO weeks start there.
const MONDAY: DateTime = date(1970, 1, 5).at(0, 0, 0, 0);
const FIRST: DateTime = date(1, 1, 1).at(0, 0, 0, 0);
const LAST: DateTime = date(9999, 12, 31).at(23, 59, 59, 999_999_999);
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

impl Scheme {
    pub fn new(key: KeyKind, interval: Interval) -> Result<Self, BoundsError> {
        let fits = match (key, interval) {
            (KeyKind::Integer(_), Interval::Step(_)) => true,
            (KeyKind::Integer(_), _) | (_, Interval::Step(_)) => false,
            (KeyKind::Date, Interval::Hours(_)) => false,
            _ => true,
        };
        if fits {
            Ok(Self {
                key,
                interval,
                origin: None,
            })
        } else {
            Err(BoundsError::WrongKey {
                interval: interval.to_string(),
                key,
            })
        }
    }

    pub fn key(&self) -> KeyKind {
        self.key
    }

    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// Whether bounds are local times of the policy's zone. Hours are cut in UTC instead: when clocks change, a local hour is
    /// missing or comes twice.
    pub fn is_local(&self) -> bool {
        self.key == KeyKind::TimestampTz && !matches!(self.interval, Interval::Hours(_))
    }

    /// The number of the slot that holds a value.
    pub fn slot(&self, point: Point) -> i128 {
        match (self.interval, point) {
            (Interval::Step(step), Point::Number(value)) => {
                (value - self.first_number()).div_euclid(i128::from(step))
            }
            (Interval::Months(months), Point::Time(at)) => {
                let (first, into) = self.first_month();
                // The origin's day and hour are those of every partition: taken off, a month is a month again.
                let month = at.checked_sub(into).map_or(i64::MIN / 2, origin::month_number);
                i128::from((month - first).div_euclid(i64::from(months)))
            }
            (_, Point::Time(at)) => {
                let (origin, length) = self.clock();
                i128::from(origin.duration_until(at).as_secs_floor().div_euclid(length))
            }
            (_, Point::Number(value)) => value,
        }
    }

    /// Where a slot starts: beyond every partition for numbers that no time has.
    pub fn slot_start(&self, slot: i128) -> Edge {
        match self.interval {
            Interval::Step(step) => slot
                .checked_mul(i128::from(step))
                .and_then(|n| n.checked_add(self.first_number()))
                .map_or(beyond(slot), |n| Edge::At(Point::Number(n))),
            Interval::Months(months) => {
                let (first, into) = self.first_month();
                let month = slot
                    .saturating_mul(i128::from(months))
                    .saturating_add(i128::from(first));
                match (
                    i16::try_from(month.div_euclid(12)),
                    i8::try_from(month.rem_euclid(12) + 1),
                ) {
                    (Ok(year @ 1..=9999), Ok(month)) => {
                        let start = date(year, month, 1).at(0, 0, 0, 0);
                        start
                            .checked_add(into)
                            .map_or(beyond(slot), |at| Edge::At(Point::Time(at)))
                    }
                    _ => beyond(month - 12),
                }
            }
            Interval::Days(_) | Interval::Hours(_) => {
                let (origin, length) = self.clock();
                i64::try_from(slot)
                    .ok()
                    .and_then(|slot| slot.checked_mul(length))
                    .and_then(|seconds| origin.checked_add(SignedDuration::from_secs(seconds)).ok())
                    .filter(|at| (FIRST..=LAST).contains(at))
                    .map_or(beyond(slot), |at| Edge::At(Point::Time(at)))
            }
        }
    }

    /// The start of the slot that holds a value.
    pub fn floor(&self, point: Point) -> Edge {
        self.slot_start(self.slot(point))
    }

    /// The start of the slot after the one that holds a value.
    pub fn next(&self, point: Point) -> Edge {
        self.slot_start(self.slot(point) + 1)
    }

    /// The whole partition of a slot.
    pub fn partition(&self, slot: i128) -> Result<RangePartition, BoundsError> {
        self.piece(self.slot_start(slot), self.slot_start(slot + 1))
    }

    /// A partition for a part of a slot, next to partitions that are not aligned: named after its own start, as finely
    /// as that needs, so that no aligned partition has the same name.
    pub fn piece(&self, start: Edge, end: Edge) -> Result<RangePartition, BoundsError> {
        let Edge::At(point) = start else {
            return Err(BoundsError::OutOfRange {
                value: "outside of the years 1 to 9999".into(),
            });
        };
        let (lower, upper) = (self.bound(start), self.bound(end));
        if start >= end || lower == Bound::MaxValue || upper == Bound::MinValue {
            return Err(BoundsError::OutOfRange {
                value: self.literal(point),
            });
        }
        Ok(RangePartition {
            suffix: self.suffix(point),
            lower,
            upper,
            start,
            end,
        })
    }

    /// The aligned partitions that cover the data and now, and `premake` more after the newer of the two. Nothing is
    /// known to be covered without data and without a now (an empty table with an integer key): no partitions.
    pub fn range_covering(
        &self,
        data: Option<(Point, Point)>,
        now: Option<Point>,
        premake: u32,
        limit: usize,
    ) -> Result<Vec<RangePartition>, BoundsError> {
        let points = || data.iter().flat_map(|&(min, max)| [min, max]).chain(now);
        let (Some(oldest), Some(newest)) = (points().min(), points().max()) else {
            return Ok(Vec::new());
        };
        let (first, held) = (self.slot(oldest), self.slot(newest));
        let last = held + i128::from(premake);
        let needed = (last - first + 1).unsigned_abs();
        if needed > limit as u128 {
            let value = self.literal(self.odd_one(oldest, newest, now));
            return Err(BoundsError::TooMany { needed, limit, value });
        }
        let mut partitions = Vec::new();
        for slot in first..=last {
            match self.partition(slot) {
                Ok(partition) => partitions.push(partition),
                // Ahead of the data the type may end: there is nothing to make ready for.
                Err(BoundsError::OutOfRange { .. }) if slot > held => break,
                Err(error) => return Err(error),
            }
        }
        Ok(partitions)
    }

    /// Which end of the range to blame for its length: the one farther from now, else the upper one.
    fn odd_one(&self, oldest: Point, newest: Point, now: Option<Point>) -> Point {
        match now.map(|now| self.slot(now)) {
            Some(now) if now - self.slot(oldest) > self.slot(newest) - now => oldest,
            _ => newest,
        }
    }
}

/// The edge for a slot that no value has, from the sign of its number.
fn beyond(slot: i128) -> Edge {
    if slot < 0 { Edge::Min } else { Edge::Max }
}

/// Whole seconds, rounded down: jiff rounds towards zero.
trait FloorSeconds {
    fn as_secs_floor(&self) -> i64;
}

impl FloorSeconds for SignedDuration {
    fn as_secs_floor(&self) -> i64 {
        self.as_secs() - i64::from(self.subsec_nanos() < 0)
    }
}
