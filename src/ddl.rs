//! DDL on one side of a pair is carried to the other side in the same statement, or refused. Event triggers call
//! [`carry_ddl`]: when a statement begins it locks both sides and notes the table's definition, when it ends it
//! makes a plan of the difference ([`crate::plan::carry_ddl`]) and runs that on the other side. What cannot be carried, and
//! dropping a table, a partition or a sync trigger, is refused with a HINT. See docs/architecture.md, "DDL".
#![allow(unsafe_code)]

mod concurrent;
mod drops;
mod follow;
mod guard;
pub mod pairs;
mod partitions;
pub mod pending;
pub mod statement;
pub mod trial;

use crate::error::{self, Error, Result};
use crate::feed;
use crate::session::PinnedSettings;
use crate::settings;
use follow::{Following, refused};
use pairs::{Place, Sides};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use statement::{Alter, Dropping, Statement};
use std::ffi::{CStr, c_int};

/// Registers what this needs to hear of. Called once, when the library is loaded.
pub fn init() {
    pending::init();
}

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_carry_ddl() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// The event trigger function `partition_router.carry_ddl()`.
///
/// # Safety
/// Called by the server's function manager.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn carry_ddl(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    error::report(|| {
        // SAFETY: the server passes event trigger data to a function called as an event trigger.
        let (event, node) = unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
                return Err(Error::Unsupported {
                    what: "partition_router.carry_ddl() was not called as an event trigger".into(),
                    hint: "It belongs to the event triggers of the extension.".into(),
                });
            }
            let data = &*context.cast::<pg_sys::EventTriggerData>();
            (CStr::from_ptr(data.event), data.parsetree)
        };
        if event.to_bytes() == b"ddl_command_end" {
            // SAFETY: the parse tree is that of the statement.
            unsafe { feed::ddl::refuse_foreign_trigger(node) }?;
        }
        // SAFETY: the parse tree is that of the statement.
        unsafe { tell_feeds(event, node) }?;
        if is_in_force() {
            match event.to_bytes() {
                // SAFETY: the parse tree is that of the statement.
                b"ddl_command_start" => unsafe { begin(node) }?,
                b"ddl_command_end" => end(node)?,
                _ => drops::check(node)?,
            }
        }
        Ok(pg_sys::Datum::from(0))
    })
}

fn is_in_force() -> bool {
    // SAFETY: plain reads of the backend's variables.
    unsafe { settings::carry_ddl() && !pending::is_own() && !pg_sys::IsBinaryUpgrade && !is_restore() }
}

/// Feeds hear of partitions that come and go, whoever takes them.
///
/// # Safety
/// `node` is the parse tree of the statement.
unsafe fn tell_feeds(event: &CStr, node: *mut pg_sys::Node) -> Result<()> {
    // SAFETY: plain reads of the backend's variables, and the caller's promise.
    unsafe {
        if pg_sys::IsBinaryUpgrade || is_restore() {
            return Ok(());
        }
        match event.to_bytes() {
            b"ddl_command_start" => feed::ddl::begin(node, pending::is_own()),
            b"ddl_command_end" => feed::ddl::end(node, pending::is_own()),
            _ => Ok(()),
        }
    }
}

/// What pg_dump writes at the head of a dump, and pg_restore sets in each session: there, both sides come as they were.
///
/// # Safety
/// To be called by the backend itself.
unsafe fn is_restore() -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        !pg_sys::check_function_bodies
            && !pg_sys::row_security
            && !pg_sys::namespace_search_path.is_null()
            && *pg_sys::namespace_search_path == 0
    }
}

