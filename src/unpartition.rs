//! Back to one plain table, online: `migrate` and `switchover` the other way round. The plain table becomes the legacy of a pair that
//! is `switched` from the start, so every change of the partitioned table reaches it from then on, also of rows that it does not
//! have yet. Then the rows that were there before are brought in line, a few blocks a transaction, each row under its
//! lock; both sides are proven equal; and `rollback` swaps the names. The partitioned table is kept in step until
//! `abandon` drops it, so the way back is `switchover`.

mod ahead;

use crate::calls::{Call, Stage};
use crate::catalog::{TableDef, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::feed;
use crate::ident::{Ident, Literal, RelName};
use crate::locks::{self, budget};
use crate::pair::{Pair, Phase, store};
use crate::parity::{self, Extent, Level, repair};
use crate::plan::{self, Plan, sync_triggers};
use crate::session::{self, as_user, with_own_tables};
use crate::sync::triggers;
use crate::{calls, spi, switchover};
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use serde_json::json;
use std::time::Instant;

const OPERATION: &str = "unpartition";
/// Blocks of a partition that one transaction goes through: its rows are locked until it ends.
const BLOCKS: i64 = 16;

/// What is to become of a partitioned table, before anything is changed.
struct Design {
    table: TableDef,
    plain: RelName,
    /// The name that the partitioned table gets at the end.
    away: Ident,
    shape: Shape,
}

/// How the table is partitioned.
#[derive(Debug, Clone, Deserialize)]
struct Shape {
    strategy: String,
    /// `None` where the key is an expression or several columns.
    key: Option<Ident>,
    interval: Option<String>,
    partitions: i32,
    has_foreign: bool,
}

/// # Errors
/// What cannot be made a plain table again, before anything is changed.
fn design(relation: Oid) -> Result<Design> {
    store::require_owner(relation)?;
    let table = load::table_def(relation)?;
    if table.kind != "p" {
        return Err(Error::NotPartitioned {
            relation: table.name.to_string(),
        });
    }
    let refuse = |what: String, hint: &str| {
        Err(Error::Unsupported {
            what,
            hint: hint.into(),
        })
    };
    let shape = shape(relation)?;
    if table.is_partition {
        return refuse(
            format!("{} is a partition itself", table.name),
            "Name the table that it is part of.",
        );
    }
    if shape.key.is_none() {
        return refuse(
            format!(
                "{} is partitioned by several columns or by an expression",
                table.name
            ),
            "Only tables that are partitioned by one column can be kept in step with another.",
        );
    }
    if shape.has_foreign {
        return refuse(
            format!("{} has partitions that are foreign tables", table.name),
            "Detach them first.",
        );
    }
    if table.primary_key().is_none() {
        return Err(Error::NoPrimaryKey {
            relation: table.name.to_string(),
        });
    }
    // The pair that is done has the guard in it, and would go.
    if let Some(guard) = store::find(relation)?.and_then(|pair| pair.guard) {
        let guard = store::display_name(guard)?;
        return refuse(
            format!("{guard} keeps columns of {} unique", table.name),
            &format!("Drop {guard}, and make the columns of the plain table unique afterwards."),
        );
    }
    if let Some(reference) = table.referenced_by.first() {
        return refuse(
            format!(
                "foreign key {} of {} points at {}",
                reference.name, reference.relation, table.name
            ),
            "Drop it, and add it again afterwards: the plain table can take it.",
        );
    }
    let plain = table.name.sibling(table.name.name.with_suffix("_legacy"));
    let away = table.name.name.with_suffix("_partitioned");
    for name in [&plain.name, &away, &sync_triggers::longest_name(&table.name.name)] {
        if name.is_too_long() {
            return Err(Error::NameTooLong {
                name: name.as_str().into(),
            });
        }
    }
    for name in [plain.clone(), table.name.sibling(away.clone())] {
        if load::oid_of(&name)?.is_some() {
            return Err(Error::NameTaken {
                name: name.to_string(),
                relation: table.name.to_string(),
            });
        }
    }
    Ok(Design {
        table,
        plain,
        away,
        shape,
    })
}

fn shape(relation: Oid) -> Result<Shape> {
    let shape: Option<Shape> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.jsonb_build_object(
                 'strategy', CASE p.partstrat WHEN 'r' THEN 'range' WHEN 'h' THEN 'hash' ELSE 'list' END,
                 'key', a.attname,
                 'interval', (SELECT o.partition_interval FROM partition_router.policy o WHERE o.parent::oid = p.partrelid),
                 'partitions', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits i WHERE i.inhparent = p.partrelid),
                 'has_foreign', EXISTS (SELECT FROM pg_catalog.pg_partition_tree(p.partrelid) t
                     JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE c.relkind = 'f'))
             FROM pg_catalog.pg_partitioned_table p
             LEFT JOIN pg_catalog.pg_attribute a
               ON a.attrelid = p.partrelid AND p.partnatts = 1 AND a.attnum = p.partattrs[0]
             WHERE p.partrelid = $1",
            &[relation.into()],
        )
    })?;
    shape.ok_or_else(|| Error::UnknownRelation {
        oid: relation.to_u32(),
    })
}

