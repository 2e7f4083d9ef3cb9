use super::*;
use proptest::prelude::*;

impl Scheme {
    /// The partition that holds a value.
    fn partition_of(&self, point: Point) -> Result<RangePartition, BoundsError> {
        self.partition(self.slot(point))
    }
}

fn time(text: &str) -> Point {
    Point::Time(text.parse().unwrap())
}

fn scheme(key: KeyKind, interval: Interval) -> Scheme {
    Scheme::new(key, interval).unwrap()
}

fn months(n: u32) -> Scheme {
    scheme(KeyKind::Timestamp, Interval::Months(n))
}

fn integers(step: i64) -> Scheme {
    scheme(KeyKind::Integer(IntegerSize::Big), Interval::Step(step))
}

/// Suffix and bounds of the partition that holds a value, in one line.
fn shown(scheme: Scheme, point: Point) -> String {
    let p = scheme.partition(scheme.slot(point)).unwrap();
    let text = |b: &Bound| match b {
        Bound::MinValue => "MINVALUE".to_string(),
        Bound::MaxValue => "MAXVALUE".to_string(),
        Bound::Literal(text) => text.clone(),
        Bound::LocalTime(text) => format!("{text} local"),
    };
    format!("{} {} .. {}", p.suffix, text(&p.lower), text(&p.upper))
}

#[test]
fn months_end_where_the_next_begins() {
    let s = months(1);
    assert_eq!(
        shown(s, time("2025-01-31T23:59:59.999999")),
        "_2025_01 2025-01-01 00:00:00 .. 2025-02-01 00:00:00"
    );
    assert_eq!(
        shown(s, time("2024-02-29")),
        "_2024_02 2024-02-01 00:00:00 .. 2024-03-01 00:00:00"
    );
    assert_eq!(
        shown(s, time("2024-12-31")),
        "_2024_12 2024-12-01 00:00:00 .. 2025-01-01 00:00:00"
    );
}

#[test]
fn quarters_halves_years_and_decades() {
    assert_eq!(
        shown(months(3), time("2025-03-31")),
        "_2025_q1 2025-01-01 00:00:00 .. 2025-04-01 00:00:00"
    );
    assert_eq!(
        shown(months(3), time("2025-10-01")),
        "_2025_q4 2025-10-01 00:00:00 .. 2026-01-01 00:00:00"
    );
    assert_eq!(
        shown(months(6), time("2025-12-31")),
        "_2025_07 2025-07-01 00:00:00 .. 2026-01-01 00:00:00"
    );
    assert_eq!(
        shown(months(12), time("2024-02-29")),
        "_2024 2024-01-01 00:00:00 .. 2025-01-01 00:00:00"
    );
    assert_eq!(
        shown(months(120), time("2025-06-01")),
        "_2020 2020-01-01 00:00:00 .. 2030-01-01 00:00:00"
    );
}

#[test]
fn days_know_leap_years() {
    let s = scheme(KeyKind::Date, Interval::Days(1));
    assert_eq!(
        shown(s, time("2024-02-29")),
        "_2024_02_29 2024-02-29 .. 2024-03-01"
    );
    assert_eq!(
        shown(s, time("2025-02-28")),
        "_2025_02_28 2025-02-28 .. 2025-03-01"
    );
    assert_eq!(
        shown(s, time("1900-02-28")),
        "_1900_02_28 1900-02-28 .. 1900-03-01"
    );
    assert_eq!(
        shown(s, time("1969-12-31")),
        "_1969_12_31 1969-12-31 .. 1970-01-01"
    );
}

#[test]
fn weeks_are_iso_weeks_over_year_ends() {
    let s = scheme(KeyKind::Date, Interval::Days(7));
    assert_eq!(shown(s, time("2025-01-31")), "_2025_w05 2025-01-27 .. 2025-02-03");
    assert_eq!(shown(s, time("2024-12-30")), "_2025_w01 2024-12-30 .. 2025-01-06");
    assert_eq!(shown(s, time("2021-01-03")), "_2020_w53 2020-12-28 .. 2021-01-04");
    assert_eq!(shown(s, time("1969-12-29")), "_1970_w01 1969-12-29 .. 1970-01-05");
}

