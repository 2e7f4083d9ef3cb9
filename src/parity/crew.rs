//! Background workers that help with a verify: they read under the leader's own snapshot, and do chunks as the leader does.
//! Whatever becomes of them, the leader finds which chunks are not done, and does them.
//!
//! The leader waits for chunks that a worker is at, so a worker takes every lock that it needs before its first chunk: nobody who
//! queues for one can come between.
#![allow(unsafe_code)]

use super::scan::{self, Area, Job};
use crate::compat;
use crate::error::{Result, report};
use crate::pair::store;
use crate::worker::{Leader, start, transaction};
use crate::{locks, session, settings};
use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ffi::CStr;
use std::time::Duration;

/// What `pg_stat_activity` says of them.
const TYPE: &str = "partition_router verify";
const ACTIVITY: &CStr = c"partition_router: helps with a verify";
/// Less than so many chunks (of 1 MB) a process are not worth the start of a worker.
const CHUNKS_A_WORKER: usize = 64;
/// Between two looks at what workers have done.
const WAIT: Duration = Duration::from_millis(1);

/// What a worker is to do. Lies in shared memory as JSON, behind its length and before the snapshot and the area.
#[derive(Serialize, Deserialize)]
struct Orders {
    leader: Leader,
    owner: u32,
    job: Job,
    /// Values of columns are to be written by functions of their types.
    pinned: bool,
    /// Where in the segment the snapshot and the area begin.
    snapshot: usize,
    area: usize,
}

thread_local! {
    static WORKERS: RefCell<Vec<DynamicBackgroundWorker>> = const { RefCell::new(Vec::new()) };
}

/// Ends the workers of this session, without waiting. What they were at is not used.
pub fn leave() {
    for worker in WORKERS.take() {
        let _ending = worker.terminate();
    }
}

/// How many workers a job is worth.
fn wanted(job: &Job) -> usize {
    // SAFETY: plain reads. Workers cannot see what this transaction has written, nor read for a serializable one.
    let alone = unsafe {
        pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32
            || pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId
    };
    if alone {
        return 0;
    }
    (settings::verify_workers() - 1).min(job.chunks() / CHUNKS_A_WORKER)
}

/// Does a job, with workers if the settings and its size say so; the result is in `area`. Gives how many processes did it.
///
/// # Safety
/// The area is that of the job; the snapshot to read under is active.
pub unsafe fn work(job: Job, area: &Area, leader: Leader, owner: Oid, pinned: bool) -> Result<(Job, u32)> {
    let wanted = wanted(&job);
    let legacy = Oid::from(job.heaps[0].relation);
    if wanted == 0 {
        // SAFETY: the caller's.
        unsafe { scan::work(&job, area)? };
        return Ok((job, 1));
    }
    // SAFETY: the segment is as long as what is put into it, and mapped until it is let go of here, or by the abort.
    unsafe {
        let snapshot = pg_sys::GetActiveSnapshot();
        let mut orders = Orders {
            leader,
            owner: owner.to_u32(),
            job,
            pinned,
            snapshot: usize::MAX / 2,
            area: usize::MAX / 2,
        };
        let longest = serde_json::to_string(&orders)?.len();
        orders.snapshot = (size_of::<u64>() + longest).next_multiple_of(16);
        orders.area = (orders.snapshot + pg_sys::EstimateSnapshotSpace(snapshot)).next_multiple_of(16);
        let text = serde_json::to_string(&orders)?;
        let segment = pg_sys::dsm_create(orders.area + Area::size(&orders.job), 0);
        let base = pg_sys::dsm_segment_address(segment).cast::<u8>();
        base.cast::<u64>().write(text.len() as u64);
        std::ptr::copy_nonoverlapping(text.as_ptr(), base.add(size_of::<u64>()), text.len());
        pg_sys::SerializeSnapshot(snapshot, base.add(orders.snapshot).cast());
        base.add(orders.area).write_bytes(0, Area::size(&orders.job));
        let shared = Area::at(base.add(orders.area), &orders.job);
        shared.known().copy_from_slice(area.known());
        leave(); // what an error in a subtransaction has left
        let name = store::display_name(legacy)?;
        let mut started = 0;
        while started < wanted {
            let Some(worker) = start(TYPE, "partition_router_verify_worker", &name, segment) else {
                pgrx::notice!(
                    "{name}: {} of {} processes do the verify: no more background workers are free (max_worker_processes)",
                    started + 1,
                    wanted + 1
                );
                break;
            };
            WORKERS.with_borrow_mut(|workers| workers.push(worker));
            started += 1;
        }
        scan::work(&orders.job, &shared)?;
        while !shared.is_done() {
            if have_ended() {
                shared.reopen();
                scan::work(&orders.job, &shared)?;
            } else {
                locks::sleep(WAIT);
            }
        }
        leave();
        area.take(&shared);
        pg_sys::dsm_detach(segment);
        Ok((orders.job, started as u32 + 1))
    }
}

