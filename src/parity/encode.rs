//! Writes a row down as docs/parity.md says, from the bytes of its tuple: no slot, no datum where none is needed. Most
//! columns are copied as they lie; values whose bytes may differ for one value have a codec of their own ([`super::codec`]).
#![allow(unsafe_code)]

use super::codec::{Codec, Value};
use super::digest;
use super::out::{Out, Room, VARIABLE};
use crate::compat;
use crate::error::Result;
use pgrx::pg_sys;
use std::ffi::CStr;

#[cfg(target_endian = "big")]
compile_error!("the digest copies integers as they lie, which its specification wants little-endian");

/// The most that a value of fixed length takes, and more than the length of others.
const WIDEST: usize = 16;
/// A row longer than this gives its memory back.
const KEPT: usize = 1 << 20;

/// A column as the tuple has it.
struct Attribute {
    length: i16,
    /// Alignment less one.
    mask: usize,
    /// Its place in the order of names; that of the dropped ones is behind all others.
    rank: u32,
}

/// A column in the order of names.
struct Column {
    value: Value,
    /// What rows have that are older than the column, as a tuple would hold it.
    missing: Option<Box<[u8]>>,
}

/// How rows of one format are written down.
pub struct Format {
    attributes: Vec<Attribute>,
    columns: Vec<Column>,
    /// Where each column of the current row lies; null is NULL.
    places: Vec<*const u8>,
    /// The offsets of the first attributes, as long as all are of fixed length.
    prefix: Vec<usize>,
    /// The presence map of a row without NULL.
    full_map: Vec<u8>,
    /// Tells this format from others that would give other bytes.
    description: String,
    /// Columns written in a way that is not known to be canonical, with their types.
    fallbacks: Vec<String>,
}

impl Format {
    /// # Safety
    /// `desc` is valid while the format is made; the values of columns added later as long as it is used.
    pub unsafe fn of(desc: pg_sys::TupleDesc) -> Result<Format> {
        // SAFETY: the caller's.
        unsafe {
            let attributes = compat::attributes(desc);
            let name = |i: usize| CStr::from_ptr(attributes[i].attname.data.as_ptr()).to_bytes();
            let mut order: Vec<usize> = (0..attributes.len())
                .filter(|i| !attributes[*i].attisdropped && attributes[*i].attgenerated as u8 != b'v')
                .collect();
            order.sort_by(|a, b| name(*a).cmp(name(*b)));
            let mut columns = Vec::with_capacity(order.len());
            let mut description = String::new();
            let mut fallbacks = Vec::new();
            for &i in &order {
                let value = Value::of_type(attributes[i].atttypid)?;
                let column = String::from_utf8_lossy(name(i)).into_owned();
                // Two columns of one type may exchange their names, with no row written.
                description += &format!("{column:?} {i} {};", value.describe());
                if let Some(type_name) = value.fallback() {
                    fallbacks.push(format!("{column} ({type_name})"));
                }
                let missing = missing(desc, i, &value);
                if let Some(missing) = &missing {
                    description += &format!("{:032x};", digest::of(missing));
                }
                columns.push(Column { value, missing });
            }
            let rank = |i: usize| order.iter().position(|o| *o == i).unwrap_or(order.len()) as u32;
            let count = columns.len();
            let mut full_map = vec![0u8; count.div_ceil(8)];
            for i in 0..count {
                full_map[i / 8] |= 1 << (i % 8);
            }
            let attributes: Vec<Attribute> = attributes
                .iter()
                .enumerate()
                .map(|(i, a)| Attribute {
                    length: a.attlen,
                    mask: alignment(a.attalign as u8) - 1,
                    rank: rank(i),
                })
                .collect();
            Ok(Format {
                prefix: prefix(&attributes),
                attributes,
                columns,
                places: vec![std::ptr::null(); count + 1],
                full_map,
                description,
                fallbacks,
            })
        }
    }

