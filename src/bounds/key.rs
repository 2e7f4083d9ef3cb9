//! What a partition key is made of.

use std::fmt;

/// The type of the partition key, as far as partitions care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    Date,
    Timestamp,
    TimestampTz,
    Integer(IntegerSize),
    /// An integer that counts from 1970-01-01 UTC.
    Epoch(EpochUnit, IntegerSize),
    /// A `uuid` whose first 48 bits are milliseconds since 1970-01-01 UTC.
    UuidV7,
    /// Text of 26 characters in base 32, the first ten of which are milliseconds since 1970-01-01 UTC. It has to be compared byte
    /// by byte.
    Ulid(LetterCase),
}

/// The letters of ULIDs: by bytes, small ones come after all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LetterCase {
    Upper,
    Lower,
}

/// Which values an integer column can hold: a bound outside of them becomes MINVALUE or MAXVALUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegerSize {
    Small,
    Normal,
    Big,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EpochUnit {
    Seconds,
    Milliseconds,
    Microseconds,
}

impl KeyKind {
    /// Whether age means anything: integers have no now and no retention.
    pub fn is_time(self) -> bool {
        !matches!(self, Self::Integer(_))
    }

    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Date => "Use days or longer for a date.",
            Self::Integer(_) => "Use a whole number as the step of an integer key, such as '1000000'.",
            _ => "Use a length of time, such as '1 month'.",
        }
    }
}

impl IntegerSize {
    pub fn min(self) -> i128 {
        match self {
            Self::Small => i16::MIN.into(),
            Self::Normal => i32::MIN.into(),
            Self::Big => i64::MIN.into(),
        }
    }

    pub fn max(self) -> i128 {
        match self {
            Self::Small => i16::MAX.into(),
            Self::Normal => i32::MAX.into(),
            Self::Big => i64::MAX.into(),
        }
    }
}

impl EpochUnit {
    pub fn per_second(self) -> i64 {
        match self {
            Self::Seconds => 1,
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1_000_000,
        }
    }

    /// The unit of a value that was a time between 1973 and 5138 when it was written; none for others.
    pub fn guess(value: i128) -> Option<Self> {
        match value {
            100_000_000..100_000_000_000 => Some(Self::Seconds),
            100_000_000_000..100_000_000_000_000 => Some(Self::Milliseconds),
            100_000_000_000_000..100_000_000_000_000_000 => Some(Self::Microseconds),
            _ => None,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::Integer(_) => "integer",
            Self::Epoch(..) => "epoch",
            Self::UuidV7 => "uuid",
            Self::Ulid(_) => "text",
        })
    }
}
