//! The one transaction in which the names swap.

use super::{Direction, SWAPPED, in_the_way, log, require_whole, say, snapshots, subscriptions};
use crate::catalog::dependents::{self, Dependents};
use crate::catalog::{TableDef, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::{self, LockMode};
use crate::pair::{Pair, Phase, store};
use crate::plan::switchover::keys_in::Moved;
use crate::plan::switchover::{self as plan, Side, Strength, Swap, SwapPlan};
use crate::{compat, session, spi};
use pgrx::pg_sys::Oid;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Instant;

/// What the switchover changed and the way back puts back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Before {
    twin: Ident,
    /// Publications that publish by way of the root since.
    via_root: Vec<Ident>,
    /// The legacy is a copy that `unpartition()` made: until it was copied it was empty.
    #[serde(default)]
    unpartition: bool,
}

/// Both sides as the catalog has them now.
struct Scene {
    from: TableDef,
    to: TableDef,
    of_from: Dependents,
    of_to: Dependents,
    from_partitions: Vec<(u32, RelName)>,
    to_partitions: Vec<(u32, RelName)>,
    away: Ident,
    before: Before,
}

fn table(oid: Oid) -> Result<TableDef> {
    load::latest_table_def(oid)?.ok_or_else(|| Error::UnknownRelation { oid: oid.to_u32() })
}

fn partitions(table: &TableDef) -> Result<Vec<(u32, RelName)>> {
    if table.kind != "p" {
        return Ok(vec![]);
    }
    let partitions = crate::ddl::pairs::partitions(table.oid.into())?;
    Ok(partitions.into_iter().map(|p| (p.oid, p.name)).collect())
}

impl Scene {
    fn look(pair: &Pair, direction: Direction) -> Result<Scene> {
        let (from, to) = direction.sides(pair);
        let (from_def, to_def) = (table(from)?, table(to)?);
        let before = match direction {
            Direction::There => Before {
                twin: to_def.name.name.clone(),
                ..Before::default()
            },
            Direction::Back => before(pair)?,
        };
        let away = match direction {
            Direction::There => from_def.name.name.with_suffix("_legacy"),
            Direction::Back => before.twin.clone(),
        };
        Ok(Scene {
            of_from: dependents::load(from, to)?,
            of_to: dependents::load(to, from)?,
            from_partitions: partitions(&from_def)?,
            to_partitions: partitions(&to_def)?,
            from: from_def,
            to: to_def,
            away,
            before,
        })
    }

    fn swap(
        &self,
        pair: &Pair,
        direction: Direction,
        body: impl FnOnce(&Swap) -> Result<SwapPlan>,
    ) -> Result<SwapPlan> {
        body(&Swap {
            from: Side {
                table: &self.from,
                dependents: &self.of_from,
                partitions: &self.from_partitions,
            },
            to: Side {
                table: &self.to,
                dependents: &self.of_to,
                partitions: &self.to_partitions,
            },
            away: &self.away,
            partition_key: &pair.partition_key,
            restore_via_root: match direction {
                Direction::There => &[],
                Direction::Back => &self.before.via_root,
            },
            shares_identity: compat::PARTITIONS_SHARE_IDENTITY,
            suffix: match direction {
                Direction::There => "_legacy",
                Direction::Back => "_partitioned",
            },
        })
    }
}

fn before(pair: &Pair) -> Result<Before> {
    let before: Option<Before> = session::with_own_tables(|| {
        spi::latest_row(
            "SELECT before_switch FROM partition_router.pair WHERE id = $1 AND before_switch IS NOT NULL",
            pair.id,
        )
    })?;
    match before {
        Some(before) => Ok(before),
        None => Err(Error::WrongPhase {
            relation: store::display_name(pair.twin)?,
            phase: pair.phase.to_string(),
            call: "roll back".into(),
            next: pair.phase.next_call().into(),
        }),
    }
}

/// What the twin is called again after the way back.
pub fn twin_name(pair: &Pair) -> Result<Ident> {
    Ok(before(pair)?.twin)
}

