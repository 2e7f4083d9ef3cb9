//! What a repair would do, in one snapshot.
#![allow(unsafe_code)]

use super::Repaired;
use super::mender::{Memory, fill_key, key_numbers, sides};
use crate::catalog::load;
use crate::error::Result;
use crate::ident::Literal;
use crate::pair::{Pair, Phase};
use crate::parity::diff::{Comparison, owner_of};
use crate::parity::locate::Differences;
use crate::parity::places::{self, Places};
use crate::sync::pair_cache::{self, SyncPair};
use crate::sync::side::{Side, Slot};
use crate::{session, spi};
use pgrx::JsonB;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde_json::Value;

pub fn all(pair: &Pair, differences: Differences) -> Result<Repaired> {
    session::as_user(owner_of(pair)?, || match differences {
        Differences::Keys(keys) => of_keys(pair, keys),
        Differences::Places(places) => of_places(pair, places),
    })
}

fn of_keys(pair: &Pair, keys: Vec<Value>) -> Result<Repaired> {
    let _settings = crate::parity::pinned_output();
    // What names a row of the legacy, which has no room for two of them in different partitions.
    let legacy_key = load::table_def(pair.legacy)?
        .key_columns()
        .iter()
        .map(|column| format!("(y.key OPERATOR(pg_catalog.->) {0}) OPERATOR(pg_catalog.=) (x.key OPERATOR(pg_catalog.->) {0})", Literal(column.as_str())))
        .collect::<Vec<_>>()
        .join(" AND ");
    let kinds: Vec<(String, i64)> = spi::rows_in_snapshot(
        &format!(
            "WITH m AS MATERIALIZED ({})
             SELECT pg_catalog.jsonb_build_array(m.kind, pg_catalog.count(*)) FROM m GROUP BY m.kind
             UNION ALL SELECT pg_catalog.jsonb_build_array('moved', pg_catalog.count(*)) FROM m x
             WHERE x.kind = 'extra' AND EXISTS (SELECT FROM m y WHERE y.kind = 'missing' AND {legacy_key})",
            Comparison::of(pair)?.of_keys()
        ),
        &[JsonB(Value::Array(keys)).into()],
    )?;
    let count = |kind: &str| kinds.iter().find(|(k, _)| k == kind).map_or(0, |(_, n)| *n);
    Ok(match pair.phase {
        Phase::Switched => Repaired {
            inserted: count("extra") - count("moved"),
            updated: count("different") + count("moved"),
            deleted: count("missing") - count("moved"),
        },
        _ => Repaired {
            inserted: count("missing"),
            updated: count("different"),
            deleted: count("extra"),
        },
    })
}

/// A side, and a slot for keys in its format.
struct Keyed {
    side: Side,
    key: Slot,
    numbers: Vec<i32>,
}

impl Keyed {
    fn open(pair: &SyncPair, table: Oid) -> Result<Keyed> {
        let side = Side::open_for_reading(table)?;
        Ok(Keyed {
            key: side.new_slot(),
            numbers: key_numbers(pair, side.tuple_desc())?,
            side,
        })
    }

    /// The key of `row` is the one to look for.
    ///
    /// # Safety
    /// `row` holds a row of a side, which stays while the key is used.
    unsafe fn key_is_that_of(&mut self, pair: &SyncPair, row: Slot) -> Result<()> {
        // SAFETY: the caller's; the numbers are those of the row's columns.
        unsafe {
            let numbers = key_numbers(pair, (*row).tts_tupleDescriptor)?;
            fill_key(self.key, &self.numbers, |column| {
                let mut is_null = false;
                let value = pg_sys::slot_getattr(row, numbers[column], &mut is_null);
                (value, is_null)
            });
        }
        Ok(())
    }

    fn close(self) {
        // SAFETY: the slot is the side's, which is open.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.key) };
        self.side.close();
    }
}

/// Rows after which the sides are opened anew, which frees what rows leave in memory.
const ROWS_AT_A_TIME: u64 = 1_000;

/// Both sides, to look for rows.
struct Counter {
    origin: Keyed,
    target: Keyed,
}

fn of_places(pair: &Pair, mut places: Places) -> Result<Repaired> {
    let sync_pair = pair_cache::get(pair.id)?;
    let (origin, target) = sides(pair);
    let mut counted = Repaired::default();
    let (mut rows, mut open): (u64, Option<Counter>) = (0, None);
    let snapshot = places.snapshot();
    let memory = Memory::new();
    places.each(|found, row| {
        rows += 1;
        if rows.is_multiple_of(ROWS_AT_A_TIME)
            && let Some(counter) = open.take()
        {
            counter.close();
            memory.reset();
        }
        memory.within(|| {
            let counter = match &mut open {
                Some(counter) => counter,
                closed => closed.insert(Counter {
                    origin: Keyed::open(&sync_pair, origin)?,
                    target: Keyed::open(&sync_pair, target)?,
                }),
            };
            // SAFETY: the slot holds the row until the next one.
            unsafe { counter.count(&sync_pair, found, row, snapshot, &mut counted) }
        })
    })?;
    places.end();
    if let Some(counter) = open {
        counter.close();
    }
    memory.delete();
    Ok(counted)
}

impl Counter {
    fn close(self) {
        self.origin.close();
        self.target.close();
    }

    /// # Safety
    /// `row` holds the row that was found.
    unsafe fn count(
        &mut self,
        pair: &SyncPair,
        found: places::Found,
        row: Slot,
        snapshot: pg_sys::Snapshot,
        counted: &mut Repaired,
    ) -> Result<()> {
        // SAFETY: the caller's; a row that a side gives stays until the side is asked again.
        unsafe {
            if found.is_right {
                self.target.key_is_that_of(pair, row)?;
                let Some((_, its)) = self.target.side.read(self.target.key, snapshot)? else {
                    counted.inserted += 1;
                    return Ok(());
                };
                counted.updated += 1;
                // The legacy's row may have another partition key: it comes again, as one too many.
                self.origin.key_is_that_of(pair, its)?;
                if self.origin.side.read(self.origin.key, snapshot)?.is_none() {
                    counted.deleted -= 1;
                }
                return Ok(());
            }
            // A row that the other side has in other bytes was counted with that one.
            self.origin.key_is_that_of(pair, row)?;
            if let Some((_, right)) = self.origin.side.read(self.origin.key, snapshot)? {
                self.target.key_is_that_of(pair, right)?;
                if let Some((leaf, its)) = self.target.side.read(self.target.key, snapshot)?
                    && (*leaf.relation()).rd_id == found.table
                    && is_same_place((*its).tts_tid, found.place)
                {
                    return Ok(());
                }
            }
            counted.deleted += 1;
        }
        Ok(())
    }
}

fn is_same_place(a: pg_sys::ItemPointerData, b: pg_sys::ItemPointerData) -> bool {
    (a.ip_blkid.bi_hi, a.ip_blkid.bi_lo, a.ip_posid) == (b.ip_blkid.bi_hi, b.ip_blkid.bi_lo, b.ip_posid)
}