fn have_ended() -> bool {
    WORKERS.with_borrow(|workers| {
        workers.iter().all(|worker| {
            matches!(
                worker.pid(),
                Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
            )
        })
    })
}

/// A background worker's life.
///
/// # Safety
/// Called by the server with the handle of a segment made by [`work`].
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn partition_router_verify_worker(segment: pg_sys::Datum) {
    compat::end_at_sigterm();
    // SAFETY: the order of calls is that of the server's own workers.
    let segment = unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::CurrentResourceOwner =
            pg_sys::ResourceOwnerCreate(std::ptr::null_mut(), c"partition_router verify".as_ptr());
        pg_sys::dsm_attach(segment.value() as pg_sys::dsm_handle)
    };
    if segment.is_null() {
        return; // the leader has ended already
    }
    // SAFETY: the leader wrote the segment before it started this worker. It stays mapped until the worker ends.
    let base = unsafe {
        pg_sys::dsm_pin_mapping(segment);
        pg_sys::dsm_segment_address(segment).cast::<u8>()
    };
    // SAFETY: as above.
    let orders: Orders = report(|| unsafe {
        let length = base.cast::<u64>().read() as usize;
        let text = std::slice::from_raw_parts(base.add(size_of::<u64>()), length);
        Ok(serde_json::from_slice(text)?)
    });
    orders.leader.connect();
    transaction(ACTIVITY, || orders.leader.impersonate());
    if orders.leader.lives() {
        // SAFETY: the segment is mapped.
        unsafe { help(&orders, base) };
    }
}

/// Does chunks in a transaction that has the leader's snapshot.
///
/// # Safety
/// `base` is the segment that the orders are from.
unsafe fn help(orders: &Orders, base: *mut u8) {
    // SAFETY: the frame of a transaction, as parallel workers of the server have it: the leader's snapshot is taken over while
    // the leader holds it, which it does until all chunks are done.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as i32;
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, ACTIVITY.as_ptr());
        let leader = orders.leader.entry();
        if !leader.is_null() {
            let snapshot = pg_sys::RestoreSnapshot(base.add(orders.snapshot).cast());
            pg_sys::RestoreTransactionSnapshot(snapshot, leader.cast());
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            report(|| {
                lock(orders);
                let area = Area::at(base.add(orders.area), &orders.job);
                session::as_user(Oid::from(orders.owner), || {
                    let _settings = orders.pinned.then(super::pinned_output);
                    scan::work(&orders.job, &area)
                })
            });
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
}

/// Everything that chunks need.
fn lock(orders: &Orders) {
    let job = &orders.job;
    for (table, mode) in job
        .heaps
        .iter()
        .map(|heap| (heap.relation, pg_sys::AccessShareLock))
        .chain([(job.twin, pg_sys::RowExclusiveLock)])
    {
        // SAFETY: a lock that the transaction holds to its end.
        unsafe { pg_sys::LockRelationOid(Oid::from(table), mode as i32) };
    }
}
