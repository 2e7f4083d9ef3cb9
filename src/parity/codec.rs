//! How values of each type are written down: docs/parity.md, "A value". Values are met as tuples hold them: by a
//! pointer, variable ones with any header, compressed or out of line.
#![allow(unsafe_code)]

use super::encode::Format;
use super::layout::{alignment, is_plain, locate, plain};
use super::out::Out;
use crate::compat;
use crate::error::{Error, Result};
use crate::spi;
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

/// Types whose content, without its header, is one for one value.
const AS_THEY_LIE: [Oid; 11] = [
    pg_sys::TEXTOID,
    pg_sys::VARCHAROID,
    pg_sys::BPCHAROID,
    pg_sys::BYTEAOID,
    pg_sys::JSONOID,
    pg_sys::XMLOID,
    pg_sys::JSONBOID,
    pg_sys::BITOID,
    pg_sys::VARBITOID,
    pg_sys::INETOID,
    pg_sys::CIDROID,
];

pub enum Codec {
    One,
    Two,
    Four,
    Eight,
    Sixteen,
    /// Another fixed length.
    Fixed(usize),
    /// The content of a variable value.
    Bytes,
    Numeric,
    Name,
    /// Labels by their oids.
    Enum(HashMap<u32, Vec<u8>>),
    Array(Box<Value>),
    Composite(Box<RefCell<Format>>),
    /// The type of the bounds.
    Range(Box<Value>),
    /// The cached description of the range type, and the ranges.
    Multirange(*mut pg_sys::TypeCacheEntry, Box<Value>),
    Send(Box<RefCell<pg_sys::FmgrInfo>>),
    Text(Box<RefCell<pg_sys::FmgrInfo>>),
}

/// Values of one type.
pub struct Value {
    pub codec: Codec,
    length: i16,
    by_value: bool,
    mask: usize,
    type_oid: Oid,
    /// The name of a type that has no known canonical form.
    unknown: Option<String>,
}

impl Value {
    /// # Safety
    /// Within a transaction.
    pub unsafe fn of_type(type_oid: Oid) -> Result<Value> {
        // SAFETY: look-ups in the catalog caches; what they allocate is in the current memory context, which outlives the value.
        unsafe {
            let type_oid = pg_sys::getBaseType(type_oid);
            let (mut length, mut by_value, mut align) = (0, false, 0);
            pg_sys::get_typlenbyvalalign(type_oid, &mut length, &mut by_value, &mut align);
            let kind = pg_sys::get_typtype(type_oid) as u8;
            let element = pg_sys::get_element_type(type_oid);
            let mut unknown = None;
            let codec = if element != Oid::INVALID {
                Codec::Array(Box::new(Value::of_type(element)?))
            } else if kind == pg_sys::TYPTYPE_ENUM {
                Codec::Enum(labels(type_oid)?)
            } else if kind == pg_sys::TYPTYPE_COMPOSITE {
                let desc = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
                Codec::Composite(Box::new(RefCell::new(Format::of(desc)?)))
            } else if kind == pg_sys::TYPTYPE_RANGE {
                Codec::Range(Box::new(Value::of_type(pg_sys::get_range_subtype(type_oid))?))
            } else if kind == pg_sys::TYPTYPE_MULTIRANGE {
                let range = pg_sys::get_multirange_range(type_oid);
                let entry = pg_sys::lookup_type_cache(range, pg_sys::TYPECACHE_RANGE_INFO as i32);
                Codec::Multirange(entry, Box::new(Value::of_type(range)?))
            } else {
                let builtin = type_oid.to_u32() < compat::FIRST_UNPINNED_OBJECT;
                match (type_oid, length) {
                    (pg_sys::NUMERICOID, _) => Codec::Numeric,
                    (pg_sys::NAMEOID, _) => Codec::Name,
                    (_, -1) if AS_THEY_LIE.contains(&type_oid) || type_oid == pg_sys::REFCURSOROID => {
                        Codec::Bytes
                    }
                    (_, 1..) if builtin => fixed(length as usize),
                    _ => {
                        if !builtin {
                            unknown = Some(name_of(type_oid));
                        }
                        by_function(type_oid)
                    }
                }
            };
            Ok(Value {
                codec,
                length,
                by_value,
                mask: alignment(align as u8) - 1,
                type_oid,
                unknown,
            })
        }
    }