/// Whether the legacy is a copy that `unpartition()` makes.
pub fn is_unpartition(pair: &Pair) -> Result<bool> {
    Ok(pair.phase == Phase::Switched && before(pair)?.unpartition)
}

/// The plan, when nothing is in its way but locks.
///
/// # Errors
/// `42P07`, `42622`: the name that the other side shall have. `42501`: something that is not the caller's has to follow.
/// `PR021`: something could not follow. `PR020`: a prepared transaction. `55P03`: a transaction older than the copy.
pub fn require_possible(pair: &Pair, direction: Direction) -> Result<SwapPlan> {
    require_whole(pair)?;
    in_the_way::require_no_prepared(pair)?;
    if direction == Direction::There || before(pair)?.unpartition {
        snapshots::require_no_old(pair)?;
    }
    make(pair, direction)
}

/// Gives what runs since before the copy ended a moment to come to its end: beside writers there is always a statement that has just
/// begun. Nothing is locked meanwhile.
pub fn wait_for_old_snapshots(pair: &Pair, direction: Direction) -> Result<()> {
    if direction == Direction::There || before(pair)?.unpartition {
        snapshots::note_end_of_copy(pair)?;
        snapshots::wait_for_old(pair)?;
    }
    Ok(())
}

/// The plan, when nothing of the catalog is in its way.
fn make(pair: &Pair, direction: Direction) -> Result<SwapPlan> {
    let scene = Scene::look(pair, direction)?;
    subscriptions::require_copied(scene.from.oid.into())?;
    require_names(&scene)?;
    require_rights(&scene)?;
    scene.swap(pair, direction, |swap| {
        if let Some(key) = plan::keys_in::moving(swap).find(|key| !key.owned) {
            return Err(Error::NotOwner {
                relation: format!("table {}, whose foreign key has to follow", key.relation),
            });
        }
        let lost = plan::lost(swap);
        if lost.is_empty() {
            return Ok(plan::plan(swap));
        }
        Err(Error::WouldBeLost {
            relation: scene.from.name.to_string(),
            objects: lost,
        })
    })
}

fn require_names(scene: &Scene) -> Result<()> {
    if scene.from.name.schema != scene.to.name.schema {
        return Err(Error::Unsupported {
            what: format!(
                "{} and {} are in different schemas",
                scene.from.name, scene.to.name
            ),
            hint: "Move one of them with ALTER TABLE … SET SCHEMA.".into(),
        });
    }
    if scene.away.is_too_long() {
        return Err(Error::NameTooLong {
            name: scene.away.as_str().into(),
        });
    }
    if scene.of_from.taken.contains(&scene.away) {
        return Err(Error::NameTaken {
            name: scene.from.name.sibling(scene.away.clone()).to_string(),
            relation: scene.from.name.to_string(),
        });
    }
    Ok(())
}

fn require_rights(scene: &Scene) -> Result<()> {
    if !scene.of_from.may_create {
        return Err(Error::NoCreate {
            schema: scene.from.name.schema.to_string(),
        });
    }
    if let Some(follower) = scene.of_from.followers.iter().find(|f| !f.owned) {
        return Err(Error::NotOwner {
            relation: format!("{} {}", follower.kind, follower.name),
        });
    }
    match scene.of_from.publications.iter().find(|p| !p.owned) {
        Some(publication) => Err(Error::NotOwner {
            relation: format!("publication {}", publication.name),
        }),
        None => Ok(()),
    }
}

fn lock(swap: &SwapPlan) -> Result<()> {
    let wanted: Vec<(Oid, LockMode)> = swap
        .locks
        .iter()
        .map(|lock| {
            let mode = match lock.strength {
                Strength::AccessExclusive => LockMode::AccessExclusive,
                Strength::ShareRowExclusive => LockMode::ShareRowExclusive,
            };
            (Oid::from(lock.oid), mode)
        })
        .collect();
    locks::acquire(&wanted)
}

