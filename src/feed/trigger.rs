//! The trigger of a change feed: takes the keys of changed rows into the [`Buffer`] of this transaction. They reach the outbox in
//! bulk, and the consumer is woken, when the transaction commits. The outbox is written past permissions, without SQL, so that
//! whoever may write the table needs no right on it.
#![allow(unsafe_code)]

use super::buffer::{BATCH, Buffer, Change, Key};
use crate::compat;
use crate::error::{self, Error, Result};
use crate::parity;
use crate::sync::frames;
use pgrx::pg_sys;
use pgrx::pg_sys::{Oid, SubTransactionId};
use pgrx::{PgMemoryContexts, varlena_to_byte_slice};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_int};
use std::rc::Rc;

/// The channel on which a commit wakes consumers.
pub const CHANNEL: &CStr = c"partition_router_changes";

/// How a value of a key column becomes text.
#[derive(Debug, Clone, Copy)]
enum Output {
    Small,
    Normal,
    Big,
    Text,
    Function(Oid),
}

/// What a trigger does for one table.
struct Told {
    command: pg_sys::CommandId,
    feed: i32,
    notify: bool,
    /// None where a column is gone: then every key is told of.
    columns: Option<Vec<(c_int, Output)>>,
    /// Some output depends on settings.
    pinned: bool,
}

thread_local! {
    static BUFFER: RefCell<Buffer> = RefCell::default();
    /// By table and trigger; DDL makes it old, and comes with another command.
    static TOLD: RefCell<HashMap<(Oid, Oid), Rc<Told>>> = RefCell::default();
}

/// Hears of commits and aborts. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if [XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE].contains(&event) {
        if BUFFER.with_borrow(Buffer::is_empty) {
            return;
        }
        error::report(write);
        // A transaction that is prepared may not notify: its consumer finds the changes when it looks.
        if event == XACT_EVENT_PRE_COMMIT && BUFFER.with_borrow(Buffer::is_loud) {
            // SAFETY: within a transaction; both are C strings.
            unsafe { compat::Async_Notify(CHANNEL.as_ptr(), c"".as_ptr()) };
        }
    } else if [XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE].contains(&event) {
        BUFFER.set(Buffer::default());
        TOLD.with_borrow_mut(HashMap::clear);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: SubTransactionId,
    parent: SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    BUFFER.with_borrow_mut(|buffer| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => buffer.commit(subtransaction, parent),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => buffer.abort(subtransaction),
        _ => {}
    });
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_change_feed() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The trigger function `partition_router.change_feed()`.
///
/// # Safety
/// Called by the server's function manager.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn change_feed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    error::report(|| {
        // SAFETY: the server passes trigger data of this shape to a function called as a trigger.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Error::Unsupported {
                    what: "partition_router.change_feed() was not called as a trigger".into(),
                    hint: "It is installed by partition_router.enable_change_feed().".into(),
                });
            }
            tell(&*context.cast::<pg_sys::TriggerData>())?;
        }
        Ok(pg_sys::Datum::from(0))
    })
}

/// Rows that the extension moves from one table to another do not change. What acts on rows elsewhere does, and is no replica.
fn is_moving() -> bool {
    // SAFETY: a plain read.
    frames::is_suppressed()
        && unsafe { pg_sys::SessionReplicationRole } == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as c_int
}

/// # Safety
/// `data` was passed by the server to a trigger function.
unsafe fn tell(data: &pg_sys::TriggerData) -> Result<()> {
    if is_moving() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let told = told(data)?;
        if data.tg_event & pg_sys::TRIGGER_EVENT_ROW == 0 {
            return add(&told, None);
        }
        let Some(columns) = &told.columns else {
            return add(&told, None);
        };
        let _settings = told.pinned.then(parity::pinned_output);
        for tuple in [data.tg_trigtuple, data.tg_newtuple] {
            if !tuple.is_null() {
                add(&told, Some(key_of(tuple, (*data.tg_relation).rd_att, columns)))?;
            }
        }
    }
    Ok(())
}

fn add(told: &Told, key: Option<Key>) -> Result<()> {
    let change = Change { feed: told.feed, key };
    // SAFETY: a plain read.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    match BUFFER.with_borrow_mut(|buffer| buffer.add(change, subtransaction, told.notify)) {
        true => write(),
        false => Ok(()),
    }
}

/// Every key of a feed has changed, for all that anybody knows.
pub fn tell_everything(feed: i32, notify: bool) -> Result<()> {
    let told = Told {
        command: 0,
        feed,
        notify,
        columns: None,
        pinned: false,
    };
    add(&told, None)
}

/// # Safety
/// `data` was passed by the server to a trigger function.
unsafe fn told(data: &pg_sys::TriggerData) -> Result<Rc<Told>> {
    // SAFETY: the relation is open; a trigger has as many arguments as it says, each a C string.
    unsafe {
        let (relation, trigger) = (data.tg_relation, &*data.tg_trigger);
        let place = ((*relation).rd_id, trigger.tgoid);
        let command = pg_sys::GetCurrentCommandId(false);
        let found = TOLD.with_borrow(|told| told.get(&place).filter(|t| t.command == command).cloned());
        if let Some(told) = found {
            return Ok(told);
        }
        let arguments: Vec<&CStr> = (0..trigger.tgnargs as usize)
            .map(|i| CStr::from_ptr(*trigger.tgargs.add(i)))
            .collect();
        let (id, notify, names) = match arguments.as_slice() {
            [id, notify, names @ ..] => (id.to_str().ok().and_then(|id| id.parse().ok()), *notify, names),
            _ => (None, c"", &[][..]),
        };
        let feed = id.ok_or_else(|| Error::Internal("a change feed has wrong arguments".into()))?;
        let columns: Option<Vec<_>> = names
            .iter()
            .map(|name| column((*relation).rd_att, name))
            .collect();
        let told = Rc::new(Told {
            command,
            feed,
            notify: notify == c"notify",
            pinned: columns
                .iter()
                .flatten()
                .any(|(_, output)| matches!(output, Output::Function(_))),
            columns,
        });
        TOLD.with_borrow_mut(|kept| kept.insert(place, Rc::clone(&told)));
        Ok(told)
    }
}