impl Design {
    /// Makes the plain table, empty. It draws its numbers from the same sequences; keys that point out of the table are its own.
    fn create(&self) -> Plan {
        let (table, plain) = (&self.table.name, &self.plain);
        let mut plan = Plan::default();
        plan.push(
            format!("create {plain}, empty"),
            format!("CREATE TABLE {plain} (LIKE {table} INCLUDING ALL EXCLUDING IDENTITY)"),
        );
        for column in &self.table.columns {
            if let Some(sequence) = column.sequence.as_ref().filter(|_| column.identity) {
                plan.push(
                    format!("draw {} from the same sequence", column.name),
                    format!(
                        "ALTER TABLE {plain} ALTER COLUMN {} SET DEFAULT {}",
                        column.name,
                        plan::next_value(sequence)
                    ),
                );
            }
        }
        for key in &self.table.foreign_keys {
            plan.push(
                format!("add foreign key {}", key.name),
                format!(
                    "ALTER TABLE {plain} ADD CONSTRAINT {} {}",
                    key.name, key.definition
                ),
            );
        }
        plan
    }
}

/// The pair of an unpartition that has begun, or of a table whose names are swapped.
fn pair_of(relation: Oid) -> Result<Option<Pair>> {
    Ok(store::find(relation)?.filter(|pair| pair.phase != Phase::Done))
}

/// Lays the triggers, one table in each transaction, and then makes the plain table and lets every change reach it from now on,
/// within the lock budget; true while it is to be called again.
pub fn prepare(relation: Oid) -> Result<bool> {
    session::require_read_committed(OPERATION)?;
    if let Some(pair) = pair_of(relation)? {
        store::require_owner(pair.legacy)?;
        store::require_owner(pair.twin)?;
        return match pair.phase {
            Phase::Switched | Phase::Live => Ok(false),
            _ => Err(Error::WrongPhase {
                relation: store::display_name(pair.twin)?,
                phase: pair.phase.to_string(),
                call: OPERATION.into(),
                next: pair.phase.next_call().into(),
            }),
        };
    }
    let design = design(relation)?;
    let (id, is_new) = ahead::begin(relation)?;
    if is_new || ahead::lay_one(relation, &design.table.name.name, id)? {
        return Ok(true);
    }
    begin_sync(relation, &design, id).map(|()| false)
}

/// The moment from which both tables are in step.
fn begin_sync(relation: Oid, design: &Design, id: i32) -> Result<()> {
    let owner = load::owner(relation)?;
    budget::within_budget(relation, || {
        as_user(owner, || execute::run(&design.create(), Mode::Run))
    })?;
    // Every writer is out from here to the end of this transaction: what they have written is copied, what they will is carried.
    locks::acquire(&ahead::everything(relation)?)?;
    let locked = Instant::now();
    let pair = register(relation, design, id)?;
    feed::follow(relation, pair.legacy)?;
    // Those that came since the others were laid, if any.
    triggers::install_on_bare_partitions(&pair)?;
    triggers::flip_to_live(&pair)?;
    ahead::end(relation)?;
    store::announce(pair.legacy);
    store::announce(pair.twin);
    store::log_run(
        &design.table.name.to_string(),
        OPERATION,
        "PREPARED",
        json!({
            "pair": pair.id,
            "plain": design.plain.to_string(),
            "locked_ms": locks::milliseconds(locked),
        }),
    )?;
    // What would keep the names from swapping is told before rows are copied.
    switchover::plan_back(&pair).map(|_| ())
}