    pub fn description(&self) -> &str {
        &self.description
    }

    pub fn fallbacks(&self) -> &[String] {
        &self.fallbacks
    }

    /// Where attribute `index` of the row lies that was found or written last; null is NULL.
    #[inline(always)]
    pub fn place(&self, index: usize) -> *const u8 {
        self.places[self.attributes[index].rank as usize]
    }

    /// Finds where the attributes up to `last` lie.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the format.
    #[inline(always)]
    pub unsafe fn find_up_to(&mut self, tuple: pg_sys::HeapTupleHeader, last: usize) {
        // SAFETY: the caller's.
        unsafe { self.find(tuple, last + 1) };
    }

    /// Finds where the first `all` attributes lie; gives whether none is NULL.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the format.
    #[inline(always)]
    unsafe fn find(&mut self, tuple: pg_sys::HeapTupleHeader, all: usize) -> bool {
        // SAFETY: offsets follow the layout of a tuple, as in `heap_deform_tuple`; ranks are below the length of places.
        unsafe {
            let stored = ((*tuple).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16) as usize;
            let has_nulls = (*tuple).t_infomask & pg_sys::HEAP_HASNULL as u16 != 0;
            let base = tuple.cast::<u8>();
            let data = base.add(usize::from((*tuple).t_hoff));
            let places = self.places.as_mut_ptr();
            let last = stored.min(all);
            let bits = base.add(std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits));
            let mut offset = 0usize;
            let mut from = self.prefix.len().min(all);
            if from <= last && (!has_nulls || all_set(bits, from)) {
                for (attribute, offset) in self.attributes.iter().zip(&self.prefix[..from]) {
                    *places.add(attribute.rank as usize) = data.add(*offset);
                }
                if let Some(i) = from.checked_sub(1) {
                    offset = self.prefix[i] + self.attributes[i].length as usize;
                }
            } else {
                from = 0;
            }
            if !has_nulls {
                for attribute in self.attributes.get_unchecked(from..last) {
                    let (place, next) = locate(data, offset, attribute.length, attribute.mask);
                    *places.add(attribute.rank as usize) = place;
                    offset = next;
                }
            } else {
                for i in from..last {
                    let attribute = self.attributes.get_unchecked(i);
                    let place = places.add(attribute.rank as usize);
                    if *bits.add(i >> 3) & (1 << (i & 7)) == 0 {
                        *place = std::ptr::null();
                    } else {
                        (*place, offset) = locate(data, offset, attribute.length, attribute.mask);
                    }
                }
            }
            if stored < all {
                for attribute in &self.attributes[stored..all] {
                    let missing = self
                        .columns
                        .get(attribute.rank as usize)
                        .and_then(|c| c.missing.as_deref());
                    *places.add(attribute.rank as usize) = missing.map_or(std::ptr::null(), <[u8]>::as_ptr);
                }
            }
            !has_nulls && stored >= all
        }
    }

    /// Writes the row down behind what `out` has; true when memory of the current context was used.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the format.
    #[inline(always)]
    pub unsafe fn write(&mut self, tuple: pg_sys::HeapTupleHeader, out: &mut Out) -> bool {
        // SAFETY: places point at values of the types that the columns have; each write has room, see `room`.
        unsafe {
            let full = self.find(tuple, self.attributes.len());
            let map = out.bytes.len();
            out.bytes.extend_from_slice(&self.full_map);
            if !full {
                for (i, place) in self.places[..self.columns.len()].iter().enumerate() {
                    if place.is_null() {
                        out.bytes[map + i / 8] &= !(1 << (i % 8));
                    }
                }
            }
            let mut used = false;
            let mut room = Room::of(&mut out.bytes, self.columns.len() * WIDEST, VARIABLE);
            for (column, place) in self.columns.iter().zip(&self.places) {
                let place = *place;
                if place.is_null() {
                    continue;
                }
                match column.value.codec {
                    Codec::Four => room.put(place.cast::<u32>().read_unaligned()),
                    Codec::Eight => room.put(place.cast::<u64>().read_unaligned()),
                    Codec::One => room.put(*place),
                    Codec::Two => room.put(place.cast::<u16>().read_unaligned()),
                    Codec::Sixteen => room.put(place.cast::<u128>().read_unaligned()),
                    Codec::Bytes if is_plain(place) => {
                        let (data, length) = plain(place);
                        if length > room.left() {
                            room.grow(length);
                        }
                        room.put(length as u32);
                        room.copy(data, length);
                    }
                    _ => {
                        room.close();
                        used |= column.value.write(place, out);
                        room = Room::of(&mut out.bytes, self.columns.len() * WIDEST, VARIABLE);
                    }
                }
            }
            room.close();
            used
        }
    }
}

