//! Bounds of partitions on one scale: numbers for numbers, for times seconds since 1970 as the clock of their zone shows them.
//! Pure: it reads what the server prints.

use crate::bounds::{Edge, EpochUnit, Point, RawBound, civil, range_bounds};

/// The two ends of a range; open ends are infinite. None for a default, hash or list partition, or a key of several columns.
pub fn range(bound: &str) -> Option<(f64, f64)> {
    let (lower, upper) = range_bounds(bound)?;
    Some((
        position(&lower, f64::NEG_INFINITY)?,
        position(&upper, f64::INFINITY)?,
    ))
}

fn position(bound: &RawBound, open: f64) -> Option<f64> {
    match bound {
        RawBound::MinValue | RawBound::MaxValue => Some(open),
        RawBound::Value(text) => value(text),
    }
}

fn value(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        return Some(number);
    }
    if text.len() == 36 && text.as_bytes()[8] == b'-' {
        let hex: String = text.chars().filter(|c| *c != '-').take(12).collect();
        return Some(i64::from_str_radix(&hex, 16).ok()? as f64 / 1000.0);
    }
    match civil(text)? {
        Edge::Min => Some(f64::NEG_INFINITY),
        Edge::Max => Some(f64::INFINITY),
        Edge::At(Point::Time(at)) => Some(seconds(at)),
        Edge::At(Point::Number(number)) => Some(number as f64),
    }
}

fn seconds(at: jiff::civil::DateTime) -> f64 {
    jiff::civil::date(1970, 1, 1)
        .at(0, 0, 0, 0)
        .duration_until(at)
        .as_secs_f64()
}

/// Where the clock stands on the scale of a key of this type. `local` is the time in the policy's zone; a `timestamptz` is printed
/// in UTC. None for a plain number.
pub fn now<'a>(
    key_type: &str,
    interval: &str,
    local: &str,
    bounds: impl Iterator<Item = &'a String>,
) -> Option<f64> {
    let utc = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?
        .as_secs_f64();
    match key_type {
        "smallint" | "integer" | "bigint" => {
            if interval.trim().parse::<i128>().is_ok() {
                return None;
            }
            // An epoch: its unit shows in the highest bound that could be a time of our age.
            let unit = bounds
                .filter_map(|bound| range_bounds(bound))
                .filter_map(|(lower, _)| EpochUnit::guess(lower.value()?.parse().ok()?))
                .next()?;
            Some(utc * unit.per_second() as f64)
        }
        "uuid" | "timestamp with time zone" => Some(utc),
        _ => value(local),
    }
}

/// How a place on the scale is shown: a day where it is one, else a day and a time, else the number.
pub fn shown(bound: &RawBound) -> String {
    match bound {
        RawBound::MinValue => "−∞".into(),
        RawBound::MaxValue => "∞".into(),
        RawBound::Value(text) => text
            .strip_suffix("+00")
            .unwrap_or(text)
            .strip_suffix(" 00:00:00")
            .unwrap_or(text)
            .to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_lie_on_one_scale() {
        let day = 86_400.0;
        assert_eq!(
            range("FOR VALUES FROM ('1970-01-02') TO ('1970-01-03 00:00:00+00')"),
            Some((day, 2.0 * day))
        );
        assert_eq!(
            range("FOR VALUES FROM (MINVALUE) TO ('1000')"),
            Some((f64::NEG_INFINITY, 1000.0))
        );
        assert_eq!(
            range("FOR VALUES FROM ('00000000-03e8-0000-0000-000000000000') TO (MAXVALUE)"),
            Some((1.0, f64::INFINITY))
        );
        assert_eq!(range("DEFAULT"), None);
        assert_eq!(range("FOR VALUES WITH (modulus 4, remainder 1)"), None);
    }

    #[test]
    fn a_plain_number_has_no_clock_and_an_epoch_has_one() {
        let local = "2026-01-01 00:00:00";
        assert_eq!(now("bigint", "1000", local, [].into_iter()), None);
        let bound = "FOR VALUES FROM ('1767225600000') TO ('1769904000000')".to_string();
        let found = now("bigint", "1 month", local, [&bound].into_iter());
        assert!(found.is_some_and(|now| now > 1.7e12), "{found:?}");
        assert_eq!(now("date", "1 month", local, [].into_iter()), value("2026-01-01"));
    }

    #[test]
    fn midnight_is_shown_as_a_day() {
        let shown = |text: &str| shown(&RawBound::Value(text.into()));
        assert_eq!(shown("2026-01-01 00:00:00+00"), "2026-01-01");
        assert_eq!(shown("2026-01-01 06:00:00"), "2026-01-01 06:00:00");
    }
}
