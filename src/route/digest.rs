//! A receiver of rows that takes a digest of them on their way to whoever they are for: as a multiset, and in their
//! order.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use pgrx::pg_sys::{DestReceiver, Oid, TupleDesc, TupleTableSlot};
use std::ffi::{CStr, c_int};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3;

/// The receiver. The server knows it by its first field.
#[repr(C)]
pub struct Digest {
    receiver: DestReceiver,
    next: *mut DestReceiver,
    /// Reset for each row.
    scratch: pg_sys::MemoryContext,
    rows: u64,
    /// The sum of the rows' hashes, low and high word.
    sum: [u64; 2],
    /// The hash of all rows so far, in their order.
    ordered: [u64; 2],
    forwarding: Duration,
}

/// Digits of a floating-point number that count: sums differ in the last ones with the order of their terms.
const DIGITS: usize = 9;

impl Digest {
    /// A digest that hands rows on to `next`.
    ///
    /// # Safety
    /// To be freed with [`Digest::free`]; allocates in the current memory context.
    pub unsafe fn before(next: *mut DestReceiver) -> *mut Digest {
        // SAFETY: as for this function.
        unsafe {
            let digest = pg_sys::palloc0(std::mem::size_of::<Digest>()).cast::<Digest>();
            (*digest).receiver = DestReceiver {
                receiveSlot: Some(receive),
                rStartup: Some(startup),
                rShutdown: Some(shutdown),
                rDestroy: Some(destroy),
                mydest: (*next).mydest,
            };
            (*digest).next = next;
            (*digest).scratch = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"partition_router digest".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            digest
        }
    }

    /// # Safety
    /// `digest` was made by [`Digest::before`], and nobody uses it any more.
    pub unsafe fn free(digest: *mut Digest) {
        // SAFETY: as for this function.
        unsafe {
            pg_sys::MemoryContextDelete((*digest).scratch);
            pg_sys::pfree(digest.cast());
        }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How long whoever the rows are for took to take them.
    pub fn forwarding(&self) -> Duration {
        self.forwarding
    }

    /// Whether the same rows came, and in the same order if that counts.
    pub fn equals(&self, other: &Digest, in_order: bool) -> bool {
        self.rows == other.rows && self.sum == other.sum && (!in_order || self.ordered == other.ordered)
    }

    fn add(&mut self, row: u128) {
        self.rows += 1;
        let words = |value: u128| [value as u64, (value >> 64) as u64];
        let value = |words: [u64; 2]| u128::from(words[0]) | u128::from(words[1]) << 64;
        self.sum = words(value(self.sum).wrapping_add(row));
        let mut hasher = Xxh3::new();
        hasher.update(&value(self.ordered).to_ne_bytes());
        hasher.update(&row.to_ne_bytes());
        self.ordered = words(hasher.digest128());
    }
}

unsafe extern "C-unwind" fn receive(slot: *mut TupleTableSlot, this: *mut DestReceiver) -> bool {
    // SAFETY: the executor passes a row and this receiver. No guard and nothing to drop here, so that errors of the next
    // receiver pass as they are.
    unsafe {
        let digest = this.cast::<Digest>();
        take(slot, digest);
        let Some(next) = (*(*digest).next).receiveSlot else {
            return true;
        };
        let before = Instant::now();
        let goes_on = next(slot, (*digest).next);
        (*digest).forwarding += before.elapsed();
        goes_on
    }
}

unsafe extern "C-unwind" fn startup(this: *mut DestReceiver, operation: c_int, rows: TupleDesc) {
    // SAFETY: as in `receive`.
    unsafe {
        let next = (*this.cast::<Digest>()).next;
        if let Some(startup) = (*next).rStartup {
            startup(next, operation, rows);
        }
    }
}

unsafe extern "C-unwind" fn shutdown(this: *mut DestReceiver) {
    // SAFETY: as in `receive`.
    unsafe {
        let next = (*this.cast::<Digest>()).next;
        if let Some(shutdown) = (*next).rShutdown {
            shutdown(next);
        }
    }
}

/// Whoever made the next receiver destroys it.
unsafe extern "C-unwind" fn destroy(_this: *mut DestReceiver) {}

/// Adds a row by the texts of its values, which do not depend on how a value is stored.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn take(slot: *mut TupleTableSlot, digest: *mut Digest) {
    // SAFETY: as in `receive`; texts are made in memory that is reset afterwards.
    unsafe {
        let memory = pg_sys::MemoryContextSwitchTo((*digest).scratch);
        let columns = crate::compat::attributes((*slot).tts_tupleDescriptor);
        if ((*slot).tts_nvalid as usize) < columns.len() {
            pg_sys::slot_getsomeattrs_int(slot, columns.len() as c_int);
        }
        let mut hasher = Xxh3::new();
        for (i, column) in columns.iter().enumerate() {
            if *(*slot).tts_isnull.add(i) {
                hasher.update(&[0]);
                continue;
            }
            let text = text(column.atttypid, *(*slot).tts_values.add(i));
            hasher.update(&[1]);
            hasher.update(&text.len().to_ne_bytes());
            hasher.update(&text);
        }
        let row = hasher.digest128();
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::MemoryContextReset((*digest).scratch);
        (*digest).add(row);
    }
}

unsafe fn text(type_oid: Oid, value: pg_sys::Datum) -> Vec<u8> {
    // SAFETY: the value is of that type.
    unsafe {
        let mut function = Oid::INVALID;
        let mut is_variable = false;
        pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_variable);
        let text = CStr::from_ptr(pg_sys::OidOutputFunctionCall(function, value)).to_bytes();
        let is_float = type_oid == pg_sys::FLOAT8OID || type_oid == pg_sys::FLOAT4OID;
        let number: Option<f64> = is_float
            .then(|| std::str::from_utf8(text).ok()?.parse().ok())
            .flatten();
        match number {
            Some(number) => format!(
                "{number:.0$e}",
                if type_oid == pg_sys::FLOAT4OID { 3 } else { DIGITS }
            )
            .into_bytes(),
            None => text.to_vec(),
        }
    }
}
