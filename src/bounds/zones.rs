//! Partitions of local days, weeks and months in sixty time zones over twenty years: in every zone each instant has one
//! partition. The server turns a local time into an instant; here jiff does, with the rule of the server: a time that clocks
//! skip is told by the offset before the change, one that comes twice by the offset after it.

use super::*;
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// Zones with every kind of change: at midnight, of half an hour, of a day, twice a year, never, and of the rule itself.
const ZONES: [&str; 60] = [
    "UTC",
    "Africa/Abidjan",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Johannesburg",
    "Africa/Juba",
    "Africa/Lagos",
    "Africa/Tripoli",
    "Africa/Windhoek",
    "America/Anchorage",
    "America/Argentina/San_Luis",
    "America/Asuncion",
    "America/Bogota",
    "America/Caracas",
    "America/Chicago",
    "America/Cuiaba",
    "America/Denver",
    "America/Godthab",
    "America/Halifax",
    "America/Havana",
    "America/Los_Angeles",
    "America/Mexico_City",
    "America/Miquelon",
    "America/Montevideo",
    "America/New_York",
    "America/Port-au-Prince",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "Asia/Amman",
    "Asia/Baghdad",
    "Asia/Beirut",
    "Asia/Damascus",
    "Asia/Dhaka",
    "Asia/Gaza",
    "Asia/Hong_Kong",
    "Asia/Jerusalem",
    "Asia/Karachi",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Asia/Ulaanbaatar",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/London",
    "Europe/Moscow",
    "Europe/Vienna",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Fiji",
    "Pacific/Kiritimati",
];

/// What `timezone(zone, local)` gives.
fn instant(zone: &TimeZone, local: DateTime) -> Timestamp {
    let offset = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset,
        AmbiguousOffset::Gap { before, .. } => before,
        AmbiguousOffset::Fold { after, .. } => after,
    };
    offset.to_timestamp(local).expect("a time of our age")
}

fn local(edge: Edge) -> DateTime {
    match edge {
        Edge::At(Point::Time(at)) => at,
        other => panic!("{other:?} is no time"),
    }
}

/// Walks over twenty years of partitions in one zone; gives how many there are.
fn walk(scheme: &Scheme, zone: &TimeZone, name: &str) -> usize {
    let (first, last) = (
        scheme.slot(Point::Time(date(2006, 1, 1).at(0, 0, 0, 0))),
        scheme.slot(Point::Time(date(2026, 1, 1).at(0, 0, 0, 0))),
    );
    let mut names = std::collections::HashSet::new();
    let mut previous: Option<RangePartition> = None;
    for slot in first..last {
        let partition = scheme.partition(slot).expect("a partition of our age");
        assert!(matches!(partition.lower, Bound::LocalTime(_)), "{name}");
        assert!(
            names.insert(partition.suffix.clone()),
            "{name}: {} twice",
            partition.suffix
        );
        if let Some(previous) = &previous {
            assert_eq!(previous.end, partition.start, "{name}");
            assert_eq!(previous.upper, partition.lower, "{name}");
        }
        let (start, end) = (local(partition.start), local(partition.end));
        assert_eq!(start.time(), jiff::civil::Time::midnight(), "{name}: no drift");
        let (from, to) = (instant(zone, start), instant(zone, end));
        assert!(from <= to, "{name}: {} runs backwards", partition.suffix);
        // Near both ends and in the middle the clock shows this slot, whatever it did meanwhile.
        let (near, middle) = (SignedDuration::from_secs(3_599), to.duration_since(from) / 2);
        for at in [from, from + near, from + middle, to - near]
            .into_iter()
            .filter(|at| (from..to).contains(at))
        {
            let clock = zone.to_datetime(at);
            let seen = scheme.slot(Point::Time(clock));
            // Clocks that go back over midnight show the same hour on both sides of a bound.
            let again = zone.to_ambiguous_timestamp(clock).is_ambiguous();
            assert!(
                seen == slot || again,
                "{name}: {at} is {clock} there, in slot {seen}, not {slot}"
            );
        }
        previous = Some(partition);
    }
    names.len()
}

#[test]
fn sixty_zones_have_no_gap_no_overlap_and_no_drift_in_twenty_years() {
    for (interval, expected) in [
        (Interval::Days(1), 7_305),
        (Interval::Days(7), 1_043),
        (Interval::Months(1), 240),
    ] {
        let scheme = Scheme::new(KeyKind::TimestampTz, interval).expect("they fit");
        for name in ZONES {
            let zone = TimeZone::get(name).expect("a zone of the database");
            assert!(
                walk(&scheme, &zone, name).abs_diff(expected) <= 1,
                "{name}, {interval}"
            );
        }
    }
}

#[test]
fn a_day_that_a_zone_skipped_has_an_empty_range_and_its_neighbours_meet() {
    let scheme = Scheme::new(KeyKind::TimestampTz, Interval::Days(1)).expect("they fit");
    let zone = TimeZone::get("Pacific/Apia").expect("a zone of the database");
    let slot = scheme.slot(Point::Time(date(2011, 12, 30).at(0, 0, 0, 0)));
    let partition = scheme.partition(slot).expect("a partition of our age");
    assert_eq!(partition.suffix, "_2011_12_30");
    let ends = [partition.start, partition.end].map(|edge| instant(&zone, local(edge)));
    assert_eq!(ends[0], ends[1]);
}
