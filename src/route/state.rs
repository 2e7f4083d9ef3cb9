//! What a decision needs of a pair, as one snapshot sees it.
//!
//! A pair and its rollout are read from their tables without SQL and kept by backend, together with the place and the
//! transaction of the very version of the row that was read. What is kept counts only where the snapshot at hand sees that
//! version: one look at one row, and no invalidation to wait for. A snapshot that does not is older or younger, and gets what it
//! sees itself. Whatever changes a rollout changes the pair's row (`rollout_version`).
//!
//! That a relation is in no pair is kept without a look, until a message says that the relation has changed: making a
//! pair sends one. That is the answer for most, so it has a table of its own, which the planner hook looks into first.
#![allow(unsafe_code)]

use super::decide::{Proof, Rollout};
use super::substitute;
use crate::compat;
use crate::pair::Phase;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::{FromDatum, IntoDatum};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::ptr::null_mut;
use std::rc::Rc;

/// A pair, as far as decisions go.
#[derive(Debug)]
pub struct PairState {
    pub id: i32,
    pub legacy: Oid,
    pub twin: Oid,
    pub phase: Phase,
    pub proof: Proof,
    pub rollout: Rollout,
    /// The legacy's column that says whose a row is.
    pub tenant_column: Option<String>,
    pub layout: i64,
    version: RowVersion,
}

/// One version of a row: where it is, and who made it. Should the place be used again, its maker is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowVersion {
    place: (u32, u16),
    maker: pg_sys::TransactionId,
}

/// Which of the pair's tables a relation is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Legacy,
    Twin,
}

#[derive(Clone)]
enum Known {
    Stranger,
    Pair(Rc<PairState>),
}

/// What makes two snapshots of one backend see the same: those with the same end were taken from nested sets of running
/// transactions, so equal numbers of them are equal sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SameSight {
    transaction: pg_sys::LocalTransactionId,
    ends: pg_sys::TransactionId,
    running: (u32, i32, bool),
    command: pg_sys::CommandId,
}

const STRANGER_PLACES: usize = 256;

thread_local! {
    static KNOWN: RefCell<HashMap<(u32, bool), Known>> = RefCell::new(HashMap::new());
    /// Some of the strangers, each at the place of its last bits.
    static STRANGERS: [Cell<u32>; STRANGER_PLACES] = const { [const { Cell::new(0) }; STRANGER_PLACES] };
    /// The version that was looked at last, and under which snapshot it was seen.
    static LAST: Cell<Option<(SameSight, RowVersion)>> = const { Cell::new(None) };
    /// The version that was looked at last outside of any write, and how many transactions the server had seen end then.
    static UNTIL: Cell<Option<(u64, RowVersion)>> = const { Cell::new(None) };
    /// The table of pairs; invalid when it has to be looked for.
    static TABLE: Cell<Oid> = const { Cell::new(Oid::INVALID) };
    /// Counts messages: what came while a pair was read must not be missed.
    static MESSAGES: Cell<u64> = const { Cell::new(0) };
}

/// Hears of changed relations and of aborts. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(forget), pg_sys::Datum::from(0));
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn forget(_arg: pg_sys::Datum, relation: Oid) {
    MESSAGES.set(MESSAGES.get() + 1);
    substitute::forget(relation);
    let oid = relation.to_u32();
    STRANGERS.with(|places| {
        for place in places {
            if relation == Oid::INVALID || place.get() == oid || relation == TABLE.get() {
                place.set(0);
            }
        }
    });
    if relation == Oid::INVALID || relation == TABLE.get() {
        TABLE.set(Oid::INVALID);
        LAST.set(None);
        UNTIL.set(None);
        KNOWN.with_borrow_mut(HashMap::clear);
    } else {
        KNOWN.with_borrow_mut(|known| {
            if !known.is_empty() {
                known.remove(&(oid, false));
                known.remove(&(oid, true));
            }
        });
    }
}

/// A row of this transaction may be gone that a snapshot of the same description saw.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _subtransaction: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        LAST.set(None);
    }
}