    /// The length of values that are written as they lie and all have one.
    pub fn fixed_length(&self) -> Option<usize> {
        match self.codec {
            Codec::One => Some(1),
            Codec::Two => Some(2),
            Codec::Four => Some(4),
            Codec::Eight => Some(8),
            Codec::Sixteen => Some(16),
            Codec::Fixed(length) => Some(length),
            _ => None,
        }
    }

    /// Whether values are written as a length and their content.
    pub fn is_bytes(&self) -> bool {
        matches!(self.codec, Codec::Bytes)
    }

    /// Whether this is a numeric that is written as a length and the content that lies here.
    ///
    /// # Safety
    /// `place` points at a value of this type.
    #[inline(always)]
    pub unsafe fn is_short_numeric(&self, place: *const u8) -> bool {
        // SAFETY: the caller's; a numeric begins with a header of two bytes.
        unsafe {
            matches!(self.codec, Codec::Numeric)
                && is_plain(place)
                && plain(place).0.cast::<u16>().read_unaligned() & SPECIAL == SHORT
        }
    }

    /// What the bytes of values depend on.
    pub fn describe(&self) -> String {
        let of = match &self.codec {
            Codec::Enum(labels) => {
                let mut labels: Vec<_> = labels.iter().collect();
                labels.sort();
                format!("{labels:?}")
            }
            Codec::Array(element) | Codec::Range(element) | Codec::Multirange(_, element) => {
                element.describe()
            }
            Codec::Composite(format) => format.borrow().description().to_owned(),
            _ => String::new(),
        };
        format!("{}({of})", self.type_oid.to_u32())
    }

    /// The name of the type, here or inside, that has no known canonical form.
    pub fn fallback(&self) -> Option<String> {
        match &self.codec {
            Codec::Array(element) | Codec::Range(element) | Codec::Multirange(_, element) => {
                element.fallback()
            }
            Codec::Composite(format) => format.borrow().fallbacks().first().cloned(),
            _ => self.unknown.clone(),
        }
    }

    /// A datum of this type as a tuple would hold it.
    ///
    /// # Safety
    /// `datum` is of this type.
    pub unsafe fn stored(&self, datum: Datum) -> Box<[u8]> {
        if self.by_value {
            return (datum.value() as u64).to_le_bytes()[..self.length as usize].into();
        }
        // SAFETY: the caller's; lengths are those of the type.
        unsafe {
            let data = datum.cast_mut_ptr::<u8>();
            let (_, length) = locate(data, 0, self.length, 0);
            std::slice::from_raw_parts(data, length).into()
        }
    }

    /// Writes a value; true when memory of the current context was used.
    ///
    /// # Safety
    /// `place` points at a value of this type.
    pub unsafe fn write(&self, place: *const u8, out: &mut Out) -> bool {
        let bytes = |length| {
            // SAFETY: the caller's.
            unsafe { std::slice::from_raw_parts(place, length) }
        };
        // SAFETY: the caller's.
        unsafe {
            match &self.codec {
                Codec::One => out.push(bytes(1)),
                Codec::Two => out.push(bytes(2)),
                Codec::Four => out.push(bytes(4)),
                Codec::Eight => out.push(bytes(8)),
                Codec::Sixteen => out.push(bytes(16)),
                Codec::Fixed(length) => out.push(bytes(*length)),
                Codec::Name => {
                    let name = bytes(pg_sys::NAMEDATALEN as usize);
                    out.push_sized(name.split(|b| *b == 0).next().unwrap_or(name));
                }
                Codec::Enum(labels) => {
                    let oid = place.cast::<u32>().read_unaligned();
                    match labels.get(&oid) {
                        Some(label) => out.push_sized(label),
                        None => out.push(&oid.to_le_bytes()), // no value has it
                    }
                }
                Codec::Bytes => return with_content(place, |content| out.push_sized(content)),
                Codec::Numeric => return with_content(place, |content| numeric(content, out)),
                Codec::Array(element) => {
                    array(
                        pg_sys::pg_detoast_datum(place.cast_mut().cast()).cast(),
                        element,
                        out,
                    );
                    return true;
                }
                Codec::Composite(format) => {
                    let row = pg_sys::pg_detoast_datum(place.cast_mut().cast());
                    let end = row.cast::<u8>().add(pgrx::varsize_any(row.cast()));
                    format.borrow_mut().write(row.cast(), end, out);
                    return true;
                }
                Codec::Range(bound) => {
                    range(
                        pg_sys::pg_detoast_datum(place.cast_mut().cast()).cast(),
                        bound,
                        out,
                    );
                    return true;
                }
                Codec::Multirange(entry, of) => {
                    multirange(place, *entry, of, out);
                    return true;
                }
                Codec::Send(function) => {
                    let sent = pg_sys::SendFunctionCall(&mut *function.borrow_mut(), self.datum(place));
                    out.push_sized(pgrx::varlena_to_byte_slice(sent.cast()));
                    return true;
                }
                Codec::Text(function) => {
                    let text = pg_sys::OutputFunctionCall(&mut *function.borrow_mut(), self.datum(place));
                    out.push_sized(CStr::from_ptr(text).to_bytes());
                    return true;
                }
            }
        }
        false
    }

