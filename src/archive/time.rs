//! Dates and times as the server prints them with DateStyle ISO and TimeZone UTC, without a call of the server. Pure.

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// From 0000-03-01, where years of the arithmetic begin, to 2000-01-01, where the server counts from.
const TO_2000: i64 = 730_425;
/// Days of 400 years.
const ERA: i64 = 146_097;

/// The text of a time; long enough for each that has one here.
pub struct Text {
    bytes: [u8; 32],
    length: usize,
}

impl Text {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// So many digits of a number.
    fn digits(&mut self, number: i64, count: usize) {
        let mut rest = number;
        for place in (self.length..self.length + count).rev() {
            self.bytes[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.length += count;
    }
}

/// A date, counted from 2000-01-01; none outside of the years 1 to 9999, and for infinity.
pub fn date(days: i32) -> Option<Text> {
    of_day(i64::from(days))
}

/// A timestamp in microseconds since 2000-01-01; none as for [`date`].
pub fn timestamp(micros: i64) -> Option<Text> {
    let mut text = of_day(micros.div_euclid(DAY))?;
    let (seconds, fraction) = (micros.rem_euclid(DAY) / 1_000_000, micros.rem_euclid(1_000_000));
    text.push(b' ');
    text.digits(seconds / 3600, 2);
    text.push(b':');
    text.digits(seconds / 60 % 60, 2);
    text.push(b':');
    text.digits(seconds % 60, 2);
    if fraction != 0 {
        text.push(b'.');
        text.digits(fraction, 6);
        while text.bytes[text.length - 1] == b'0' {
            text.length -= 1;
        }
    }
    Some(text)
}

/// As [`timestamp`], with the offset of UTC.
pub fn timestamptz(micros: i64) -> Option<Text> {
    let mut text = timestamp(micros)?;
    for byte in *b"+00" {
        text.push(byte);
    }
    Some(text)
}

/// Years of the arithmetic begin in March, so that a leap day is the last of its year.
fn of_day(days: i64) -> Option<Text> {
    let days = days + TO_2000;
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let mut text = Text {
        bytes: [0; 32],
        length: 0,
    };
    text.digits(year, 4);
    text.push(b'-');
    text.digits(month, 2);
    text.push(b'-');
    text.digits(day, 2);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{Date, date as civil};

    fn of(text: Option<Text>) -> Option<String> {
        text.map(|text| String::from_utf8(text.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn every_day_of_ten_thousand_years_is_the_day_of_the_calendar() {
        let mut day: Date = civil(1, 1, 1);
        let first = -730_119;
        for days in first.. {
            assert_eq!(of(date(days)), Some(day.to_string()));
            match day.tomorrow() {
                Ok(next) => day = next,
                Err(_) => {
                    assert_eq!(of(date(days + 1)), None, "the year 10000");
                    break;
                }
            }
        }
        assert_eq!(of(date(first - 1)), None, "1 BC");
        assert_eq!((of(date(i32::MAX)), of(date(i32::MIN))), (None, None), "infinity");
    }

    #[test]
    fn a_time_has_no_more_digits_than_it_needs() {
        for (micros, expected) in [
            (0, "2000-01-01 00:00:00"),
            (-1, "1999-12-31 23:59:59.999999"),
            (DAY - 1_000_000, "2000-01-01 23:59:59"),
            (500_000, "2000-01-01 00:00:00.5"),
            (10, "2000-01-01 00:00:00.00001"),
            (59 * DAY + 3_661_000_001, "2000-02-29 01:01:01.000001"),
        ] {
            assert_eq!(of(timestamp(micros)).as_deref(), Some(expected));
            assert_eq!(of(timestamptz(micros)), Some(format!("{expected}+00")));
        }
        assert_eq!((of(timestamp(i64::MAX)), of(timestamp(i64::MIN))), (None, None));
    }
}