#[test]
fn hours_of_instants_are_utc_and_days_are_local() {
    let hour = scheme(KeyKind::TimestampTz, Interval::Hours(1));
    assert_eq!(
        shown(hour, time("2025-01-31T13:59")),
        "_2025_01_31_13 2025-01-31 13:00:00+00 .. 2025-01-31 14:00:00+00"
    );
    let day = scheme(KeyKind::TimestampTz, Interval::Days(1));
    assert_eq!(
        shown(day, time("2025-01-31T13:59")),
        "_2025_01_31 2025-01-31 00:00:00 local .. 2025-02-01 00:00:00 local"
    );
    let six = scheme(KeyKind::Timestamp, Interval::Hours(6));
    assert_eq!(
        shown(six, time("1969-12-31T23:00")),
        "_1969_12_31_18 1969-12-31 18:00:00 .. 1970-01-01 00:00:00"
    );
}

#[test]
fn integers_below_zero_have_names_of_their_own() {
    let s = integers(1_000_000);
    assert_eq!(shown(s, Point::Number(0)), "_p0 0 .. 1000000");
    assert_eq!(shown(s, Point::Number(999_999)), "_p0 0 .. 1000000");
    assert_eq!(shown(s, Point::Number(-1)), "_n1000000 -1000000 .. 0");
    assert_eq!(
        shown(s, Point::Number(-1_000_001)),
        "_n2000000 -2000000 .. -1000000"
    );
    assert_eq!(shown(s, Point::Number(1_000_000)), "_p1000000 1000000 .. 2000000");
}

#[test]
fn integers_at_the_ends_of_their_type_become_minvalue_and_maxvalue() {
    let s = integers(1_000_000);
    assert_eq!(
        shown(s, Point::Number(i64::MAX.into())),
        "_p9223372036854000000 9223372036854000000 .. MAXVALUE"
    );
    assert_eq!(
        shown(s, Point::Number(i64::MIN.into())),
        "_n9223372036855000000 MINVALUE .. -9223372036854000000"
    );
    assert_eq!(
        shown(integers(i64::MAX), Point::Number(-5)),
        "_n9223372036854775807 -9223372036854775807 .. 0"
    );
    let small = scheme(KeyKind::Integer(IntegerSize::Small), Interval::Step(10_000));
    assert_eq!(shown(small, Point::Number(32_767)), "_p30000 30000 .. MAXVALUE");
}

#[test]
fn premake_stops_where_the_type_ends() {
    let s = scheme(
        KeyKind::Integer(IntegerSize::Normal),
        Interval::Step(1_000_000_000),
    );
    let data = Some((Point::Number(0), Point::Number(2_000_000_001)));
    let suffixes: Vec<_> = s
        .range_covering(data, None, 3, 100)
        .unwrap()
        .into_iter()
        .map(|p| p.suffix)
        .collect();
    assert_eq!(suffixes, ["_p0", "_p1000000000", "_p2000000000"]);
    let end = months(1)
        .range_covering(None, Some(time("9999-11-15")), 5, 100)
        .unwrap();
    assert_eq!(
        end.iter().map(|p| p.suffix.as_str()).collect::<Vec<_>>(),
        ["_9999_11", "_9999_12"]
    );
    assert_eq!(end[1].upper, Bound::MaxValue);
}

#[test]
fn epochs_and_uuids_are_cut_by_utc_calendar() {
    let seconds = scheme(
        KeyKind::Epoch(EpochUnit::Seconds, IntegerSize::Big),
        Interval::Months(1),
    );
    let at = seconds.edge("1735689599").unwrap();
    assert_eq!(at, Edge::At(time("2024-12-31T23:59:59")));
    assert_eq!(
        shown(seconds, time("2024-12-31T23:59:59")),
        "_2024_12 1733011200 .. 1735689600"
    );
    let int4 = scheme(
        KeyKind::Epoch(EpochUnit::Seconds, IntegerSize::Normal),
        Interval::Months(1),
    );
    assert_eq!(shown(int4, time("2038-01-10")), "_2038_01 2145916800 .. MAXVALUE");
    let uuid = scheme(KeyKind::UuidV7, Interval::Days(1));
    let Edge::At(at) = uuid.edge("01941f29-7c00-7abc-8def-0123456789ab").unwrap() else {
        panic!()
    };
    assert_eq!(at, time("2025-01-01T00:00:00"));
    assert_eq!(
        shown(uuid, at),
        "_2025_01_01 01941f29-7c00-0000-0000-000000000000 .. 0194244f-d800-0000-0000-000000000000"
    );
}

