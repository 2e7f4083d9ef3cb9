//! What every background worker of the extension has in common: it becomes who its leader is, with what the leader has set, and
//! does its work in transactions.
#![allow(unsafe_code)]

use crate::error::{Error, Result, report};
use pgrx::bgworkers::{BackgroundWorkerBuilder, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};

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

/// The session that workers work for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Leader {
    process: i32,
    database: u32,
    session_user: u32,
    /// The role to work as, when it is another than the session's.
    role: Option<String>,
    settings: Vec<(String, String)>,
}

impl Leader {
    /// This session.
    pub fn this() -> Leader {
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
            Leader {
                process: pg_sys::MyProcPid,
                database: pg_sys::MyDatabaseId.to_u32(),
                session_user: session_user.to_u32(),
                role: (role != session_user).then(|| text(pg_sys::GetUserNameFromId(role, false))),
                settings,
            }
        }
    }

    /// Connects this worker to the leader's database, as the leader's session user. Once, at the beginning of its life.
    pub fn connect(&self) {
        // SAFETY: the caller's.
        unsafe {
            pg_sys::BackgroundWorkerInitializeConnectionByOid(
                Oid::from(self.database),
                Oid::from(self.session_user),
                0,
            );
        }
    }

    /// Takes on the leader's role and settings, within a transaction.
    pub fn impersonate(&self) -> Result<()> {
        let role = self.role.iter().map(|role| ("role", role.as_str()));
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        role.chain(settings)
            .try_for_each(|(name, value)| set(name, value))
    }

    /// Whether the session is still there. It ends its workers itself; this is for the moment in which one starts while
    /// its leader ends.
    pub fn lives(&self) -> bool {
        !self.entry().is_null()
    }

    /// The leader's entry in the array of processes; null when it is gone.
    pub fn entry(&self) -> *mut pg_sys::PGPROC {
        // SAFETY: a look into the array of processes.
        unsafe { pg_sys::BackendPidGetProc(self.process) }
    }
}

/// Sets something for the rest of this worker's life.
pub fn set(name: &str, value: &str) -> Result<()> {
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
    Ok(())
}

/// Starts a worker of type `kind` for the table `name`: `function` gets the handle of `segment`. None when no more are free.
pub fn start(
    kind: &str,
    function: &str,
    name: &str,
    segment: *mut pg_sys::dsm_segment,
) -> Option<DynamicBackgroundWorker> {
    // SAFETY: the handle is to outlive the transaction; dsm handles fit a Datum.
    unsafe {
        let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let name: String = format!("{kind} of {name}").chars().take(60).collect();
        let worker = BackgroundWorkerBuilder::new(&name)
            .set_type(kind)
            .set_library("partition_router")
            .set_function(function)
            .set_argument(Some(pg_sys::Datum::from(pg_sys::dsm_segment_handle(segment))))
            .set_restart_time(None)
            .set_notify_pid(pg_sys::MyProcPid)
            .enable_spi_access()
            .load_dynamic();
        pg_sys::MemoryContextSwitchTo(previous);
        worker.ok()
    }
}

/// Runs `body` in a transaction of its own. An error ends the worker: the leader does what it leaves, and meets the same.
pub fn transaction<T>(activity: &CStr, body: impl FnOnce() -> Result<T>) -> T {
    // SAFETY: the frame of a transaction, as the server's own workers have it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
        let result = report(body);
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        result
    }
}
