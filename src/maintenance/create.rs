//! Makes partitions: of what is due, and by hand.

use super::table::Managed;
use crate::bounds::{Bound, RangePartition, RawBound};
use crate::catalog::{dependents, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::RelName;
use crate::locks::budget;
use crate::pair::{Pair, store};
use crate::plan::dress;
use crate::plan::indexes;
use crate::plan::maintain::{self, NewPartition, Parent, Range};
use crate::plan::sync_triggers::{self, Part, Place, Purpose};
use crate::session::{PinnedSettings, as_user, with_own_tables};
use crate::spi;
use crate::sync::frames::Suppressed;
use pgrx::pg_sys::Oid;

/// The range in the words of the server; none for a day that the zone skipped.
pub fn resolve(partition: &RangePartition) -> Result<Option<Range>> {
    let range = Range {
        lower: resolve_end(&partition.lower)?,
        upper: resolve_end(&partition.upper)?,
    };
    Ok((range.lower != range.upper).then_some(range))
}

fn resolve_end(bound: &Bound) -> Result<RawBound> {
    match bound {
        Bound::MinValue => Ok(RawBound::MinValue),
        Bound::MaxValue => Ok(RawBound::MaxValue),
        Bound::Literal(text) => Ok(RawBound::Value(text.clone())),
        // TimeZone is the policy's zone here: `table::pin`.
        Bound::LocalTime(text) => {
            let instant: Option<String> = spi::row(
                "SELECT pg_catalog.to_jsonb($1::timestamp::timestamptz::text)",
                &[text.as_str().into()],
            )?;
            instant
                .map(RawBound::Value)
                .ok_or_else(|| Error::Internal(format!("no instant for {text}")))
        }
    }
}

/// The steps that make one partition of `parent`, with its sync triggers where another table follows.
pub fn plan(parent: &Parent, pair: Option<&Pair>, name: &RelName, range: &Range) -> NewPartition {
    let pair = pair.filter(|pair| pair.is_followed());
    // Sync knows one level of partitions that come by themselves.
    let flat = pair.map(|_| Parent {
        depth: None,
        ..parent.clone()
    });
    let mut parts = maintain::create_partition(flat.as_ref().unwrap_or(parent), name, range);
    if let Some(pair) = pair {
        let trigger = sync_triggers::name_on_twin(&pair.base_name);
        parts.sync = sync_triggers::install(
            pair.id,
            name,
            &trigger,
            Purpose::Live,
            Place::Partition,
            Part::All,
        );
    }
    parts
}

/// The steps that make a partition by its place in the calendar.
pub fn plan_of(managed: &Managed, partition: &RangePartition) -> Result<Option<(RelName, NewPartition)>> {
    let Some(range) = resolve(partition)? else {
        return Ok(None);
    };
    let name = managed.name_of(partition)?;
    let parts = plan(&managed.table.as_parent()?, managed.pair.as_ref(), &name, &range);
    Ok(Some((name, parts)))
}

/// Makes a partition as the table's owner, within the lock budget; gives the number of rows that moved into it.
pub fn run(parent: Oid, owner: Oid, parts: &NewPartition) -> Result<u64> {
    budget::within_budget(parent, || make(parent, owner, parts))
}

/// As [`run`], with whatever lock timeout there is.
pub fn make(parent: Oid, owner: Oid, parts: &NewPartition) -> Result<u64> {
    store::change_layout(parent)?;
    as_user(owner, || {
        execute::run(&parts.create, Mode::Run)?;
        execute::run(&parts.dress, Mode::Run)
    })?;
    complete(owner, &parts.complete)?;
    let moved = move_rows(owner, parts)?;
    as_user(owner, || execute::run(&parts.attach, Mode::Run))?;
    with_own_tables(|| execute::run(&parts.sync, Mode::Run))?;
    Ok(moved)
}

/// Gives new tables the unique indexes that only their models have: a table with a foreign partition has none above.
pub fn give_keys(owner: Oid, tables: &[(RelName, u32)]) -> Result<()> {
    for (name, like) in tables {
        let model = load::table_def(Oid::from(*like))?;
        let new = load::latest_table_def(latest_oid(name)?)?
            .ok_or_else(|| Error::Internal(format!("{name} is gone")))?;
        let keys = indexes::missing_keys(&model, &new);
        as_user(owner, || execute::run(&indexes::create(&keys, name), Mode::Run))?;
    }
    Ok(())
}

/// Gives new tables what the server had to name first: keys of their own, the index that is the replica identity, statistics objects
/// and targets.
pub fn complete(owner: Oid, tables: &[(RelName, u32)]) -> Result<()> {
    give_keys(owner, tables)?;
    for (name, like) in tables {
        let like = Oid::from(*like);
        let (mine, model) = (latest_oid(name)?, load::table_def(like)?);
        let new = load::latest_table_def(mine)?.ok_or_else(|| Error::Internal(format!("{name} is gone")))?;
        let mut plan = dress::alike(&model, &new);
        plan.extend(dress::missing_statistics(
            &dependents::statistics(like)?,
            &dependents::statistics(mine)?,
            name,
        ));
        as_user(owner, || execute::run(&plan, Mode::Run))?;
        let targets = dress::statistics(&dependents::statistics(like)?, &dependents::statistics(mine)?);
        as_user(owner, || execute::run(&targets, Mode::Run))?;
    }
    Ok(())
}

fn latest_oid(name: &RelName) -> Result<Oid> {
    load::latest_oid_of(name)?.ok_or_else(|| Error::Internal(format!("{name} is gone")))
}

/// Moving is no change of the rows: neither sync nor the triggers and foreign keys of users may see it. The last step moves them, those
/// before it take the locks under which a default without a page has none to move.
fn move_rows(owner: Oid, parts: &NewPartition) -> Result<u64> {
    let Some((last, locks)) = parts.drain.steps.split_last() else {
        return Ok(0);
    };
    let _sync = Suppressed::new();
    let _triggers = PinnedSettings::new(&[(c"session_replication_role", "replica")]);
    as_user(owner, || {
        for step in locks {
            spi::execute(&step.statement, &[])?;
        }
        match &parts.default {
            Some(default) if has_no_page(default)? => Ok(0),
            _ => spi::execute(&last.statement, &[]),
        }
    })
}

/// Whether a plain table has no page, and so no row. Of one that is locked against writers.
fn has_no_page(table: &RelName) -> Result<bool> {
    let none: Option<bool> = spi::kept_row(
        "SELECT pg_catalog.to_jsonb(c.relkind = 'r' AND pg_catalog.pg_relation_size(c.oid) = 0)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2",
        &[table.schema.as_str().into(), table.name.as_str().into()],
    )?;
    Ok(none == Some(true))
}