/// The offsets of the attributes in front that are of fixed length.
fn prefix(attributes: &[Attribute]) -> Vec<usize> {
    let mut next = 0usize;
    attributes
        .iter()
        .take_while(|a| a.length > 0)
        .map(|a| {
            let at = (next + a.mask) & !a.mask;
            next = at + a.length as usize;
            at
        })
        .collect()
}

/// Whether the first `count` bits are all 1.
///
/// # Safety
/// There are so many.
#[inline(always)]
unsafe fn all_set(bits: *const u8, count: usize) -> bool {
    // SAFETY: the caller's.
    unsafe {
        (0..count / 8).all(|i| *bits.add(i) == 0xFF)
            && (count.is_multiple_of(8) || !*bits.add(count / 8) & ((1 << (count % 8)) - 1) == 0)
    }
}

/// A value's place and what is behind it.
///
/// # Safety
/// As for [`Format::find`].
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

/// The value that rows have which are older than column `index`, as a tuple would hold it.
///
/// # Safety
/// `desc` is valid.
unsafe fn missing(desc: pg_sys::TupleDesc, index: usize, value: &Value) -> Option<Box<[u8]>> {
    // SAFETY: the array of missing values has an element an attribute, where there is one.
    unsafe {
        let constraints = (*desc).constr;
        if constraints.is_null() || (*constraints).missing.is_null() {
            return None;
        }
        let missing = &*(*constraints).missing.cast::<compat::MissingValue>().add(index);
        missing.present.then(|| value.stored(missing.value))
    }
}

/// Digests rows of one format.
pub struct Digester {
    format: Format,
    out: Out,
    memory: pg_sys::MemoryContext,
}

impl Digester {
    /// # Safety
    /// As for [`Format::of`]. To be closed; an error leaves that to the abort.
    pub unsafe fn new(desc: pg_sys::TupleDesc) -> Result<Digester> {
        // SAFETY: the context is a child of the current one.
        unsafe {
            Ok(Digester {
                format: Format::of(desc)?,
                out: Out::new(),
                memory: pg_sys::AllocSetContextCreateExtended(
                    pg_sys::CurrentMemoryContext,
                    c"partition_router digest".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                ),
            })
        }
    }

    pub fn format(&mut self) -> &mut Format {
        &mut self.format
    }

    pub fn close(self) {
        // SAFETY: nothing that it holds is used any more.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
    }

    /// The digest of a row.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the format.
    #[inline(always)]
    pub unsafe fn row(&mut self, tuple: pg_sys::HeapTupleHeader) -> u128 {
        self.out.bytes.clear();
        // SAFETY: what the codecs allocate goes after the row.
        unsafe {
            let previous = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.memory;
            let used = self.format.write(tuple, &mut self.out);
            pg_sys::CurrentMemoryContext = previous;
            if used {
                pg_sys::MemoryContextReset(self.memory);
            }
        }
        let digest = digest::of(&self.out.bytes);
        if self.out.bytes.len() > KEPT {
            self.out = Out::new();
        }
        digest
    }
}
