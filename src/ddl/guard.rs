//! DDL on a table that has a guard. Nothing is carried to it: a guard has only columns that are unique and the partition key, and
//! these must stay as the table's are. Partitions get the triggers by which it follows, and who drops one of the two tables
//! has let go of the other.

use super::follow::{Following, refused, required_name};
use super::pairs::{self, Place};
use super::pending::OwnDdl;
use crate::catalog::{TableDef, load};
use crate::error::Result;
use crate::locks::{self, LockMode};
use crate::pair::{Pair, store};
use crate::{spi, sync};
use pgrx::pg_sys::Oid;

/// Notes how `table` is. The guard itself may be changed as any table: the sync says so if it does not fit any more.
pub fn begin(pair: Pair, place: Place, table: Oid) -> Result<Option<Following>> {
    let (false, Some(before)) = (place == Place::Legacy, load::latest_table_def(table)?) else {
        return Ok(None);
    };
    Following::new(pair, place, before).map(Some)
}

/// # Errors
/// `PR019` when a column that the guard has is gone, or has another name or type.
pub fn end(following: &Following, after: &TableDef) -> Result<()> {
    let pair = &following.pair;
    if following.place == Place::Twin {
        let key = following.before.column(pair.partition_key.as_str());
        let now = key.and_then(|key| after.column_number(key.number));
        if let Some(now) = now.filter(|now| now.name != pair.partition_key) {
            store::set_partition_key(pair, &now.name)?;
        }
        require_columns(pair, after)?;
    }
    super::partitions::welcome(pair, &following.partitions)
}

fn require_columns(pair: &Pair, table: &TableDef) -> Result<()> {
    let Some(guard) = pair.guard.map(load::latest_table_def).transpose()?.flatten() else {
        return Ok(());
    };
    for column in &guard.columns {
        let same = table
            .column(column.name.as_str())
            .is_some_and(|c| c.type_name == column.type_name && c.collation == column.collation);
        if !same {
            return Err(refused(
                format!("change column {} of {}", column.name, table.name),
                format!("{} keeps it unique and would not follow", guard.name),
                format!(
                    "Change {} in the same way before, in the same transaction; or drop it, if nothing need be unique any more.",
                    guard.name
                ),
            ));
        }
    }
    Ok(())
}

/// One of the two tables was dropped: the guard, so that the table goes on without, or the table, and the guard goes, too.
pub fn part(pair: &Pair, guard_gone: bool) -> Result<()> {
    let Some(guard) = pair.guard else {
        return Ok(());
    };
    if guard_gone {
        let partitions = pairs::partitions(pair.twin)?;
        let tables = std::iter::once(pair.twin).chain(partitions.iter().map(|p| Oid::from(p.oid)));
        let wanted: Vec<_> = tables.map(|table| (table, LockMode::AccessExclusive)).collect();
        locks::acquire(&wanted)?;
        sync::triggers::remove(pair)?;
        return store::forget_guard(pair);
    }
    let _own = OwnDdl::new();
    spi::execute(&format!("DROP TABLE {}", required_name(guard)?), &[])?;
    store::delete(pair)
}

/// A trigger of the pair was dropped: what is said of it.
pub fn way_out(guard: Oid) -> Result<String> {
    Ok(format!(
        "Drop {}: the triggers go with it.",
        required_name(guard)?
    ))
}
