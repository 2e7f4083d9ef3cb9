//! ULIDs: 26 characters of Crockford's base 32, the first ten of which are milliseconds since 1970-01-01 UTC. As text they are in
//! the order of time when text is compared byte by byte, and when all have letters of one case.

use super::*;

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a ULID, and those of its time.
const LENGTH: usize = 26;
const TIME: usize = 10;

impl LetterCase {
    /// The case of the first letter; none where there is no letter.
    pub fn guess(text: &str) -> Option<Self> {
        let letter = text.chars().find(char::is_ascii_alphabetic)?;
        Some(match letter.is_ascii_lowercase() {
            true => Self::Lower,
            false => Self::Upper,
        })
    }

    fn write(self, text: String) -> String {
        match self {
            Self::Upper => text,
            Self::Lower => text.to_ascii_lowercase(),
        }
    }

    /// The digits of base 32, in the order of their values.
    pub fn digits(self) -> String {
        self.write(String::from_utf8_lossy(DIGITS).into_owned())
    }

    /// A regular expression that ULIDs of this case match, and nothing else.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Upper => "^[0-7][0-9A-HJKMNP-TV-Z]{25}$",
            Self::Lower => "^[0-7][0-9a-hjkmnp-tv-z]{25}$",
        }
    }
}

/// The milliseconds of a ULID; none for other text.
pub(super) fn millis(text: &str) -> Option<i64> {
    let digit = |c: u8| DIGITS.iter().position(|d| *d == c.to_ascii_uppercase());
    let digits: Vec<usize> = text.bytes().map(digit).collect::<Option<_>>()?;
    let time = digits
        .get(..TIME)
        .filter(|time| digits.len() == LENGTH && time[0] < 8)?;
    time.iter()
        .try_fold(0, |sum, digit| Some(sum * 32 + i64::try_from(*digit).ok()?))
}

/// The same, of a bound: what is left out at its end are zeros, also where `character` has filled it with spaces.
pub(super) fn padded(text: &str) -> String {
    format!("{:0<LENGTH$}", text.trim_end())
}

/// The lowest ULID of a millisecond, which is none before 1970.
pub(super) fn lowest(millis: i128, case: LetterCase) -> String {
    let digit = |place: usize| {
        let value = millis >> (5 * (TIME - 1 - place));
        char::from(DIGITS[usize::try_from(value & 31).unwrap_or(0)])
    };
    case.write(padded(&(0..TIME).map(digit).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn months(case: LetterCase) -> Scheme {
        Scheme::new(KeyKind::Ulid(case), Interval::Months(1)).unwrap()
    }

    #[test]
    fn a_month_begins_at_the_lowest_ulid_of_its_first_millisecond() {
        // The example of the specification.
        assert_eq!(millis("01ARZ3NDEKTSV4RRFFQ69G5FAV"), Some(1_469_922_850_259));
        let scheme = months(LetterCase::Upper);
        let Ok(Edge::At(at)) = scheme.edge("01ARZ3NDEKTSV4RRFFQ69G5FAV") else {
            panic!()
        };
        let p = scheme.partition(scheme.slot(at)).unwrap();
        assert_eq!(p.suffix, "_2016_07");
        assert_eq!(p.lower, Bound::Literal("01APHW2H000000000000000000".into()));
        assert_eq!(millis("01APHW2H000000000000000000"), Some(1_467_331_200_000));
    }

    #[test]
    fn what_is_no_ulid_is_refused_and_a_short_bound_is_read() {
        let scheme = months(LetterCase::Upper);
        for text in [
            "",
            "x",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
            "01ARZ3NDEKTSV4RRFFQ69G5FAU",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
        ] {
            assert!(scheme.edge(text).is_err(), "{text}");
        }
        assert_eq!(
            scheme.raw_edge(&RawBound::Value("01APHW2H0   ".into())),
            scheme.edge("01APHW2H000000000000000000")
        );
        assert_eq!(LetterCase::guess("01arz3"), Some(LetterCase::Lower));
        assert_eq!(LetterCase::guess("0123"), None);
    }

    proptest! {
        #[test]
        fn bounds_are_in_the_order_of_time_and_read_back(one in 0i64..1 << 48, other in 0i64..1 << 48,
                                                         lower in any::<bool>()) {
            let case = if lower { LetterCase::Lower } else { LetterCase::Upper };
            let (a, b) = (lowest(one.into(), case), lowest(other.into(), case));
            prop_assert_eq!(millis(&a), Some(one));
            prop_assert_eq!(one.cmp(&other), a.as_bytes().cmp(b.as_bytes()));
        }
    }
}