/// # Safety
/// `desc` is valid.
unsafe fn column(desc: pg_sys::TupleDesc, name: &CStr) -> Option<(c_int, Output)> {
    // SAFETY: the caller's promise.
    unsafe {
        let number = pg_sys::SPI_fnumber(desc, name.as_ptr());
        if number <= 0 {
            return None;
        }
        let output = match pg_sys::SPI_gettypeid(desc, number) {
            pg_sys::INT2OID => Output::Small,
            pg_sys::INT4OID => Output::Normal,
            pg_sys::INT8OID => Output::Big,
            pg_sys::TEXTOID | pg_sys::VARCHAROID => Output::Text,
            other => {
                let (mut function, mut is_varlena) = (Oid::INVALID, false);
                pg_sys::getTypeOutputInfo(other, &mut function, &mut is_varlena);
                Output::Function(function)
            }
        };
        Some((number, output))
    }
}

/// # Safety
/// `tuple` has the format `desc`, of which `columns` are.
unsafe fn key_of(tuple: pg_sys::HeapTuple, desc: pg_sys::TupleDesc, columns: &[(c_int, Output)]) -> Key {
    let mut key = Key::default();
    for (number, output) in columns {
        let mut is_null = false;
        // SAFETY: the caller's promise; what the server allocates goes with the context of the trigger.
        unsafe {
            let value = pg_sys::heap_getattr(tuple, *number, desc, &mut is_null);
            if is_null {
                key.push(None);
                continue;
            }
            let mut digits = itoa::Buffer::new();
            match output {
                Output::Small => key.push(Some(digits.format(value.value() as i16).as_bytes())),
                Output::Normal => key.push(Some(digits.format(value.value() as i32).as_bytes())),
                Output::Big => key.push(Some(digits.format(value.value() as i64).as_bytes())),
                Output::Text => {
                    let text = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
                    key.push(Some(varlena_to_byte_slice(text)));
                }
                Output::Function(function) => {
                    let text = pg_sys::OidOutputFunctionCall(*function, value);
                    key.push(Some(CStr::from_ptr(text).to_bytes()));
                }
            }
        }
    }
    key
}

/// Writes what the current subtransaction has to tell of into the outbox.
fn write() -> Result<()> {
    // SAFETY: a plain read.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let changes = BUFFER.with_borrow_mut(|buffer| buffer.take(subtransaction));
    // SAFETY: the names are C strings; a missing schema is no error.
    let outbox = unsafe {
        let schema = pg_sys::get_namespace_oid(c"partition_router".as_ptr(), true);
        pg_sys::get_relname_relid(c"change_event".as_ptr(), schema)
    };
    if changes.is_empty() || outbox == Oid::INVALID {
        return Ok(()); // the extension was dropped in this very transaction, and its feeds with it
    }
    // SAFETY: the outbox is opened and closed here; slots and values lie in a context of their own.
    unsafe {
        let outbox = pg_sys::table_open(outbox, pg_sys::RowExclusiveLock as i32);
        PgMemoryContexts::new("partition_router change feed").switch_to(|_| {
            for batch in changes.chunks(BATCH) {
                let mut slots: Vec<_> = batch
                    .iter()
                    .map(|change| entry((*outbox).rd_att, change))
                    .collect();
                pg_sys::table_multi_insert(
                    outbox,
                    slots.as_mut_ptr(),
                    slots.len() as i32,
                    pg_sys::GetCurrentCommandId(true),
                    0,
                    std::ptr::null_mut(),
                );
                for slot in slots {
                    pg_sys::ExecDropSingleTupleTableSlot(slot);
                }
            }
        });
        pg_sys::table_close(outbox, pg_sys::NoLock as i32);
    }
    Ok(())
}

/// A row of the outbox: feed, key, time.
///
/// # Safety
/// `desc` is the outbox's.
unsafe fn entry(desc: pg_sys::TupleDesc, change: &Change) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the slot has room for the three columns; texts are copied into the current context.
    unsafe {
        let slot = pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsVirtual);
        let set = |i: usize, value: Option<pg_sys::Datum>| {
            *(*slot).tts_isnull.add(i) = value.is_none();
            *(*slot).tts_values.add(i) = value.unwrap_or(pg_sys::Datum::null());
        };
        set(0, Some(change.feed.into()));
        set(1, change.key.as_ref().map(|key| text_array(key)));
        set(2, Some(pg_sys::GetCurrentStatementStartTimestamp().into()));
        pg_sys::ExecStoreVirtualTuple(slot)
    }
}

/// # Safety
/// Within a transaction.
unsafe fn text_array(key: &Key) -> pg_sys::Datum {
    let (mut values, mut nulls) = (Vec::new(), Vec::new());
    for value in key.values() {
        nulls.push(value.is_none());
        values.push(match value {
            // SAFETY: the server copies so many bytes.
            Some(text) => unsafe {
                pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as i32).into()
            },
            None => pg_sys::Datum::null(),
        });
    }
    let (mut length, mut lower) = (values.len() as i32, 1);
    // SAFETY: as many values and nulls as the length says, of one dimension.
    unsafe {
        pg_sys::construct_md_array(
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            &mut length,
            &mut lower,
            pg_sys::TEXTOID,
            -1,
            false,
            pg_sys::TYPALIGN_INT as std::ffi::c_char,
        )
        .into()
    }
}