/// Whether a relation is known to be the legacy of no pair: the answer for most, and quick. It may be one all the same.
pub fn is_stranger(relation: Oid) -> bool {
    let oid = relation.to_u32();
    STRANGERS.with(|places| places[oid as usize % STRANGER_PLACES].get() == oid)
}

fn keep_stranger(relation: Oid) {
    let oid = relation.to_u32();
    STRANGERS.with(|places| places[oid as usize % STRANGER_PLACES].set(oid));
}

/// How many messages about relations this backend has heard.
pub fn messages() -> u64 {
    MESSAGES.get()
}

/// Whether a relation was the legacy of a pair when this backend last looked, or is now.
///
/// # Safety
/// Within a transaction.
pub unsafe fn may_be_legacy(relation: Oid) -> bool {
    if is_stranger(relation) {
        return false;
    }
    let is_known =
        KNOWN.with_borrow(|known| matches!(known.get(&(relation.to_u32(), false)), Some(Known::Pair(_))));
    // SAFETY: as for this function.
    is_known || unsafe { latest(relation, Key::Legacy) }.is_some()
}

/// The pair that has `relation` as its legacy, or as its twin, as `snapshot` sees it; `None` when it sees none.
///
/// # Safety
/// Within a transaction; `snapshot` is an MVCC snapshot that stays.
pub unsafe fn under(relation: Oid, key: Key, snapshot: pg_sys::Snapshot) -> Option<Rc<PairState>> {
    let place = (relation.to_u32(), key == Key::Twin);
    match KNOWN.with_borrow(|known| known.get(&place).cloned()) {
        Some(Known::Stranger) => {
            if key == Key::Legacy {
                keep_stranger(relation);
            }
            return None;
        }
        // SAFETY: as for this function.
        Some(Known::Pair(pair)) if unsafe { sees(&pair, snapshot) } => return Some(pair),
        _ => {}
    }
    loop {
        let before = MESSAGES.get();
        // SAFETY: as for this function.
        let (found, is_latest) = unsafe { read(relation, key, snapshot) };
        if MESSAGES.get() != before {
            pgrx::check_for_interrupts!();
            continue;
        }
        match &found {
            Some(pair) => {
                KNOWN.with_borrow_mut(|known| known.insert(place, Known::Pair(Rc::clone(pair))));
            }
            // An old snapshot may not see a pair that there is.
            None if is_latest => {
                if key == Key::Legacy {
                    keep_stranger(relation);
                }
                KNOWN.with_borrow_mut(|known| known.insert(place, Known::Stranger));
            }
            None => {}
        }
        return found;
    }
}

/// As [`under`], with the latest snapshot.
///
/// # Safety
/// Within a transaction.
pub unsafe fn latest(relation: Oid, key: Key) -> Option<Rc<PairState>> {
    if key == Key::Legacy && is_stranger(relation) {
        return None;
    }
    // SAFETY: a look at one row needs no registered snapshot, since nobody asks for the latest one meanwhile; a reading does.
    // After an error the abort lets go of it.
    unsafe {
        let snapshot = pg_sys::GetLatestSnapshot();
        let known = KNOWN.with_borrow(|known| known.get(&(relation.to_u32(), key == Key::Twin)).cloned());
        if let Some(Known::Pair(pair)) = known
            && sees(&pair, snapshot)
        {
            return Some(pair);
        }
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let pair = under(relation, key, snapshot);
        pg_sys::UnregisterSnapshot(snapshot);
        pair
    }
}