#[test]
fn epoch_units_are_told_by_size() {
    assert_eq!(EpochUnit::guess(1_735_689_600), Some(EpochUnit::Seconds));
    assert_eq!(EpochUnit::guess(1_735_689_600_000), Some(EpochUnit::Milliseconds));
    assert_eq!(
        EpochUnit::guess(1_735_689_600_000_000),
        Some(EpochUnit::Microseconds)
    );
    assert_eq!(EpochUnit::guess(42), None);
}

#[test]
fn intervals_that_cannot_be_aligned_are_refused() {
    let hour = 3_600_000_000;
    let ok = |m, d, u| Interval::from_parts("x", m, d, u).unwrap();
    assert_eq!(ok(1, 0, 0), Interval::Months(1));
    assert_eq!(ok(24, 0, 0), Interval::Months(24));
    assert_eq!(ok(0, 7, 0), Interval::Days(7));
    assert_eq!(ok(0, 0, 6 * hour), Interval::Hours(6));
    assert_eq!(ok(0, 0, 48 * hour), Interval::Days(2));
    for (m, d, u) in [
        (0, 0, 0),
        (-1, 0, 0),
        (0, -1, 0),
        (0, 0, -hour),
        (1, 1, 0),
        (0, 1, hour),
        (5, 0, 0),
        (18, 0, 0),
    ] {
        assert!(Interval::from_parts("x", m, d, u).is_err(), "{m} {d} {u}");
    }
    for micros in [1, hour / 2, 5 * hour, 36 * hour, i64::MAX] {
        assert!(Interval::from_parts("x", 0, 0, micros).is_err(), "{micros}");
    }
    for (months, days) in [(i32::MAX, 0), (0, i32::MAX), (i32::MIN, 0)] {
        assert!(Interval::from_parts("x", months, days, 0).is_err());
    }
    assert_eq!(Interval::from_step(" 1000 "), Ok(Interval::Step(1000)));
    for text in ["0", "-5", "", "1.5", "abc", "9223372036854775808"] {
        assert!(Interval::from_step(text).is_err(), "{text}");
    }
    let message = Interval::from_parts("5 hours", 0, 0, 5 * hour)
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "invalid partition interval \"5 hours\": its hours do not divide a day"
    );
}

#[test]
fn an_interval_must_fit_the_key() {
    assert!(Scheme::new(KeyKind::Date, Interval::Hours(1)).is_err());
    assert!(Scheme::new(KeyKind::Integer(IntegerSize::Big), Interval::Months(1)).is_err());
    assert!(Scheme::new(KeyKind::Timestamp, Interval::Step(10)).is_err());
    assert!(Scheme::new(KeyKind::UuidV7, Interval::Hours(1)).is_ok());
}

#[test]
fn covers_data_now_and_premake_ahead_of_the_newer() {
    let s = months(1);
    let names = |data, now| -> Vec<String> {
        s.range_covering(data, now, 2, 100)
            .unwrap()
            .into_iter()
            .map(|p| p.suffix)
            .collect()
    };
    let data = Some((time("2024-11-15"), time("2024-12-15")));
    let expected = ["_2024_11", "_2024_12", "_2025_01", "_2025_02", "_2025_03"];
    assert_eq!(names(data, Some(time("2025-01-10"))), expected);
    assert_eq!(names(data, None), expected[..4]);
    assert_eq!(names(None, Some(time("2025-01-31T23:59:59"))), expected[2..]);
    assert_eq!(names(None, None), [""; 0]);
    let future = Some((time("2025-03-01"), time("2025-03-01")));
    assert_eq!(
        names(future, Some(time("2025-03-01"))),
        ["_2025_03", "_2025_04", "_2025_05"]
    );
}

#[test]
fn one_bad_value_is_named_instead_of_making_thousands() {
    let s = months(1);
    let now = Some(time("2025-01-10"));
    let error = s
        .range_covering(
            Some((time("2024-01-01"), time("2999-01-01"))),
            now,
            3,
            MAX_PARTITIONS,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "value 2999-01-01 00:00:00 of the partition key needs 11704 partitions, more than 2000"
    );
    let error = s
        .range_covering(
            Some((time("0019-01-01"), time("2024-01-01"))),
            now,
            3,
            MAX_PARTITIONS,
        )
        .unwrap_err();
    assert!(error.to_string().contains("0019-01-01"), "{error}");
    let ends = Some((Point::Number(i64::MIN.into()), Point::Number(i64::MAX.into())));
    assert!(matches!(
        integers(1).range_covering(ends, None, 3, 2000),
        Err(BoundsError::TooMany { .. })
    ));
}

