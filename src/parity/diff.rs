//! Row by row: which rows differ, and making them equal again.
#![allow(unsafe_code)]

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, Literal, RelName, list};
use crate::pair::{Pair, store};
use crate::sync::reconcile::Reconciler;
use crate::sync::side::{ForeignKeys, Outcome, Side};
use crate::sync::{pair_cache, triggers};
use crate::{session, spi};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;
use serde::Deserialize;
use serde_json::{Value, json};

/// A row that differs.
#[derive(Debug, Deserialize)]
pub struct Mismatch {
    /// `missing` on the twin, `extra` on the twin, or `different`.
    pub kind: String,
    pub key: Value,
    pub legacy: Option<Value>,
    pub twin: Option<Value>,
}

#[derive(Deserialize)]
struct KeyColumn {
    name: Ident,
    /// The equality operator of the legacy's primary key, or of the type's default operator class.
    operator_schema: Ident,
    operator: String,
}

/// The query that joins both sides by the twin's key and keeps what differs.
struct Comparison {
    legacy: RelName,
    twin: RelName,
    key: Vec<KeyColumn>,
    columns: Vec<Ident>,
}

impl Comparison {
    fn of(pair: &Pair) -> Result<Comparison> {
        let legacy = load::table_def(pair.legacy)?;
        let twin = load::rel_name(pair.twin)?.ok_or_else(|| Error::Internal("the twin is gone".into()))?;
        let sync_pair = pair_cache::get(pair.id)?;
        let key = spi::rows(
            include_str!("../../sql/catalog/key_operators.sql"),
            &[pair.legacy.into(), sync_pair.twin_key.clone().into()],
        )?;
        Ok(Comparison {
            columns: legacy.columns.iter().map(|c| c.name.clone()).collect(),
            legacy: legacy.name,
            twin,
            key,
        })
    }

    /// `FROM … WHERE …`, with the sides called `l` and `t`. Rows are compared byte for byte, as `checksum` does.
    fn body(&self) -> String {
        let on = self
            .key
            .iter()
            .map(|k| {
                format!(
                    "l.{0} OPERATOR({1}.{2}) t.{0}",
                    k.name, k.operator_schema, k.operator
                )
            })
            .collect::<Vec<_>>()
            .join(" AND ");
        let row = |side: &str| list(self.columns.iter().map(|c| format!("{side}.{c}")));
        let first = self.key.first().map(|k| k.name.to_string()).unwrap_or_default();
        format!(
            "FROM {} l FULL JOIN {} t ON {on}
             WHERE l.{first} IS NULL OR t.{first} IS NULL
                OR pg_catalog.record_image_ne(ROW({}), ROW({}))",
            self.legacy,
            self.twin,
            row("l"),
            row("t")
        )
    }

    fn kind(&self) -> String {
        let first = self.key.first().map(|k| k.name.to_string()).unwrap_or_default();
        format!(
            "CASE WHEN t.{first} IS NULL THEN 'missing' WHEN l.{first} IS NULL THEN 'extra' ELSE 'different' END"
        )
    }

    fn key_values(&self) -> String {
        list(
            self.key
                .iter()
                .map(|k| format!("COALESCE(l.{0}, t.{0}) AS {0}", k.name)),
        )
    }
}

fn owner_of(pair: &Pair) -> Result<Oid> {
    load::owner(pair.legacy)
}

/// The first `max_rows` rows that differ.
pub fn mismatches(relation: Oid, max_rows: i32) -> Result<Vec<Mismatch>> {
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    if max_rows < 0 {
        return Err(Error::BadArgument {
            argument: "max_rows".into(),
            reason: format!("{max_rows} rows were asked for"),
            hint: "Ask for zero rows or more.".into(),
        });
    }
    let comparison = Comparison::of(&pair)?;
    let key = list(
        comparison
            .key
            .iter()
            .map(|k| format!("{}, COALESCE(l.{1}, t.{1})", Literal(k.name.as_str()), k.name)),
    );
    session::as_user(owner_of(&pair)?, || {
        spi::rows(
            &format!(
                "SELECT pg_catalog.jsonb_build_object('kind', {}, 'key', pg_catalog.jsonb_build_object({key}),
                    'legacy', pg_catalog.to_jsonb(l), 'twin', pg_catalog.to_jsonb(t)) {} LIMIT {max_rows}",
                comparison.kind(),
                comparison.body()
            ),
            &[],
        )
    })
}

