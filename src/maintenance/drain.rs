//! Empties a large default partition while applications write: [`crate::plan::drain`] has the statements, this when each is run.
//! Every step is a transaction with its state in `partition_router.drain`, so that the next call goes on where one ended.

pub mod crew;
mod fill;
mod index;

use super::log::{self, Event};
use super::state::has_rows;
use super::table::{Managed, display};
use crate::bounds::RawBound;
use crate::calls::{self, Call, Stage};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::budget;
use crate::plan::drain::{Drain, LOG_ROWS, Part};
use crate::plan::maintain::{self, Range};
use crate::plan::{Plan, access};
use crate::session::{self, PinnedSettings, as_user, with_own_tables};
use crate::spi;
use crate::sync::frames::Suppressed;
use fill::Trust;
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};

/// From so many rows on a default is drained in batches; fewer move at once, in some tens of milliseconds.
pub const MANY_ROWS: i64 = 5_000;
/// Blocks that one transaction copies: 16 MB.
const BLOCKS: i64 = 2048;
/// Keys that may be left in the log for the moment in which everybody waits.
const LAST_KEYS: i64 = 500;

/// A partition to come, as the task and the table keep it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Slot {
    pub name: RelName,
    pub lower: Option<String>,
    pub upper: Option<String>,
}

#[derive(Debug, Deserialize)]
struct State {
    id: i32,
    default_table: Option<u32>,
    columns: Vec<Ident>,
    key: Vec<Ident>,
    slots: Vec<Slot>,
    stage: String,
    file_node: u32,
    /// Whose file that is.
    server: String,
    /// The file of the default now.
    file_now: Option<u32>,
    blocks: i64,
    /// While partitions get their indexes, the number of those that were looked at, twice; and when the proofs of their bounds go, of
    /// those that are done.
    next_block: i64,
    row_count: i64,
}

/// Whether the default can be swapped for another. Foreign keys in would keep it from being detached; of a pair the other side has its
/// rows; what hangs on the default itself would hang on the old one.
pub fn can_swap(managed: &Managed) -> Result<bool> {
    let Some(default) = managed.table.default_oid else {
        return Ok(false);
    };
    if managed.table.referenced || managed.pair.is_some() || managed.table.is_deep {
        return Ok(false);
    }
    let can: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(d.relkind = 'r'
             AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = $2 AND i.indisprimary)
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                             WHERE t.tgrelid = d.oid AND t.tgparentid = 0 AND NOT t.tgisinternal)
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.refclassid = 'pg_class'::regclass AND x.refobjid = d.oid
                             AND x.classid = 'pg_rewrite'::regclass)
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prrelid = d.oid)
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = d.oid AND c.contype = 'x'))
         FROM pg_catalog.pg_class d WHERE d.oid = $1",
        &[Oid::from(default).into(), managed.table.oid().into()],
    )?;
    Ok(can == Some(true))
}

/// Whether a drain of this table was begun.
pub fn is_under_way(parent: Oid) -> Result<bool> {
    let found: Option<bool> = with_own_tables(|| {
        spi::kept_row(
            "SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM partition_router.drain d WHERE d.parent::oid = $1))",
            &[parent.into()],
        )
    })?;
    Ok(found == Some(true))
}

/// Whether a partition comes with a drain that is under way.
pub fn brings(parent: Oid, name: &RelName) -> Result<bool> {
    let slot = serde_json::json!([{ "name": name }]).to_string();
    let found: Option<bool> = with_own_tables(|| {
        spi::kept_row(
            "SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM partition_router.drain d
                                                WHERE d.parent::oid = $1 AND d.slots @> $2::jsonb))",
            &[parent.into(), slot.as_str().into()],
        )
    })?;
    Ok(found == Some(true))
}

fn state(parent: Oid) -> Result<Option<State>> {
    with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(d) || pg_catalog.jsonb_build_object('file_node', d.file_node::bigint,
                 'default_table', c.oid::bigint, 'file_now', pg_catalog.pg_relation_filenode(c.oid)::bigint)
             FROM partition_router.drain d LEFT JOIN pg_catalog.pg_class c ON c.oid = d.default_table::oid
             WHERE d.parent::oid = $1",
            &[parent.into()],
        )
    })
}

fn parts(slots: &[Slot]) -> Vec<Part> {
    slots
        .iter()
        .map(|slot| Part {
            name: slot.name.clone(),
            range: super::task::range_of(&slot.lower, &slot.upper),
        })
        .collect()
}