/// # Safety
/// `node` is the parse tree of the statement that begins.
unsafe fn begin(node: *mut pg_sys::Node) -> Result<()> {
    let pairs = pairs::all();
    if pairs.is_empty() {
        return Ok(());
    }
    let mut following = vec![];
    let mut partitions = vec![];
    let mut commits = false;
    // SAFETY: the caller's promise.
    match unsafe { statement::read(node) } {
        Statement::Alter(alter) => following.extend(begin_alter(&pairs, &alter)?),
        Statement::CreateIndex {
            table,
            concurrently,
            node,
        } => {
            commits = concurrently;
            let lock = (!concurrently).then_some(pg_sys::ShareLock as c_int);
            let mut begun = follow(&pairs, table, lock)?;
            if let Some(begun) = begun.as_mut().filter(|b| concurrently && b.pair.guard.is_none()) {
                begun.concurrently = true;
                // SAFETY: the node is that of the statement.
                unsafe { concurrent::require_partitions_first(begun, node) }?;
            }
            following.extend(begun);
        }
        Statement::DropIndex { tables, concurrently } => {
            commits = concurrently;
            let lock = (!concurrently).then_some(pg_sys::AccessExclusiveLock as c_int);
            for table in tables {
                if following
                    .iter()
                    .all(|f: &Following| Oid::from(f.before.oid) != table)
                {
                    following.extend(follow(&pairs, table, lock)?);
                }
            }
        }
        Statement::CreateTable {
            parents,
            is_partition,
            is_foreign,
        } => {
            for parent in parents {
                following.extend(begin_child(&pairs, parent, is_partition, is_foreign)?);
            }
        }
        Statement::Drop(dropping) => {
            let is_of_pair = |table: &Oid| pairs::find(&pairs, *table).is_some();
            let concerns_pairs = match &dropping {
                Dropping::Tables(tables) => tables.iter().any(is_of_pair),
                Dropping::Schemas(_) | Dropping::Owned(_) => true,
            };
            if concerns_pairs {
                let _path = PinnedSettings::search_path();
                partitions = pairs::all_partitions(&pairs)?;
            }
        }
        Statement::Other => {}
    }
    pending::begin(node as usize, commits, following, partitions);
    Ok(())
}

/// Notes a table that belongs to a pair.
fn follow(pairs: &[Sides], table: Oid, lock: Option<c_int>) -> Result<Option<Following>> {
    let Some((sides, place)) = pairs::find(pairs, table) else {
        return Ok(None);
    };
    let _path = PinnedSettings::search_path();
    follow::begin(sides, place, table, lock)
}

fn begin_alter(pairs: &[Sides], alter: &Alter) -> Result<Option<Following>> {
    for command in alter.commands.iter().filter(|c| c.is_attach() || c.is_inherit()) {
        // Another table takes a table of a pair in, or inherits from it.
        if let Some((sides, place)) = pairs::find(pairs, command.names)
            && place != Place::Partition
            && follow::current(sides)?.is_some()
        {
            return Err(refused_kinship(command.names)?);
        }
    }
    let Some((sides, _)) = pairs::find(pairs, alter.table) else {
        return Ok(None);
    };
    if alter.commands.iter().any(|c| c.is_detach()) && follow::current(sides)?.is_some() {
        return Err(refused(
            format!("detach a partition of {}", follow::required_name(alter.table)?),
            "its rows would stay on the other side of the pair",
            "Let retention remove rows on both sides: partition_router.set_policy(); an empty partition goes with \
             partition_router.drop_partition().",
        ));
    }
    let is_local = !alter.commands.is_empty() && alter.commands.iter().all(|c| c.is_local());
    let lock = alter.lock.filter(|_| !is_local);
    let mut begun = follow(pairs, alter.table, lock)?;
    if let Some(begun) = &mut begun {
        begun.look_into(alter)?;
    }
    Ok(begun)
}

fn begin_child(
    pairs: &[Sides],
    parent: Oid,
    is_partition: bool,
    is_foreign: bool,
) -> Result<Option<Following>> {
    let Some((sides, _)) = pairs::find(pairs, parent) else {
        return Ok(None);
    };
    if follow::current(sides)?.is_none() {
        return Ok(None);
    }
    if !is_partition {
        return Err(refused_kinship(parent)?);
    }
    if is_foreign {
        return Err(refused(
            format!(
                "make a foreign table a partition of {}",
                follow::required_name(parent)?
            ),
            "sync cannot write it",
            "Keep the partitions of a pair local.",
        ));
    }
    follow(pairs, parent, None)
}

fn refused_kinship(table: Oid) -> Result<Error> {
    Ok(refused(
        format!(
            "let {} inherit, be inherited from, or be a partition",
            follow::required_name(table)?
        ),
        "it is a table of a pair, whose other side would not",
        "End the pair first with partition_router.abandon() or, after a switchover, partition_router.cleanup().",
    ))
}

fn end(node: *mut pg_sys::Node) -> Result<()> {
    let Some(begun) = pending::end(node as usize) else {
        return Ok(());
    };
    begun.following.into_iter().try_for_each(Following::end)
}
