//! Digests of rows and of sets of rows, pure: docs/parity.md has the specification, [`super::encode`] writes rows down.

use xxhash_rust::xxh3::xxh3_128;

/// A set of rows. Lies in memory that processes share.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: i64,
    /// The sum of the digests modulo 2^128: low and high half.
    low: u64,
    high: u64,
}

impl Tally {
    /// How many bytes [`Tally::to_bytes`] gives.
    pub const SIZE: usize = 24;

    fn sum(&self) -> u128 {
        u128::from(self.low) | u128::from(self.high) << 64
    }

    fn set_sum(&mut self, sum: u128) {
        self.low = sum as u64;
        self.high = (sum >> 64) as u64;
    }

    #[inline(always)]
    pub fn add(&mut self, digest: u128) {
        self.rows += 1;
        self.set_sum(self.sum().wrapping_add(digest));
    }

    /// Takes in another set.
    pub fn merge(&mut self, other: Tally) {
        self.rows += other.rows;
        self.set_sum(self.sum().wrapping_add(other.sum()));
    }

    /// A set of so many rows, whatever they are.
    pub fn counted(self) -> Tally {
        Tally {
            rows: self.rows,
            ..Tally::default()
        }
    }

    pub fn checksum(&self) -> String {
        format!("{:032x}", self.sum())
    }

    /// `rows`, then the sum, little-endian.
    pub fn to_bytes(self) -> [u8; Tally::SIZE] {
        let mut bytes = [0; Tally::SIZE];
        bytes[..8].copy_from_slice(&self.rows.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum().to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: [u8; Tally::SIZE]) -> Tally {
        let mut tally = Tally::default();
        let (rows, sum) = bytes.split_at(8);
        tally.rows = rows.iter().rev().fold(0, |n, b| n << 8 | i64::from(*b));
        tally.set_sum(sum.iter().rev().fold(0, |n, b| n << 8 | u128::from(*b)));
        tally
    }
}

/// The digest of a row that was written down. The last step takes from XXH3's result what is left of the sum that it
/// is made from, so that sums over rows cannot undo it.
#[inline(always)]
pub fn of(row: &[u8]) -> u128 {
    let hash = xxh3_128(row);
    let (low, high) = (hash as u64, (hash >> 64) as u64);
    let mixed = u128::from(low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(high ^ 0xD1B5_4A32_D192_ED03);
    hash ^ mixed.rotate_left(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rows_does_not_matter_and_pairs_do_not_cancel() {
        let (mut a, mut b) = (Tally::default(), Tally::default());
        for digest in [1u128, u128::MAX, 7, 7] {
            a.add(digest);
        }
        for digest in [7u128, u128::MAX, 7, 1] {
            b.add(digest);
        }
        assert_eq!(a, b);
        let mut once = Tally::default();
        once.add(7);
        let mut thrice = once;
        thrice.add(7);
        thrice.add(7);
        assert_ne!(once.checksum(), thrice.checksum());
    }

    #[test]
    fn an_empty_set_has_the_checksum_zero() {
        assert_eq!(Tally::default().checksum(), "0".repeat(32));
    }

    #[test]
    fn a_tally_survives_its_bytes() {
        let mut tally = Tally::default();
        tally.add(u128::MAX - 5);
        tally.add(1 << 77);
        assert_eq!(Tally::from_bytes(tally.to_bytes()), tally);
    }

    /// `m` of the specification puts its high half on the low one of XXH3's result.
    #[test]
    fn the_last_step_is_that_of_the_specification() {
        let hash = xxh3_128(b"row");
        let (low, high) = (hash as u64, (hash >> 64) as u64);
        let m = u128::from(low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(high ^ 0xD1B5_4A32_D192_ED03);
        let expected = u128::from(low ^ (m >> 64) as u64) | u128::from(high ^ m as u64) << 64;
        assert_eq!(of(b"row"), expected);
    }
}
