//! The trigger that logs the keys of changed rows of a default partition while it is drained. It writes straight into the log,
//! so that whoever may write the table needs no right on the log, and needs no plan.
#![allow(unsafe_code)]

use crate::compat;
use crate::error::{self, Error, Result};
use pgrx::pg_sys;
use std::ffi::CStr;

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_log_key() -> &'static pg_sys::Pg_finfo_record {
    const V1_API: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1_API
}

/// # Safety
/// Called by the server's function manager.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn log_key(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    error::report(|| {
        // SAFETY: the server passes trigger data of this shape to a function called as a trigger.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return Err(Error::Unsupported {
                    what: "partition_router.log_key() was not called as a trigger".into(),
                    hint: "Maintenance installs it on a default partition that it drains.".into(),
                });
            }
            log(&*context.cast::<pg_sys::TriggerData>())?;
        }
        Ok(pg_sys::Datum::from(0))
    })
}

/// # Safety
/// `data` was passed by the server to a row trigger.
unsafe fn log(data: &pg_sys::TriggerData) -> Result<()> {
    // SAFETY: the relation is open; the log is opened and closed here, and has the key columns by their names.
    unsafe {
        let table = data.tg_relation;
        let trigger = &*data.tg_trigger;
        if trigger.tgnargs != 1 {
            return Err(Error::Internal("log_key() takes the name of a log".into()));
        }
        let name = *trigger.tgargs;
        let oid = pg_sys::get_relname_relid(name, (*(*table).rd_rel).relnamespace);
        if oid == pg_sys::Oid::INVALID {
            return Err(Error::Sync {
                relation: CStr::from_ptr((*(*table).rd_rel).relname.data.as_ptr())
                    .to_string_lossy()
                    .into_owned(),
                reason: format!("the log {} is gone", CStr::from_ptr(name).to_string_lossy()),
                hint: "Drop the trigger partition_router_drain.".into(),
            });
        }
        let log = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
        require_log(table, log)?;
        let entry = pg_sys::MakeSingleTupleTableSlot((*log).rd_att, &pg_sys::TTSOpsVirtual);
        for tuple in [data.tg_trigtuple, data.tg_newtuple] {
            if tuple.is_null() {
                continue;
            }
            pg_sys::ExecClearTuple(entry);
            for (i, column) in compat::attributes((*log).rd_att).iter().enumerate() {
                let number = pg_sys::SPI_fnumber((*table).rd_att, column.attname.data.as_ptr());
                let is_null = &mut *(*entry).tts_isnull.add(i);
                *(*entry).tts_values.add(i) = pg_sys::heap_getattr(tuple, number, (*table).rd_att, is_null);
            }
            pg_sys::ExecStoreVirtualTuple(entry);
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::table_tuple_insert(log, entry, command, 0, std::ptr::null_mut());
        }
        pg_sys::ExecDropSingleTupleTableSlot(entry);
        pg_sys::table_close(log, pg_sys::NoLock as i32);
    }
    Ok(())
}

/// Whoever may create triggers chooses the name: it has to be a table of the same owner, with columns of the same types, so that
/// nothing is written that he could not write.
///
/// # Safety
/// Both relations are open.
unsafe fn require_log(table: pg_sys::Relation, log: pg_sys::Relation) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let is_log = (*(*log).rd_rel).relowner == (*(*table).rd_rel).relowner
            && (*(*log).rd_rel).relkind == pg_sys::RELKIND_RELATION as std::ffi::c_char
            && compat::attributes((*log).rd_att).iter().all(|column| {
                let same = compat::attributes((*table).rd_att).iter().find(|a| {
                    !a.attisdropped
                        && CStr::from_ptr(a.attname.data.as_ptr())
                            == CStr::from_ptr(column.attname.data.as_ptr())
                });
                !column.attisdropped && same.is_some_and(|a| a.atttypid == column.atttypid)
            });
        if is_log {
            return Ok(());
        }
        Err(Error::Sync {
            relation: CStr::from_ptr((*(*table).rd_rel).relname.data.as_ptr())
                .to_string_lossy()
                .into_owned(),
            reason: format!(
                "{} is no log of its keys",
                CStr::from_ptr((*(*log).rd_rel).relname.data.as_ptr()).to_string_lossy()
            ),
            hint: "Drop the trigger partition_router_drain.".into(),
        })
    }
}
