//! Which calls and stages there are, and how long the rest will take: no server in it.

/// Calls that may take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Backfill,
    Verify,
    Mismatches,
    Repair,
    Maintenance,
    Archive,
    CreateIndex,
    Unpartition,
}

impl Call {
    const ALL: [Call; 8] = [
        Call::Backfill,
        Call::Verify,
        Call::Mismatches,
        Call::Repair,
        Call::Maintenance,
        Call::Archive,
        Call::CreateIndex,
        Call::Unpartition,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Call::Backfill => "backfill",
            Call::Verify => "verify",
            Call::Mismatches => "mismatches",
            Call::Repair => "repair",
            Call::Maintenance => "run_maintenance",
            Call::Archive => "archive",
            Call::CreateIndex => "create_index",
            Call::Unpartition => "unpartition",
        }
    }

    pub fn from_number(number: u8) -> Option<Call> {
        Call::ALL.into_iter().find(|call| *call as u8 == number)
    }
}

/// What is counted in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Rows,
    Blocks,
    Partitions,
    Keys,
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Rows => "rows",
            Unit::Blocks => "blocks",
            Unit::Partitions => "partitions",
            Unit::Keys => "keys",
        }
    }
}

/// What a call is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Copy,
    Index,
    Drain,
    Flip,
    Finish,
    Read,
    Compare,
    Mend,
    Write,
    ReadBack,
}

impl Stage {
    const ALL: [Stage; 10] = [
        Stage::Copy,
        Stage::Index,
        Stage::Drain,
        Stage::Flip,
        Stage::Finish,
        Stage::Read,
        Stage::Compare,
        Stage::Mend,
        Stage::Write,
        Stage::ReadBack,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Copy => "copy",
            Stage::Index => "index",
            Stage::Drain => "drain",
            Stage::Flip => "flip",
            Stage::Finish => "finish",
            Stage::Read => "read",
            Stage::Compare => "compare",
            Stage::Mend => "mend",
            Stage::Write => "write",
            Stage::ReadBack => "read back",
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Stage::Copy | Stage::Read | Stage::Compare => Unit::Blocks,
            Stage::Index | Stage::Finish => Unit::Partitions,
            Stage::Drain | Stage::Flip => Unit::Keys,
            Stage::Mend | Stage::Write | Stage::ReadBack => Unit::Rows,
        }
    }

    pub fn from_number(number: u8) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| *stage as u8 == number)
    }
}

/// Units a second: `done` of them in so many microseconds.
pub fn rate(done: u64, microseconds: i64) -> Option<f64> {
    (done > 0 && microseconds > 0).then(|| done as f64 * 1e6 / microseconds as f64)
}

/// Seconds that the rest will take if it goes on as it went.
pub fn eta(done: u64, total: u64, rate: Option<f64>) -> Option<f64> {
    rate.filter(|_| total >= done && total > 0)
        .map(|rate| (total - done) as f64 / rate)
}

/// Seconds as people say them: `40 s left`, `12 min left`, `3 h 5 min left`.
pub fn left(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        _ if seconds < 90.0 => format!("about {} s left", seconds.ceil() as u64),
        _ if minutes < 90 => format!("about {minutes} min left"),
        _ => format!("about {} h {} min left", minutes / 60, minutes % 60),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        let rate = rate(250, 10_000_000);
        assert_eq!(rate, Some(25.0));
        assert_eq!(eta(250, 1_000, rate), Some(30.0));
        assert_eq!(eta(1_000, 1_000, rate), Some(0.0));
        assert_eq!(eta(250, 0, rate), None, "nobody knows how much there is");
        assert_eq!(eta(250, 200, rate), None, "there is more than was thought");
        assert_eq!(super::rate(0, 10_000_000), None);
        assert_eq!(super::rate(5, 0), None);
    }

    #[test]
    fn time_left_is_said_as_people_say_it() {
        for (seconds, text) in [
            (0.2, "about 1 s left"),
            (89.0, "about 89 s left"),
            (90.0, "about 2 min left"),
            (3_600.0, "about 60 min left"),
            (11_100.0, "about 3 h 5 min left"),
        ] {
            assert_eq!(left(seconds), text);
        }
    }

    #[test]
    fn each_call_and_stage_comes_back_from_its_number() {
        for call in Call::ALL {
            assert_eq!(Call::from_number(call as u8), Some(call));
        }
        for stage in Stage::ALL {
            assert_eq!(Stage::from_number(stage as u8), Some(stage));
        }
        assert_eq!(Call::from_number(200), None);
        assert_eq!(Stage::from_number(200), None);
    }
}
