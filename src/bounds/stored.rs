//! Bounds as the server stores them (`pg_class.relpartbound`, a tree of nodes as text): of very many partitions they are read several times
//! faster than what the server prints of them. Whoever gets none has to ask the server.

use super::text::since_epoch;
use super::*;

/// Days from 1970, where we count from, to 2000, where the server does.
const DAYS_TO_2000: i64 = 10_957;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// An end of a range as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredBound {
    MinValue,
    MaxValue,
    /// The number in which the server keeps the value: of a `date` days, of a time microseconds, both since 2000.
    Number(i64),
}

impl StoredBound {
    /// A day, as the start of it.
    pub fn day(self) -> Edge {
        self.edge(|days| match i32::try_from(days) {
            Ok(i32::MIN) => Edge::Min,
            Ok(i32::MAX) => Edge::Max,
            _ => micros(days.saturating_mul(MICROS_A_DAY)),
        })
    }

    /// A time without a zone.
    pub fn time(self) -> Edge {
        self.edge(micros)
    }

    /// Whether it is no midnight: of a time without a zone.
    pub fn is_within_a_day(self) -> bool {
        matches!(self, Self::Number(n) if n != i64::MIN && n != i64::MAX && n.rem_euclid(MICROS_A_DAY) != 0)
    }

    fn edge(self, of: impl FnOnce(i64) -> Edge) -> Edge {
        match self {
            Self::MinValue => Edge::Min,
            Self::MaxValue => Edge::Max,
            Self::Number(number) => of(number),
        }
    }
}

fn micros(since_2000: i64) -> Edge {
    match since_2000 {
        i64::MIN => Edge::Min,
        i64::MAX => Edge::Max,
        _ => since_2000.checked_add(DAYS_TO_2000 * MICROS_A_DAY).map_or_else(
            || beyond(since_2000.into()),
            |at| since_epoch(at, EpochUnit::Microseconds),
        ),
    }
}

/// The two ends of a range of one key column whose type is passed by value; none for anything else.
pub fn stored_range(tree: &str) -> Option<(StoredBound, StoredBound)> {
    let rest = tree.strip_prefix("{PARTITIONBOUNDSPEC :strategy r :is_default false ")?;
    let (_, rest) = rest.split_once(":lowerdatums (")?;
    let (lower, rest) = end(rest)?;
    let (upper, rest) = end(rest.strip_prefix(" :upperdatums (")?)?;
    rest.starts_with(" :location ").then_some((lower, upper))
}

/// What stands in a list of one `PARTITIONRANGEDATUM`, and what follows the list.
fn end(text: &str) -> Option<(StoredBound, &str)> {
    let text = text.strip_prefix("{PARTITIONRANGEDATUM :kind ")?;
    let (kind, text) = text.split_once(" :value ")?;
    let (bound, text) = match kind {
        "-1" => (StoredBound::MinValue, text.strip_prefix("<>")?),
        "1" => (StoredBound::MaxValue, text.strip_prefix("<>")?),
        "0" => {
            let (constant, text) = text.strip_prefix("{CONST ")?.split_once('}')?;
            (StoredBound::Number(number(constant)?), text)
        }
        _ => return None,
    };
    let (location, rest) = text.strip_prefix(" :location ")?.split_once("})")?;
    // A number: else another end follows in the list.
    location.parse::<i64>().is_ok().then_some((bound, rest))
}

