//! Background workers that help with a backfill. A call with `partition_router.backfill_workers` above 1 musters a *crew*;
//! the calling session leads it and works along. Workers only do tasks ([`crate::backfill::help`]), each in a
//! transaction: whatever becomes of them, the leader finds what is left and does it.
//!
//! They connect as the leader's role and take over what the leader has set. They end when there is nothing to do for
//! them, and with the leader: its call dismisses them, and so does the abort of its transaction, in whatever way.
#![allow(unsafe_code)]

use crate::backfill::{self, Help};
use crate::error::{Result, report};
use crate::pair::store;
use crate::{compat, locks, session, settings, spi};
use pgrx::bgworkers::DynamicBackgroundWorker;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub mod alone;
mod leader;

pub use leader::{Leader, set, start, transaction};

/// What `pg_stat_activity` says that they do.
const ACTIVITY: &CStr = c"partition_router: helps with a backfill";
/// What `pg_stat_activity.backend_type` says of them.
const TYPE: &str = "partition_router backfill";

/// How long a worker waits before it looks for tasks again.
const IDLE: Duration = Duration::from_millis(20);

/// What a worker is to do. Lies in shared memory, behind a [`Header`], as JSON.
#[derive(Serialize, Deserialize)]
struct Orders {
    pair: i32,
    batch_rows: u64,
    pause: Duration,
    leader: Leader,
}

#[repr(C)]
struct Header {
    /// Processes at work: the leader and the workers that could be started.
    processes: AtomicU32,
    length: u32,
}

/// The workers of this session's backfill.
struct Crew {
    orders: *mut pg_sys::dsm_segment,
    workers: Vec<DynamicBackgroundWorker>,
}

thread_local! {
    static CREW: RefCell<Option<Crew>> = const { RefCell::new(None) };
    /// The shared memory of the crew that this process belongs to, as leader or worker.
    static HEADER: RefCell<Option<*const Header>> = const { RefCell::new(None) };
}

/// Hears of aborts. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) };
}

/// A call that fails, is cancelled or terminated always has a transaction that aborts: its workers go with it.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT
        && let Some(crew) = CREW.take()
    {
        crew.terminate();
    }
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        crate::parity::crew::leave();
        crate::index_build::leave();
        crate::maintenance::leave();
    }
}

/// How many processes share the work that this process does.
pub fn processes() -> u32 {
    HEADER.with_borrow(|header| {
        header.map_or(1, |header| {
            // SAFETY: the segment stays mapped as long as HEADER points into it.
            unsafe { (*header).processes.load(Ordering::Relaxed) }.max(1)
        })
    })
}

/// Starts the workers of a backfill, once a call, when there is work for them.
pub fn muster(relation: Oid, batch_rows: i32, pause: Duration) -> Result<()> {
    let wanted = settings::backfill_workers() - 1;
    if wanted == 0 || batch_rows < 1 || CREW.with_borrow(Option::is_some) {
        return Ok(());
    }
    let Some(pair) = backfill::wants_workers(relation)? else {
        return Ok(());
    };
    store::require_owner(pair.legacy)?;
    store::require_owner(pair.twin)?;
    let orders = Orders {
        pair: pair.id,
        batch_rows: batch_rows as u64,
        pause,
        leader: Leader::this(),
    };
    let segment = write_orders(&orders)?;
    // SAFETY: the segment is mapped until the crew is let go of.
    let header = unsafe { pg_sys::dsm_segment_address(segment) }.cast::<Header>();
    HEADER.set(Some(header));
    // The crew is known before its first worker: an error from here on ends all of them.
    CREW.set(Some(Crew {
        orders: segment,
        workers: Vec::new(),
    }));
    let name = store::display_name(pair.legacy)?;
    let mut started = 0;
    while started < wanted {
        let Some(worker) = leader::start(TYPE, "partition_router_backfill_worker", &name, segment) else {
            break;
        };
        CREW.with_borrow_mut(|crew| {
            if let Some(crew) = crew {
                crew.workers.push(worker);
            }
        });
        started += 1;
        // SAFETY: as above.
        unsafe { (*header).processes.fetch_add(1, Ordering::Relaxed) };
    }
    if started < wanted {
        pgrx::notice!(
            "{name}: {} of {} processes do the backfill: no more background workers are free (max_worker_processes)",
            started + 1,
            wanted + 1
        );
    }
    Ok(())
}

