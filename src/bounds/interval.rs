//! How long a partition is. The server has read the text as its type `interval`; what is left is to find the one unit
//! that it is counted in.

use super::BoundsError;
use std::fmt;

/// Months are aligned to the year, days to the epoch, multiples of seven days to ISO weeks (Monday), hours to the day,
/// steps to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interval {
    Hours(u32),
    Days(u32),
    Months(u32),
    Step(i64),
}

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const LONGEST_YEARS: u32 = 1_000;
const LONGEST_DAYS: u32 = 366_000;

impl Interval {
    /// From the three fields of an `interval`. `text` is what the user wrote, for the message.
    pub fn from_parts(text: &str, months: i32, days: i32, micros: i64) -> Result<Self, BoundsError> {
        let bad = |reason| {
            Err(BoundsError::BadInterval {
                interval: text.into(),
                reason,
            })
        };
        if months < 0 || days < 0 || micros < 0 {
            return bad("it is negative");
        }
        match (months.unsigned_abs(), days.unsigned_abs(), micros) {
            (0, 0, 0) => bad("it is zero"),
            (months, 0, 0) if months % 12 == 0 && months > LONGEST_YEARS * 12 => {
                bad("it is longer than 1000 years")
            }
            (months, 0, 0) if months % 12 == 0 || 12 % months == 0 => Ok(Self::Months(months)),
            (_, 0, 0) => bad("its months do not divide a year"),
            (0, days, 0) if days > LONGEST_DAYS => bad("it is longer than 1000 years"),
            (0, days, 0) => Ok(Self::Days(days)),
            (0, 0, micros) if micros % MICROS_PER_HOUR != 0 => bad("it is not a whole number of hours"),
            (0, 0, micros) => match u32::try_from(micros / MICROS_PER_HOUR) {
                Ok(hours) if hours % 24 == 0 && hours / 24 <= LONGEST_DAYS => Ok(Self::Days(hours / 24)),
                Ok(hours) if 24 % hours == 0 => Ok(Self::Hours(hours)),
                _ => bad("its hours do not divide a day"),
            },
            _ => bad("it mixes units"),
        }
    }

    /// From the text of a whole number: the step of an integer key.
    pub fn from_step(text: &str) -> Result<Self, BoundsError> {
        let bad = |reason| BoundsError::BadInterval {
            interval: text.into(),
            reason,
        };
        match text.trim().parse::<i64>() {
            Ok(step) if step > 0 => Ok(Self::Step(step)),
            Ok(_) => Err(bad("it is not positive")),
            Err(_) => Err(bad("it is not a whole number")),
        }
    }

    /// The length of the longest suffix, to check that a base name leaves room for it.
    pub fn longest_suffix(self) -> usize {
        match self {
            Self::Hours(_) => "_2025_01_31_13".len(),
            Self::Days(days) if days % 7 == 0 => "_2025_w05".len(),
            Self::Days(_) => "_2025_01_31".len(),
            Self::Months(months) if months % 12 == 0 => "_2025".len(),
            Self::Months(_) => "_2025_01".len(),
            Self::Step(_) => "_n9223372036854775808".len(),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match *self {
            Self::Hours(n) => (n, "hour"),
            Self::Days(n) if n % 7 == 0 => (n / 7, "week"),
            Self::Days(n) => (n, "day"),
            Self::Months(n) if n % 12 == 0 => (n / 12, "year"),
            Self::Months(n) => (n, "month"),
            Self::Step(step) => return write!(f, "{step}"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}
