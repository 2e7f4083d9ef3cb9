//! How values lie in a tuple, and how those of fixed length go from there to their places in the row that is written down.
#![allow(unsafe_code)]

use std::ffi::CStr;

/// How a column lies in a tuple, and goes from there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of fixed length, and copied to its place in the row as it lies.
    Four,
    Eight,
    Fixed,
    /// Of variable length.
    Variable,
    /// Of fixed length or a C string, but not copied as it lies; or dropped.
    Apart,
}

/// A column as the tuple has it.
pub struct Attribute {
    pub kind: Kind,
    pub length: i16,
    /// Alignment less one.
    pub mask: usize,
    /// Its place in the order of names; that of the dropped ones is behind all others.
    pub rank: u32,
    /// Its bit in the presence map: the byte, and the bit in it. No bit where it is dropped.
    pub byte: u32,
    pub bit: u8,
    /// Where its value goes in the row, for `Four`, `Eight` and `Fixed`.
    pub to: usize,
}

/// From where in the data of a tuple to where in the row.
#[derive(Clone, Copy)]
pub struct Move {
    from: usize,
    to: usize,
}

/// The attributes in front that are of fixed length: where none of them is NULL, each lies at the same place in every row.
#[derive(Default)]
pub struct Prefix {
    /// Where each lies.
    pub offsets: Vec<usize>,
    /// Where the last one ends.
    pub end: usize,
    fours: Vec<Move>,
    eights: Vec<Move>,
    /// Of another length, which is the second part.
    others: Vec<(Move, usize)>,
    /// Those that are not copied as they lie, with their ranks.
    apart: Vec<(usize, u32)>,
}

impl Attribute {
    /// Takes the value behind `offset` of the data; gives what is behind it.
    ///
    /// # Safety
    /// `data` is that of a tuple with such attributes; `row` and `places` are as `Format::find` has them.
    #[inline(always)]
    pub unsafe fn take<const WRITE: bool>(
        &self,
        data: *const u8,
        offset: usize,
        row: *mut u8,
        places: *mut *const u8,
    ) -> usize {
        // SAFETY: the caller's.
        unsafe {
            let at = (offset + self.mask) & !self.mask;
            let place = data.add(at);
            let (place, next) = match self.kind {
                Kind::Four => {
                    if WRITE {
                        copy_word::<u32>(place, row.add(self.to));
                    }
                    (place, at + 4)
                }
                Kind::Eight => {
                    if WRITE {
                        copy_word::<u64>(place, row.add(self.to));
                    }
                    (place, at + 8)
                }
                Kind::Fixed => {
                    if WRITE {
                        copy_fixed(place, row.add(self.to), self.length as usize);
                    }
                    (place, at + self.length as usize)
                }
                Kind::Variable => locate(data, offset, -1, self.mask),
                Kind::Apart => locate(data, offset, self.length, self.mask),
            };
            *places.add(self.rank as usize) = place;
            next
        }
    }

    /// The value is NULL: no bit, and zeros in its place.
    ///
    /// # Safety
    /// `data` is that of a tuple with such attributes; `row` and `places` are as `Format::find` has them.
    #[inline(always)]
    pub unsafe fn leave<const WRITE: bool>(&self, row: *mut u8, places: *mut *const u8) {
        // SAFETY: the caller's.
        unsafe {
            *places.add(self.rank as usize) = std::ptr::null();
            if WRITE {
                *row.add(self.byte as usize) &= !self.bit;
                if !matches!(self.kind, Kind::Variable | Kind::Apart) {
                    row.add(self.to).write_bytes(0, self.length as usize);
                }
            }
        }
    }
}

impl Prefix {
    pub fn of(attributes: &[Attribute]) -> Prefix {
        let mut prefix = Prefix::default();
        for attribute in attributes.iter().take_while(|a| a.length > 0) {
            let from = (prefix.end + attribute.mask) & !attribute.mask;
            let to = Move {
                from,
                to: attribute.to,
            };
            match attribute.kind {
                Kind::Four => prefix.fours.push(to),
                Kind::Eight => prefix.eights.push(to),
                Kind::Fixed => prefix.others.push((to, attribute.length as usize)),
                Kind::Apart | Kind::Variable => prefix.apart.push((from, attribute.rank)),
            }
            prefix.offsets.push(from);
            prefix.end = from + attribute.length as usize;
        }
        prefix
    }

