use super::*;
use crate::bounds::{Bound, IntegerSize, Interval, KeyKind};

fn time(text: &str) -> Point {
    Point::Time(text.parse().unwrap())
}

fn monthly(premake: u32, cutoff: Option<&str>) -> Policy {
    let scheme = Scheme::new(KeyKind::Timestamp, Interval::Months(1)).unwrap();
    Policy {
        scheme,
        premake,
        cutoff: cutoff.map(time),
        count: None,
        at_least: 1,
    }
}

fn integers(premake: u32) -> Policy {
    let scheme = Scheme::new(KeyKind::Integer(IntegerSize::Big), Interval::Step(100)).unwrap();
    Policy {
        scheme,
        premake,
        cutoff: None,
        count: None,
        at_least: 1,
    }
}

/// Monthly partitions, named by their suffix.
fn months(starts: &[&str]) -> Vec<Existing> {
    let scheme = monthly(0, None).scheme;
    starts
        .iter()
        .map(|text| scheme.partition(scheme.slot(time(text))).unwrap())
        .map(|p| Existing {
            name: p.suffix,
            start: p.start,
            end: p.end,
            held: None,
        })
        .collect()
}

fn range(name: &str, start: &str, end: &str) -> Existing {
    Existing {
        name: name.into(),
        start: Edge::At(time(start)),
        end: Edge::At(time(end)),
        held: None,
    }
}

fn stray(at: &str, rows: i64) -> Stray {
    Stray {
        at: time(at),
        rows,
        example: at.into(),
    }
}

fn created(decisions: &Decisions) -> Vec<&str> {
    decisions
        .create
        .iter()
        .map(|c| c.partition.suffix.as_str())
        .collect()
}

#[test]
fn nothing_is_due_when_everything_is_there() {
    let state = State {
        partitions: months(&["2025-01-01", "2025-02-01", "2025-03-01"]),
        now: Some(time("2025-01-15")),
        newest: Some(time("2025-01-01")),
        ..State::default()
    };
    assert_eq!(decide(&monthly(2, None), &state).unwrap(), Decisions::default());
}

#[test]
fn premake_is_ahead_of_now_and_of_the_newest_row() {
    let mut state = State {
        partitions: months(&["2025-01-01"]),
        now: Some(time("2025-01-15")),
        ..State::default()
    };
    assert_eq!(
        created(&decide(&monthly(2, None), &state).unwrap()),
        ["_2025_02", "_2025_03"]
    );
    state.partitions = months(&["2025-01-01", "2025-02-01", "2025-03-01"]);
    state.newest = Some(time("2025-03-01"));
    assert_eq!(
        created(&decide(&monthly(2, None), &state).unwrap()),
        ["_2025_04", "_2025_05"]
    );
}

#[test]
fn downtime_is_caught_up_with_and_gaps_are_filled() {
    let state = State {
        partitions: months(&["2024-06-01", "2024-08-01"]),
        now: Some(time("2024-11-15")),
        newest: Some(time("2024-08-01")),
        ..State::default()
    };
    let decisions = decide(&monthly(1, None), &state).unwrap();
    assert_eq!(
        created(&decisions),
        ["_2024_11", "_2024_12", "_2024_07", "_2024_09", "_2024_10"]
    );
    assert_eq!(decisions.create[2].reason, Reason::Gap);
}

#[test]
fn gaps_past_retention_stay_empty() {
    let state = State {
        partitions: months(&["2023-01-01", "2024-06-01", "2024-08-01", "2024-09-01"]),
        now: Some(time("2024-09-15")),
        ..State::default()
    };
    let decisions = decide(&monthly(0, Some("2024-05-15")), &state).unwrap();
    assert_eq!(created(&decisions), ["_2024_05", "_2024_07"]);
    assert_eq!(decisions.retire, ["_2023_01"]);
}

#[test]
fn rows_in_the_default_get_their_partition_also_outside_of_the_window() {
    let state = State {
        partitions: months(&["2025-01-01"]),
        strays: vec![
            stray("2024-11-05", 3),
            stray("2024-11-06", 4),
            stray("2025-02-03", 1),
        ],
        now: Some(time("2025-01-15")),
        ..State::default()
    };
    let decisions = decide(&monthly(1, None), &state).unwrap();
    assert_eq!(
        created(&decisions),
        ["_2025_03", "_2024_11", "_2024_12", "_2025_02"]
    );
    assert_eq!(decisions.create[1].reason, Reason::RowsInDefault(7));
    assert_eq!(decisions.create[3].reason, Reason::RowsInDefault(1));
    assert!(decisions.skipped.is_empty());
}