/// The value of a constant: the bytes of a word as they lie in memory.
fn number(constant: &str) -> Option<i64> {
    let (head, value) = constant.split_once(" :constvalue ")?;
    if !head.contains(":constbyval true :constisnull false") {
        return None;
    }
    let (length, bytes) = value.split_once(" [ ")?;
    let mut word = [0_u8; 8];
    let mut given = bytes.strip_suffix(" ]")?.split(' ');
    for byte in &mut word {
        *byte = given.next()?.parse::<i16>().ok()? as u8;
    }
    let word = given.next().is_none().then_some(i64::from_ne_bytes(word))?;
    match length {
        "8" => Some(word),
        "4" => Some((word as i32).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(length: usize, number: i64) -> String {
        let bytes: Vec<String> = number
            .to_ne_bytes()
            .iter()
            .map(|b| (*b as i8).to_string())
            .collect();
        format!(
            ":kind 0 :value {{CONST :consttype 1114 :consttypmod -1 :constcollid 0 :constlen {length} :constbyval true \
             :constisnull false :location 68 :constvalue {length} [ {} ]}}",
            bytes.join(" ")
        )
    }

    fn tree(lower: &str, upper: &str) -> String {
        format!(
            "{{PARTITIONBOUNDSPEC :strategy r :is_default false :modulus 0 :remainder 0 :listdatums <> :lowerdatums \
             ({{PARTITIONRANGEDATUM {lower} :location 68}}) :upperdatums ({{PARTITIONRANGEDATUM {upper} :location 95}}) :location 62}}"
        )
    }

    /// The server's own, of PostgreSQL 15 on a little-endian machine.
    const NOVEMBER: &str = "{PARTITIONBOUNDSPEC :strategy r :is_default false :modulus 0 :remainder 0 :listdatums <> :lowerdatums \
        ({PARTITIONRANGEDATUM :kind 0 :value {CONST :consttype 1114 :consttypmod -1 :constcollid 0 :constlen 8 :constbyval true \
        :constisnull false :location 68 :constvalue 8 [ 0 96 -86 122 42 2 3 0 ]} :location 68}) :upperdatums ({PARTITIONRANGEDATUM \
        :kind 0 :value {CONST :consttype 1114 :consttypmod -1 :constcollid 0 :constlen 8 :constbyval true :constisnull false \
        :location 95 :constvalue 8 [ 0 -96 -25 -7 -123 4 3 0 ]} :location 95}) :location 62}";

    fn civil_of(text: &str) -> Edge {
        civil(text).unwrap()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn what_the_server_stores_is_what_it_prints() {
        let (lower, upper) = stored_range(NOVEMBER).unwrap();
        assert_eq!(lower.time(), civil_of("2026-11-01 00:00:00"));
        assert_eq!(upper.time(), civil_of("2026-12-01 00:00:00"));
    }

    #[test]
    fn numbers_infinities_and_open_ends_are_told_apart() {
        let ends = |lower: &str, upper: &str| stored_range(&tree(lower, upper));
        let (lower, upper) = ends(":kind -1 :value <>", ":kind 1 :value <>").unwrap();
        assert_eq!((lower, upper), (StoredBound::MinValue, StoredBound::MaxValue));
        assert_eq!((lower.time(), upper.day()), (Edge::Min, Edge::Max));
        let (lower, upper) = ends(&constant(8, i64::MIN), &constant(8, i64::MAX)).unwrap();
        assert_eq!((lower.time(), upper.time()), (Edge::Min, Edge::Max));
        assert!(!lower.is_within_a_day() && !upper.is_within_a_day());
        // A Datum of four bytes may have anything in the others.
        let (lower, upper) = ends(&constant(4, i64::from(i32::MIN)), &constant(4, 0xFFFF_FFFF)).unwrap();
        assert_eq!(lower.day(), Edge::Min);
        assert_eq!(upper.day(), civil_of("1999-12-31"));
        let (lower, upper) = ends(&constant(4, 31), &constant(8, 1)).unwrap();
        assert_eq!(lower.day(), civil_of("2000-02-01"));
        assert_eq!(upper.time(), civil_of("2000-01-01 00:00:00.000001"));
        assert!(upper.is_within_a_day());
        // Years that the server has and no partition begins in.
        let far = |days: i64| StoredBound::Number(days * MICROS_A_DAY);
        assert_eq!(
            (far(-740_000).time(), far(3_000_000).time()),
            (Edge::Min, Edge::Max)
        );
        assert_eq!(StoredBound::Number(i64::MAX - 1).time(), Edge::Max);
        assert_eq!(StoredBound::Number(i64::MIN + 1).time(), Edge::Min);
    }

    #[test]
    fn anything_else_is_left_to_the_server() {
        let two = tree(":kind 1 :value <>", ":kind 1 :value <>").replace(
            "68})",
            "68} {PARTITIONRANGEDATUM :kind 1 :value <> :location 68})",
        );
        let null = tree(&constant(8, 1), &constant(8, 2)).replace("constisnull false", "constisnull true");
        let by_reference =
            tree(&constant(8, 1), &constant(8, 2)).replace("constbyval true", "constbyval false");
        for other in [
            "",
            "{PARTITIONBOUNDSPEC :strategy r :is_default true :modulus 0}",
            "{PARTITIONBOUNDSPEC :strategy h :is_default false :modulus 4 :remainder 0 :listdatums <> :lowerdatums <> :upperdatums <>}",
            &two,
            &null,
            &by_reference,
            &tree(&constant(2, 1), &constant(2, 2)),
            &tree(":kind 7 :value <>", ":kind 1 :value <>"),
        ] {
            assert_eq!(stored_range(other), None, "{other}");
        }
    }
}