    /// # Safety
    /// `data` is that of a tuple with such attributes; `row` and `places` are as `Format::find` has them.
    #[inline(always)]
    pub unsafe fn write(&self, data: *const u8, row: *mut u8, places: *mut *const u8) {
        // SAFETY: the caller's.
        unsafe {
            for m in &self.eights {
                copy_word::<u64>(data.add(m.from), row.add(m.to));
            }
            for m in &self.fours {
                copy_word::<u32>(data.add(m.from), row.add(m.to));
            }
            for (m, length) in &self.others {
                copy_fixed(data.add(m.from), row.add(m.to), *length);
            }
            for (from, rank) in &self.apart {
                *places.add(*rank as usize) = data.add(*from);
            }
        }
    }
}

/// Without a call for the lengths that are common.
///
/// # Safety
/// So many bytes can be read and written.
#[inline(always)]
unsafe fn copy_fixed(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's.
    unsafe {
        match length {
            1 => *to = *from,
            2 => copy_word::<u16>(from, to),
            16 => copy_word::<u128>(from, to),
            _ => from.copy_to_nonoverlapping(to, length),
        }
    }
}

/// # Safety
/// A T can be read and written.
#[inline(always)]
unsafe fn copy_word<T>(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's.
    unsafe { to.cast::<T>().write_unaligned(from.cast::<T>().read_unaligned()) }
}

/// Whether the first `count` bits are all 1.
///
/// # Safety
/// There are so many.
#[inline(always)]
pub unsafe fn all_set(bits: *const u8, count: usize) -> bool {
    // SAFETY: the caller's.
    unsafe {
        (0..count / 8).all(|i| *bits.add(i) == 0xFF)
            && (count.is_multiple_of(8) || !*bits.add(count / 8) & ((1 << (count % 8)) - 1) == 0)
    }
}

/// A value's place and what is behind it.
///
/// # Safety
/// `data` is that of a tuple with such attributes; `row` and `places` are as `Format::find` has them.
#[inline(always)]
pub unsafe fn locate(data: *const u8, offset: usize, length: i16, mask: usize) -> (*const u8, usize) {
    // SAFETY: the caller's. A byte that is not 0 where a variable value may begin is one of a short header, which is not aligned.
    unsafe {
        if length > 0 {
            let at = (offset + mask) & !mask;
            return (data.add(at), at + length as usize);
        }
        if length == -2 {
            let text = data.add(offset);
            return (text, offset + CStr::from_ptr(text.cast()).count_bytes() + 1);
        }
        let first = *data.add(offset);
        if first & 1 == 1 && first != 1 {
            return (data.add(offset), offset + usize::from(first >> 1));
        }
        let at = if first == 0 {
            (offset + mask) & !mask
        } else {
            offset
        };
        let value = data.add(at);
        let length = if *value == 1 {
            external_size(value)
        } else {
            (value.cast::<u32>().read_unaligned() >> 2) as usize
        };
        (value, at + length)
    }
}

/// # Safety
/// `value` is a pointer to a value out of line.
#[cold]
unsafe fn external_size(value: *const u8) -> usize {
    // SAFETY: the caller's.
    unsafe { pgrx::varsize_any(value.cast()) }
}

/// Whether a variable value lies here as it is, neither compressed nor out of line.
///
/// # Safety
/// `value` is a variable value.
#[inline(always)]
pub unsafe fn is_plain(value: *const u8) -> bool {
    // SAFETY: the caller's.
    let first = unsafe { *value };
    (first & 1 == 1 && first != 1) || first & 3 == 0
}

/// The bytes of a plain variable value.
///
/// # Safety
/// `value` is a plain variable value.
#[inline(always)]
pub unsafe fn plain(value: *const u8) -> (*const u8, usize) {
    // SAFETY: the caller's.
    unsafe {
        let first = *value;
        if first & 1 == 1 {
            (value.add(1), usize::from(first >> 1) - 1)
        } else {
            (
                value.add(4),
                (value.cast::<u32>().read_unaligned() >> 2) as usize - 4,
            )
        }
    }
}

/// The number of bytes that `typalign` stands for.
pub fn alignment(code: u8) -> usize {
    match code {
        b'c' => 1,
        b's' => 2,
        b'i' => 4,
        _ => 8,
    }
}
