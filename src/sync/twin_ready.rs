//! Whether the twin may be written: the pair has to be live, and live in the snapshot of the statement, too.
//!
//! A REPEATABLE READ or SERIALIZABLE transaction that is older than the flip sees the twin without the rows of the copy. An
//! UPDATE or DELETE of such a row would find nothing and tell the application so, while a write to the legacy
//! is as good as ever. So it gets 40001, and the transaction that is retried sees the rows.
#![allow(unsafe_code)]

use super::frames::Event;
use super::pair_cache::SyncPair;
use super::relation::relation_name;
use crate::error::{Error, Result};
use crate::{compat, session, spi};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_int;

thread_local! {
    /// The pair and the transaction for which it was found to be live last.
    static SEEN_LIVE: Cell<(i32, pg_sys::LocalTransactionId)> = const { Cell::new((0, 0)) };
}

/// To be asked after a statement on `relation`, the twin of `pair` or one of its partitions: also one that found no row.
///
/// # Errors
/// `PR012` before the pair is live; `40001` for an UPDATE or DELETE in a transaction whose snapshot is older than that.
pub fn require(pair: &SyncPair, relation: pg_sys::Relation, event: Event) -> Result<()> {
    if !pair.is_live {
        return Err(refusal(pair, relation));
    }
    // SAFETY: a plain read.
    let isolation = unsafe { pg_sys::XactIsoLevel };
    let transaction = compat::local_transaction();
    if isolation <= pg_sys::XACT_READ_COMMITTED as c_int || event == Event::Insert {
        return Ok(());
    }
    if SEEN_LIVE.get() == (pair.id, transaction) {
        return Ok(());
    }
    let seen_live: Option<bool> = session::with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(phase IN ('live', 'switched') OR guard IS NOT NULL) FROM partition_router.pair WHERE id = $1",
            &[pair.id.into()],
        )
    })?;
    if seen_live != Some(true) {
        // SAFETY: the relation that fired is open.
        let relation = unsafe { relation_name(relation) };
        return Err(Error::OldSnapshot { relation });
    }
    SEEN_LIVE.set((pair.id, transaction));
    Ok(())
}

/// The error for a write to the twin of a pair that is not live.
pub fn refusal(pair: &SyncPair, relation: pg_sys::Relation) -> Error {
    let copying = pair.log.is_some();
    Error::WrongPhase {
        // SAFETY: the relation that fired is open.
        relation: unsafe { relation_name(relation) },
        phase: if copying { "copying" } else { "prepared" }.into(),
        call: "write to".into(),
        next: if copying {
            "partition_router.backfill(), or write to the legacy table"
        } else {
            "partition_router.start_sync(), or write to the legacy table"
        }
        .into(),
    }
}