#[test]
fn one_bad_date_stays_in_the_default_and_is_reported() {
    let state = State {
        partitions: months(&["2025-01-01"]),
        strays: vec![
            stray("2999-01-01", 1),
            stray("0019-05-01", 2),
            stray("2025-03-01", 5),
        ],
        now: Some(time("2025-01-15")),
        ..State::default()
    };
    let decisions = decide(&monthly(1, None), &state).unwrap();
    assert_eq!(created(&decisions), ["_2025_02", "_2025_04", "_2025_03"]);
    assert_eq!(decisions.skipped.len(), 1);
    assert_eq!(decisions.skipped[0].rows, Some(3));
    assert!(
        decisions.skipped[0]
            .reason
            .ends_with("keys such as 2999-01-01, 0019-05-01")
    );
}

#[test]
fn a_far_partition_made_by_hand_does_not_drag_premake_along() {
    let state = State {
        partitions: months(&["2025-01-01", "2999-01-01"]),
        now: Some(time("2025-01-15")),
        newest: Some(time("2999-01-01")),
        ..State::default()
    };
    let decisions = decide(&monthly(1, None), &state).unwrap();
    assert_eq!(created(&decisions), ["_2025_02"]);
    assert!(decisions.skipped.is_empty());
}

#[test]
fn many_rows_far_away_get_their_partitions_but_no_bridge() {
    let strays = vec![
        stray("2005-03-01", 60),
        stray("2005-05-01", 60),
        stray("1990-01-01", 1),
    ];
    let state = State {
        partitions: months(&["2025-01-01"]),
        strays,
        now: Some(time("2025-01-15")),
        ..State::default()
    };
    let decisions = decide(&monthly(0, None), &state).unwrap();
    assert_eq!(created(&decisions), ["_2005_03", "_2005_04", "_2005_05"]);
    assert_eq!(decisions.skipped.len(), 1);
    assert_eq!(decisions.skipped[0].rows, Some(1));
}

#[test]
fn unaligned_partitions_are_not_overlapped() {
    let state = State {
        partitions: vec![
            range("a", "2024-12-10", "2025-01-10"),
            range("b", "2025-02-20", "2025-03-05"),
        ],
        now: Some(time("2025-01-05")),
        ..State::default()
    };
    let decisions = decide(&monthly(2, None), &state).unwrap();
    assert_eq!(created(&decisions), ["_2025_01_10", "_2025_02", "_2025_03_05"]);
    let bounds: Vec<_> = decisions
        .create
        .iter()
        .map(|c| (c.partition.lower.clone(), c.partition.upper.clone()))
        .collect();
    let literal = |t: &str| Bound::Literal(t.into());
    assert_eq!(
        bounds[0],
        (literal("2025-01-10 00:00:00"), literal("2025-02-01 00:00:00"))
    );
    assert_eq!(
        bounds[1],
        (literal("2025-02-01 00:00:00"), literal("2025-02-20 00:00:00"))
    );
    assert_eq!(
        bounds[2],
        (literal("2025-03-05 00:00:00"), literal("2025-04-01 00:00:00"))
    );
}

#[test]
fn open_ended_partitions_leave_nothing_to_premake() {
    let open = |start, end| Existing {
        held: None,
        name: "x".into(),
        start,
        end,
    };
    let state = State {
        partitions: vec![
            open(Edge::Min, Edge::At(time("2025-01-01"))),
            open(Edge::At(time("2025-01-01")), Edge::Max),
        ],
        now: Some(time("2025-01-15")),
        ..State::default()
    };
    let decisions = decide(&monthly(3, Some("2024-01-01")), &state).unwrap();
    assert_eq!(decisions, Decisions::default());
}

#[test]
fn retention_takes_what_lies_wholly_before_the_cutoff_but_never_the_newest() {
    let mut state = State {
        partitions: months(&["2024-03-01", "2024-01-01", "2024-02-01"]),
        now: Some(time("2024-03-15")),
        ..State::default()
    };
    assert_eq!(
        decide(&monthly(0, Some("2024-02-29")), &state).unwrap().retire,
        ["_2024_01"]
    );
    assert_eq!(
        decide(&monthly(0, Some("2024-03-01")), &state).unwrap().retire,
        ["_2024_01", "_2024_02"]
    );
    assert_eq!(
        decide(&monthly(0, Some("2025-03-01")), &state).unwrap().retire,
        ["_2024_01", "_2024_02"]
    );
    state.partitions.truncate(1);
    assert!(
        decide(&monthly(0, Some("2025-03-01")), &state)
            .unwrap()
            .retire
            .is_empty()
    );
}

#[test]
fn retention_is_frozen_with_a_reason() {
    let state = State {
        partitions: months(&["2024-01-01", "2024-02-01"]),
        now: Some(time("2024-02-15")),
        frozen: Some("the pair is in phase \"copying\"".into()),
        ..State::default()
    };
    let decisions = decide(&monthly(0, Some("2024-02-02")), &state).unwrap();
    assert!(decisions.retire.is_empty());
    assert_eq!(decisions.skipped[0].partition.as_deref(), Some("_2024_01"));
    assert!(decisions.skipped[0].reason.contains("copying"));
}

