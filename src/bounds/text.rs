//! Values and bounds as text: what the server prints is read, what it is told is written. The server prints with
//! `DateStyle = ISO`; for `timestamptz` with `TimeZone` set to the policy's zone (UTC for hours), so that the civil part
//! of the text is the local time and the offset can be dropped.

use super::*;
use jiff::civil::{Date, Time, Weekday};

impl Scheme {
    /// Reads a value of the key.
    pub fn edge(&self, text: &str) -> Result<Edge, BoundsError> {
        let bad = || BoundsError::BadValue { value: text.into() };
        match self.key {
            KeyKind::Date | KeyKind::Timestamp | KeyKind::TimestampTz => civil(text).ok_or_else(bad),
            KeyKind::Integer(_) => Ok(Edge::At(Point::Number(text.parse().map_err(|_| bad())?))),
            KeyKind::Epoch(unit, _) => {
                let value: i64 = text.parse().map_err(|_| bad())?;
                Ok(since_epoch(value, unit))
            }
            KeyKind::UuidV7 => {
                let hex: String = text.chars().filter(|c| *c != '-').take(12).collect();
                let millis = (hex.len() == 12)
                    .then(|| i64::from_str_radix(&hex, 16).ok())
                    .flatten()
                    .ok_or_else(bad)?;
                Ok(since_epoch(millis, EpochUnit::Milliseconds))
            }
            KeyKind::Ulid(_) => {
                let millis = ulid::millis(text).ok_or_else(bad)?;
                Ok(since_epoch(millis, EpochUnit::Milliseconds))
            }
        }
    }

    /// Writes an end of a range.
    pub(super) fn bound(&self, edge: Edge) -> Bound {
        let point = match edge {
            Edge::Min => return Bound::MinValue,
            Edge::Max => return Bound::MaxValue,
            Edge::At(point) => point,
        };
        let size = match self.key {
            KeyKind::Integer(size) | KeyKind::Epoch(_, size) => Some(size),
            _ => None,
        };
        match (self.number(point), size) {
            (Some(value), Some(size)) if value < size.min() => Bound::MinValue,
            (Some(value), Some(size)) if value > size.max() => Bound::MaxValue,
            (Some(value), None) if value < 0 => Bound::MinValue,
            _ if self.is_local() => Bound::LocalTime(self.literal(point)),
            _ => Bound::Literal(self.literal(point)),
        }
    }

    /// The number that a point is in the column, for keys that are numbers underneath.
    fn number(&self, point: Point) -> Option<i128> {
        match (self.key, point) {
            (_, Point::Number(value)) => Some(value),
            (KeyKind::Epoch(unit, _), Point::Time(at)) => Some(ticks(at, unit)),
            (KeyKind::UuidV7 | KeyKind::Ulid(_), Point::Time(at)) => Some(ticks(at, EpochUnit::Milliseconds)),
            _ => None,
        }
    }

    /// The text of a point in the key's type: local time for `timestamptz`, but for hours, which are UTC and say so.
    pub(super) fn literal(&self, point: Point) -> String {
        if let (Some(value), KeyKind::Ulid(case)) = (self.number(point), self.key) {
            return ulid::lowest(value, case);
        }
        match (self.number(point), point) {
            (Some(value), _) if self.key == KeyKind::UuidV7 => {
                let hex = format!("{value:012x}");
                format!("{}-{}-0000-0000-000000000000", &hex[..8], &hex[8..])
            }
            (Some(value), _) => value.to_string(),
            (None, Point::Time(at)) if self.key == KeyKind::Date => at.date().to_string(),
            (None, Point::Time(at)) if self.key == KeyKind::TimestampTz && !self.is_local() => {
                format!("{} {}+00", at.date(), at.time())
            }
            (None, Point::Time(at)) => format!("{} {}", at.date(), at.time()),
            (None, Point::Number(value)) => value.to_string(),
        }
    }

    /// What the partition that starts at a point is called after the base name.
    pub(super) fn suffix(&self, point: Point) -> String {
        let at = match point {
            Point::Number(value) if value < 0 => return format!("_n{}", value.unsigned_abs()),
            Point::Number(value) => return format!("_p{value}"),
            Point::Time(at) => at,
        };
        let (year, month, day) = (at.year(), at.month(), at.day());
        let aligned = self.floor(point) == Edge::At(point);
        let is_midnight = at.time() == Time::midnight();
        let begins_month = aligned && is_midnight && day == 1;
        let is_monday = is_midnight && at.date().weekday() == Weekday::Monday;
        match self.interval {
            Interval::Months(n) if begins_month && n % 12 == 0 && month == 1 => format!("_{year:04}"),
            Interval::Months(3) if begins_month && month % 3 == 1 => {
                format!("_{year:04}_q{}", (month + 2) / 3)
            }
            Interval::Months(_) if begins_month => format!("_{year:04}_{month:02}"),
            Interval::Days(n) if aligned && n % 7 == 0 && is_monday => {
                let week = at.date().iso_week_date();
                format!("_{:04}_w{:02}", week.year(), week.week())
            }
            Interval::Hours(_) if aligned => format!("_{year:04}_{month:02}_{day:02}_{:02}", at.hour()),
            _ if is_midnight => format!("_{year:04}_{month:02}_{day:02}"),
            _ => format!(
                "_{year:04}_{month:02}_{day:02}_{:02}{:02}{:02}",
                at.hour(),
                at.minute(),
                at.second()
            ),
        }
    }
}

