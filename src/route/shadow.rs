//! Dark reads: a share of the reads that are routed to a twin runs on the legacy as well, in the same snapshot, and what
//! differs is noted. The client gets the routed answer, and never an error of the comparison, which runs in a subtransaction of
//! its own when the answer has been sent.
#![allow(unsafe_code)]

use super::choose::{AskedFor, Session};
use super::comparable::{self, Order};
use super::decide::Side;
use super::digest::Digest;
use super::mark::Mark;
use crate::error::Result;
use crate::{session, settings, spi};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{QueryDesc, ScanDirection};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::cell::Cell;
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

/// Longer queries are cut in `shadow_reads`, in bytes.
const QUERY_BYTES: usize = 8192;

static mut PREVIOUS_RUN: pg_sys::ExecutorRun_hook_type = None;

thread_local! {
    /// A comparison is going on: it is not itself compared, and not counted.
    static COMPARING: Cell<bool> = const { Cell::new(false) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// Called once, when the library is loaded.
pub fn init() {
    // SAFETY: a backend has one thread; whoever was there before is called in turn.
    unsafe {
        PREVIOUS_RUN = pg_sys::ExecutorRun_hook;
        pg_sys::ExecutorRun_hook = Some(run);
    }
}

/// Whether the statement that runs is the other half of a comparison.
pub fn is_comparing() -> bool {
    COMPARING.get()
}

/// A read that is to be compared. Allocated as the server allocates, since an error of the executor passes by without
/// destructors.
struct Sample {
    digest: *mut Digest,
    receiver: *mut pg_sys::DestReceiver,
    started: Instant,
    is_ordered: bool,
}

// SAFETY: the signature of executor.h; unguarded for the reason that `hook` has.
unsafe extern "C-unwind" {
    #[cfg(not(feature = "pg18"))]
    fn standard_ExecutorRun(desc: *mut QueryDesc, direction: ScanDirection::Type, count: u64, once: bool);
    #[cfg(feature = "pg18")]
    fn standard_ExecutorRun(desc: *mut QueryDesc, direction: ScanDirection::Type, count: u64);
}

#[cfg(not(feature = "pg18"))]
unsafe extern "C-unwind" fn run(
    desc: *mut QueryDesc,
    direction: ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: the server passes a statement to run, and so it is passed on.
    unsafe {
        let sample = begin_if_wanted(desc, direction, count);
        match PREVIOUS_RUN {
            None => standard_ExecutorRun(desc, direction, count, once),
            Some(previous) => previous(desc, direction, count, once),
        }
        if !sample.is_null() {
            compare(desc, sample);
        }
    }
}

#[cfg(feature = "pg18")]
unsafe extern "C-unwind" fn run(desc: *mut QueryDesc, direction: ScanDirection::Type, count: u64) {
    // SAFETY: the server passes a statement to run, and so it is passed on.
    unsafe {
        let sample = begin_if_wanted(desc, direction, count);
        match PREVIOUS_RUN {
            None => standard_ExecutorRun(desc, direction, count),
            Some(previous) => previous(desc, direction, count),
        }
        if !sample.is_null() {
            compare(desc, sample);
        }
    }
}

unsafe fn begin_if_wanted(desc: *mut QueryDesc, direction: ScanDirection::Type, count: u64) -> *mut Sample {
    if settings::shadow_sample() <= 0.0 || count != 0 || direction != ScanDirection::ForwardScanDirection {
        return null_mut();
    }
    // SAFETY: as in `run`.
    unsafe { begin(desc) }
}

/// Chooses whether a read is compared, and if so puts its digest between the executor and the client.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn begin(desc: *mut QueryDesc) -> *mut Sample {
    // SAFETY: the executor is about to run `desc`.
    unsafe {
        if COMPARING.get()
            || (*desc).instrument_options != 0
            || (*desc).already_executed
            || pg_sys::ParallelWorkerNumber >= 0
            || pg_sys::IsInParallelMode()
            || !Session::now().is_transparent()
        {
            return null_mut();
        }
        let Some(mark) = Mark::of((*desc).plannedstmt) else {
            return null_mut();
        };
        if !mark.places().any(|place| place.side == Side::Twin) || random() >= settings::shadow_sample() {
            return null_mut();
        }
        let Some(order) = comparable::order(mark.query()) else {
            return null_mut();
        };
        let digest = Digest::before((*desc).dest);
        let sample = pg_sys::palloc0(std::mem::size_of::<Sample>()).cast::<Sample>();
        *sample = Sample {
            digest,
            receiver: (*desc).dest,
            started: Instant::now(),
            is_ordered: order == Order::Total,
        };
        (*desc).dest = digest.cast();
        sample
    }
}

/// From 0 to below 1 (SplitMix64, begun with the process and the clock).
fn random() -> f64 {
    if RANDOM.get() == 0 {
        let clock = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64);
        RANDOM.set(clock ^ u64::from(std::process::id()).rotate_left(32));
    }
    let next = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(next);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// What the other side gave.
struct Other {
    rows: u64,
    is_equal: bool,
    took: Duration,
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn compare(desc: *mut QueryDesc, sample: *mut Sample) {
    // SAFETY: the sample was made by `begin` for this statement, which has run to its end.
    unsafe {
        let sample = &*sample;
        (*desc).dest = sample.receiver;
        let digest = &*sample.digest;
        let took = sample.started.elapsed().saturating_sub(digest.forwarding());
        COMPARING.set(true);
        let _comparing = Comparing;
        let other = protected(|| Ok(run_other(desc, digest, sample.is_ordered)));
        let noted = protected(|| note(desc, digest.rows(), took, &other));
        if let Err(error) = noted {
            pgrx::log!("partition_router could not note a shadow read: {error}");
        }
        Digest::free(sample.digest);
    }
}

struct Comparing;

impl Drop for Comparing {
    fn drop(&mut self) {
        COMPARING.set(false);
    }
}

/// Runs `body` in a subtransaction that an error ends; gives the error's text. Who cancels the statement cancels it.
unsafe fn protected<T>(body: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    // SAFETY: as PL/pgSQL does for a block with EXCEPTION: memory and resource owner are those from before in the end.
    unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(null_mut());
        pg_sys::MemoryContextSwitchTo(memory);
        let result = PgTryBuilder::new(AssertUnwindSafe(|| {
            let done = body();
            if done.is_ok() {
                pg_sys::ReleaseCurrentSubTransaction();
            } else {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
            done.map_err(|error| (error.to_string(), None))
        }))
        .catch_others(|caught| {
            let text = match &caught {
                CaughtError::PostgresError(report)
                | CaughtError::ErrorReport(report)
                | CaughtError::RustPanic { ereport: report, .. } => {
                    let ends = [
                        PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                        PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
                        PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN,
                    ]
                    .contains(&report.sql_error_code());
                    (report.message().to_string(), ends)
                }
            };
            pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            Err((text.0, text.1.then(|| Box::new(caught))))
        })
        .execute();
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
        match result {
            Err((_, Some(cancelled))) => cancelled.rethrow(),
            Err((text, None)) => Err(text),
            Ok(done) => Ok(done),
        }
    }
}

/// Runs the statement on the legacy, under the snapshot that it had.
unsafe fn run_other(desc: *mut QueryDesc, routed: &Digest, is_ordered: bool) -> Other {
    // SAFETY: as in `compare`; what is made here is closed here, or by the abort of the subtransaction.
    unsafe {
        let _asked = AskedFor::new(Side::Legacy);
        let mark = Mark::of((*desc).plannedstmt);
        pg_sys::PushActiveSnapshot((*desc).snapshot);
        let (query, options) = match mark {
            Some(mark) => (mark.query_to_plan(), mark.header().cursor_options),
            None => unreachable!("the statement had a mark when it began"),
        };
        let started = Instant::now();
        let plan = pg_sys::pg_plan_query(query, (*desc).sourceText, options, (*desc).params);
        let digest = Digest::before(pg_sys::None_Receiver);
        let other = pg_sys::CreateQueryDesc(
            plan,
            (*desc).sourceText,
            (*desc).snapshot,
            null_mut(),
            digest.cast(),
            (*desc).params,
            (*desc).queryEnv,
            0,
        );
        pg_sys::ExecutorStart(other, 0);
        let planned = started.elapsed();
        crate::compat::run_to_the_end(other);
        let took = started.elapsed().saturating_sub(planned);
        pg_sys::ExecutorFinish(other);
        pg_sys::ExecutorEnd(other);
        pg_sys::FreeQueryDesc(other);
        pg_sys::PopActiveSnapshot();
        let outcome = Other {
            rows: (*digest).rows(),
            is_equal: (*digest).equals(routed, is_ordered),
            took,
        };
        Digest::free(digest);
        outcome
    }
}

/// The text of the statement alone.
unsafe fn text_of(desc: *mut QueryDesc) -> String {
    // SAFETY: the text is a C string, and place and length are within it.
    unsafe {
        if (*desc).sourceText.is_null() {
            return String::new();
        }
        let all = CStr::from_ptr((*desc).sourceText).to_bytes();
        let start = usize::try_from((*(*desc).plannedstmt).stmt_location)
            .unwrap_or(0)
            .min(all.len());
        let length = match usize::try_from((*(*desc).plannedstmt).stmt_len) {
            Ok(length) if length > 0 => length,
            _ => all.len(),
        };
        let end = (start + length.min(QUERY_BYTES)).min(all.len());
        String::from_utf8_lossy(&all[start..end]).trim().to_string()
    }
}

/// Notes a comparison: in a table, or in the log where nothing can be written.
unsafe fn note(
    desc: *mut QueryDesc,
    rows: u64,
    took: Duration,
    other: &std::result::Result<Other, String>,
) -> Result<()> {
    // SAFETY: as in `compare`, and plain reads.
    let (text, is_read_only) = unsafe {
        (
            text_of(desc),
            pg_sys::XactReadOnly || pg_sys::RecoveryInProgress(),
        )
    };
    let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
    let (is_equal, other_rows, other_took, error) = match other {
        Ok(other) => (
            Some(other.is_equal),
            Some(other.rows as i64),
            Some(milliseconds(other.took)),
            None,
        ),
        Err(error) => (None, None, None, Some(error.as_str())),
    };
    if is_read_only {
        let verdict = match (is_equal, error) {
            (_, Some(error)) => format!("failed on the legacy: {error}"),
            (Some(true), None) => "equal".into(),
            _ => "DIFFERENT".into(),
        };
        pgrx::log!(
            "[PartitionRouting] shadow read: {verdict}; twin {rows} rows in {:.3} ms, legacy {} rows in {:.3} ms: {text}",
            milliseconds(took),
            other_rows.unwrap_or_default(),
            other_took.unwrap_or_default()
        );
        return Ok(());
    }
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.shadow_read
                 (query, is_equal, twin_rows, legacy_rows, twin_ms, legacy_ms, error)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                text.into(),
                is_equal.into(),
                (rows as i64).into(),
                other_rows.into(),
                milliseconds(took).into(),
                other_took.into(),
                error.into(),
            ],
        )
    })?;
    Ok(())
}
