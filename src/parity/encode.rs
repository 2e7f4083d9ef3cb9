//! Writes a row down as docs/parity.md says, from the bytes of its tuple: no slot, no datum where none is needed. Most
//! columns are copied as they lie; values whose bytes may differ for one value have a codec of their own ([`super::codec`]).
#![allow(unsafe_code)]

use super::codec::Value;
use super::digest;
use super::layout::{Attribute, Kind, Prefix, alignment, all_set, is_plain, plain};
use super::out::{Out, READ_AT_ONCE, Room, VARIABLE};
use crate::compat;
use crate::error::Result;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::ops::Range;

#[cfg(target_endian = "big")]
compile_error!("the digest copies integers as they lie, which its specification wants little-endian");

/// A batch of rows longer than this gives its memory back.
const KEPT: usize = 1 << 20;

/// A column in the order of names.
struct Column {
    value: Value,
    /// What rows have that are older than the column, as a tuple would hold it, with [`READ_AT_ONCE`] bytes behind.
    missing: Option<Box<[u8]>>,
}

/// How rows of one format are written down.
pub struct Format {
    attributes: Vec<Attribute>,
    columns: Vec<Column>,
    /// The columns that are not of fixed length, by rank; and whether their values are written as they lie if they do so whole.
    variable: Vec<(u32, bool)>,
    /// Where each column behind the prefix of the current row lies; null is NULL.
    places: Vec<*const u8>,
    prefix: Prefix,
    /// So many attributes of the current row were found by the prefix, in the data that begins here.
    by_prefix: usize,
    data: *const u8,
    /// The presence map of a row without NULL, with [`READ_AT_ONCE`] bytes behind.
    map: Vec<u8>,
    map_length: usize,
    /// With the values of fixed length, which follow.
    head_length: usize,
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
            let count = order.len();
            let map_length = count.div_ceil(8);
            let mut map = vec![0u8; map_length + READ_AT_ONCE];
            let mut head_length = map_length;
            let mut columns = Vec::with_capacity(count);
            let mut variable = Vec::new();
            let mut to = vec![None; attributes.len()];
            let mut description = String::new();
            let mut fallbacks = Vec::new();
            for (rank, &i) in order.iter().enumerate() {
                map[rank / 8] |= 1 << (rank % 8);
                let value = Value::of_type(attributes[i].atttypid)?;
                let column = String::from_utf8_lossy(name(i)).into_owned();
                // Two columns of one type may exchange their names, with no row written.
                description += &format!("{column:?} {i} {};", value.describe());
                if let Some(type_name) = value.fallback() {
                    fallbacks.push(format!("{column} ({type_name})"));
                }
                match value.fixed_length() {
                    Some(length) => {
                        to[i] = Some(head_length);
                        head_length += length;
                    }
                    None => variable.push((rank as u32, value.is_bytes())),
                }
                let missing = missing(desc, i, &value);
                if let Some(missing) = &missing {
                    description += &format!("{:032x};", digest::of(missing));
                }
                columns.push(Column {
                    value,
                    missing: missing.map(|bytes| [&bytes[..], &[0; READ_AT_ONCE]].concat().into()),
                });
            }
            let rank = |i: usize| order.iter().position(|o| *o == i);
            let attributes: Vec<Attribute> = attributes
                .iter()
                .enumerate()
                .map(|(i, a)| Attribute {
                    kind: match (a.attlen, to[i]) {
                        (-1, _) => Kind::Variable,
                        (_, None) => Kind::Apart,
                        (4, _) => Kind::Four,
                        (8, _) => Kind::Eight,
                        _ => Kind::Fixed,
                    },
                    length: a.attlen,
                    mask: alignment(a.attalign as u8) - 1,
                    rank: rank(i).unwrap_or(count) as u32,
                    byte: rank(i).map_or(0, |rank| rank as u32 / 8),
                    bit: rank(i).map_or(0, |rank| 1 << (rank % 8)),
                    to: to[i].unwrap_or(0),
                })
                .collect();
            Ok(Format {
                prefix: Prefix::of(&attributes),
                attributes,
                columns,
                variable,
                places: vec![std::ptr::null(); count + 1],
                by_prefix: 0,
                data: std::ptr::null(),
                map,
                map_length,
                head_length,
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
    ///
    /// # Safety
    /// That row is still there.
    #[inline(always)]
    pub unsafe fn place(&self, index: usize) -> *const u8 {
        if index < self.by_prefix {
            // SAFETY: the caller's.
            return unsafe { self.data.add(self.prefix.offsets[index]) };
        }
        self.places[self.attributes[index].rank as usize]
    }

    /// Finds where the attributes up to `last` lie.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the format.
    #[inline(always)]
    pub unsafe fn find_up_to(&mut self, tuple: pg_sys::HeapTupleHeader, last: usize) {
        // SAFETY: the caller's; nothing is written.
        unsafe { self.find::<false>(tuple, last + 1, std::ptr::null_mut()) };
    }

    /// Finds where the first `all` attributes lie, and, when it WRITEs, those of fixed length go to their places in `row`,
    /// which begins with the map of a row without NULL.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the format; when it WRITEs `row` has room for the head, and `all` are all.
    #[inline(always)]
    unsafe fn find<const WRITE: bool>(&mut self, tuple: pg_sys::HeapTupleHeader, all: usize, row: *mut u8) {
        // SAFETY: offsets follow the layout of a tuple, as in `heap_deform_tuple`; ranks are below the length of places, and
        // where values go lies within the head.
        unsafe {
            let stored = ((*tuple).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16) as usize;
            let has_nulls = (*tuple).t_infomask & pg_sys::HEAP_HASNULL as u16 != 0;
            let base = tuple.cast::<u8>();
            let data = base.add(usize::from((*tuple).t_hoff));
            let bits = base.add(std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits));
            let places = self.places.as_mut_ptr();
            let last = stored.min(all);
            let mut offset = 0usize;
            let mut from = self.prefix.offsets.len().min(all);
            self.data = data;
            if from <= last && (!has_nulls || all_set(bits, from)) {
                if WRITE {
                    self.prefix.write(data, row, places);
                }
                offset = self.prefix.end;
            } else {
                from = 0;
            }
            self.by_prefix = from;
            if !has_nulls {
                for attribute in self.attributes.get_unchecked(from..last) {
                    offset = attribute.take::<WRITE>(data, offset, row, places);
                }
            } else {
                for i in from..last {
                    let attribute = self.attributes.get_unchecked(i);
                    if *bits.add(i >> 3) & (1 << (i & 7)) == 0 {
                        attribute.leave::<WRITE>(row, places);
                    } else {
                        offset = attribute.take::<WRITE>(data, offset, row, places);
                    }
                }
            }
            if stored < all {
                for attribute in &self.attributes[stored..all] {
                    let column = self.columns.get(attribute.rank as usize);
                    match column.and_then(|c| c.missing.as_deref()) {
                        Some(missing) => {
                            attribute.take::<WRITE>(missing.as_ptr(), 0, row, places);
                        }
                        None => attribute.leave::<WRITE>(row, places),
                    }
                }
            }
        }
    }

    /// Writes the row down behind what `out` has; true when memory of the current context was used.
    ///
    /// # Safety
    /// `tuple` is a whole tuple of the format; all bytes between it and `limit` may be read.
    #[inline(always)]
    pub unsafe fn write(&mut self, tuple: pg_sys::HeapTupleHeader, limit: *const u8, out: &mut Out) -> bool {
        // SAFETY: places point at values of the types that the columns have; each write has room, see `room`.
        unsafe {
            let mut room = Room::of(&mut out.bytes, self.head_length + VARIABLE);
            room.copy(self.map.as_ptr(), self.map_length, self.map.as_ptr_range().end);
            let row = room.skip(self.head_length - self.map_length, self.map_length);
            self.find::<true>(tuple, self.attributes.len(), row);
            let mut used = false;
            for (rank, is_bytes) in &self.variable {
                let place = *self.places.get_unchecked(*rank as usize);
                if place.is_null() {
                    continue;
                }
                let value = || &self.columns.get_unchecked(*rank as usize).value;
                if *is_bytes && is_plain(place) || value().is_short_numeric(place) {
                    let (data, length) = plain(place);
                    if length + size_of::<u32>() > room.left() {
                        room.grow(length);
                    }
                    room.put(length as u32);
                    room.copy(data, length, limit);
                } else {
                    room.close();
                    used |= value().write(place, out);
                    room = Room::of(&mut out.bytes, VARIABLE);
                }
            }
            room.close();
            used
        }
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
    /// As for [`Format::write`].
    pub unsafe fn row(&mut self, tuple: pg_sys::HeapTupleHeader, limit: *const u8) -> u128 {
        self.clear();
        // SAFETY: the caller's.
        let end = unsafe { self.write(tuple, limit) };
        self.digest(0..end)
    }

    /// Writes a row down behind the others since [`Digester::clear`]; gives the number of their bytes.
    ///
    /// # Safety
    /// As for [`Format::write`].
    #[inline(always)]
    pub unsafe fn write(&mut self, tuple: pg_sys::HeapTupleHeader, limit: *const u8) -> usize {
        // SAFETY: what the codecs allocate goes after the row.
        unsafe {
            let previous = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.memory;
            let used = self.format.write(tuple, limit, &mut self.out);
            pg_sys::CurrentMemoryContext = previous;
            if used {
                pg_sys::MemoryContextReset(self.memory);
            }
        }
        self.out.bytes.len()
    }

    /// The digest of a row that was written from here to there.
    #[inline(always)]
    pub fn digest(&self, row: Range<usize>) -> u128 {
        digest::of(&self.out.bytes[row])
    }

    #[inline(always)]
    pub fn clear(&mut self) {
        if self.out.bytes.len() > KEPT {
            self.out = Out::new();
        }
        self.out.bytes.clear();
    }
}
