//! Where partitions are counted from. Without an origin months begin with the year, weeks on Monday, days and hours at the
//! epoch, steps at zero; with one, some partition begins at the origin and all others follow from there.

use super::*;

impl Scheme {
    /// The same cut, counted from a place of the caller's: a civil time as the server prints it, or a whole number for steps.
    ///
    /// # Errors
    /// `BadOrigin` for what is neither, and for what partitions of this length cannot begin at: a time of day for a date or
    /// for local days, which clocks may skip; parts of an hour; a day of the month that not every month has.
    pub fn with_origin(self, text: &str) -> Result<Self, BoundsError> {
        let bad = |reason| {
            Err(BoundsError::BadOrigin {
                origin: text.into(),
                reason,
            })
        };
        if let Interval::Step(_) = self.interval {
            return match text.trim().parse::<i64>() {
                Ok(number) => Ok(self.counted_from(Point::Number(number.into()))),
                Err(_) => bad("it is not a whole number"),
            };
        }
        let Some(Edge::At(Point::Time(at))) = civil(text) else {
            return bad("it is no time between the years 1 and 9999");
        };
        if (at.minute(), at.second(), at.subsec_nanosecond()) != (0, 0, 0) {
            return bad("it is not a whole hour");
        }
        if at.hour() != 0 && (self.key == KeyKind::Date || self.is_local()) {
            return bad("it is not midnight");
        }
        if matches!(self.interval, Interval::Months(_)) && at.day() > 28 {
            return bad("not every month has that day");
        }
        Ok(self.counted_from(Point::Time(at)))
    }

    fn counted_from(self, origin: Point) -> Self {
        Self {
            origin: Some(origin),
            ..self
        }
    }

    /// The start of some step.
    pub fn first_number(&self) -> i128 {
        match self.origin {
            Some(Point::Number(number)) => number,
            _ => 0,
        }
    }

    fn first_time(&self) -> Option<DateTime> {
        match self.origin {
            Some(Point::Time(at)) => Some(at),
            _ => None,
        }
    }

    /// The number of a month in which a partition of months begins, and how far into it.
    pub(super) fn first_month(&self) -> (i64, SignedDuration) {
        self.first_time().map_or((0, SignedDuration::ZERO), |at| {
            let begins = date(at.year(), at.month(), 1).at(0, 0, 0, 0);
            (month_number(at), begins.duration_until(at))
        })
    }

    /// The start of some partition, and the length of all in seconds: of intervals that a clock without a calendar can count.
    pub(super) fn clock(&self) -> (DateTime, i64) {
        let (usual, length) = match self.interval {
            Interval::Hours(hours) => (EPOCH, i64::from(hours) * HOUR),
            Interval::Days(days) if days % 7 == 0 => (MONDAY, i64::from(days) * DAY),
            Interval::Days(days) => (EPOCH, i64::from(days) * DAY),
            Interval::Months(_) | Interval::Step(_) => (EPOCH, DAY),
        };
        (self.first_time().unwrap_or(usual), length)
    }

    /// The unit of `date_trunc` that cuts finely enough: times of one unit lie in one partition. None for steps.
    pub fn unit(&self) -> Option<&'static str> {
        let time = self.first_time().unwrap_or(EPOCH);
        match self.interval {
            Interval::Step(_) => None,
            Interval::Hours(_) => Some("hour"),
            _ if time.hour() != 0 => Some("hour"),
            Interval::Days(_) => Some("day"),
            Interval::Months(_) if time.day() != 1 => Some("day"),
            Interval::Months(_) => Some("month"),
        }
    }

    /// The length of the longest suffix, to check that a base name leaves room for it.
    pub fn longest_suffix(&self) -> usize {
        match self.first_time() {
            Some(at) if at.hour() != 0 && !matches!(self.interval, Interval::Hours(_)) => {
                "_2025_01_31_060000".len()
            }
            Some(_) => self.interval.longest_suffix().max("_2025_01_31".len()),
            None => self.interval.longest_suffix(),
        }
    }
}

