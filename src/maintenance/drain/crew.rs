//! Background workers that help a drain with the indexes of its partitions. Each table is claimed by a lock that two processes cannot
//! have: the leader goes through them from the first one on, workers from the last. Whatever becomes of a worker, the leader looks at
//! every table again, waits for who is at it, and does what is left.
#![allow(unsafe_code)]

use crate::compat;
use crate::error::{Result, report};
use crate::ident::RelName;
use crate::worker::{Leader, start, transaction};
use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ffi::CStr;

/// What `pg_stat_activity` says of them.
const TYPE: &str = "partition_router drain";
const ACTIVITY: &CStr = c"partition_router: helps to drain a default partition";
/// Fewer rows are not worth the start of a worker.
const ROWS_A_WORKER: i64 = 100_000;

#[derive(Serialize, Deserialize)]
struct Orders {
    leader: Leader,
    parent: u32,
}

struct Crew {
    parent: u32,
    segment: *mut pg_sys::dsm_segment,
    workers: Vec<DynamicBackgroundWorker>,
}

thread_local! {
    static CREW: RefCell<Option<Crew>> = const { RefCell::new(None) };
}

/// Whether this session has asked for workers for a drain of this table.
pub fn is_at(parent: Oid) -> bool {
    CREW.with_borrow(|crew| crew.as_ref().is_some_and(|crew| crew.parent == parent.to_u32()))
}

/// Ends the workers of this session, without waiting.
pub fn leave() {
    if let Some(crew) = CREW.take() {
        for worker in crew.workers {
            let _ending = worker.terminate();
        }
        // SAFETY: made by `muster`, and nothing points into it any more.
        unsafe { pg_sys::dsm_detach(crew.segment) };
    }
}

/// Starts workers: as many as the server may use for one index (`max_parallel_maintenance_workers`) and as the rows are worth, and
/// fewer when fewer are free.
pub fn muster(parent: Oid, name: &RelName, tables: usize, rows: i64) -> Result<()> {
    leave();
    // SAFETY: a plain read.
    let most = unsafe { pg_sys::max_parallel_maintenance_workers }.max(0) as usize;
    let wanted = most
        .min(tables.saturating_sub(1))
        .min(usize::try_from(rows / ROWS_A_WORKER).unwrap_or(0));
    if wanted == 0 {
        return Ok(());
    }
    let orders = serde_json::to_string(&Orders {
        leader: Leader::this(),
        parent: parent.to_u32(),
    })?;
    // SAFETY: the segment is as long as what is written to it, and stays mapped until it is let go of.
    let segment = unsafe {
        let segment = pg_sys::dsm_create(size_of::<u64>() + orders.len(), 0);
        pg_sys::dsm_pin_mapping(segment); // beyond this transaction
        let base = pg_sys::dsm_segment_address(segment).cast::<u64>();
        base.write(orders.len() as u64);
        std::ptr::copy_nonoverlapping(orders.as_ptr(), base.add(1).cast::<u8>(), orders.len());
        segment
    };
    CREW.set(Some(Crew {
        parent: parent.to_u32(),
        segment,
        workers: Vec::new(),
    }));
    for _ in 0..wanted {
        let Some(worker) = start(TYPE, "partition_router_drain_worker", &name.to_string(), segment) else {
            break;
        };
        CREW.with_borrow_mut(|crew| {
            if let Some(crew) = crew {
                crew.workers.push(worker);
            }
        });
    }
    Ok(())
}

/// A background worker's life: a table a transaction, as long as there is one that nobody is at. An error ends it: the leader does the
/// same table, and meets the same.
///
/// # Safety
/// Called by the server with the handle of a segment made by [`muster`].
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn partition_router_drain_worker(segment: pg_sys::Datum) {
    compat::end_at_sigterm();
    // SAFETY: the order of calls is that of the server's own workers.
    let segment = unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::CurrentResourceOwner =
            pg_sys::ResourceOwnerCreate(std::ptr::null_mut(), c"partition_router drain".as_ptr());
        pg_sys::dsm_attach(segment.value() as pg_sys::dsm_handle)
    };
    if segment.is_null() {
        return; // the leader has ended already
    }
    // SAFETY: the leader wrote the segment before it started this worker. It stays mapped until the worker ends.
    let orders: Orders = report(|| unsafe {
        pg_sys::dsm_pin_mapping(segment);
        let base = pg_sys::dsm_segment_address(segment).cast::<u64>();
        let text = std::slice::from_raw_parts(base.add(1).cast::<u8>(), base.read() as usize);
        Ok(serde_json::from_slice(text)?)
    });
    orders.leader.connect();
    transaction(ACTIVITY, || orders.leader.impersonate());
    while orders.leader.lives() && transaction(ACTIVITY, || super::index::help(orders.parent.into())) {}
}

/// Who is at a table, and how many indexes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Another process.
    Busy,
    /// This one, until its transaction ends.
    Ours { indexes: usize },
}

/// Claims a table. `wait` waits for who is at it.
pub fn claim(table: Oid, wait: bool) -> Claim {
    let mode = pg_sys::ShareUpdateExclusiveLock as i32;
    // SAFETY: a lock that the transaction holds to its end; the cache entry is as new as the lock, and the list is freed with the
    // memory of the call.
    unsafe {
        if wait {
            pg_sys::LockRelationOid(table, mode);
        } else if !pg_sys::ConditionalLockRelationOid(table, mode) {
            return Claim::Busy;
        }
        let relation = pg_sys::table_open(table, pg_sys::NoLock as i32);
        let indexes = pg_sys::RelationGetIndexList(relation);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        Claim::Ours {
            indexes: match indexes.is_null() {
                true => 0,
                false => (*indexes).length as usize,
            },
        }
    }
}
