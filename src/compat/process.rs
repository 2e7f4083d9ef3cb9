//! The process: its signals, its place among others, and the server it runs in.

use pgrx::pg_sys;
use std::ffi::c_int;

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnly {
    /// The server is a standby, or recovers from a backup.
    Recovery,
    Transaction,
}

/// Why this transaction can write nothing; none when it can.
pub fn read_only() -> Option<ReadOnly> {
    // SAFETY: plain reads.
    unsafe {
        if pg_sys::RecoveryInProgress() {
            Some(ReadOnly::Recovery)
        } else if pg_sys::XactReadOnly {
            Some(ReadOnly::Transaction)
        } else {
            None
        }
    }
}

/// Lets SIGTERM end this background worker at its next safe point, as it ends a session. What the server sets for workers
/// up to PostgreSQL 16 ends them in the middle of whatever they do.
pub fn end_at_sigterm() {
    unsafe extern "C-unwind" {
        fn die(signal: c_int);
    }
    // SAFETY: the server's own handler for its own signal; it only sets flags.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(SIGTERM, Some(die));
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(SIGTERM, Some(die));
    }
}

/// Lets SIGHUP ask this background worker to read the configuration again: [`reload_if_asked`] does it.
pub fn reload_at_sighup() {
    unsafe extern "C-unwind" {
        fn SignalHandlerForConfigReload(signal: c_int);
    }
    // SAFETY: the server's own handler for its own signal; it only sets a flag.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(SIGHUP, Some(SignalHandlerForConfigReload));
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(SIGHUP, Some(SignalHandlerForConfigReload));
    }
}

/// Reads the configuration again when SIGHUP has asked for it.
pub fn reload_if_asked() {
    // SAFETY: as the main loops of the server's own workers do, outside of a transaction.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// As POSIX numbers them.
const SIGTERM: c_int = 15;

const SIGHUP: c_int = 1;

/// The number of this backend's transaction, unlike any other of the backend.
pub fn local_transaction() -> pg_sys::LocalTransactionId {
    // SAFETY: a plain read.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15", feature = "pg16"))]
        {
            (*pg_sys::MyProc).lxid
        }
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        {
            (*pg_sys::MyProc).vxid.lxid
        }
    }
}
