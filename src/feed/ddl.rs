//! Partitions and owners that come and go under a feed. A new one needs a trigger of its own for TRUNCATE; rows that come or go with one
//! make every key of the feed a changed one, since nobody has seen them.

use super::{Row, trigger};
use crate::catalog::load;
use crate::ddl::statement::{self, Dropping, Statement};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::RelName;
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

/// The feeds that these tables tell of their changes.
fn feeds(tables: &[Oid]) -> Result<Vec<Row>> {
    with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(f) FROM partition_router.change_feed f
             WHERE f.id IN (SELECT t.feed_id FROM partition_router.change_feed_trigger t WHERE t.relation::oid = ANY ($1))",
            &[tables.to_vec().into()],
        )
    })
}

fn is_any() -> Result<bool> {
    let found: Vec<bool> = with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM partition_router.change_feed))",
            &[],
        )
    })?;
    Ok(found == [true])
}

fn tell(tables: &[Oid]) -> Result<()> {
    feeds(tables)?
        .iter()
        .try_for_each(|feed| trigger::tell_everything(feed.id, feed.notify))
}

/// A statement begins that may take tables away. `is_own` is one of the extension.
///
/// # Safety
/// `node` is the parse tree of a utility statement.
#[allow(unsafe_code)]
pub unsafe fn begin(node: *mut pg_sys::Node, is_own: bool) -> Result<()> {
    // SAFETY: the caller's promise.
    match unsafe { statement::read(node) } {
        Statement::Drop(dropping) if is_any()? => {
            let mut tables = going(dropping)?;
            if is_own {
                // A legacy goes when its rows are elsewhere; a partition takes its rows along.
                tables = partitions_among(&tables)?;
            }
            tell(&tables)
        }
        Statement::Alter(alter) if alter.commands.iter().any(|c| c.is_detach()) && is_any()? => {
            tell(&[alter.table])
        }
        _ => Ok(()),
    }
}

/// A statement has ended that may have brought partitions.
///
/// # Safety
/// `node` is the parse tree of a utility statement.
#[allow(unsafe_code)]
pub unsafe fn end(node: *mut pg_sys::Node, is_own: bool) -> Result<()> {
    // SAFETY: the caller's promise.
    match unsafe { statement::read(node) } {
        Statement::CreateTable {
            parents,
            is_partition: true,
            ..
        } if is_any()? => parents.into_iter().try_for_each(cover),
        Statement::Alter(alter) if alter.commands.iter().any(|c| c.is_attach()) && is_any()? => {
            cover(alter.table)?;
            for command in alter.commands.iter().filter(|c| c.is_attach() && !is_own) {
                if has_rows(command.names)? {
                    tell(&[alter.table])?;
                }
            }
            Ok(())
        }
        Statement::Alter(alter) if alter.commands.iter().any(|c| c.is_owner()) && is_any()? => {
            match feeds(&[alter.table])?.as_slice() {
                [] => Ok(()),
                _ => super::allow(&[alter.table]),
            }
        }
        _ => Ok(()),
    }
}

/// A statement has ended that may have made a trigger. That of a feed writes to the feed whose number it is given, and whoever can read
/// its table can take that feed's changes: so only the extension makes one, and a superuser who restores a dump. A partition has it from its root
/// without such a statement. Asked of the catalog, since a name in a parse tree may mean something else a moment later.
///
/// # Errors
/// `42501` for the trigger of anybody else.
///
/// # Safety
/// `node` is the parse tree of a utility statement, whose end is an event now.
#[allow(unsafe_code)]
pub unsafe fn refuse_foreign_trigger(node: *mut pg_sys::Node) -> Result<()> {
    // SAFETY: the caller's promise, and a look at who the user is.
    let (kind, is_superuser) = unsafe { ((*node).type_, pg_sys::superuser()) };
    let makes_triggers = [
        pg_sys::NodeTag::T_CreateTrigStmt,
        pg_sys::NodeTag::T_CreateSchemaStmt,
    ];
    if is_superuser || !makes_triggers.contains(&kind) {
        return Ok(());
    }
    let made: Vec<String> = with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(pg_catalog.quote_ident(t.tgname))
             FROM pg_catalog.pg_event_trigger_ddl_commands() c
             JOIN pg_catalog.pg_trigger t ON c.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = c.objid
             WHERE t.tgfoid = 'partition_router.change_feed()'::pg_catalog.regprocedure",
            &[],
        )
    })?;
    match made.into_iter().next() {
        Some(trigger) => Err(Error::TriggerOfFeed { trigger }),
        None => Ok(()),
    }
}

/// The tables that a statement is about to drop, with the partitions below what schemas and roles have: these may be elsewhere.
fn going(dropping: Dropping) -> Result<Vec<Oid>> {
    let (schemas, roles) = match dropping {
        Dropping::Tables(tables) => return Ok(tables),
        Dropping::Schemas(schemas) => (schemas, vec![]),
        Dropping::Owned(roles) => (vec![], roles),
    };
    let found: Vec<u32> = spi::latest_rows(
        "WITH RECURSIVE going (oid) AS (
             SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND (n.oid = ANY ($1) OR c.relowner = ANY ($2) OR n.nspowner = ANY ($2))
             UNION
             SELECT i.inhrelid FROM going g JOIN pg_catalog.pg_inherits i ON i.inhparent = g.oid
         )
         SELECT pg_catalog.to_jsonb(g.oid::bigint) FROM going g",
        &[schemas.into(), roles.into()],
    )?;
    Ok(found.into_iter().map(Oid::from).collect())
}

fn partitions_among(tables: &[Oid]) -> Result<Vec<Oid>> {
    let found: Vec<u32> = spi::latest_rows(
        "SELECT pg_catalog.to_jsonb(c.oid::bigint) FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1) AND c.relispartition",
        &[tables.to_vec().into()],
    )?;
    Ok(found.into_iter().map(Oid::from).collect())
}

/// Reads no column, so it runs nothing that a user can define.
fn has_rows(table: Oid) -> Result<bool> {
    let Some(name) = load::rel_name(table)? else {
        return Ok(false);
    };
    let query = format!("SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM {name}))");
    let found: Vec<bool> = with_own_tables(|| spi::latest_rows(&query, &[]))?;
    Ok(found == [true])
}

/// Gives each partition below the root of `parent` that lacks it the trigger for TRUNCATE.
fn cover(parent: Oid) -> Result<()> {
    for fed in feeds(&[parent])? {
        let bare: Vec<RelName> = with_own_tables(|| {
            spi::latest_rows(
                "SELECT pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname)
                 FROM pg_catalog.pg_partition_tree($1) t
                 JOIN pg_catalog.pg_class c ON c.oid = t.relid::oid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE t.relid::oid <> $1 AND c.relkind IN ('r', 'p')
                   AND NOT EXISTS (SELECT FROM partition_router.change_feed_trigger g
                                   WHERE g.relation::oid = c.oid AND NOT g.is_row) ORDER BY c.oid",
                &[parent.into()],
            )
        })?;
        let triggers = fed.triggers();
        for name in &bare {
            let plan = triggers.install_truncate(name);
            with_own_tables(|| execute::run(&plan, Mode::Run))?;
        }
    }
    Ok(())
}
