//! Partitions that come to a twin by hand, with CREATE TABLE … PARTITION OF or ATTACH: they get their sync triggers at once.

use super::follow::refused;
use super::pairs;
use crate::backfill::state::Stage;
use crate::backfill::{copy, copy_stage};
use crate::error::Result;
use crate::pair::{Pair, Phase, store};
use crate::sync::triggers;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;

/// Lets in those that were not there before.
///
/// # Errors
/// `PR019` for one that has rows, which the legacy would not have, and for a foreign table.
pub fn welcome(pair: &Pair, before: &[u32]) -> Result<()> {
    // Until then writes to the twin are refused by a row trigger, which comes to a partition from its root.
    let is_ready = pair.phase >= Phase::Live || matches!(copy_stage(pair)?, Some(Stage::Drain | Stage::Flip));
    for partition in pairs::partitions(pair.twin)?
        .iter()
        .filter(|p| !before.contains(&p.oid))
    {
        store::change_layout(pair.twin)?;
        let oid = Oid::from(partition.oid);
        let what = format!("make {} a partition of a twin", partition.name);
        if pairs::kind(oid) == pg_sys::RELKIND_FOREIGN_TABLE {
            return Err(refused(
                what,
                "it is a foreign table, which sync cannot write",
                "Keep the partitions of a pair local.",
            ));
        }
        if copy::has_rows(oid)? {
            return Err(refused(
                what,
                "it holds rows that the legacy does not have",
                "Attach it empty, and insert the rows through either side.",
            ));
        }
        if is_ready {
            triggers::install_on_partition(pair, &partition.name)?;
        }
    }
    Ok(())
}
