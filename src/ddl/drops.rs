//! What a statement dropped, whichever way: by name, with its schema, its owner, or by CASCADE.

use super::follow::refused;
use super::guard;
use super::pairs::{self, Place, Sides};
use super::pending::{self, OwnDdl};
use crate::backfill;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::pair::{Pair, Phase, store};
use crate::plan::{self, sync_triggers};
use crate::session::PinnedSettings;
use crate::spi;
use pgrx::pg_sys;
use serde::Deserialize;

#[derive(Deserialize)]
struct Dropped {
    kind: String,
    oid: u32,
    /// Of a trigger: schema, table, name.
    names: Option<Vec<Ident>>,
}

/// # Errors
/// `PR019` when a table of a pair was dropped without the other, or a partition, or a sync trigger.
pub fn check(node: *mut pg_sys::Node) -> Result<()> {
    let registered = pairs::registered();
    if registered.is_empty() {
        return Ok(());
    }
    let _path = PinnedSettings::search_path();
    let dropped: Vec<Dropped> = spi::latest_rows(
        "SELECT pg_catalog.jsonb_build_object('kind', object_type, 'oid', objid::bigint, 'names', address_names)
         FROM pg_catalog.pg_event_trigger_dropped_objects()
         WHERE object_type IN ('table', 'foreign table', 'trigger')",
        &[],
    )?;
    if dropped.is_empty() {
        return Ok(());
    }
    let is_gone = |oid: u32| dropped.iter().any(|d| d.kind != "trigger" && d.oid == oid);
    for sides in &registered {
        match (is_gone(sides.legacy.to_u32()), is_gone(sides.twin.to_u32())) {
            (false, false) => {}
            (true, true) => let_go(*sides)?,
            (true, false) if !pairs::exists(sides.twin) => {}
            (false, true) if !pairs::exists(sides.legacy) => forget_done(*sides)?,
            (legacy_gone, _) => match store::latest(sides.id)?.filter(|pair| pair.phase == Phase::Done) {
                Some(pair) => guard::part(&pair, legacy_gone)?,
                None => refuse_side(*sides, legacy_gone)?,
            },
        }
    }
    for (partition, pair) in pending::partitions(node as usize) {
        let twin_gone = registered
            .iter()
            .any(|s| s.id == pair && is_gone(s.twin.to_u32()));
        if is_gone(partition) && !twin_gone {
            refuse_partition(pair)?;
        }
    }
    let triggers = dropped
        .iter()
        .filter(|d| d.kind == "trigger")
        .filter_map(|d| d.names.as_deref());
    triggers
        .into_iter()
        .try_for_each(|names| check_trigger(&registered, names))
}

/// Both tables went at once: nothing is left that could drift.
fn let_go(sides: Sides) -> Result<()> {
    let Some(pair) = store::latest(sides.id)? else {
        return Ok(());
    };
    let _own = OwnDdl::new();
    backfill::log::drop_all(&pair)?;
    store::delete(&pair)
}

/// The table that a finished migration left went as any table may.
fn forget_done(sides: Sides) -> Result<()> {
    match store::latest(sides.id)?.filter(|pair| pair.phase == Phase::Done) {
        Some(pair) => store::delete(&pair),
        None => Ok(()),
    }
}

fn refuse_side(sides: Sides, legacy_gone: bool) -> Result<()> {
    let Some(pair) = store::latest(sides.id)?.filter(|pair| pair.phase != Phase::Done) else {
        return Ok(());
    };
    let (what, left) = if legacy_gone {
        ("legacy", pair.twin)
    } else {
        ("twin", pair.legacy)
    };
    Err(refused(
        format!("drop the {what} table of {}", store::display_name(left)?),
        format!("the pair is in phase \"{}\"", pair.phase),
        way_out(&pair),
    ))
}

fn way_out(pair: &Pair) -> &'static str {
    match pair.phase {
        Phase::Switched => {
            "Drop the legacy with CALL partition_router.cleanup(), or the twin with partition_router.abandon()."
        }
        _ => "Drop the twin with partition_router.abandon(); to drop both tables, abandon first.",
    }
}

fn refuse_partition(pair: i32) -> Result<()> {
    let Some(pair) = store::latest(pair)?.filter(Pair::is_in_force) else {
        return Ok(());
    };
    Err(refused(
        format!("drop a partition of {}", store::display_name(pair.twin)?),
        "its rows would stay on the other side of the pair",
        "Drop it with partition_router.drop_partition() when it is empty; retention removes rows on both sides: \
         partition_router.set_policy().",
    ))
}

fn check_trigger(registered: &[Sides], names: &[Ident]) -> Result<()> {
    let [schema, table, trigger] = names else {
        return Err(Error::Internal("a dropped trigger has no table".into()));
    };
    let name = RelName {
        schema: schema.clone(),
        name: table.clone(),
    };
    // The trigger went with its table.
    let Some(oid) = load::latest_oid_of(&name)? else {
        return Ok(());
    };
    let Some((sides, place)) = pairs::find(registered, oid) else {
        return Ok(());
    };
    let Some(pair) = store::latest(sides.id)?.filter(Pair::is_in_force) else {
        return Ok(());
    };
    let ours = match place {
        Place::Legacy if pair.guard.is_some() => vec![Ident::new(plan::guard::TRIGGER)],
        Place::Legacy => sync_triggers::names(&sync_triggers::name_on_legacy(&pair.base_name)),
        _ => sync_triggers::names(&sync_triggers::name_on_twin(&pair.base_name)),
    };
    // The other side is gone: these triggers do nothing but stop writes.
    if !ours.contains(trigger) || !pairs::exists(sides.legacy) || !pairs::exists(pair.twin) {
        return Ok(());
    }
    Err(refused(
        format!("drop trigger {trigger} of {name}"),
        "it keeps both sides of the pair equal",
        match pair.guard {
            Some(guard) => guard::way_out(guard)?,
            None => "partition_router.abandon() removes the triggers and the twin.".into(),
        },
    ))
}
