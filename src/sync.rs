//! The dual write. Triggers on both sides of a pair call [`sync_trigger`]; what it does depends on the trigger's
//! arguments: `capture` logs the keys of changed rows while the copy runs, `live` carries the changes to the
//! other side, `reject` refuses writes to a twin that is not live yet, `guard` those to a guard but through its table.
//!
//! Statement triggers with transition tables see a whole statement at once. They do not fire in a logical
//! replication worker, where the row trigger takes their place. See docs/architecture.md, "Sync".
#![allow(unsafe_code)]

pub mod actions;
pub mod apply;
pub mod batch;
pub mod bulk;
pub mod capture;
mod elsewhere;
pub mod frames;
pub mod kept;
pub mod leaf;
#[cfg(not(feature = "pg14"))]
mod merge;
pub mod pair_cache;
pub mod reconcile;
pub mod relation;
pub mod routing;
pub mod rows;
mod scan;
pub mod side;
pub mod triggers;
mod truncate;
mod twin_ready;
mod write;

use crate::error::{self, Constraint, Error, Result, Said};
use crate::observe::sync_errors;
use crate::pair::store;
use crate::session::{self, PinnedSettings};
use frames::Event;
use pair_cache::SyncPair;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::{CStr, CString};
use std::str::FromStr;

/// Registers what the sync needs to hear of. Called once, when the library is loaded.
pub fn init() {
    frames::init();
    #[cfg(not(feature = "pg14"))]
    merge::init();
    pair_cache::init();
    kept::init();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TriggerMode {
    Capture,
    Live,
    Reject,
    Guard,
}

/// One firing of a sync trigger.
pub struct Firing {
    pub relation: pg_sys::Relation,
    pub relation_oid: Oid,
    pub event: Event,
    pub rows: Rows,
}

/// The rows that a firing is about.
pub enum Rows {
    /// Of a whole statement: the transition tables, null where the event has none.
    Statement {
        old: *mut pg_sys::Tuplestorestate,
        new: *mut pg_sys::Tuplestorestate,
    },
    /// Of a row trigger: null where the event has none.
    One {
        old: pg_sys::HeapTuple,
        new: pg_sys::HeapTuple,
    },
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_sync_trigger() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The trigger function `partition_router.sync()`.
///
/// # Safety
/// Called by the server's function manager.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn sync_trigger(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    error::report(|| {
        // SAFETY: the server passes trigger data of this shape to a function called as a trigger.
        let data = unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Error::Unsupported {
                    what: "partition_router.sync() was not called as a trigger".into(),
                    hint: "It is installed by partition_router.start_sync().".into(),
                });
            }
            &mut *context.cast::<pg_sys::TriggerData>()
        };
        if !frames::is_suppressed() {
            // SAFETY: `data` is what the server passed.
            unsafe { fire(data) }?;
        }
        Ok(pg_sys::Datum::from(0))
    })
}

/// # Safety
/// `data` was passed by the server to a trigger function.
unsafe fn fire(data: &mut pg_sys::TriggerData) -> Result<()> {
    // SAFETY: the caller's promise.
    let (pair_id, mode) = unsafe { arguments(data) }?;
    let bits = data.tg_event;
    let is_row = bits & pg_sys::TRIGGER_EVENT_ROW != 0;
    let is_before = bits & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE;
    let relation = data.tg_relation;
    // SAFETY: the caller's promise.
    let relation_oid = unsafe { (*relation).rd_id };
    let pair = pair_cache::get(pair_id)?;
    if mode == TriggerMode::Live && pair.is_waiting {
        return Ok(());
    }
    require_owned(&pair, relation)?;
    if mode == TriggerMode::Reject {
        return Err(twin_ready::refusal(&pair, relation));
    }
    if mode == TriggerMode::Guard {
        return Err(Error::GuardWritten {
            // SAFETY: the relation that fired is open.
            guard: unsafe { relation::relation_name(relation) },
            table: store::display_name(pair.twin)?,
        });
    }
    let event = match bits & pg_sys::TRIGGER_EVENT_OPMASK {
        pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
        pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
        pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
        _ => {
            if relation_oid != pair.legacy && !pair.is_live {
                return Err(twin_ready::refusal(&pair, relation));
            }
            return truncate::carry(&pair, relation_oid, mode == TriggerMode::Live);
        }
    };
    if is_before {
        if relation_oid != pair.legacy && !pair.is_live {
            return Err(twin_ready::refusal(&pair, relation)); // before any row is touched
        }
        frames::push(pair_id, relation_oid, event);
        return Ok(());
    }
    // In a worker of logical replication every change has a row event, and only some have a statement event.
    // SAFETY: a plain read.
    if !is_row && unsafe { pg_sys::IsLogicalWorker() } {
        return Ok(());
    }
    let firing = Firing {
        relation,
        relation_oid,
        event,
        rows: if is_row {
            Rows::One {
                old: if event == Event::Insert {
                    std::ptr::null_mut()
                } else {
                    data.tg_trigtuple
                },
                new: match event {
                    Event::Insert => data.tg_trigtuple,
                    Event::Update => data.tg_newtuple,
                    Event::Delete => std::ptr::null_mut(),
                },
            }
        } else {
            Rows::Statement {
                old: data.tg_oldtable,
                new: data.tg_newtable,
            }
        },
    };
    if relation_oid != pair.legacy {
        twin_ready::require(&pair, relation, event)?;
    }
    let from_legacy = relation_oid == pair.legacy;
    as_owner(&pair, from_legacy, || match mode {
        TriggerMode::Capture => capture::log_keys(&pair, &firing),
        _ => apply::carry(&pair, &firing),
    })
    .inspect_err(|error| sync_errors::count(pair.legacy, error.sqlstate()))
}

