//! The worker of an index build, seen from its leader, and its life. Orders go to it, and an error comes back, through
//! shared memory.

use super::ACTIVITY;
use crate::compat;
use crate::error::{Error, Remote, Result, report};
use crate::ident::RelName;
use crate::worker::{Leader, set, start as start_worker, transaction};
use crate::{calls, locks};
use pgrx::PgTryBuilder;
use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::CaughtError;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What `pg_stat_activity.backend_type` says of the worker.
const TYPE: &str = "partition_router index";
/// How long the leader waits before it lets go of its snapshot and waits again.
const WAIT: Duration = Duration::from_millis(50);
/// Room for an error, in bytes.
const ANSWER: usize = 16 * 1024;

/// What the worker is to do.
#[derive(Serialize, Deserialize)]
pub struct Orders {
    pub leader: Leader,
    pub relation: u32,
    pub definition: String,
    /// The leader's `search_path`: where names in the definition are looked up.
    pub path: String,
}

const AT_WORK: u32 = 0;
const DONE: u32 = 1;
const FAILED: u32 = 2;

/// Lies at the beginning of the segment; the orders follow, and behind them the answer.
#[repr(C)]
struct Header {
    state: AtomicU32,
    orders: u32,
    answer: u32,
}

struct Job {
    segment: *mut pg_sys::dsm_segment,
    worker: DynamicBackgroundWorker,
}

thread_local! {
    static JOB: RefCell<Option<Job>> = const { RefCell::new(None) };
}

pub fn is_there() -> bool {
    JOB.with_borrow(Option::is_some)
}

/// Ends the worker of this session, without waiting: its transaction has aborted.
pub fn leave() {
    if let Some(job) = JOB.take() {
        let _ending = job.worker.terminate();
        // SAFETY: made by `start`, and nothing points into it any more.
        unsafe { pg_sys::dsm_detach(job.segment) };
    }
}

/// Starts the worker.
///
/// # Errors
/// `NoWorker` when none is free.
pub fn start(relation: Oid, table: &RelName, definition: &str, path: &str) -> Result<()> {
    let orders = serde_json::to_string(&Orders {
        leader: Leader::this(),
        relation: relation.to_u32(),
        definition: definition.into(),
        path: path.into(),
    })?;
    // SAFETY: the segment is as long as what is written to it, and stays mapped beyond this transaction.
    let segment = unsafe {
        let segment = pg_sys::dsm_create(size_of::<Header>() + orders.len() + ANSWER, 0);
        pg_sys::dsm_pin_mapping(segment);
        let header = pg_sys::dsm_segment_address(segment).cast::<Header>();
        header.write(Header {
            state: AtomicU32::new(AT_WORK),
            orders: orders.len() as u32,
            answer: 0,
        });
        std::ptr::copy_nonoverlapping(orders.as_ptr(), header.add(1).cast::<u8>(), orders.len());
        segment
    };
    match start_worker(TYPE, "partition_router_index_worker", &table.to_string(), segment) {
        Some(worker) => {
            JOB.set(Some(Job { segment, worker }));
            Ok(())
        }
        None => {
            // SAFETY: nobody else has it.
            unsafe { pg_sys::dsm_detach(segment) };
            Err(Error::NoWorker {
                reason: "no more can be started".into(),
                hint: "Raise max_worker_processes, or call again when others have ended.".into(),
            })
        }
    }
}

/// Waits for the worker a moment; false when it has done all. What it failed with is raised.
pub fn wait() -> Result<bool> {
    locks::sleep(WAIT);
    let state = JOB.with_borrow(|job| job.as_ref().map(|job| (state_of(job), job.worker.pid())));
    let Some(((state, has_ended), pid)) = state else {
        return Ok(false);
    };
    if state == AT_WORK && !has_ended {
        if let Ok(pid) = pid {
            calls::tell_of(pid)?;
        }
        return Ok(true);
    }
    let Some(job) = JOB.take() else { return Ok(false) };
    // SAFETY: mapped until it is let go of here. The worker has written before it changed the state.
    let answer = unsafe {
        let answer = (state == FAILED).then(|| read_answer(job.segment));
        pg_sys::dsm_detach(job.segment);
        answer
    };
    match answer {
        Some(answer) => answer?.raise(),
        None if state == DONE => Ok(false),
        None => Err(Error::NoWorker {
            reason: "it has been ended".into(),
            hint: "Call again: what was built stays.".into(),
        }),
    }
}