/// Whether `snapshot` sees the version of the row that `pair` was read from.
///
/// # Safety
/// As for [`under`].
unsafe fn sees(pair: &PairState, snapshot: pg_sys::Snapshot) -> bool {
    // SAFETY: as for this function; a tuple that was found stays pinned until its buffer is let go of.
    unsafe {
        let sight = SameSight {
            transaction: compat::local_transaction(),
            ends: (*snapshot).xmax,
            running: ((*snapshot).xcnt, (*snapshot).subxcnt, (*snapshot).suboverflowed),
            command: (*snapshot).curcid,
        };
        if LAST.get() == Some((sight, pair.version)) {
            return true;
        }
        // The server uses a snapshot again while no transaction that wrote has ended; what it saw, it still sees.
        let ended = match pg_sys::GetTopTransactionIdIfAny() {
            pg_sys::InvalidTransactionId => (*snapshot).snapXactCompletionCount,
            _ => 0,
        };
        if ended != 0 && UNTIL.get() == Some((ended, pair.version)) {
            LAST.set(Some((sight, pair.version)));
            return true;
        }
        let Some(table) = Table::open() else {
            return false;
        };
        let mut tuple = pg_sys::HeapTupleData::default();
        pgrx::itemptr::item_pointer_set_all(&mut tuple.t_self, pair.version.place.0, pair.version.place.1);
        let is_visible = compat::fetch_version(table.0, snapshot, &mut tuple, |tuple| {
            pg_sys::htup::HeapTupleHeaderGetRawXmin((*tuple).t_data) == pair.version.maker
        });
        if is_visible {
            LAST.set(Some((sight, pair.version)));
            if ended != 0 {
                UNTIL.set(Some((ended, pair.version)));
            }
        }
        is_visible
    }
}

/// The table of pairs, open, its lock kept to the end of the transaction.
struct Table(pg_sys::Relation);

impl Table {
    /// `None` where the extension is not, or is being created.
    ///
    /// # Safety
    /// Within a transaction.
    unsafe fn open() -> Option<Table> {
        // SAFETY: a relation that is opened is closed by `drop`, or by the abort.
        unsafe {
            if TABLE.get() == Oid::INVALID {
                TABLE.set(named(c"pair"));
            }
            if TABLE.get() == Oid::INVALID {
                return None;
            }
            Table::of(TABLE.get())
        }
    }