#[test]
fn integers_are_premade_ahead_of_the_newest_row_only() {
    let existing = |n: i128| Existing {
        held: None,
        name: format!("_p{n}"),
        start: Edge::At(Point::Number(n)),
        end: Edge::At(Point::Number(n + 100)),
    };
    let mut state = State {
        partitions: vec![existing(0), existing(100)],
        ..State::default()
    };
    assert_eq!(decide(&integers(1), &state).unwrap(), Decisions::default());
    state.newest = Some(Point::Number(100));
    assert_eq!(
        created(&decide(&integers(2), &state).unwrap()),
        ["_p200", "_p300"]
    );
    assert_eq!(
        created(&decide(&integers(1), &State::default()).unwrap()),
        ["_p0", "_p100"]
    );
    state.strays = vec![Stray {
        at: Point::Number(-150),
        rows: 1,
        example: "-150".into(),
    }];
    assert_eq!(
        created(&decide(&integers(0), &state).unwrap()),
        ["_n200", "_n100"]
    );
}

#[test]
fn one_call_creates_no_more_than_the_limit() {
    let state = State {
        now: Some(time("2025-01-15")),
        ..State::default()
    };
    assert!(matches!(
        decide(&monthly(5000, None), &state),
        Err(BoundsError::TooMany { .. })
    ));
    let strays = (0..3000)
        .map(|n| Stray {
            at: Point::Number(n * 100),
            rows: 1,
            example: (n * 100).to_string(),
        })
        .collect();
    let decisions = decide(
        &integers(0),
        &State {
            strays,
            ..State::default()
        },
    )
    .unwrap();
    assert_eq!(decisions.create.len(), MAX_PARTITIONS);
    assert_eq!(decisions.skipped.len(), 1);
    assert_eq!(decisions.skipped[0].rows, Some(1000));
}

#[test]
fn an_integer_key_without_partitions_begins_where_the_rows_are() {
    let stray = |n: i128, rows| Stray {
        at: Point::Number(n),
        rows,
        example: n.to_string(),
    };
    let strays = vec![stray(7, 1), stray(5_000_000, 900), stray(5_000_100, 100)];
    let decisions = decide(
        &integers(1),
        &State {
            strays,
            ..State::default()
        },
    )
    .unwrap();
    assert_eq!(created(&decisions), ["_p5000200", "_p5000000", "_p5000100"]);
    assert_eq!(decisions.skipped[0].rows, Some(1));
}

#[test]
fn retention_by_number_counts_what_has_begun() {
    let state = State {
        partitions: months(&[
            "2024-01-01",
            "2024-02-01",
            "2024-03-01",
            "2024-04-01",
            "2024-05-01",
        ]),
        now: Some(time("2024-03-15")),
        ..State::default()
    };
    let by_number = |count, at_least, cutoff| {
        let policy = Policy {
            count,
            at_least,
            ..monthly(0, cutoff)
        };
        decide(&policy, &state).unwrap().retire
    };
    assert_eq!(by_number(Some(1), 1, None), ["_2024_01", "_2024_02"]);
    assert_eq!(by_number(Some(2), 1, None), ["_2024_01"]);
    assert_eq!(by_number(Some(3), 1, None), [""; 0]);
    assert_eq!(by_number(Some(9), 1, None), [""; 0]);
    // Whichever rule takes more; but never below the minimum.
    assert_eq!(
        by_number(Some(2), 1, Some("2024-03-01")),
        ["_2024_01", "_2024_02"]
    );
    assert_eq!(by_number(Some(1), 2, None), ["_2024_01"]);
    assert_eq!(by_number(None, 2, Some("2030-01-01")), ["_2024_01"]);
    assert_eq!(by_number(None, 4, Some("2030-01-01")), [""; 0]);
}

#[test]
fn integers_are_kept_by_number_up_to_the_newest_row() {
    let scheme = integers(0).scheme;
    let partition = |slot| scheme.partition(slot).unwrap();
    let state = State {
        partitions: (0..8)
            .map(partition)
            .map(|p| Existing {
                name: p.suffix,
                start: p.start,
                end: p.end,
                held: None,
            })
            .collect(),
        newest: Some(Point::Number(450)),
        ..State::default()
    };
    let policy = Policy {
        count: Some(3),
        ..integers(0)
    };
    assert_eq!(decide(&policy, &state).unwrap().retire, ["_p0", "_p100"]);
}

#[test]
fn a_held_partition_stays_and_the_gap_after_it_is_not_filled_again() {
    let mut partitions = months(&["2023-10-01", "2023-11-01", "2024-02-01", "2024-03-01"]);
    partitions[0].held = Some("case 7".into());
    let state = State {
        partitions,
        now: Some(time("2024-03-15")),
        ..State::default()
    };
    for policy in [
        monthly(0, Some("2024-02-01")),
        Policy {
            count: Some(2),
            ..monthly(0, None)
        },
    ] {
        let decisions = decide(&policy, &state).unwrap();
        assert_eq!(decisions.retire, ["_2023_11"]);
        assert_eq!(created(&decisions), [""; 0]);
        assert_eq!(decisions.skipped[0].reason, "it is held: case 7");
    }
}
