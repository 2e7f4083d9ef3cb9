//! The digest of a row and of a set of rows.
//!
//! A row is written down column by column, in the order of the columns' names: a byte that tells null from value,
//! for a variable-length value its length, then the value's bytes without TOAST and compression. XXH3 makes 128 bits
//! of it. A set is the number of its rows and the sum of their digests modulo 2^128: the order does not matter, and
//! two equal rows do not cancel.
#![allow(unsafe_code)]

use crate::sync::side::Slot;
use pgrx::pg_sys;
use xxhash_rust::xxh3::xxh3_128;

/// A set of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: i64,
    sum: u128,
}

impl Tally {
    pub fn add(&mut self, digest: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(digest);
    }

    /// Takes in another set.
    pub fn merge(&mut self, other: Tally) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    pub fn checksum(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

struct Column {
    index: usize,
    by_value: bool,
    /// `attlen`: -1 is variable, -2 a C string.
    length: i16,
}

/// Digests rows of one format.
pub struct Digester {
    columns: Vec<Column>,
    bytes: Vec<u8>,
    memory: pg_sys::MemoryContext,
}

impl Digester {
    /// # Safety
    /// `desc` outlives the digester.
    pub unsafe fn new(desc: pg_sys::TupleDesc) -> Digester {
        unsafe {
            let attributes = crate::compat::attributes(desc);
            let mut named: Vec<(&[u8], Column)> = attributes
                .iter()
                .enumerate()
                .filter(|(_, a)| !a.attisdropped)
                .map(|(index, a)| {
                    let name = std::ffi::CStr::from_ptr(a.attname.data.as_ptr()).to_bytes();
                    (
                        name,
                        Column {
                            index,
                            by_value: a.attbyval,
                            length: a.attlen,
                        },
                    )
                })
                .collect();
            named.sort_by(|a, b| a.0.cmp(b.0));
            Digester {
                columns: named.into_iter().map(|(_, column)| column).collect(),
                bytes: Vec::with_capacity(1024),
                memory: pg_sys::AllocSetContextCreateInternal(
                    pg_sys::CurrentMemoryContext,
                    c"partition_router digest".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ),
            }
        }
    }

    pub fn close(self) {
        // SAFETY: nothing that it holds is used any more.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
    }

    /// The digest of the row in `slot`.
    pub fn row(&mut self, slot: Slot) -> u128 {
        self.bytes.clear();
        let mut detoasted = false;
        // SAFETY: the slot holds a row of the digester's format; values are read within their lengths.
        unsafe {
            pg_sys::slot_getallattrs(slot);
            for column in &self.columns {
                if *(*slot).tts_isnull.add(column.index) {
                    self.bytes.push(0);
                    continue;
                }
                self.bytes.push(1);
                let value = *(*slot).tts_values.add(column.index);
                if column.by_value {
                    let raw = (value.value() as u64).to_le_bytes();
                    self.bytes.extend_from_slice(&raw[..column.length as usize]);
                } else if column.length == -1 {
                    let stored = value.cast_mut_ptr::<pg_sys::varlena>();
                    let mut plain = stored;
                    if pgrx::varatt_is_1b_e(stored) || pgrx::varatt_is_4b_c(stored) {
                        let previous = pg_sys::MemoryContextSwitchTo(self.memory);
                        plain = pg_sys::pg_detoast_datum_packed(stored);
                        pg_sys::MemoryContextSwitchTo(previous);
                        detoasted = true;
                    }
                    let data = pgrx::varlena_to_byte_slice(plain);
                    self.bytes.extend_from_slice(&(data.len() as u32).to_le_bytes());
                    self.bytes.extend_from_slice(data);
                } else if column.length == -2 {
                    let data = std::ffi::CStr::from_ptr(value.cast_mut_ptr()).to_bytes_with_nul();
                    self.bytes.extend_from_slice(data);
                } else {
                    let data = std::slice::from_raw_parts(value.cast_mut_ptr::<u8>(), column.length as usize);
                    self.bytes.extend_from_slice(data);
                }
            }
            if detoasted {
                pg_sys::MemoryContextReset(self.memory);
            }
        }
        xxh3_128(&self.bytes)
    }
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
}