    unsafe fn of(oid: Oid) -> Option<Table> {
        // SAFETY: as in `open`.
        let relation = unsafe { pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as i32) };
        (!relation.is_null()).then_some(Table(relation))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open`.
            unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as i32) };
        }
    }
}

/// A relation of the extension's schema; invalid when there is none.
fn named(name: &CStr) -> Oid {
    // SAFETY: look-ups in the catalog cache.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"partition_router".as_ptr(), true);
        if schema == Oid::INVALID {
            return Oid::INVALID;
        }
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    }
}

/// A row of one of the extension's tables, by column name.
struct Row<'a> {
    tuple: pg_sys::HeapTuple,
    table: &'a Table,
}

impl Row<'_> {
    /// # Safety
    /// The column's type is that of `T`.
    unsafe fn get<T: FromDatum>(&self, column: &CStr) -> Option<T> {
        // SAFETY: the tuple belongs to the table and is pinned by the scan.
        unsafe {
            let oid = (*self.table.0).rd_id;
            let number = pg_sys::get_attnum(oid, column.as_ptr());
            let mut is_null = true;
            let datum = pg_sys::htup::heap_getattr(
                self.tuple,
                i32::from(number),
                (*self.table.0).rd_att,
                &mut is_null,
            );
            T::from_datum(datum, is_null)
        }
    }

    /// # Safety
    /// As for `get`; the column is of a type that reads as text.
    unsafe fn text(&self, column: &CStr) -> Option<String> {
        // SAFETY: the caller's promise.
        unsafe { self.get(column) }
    }
}

/// The first row whose indexed column has this value, handed to `body`.
///
/// # Safety
/// As for [`under`]; `function` compares the column with a value like `value`.
unsafe fn scan<T>(
    table: &Table,
    index: &CStr,
    column: &CStr,
    function: u32,
    value: pg_sys::Datum,
    snapshot: pg_sys::Snapshot,
    body: impl FnOnce(&Row) -> Option<T>,
) -> Option<T> {
    // SAFETY: as for this function; the scan is ended here, or by the abort.
    unsafe {
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::get_attnum((*table.0).rd_id, column.as_ptr()),
            pg_sys::BTEqualStrategyNumber as u16,
            function.into(),
            value,
        );
        let index = named(index);
        let scan = pg_sys::systable_beginscan(table.0, index, index != Oid::INVALID, snapshot, 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let found = if tuple.is_null() {
            None
        } else {
            body(&Row { tuple, table })
        };
        pg_sys::systable_endscan(scan);
        found
    }
}

/// Reads a pair, and says whether the latest snapshot was asked.
///
/// # Safety
/// As for [`under`].
unsafe fn read(relation: Oid, key: Key, snapshot: pg_sys::Snapshot) -> (Option<Rc<PairState>>, bool) {
    // SAFETY: as for this function; columns have the types of sql/schema.sql.
    unsafe {
        let Some(pairs) = Table::open() else {
            return (None, true);
        };
        let (index, column) = match key {
            Key::Legacy => (c"pair_legacy_key", c"legacy"),
            Key::Twin => (c"pair_twin_key", c"twin"),
        };
        let by_oid = |snapshot| {
            scan(
                &pairs,
                index,
                column,
                pg_sys::F_OIDEQ,
                relation.into_datum().unwrap_or(pg_sys::Datum::from(0)),
                snapshot,
                |row| pair_of(row),
            )
        };
        let Some(mut pair) = by_oid(snapshot) else {
            let latest = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let is_in_none = by_oid(latest).is_none();
            pg_sys::UnregisterSnapshot(latest);
            return (None, is_in_none);
        };
        if let Some((rollout, column)) = rollout_of(pair.id, snapshot) {
            pair.rollout = rollout;
            pair.tenant_column = column;
        }
        (Some(Rc::new(pair)), true)
    }
}

unsafe fn pair_of(row: &Row) -> Option<PairState> {
    // SAFETY: columns have the types of sql/schema.sql.
    unsafe {
        let proven = row.get::<i64>(c"verified_at").is_some();
        let refuted: Option<i64> = row.get(c"refuted_at");
        Some(PairState {
            id: row.get(c"id")?,
            legacy: row.get(c"legacy")?,
            twin: row.get(c"twin")?,
            phase: row.text(c"phase")?.parse().ok()?,
            proof: match (proven, refuted) {
                (true, _) => Proof::Proven,
                (false, Some(micros)) => Proof::Refuted(micros.div_euclid(1_000_000) + SECONDS_TO_2000),
                (false, None) => Proof::None,
            },
            rollout: Rollout::default(),
            tenant_column: None,
            layout: row.get(c"layout_version")?,
            version: RowVersion {
                place: pgrx::itemptr::item_pointer_get_both((*row.tuple).t_self),
                maker: pg_sys::htup::HeapTupleHeaderGetRawXmin((*row.tuple).t_data),
            },
        })
    }
}

/// From 1970 to 2000, where the server's clock begins.
const SECONDS_TO_2000: i64 = 946_684_800;

unsafe fn rollout_of(pair: i32, snapshot: pg_sys::Snapshot) -> Option<(Rollout, Option<String>)> {
    // SAFETY: as in `read`.
    unsafe {
        let table = Table::of(named(c"rollout"))?;
        scan(
            &table,
            c"rollout_pkey",
            c"pair_id",
            pg_sys::F_INT4EQ,
            pg_sys::Datum::from(pair),
            snapshot,
            |row| {
                let names = |column| {
                    row.get::<Vec<Option<String>>>(column)
                        .unwrap_or_default()
                        .into_iter()
                        .flatten()
                        .collect()
                };
                let column: Option<&CStr> = row.get(c"tenant_column");
                Some((
                    Rollout {
                        percent: row.get(c"percent")?,
                        pilots: names(c"pilots"),
                        excluded: names(c"excluded"),
                    },
                    column.map(|name| name.to_string_lossy().into_owned()),
                ))
            },
        )
    }
}
