//! Reads and writes pairs in the extension's own tables.

use super::{PairOf, Phase, Strategy};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::Ident;
use crate::{session, spi};
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::sync::LazyLock;

pub type Pair = PairOf<Oid>;

#[derive(Deserialize)]
struct Row {
    id: i32,
    /// `None` when the pair is done.
    legacy: Option<u32>,
    twin: u32,
    base_name: Ident,
    strategy: String,
    partition_key: Ident,
    partition_interval: Option<String>,
    partitions: Option<i32>,
    phase: String,
    verified_at: Option<String>,
    keep_unique: bool,
    guard: Option<u32>,
}

const COLUMNS: &str = "pg_catalog.jsonb_build_object(
    'id', id, 'legacy', legacy::oid::bigint, 'twin', twin::oid::bigint, 'base_name', base_name,
    'strategy', strategy, 'partition_key', partition_key, 'partition_interval', partition_interval,
    'partitions', partitions, 'phase', phase, 'keep_unique', keep_unique, 'guard', guard::oid::bigint,
    'verified_at', pg_catalog.to_char(verified_at, 'YYYY-MM-DD HH24:MI'))";

impl TryFrom<Row> for Pair {
    type Error = Error;

    fn try_from(row: Row) -> Result<Pair> {
        Ok(Pair {
            id: row.id,
            legacy: row.legacy.map_or(Oid::INVALID, Oid::from),
            twin: row.twin.into(),
            base_name: row.base_name,
            strategy: row.strategy.parse::<Strategy>().map_err(Error::Internal)?,
            partition_key: row.partition_key,
            partition_interval: row.partition_interval,
            partitions: row.partitions,
            phase: row.phase.parse::<Phase>().map_err(Error::Internal)?,
            verified_at: row.verified_at,
            keep_unique: row.keep_unique,
            guard: row.guard.map(Oid::from),
        })
    }
}

/// The pair that a relation belongs to: either side, or a partition of the twin.
pub fn find(relation: Oid) -> Result<Option<Pair>> {
    let row: Option<Row> = session::with_own_tables(|| spi::kept_row(&FIND, &[relation.into()]))?;
    row.map(Pair::try_from).transpose()
}

static FIND: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM partition_router.pair
         WHERE $1 IN (legacy::oid, twin::oid, guard::oid) OR twin::oid = pg_catalog.pg_partition_root($1)::oid"
    )
});

/// The pair with this number, under the latest snapshot.
pub fn latest(id: i32) -> Result<Option<Pair>> {
    let query = format!("SELECT {COLUMNS} FROM partition_router.pair WHERE id = $1");
    let row: Option<Row> = session::with_own_tables(|| spi::latest_row(&query, id))?;
    row.map(Pair::try_from).transpose()
}

/// The pair's partition key has another name now.
pub fn set_partition_key(pair: &Pair, name: &Ident) -> Result<()> {
    let updated = session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.pair SET partition_key = $2 WHERE id = $1 RETURNING id",
            &[pair.id.into(), name.as_str().into()],
        )
    })?;
    if updated == 1 {
        return Ok(());
    }
    // A transaction whose snapshot is older than the pair cannot change it.
    session::require_read_committed("rename the partition key of a pair")?;
    Err(Error::Internal(format!("pair {} is gone", pair.id)))
}

/// As [`find`]; no pair is an error, and so is one that has lost a side.
pub fn get(relation: Oid) -> Result<Pair> {
    let pair = get_whole_or_not(relation)?;
    require_whole(&pair)?;
    Ok(pair)
}

/// As [`find`]; no pair is an error.
pub fn get_whole_or_not(relation: Oid) -> Result<Pair> {
    match find(relation)? {
        Some(pair) => Ok(pair),
        None => Err(Error::NotPaired {
            relation: existing_name(relation)?,
        }),
    }
}

fn require_whole(pair: &Pair) -> Result<()> {
    if pair.phase == Phase::Done {
        return Err(Error::WrongPhase {
            relation: display_name(pair.twin)?,
            phase: pair.phase.to_string(),
            call: "do this with".into(),
            next: pair.phase.next_call().into(),
        });
    }
    match (load::rel_name(pair.legacy)?, load::rel_name(pair.twin)?) {
        (Some(_), Some(_)) => Ok(()),
        (legacy, twin) => Err(Error::SideGone {
            relation: legacy.or(twin).map(|name| name.to_string()).unwrap_or_default(),
        }),
    }
}