/// Swaps the names. Gives true, with nothing changed, when the catalog changed while the locks were awaited: then the
/// transaction has to end, so that nobody waits for them.
pub fn run(relation: Oid, direction: Direction) -> Result<bool> {
    let pair = store::get_for_change(relation, direction.name())?;
    super::require_phase(&pair, direction)?;
    let swap = require_possible(&pair, direction)?;
    lock(&swap)?;
    let locked = Instant::now();
    if make(&pair, direction)? != swap {
        return Ok(true);
    }
    change(&pair, direction, &swap)?;
    let locked_ms = locks::milliseconds(locked);
    say(
        direction.name(),
        SWAPPED,
        &format!("locks held for {locked_ms} ms"),
    );
    let after = Pair {
        phase: direction.phase_after(),
        ..pair
    };
    log(
        &after,
        direction.name(),
        SWAPPED,
        json!({
            "locked_ms": locked_ms,
            "steps": swap.names.steps.len() + swap.definitions.steps.len(),
            "to_prove": swap.moved,
        }),
    )?;
    Ok(false)
}

/// The way back within a transaction that goes on: for `abandon()`.
pub fn swap_back(pair: &Pair) -> Result<()> {
    let swap = require_possible(pair, Direction::Back)?;
    lock(&swap)?;
    let swap = make(pair, Direction::Back)?;
    change(pair, Direction::Back, &swap)?;
    for key in &swap.moved {
        execute::run(&key.proof(), Mode::Run)?;
    }
    Ok(())
}

/// Proves the foreign keys that the last swap of this kind made again, those that are not proven yet.
pub fn prove_keys(pair: &Pair, direction: Direction) -> Result<()> {
    let made: Option<Vec<Moved>> = session::with_own_tables(|| {
        spi::latest_rows(
            "SELECT COALESCE(detail -> 'to_prove', '[]') FROM partition_router.run_event
             WHERE operation = $2 AND stage = $3 AND detail -> 'pair' = pg_catalog.to_jsonb($1) ORDER BY id DESC LIMIT 1",
            &[pair.id.into(), direction.name().into(), SWAPPED.into()],
        )
        .map(|mut rows| rows.pop())
    })?;
    for key in made.unwrap_or_default() {
        let unproven: Option<u32> = spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(c.oid::bigint) FROM pg_catalog.pg_constraint k
             JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND k.conname = $3 AND k.contype = 'f' AND NOT k.convalidated",
            &[
                key.table.schema.as_str().into(),
                key.table.name.as_str().into(),
                key.name.as_str().into(),
            ],
        )?
        .pop();
        if let Some(table) = unproven {
            locks::acquire(&[(table.into(), LockMode::ShareUpdateExclusive)])?;
            execute::run(&key.proof(), Mode::Run)?;
        }
    }
    Ok(())
}

fn change(pair: &Pair, direction: Direction, swap: &SwapPlan) -> Result<()> {
    let twin = load::rel_name(pair.twin)?
        .map(|name| name.name)
        .unwrap_or_default();
    execute::run(&swap.names, Mode::Run)?;
    let (from, to) = direction.sides(pair);
    subscriptions::follow(from, to)?;
    let owner = load::owner(pair.twin)?;
    let define = || execute::run(&swap.definitions, Mode::Run);
    // Of several owners nobody's code may run with the rights of another.
    if swap.owners.iter().all(|one| *one == owner.to_u32()) {
        session::with_all_rows_of(owner, define)?;
    } else {
        session::with_own_tables(define)?;
    }
    let before = match direction {
        Direction::There => Some(pgrx::JsonB(serde_json::to_value(Before {
            twin,
            via_root: swap.via_root.clone(),
            unpartition: false,
        })?)),
        Direction::Back => None,
    };
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.pair SET phase = $2, before_switch = $3 WHERE id = $1",
            &[
                pair.id.into(),
                direction.phase_after().as_str().into(),
                before.into(),
            ],
        )
    })?;
    store::announce(pair.legacy);
    store::announce(pair.twin);
    Ok(())
}