#[test]
fn what_the_server_prints_is_read_back() {
    let s = scheme(KeyKind::TimestampTz, Interval::Days(1));
    let local = |text: &str| s.edge(text).unwrap();
    assert_eq!(local("2025-01-01 00:00:00+05:30"), Edge::At(time("2025-01-01")));
    assert_eq!(
        local("2025-01-01 12:30:00.25-03"),
        Edge::At(time("2025-01-01T12:30:00.25"))
    );
    assert_eq!(local("infinity"), Edge::Max);
    assert_eq!(local("-infinity"), Edge::Min);
    assert_eq!(local("0044-03-15 00:00:00+00 BC"), Edge::Min);
    assert_eq!(local("12025-01-01 00:00:00+00"), Edge::Max);
    assert!(s.edge("yesterday").is_err());
    assert!(s.edge("").is_err());
    assert_eq!(
        months(1).edge("2025-01-01").unwrap(),
        Edge::At(time("2025-01-01"))
    );
    assert!(integers(5).edge("1e3").is_err());
    assert!(
        scheme(KeyKind::UuidV7, Interval::Days(1))
            .edge("zz941f29-7c00-7abc")
            .is_err()
    );
}

#[test]
fn bounds_clauses_are_read_back() {
    let value = |t: &str| RawBound::Value(t.into());
    assert_eq!(
        range_bounds("FOR VALUES FROM ('2025-01-01 00:00:00') TO ('2025-02-01 00:00:00')"),
        Some((value("2025-01-01 00:00:00"), value("2025-02-01 00:00:00")))
    );
    assert_eq!(
        range_bounds("FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"),
        Some((RawBound::MinValue, RawBound::MaxValue))
    );
    assert_eq!(
        range_bounds("FOR VALUES FROM (10) TO (20)"),
        Some((value("10"), value("20")))
    );
    assert_eq!(
        range_bounds("FOR VALUES FROM ('-10') TO (0)"),
        Some((value("-10"), value("0")))
    );
    assert_eq!(range_bounds("DEFAULT"), None);
    assert_eq!(range_bounds("FOR VALUES WITH (modulus 16, remainder 0)"), None);
    assert_eq!(
        range_bounds("FOR VALUES FROM (1, 2) TO (3, 4)"),
        Some((value("1, 2"), value("3, 4")))
    );
}

#[test]
fn pieces_beside_unaligned_partitions_have_names_of_their_own() {
    let s = months(1);
    let piece = s
        .piece(Edge::At(time("2025-01-15")), Edge::At(time("2025-02-01")))
        .unwrap();
    assert_eq!(piece.suffix, "_2025_01_15");
    let piece = s
        .piece(
            Edge::At(time("2025-01-15T08:30:00")),
            Edge::At(time("2025-02-01")),
        )
        .unwrap();
    assert_eq!(piece.suffix, "_2025_01_15_083000");
    let week = scheme(KeyKind::Date, Interval::Days(7));
    let piece = week
        .piece(Edge::At(time("2025-01-29")), Edge::At(time("2025-02-03")))
        .unwrap();
    assert_eq!(piece.suffix, "_2025_01_29");
    assert!(
        s.piece(Edge::At(time("2025-02-01")), Edge::At(time("2025-02-01")))
            .is_err()
    );
    assert!(s.piece(Edge::Min, Edge::At(time("2025-02-01"))).is_err());
}

#[test]
fn suffixes_are_no_longer_than_promised() {
    for interval in [
        Interval::Hours(1),
        Interval::Days(1),
        Interval::Days(14),
        Interval::Months(1),
        Interval::Months(3),
    ] {
        let p = scheme(KeyKind::Timestamp, interval)
            .partition_of(time("9999-01-31"))
            .unwrap();
        assert!(p.suffix.len() <= interval.longest_suffix(), "{}", p.suffix);
    }
    let p = integers(1_000_000)
        .partition_of(Point::Number(i64::MIN.into()))
        .unwrap();
    assert!(p.suffix.len() <= Interval::Step(1_000_000).longest_suffix());
}