fn register(relation: Oid, design: &Design, id: i32) -> Result<Pair> {
    let plain = load::latest_oid_of(&design.plain)?
        .ok_or_else(|| Error::Internal(format!("{} is gone", design.plain)))?;
    let before = json!({ "twin": design.away, "via_root": [], OPERATION: true });
    let id: Option<i32> = with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.pair WHERE twin::oid = $1 AND phase = 'done'",
            &[relation.into()],
        )?;
        let id = spi::returning(
            "INSERT INTO partition_router.pair (legacy, twin, base_name, strategy, partition_key, partition_interval,
                 partitions, phase, live_at, before_switch, id)
             VALUES ($1::oid, $2::oid, $3, $4, $5, $6, CASE WHEN $4 = 'hash' THEN $7 END, 'switched',
                 pg_catalog.clock_timestamp(), $8, $9)
             RETURNING pg_catalog.to_jsonb(id)",
            &[
                plain.into(),
                relation.into(),
                design.table.name.name.as_str().into(),
                design.shape.strategy.as_str().into(),
                design.shape.key.as_ref().map(Ident::as_str).into(),
                design.shape.interval.as_deref().into(),
                design.shape.partitions.into(),
                pgrx::JsonB(before).into(),
                id.into(),
            ],
        )?;
        spi::execute(
            "INSERT INTO partition_router.copy_task (pair_id, relation, first_block, end_block)
             SELECT $1, c.oid, 0, pg_catalog.pg_relation_size(c.oid)
                    / pg_catalog.current_setting('block_size')::int
             FROM pg_catalog.pg_partition_tree($2) t JOIN pg_catalog.pg_class c ON c.oid = t.relid
             WHERE c.relkind = 'r'",
            &[id.into(), relation.into()],
        )?;
        Ok::<_, Error>(id)
    })?;
    id.map(store::latest)
        .transpose()?
        .flatten()
        .ok_or_else(|| Error::Internal("the pair was not written".into()))
}

/// A part of a partition that is to be gone through.
#[derive(Debug, Clone, Deserialize)]
struct Part {
    relation: u32,
    first_block: i64,
    end_block: i64,
}

/// Blocks of the partitions that the copy has not gone through.
fn blocks_to_copy(pair: &Pair) -> Result<u64> {
    let blocks: Option<u64> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(COALESCE(pg_catalog.sum(end_block - first_block), 0))
             FROM partition_router.copy_task WHERE pair_id = $1",
            &[pair.id.into()],
        )
    })?;
    Ok(blocks.unwrap_or(0))
}

/// Brings the rows of some blocks in line; false when none are left.
pub fn copy(relation: Oid) -> Result<bool> {
    session::require_read_committed(OPERATION)?;
    let pair = store::get_for_change(relation, OPERATION)?;
    if pair.phase != Phase::Switched {
        return Ok(false);
    }
    let part: Option<Part> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.jsonb_build_object('relation', relation::oid::bigint, 'first_block', first_block, 'end_block', end_block)
             FROM partition_router.copy_task WHERE pair_id = $1 ORDER BY relation LIMIT 1",
            &[pair.id.into()],
        )
    })?;
    let Some(part) = part else { return Ok(false) };
    let end = part.end_block.min(part.first_block + BLOCKS);
    calls::still(Call::Unpartition, pair.twin, Stage::Copy, blocks_to_copy(&pair)?)?;
    // Rows are locked one by one, as writers do, who may lock them the other way round: this side gives way.
    let leaf = Oid::from(part.relation);
    let done = budget::within_budget(leaf, || repair::fill(&pair, leaf, part.first_block, end))?;
    with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.copy_task WHERE pair_id = $1 AND relation = $2 AND first_block = $3",
            &[pair.id.into(), leaf.into(), part.first_block.into()],
        )?;
        if done && end < part.end_block {
            return spi::execute(
                "INSERT INTO partition_router.copy_task VALUES ($1, $2, $3, $4)",
                &[pair.id.into(), leaf.into(), end.into(), part.end_block.into()],
            );
        }
        // The last writes down when the copy ended: older snapshots do not see its rows.
        spi::execute(
            "INSERT INTO partition_router.copy_state (pair_id, stage, horizon, file_node, blocks, rows_total)
             SELECT $1, 'done', pg_catalog.pg_current_xact_id(), pg_catalog.pg_relation_filenode($2::oid), 0, 0
             WHERE NOT EXISTS (SELECT FROM partition_router.copy_task WHERE pair_id = $1)",
            &[pair.id.into(), pair.legacy.into()],
        )
    })?;
    Ok(true)
}