/// Months since the beginning of the calendar.
pub(super) fn month_number(at: DateTime) -> i64 {
    i64::from(at.year()) * 12 + i64::from(at.month()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scheme(key: KeyKind, interval: Interval, origin: &str) -> Scheme {
        Scheme::new(key, interval).unwrap().with_origin(origin).unwrap()
    }

    fn time(text: &str) -> Point {
        Point::Time(text.parse().unwrap())
    }

    fn shown(scheme: Scheme, at: &str) -> String {
        let p = scheme.partition(scheme.slot(time(at))).unwrap();
        let text = |edge| match edge {
            Edge::At(Point::Time(at)) => at.to_string(),
            other => format!("{other:?}"),
        };
        format!("{} {} {}", p.suffix, text(p.start), text(p.end))
    }

    #[test]
    fn two_weeks_ten_days_and_six_hours_are_counted_from_the_origin() {
        let weeks = scheme(KeyKind::Date, Interval::Days(14), "2025-01-13");
        assert_eq!(
            shown(weeks, "2025-01-26"),
            "_2025_w03 2025-01-13T00:00:00 2025-01-27T00:00:00"
        );
        assert_eq!(
            shown(weeks, "2025-01-12"),
            "_2025_w01 2024-12-30T00:00:00 2025-01-13T00:00:00"
        );
        let wednesdays = scheme(KeyKind::Date, Interval::Days(7), "2025-01-01");
        assert_eq!(
            shown(wednesdays, "2025-01-14"),
            "_2025_01_08 2025-01-08T00:00:00 2025-01-15T00:00:00"
        );
        let days = scheme(KeyKind::Timestamp, Interval::Days(10), "2025-03-01 06:00:00");
        assert_eq!(
            shown(days, "2025-03-01T05:59:59"),
            "_2025_02_19_060000 2025-02-19T06:00:00 2025-03-01T06:00:00"
        );
        let shifts = scheme(KeyKind::TimestampTz, Interval::Hours(8), "2025-01-01 06:00:00");
        assert_eq!(
            shown(shifts, "2025-06-01T05:00"),
            "_2025_05_31_22 2025-05-31T22:00:00 2025-06-01T06:00:00"
        );
    }

    #[test]
    fn fiscal_years_quarters_and_months_begin_where_the_origin_does() {
        let years = scheme(KeyKind::Timestamp, Interval::Months(12), "2020-04-01");
        assert_eq!(
            shown(years, "2025-03-31"),
            "_2024_04 2024-04-01T00:00:00 2025-04-01T00:00:00"
        );
        let quarters = scheme(KeyKind::Timestamp, Interval::Months(3), "2020-02-01");
        assert_eq!(
            shown(quarters, "2025-01-31"),
            "_2024_11 2024-11-01T00:00:00 2025-02-01T00:00:00"
        );
        let usual = scheme(KeyKind::Timestamp, Interval::Months(3), "2020-10-01");
        assert_eq!(
            shown(usual, "2025-01-31"),
            "_2025_q1 2025-01-01T00:00:00 2025-04-01T00:00:00"
        );
        let months = scheme(KeyKind::TimestampTz, Interval::Months(1), "2024-01-15");
        assert_eq!(
            shown(months, "2025-03-14T23:59"),
            "_2025_02_15 2025-02-15T00:00:00 2025-03-15T00:00:00"
        );
    }

    #[test]
    fn steps_begin_at_the_number_that_is_named() {
        let steps = scheme(KeyKind::Integer(IntegerSize::Big), Interval::Step(10), "3");
        let p = steps.partition(steps.slot(Point::Number(2))).unwrap();
        assert_eq!(
            (p.lower, p.upper),
            (Bound::Literal("-7".into()), Bound::Literal("3".into()))
        );
    }

    #[test]
    fn an_origin_that_partitions_cannot_begin_at_is_refused() {
        let refused = |key, interval, origin: &str| {
            matches!(
                Scheme::new(key, interval).unwrap().with_origin(origin),
                Err(BoundsError::BadOrigin { .. })
            )
        };
        assert!(refused(KeyKind::Timestamp, Interval::Months(1), "2025-01-31"));
        assert!(refused(KeyKind::Date, Interval::Days(10), "2025-01-01 06:00:00"));
        assert!(refused(
            KeyKind::TimestampTz,
            Interval::Days(1),
            "2025-01-01 06:00:00"
        ));
        assert!(refused(
            KeyKind::Timestamp,
            Interval::Days(1),
            "2025-01-01 06:30:00"
        ));
        assert!(refused(KeyKind::Timestamp, Interval::Days(1), "infinity"));
        assert!(refused(
            KeyKind::Integer(IntegerSize::Big),
            Interval::Step(10),
            "2025-01-01"
        ));
        assert!(!refused(
            KeyKind::TimestampTz,
            Interval::Hours(6),
            "2025-01-01 05:00:00"
        ));
    }

    proptest! {
        #[test]
        fn the_origin_begins_a_partition_and_partitions_meet(
            interval in prop::sample::select(vec![
                Interval::Days(1), Interval::Days(7), Interval::Days(10), Interval::Days(14), Interval::Hours(6),
                Interval::Months(1), Interval::Months(3), Interval::Months(12), Interval::Months(24)]),
            origin in (0i64..250_000, 0i64..24).prop_map(|(days, hours)| {
                let at = date(1600, 1, 1).at(0, 0, 0, 0).checked_add(SignedDuration::from_hours(days * 24 + hours)).unwrap();
                if at.day() > 28 { at.with().day(28).build().unwrap() } else { at }
            }),
            seconds in -3_000_000_000i64..3_000_000_000,
        ) {
            let s = scheme(KeyKind::Timestamp, interval, &format!("{} {}", origin.date(), origin.time()));
            prop_assert_eq!(s.floor(Point::Time(origin)), Edge::At(Point::Time(origin)));
            let at = Point::Time(EPOCH.checked_add(SignedDuration::from_secs(seconds)).unwrap());
            let slot = s.slot(at);
            let (p, next) = (s.partition(slot).unwrap(), s.partition(slot + 1).unwrap());
            prop_assert!(p.start <= Edge::At(at) && Edge::At(at) < p.end);
            prop_assert_eq!(p.end, next.start);
            prop_assert_ne!(p.suffix, next.suffix);
        }
    }
}
