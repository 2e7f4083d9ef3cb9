//! Times and intervals.

use super::{Shape, column};

pub const TIMES: Shape = Shape {
    table: "times",
    same_type: Some(["ts", "later"]),
    columns: &[
        column(
            "d",
            "date",
            "date '2026-01-01' + g::int",
            &[
                ("a day", "d + 1"),
                ("a date against infinity", "'infinity'"),
                ("years before Christ", "(d::text || ' BC')::date"),
            ],
        ),
        column(
            "t",
            "time",
            "time '12:00' + g * interval '1 second'",
            &[("one microsecond of time", "t + interval '1 microsecond'")],
        ),
        column(
            "midnight",
            "time",
            "'00:00'",
            &[("24:00 against 00:00", "'24:00'")],
        ),
        column(
            "tz",
            "timetz",
            "timetz '12:00+02'",
            &[
                ("the zone of the same instant", "timetz '11:00+01'"),
                ("one microsecond of timetz", "tz + interval '1 microsecond'"),
                ("a second of the zone", "timetz '12:00+02:00:01'"),
            ],
        ),
        column(
            "ts",
            "timestamp",
            "timestamp '2026-01-01' + g * interval '1 day'",
            &[
                ("one microsecond", "ts + interval '1 microsecond'"),
                ("the infinity of time", "'-infinity'"),
                ("a millennium", "ts - interval '1000 years'"),
            ],
        ),
        column(
            "later",
            "timestamp",
            "timestamp '2027-01-01' + g * interval '1 day'",
            &[],
        ),
        column(
            "tstz",
            "timestamptz",
            "timestamptz '2026-01-01 UTC' + g * interval '1 day'",
            &[
                (
                    "one microsecond of timestamptz",
                    "tstz - interval '1 microsecond'",
                ),
                ("an hour of DST", "tstz + interval '1 hour'"),
                ("a time against NULL", "NULL"),
            ],
        ),
        column(
            "forever",
            "timestamptz",
            "'infinity'",
            &[("infinity against minus infinity", "'-infinity'")],
        ),
        column(
            "month",
            "interval",
            "'1 month'",
            &[
                ("30 days for a month", "'30 days'"),
                ("720 hours for a month", "'720 hours'"),
            ],
        ),
        column(
            "day",
            "interval",
            "'1 day'",
            &[
                ("24 hours for a day", "'24 hours'"),
                ("a day that is two", "'2 days -24 hours'"),
                ("one microsecond of interval", "day + interval '1 microsecond'"),
            ],
        ),
        column(
            "zero",
            "interval",
            "'0'",
            &[("a zero of two parts", "'1 month -30 days'")],
        ),
        column(
            "r",
            "tstzrange",
            "tstzrange(timestamptz '2026-01-01 UTC', timestamptz '2026-01-01 UTC' + g * interval '1 hour')",
            &[
                (
                    "the bound of a range of time",
                    "tstzrange(lower(r), upper(r), '[]')",
                ),
                ("no bound for infinity", "tstzrange(lower(r), NULL)"),
                ("infinity for no bound", "tstzrange(lower(r), 'infinity')"),
            ],
        ),
        column(
            "ds",
            "date[]",
            "ARRAY[date '2026-01-01' + g::int, NULL]",
            &[("a day in an array", "ARRAY[ds[1] + 1, NULL]")],
        ),
    ],
};
