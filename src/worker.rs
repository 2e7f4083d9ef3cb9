//! Background workers that help with a backfill. A call with `partition_router.backfill_workers` above 1 musters a *crew*;
//! the calling session leads it and works along. Workers only do tasks ([`crate::backfill::help`]), each in a
//! transaction: whatever becomes of them, the leader finds what is left and does it.
//!
//! They connect as the leader's role and take over what the leader has set. They end when there is nothing to do for
//! them, and with the leader: its call dismisses them, and so does the abort of its transaction, in whatever way.
#![allow(unsafe_code)]

use crate::backfill::{self, Help};
use crate::error::{Error, Result, report};
use crate::pair::store;
use crate::{compat, locks, session, settings, spi};
use pgrx::bgworkers::{BackgroundWorkerBuilder, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What `pg_stat_activity.backend_type` says of them.
const TYPE: &str = "partition_router backfill";

/// Settings of the leader that matter to what workers do, such that every role may set.
const PINNED: [&CStr; 7] = [
    c"lock_timeout",
    c"partition_router.lock_timeout",
    c"maintenance_work_mem",
    c"work_mem",
    c"default_tablespace",
    c"synchronous_commit",
    c"application_name",
];

/// How long a worker waits before it looks for tasks again.
const IDLE: Duration = Duration::from_millis(20);

/// What a worker is to do. Lies in shared memory, behind a [`Header`], as JSON.
#[derive(Serialize, Deserialize)]
struct Orders {
    pair: i32,
    batch_rows: u64,
    pause: Duration,
    leader: i32,
    database: u32,
    session_user: u32,
    /// The role to work as, when it is another than the session's.
    role: Option<String>,
    settings: Vec<(String, String)>,
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
}

/// How many processes share the work that this process does.
pub fn processes() -> u32 {
    // SAFETY: the segment stays mapped as long as HEADER points into it.
    HEADER.with_borrow(|header| {
        header.map_or(1, |header| {
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
    let orders = orders(pair.id, batch_rows as u64, pause)?;
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
        let Some(worker) = start(&name, segment) else {
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

fn orders(pair: i32, batch_rows: u64, pause: Duration) -> Result<Orders> {
    // SAFETY: plain reads of this backend's state; names and values are copied.
    unsafe {
        let (session_user, role) = (pg_sys::GetSessionUserId(), pg_sys::GetUserId());
        let text = |value: *const std::ffi::c_char| CStr::from_ptr(value).to_string_lossy().into_owned();
        let settings = PINNED
            .iter()
            .filter_map(|name| {
                let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
                (!value.is_null()).then(|| (name.to_string_lossy().into_owned(), text(value)))
            })
            .collect();
        Ok(Orders {
            pair,
            batch_rows,
            pause,
            leader: pg_sys::MyProcPid,
            database: pg_sys::MyDatabaseId.to_u32(),
            session_user: session_user.to_u32(),
            role: (role != session_user).then(|| text(pg_sys::GetUserNameFromId(role, false))),
            settings,
        })
    }
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

fn start(name: &str, segment: *mut pg_sys::dsm_segment) -> Option<DynamicBackgroundWorker> {
    // SAFETY: the handle is to outlive the transaction; dsm handles fit a Datum.
    unsafe {
        let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let name: String = format!("{TYPE} of {name}").chars().take(60).collect();
        let worker = BackgroundWorkerBuilder::new(&name)
            .set_type(TYPE)
            .set_library("partition_router")
            .set_function("partition_router_backfill_worker")
            .set_argument(Some(pg_sys::Datum::from(pg_sys::dsm_segment_handle(segment))))
            .set_restart_time(None)
            .set_notify_pid(pg_sys::MyProcPid)
            .enable_spi_access()
            .load_dynamic();
        pg_sys::MemoryContextSwitchTo(previous);
        worker.ok()
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
    // SAFETY: once, at the beginning of the worker's life.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            Oid::from(orders.database),
            Oid::from(orders.session_user),
            0,
        );
    }
    transaction(|| prepare(&orders));
    while leader_lives(&orders) {
        let next = transaction(|| backfill::help(orders.pair, orders.batch_rows));
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
    let role = orders.role.iter().map(|role| ("role", role.as_str()));
    let settings = orders
        .settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in role.chain(settings) {
        let c_string = |text| CString::new(text).map_err(|e| Error::Internal(format!("{e}")));
        let (name, value) = (c_string(name)?, c_string(value)?);
        // SAFETY: the server copies the strings, and checks that the session's user may set this.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
            );
        }
    }
    session::with_own_tables(|| {
        spi::execute(
            "SELECT pg_catalog.pg_advisory_lock_shared('partition_router.copy_state'::regclass::oid::int, $1)",
            &[orders.pair.into()],
        )
    })?;
    Ok(())
}

/// Runs `body` in a transaction of its own. An error ends the worker: the leader does what it leaves, and meets the same.
fn transaction<T>(body: impl FnOnce() -> Result<T>) -> T {
    // SAFETY: the frame of a transaction, as the server's own workers have it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::pgstat_report_activity(
            pg_sys::BackendState::STATE_RUNNING,
            c"partition_router: helps with a backfill".as_ptr(),
        );
        let result = report(body);
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        result
    }
}

/// Whether the session that mustered this worker is still there. It ends its workers itself; this is for the moment
/// in which one starts while its leader ends.
fn leader_lives(orders: &Orders) -> bool {
    // SAFETY: a look into the array of processes.
    unsafe { !pg_sys::BackendPidGetProc(orders.leader).is_null() }
}

fn idle() {
    // SAFETY: outside of a transaction, as the server asks for.
    unsafe { pg_sys::pgstat_report_stat(true) };
    locks::sleep(IDLE);
}