/// How many rows differ, by the partition that they are or belong in.
pub fn count_by_partition(pair: &Pair) -> Result<Vec<(Oid, i64)>> {
    let comparison = Comparison::of(pair)?;
    let rows: Vec<(Option<u32>, i64)> = session::as_user(owner_of(pair)?, || {
        spi::rows(
            &format!(
                "SELECT pg_catalog.jsonb_build_array(p, pg_catalog.count(*))
                 FROM (SELECT t.tableoid::bigint AS p {}) x GROUP BY p",
                comparison.body()
            ),
            &[],
        )
    })?;
    // Rows that the twin lacks have no partition: the counts of their partition differ already.
    Ok(rows
        .into_iter()
        .filter_map(|(partition, count)| partition.map(|p| (p.into(), count)))
        .collect())
}

/// What a repair did, or would do.
#[derive(Debug, Default, Clone, Copy)]
pub struct Repaired {
    pub inserted: i64,
    pub updated: i64,
    pub deleted: i64,
}

/// Keys that one pass of a repair takes.
const KEYS_PER_PASS: i32 = 10_000;

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
        let kinds: Vec<(String, i64)> = session::as_user(owner, || {
            spi::rows(
                &format!(
                    "SELECT pg_catalog.jsonb_build_array(k, pg_catalog.count(*)) FROM (SELECT {} AS k {}) x GROUP BY k",
                    comparison.kind(),
                    comparison.body()
                ),
                &[],
            )
        })?;
        let count = |kind: &str| kinds.iter().find(|(k, _)| k == kind).map_or(0, |(_, n)| *n);
        return Ok(Repaired {
            inserted: count("missing"),
            updated: count("different"),
            deleted: count("extra"),
        });
    }
    // Before the rows: what is written meanwhile must not drift again.
    triggers::install_on_bare_partitions(&pair)?;
    let mut repaired = Repaired::default();
    loop {
        let before = repaired;
        session::as_user(owner, || repair_pass(&pair, &comparison, &mut repaired))?;
        let done = |r: Repaired| r.inserted + r.updated + r.deleted;
        if done(repaired) == done(before) {
            break;
        }
    }
    store::log_run(
        &store::display_name(pair.legacy)?,
        "repair",
        "REPAIRED",
        json!({ "inserted": repaired.inserted, "updated": repaired.updated, "deleted": repaired.deleted }),
    )?;
    Ok(repaired)
}

fn repair_pass(pair: &Pair, comparison: &Comparison, repaired: &mut Repaired) -> Result<()> {
    let sync_pair = pair_cache::get(pair.id)?;
    let (origin_oid, target_oid) = match pair.phase {
        crate::pair::Phase::Switched => (pair.twin, pair.legacy),
        _ => (pair.legacy, pair.twin),
    };
    let query = format!(
        "SELECT {} {} LIMIT {KEYS_PER_PASS}",
        comparison.key_values(),
        comparison.body()
    );
    let _unrouted = crate::route::choose::Unrouted::new();
    Spi::connect_mut(|client| {
        let keys = client.update(query.as_str(), None, &[])?;
        let mut origin = Side::open(origin_oid, ForeignKeys::All)?;
        let mut target = Side::open(target_oid, ForeignKeys::ActionsOnly)?;
        let mut reconciler = Reconciler::new(&mut origin, &mut target, &sync_pair)?;
        let key_slot = origin.new_slot();
        // SAFETY: the tuple table is SPI's until it is closed; its columns are the key columns, whose numbers in the
        // origin are looked up by name. The trigger queue is opened around the writes.
        unsafe {
            pg_sys::AfterTriggerBeginQuery();
            let table = pg_sys::SPI_tuptable;
            for i in 0..keys.len() {
                pgrx::check_for_interrupts!();
                let tuple = *(*table).vals.add(i);
                pg_sys::ExecClearTuple(key_slot);
                let all = (*origin.tuple_desc()).natts as usize;
                std::slice::from_raw_parts_mut((*key_slot).tts_isnull, all).fill(true);
                for (column, name) in sync_pair.twin_key.iter().enumerate() {
                    let c_name =
                        std::ffi::CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()))?;
                    let number = pg_sys::SPI_fnumber(origin.tuple_desc(), c_name.as_ptr()) as usize - 1;
                    let mut is_null = false;
                    *(*key_slot).tts_values.add(number) =
                        pg_sys::SPI_getbinval(tuple, (*table).tupdesc, column as i32 + 1, &mut is_null);
                    *(*key_slot).tts_isnull.add(number) = is_null;
                }
                pg_sys::ExecStoreVirtualTuple(key_slot);
                target.see_own_writes();
                match reconciler.reconcile_locked(&mut origin, &mut target, key_slot)? {
                    Outcome::Inserted => repaired.inserted += 1,
                    Outcome::Updated => repaired.updated += 1,
                    Outcome::Deleted => repaired.deleted += 1,
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