/// The state in shared memory, and whether the process has ended: looked at first, so that a state that it leaves counts.
fn state_of(job: &Job) -> (u32, bool) {
    let has_ended = matches!(
        job.worker.pid(),
        Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
    );
    // SAFETY: the segment is mapped.
    let state = unsafe {
        (*pg_sys::dsm_segment_address(job.segment).cast::<Header>())
            .state
            .load(Ordering::Acquire)
    };
    (state, has_ended)
}

/// # Safety
/// The segment is mapped and its state is `FAILED`.
unsafe fn read_answer(segment: *mut pg_sys::dsm_segment) -> Result<Remote> {
    // SAFETY: the caller's promise.
    unsafe {
        let header = pg_sys::dsm_segment_address(segment).cast::<Header>();
        let answer = header.add(1).cast::<u8>().add((*header).orders as usize);
        let text = std::slice::from_raw_parts(answer, (*header).answer as usize);
        Ok(serde_json::from_slice(text)?)
    }
}

/// Runs `body`; what it raises, the server's errors and ours, is handed back when its transaction has been aborted.
pub fn attempt(body: impl FnOnce() -> Result<()>) -> std::result::Result<(), Box<CaughtError>> {
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        report(body);
        Ok(())
    }))
    .catch_others(|caught| Err(Box::new(caught)))
    .execute();
    if result.is_err() {
        // SAFETY: as the server's main loop does after an error.
        unsafe { pg_sys::AbortCurrentTransaction() };
    }
    result
}

/// The worker's life.
///
/// # Safety
/// Called by the server with the handle of a segment made by [`start`].
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn partition_router_index_worker(segment: pg_sys::Datum) {
    compat::end_at_sigterm();
    // SAFETY: the order of calls is that of the server's own workers.
    let segment = unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::CurrentResourceOwner =
            pg_sys::ResourceOwnerCreate(std::ptr::null_mut(), c"partition_router index".as_ptr());
        pg_sys::dsm_attach(segment.value() as pg_sys::dsm_handle)
    };
    if segment.is_null() {
        return; // the leader has ended already
    }
    // SAFETY: the leader wrote the segment before it started this worker. It stays mapped until the worker ends.
    let (header, orders) = unsafe {
        pg_sys::dsm_pin_mapping(segment);
        let header = pg_sys::dsm_segment_address(segment).cast::<Header>();
        let text = std::slice::from_raw_parts(header.add(1).cast::<u8>(), (*header).orders as usize);
        (header, text)
    };
    let orders: Orders = report(|| Ok(serde_json::from_slice(orders)?));
    orders.leader.connect();
    // Both sides of a pair get the index here: there is nothing to carry.
    crate::ddl::pending::own_process();
    let result = attempt(|| {
        transaction(ACTIVITY, || {
            orders.leader.impersonate()?;
            set("search_path", "pg_catalog, pg_temp")?;
            // A build waits for those who write, however long: nobody queues behind it.
            set("lock_timeout", "0")
        });
        super::build(&orders)
    });
    // SAFETY: the segment is mapped; nobody else writes the answer.
    unsafe {
        let state = match result {
            Ok(()) => DONE,
            Err(caught) => {
                write_answer(header, &Remote::from_caught(&caught));
                FAILED
            }
        };
        (*header).state.store(state, Ordering::Release);
    }
}

/// # Safety
/// The header of a segment made by [`start`], mapped.
unsafe fn write_answer(header: *mut Header, answer: &Remote) {
    let short = |text: &str| text.chars().take(1000).collect::<String>();
    let answer = Remote {
        message: short(&answer.message),
        detail: answer.detail.as_deref().map(short),
        hint: answer.hint.as_deref().map(short),
        ..answer.clone()
    };
    let text = report(|| Ok(serde_json::to_string(&answer)?));
    // SAFETY: three texts of a thousand characters, of at most six bytes each as JSON has them, would be too long only
    // for text that is all control characters: then the end is cut, and what is left is no JSON, which is an error too.
    unsafe {
        let room = (*header.cast::<Header>()).orders as usize;
        let length = text.len().min(ANSWER);
        let place = header.add(1).cast::<u8>().add(room);
        std::ptr::copy_nonoverlapping(text.as_ptr(), place, length);
        (*header).answer = length as u32;
    }
}
