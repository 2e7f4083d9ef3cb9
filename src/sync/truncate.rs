//! TRUNCATE on one side empties the other.

use super::frames::Suppressed;
use super::pair_cache::SyncPair;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::{session, spi};
use pgrx::pg_sys::Oid;

/// Carries the TRUNCATE of `relation`, a table of `pair`.
pub fn carry(pair: &SyncPair, relation: Oid, is_live: bool) -> Result<()> {
    if relation != pair.legacy && pair.log.is_some() {
        return Err(Error::WrongPhase {
            relation: "the twin".into(),
            phase: "copying".into(),
            call: "truncate".into(),
            next: "partition_router.backfill(), or truncate the legacy table".into(),
        });
    }
    let _suppressed = Suppressed::new();
    let name = |oid| {
        load::rel_name(oid)?.ok_or_else(|| Error::Internal(format!("pair {} has lost a table", pair.id)))
    };
    session::as_user(pair.legacy_owner, || {
        let _path = session::PinnedSearchPath::new();
        if relation == pair.legacy {
            spi::execute(&format!("TRUNCATE {}", name(pair.twin)?), &[])?;
            if let Some(log) = pair.log
                && !is_live
            {
                // What was logged before is gone on both sides; what this transaction logs later comes after.
                spi::execute(&format!("TRUNCATE {}", name(log)?), &[])?;
            }
        } else if relation == pair.twin {
            spi::execute(&format!("TRUNCATE {}", name(pair.legacy)?), &[])?;
        } else {
            let constraint: Option<String> = spi::row(
                "SELECT pg_catalog.to_jsonb(pg_catalog.pg_get_partition_constraintdef($1))",
                &[relation.into()],
            )?;
            let constraint = constraint
                .ok_or_else(|| Error::Internal(format!("{} is not a partition", relation.to_u32())))?;
            spi::execute(
                &format!("DELETE FROM {} WHERE {constraint}", name(pair.legacy)?),
                &[],
            )?;
        }
        Ok(())
    })
}