    /// # Safety
    /// `place` points at a value of this type.
    unsafe fn datum(&self, place: *const u8) -> Datum {
        // SAFETY: the caller's.
        unsafe { fetch_datum(place, self.by_value, self.length) }
    }
}

fn fixed(length: usize) -> Codec {
    match length {
        1 => Codec::One,
        2 => Codec::Two,
        4 => Codec::Four,
        8 => Codec::Eight,
        16 => Codec::Sixteen,
        _ => Codec::Fixed(length),
    }
}

fn name_of(type_oid: Oid) -> String {
    // SAFETY: a palloc'ed C string of the server.
    unsafe { CStr::from_ptr(pg_sys::format_type_be(type_oid)) }
        .to_string_lossy()
        .into_owned()
}

/// # Safety
/// Within a transaction.
unsafe fn by_function(type_oid: Oid) -> Codec {
    // SAFETY: the look-up info lives in the current memory context, as the format does.
    unsafe {
        let function = |oid: Oid| {
            let mut info = Box::new(RefCell::new(pg_sys::FmgrInfo::default()));
            pg_sys::fmgr_info(oid, info.get_mut());
            info
        };
        let entry = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, type_oid.into());
        let form = pg_sys::GETSTRUCT(entry).cast::<pg_sys::FormData_pg_type>();
        let (send, output) = ((*form).typsend, (*form).typoutput);
        pg_sys::ReleaseSysCache(entry);
        if send != Oid::INVALID {
            Codec::Send(function(send))
        } else {
            Codec::Text(function(output))
        }
    }
}

fn labels(type_oid: Oid) -> Result<HashMap<u32, Vec<u8>>> {
    let rows: Vec<(u32, String)> = spi::latest_rows(
        "SELECT pg_catalog.jsonb_build_array(e.oid::bigint, e.enumlabel) FROM pg_catalog.pg_enum e WHERE e.enumtypid = $1",
        &[type_oid.into()],
    )?;
    if rows.is_empty() {
        return Err(Error::Internal(format!(
            "the enum {} has no label",
            name_of(type_oid)
        )));
    }
    Ok(rows
        .into_iter()
        .map(|(oid, label)| (oid, label.into_bytes()))
        .collect())
}

/// Calls `body` with the content of a variable value; true when memory was used.
///
/// # Safety
/// `place` points at a variable value.
unsafe fn with_content(place: *const u8, body: impl FnOnce(&[u8])) -> bool {
    // SAFETY: the caller's; what is fetched stays while the current context does.
    unsafe {
        if is_plain(place) {
            let (data, length) = plain(place);
            body(std::slice::from_raw_parts(data, length));
            return false;
        }
        let fetched = pg_sys::pg_detoast_datum_packed(place.cast_mut().cast());
        body(pgrx::varlena_to_byte_slice(fetched));
        true
    }
}

/// The highest bits of a numeric tell its form: both are set in NaN and the infinities, the first alone in the short one.
const SPECIAL: u16 = 0xC000;
const SHORT: u16 = 0x8000;