/// Anybody may put the trigger on a table of their own, with any pair's number.
///
/// # Errors
/// `PR015` when `relation` is no table of the pair.
fn require_owned(pair: &SyncPair, relation: pg_sys::Relation) -> Result<()> {
    // SAFETY: the relation that fired is open.
    if pair.owns(unsafe { (*relation).rd_id }) {
        return Ok(());
    }
    Err(Error::Sync {
        // SAFETY: as above.
        relation: unsafe { relation::relation_name(relation) },
        reason: format!("it is no table of pair {}", pair.id),
        hint: "Drop its partition_router triggers.".into(),
    })
}

/// # Safety
/// `data` was passed by the server to a trigger function.
unsafe fn arguments(data: &pg_sys::TriggerData) -> Result<(i32, TriggerMode)> {
    let wrong = || Error::Internal("a sync trigger has wrong arguments".into());
    // SAFETY: tgargs has tgnargs C strings.
    let text = |i: usize| unsafe {
        let trigger = data.tg_trigger;
        if i >= (*trigger).tgnargs as usize {
            return Err(wrong());
        }
        CStr::from_ptr(*(*trigger).tgargs.add(i))
            .to_str()
            .map_err(|_| wrong())
    };
    let mode = match text(1)? {
        "capture" => TriggerMode::Capture,
        "live" => TriggerMode::Live,
        "reject" => TriggerMode::Reject,
        "guard" => TriggerMode::Guard,
        _ => return Err(wrong()),
    };
    Ok((i32::from_str(text(0)?).map_err(|_| wrong())?, mode))
}

/// Classes of SQLSTATEs that say nothing of the sync: constraints, serialization, locks, resources, cancels.
const NOT_OURS: [&str; 5] = ["23", "40", "53", "55", "57"];

/// Runs `body` as the table's owner in a security-restricted operation, with a pinned `search_path` where the pair's
/// tables have expressions that could look up a name.
fn as_owner(pair: &SyncPair, from_legacy: bool, body: impl FnOnce() -> Result<()>) -> Result<()> {
    error::explaining(
        || {
            session::as_user(pair.legacy_owner, || {
                let _path = pair.has_expressions.then(PinnedSettings::search_path);
                body()
            })
        },
        |code, constraint| {
            let shown = constraint.and_then(|behind| shown_for(pair, behind));
            let refused = [
                PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
                PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
                PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
                PgSqlErrorCode::ERRCODE_EXCLUSION_VIOLATION,
            ];
            let is_refused = refused.contains(&code) && shown.is_none();
            let sqlstate = error::decode(code as i32);
            // What the legacy has refused before, or refuses whoever writes to the twin, is the writer's affair; so is whoever
            // cancels or stands in his way.
            if is_refused && from_legacy || !NOT_OURS.iter().any(|class| sqlstate.starts_with(class)) {
                sync_errors::count(pair.legacy, &sqlstate);
            }
            Said {
                hint: is_refused.then_some(
                    "The other side of a partition_router pair refused the change: see \
                     partition_router.mismatches() and partition_router.health.",
                ),
                constraint: shown,
            }
        },
    )
}

/// What the twin can check within a partition alone is checked by the side behind it, for the constraint that whoever writes knows.
fn shown_for(pair: &SyncPair, behind: &Constraint) -> Option<Constraint> {
    let name = pair.unique_names.get(behind.name.to_str().ok()?)?;
    Some(Constraint {
        schema: pair.twin_name.0.clone(),
        table: pair.twin_name.1.clone(),
        name: CString::new(name.as_str()).ok()?,
    })
}