/// Everything that a drain runs, once.
pub fn plan(managed: &Managed, slots: &[Slot]) -> Result<Plan> {
    let parent = managed.table.as_parent()?;
    let Some(default) = &managed.table.default else {
        return Ok(Plan::default());
    };
    let (parts, key) = (parts(slots), load::table_def(managed.table.oid())?.key_columns());
    let drain = Drain {
        id: 0,
        parent: &parent,
        default,
        key: &key,
        parts: &parts,
    };
    let mut plan = drain.prepare();
    for steps in [
        drain.watch(),
        drain.copy(0, BLOCKS),
        drain.follow(Some(LOG_ROWS)),
        drain.lock(),
        drain.swap(),
        drain.finish(),
    ] {
        plan.extend(steps);
    }
    Ok(plan)
}

impl State {
    /// Says how far the drain of this table is.
    fn tell(&self, parent: Oid) -> Result<()> {
        let done = self.next_block as u64;
        match self.stage.as_str() {
            "copy" => calls::at(Call::Maintenance, parent, Stage::Copy, done, self.blocks as u64),
            // The new default gets its indexes, too.
            "index" => calls::at(
                Call::Maintenance,
                parent,
                Stage::Index,
                done,
                self.slots.len() as u64 + 1,
            ),
            _ => calls::at(Call::Maintenance, parent, Stage::Flip, 0, 0),
        }
    }
}

/// One step; false when nothing is left to do.
pub fn step(managed: &Managed, slots: &[Slot]) -> Result<bool> {
    let Some(state) = state(managed.table.oid())? else {
        return match slots.is_empty() || !can_swap(managed)? {
            true => Ok(false),
            false => begin(managed, slots).map(|()| true),
        };
    };
    let parent = managed.table.as_parent()?;
    let parts = parts(&state.slots);
    let default = match (state.default_table.map(Oid::from), state.stage.as_str()) {
        (Some(oid), "copy" | "index" | "flip") => load::rel_name(oid)?,
        _ => managed.table.default.clone(),
    };
    let Some(default) = default else {
        return forget(managed, &state).map(|()| false);
    };
    let drain = Drain {
        id: state.id,
        parent: &parent,
        default: &default,
        key: &state.key,
        parts: &parts,
    };
    if state.stage == "drop" {
        return finish(managed, &state, &drain);
    }
    // TRUNCATE, a rewrite, other columns or a restored dump: what was copied is not what is there.
    let is_same = state.file_now == Some(state.file_node)
        && state.server == session::server()
        && state.columns == managed.table.columns
        && managed.table.default_oid == state.default_table
        && can_swap_still(managed)?;
    if !is_same {
        crew::leave();
        return undo(managed, &state, &drain).map(|()| false);
    }
    state.tell(managed.table.oid())?;
    match state.stage.as_str() {
        "copy" => copy(managed, &state, &drain),
        "index" => index::step(managed, &state, &drain),
        _ => flip(managed, &state, &drain),
    }
    .map(|()| true)
}

/// As [`can_swap`], once the drain's own trigger is there.
fn can_swap_still(managed: &Managed) -> Result<bool> {
    Ok(!managed.table.referenced && managed.pair.is_none())
}

/// Runs as the owner, unseen by triggers: rows move, they do not change.
fn quietly<T>(owner: Oid, body: impl FnOnce() -> T) -> T {
    let _sync = Suppressed::new();
    let _triggers = PinnedSettings::new(&[(c"session_replication_role", "replica")]);
    as_user(owner, body)
}

/// Carries logged keys over. Once there are indexes each key is looked up by them, whatever the planner would think of tables
/// that nobody has analysed: it may take no more than the keys take, while everybody waits.
fn follow(owner: Oid, drain: &Drain, most: Option<usize>) -> Result<()> {
    let _by_key = most.map(|_| {
        PinnedSettings::new(&[
            (c"enable_seqscan", "off"),
            (c"enable_hashjoin", "off"),
            (c"enable_mergejoin", "off"),
            (c"jit", "off"),
        ])
    });
    quietly(owner, || {
        for step in drain.follow(most).steps {
            spi::execute(&step.statement, &[])?;
        }
        Ok(())
    })
}