/// The pair of this number, under the latest snapshot; `None` when it was let go of.
pub fn by_id(id: i32) -> Result<Option<Pair>> {
    let row: Option<Row> = session::with_own_tables(|| {
        spi::latest_row(
            &format!("SELECT {COLUMNS} FROM partition_router.pair WHERE id = $1"),
            id,
        )
    })?;
    row.map(Pair::try_from).transpose()
}

/// As [`get`], for a call that changes the pair: the caller must own both tables, and no other session may be
/// changing it, nor a worker of a backfill be at work on it. That is held until the transaction ends.
pub fn get_for_change(relation: Oid, operation: &str) -> Result<Pair> {
    let pair = get_to_lead(relation, operation)?;
    keep_workers_out(&pair)?;
    get(relation)
}

/// As [`get_for_change`], for work on the twin's partitions. A pair that is done is changed by nothing else than maintenance,
/// which its lease keeps apart.
pub fn get_to_maintain(pair: &Pair, operation: &str) -> Result<Pair> {
    match pair.phase {
        Phase::Done => Ok(pair.clone()),
        _ => get_for_change(pair.twin, operation),
    }
}

/// As [`get_for_change`], but workers of the backfill go on.
pub fn get_to_lead(relation: Oid, operation: &str) -> Result<Pair> {
    let pair = get(relation)?;
    require_owner(pair.legacy)?;
    require_owner(pair.twin)?;
    lock(&pair, operation)?;
    get(relation)
}

/// As [`get_for_change`], also for a pair that has lost a side: the caller must own what is left.
pub fn get_to_let_go(relation: Oid, operation: &str) -> Result<Pair> {
    let pair = get_whole_or_not(relation)?;
    for side in [pair.legacy, pair.twin] {
        if load::rel_name(side)?.is_some() {
            require_owner(side)?;
        }
    }
    lock(&pair, operation)?;
    keep_workers_out(&pair)?;
    get_whole_or_not(relation)
}

/// Waits until the workers of the pair's backfill have ended what they are at, and keeps them from more until the
/// transaction ends. Who leads a backfill holds the pair, or has ended and its workers with it: the wait is for a step
/// at most.
pub fn keep_workers_out(pair: &Pair) -> Result<()> {
    let _patient = session::PinnedSettings::new(&[(c"lock_timeout", "0")]);
    // Read, not executed: a dry run on a standby gets here, too.
    session::with_own_tables(|| {
        spi::row::<String>(
            "SELECT pg_catalog.to_jsonb(pg_catalog.pg_advisory_xact_lock(
                 'partition_router.copy_task'::regclass::oid::int, $1)::text)",
            &[pair.id.into()],
        )
    })?;
    Ok(())
}

/// Lets a worker work on a pair until its transaction ends; false when it is to be kept out.
pub fn let_worker_in(pair_id: i32) -> Result<bool> {
    let free: Option<bool> = session::with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(pg_catalog.pg_try_advisory_xact_lock_shared(
                 'partition_router.copy_task'::regclass::oid::int, $1))",
            &[pair_id.into()],
        )
    })?;
    Ok(free == Some(true))
}

fn lock(pair: &Pair, operation: &str) -> Result<()> {
    let free: Option<bool> = session::with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(pg_catalog.pg_try_advisory_xact_lock(
                 'partition_router.pair'::regclass::oid::int, $1))",
            &[pair.id.into()],
        )
    })?;
    if free == Some(true) {
        return Ok(());
    }
    Err(Error::Busy {
        relation: display_name(pair.legacy)?,
        operation: format!("another call than this {operation}"),
    })
}

/// # Errors
/// `42501` unless the current user owns the relation, directly or through a role.
pub fn require_owner(relation: Oid) -> Result<()> {
    if load::is_owner(relation)? {
        return Ok(());
    }
    Err(Error::NotOwner {
        relation: existing_name(relation)?,
    })
}