fn any_time() -> impl Strategy<Value = Point> {
    // 0002-01-01 to 9998-12-31: partitions of up to a year lie within the years that have partitions.
    (-62_104_060_800i64..253_370_764_800)
        .prop_map(|s| Point::Time(EPOCH.checked_add(SignedDuration::from_secs(s)).unwrap()))
}

fn any_interval() -> impl Strategy<Value = Interval> {
    prop_oneof![
        prop::sample::select(vec![1u32, 2, 3, 4, 6, 8, 12]).prop_map(Interval::Hours),
        (1u32..400).prop_map(Interval::Days),
        prop::sample::select(vec![1u32, 2, 3, 4, 6, 12]).prop_map(Interval::Months),
    ]
}

fn any_key() -> impl Strategy<Value = KeyKind> {
    prop::sample::select(vec![KeyKind::Timestamp, KeyKind::TimestampTz])
}

proptest! {
    #[test]
    fn a_partition_holds_its_value(at in any_time(), interval in any_interval(), key in any_key()) {
        let p = scheme(key, interval).partition_of(at).unwrap();
        prop_assert!(p.start <= Edge::At(at) && Edge::At(at) < p.end);
    }

    #[test]
    fn neighbours_leave_no_gap_and_no_overlap(at in any_time(), interval in any_interval(), premake in 0u32..60) {
        let s = scheme(KeyKind::Timestamp, interval);
        let partitions = s.range_covering(Some((at, at)), None, premake, MAX_PARTITIONS).unwrap();
        prop_assert!(!partitions.is_empty());
        for pair in partitions.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
            prop_assert_eq!(&pair[0].upper, &pair[1].lower);
            prop_assert_ne!(&pair[0].suffix, &pair[1].suffix);
        }
    }

    #[test]
    fn names_are_unique_and_bounds_are_read_back(slot in -20_000i128..20_000, n in 1i128..500, interval in any_interval()) {
        let s = scheme(KeyKind::Timestamp, interval);
        let base = s.slot(Point::Time(date(2000, 1, 1).at(0, 0, 0, 0)));
        if let (Ok(a), Ok(b)) = (s.partition(base + slot), s.partition(base + slot + n)) {
            prop_assert_ne!(&a.suffix, &b.suffix);
            if let Bound::Literal(text) = &a.lower {
                prop_assert_eq!(s.edge(text).unwrap(), a.start);
            }
        }
    }

    #[test]
    fn slots_and_starts_are_inverse(at in any_time(), interval in any_interval()) {
        let s = scheme(KeyKind::Timestamp, interval);
        let slot = s.slot(at);
        if let Edge::At(start) = s.slot_start(slot) {
            prop_assert_eq!(s.slot(start), slot);
            prop_assert!(start <= at);
        }
        prop_assert!(s.next(at) > Edge::At(at));
    }

    #[test]
    fn integers_leave_no_gap_and_no_overlap(value: i64, step in 1..=i64::MAX) {
        let s = integers(step);
        let value = Point::Number(value.into());
        let p = s.partition(s.slot(value)).unwrap();
        prop_assert!(p.start <= Edge::At(value) && Edge::At(value) < p.end);
        let slot = s.slot(value);
        if let Ok(next) = s.partition(slot + 1) {
            prop_assert_eq!(&p.upper, &next.lower);
            prop_assert_ne!(&p.suffix, &next.suffix);
        } else {
            prop_assert_eq!(&p.upper, &Bound::MaxValue);
        }
    }

    #[test]
    fn epochs_are_read_back(at in any_time(), unit in prop::sample::select(vec![
        EpochUnit::Seconds, EpochUnit::Milliseconds, EpochUnit::Microseconds])) {
        let s = scheme(KeyKind::Epoch(unit, IntegerSize::Big), Interval::Months(1));
        let p = s.partition(s.slot(at)).unwrap();
        let Bound::Literal(lower) = &p.lower else { panic!("{:?}", p.lower) };
        prop_assert_eq!(s.edge(lower).unwrap(), p.start);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        for key in [KeyKind::Timestamp, KeyKind::UuidV7] {
            let _ = scheme(key, Interval::Days(1)).edge(&text);
        }
        let _ = integers(3).edge(&text);
        let _ = range_bounds(&text);
        let _ = Interval::from_step(&text);
    }
}
