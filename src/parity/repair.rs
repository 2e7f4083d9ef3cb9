//! Making both sides equal again: the rows that differ, each looked at again under its lock.
#![allow(unsafe_code)]

use super::diff::{Comparison, owner_of};
use super::{evidence, locate};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, list};
use crate::pair::{Pair, Phase, store};
use crate::switchover::snapshots;
use crate::sync::reconcile::Reconciler;
use crate::sync::side::{ForeignKeys, Outcome, Side};
use crate::sync::{pair_cache, triggers};
use crate::{session, spi};
use pgrx::JsonB;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;
use serde_json::{Value, json};

/// What a repair did, or would do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    pub inserted: i64,
    pub updated: i64,
    pub deleted: i64,
}

/// Keys that one pass of a repair takes.
const KEYS_PER_PASS: usize = 10_000;

/// Makes the twin (after a switchover, the legacy) equal to the other side again, row by row, each looked at again
/// under its lock.
pub fn repair(relation: Oid, dry_run: bool) -> Result<Repaired> {
    let pair = store::get_for_change(relation, "repair")?;
    if !pair.phase.is_in_step() {
        return Err(Error::WrongPhase {
            relation: store::display_name(pair.legacy)?,
            phase: pair.phase.to_string(),
            call: "repair".into(),
            next: pair.phase.next_call().into(),
        });
    }
    let comparison = Comparison::of(&pair)?;
    let owner = owner_of(&pair)?;
    if dry_run {
        return would_repair(&pair, &comparison);
    }
    // Before the rows: what is written meanwhile must not drift again.
    triggers::install_on_bare_partitions(&pair)?;
    let mut repaired = Repaired::default();
    loop {
        let before = repaired;
        let found = find(&pair)?;
        for keys in found.keys.chunks(KEYS_PER_PASS) {
            session::as_user(owner, || repair_pass(&pair, &comparison, keys, &mut repaired))?;
        }
        // What is left is looked for anew: more than one look finds, or what changed since the last verify.
        evidence::forget_keys(&pair)?;
        if found.complete || repaired == before {
            break;
        }
    }
    if repaired != Repaired::default() {
        snapshots::copied_more(&pair)?;
    }
    store::log_run(
        &store::display_name(pair.legacy)?,
        "repair",
        "REPAIRED",
        json!({ "inserted": repaired.inserted, "updated": repaired.updated, "deleted": repaired.deleted }),
    )?;
    Ok(repaired)
}

/// The keys that differ as of now.
fn find(pair: &Pair) -> Result<locate::Found> {
    super::lock(pair)?;
    // SAFETY: what this call has written so far is to be seen.
    unsafe { pg_sys::CommandCounterIncrement() };
    super::under_newest_snapshot(|| locate::keys_now(pair))
}

fn would_repair(pair: &Pair, comparison: &Comparison) -> Result<Repaired> {
    super::lock(pair)?;
    super::under_newest_snapshot(|| {
        let found = locate::keys_now(pair)?;
        let _settings = super::pinned_output();
        if !found.complete {
            pgrx::notice!("more than {} rows differ: these are counted", found.keys.len());
        }
        let kinds: Vec<(String, i64)> = session::as_user(owner_of(pair)?, || {
            spi::rows_in_snapshot(
                &format!(
                    "SELECT pg_catalog.jsonb_build_array(m.kind, pg_catalog.count(*)) FROM ({}) m GROUP BY m.kind",
                    comparison.of_keys()
                ),
                &[JsonB(Value::Array(found.keys)).into()],
            )
        })?;
        let count = |kind: &str| kinds.iter().find(|(k, _)| k == kind).map_or(0, |(_, n)| *n);
        let (missing, extra) = match pair.phase {
            Phase::Switched => (count("extra"), count("missing")),
            _ => (count("missing"), count("extra")),
        };
        Ok(Repaired {
            inserted: missing,
            updated: count("different"),
            deleted: extra,
        })
    })
}

fn repair_pass(pair: &Pair, comparison: &Comparison, keys: &[Value], repaired: &mut Repaired) -> Result<()> {
    let sync_pair = pair_cache::get(pair.id)?;
    // A key in other bytes (1.0 and 1.00) is the same row, to be counted once.
    let query = format!(
        "SELECT DISTINCT {} FROM (SELECT pg_catalog.jsonb_populate_record(NULL::{}, u.key) AS r
         FROM pg_catalog.jsonb_array_elements($1) u(key) OFFSET 0) k",
        list(
            sync_pair
                .twin_key
                .iter()
                .map(|c| format!("(k.r).{}", Ident::new(c.clone())))
        ),
        comparison.legacy
    );
    let arguments = [JsonB(Value::Array(keys.to_vec())).into()];
    reconcile_keys(pair, &query, &arguments, repaired)
}