/// Proves both sides equal; rows that a rewrite of a partition moved away from the copy are mended first.
pub fn prove(relation: Oid) -> Result<()> {
    let pair = store::get(relation)?;
    if pair.phase != Phase::Switched {
        pgrx::notice!(
            "{} is a plain table; partition_router.abandon() drops its partitioned copy",
            store::display_name(pair.legacy)?
        );
        return Ok(());
    }
    let differ = |verdicts: Vec<parity::Verdict>| verdicts.iter().filter(|v| !v.matches()).count();
    if differ(parity::verify(pair.legacy, Level::Checksum, Extent::Changed)?) > 0 {
        repair::repair(pair.legacy, false)?;
    }
    Ok(())
}

/// Ends an unpartition that has not swapped the names: the plain table goes, the partitioned one was never anything but itself.
/// True while it is to be called again.
pub fn cancel(relation: Oid) -> Result<bool> {
    session::require_read_committed(OPERATION)?;
    if ahead::is_begun(relation)? {
        store::require_owner(relation)?;
        let table = load::table_def(relation)?;
        return ahead::take_back(relation, &table.name.name);
    }
    let pair = store::get_for_change(relation, OPERATION)?;
    if pair.phase != Phase::Switched || !switchover::is_unpartition(&pair)? {
        return Err(Error::WrongPhase {
            relation: store::display_name(pair.twin)?,
            phase: pair.phase.to_string(),
            call: "cancel the unpartition of".into(),
            next: pair.phase.next_call().into(),
        });
    }
    switchover::cleanup::let_go(&pair).map(|()| false)
}

/// What a call would do.
pub fn dry_run(relation: Oid) -> Result<()> {
    if pair_of(relation)?.is_some() {
        let pair = store::get(relation)?;
        return execute::run(&switchover::plan_back(&pair)?, Mode::DryRun);
    }
    let design = design(relation)?;
    let mut plan = design.create();
    let (name, plain) = (&design.table.name, &design.plain);
    let trigger = sync_triggers::name_on_twin(&design.table.name.name);
    plan.push(
        format!("let every change of {name} reach it"),
        format!("-- triggers {trigger} on {name} and its partitions"),
    );
    for partition in load::partitions(relation)?.iter().filter(|p| p.is_leaf) {
        plan.push(
            format!(
                "bring the rows of {} in line, {BLOCKS} blocks a transaction",
                partition.name
            ),
            format!("-- rows of {} to {plain}", partition.name),
        );
    }
    plan.push(
        "prove both sides equal",
        format!(
            "SELECT * FROM partition_router.verify({})",
            Literal(&name.to_string())
        ),
    );
    plan.push(
        format!(
            "swap the names: {name} becomes {}",
            name.sibling(design.away.clone())
        ),
        format!("CALL partition_router.rollback({})", Literal(&name.to_string())),
    );
    execute::run(&plan, Mode::DryRun)
}

/// A stage of the swap, as of `rollback`; nothing when the names are swapped and all is done.
pub fn swap(relation: Oid, stage: &str) -> Result<bool> {
    let pair = store::get(relation)?;
    if pair.phase == Phase::Live && switchover::is_rolled_back(&pair)? {
        return Ok(false);
    }
    switchover::step(relation, "rollback", stage)
}
