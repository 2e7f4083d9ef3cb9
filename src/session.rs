//! Who the current code runs as, and with which `search_path`. Each guard puts back what it found, also when an
//! error unwinds through it.
#![allow(unsafe_code)]

pub mod strangers;

use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::{CStr, c_int};

/// The superuser that `initdb` made (`BOOTSTRAP_SUPERUSERID`).
const BOOTSTRAP_SUPERUSER: u32 = 10;

struct UserGuard {
    user: Oid,
    context: c_int,
}

impl UserGuard {
    fn switch(user: Oid) -> Self {
        let mut saved = UserGuard {
            user: Oid::INVALID,
            context: 0,
        };
        let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        // SAFETY: plain reads and writes of the backend's user id; they neither allocate nor raise.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved.user, &mut saved.context);
            pg_sys::SetUserIdAndSecContext(user, saved.context | flags as c_int);
        }
        saved
    }
}

impl Drop for UserGuard {
    fn drop(&mut self) {
        // SAFETY: as in `switch`.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

/// What code of users sets while it lives goes with it. A plain SET would outlive the function that it is in, also one that pins
/// the same setting: the caller's session would look for its functions where the owner of a table wants.
struct SettingsGuard {
    level: c_int,
}

impl SettingsGuard {
    fn new() -> Self {
        // SAFETY: the level is closed in `drop`, in the reverse order of its opening.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        SettingsGuard { level }
    }
}

impl Drop for SettingsGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `level` was opened by `new`. When an error unwinds, the server's abort closes it instead.
            unsafe { pg_sys::AtEOXact_GUC(false, self.level) };
        }
    }
}

/// Runs `body` as `user`, in a security-restricted operation: it cannot change roles, nor settings for good.
pub fn as_user<T>(user: Oid, body: impl FnOnce() -> T) -> T {
    let _guard = UserGuard::switch(user);
    let _settings = SettingsGuard::new();
    body()
}

/// Runs `body` with the right to read and write the extension's own tables. `body` must name nothing but them
/// and run no expression that a user can define: one is refused. Operators are looked up as names are: triggers come here with the
/// `search_path` of whoever writes, so it is pinned.
pub fn with_own_tables<T>(body: impl FnOnce() -> T) -> T {
    let _path = PinnedSettings::search_path();
    as_user(Oid::from(BOOTSTRAP_SUPERUSER), || strangers::refused(body))
}

/// Runs `body` with the right to read every row of a table of `owner`, whose functions run as he does.
pub fn with_all_rows_of<T>(owner: Oid, body: impl FnOnce() -> T) -> T {
    let _path = PinnedSettings::search_path();
    as_user(Oid::from(BOOTSTRAP_SUPERUSER), || {
        strangers::as_owner(owner, body)
    })
}

/// The server, as `initdb` numbered it, and the database: numbers of files and of transactions mean nothing in another one.
pub fn server() -> String {
    // SAFETY: plain reads.
    unsafe {
        format!(
            "{}/{}",
            pg_sys::GetSystemIdentifier(),
            pg_sys::MyDatabaseId.to_u32()
        )
    }
}

/// The current user.
pub fn current_user() -> Oid {
    // SAFETY: a plain read.
    unsafe { pg_sys::GetUserId() }
}

/// # Errors
/// `0A000` in a transaction whose snapshot stays as it is: it could take a table for empty that is not.
pub fn require_read_committed(call: &str) -> Result<()> {
    // SAFETY: a plain read.
    if unsafe { pg_sys::XactIsoLevel } <= pg_sys::XACT_READ_COMMITTED as c_int {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("cannot {call} in a transaction with isolation level REPEATABLE READ or SERIALIZABLE"),
        hint: "Use a transaction with isolation level READ COMMITTED.".into(),
    })
}

/// While it lives, the named settings have other values. Also those that only a superuser may set: values never come
/// from a caller.
pub struct PinnedSettings {
    level: c_int,
}

impl PinnedSettings {
    /// A `search_path` that nobody but a superuser can put anything into.
    pub fn search_path() -> Self {
        PinnedSettings::new(&[(c"search_path", "pg_catalog, pg_temp")])
    }

    pub fn new(settings: &[(&CStr, &str)]) -> Self {
        // SAFETY: the nest level is closed in `drop`, in the reverse order of its opening; the server copies the values.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in settings {
                let value = pg_sys::pnstrdup(value.as_ptr().cast(), value.len());
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value,
                    pg_sys::GucContext::PGC_SUSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            PinnedSettings { level }
        }
    }
}

impl Drop for PinnedSettings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: `level` was opened by `new`. When an error unwinds, the server's abort closes it instead.
            unsafe { pg_sys::AtEOXact_GUC(true, self.level) };
        }
    }
}
