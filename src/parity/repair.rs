//! Making both sides equal again: the rows that differ, each looked at again under its lock.
#![allow(unsafe_code)]

mod count;
mod mender;

use super::diff::{Comparison, owner_of};
use super::evidence;
use super::locate::{self, Differences};
use super::places::Places;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, list};
use crate::pair::{Pair, store};
use crate::switchover::snapshots;
use crate::sync::{pair_cache, triggers};
use crate::{calls, session, spi};
use mender::Mender;
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

/// Rows that are mended before it is said how far that is.
const TOLD_ROWS: u64 = 1_000;

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
    let _during = calls::during(calls::Call::Repair, pair.legacy);
    if dry_run {
        super::lock(&pair)?;
        return super::under_newest_snapshot(|| count::all(&pair, locate::all_now(&pair)?));
    }
    // Before the rows: what is written meanwhile must not drift again.
    triggers::install_on_bare_partitions(&pair)?;
    let differences = find(&pair)?;
    let repaired = session::as_user(owner_of(&pair)?, || match differences {
        Differences::Keys(keys) => mend_keys(&pair, keys),
        Differences::Places(places) => mend_places(&pair, places),
    })?;
    // What is left is looked for anew: what changed since the last verify.
    evidence::forget_keys(&pair)?;
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

/// What differs as of now.
fn find(pair: &Pair) -> Result<Differences> {
    super::lock(pair)?;
    // SAFETY: what this call has written so far is to be seen.
    unsafe { pg_sys::CommandCounterIncrement() };
    super::under_newest_snapshot(|| locate::all_now(pair))
}

fn mend_keys(pair: &Pair, keys: Vec<Value>) -> Result<Repaired> {
    let columns = &pair_cache::get(pair.id)?.twin_key;
    // A key in other bytes (1.0 and 1.00) is the same row, to be counted once.
    let query = format!(
        "SELECT DISTINCT {} FROM (SELECT pg_catalog.jsonb_populate_record(NULL::{}, u.key) AS r
         FROM pg_catalog.jsonb_array_elements($1) u(key) OFFSET 0) k",
        list(columns.iter().map(|c| format!("(k.r).{}", Ident::new(c.clone())))),
        Comparison::of(pair)?.legacy
    );
    mend_query(pair, &query, &[JsonB(Value::Array(keys)).into()])
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
    session::as_user(owner_of(pair)?, || mend_query(pair, &query, &[]))?;
    Ok(true)
}

/// Mends the rows with the keys that a query gives, in the columns and order of the twin's key.
fn mend_query(pair: &Pair, query: &str, arguments: &[spi::Arg]) -> Result<Repaired> {
    Spi::connect_mut(|client| {
        let keys = {
            // Keys are read back from their text as it was written.
            let _settings = super::pinned_output();
            client.update(query, None, arguments)?
        };
        // SAFETY: the tuple table is SPI's until it is closed.
        let table = unsafe { pg_sys::SPI_tuptable };
        let mut mender = Mender::open(pair)?;
        let load = |mender: &mut Mender, i: usize| {
            pgrx::check_for_interrupts!();
            // SAFETY: the rows of the table have the key's columns, and stay.
            unsafe {
                let tuple = *(*table).vals.add(i);
                mender.key_is(|column| {
                    let mut is_null = false;
                    let value =
                        pg_sys::SPI_getbinval(tuple, (*table).tupdesc, column as i32 + 1, &mut is_null);
                    (value, is_null)
                })
            }
        };
        let mut had_row = vec![false; keys.len()];
        if mender.needs_room() {
            for (i, had_row) in had_row.iter_mut().enumerate() {
                load(&mut mender, i)?;
                *had_row = mender.make_room()?;
            }
        }
        // Keys of the side that is right come first: a row whose partition key differs is changed, not deleted and made anew.
        let mut others = Vec::new();
        for (i, had_row) in had_row.into_iter().enumerate() {
            load(&mut mender, i)?;
            if mender.is_in_origin_now()? {
                mender.mend(had_row)?;
            } else {
                others.push((i, had_row));
            }
        }
        for (i, had_row) in others {
            load(&mut mender, i)?;
            mender.mend(had_row)?;
        }
        mender.close()
    })
}

/// Mends rows that are too many to be held in memory.
fn mend_places(pair: &Pair, mut places: Places) -> Result<Repaired> {
    let mut mender = Mender::open(pair)?;
    let mut had_row = Bits::of(if mender.needs_room() { places.count() } else { 0 });
    if mender.needs_room() {
        each_key(&mut places, &mut mender, |mender, i| {
            had_row.set(i, mender.make_room()?);
            Ok(())
        })?;
    }
    each_key(&mut places, &mut mender, |mender, i| mender.mend(had_row.get(i)))?;
    places.end();
    mender.close()
}

/// Calls `body` with each key that differs, and its number: that of the side that is right where both sides have it.
fn each_key(
    places: &mut Places,
    mender: &mut Mender,
    mut body: impl FnMut(&mut Mender, u64) -> Result<()>,
) -> Result<()> {
    let snapshot = places.snapshot();
    let mut numbers = (Oid::INVALID, Vec::new());
    let mut number = 0;
    let count = places.count();
    places.each(|found, row| {
        // SAFETY: the slot holds a row until the next one; the numbers are those of its columns.
        unsafe {
            if numbers.0 != found.table {
                let columns = mender::key_numbers(mender.pair(), (*row).tts_tupleDescriptor)?;
                numbers = (found.table, columns);
            }
            mender.key_is(|column| {
                let mut is_null = false;
                let value = pg_sys::slot_getattr(row, numbers.1[column], &mut is_null);
                (value, is_null)
            })?;
        }
        if found.is_right || !mender.is_in_origin(snapshot)? {
            body(mender, number)?;
        }
        number += 1;
        if number.is_multiple_of(TOLD_ROWS) || number == count {
            calls::step(calls::Stage::Mend, number, count)?;
        }
        Ok(())
    })
}

/// A bit for each of so many rows.
struct Bits(Vec<u64>);

impl Bits {
    fn of(count: u64) -> Bits {
        Bits(vec![0; count.div_ceil(64) as usize])
    }

    fn set(&mut self, i: u64, value: bool) {
        self.0[i as usize / 64] |= u64::from(value) << (i % 64);
    }

    /// False beyond the end.
    fn get(&self, i: u64) -> bool {
        self.0
            .get(i as usize / 64)
            .is_some_and(|word| word >> (i % 64) & 1 == 1)
    }
}
