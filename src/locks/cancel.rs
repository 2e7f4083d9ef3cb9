//! Ends of a statement that come together with a lock timeout.
//!
//! The server hears of a lock timeout, of a statement timeout and of a cancel by the same signal and the same flag
//! (`ProcessInterrupts`). Where several have come before it looks, for which a machine with more to do than processors is enough, it
//! reports the lock timeout and forgets the others: its statement ends either way. Our calls try again, and would never hear of them.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// `STATEMENT_TIMEOUT` of `utils/timeout.h`, from PostgreSQL 14 to 18.
const STATEMENT_TIMEOUT: c_int = 3;

unsafe extern "C" {
    fn get_timeout_active(id: c_int) -> bool;
}

thread_local! {
    static IS_LISTENING: Cell<bool> = const { Cell::new(false) };
}

/// Another process has sent SIGINT. Timeouts send it from this one.
static WAS_SENT: AtomicBool = AtomicBool::new(false);
/// The server's own handler, which is always called.
static SERVERS: AtomicUsize = AtomicUsize::new(0);

/// Notes who sends SIGINT, as long as it lives.
pub struct Listening {
    /// None where nobody has to be listened to here.
    servers: Option<libc::sigaction>,
    has_statement_timeout: bool,
}

impl Listening {
    pub fn begin() -> Self {
        // SAFETY: a look at one of the server's timeouts.
        let has_statement_timeout = unsafe { get_timeout_active(STATEMENT_TIMEOUT) };
        let mut listening = Listening {
            servers: None,
            has_statement_timeout,
        };
        // Work within work: the outer one listens.
        if IS_LISTENING.get() {
            return listening;
        }
        WAS_SENT.store(false, Ordering::Relaxed);
        // SAFETY: the handler is replaced by one that calls it, with its flags and its mask, and put back when this is dropped;
        // errors do not jump over that, as [`super::budget::subtransaction`] hands them back.
        unsafe {
            let mut found = MaybeUninit::<libc::sigaction>::zeroed();
            if libc::sigaction(libc::SIGINT, std::ptr::null(), found.as_mut_ptr()) != 0 {
                return listening;
            }
            let found = found.assume_init();
            let is_handler = !matches!(found.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
            if !is_handler || found.sa_flags & libc::SA_SIGINFO != 0 {
                return listening;
            }
            SERVERS.store(found.sa_sigaction, Ordering::Relaxed);
            let mut ours = found;
            ours.sa_sigaction = hear as *const () as usize;
            ours.sa_flags |= libc::SA_SIGINFO;
            if libc::sigaction(libc::SIGINT, &ours, std::ptr::null_mut()) == 0 {
                IS_LISTENING.set(true);
                listening.servers = Some(found);
            }
        }
        listening
    }

    /// After a lock timeout: ends the statement, if anything else was to.
    pub fn end_if_asked(&self) {
        // SAFETY: as above; and what the server's handler does, for the next look at interrupts.
        unsafe {
            if self.has_statement_timeout && !get_timeout_active(STATEMENT_TIMEOUT) {
                pgrx::ereport!(
                    ERROR,
                    pgrx::PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                    "canceling statement due to statement timeout"
                );
            }
            if WAS_SENT.load(Ordering::Relaxed) {
                pg_sys::QueryCancelPending = 1;
                pg_sys::InterruptPending = 1;
            }
        }
        pgrx::check_for_interrupts!();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(servers) = &self.servers {
            // SAFETY: puts back what was found.
            unsafe { libc::sigaction(libc::SIGINT, servers, std::ptr::null_mut()) };
            IS_LISTENING.set(false);
        }
    }
}

/// # Safety
/// Called for a signal, with what goes with `SA_SIGINFO`.
unsafe extern "C" fn hear(signal: c_int, about: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: it touches atomics alone; the server's handler is of this type as it was found without `SA_SIGINFO`.
    unsafe {
        if (*about).si_pid() != pg_sys::MyProcPid {
            WAS_SENT.store(true, Ordering::Relaxed);
        }
        let servers: extern "C" fn(c_int) = std::mem::transmute(SERVERS.load(Ordering::Relaxed));
        servers(signal);
    }
}