fn begin(managed: &Managed, slots: &[Slot]) -> Result<()> {
    let table = &managed.table;
    let (parent, parts) = (table.as_parent()?, parts(slots));
    let (Some(default), Some(default_oid)) = (&table.default, table.default_oid.map(Oid::from)) else {
        return Ok(());
    };
    let definition = load::table_def(table.oid())?;
    let key = definition.key_columns();
    let names = |idents: &[Ident]| -> Vec<String> { idents.iter().map(|i| i.as_str().to_owned()).collect() };
    budget::within_budget(default_oid, || {
        let id: Option<i32> = with_own_tables(|| {
            spi::returning(
                "INSERT INTO partition_router.drain (parent, default_table, columns, key, slots, server, file_node, blocks)
                 SELECT $1::regclass, $2::regclass, $3, $4, $5::jsonb, $6, 0::oid, 0 RETURNING pg_catalog.to_jsonb(id)",
                &[
                    table.oid().into(),
                    default_oid.into(),
                    names(&table.columns).into(),
                    names(&key).into(),
                    serde_json::to_string(slots)?.as_str().into(),
                    session::server().as_str().into(),
                ],
            )
        })?;
        let drain = Drain {
            id: id.ok_or_else(|| Error::Internal("a drain has no id".into()))?,
            parent: &parent,
            default,
            key: &key,
            parts: &parts,
        };
        as_user(table.owner(), || execute::run(&drain.prepare(), Mode::Run))?;
        dress(table.owner(), &drain.new_default(), default_oid)?;
        for part in &parts {
            let plan = maintain::dress(&parent, &part.name);
            as_user(table.owner(), || execute::run(&plan, Mode::Run))?;
        }
        // The owner may not call the trigger's function.
        with_own_tables(|| execute::run(&drain.watch(), Mode::Run))?;
        // Writers are out: rows of later blocks, and changes of earlier ones, are in the log.
        with_own_tables(|| {
            spi::execute(
                "UPDATE partition_router.drain SET file_node = pg_catalog.pg_relation_filenode($2::regclass),
                     blocks = pg_catalog.pg_relation_size($2::regclass) / pg_catalog.current_setting('block_size')::bigint
                 WHERE id = $1",
                &[drain.id.into(), default_oid.into()],
            )
        })?;
        Ok(())
    })
}

/// The new default gets what the old one has.
fn dress(owner: Oid, name: &RelName, template: Oid) -> Result<()> {
    let template = load::table_def(template)?;
    let mut plan = Plan::default();
    access::dress(&mut plan, &template, name);
    as_user(owner, || execute::run(&plan, Mode::Run))
}

fn set(state: &State, assignments: &str, args: &[spi::Arg]) -> Result<()> {
    let statement = format!(
        "UPDATE partition_router.drain SET {assignments} WHERE id = {}",
        state.id
    );
    with_own_tables(|| spi::execute(&statement, args))?;
    Ok(())
}

fn copy(managed: &Managed, state: &State, drain: &Drain) -> Result<()> {
    let owner = managed.table.owner();
    if state.next_block >= state.blocks {
        // A row that changed meanwhile may have been copied twice: before there is an index the log is drained whole.
        if as_user(owner, || has_rows(&drain.log(), "true"))? {
            follow(owner, drain, None)?;
        }
        return set(state, "stage = 'index', next_block = 0", &[]);
    }
    let end = (state.next_block + BLOCKS).min(state.blocks);
    let (Some(default), Some(staging)) = (managed.table.default_oid, load::oid_of(&drain.staging())?) else {
        return Err(Error::Internal(format!("{} is gone", drain.staging())));
    };
    let (trust, block) = (trust(managed, default.into())?, |n: i64| n as u32);
    let rows = quietly(owner, || {
        fill::copy(
            default.into(),
            staging,
            block(state.next_block),
            block(end),
            trust,
        )
    })?;
    set(
        state,
        "next_block = $1, row_count = row_count + $2",
        &[end.into(), (rows as i64).into()],
    )
}

/// Rows of the default have passed the constraints of the parent, unless these are NOT VALID there; and what a partition generates
/// is what the default has, unless that has an expression of its own, as it may from PostgreSQL 16 on.
fn trust(managed: &Managed, default: Oid) -> Result<Trust> {
    let is_odd: Option<bool> = spi::kept_row(
        "SELECT pg_catalog.to_jsonb(
             EXISTS (SELECT FROM pg_catalog.pg_constraint c
                     WHERE c.conrelid = $1 AND c.contype IN ('c', 'n') AND NOT c.convalidated)
             OR EXISTS (SELECT FROM pg_catalog.pg_attribute a
                        JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                        JOIN pg_catalog.pg_attribute b ON b.attrelid = $2 AND b.attname = a.attname
                        JOIN pg_catalog.pg_attrdef e ON e.adrelid = b.attrelid AND e.adnum = b.attnum
                        WHERE a.attrelid = $1 AND a.attgenerated <> ''
                          AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) <> pg_catalog.pg_get_expr(e.adbin, e.adrelid)))",
        &[default.into(), managed.table.oid().into()],
    )?;
    Ok(match is_odd {
        Some(false) => Trust::AsTheyLie,
        _ => Trust::Check,
    })
}