/// Puts the orders into shared memory, which stays until the crew is let go of.
fn write_orders(orders: &Orders) -> Result<*mut pg_sys::dsm_segment> {
    let text = serde_json::to_string(orders)?;
    // SAFETY: the segment is as long as what is written to it.
    unsafe {
        let segment = pg_sys::dsm_create(size_of::<Header>() + text.len(), 0);
        pg_sys::dsm_pin_mapping(segment); // beyond this transaction
        let header = pg_sys::dsm_segment_address(segment).cast::<Header>();
        header.write(Header {
            processes: AtomicU32::new(1),
            length: text.len() as u32,
        });
        std::ptr::copy_nonoverlapping(text.as_ptr(), header.add(1).cast::<u8>(), text.len());
        Ok(segment)
    }
}

/// Ends the workers of this session's backfill and waits until they are gone.
pub fn dismiss() {
    let Some(crew) = CREW.take() else { return };
    for worker in crew.terminate() {
        // A postmaster that has died takes all of us with it.
        let _ = worker.wait_for_shutdown();
    }
}

impl Crew {
    fn terminate(self) -> Vec<pgrx::bgworkers::TerminatingDynamicBackgroundWorker> {
        HEADER.set(None);
        let ending = self
            .workers
            .into_iter()
            .map(DynamicBackgroundWorker::terminate)
            .collect();
        // SAFETY: created by `write_orders`, and nothing points into it any more.
        unsafe { pg_sys::dsm_detach(self.orders) };
        ending
    }
}

/// A background worker's life.
///
/// # Safety
/// Called by the server with the handle of a segment made by [`write_orders`].
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn partition_router_backfill_worker(segment: pg_sys::Datum) {
    compat::end_at_sigterm();
    // SAFETY: the order of calls is that of the server's own workers.
    let orders = unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::CurrentResourceOwner =
            pg_sys::ResourceOwnerCreate(std::ptr::null_mut(), c"partition_router backfill".as_ptr());
        read_orders(segment.value() as pg_sys::dsm_handle)
    };
    let Some(orders) = report(|| orders) else {
        return; // the leader has gone already
    };
    orders.leader.connect();
    transaction(ACTIVITY, || prepare(&orders));
    while orders.leader.lives() {
        let next = transaction(ACTIVITY, || backfill::help(orders.pair, orders.batch_rows));
        match next {
            Help::Copied => locks::sleep(orders.pause),
            Help::GoOn => {}
            Help::Wait => idle(),
            Help::Leave => break,
        }
    }
}

/// # Safety
/// At the beginning of a worker's life.
unsafe fn read_orders(handle: pg_sys::dsm_handle) -> Result<Option<Orders>> {
    // SAFETY: the leader wrote the segment before it started this worker. It stays mapped until the worker ends.
    unsafe {
        let segment = pg_sys::dsm_attach(handle);
        if segment.is_null() {
            return Ok(None);
        }
        pg_sys::dsm_pin_mapping(segment);
        let header = pg_sys::dsm_segment_address(segment).cast::<Header>();
        HEADER.set(Some(header));
        let text = std::slice::from_raw_parts(header.add(1).cast::<u8>(), (*header).length as usize);
        Ok(Some(serde_json::from_slice(text)?))
    }
}

/// Becomes who the leader is, with what the leader has set; shows that it is there (the view `progress` counts them).
fn prepare(orders: &Orders) -> Result<()> {
    orders.leader.impersonate()?;
    session::with_own_tables(|| {
        spi::execute(
            "SELECT pg_catalog.pg_advisory_lock_shared('partition_router.copy_state'::regclass::oid::int, $1)",
            &[orders.pair.into()],
        )
    })?;
    Ok(())
}

fn idle() {
    // SAFETY: outside of a transaction, as the server asks for.
    unsafe { pg_sys::pgstat_report_stat(true) };
    locks::sleep(IDLE);
}
