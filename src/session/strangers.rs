//! Code of users that runs in the middle of a statement of the extension: a constant of a domain is checked when the
//! statement is parsed, a function of constants runs when it is planned. [`super::as_user`] is the answer where a whole statement may
//! run as the table's owner. This is for those that may not, as they need rights that the owner has not: functions of users that
//! the server calls meanwhile run as the owner, or not at all.
//!
//! The server asks a hook of every function that is neither built in nor in C, so nothing that a role without superuser rights
//! can write gets past it, inlined functions included.
#![allow(unsafe_code)]

use super::{SettingsGuard, UserGuard, current_user};
use crate::error::{self, Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::{FmgrHookEventType, Oid};
use std::cell::RefCell;

/// `internal` and `c` (`INTERNALlanguageId`, `ClanguageId`).
const LANGUAGES_OF_SUPERUSERS: [u32; 2] = [12, 13];

/// What becomes of a function that is neither built in nor in C.
#[derive(Clone, Copy)]
enum Rule {
    RunAs(Oid),
    Refuse,
    /// It is a superuser's, and so is what it calls.
    Trust,
}

struct Guarded {
    /// Whose rights are to be kept from users' functions; one that runs as somebody else already is left alone.
    user: Oid,
    rule: Rule,
}

thread_local! {
    static GUARDS: RefCell<Vec<Guarded>> = const { RefCell::new(Vec::new()) };
    /// One entry a function that runs through the hook, innermost last.
    static RUNNING: RefCell<Vec<Running>> = const { RefCell::new(Vec::new()) };
}

static PREVIOUS: std::sync::OnceLock<(pg_sys::needs_fmgr_hook_type, pg_sys::fmgr_hook_type)> =
    std::sync::OnceLock::new();

/// Puts the hooks in place. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the backend has one thread; the functions belong to this library, which is never unloaded.
    unsafe {
        PREVIOUS.get_or_init(|| (pg_sys::needs_fmgr_hook, pg_sys::fmgr_hook));
        pg_sys::needs_fmgr_hook = Some(is_needed);
        pg_sys::fmgr_hook = Some(call);
    }
}

/// What a function that runs holds, to be let go when it ends.
#[allow(dead_code)] // dropping is all
enum Running {
    Unchanged,
    AsOwner(UserGuard),
    Trusted(Guard),
}

/// Takes its rule away again, also when an error unwinds through it.
struct Guard;

impl Guard {
    fn new(user: Oid, rule: Rule) -> Guard {
        GUARDS.with_borrow_mut(|guards| guards.push(Guarded { user, rule }));
        Guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDS.with_borrow_mut(Vec::pop);
    }
}

/// Runs `body` with the rights of the current user, but for the functions of users: they run as `owner`, whose tables `body`
/// is about.
pub fn as_owner<T>(owner: Oid, body: impl FnOnce() -> T) -> T {
    let _guard = (owner != current_user()).then(|| {
        (
            Guard::new(current_user(), Rule::RunAs(owner)),
            SettingsGuard::new(),
        )
    });
    body()
}

/// Runs `body` with the rights of the current user, and refuses functions of users.
pub fn refused<T>(body: impl FnOnce() -> T) -> T {
    let _guard = Guard::new(current_user(), Rule::Refuse);
    body()
}

/// What is to be done about a function.
fn rule_for(function: Oid) -> Option<Rule> {
    let rule = GUARDS.with_borrow(|guards| {
        let guard = guards.last()?;
        (guard.user == current_user()).then_some(guard.rule)
    })?;
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return None;
    }
    // SAFETY: a look into the catalog's cache, released at once; the tuple of a function has this shape.
    let (language, result, owner) = unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, function.into());
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let found = (form.prolang, form.prorettype, form.proowner);
        pg_sys::ReleaseSysCache(tuple);
        found
    };
    // What is in C a superuser has installed.
    if LANGUAGES_OF_SUPERUSERS.contains(&language.to_u32()) {
        return None;
    }
    // So he has triggers on the extension's own tables, and event triggers, which are his alone.
    let is_trigger = [pg_sys::TRIGGEROID, pg_sys::EVENT_TRIGGEROID].contains(&result);
    // SAFETY: a look into the catalog's cache.
    if is_trigger && unsafe { pg_sys::superuser_arg(owner) } {
        return Some(Rule::Trust);
    }
    Some(rule)
}

/// Asked by the server when it looks a function up.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn is_needed(function: Oid) -> bool {
    let previous = PREVIOUS.get().and_then(|hooks| hooks.0);
    // SAFETY: the hook that was there before, called as the server would.
    previous.is_some_and(|hook| unsafe { hook(function) }) || rule_for(function).is_some()
}

/// Called by the server around each function that one of the hooks wants, or that changes rights or settings itself.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn call(
    event: FmgrHookEventType::Type,
    info: *mut pg_sys::FmgrInfo,
    argument: *mut pg_sys::Datum,
) {
    if let Some(hook) = PREVIOUS.get().and_then(|hooks| hooks.1) {
        // SAFETY: the hook that was there before, with what the server gave.
        unsafe { hook(event, info, argument) };
    }
    if event == FmgrHookEventType::FHET_START {
        // SAFETY: the server gives the function that it is about to call.
        let function = unsafe { (*info).fn_oid };
        let guard = error::report(|| begin(function));
        RUNNING.with_borrow_mut(|running| running.push(guard));
    } else {
        // Puts the rights back.
        drop(RUNNING.with_borrow_mut(Vec::pop));
    }
}

fn begin(function: Oid) -> Result<Running> {
    match rule_for(function) {
        None => Ok(Running::Unchanged),
        Some(Rule::RunAs(owner)) => Ok(Running::AsOwner(UserGuard::switch(owner))),
        // A rule for nobody, on top of that which is for everybody else.
        Some(Rule::Trust) => Ok(Running::Trusted(Guard::new(Oid::INVALID, Rule::Refuse))),
        Some(Rule::Refuse) => {
            // SAFETY: a look into the catalog; the text is the server's, copied here.
            let name = unsafe {
                let name = pg_sys::format_procedure(function);
                std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()
            };
            Err(Error::UsersCode { function: name })
        }
    }
}
