//! Instants as local times.
#![allow(unsafe_code)]

use crate::bounds::StoredBound;
use crate::error::{Error, Result};
use pgrx::pg_sys;

/// The local time, in the session's TimeZone, of a `timestamptz` as it is stored.
pub fn local(bound: StoredBound) -> Result<StoredBound> {
    let StoredBound::Number(instant) = bound else {
        return Ok(bound);
    };
    // SAFETY: both types are 64 bits wide and passed by value.
    let local: Option<i64> = unsafe {
        pgrx::direct_function_call(
            pg_sys::timestamptz_timestamp,
            &[Some(pg_sys::Datum::from(instant))],
        )
    };
    local
        .map(StoredBound::Number)
        .ok_or_else(|| Error::Internal("an instant has no local time".into()))
}
