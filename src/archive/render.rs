//! Values as text, as the server prints them under the settings of [`super::write::pin`].
#![allow(unsafe_code)]

use super::time;
use pgrx::pg_sys;
use pgrx::pg_sys::{Datum, Oid};
use std::ffi::CStr;

/// A type whose values have their text here, but for the far ends of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Date,
    Timestamp,
    TimestampTz,
}

/// How a value becomes text.
pub enum Render {
    Int2,
    Int4,
    Int8,
    Bool,
    Time(Time, Box<pg_sys::FmgrInfo>),
    /// Its bytes are its text.
    Bytes,
    Call(Box<pg_sys::FmgrInfo>),
}

impl Render {
    /// # Safety
    /// Within a transaction; what the server remembers of the function is kept in the current memory context.
    pub unsafe fn of(type_oid: Oid) -> Render {
        match type_oid {
            pg_sys::INT2OID => Render::Int2,
            pg_sys::INT4OID => Render::Int4,
            pg_sys::INT8OID => Render::Int8,
            pg_sys::BOOLOID => Render::Bool,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Render::Bytes,
            // SAFETY: look-ups in the catalog caches.
            _ => unsafe {
                let (mut function, mut is_variable) = (Oid::INVALID, false);
                pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_variable);
                let mut info = Box::new(std::mem::zeroed::<pg_sys::FmgrInfo>());
                pg_sys::fmgr_info(function, &mut *info);
                match type_oid {
                    pg_sys::DATEOID => Render::Time(Time::Date, info),
                    pg_sys::TIMESTAMPOID => Render::Time(Time::Timestamp, info),
                    pg_sys::TIMESTAMPTZOID => Render::Time(Time::TimestampTz, info),
                    _ => Render::Call(info),
                }
            },
        }
    }

    /// Calls `take` with the text.
    ///
    /// # Safety
    /// `value` is one of the type, and not NULL.
    pub unsafe fn render(&mut self, value: Datum, take: impl FnOnce(&[u8])) {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Render::Int2 => take(itoa::Buffer::new().format(value.value() as i16).as_bytes()),
                Render::Int4 => take(itoa::Buffer::new().format(value.value() as i32).as_bytes()),
                Render::Int8 => take(itoa::Buffer::new().format(value.value() as i64).as_bytes()),
                Render::Bool => take(if value.value() as u8 != 0 { b"t" } else { b"f" }),
                Render::Time(kind, info) => match kind.text(value) {
                    Some(text) => take(text.as_bytes()),
                    None => {
                        take(CStr::from_ptr(pg_sys::OutputFunctionCall(&mut **info, value)).to_bytes());
                    }
                },
                Render::Bytes => {
                    let plain = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
                    let length = pgrx::varsize_any_exhdr(plain);
                    take(std::slice::from_raw_parts(
                        pgrx::vardata_any(plain).cast(),
                        length,
                    ));
                }
                Render::Call(info) => {
                    take(CStr::from_ptr(pg_sys::OutputFunctionCall(&mut **info, value)).to_bytes());
                }
            }
        }
    }
}

impl Time {
    /// Under the settings of [`super::write::pin`]; none for what only the server can print.
    fn text(self, value: Datum) -> Option<time::Text> {
        match self {
            Time::Date => time::date(value.value() as i32),
            Time::Timestamp => time::timestamp(value.value() as i64),
            Time::TimestampTz => time::timestamptz(value.value() as i64),
        }
    }
}