fn flip(managed: &Managed, state: &State, drain: &Drain) -> Result<()> {
    let owner = managed.table.owner();
    let most = LAST_KEYS + 1;
    let left: Option<i64> = as_user(owner, || {
        spi::row(
            &format!(
                "SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM (SELECT FROM {} LIMIT {most}) x",
                drain.log()
            ),
            &[],
        )
    })?;
    if left.unwrap_or(0) >= most {
        return follow(owner, drain, Some(LOG_ROWS));
    }
    budget::within_budget(managed.table.oid(), || {
        as_user(owner, || execute::run(&drain.lock(), Mode::Run))?;
        while as_user(owner, || has_rows(&drain.log(), "true"))? {
            follow(owner, drain, Some(LOG_ROWS))?;
        }
        as_user(owner, || execute::run(&drain.swap(), Mode::Run))?;
        set(state, "stage = 'drop', next_block = 0", &[])
    })
}

/// The old default is nobody's any more. True while there is more to do.
fn finish(managed: &Managed, state: &State, drain: &Drain) -> Result<bool> {
    let owner = managed.table.owner();
    let run = |plan: &Plan| as_user(owner, || execute::run(plan, Mode::Run));
    if let Some(part) = drain.parts.get(state.next_block as usize) {
        let locked = load::oid_of(&part.name)?.unwrap_or(managed.table.oid());
        budget::within_budget(locked, || run(&drain.forget_proof(part)))?;
        return set(state, "next_block = next_block + 1", &[]).map(|()| true);
    }
    let old = load::oid_of(&drain.old_default())?;
    budget::within_budget(old.unwrap_or(managed.table.oid()), || {
        run(&drain.drop_old_default())?;
        name_indexes(managed, drain)?;
        forget(managed, state)
    })?;
    let mut event = Event::done(
        &display(managed.table.oid())?,
        "drain",
        &format!(
            "the rows of the default partition are in {} partitions",
            drain.parts.len()
        ),
    );
    event.row_count = Some(state.row_count);
    log::write(&event).map(|()| false)
}

/// The server has named the indexes of the new default after the name that it had at first.
fn name_indexes(managed: &Managed, drain: &Drain) -> Result<()> {
    let first = drain.new_default();
    let names: Vec<(RelName, Ident)> = spi::rows(
        "SELECT pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname), x.name)
         FROM pg_catalog.pg_index i
         JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL (SELECT pg_catalog.replace(c.relname, $2, $3)::name AS name) x
         WHERE i.indrelid = $1 AND pg_catalog.starts_with(c.relname, $2)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.relnamespace = c.relnamespace AND o.relname = x.name)",
        &[
            managed.table.default_oid.map(Oid::from).into(),
            first.name.as_str().into(),
            drain.default.name.as_str().into(),
        ],
    )?;
    let mut plan = Plan::default();
    for (index, name) in names {
        plan.push("name index", format!("ALTER INDEX {index} RENAME TO {name}"));
    }
    as_user(managed.table.owner(), || execute::run(&plan, Mode::Run))
}

fn undo(managed: &Managed, state: &State, drain: &Drain) -> Result<()> {
    let table = state.default_table.map_or(managed.table.oid(), Oid::from);
    budget::within_budget(table, || {
        as_user(managed.table.owner(), || execute::run(&drain.undo(), Mode::Run))?;
        forget(managed, state)
    })?;
    log::write(&Event::skipped(
        &display(managed.table.oid())?,
        "drain",
        "the default partition was truncated, rewritten or changed: the next run begins anew",
    ))
}

fn forget(_managed: &Managed, state: &State) -> Result<()> {
    with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.drain WHERE id = $1",
            &[state.id.into()],
        )
    })?;
    Ok(())
}

/// What the task and the plan keep of a partition.
pub fn slot(name: RelName, range: &Range) -> Slot {
    let text = |bound: &RawBound| bound.value().map(str::to_owned);
    Slot {
        name,
        lower: text(&range.lower),
        upper: text(&range.upper),
    }
}
