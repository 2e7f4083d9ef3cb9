//! Entries of one length in order: in `work_mem`, and beyond that in temporary files of the server.
#![allow(unsafe_code)]

use crate::compat;
use pgrx::pg_sys;
use pgrx::pg_sys::Datum;

/// Sorts entries of `N` bytes by these bytes. An error leaves what it has to the end of the transaction.
pub struct Sorter<const N: usize> {
    state: *mut pg_sys::Tuplesortstate,
}

/// An entry as the server's `bytea`.
#[repr(C)]
struct Bytea<const N: usize> {
    header: u32,
    bytes: [u8; N],
}

impl<const N: usize> Sorter<N> {
    pub fn new() -> Sorter<N> {
        // SAFETY: what the sort allocates is freed by `end`, or goes with the transaction.
        unsafe {
            let types = pg_sys::lookup_type_cache(pg_sys::BYTEAOID, pg_sys::TYPECACHE_LT_OPR as i32);
            let previous = pg_sys::MemoryContextSwitchTo(pg_sys::CurTransactionContext);
            let state = compat::begin_sort(pg_sys::BYTEAOID, (*types).lt_opr, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(previous);
            Sorter { state }
        }
    }

    pub fn put(&mut self, bytes: [u8; N]) {
        let mut entry = Bytea { header: 0, bytes };
        // SAFETY: the sort copies the entry, which is as long as its header says.
        unsafe {
            pgrx::set_varsize_4b((&raw mut entry).cast(), (size_of::<u32>() + N) as i32);
            pg_sys::tuplesort_putdatum(self.state, Datum::from(&raw mut entry), false);
        }
    }

    /// Call it once, after the last entry and before the first one is asked for.
    pub fn sort(&mut self) {
        // SAFETY: the state is open.
        unsafe { pg_sys::tuplesort_performsort(self.state) };
    }

    pub fn next(&mut self) -> Option<[u8; N]> {
        // SAFETY: the sort gives copies of what was put in, each of which is this function's.
        unsafe {
            let entry = compat::next_sorted(self.state)?.cast_mut_ptr::<Bytea<N>>();
            let bytes = (*entry).bytes;
            pg_sys::pfree(entry.cast());
            Some(bytes)
        }
    }

    /// The next entry is the first one again.
    pub fn rewind(&mut self) {
        // SAFETY: the sort was asked for random access.
        unsafe { pg_sys::tuplesort_rescan(self.state) };
    }

    pub fn end(self) {
        // SAFETY: nothing uses the state any more.
        unsafe { pg_sys::tuplesort_end(self.state) };
    }
}