/// Makes the legacy have what some blocks of a partition have, each row under its lock; false when the partition is gone.
pub fn fill(pair: &Pair, leaf: Oid, first_block: i64, end_block: i64) -> Result<bool> {
    let Some(name) = load::rel_name(leaf)? else {
        return Ok(false);
    };
    let key = &pair_cache::get(pair.id)?.twin_key;
    let query = format!(
        "SELECT {} FROM ONLY {name} WHERE ctid >= '({first_block},0)' AND ctid < '({end_block},0)'",
        list(key.iter().map(|column| Ident::new(column.clone())))
    );
    let mut filled = Repaired::default();
    session::as_user(owner_of(pair)?, || reconcile_keys(pair, &query, &[], &mut filled))?;
    Ok(true)
}

/// Reconciles the keys that a query gives, in the columns and order of the twin's key.
fn reconcile_keys(pair: &Pair, query: &str, arguments: &[spi::Arg], repaired: &mut Repaired) -> Result<()> {
    let sync_pair = pair_cache::get(pair.id)?;
    let (origin_oid, target_oid) = match pair.phase {
        Phase::Switched => (pair.twin, pair.legacy),
        _ => (pair.legacy, pair.twin),
    };
    Spi::connect_mut(|client| {
        let keys = {
            // Keys are read back from their text as it was written.
            let _settings = super::pinned_output();
            client.update(query, None, arguments)?
        };
        let mut origin = Side::open(origin_oid, ForeignKeys::All)?;
        let mut target = Side::open(target_oid, ForeignKeys::ActionsOnly)?;
        let mut reconciler = Reconciler::new(&mut origin, &mut target, &sync_pair)?;
        let key_slot = origin.new_slot();
        let mut numbers = Vec::with_capacity(sync_pair.twin_key.len());
        for name in &sync_pair.twin_key {
            let name = std::ffi::CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
            // SAFETY: the format is that of an open table.
            numbers.push(unsafe { pg_sys::SPI_fnumber(origin.tuple_desc(), name.as_ptr()) } as usize - 1);
        }
        // SAFETY: the tuple table is SPI's until it is closed; its columns are the key columns, whose numbers in the
        // origin are looked up by name. The trigger queue is opened around the writes.
        unsafe {
            pg_sys::AfterTriggerBeginQuery();
            let table = pg_sys::SPI_tuptable;
            let all = (*origin.tuple_desc()).natts as usize;
            let load = |i: usize| -> Result<()> {
                pgrx::check_for_interrupts!();
                let tuple = *(*table).vals.add(i);
                pg_sys::ExecClearTuple(key_slot);
                std::slice::from_raw_parts_mut((*key_slot).tts_isnull, all).fill(true);
                for (column, number) in numbers.iter().enumerate() {
                    let mut is_null = false;
                    *(*key_slot).tts_values.add(*number) =
                        pg_sys::SPI_getbinval(tuple, (*table).tupdesc, column as i32 + 1, &mut is_null);
                    *(*key_slot).tts_isnull.add(*number) = is_null;
                }
                pg_sys::ExecStoreVirtualTuple(key_slot);
                Ok(())
            };
            // Rows that change places need room first, where more than the key is unique; not on the legacy, where foreign
            // keys may point at them. The origin's row is locked first, as writers do.
            let mut had_row = vec![false; keys.len()];
            if sync_pair.has_other_unique && target.is_partitioned() {
                for (i, had_row) in had_row.iter_mut().enumerate() {
                    load(i)?;
                    target.see_own_writes();
                    origin.lock(key_slot)?;
                    *had_row = reconciler.make_room_now(&mut origin, &mut target, key_slot)?;
                }
            }
            for (i, had_row) in had_row.into_iter().enumerate() {
                load(i)?;
                target.see_own_writes();
                match reconciler.reconcile_locked(&mut origin, &mut target, key_slot)? {
                    Outcome::Inserted if had_row => repaired.updated += 1,
                    Outcome::Inserted => repaired.inserted += 1,
                    Outcome::Updated => repaired.updated += 1,
                    Outcome::Deleted => repaired.deleted += 1,
                    Outcome::Equal if had_row => repaired.deleted += 1,
                    Outcome::Equal => {}
                }
            }
            pg_sys::AfterTriggerEndQuery(target.estate());
            pg_sys::ExecDropSingleTupleTableSlot(key_slot);
        }
        reconciler.close();
        origin.close();
        target.close();
        Ok(())
    })
}