/// The two ends in `FOR VALUES FROM ('…') TO ('…')`, as the server prints the bound of a partition of one key column;
/// none for a default, hash or list partition. MINVALUE and MAXVALUE come without a text.
pub fn range_bounds(clause: &str) -> Option<(RawBound, RawBound)> {
    let rest = clause.strip_prefix("FOR VALUES FROM (")?;
    let (lower, rest) = raw_bound(rest)?;
    let (upper, rest) = raw_bound(rest.strip_prefix(") TO (")?)?;
    (rest == ")").then_some((lower, upper))
}

/// An end of a range as the server prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawBound {
    MinValue,
    MaxValue,
    Value(String),
}

impl RawBound {
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Value(text) => Some(text),
            Self::MinValue | Self::MaxValue => None,
        }
    }
}

impl Scheme {
    /// Reads an end of an existing partition.
    pub fn raw_edge(&self, bound: &RawBound) -> Result<Edge, BoundsError> {
        match bound {
            RawBound::MinValue => Ok(Edge::Min),
            RawBound::MaxValue => Ok(Edge::Max),
            RawBound::Value(text) if matches!(self.key, KeyKind::Ulid(_)) => self.edge(&ulid::padded(text)),
            RawBound::Value(text) => self.edge(text),
        }
    }
}

fn raw_bound(text: &str) -> Option<(RawBound, &str)> {
    if let Some(rest) = text.strip_prefix("MINVALUE") {
        return Some((RawBound::MinValue, rest));
    }
    if let Some(rest) = text.strip_prefix("MAXVALUE") {
        return Some((RawBound::MaxValue, rest));
    }
    match text.strip_prefix('\'') {
        Some(quoted) => {
            let end = closing_quote(quoted)?;
            let value = quoted[..end].replace("''", "'");
            Some((RawBound::Value(value), &quoted[end + 1..]))
        }
        None => text
            .find(')')
            .map(|end| (RawBound::Value(text[..end].into()), &text[end..])),
    }
}

/// Where a literal ends whose first quote is taken off: quotes in it are doubled.
fn closing_quote(text: &str) -> Option<usize> {
    let mut quotes = text.match_indices('\'').map(|(at, _)| at).peekable();
    while let Some(at) = quotes.next() {
        if quotes.next_if_eq(&(at + 1)).is_none() {
            return Some(at);
        }
    }
    None
}

/// A civil time from the server's ISO text, with or without a time of day and an offset.
pub fn civil(text: &str) -> Option<Edge> {
    match text {
        "infinity" => return Some(Edge::Max),
        "-infinity" => return Some(Edge::Min),
        _ => {}
    }
    let text = match text.strip_suffix(" BC") {
        Some(_) => return Some(Edge::Min),
        None => text,
    };
    let (day, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    if day.find('-').is_some_and(|year| year > 4) {
        return Some(Edge::Max);
    }
    let time = time.split(['+', '-']).next()?;
    let at = day.parse::<Date>().ok()?.to_datetime(time.parse::<Time>().ok()?);
    Some(Edge::At(Point::Time(at)))
}

/// The civil UTC time of a count since the epoch.
pub(super) fn since_epoch(value: i64, unit: EpochUnit) -> Edge {
    let per_second = unit.per_second();
    let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let nanos = i32::try_from(rest * (1_000_000_000 / per_second)).unwrap_or(0);
    match EPOCH.checked_add(SignedDuration::new(seconds, nanos)) {
        Ok(at) if at < FIRST => Edge::Min,
        Ok(at) => Edge::At(Point::Time(at)),
        Err(_) => beyond(value.into()),
    }
}

/// The count since the epoch of a civil UTC time.
fn ticks(at: DateTime, unit: EpochUnit) -> i128 {
    let nanos = EPOCH.duration_until(at).as_nanos();
    nanos.div_euclid(i128::from(1_000_000_000 / unit.per_second()))
}