fn existing_name(relation: Oid) -> Result<String> {
    let oid = relation.to_u32();
    let name = load::rel_name(relation)?.ok_or(Error::UnknownRelation { oid })?;
    Ok(name.to_string())
}

/// The quoted name of a relation for messages, or its oid when it is gone.
pub fn display_name(relation: Oid) -> Result<String> {
    Ok(match load::rel_name(relation)? {
        Some(name) => name.to_string(),
        None => relation.to_u32().to_string(),
    })
}

pub fn set_phase(pair: &Pair, phase: Phase) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.pair
             SET phase = $2, live_at = CASE WHEN $2 = 'live' THEN pg_catalog.clock_timestamp() ELSE live_at END
             WHERE id = $1",
            &[pair.id.into(), phase.as_str().into()],
        )
    })?;
    announce(pair.legacy);
    Ok(())
}

/// `cleanup()` shall make a guard of the legacy.
pub fn keep_unique(pair: &Pair) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.pair SET keep_unique = true WHERE id = $1",
            &[pair.id.into()],
        )
    })?;
    Ok(())
}

/// The guard of a pair that is done is no more.
pub fn forget_guard(pair: &Pair) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.pair SET guard = NULL WHERE id = $1",
            &[pair.id.into()],
        )
    })?;
    announce(pair.twin);
    Ok(())
}

/// The partitions of `parent` are about to change. If it is the twin of a pair, snapshots older than this transaction read
/// the legacy: rows that they see may be in no partition in which a plan looks for them. To be called before strong
/// locks are taken, since it waits for whoever changes the pair.
pub fn change_layout(parent: Oid) -> Result<()> {
    session::with_own_tables(|| {
        spi::kept_execute(
            "UPDATE partition_router.pair SET layout_version = layout_version + 1 WHERE twin::oid = $1",
            &[parent.into()],
        )
    })?;
    Ok(())
}

/// Makes every session plan its statements on a legacy again, when this transaction has committed: the plans that it keeps
/// may read the other side by then.
pub fn announce(legacy: Oid) {
    if crate::ddl::pairs::exists(legacy) {
        #[allow(unsafe_code)]
        // SAFETY: queues a message; the relation exists.
        unsafe {
            pgrx::pg_sys::CacheInvalidateRelcacheByRelid(legacy)
        };
    }
}

/// Forgets a pair, with its policy.
pub fn delete(pair: &Pair) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.policy WHERE parent::oid = $1",
            &[pair.twin.into()],
        )?;
        forget_details(pair.id)?;
        spi::execute(
            "DELETE FROM partition_router.pair WHERE id = $1",
            &[pair.id.into()],
        )
    })?;
    announce(pair.legacy);
    Ok(())
}

/// Forgets what is kept of a pair beside its row. To be called with the right to write the extension's tables.
pub fn forget_details(pair_id: i32) -> Result<()> {
    for table in ["rollout", "copy_state", "copy_task", "parity_mark"] {
        spi::execute(
            &format!("DELETE FROM partition_router.{table} WHERE pair_id = $1"),
            &[pair_id.into()],
        )?;
    }
    Ok(())
}

/// Writes one line of `run_log`.
pub fn log_run(legacy: &str, operation: &str, stage: &str, detail: serde_json::Value) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.run_event (legacy, operation, stage, detail) VALUES ($1, $2, $3, $4)",
            &[
                legacy.into(),
                operation.into(),
                stage.into(),
                pgrx::JsonB(detail).into(),
            ],
        )
    })?;
    Ok(())
}

/// A column of the legacy has another name now.
pub fn rename_tenant_column(pair: &Pair, before: &Ident, after: &Ident) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "WITH renamed AS (
                 UPDATE partition_router.rollout SET tenant_column = $3 WHERE pair_id = $1 AND tenant_column = $2
                 RETURNING pair_id)
             UPDATE partition_router.pair SET rollout_version = rollout_version + 1
             WHERE id IN (SELECT pair_id FROM renamed)",
            &[pair.id.into(), before.as_str().into(), after.as_str().into()],
        )
    })?;
    Ok(())
}