/// The shortest form of a numeric: older servers wrote the long one also where the short one does.
fn numeric(content: &[u8], out: &mut Out) {
    let word = |i: usize| u16::from_le_bytes([content[2 * i], content[2 * i + 1]]);
    let header = word(0);
    if header & SPECIAL == SPECIAL {
        return out.push_sized(&content[..2]);
    }
    if header & SPECIAL == SHORT {
        return out.push_sized(content);
    }
    let (scale, weight) = (header & 0x3FFF, word(1) as i16);
    if scale > 63 || !(-64..=63).contains(&weight) {
        return out.push_sized(content);
    }
    let sign = if header & SPECIAL == 0x4000 { 0x2000 } else { 0 };
    let short = 0x8000 | sign | scale << 7 | (weight as u16 & 0x7F);
    out.push(&(content.len() as u32 - 2).to_le_bytes());
    out.push(&short.to_le_bytes());
    out.push(&content[4..]);
}

/// # Safety
/// `array` is an array whose elements are of the type `element`, not compressed and with a long header.
unsafe fn array(array: *const u8, element: &Value, out: &mut Out) {
    // SAFETY: the layout is that of ArrayType in utils/array.h.
    unsafe {
        let word = |i: usize| array.cast::<i32>().add(i).read_unaligned();
        let dimensions = word(1) as usize;
        out.push(&(dimensions as u32).to_le_bytes());
        if dimensions == 0 {
            return;
        }
        let mut count = 1usize;
        for i in 0..dimensions {
            let (length, lower) = (word(4 + i), word(4 + dimensions + i));
            out.push(&length.to_le_bytes());
            out.push(&lower.to_le_bytes());
            count *= length as usize;
        }
        let header = 16 + 8 * dimensions;
        let nulls = (word(2) != 0).then(|| array.add(header));
        let data = array.add(if word(2) != 0 {
            word(2) as usize
        } else {
            (header + 7) & !7
        });
        let mut offset = 0;
        for i in 0..count {
            if nulls.is_some_and(|bits| *bits.add(i / 8) & (1 << (i % 8)) == 0) {
                out.push(&[0]);
                continue;
            }
            out.push(&[1]);
            let (place, next) = locate(data, offset, element.length, element.mask);
            element.write(place, out);
            offset = next;
        }
    }
}

const RANGE_EMPTY: u8 = 1;
const RANGE_LOWER_INFINITE: u8 = 8;
const RANGE_UPPER_INFINITE: u8 = 16;

/// # Safety
/// `range` is a range whose bounds are of the type `bound`, not compressed and with a long header.
unsafe fn range(range: *const u8, bound: &Value, out: &mut Out) {
    // SAFETY: the layout is that of RangeType in utils/rangetypes.h: header, type, bounds, and a last byte of flags.
    unsafe {
        let length = (range.cast::<u32>().read_unaligned() >> 2) as usize;
        let flags = *range.add(length - 1) & 31;
        out.push(&[flags]);
        if flags & RANGE_EMPTY != 0 {
            return;
        }
        let mut offset = 8;
        for infinite in [RANGE_LOWER_INFINITE, RANGE_UPPER_INFINITE] {
            if flags & infinite == 0 {
                let (place, next) = locate(range, offset, bound.length, bound.mask);
                bound.write(place, out);
                offset = next;
            }
        }
    }
}

/// # Safety
/// `place` points at a multirange of the range type `entry`, whose values are written as `of`.
unsafe fn multirange(place: *const u8, entry: *mut pg_sys::TypeCacheEntry, of: &Value, out: &mut Out) {
    // SAFETY: the server takes it apart into ranges.
    unsafe {
        let whole = pg_sys::pg_detoast_datum(place.cast_mut().cast());
        let mut count = 0;
        let mut ranges = std::ptr::null_mut();
        compat::multirange_deserialize(entry, whole.cast(), &mut count, &mut ranges);
        out.push(&(count as u32).to_le_bytes());
        for i in 0..count as usize {
            of.write((*ranges.add(i)).cast(), out);
        }
    }
}

/// The value at `place`, as `fetch_att` of the server gives it: a pointer, or what lies there.
///
/// # Safety
/// `place` points at a value of a type with this length, passed by value or not.
pub(super) unsafe fn fetch_datum(place: *const u8, by_value: bool, length: i16) -> Datum {
    if !by_value {
        return Datum::from(place.cast_mut());
    }
    // SAFETY: a value by value is 1, 2, 4 or 8 bytes long.
    unsafe {
        Datum::from(match length {
            1 => place.cast::<i8>().read_unaligned() as usize,
            2 => place.cast::<i16>().read_unaligned() as usize,
            4 => place.cast::<i32>().read_unaligned() as usize,
            _ => place.cast::<u64>().read_unaligned() as usize,
        })
    }
}
