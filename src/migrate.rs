//! The calls that take a pair from nothing to `live`, and back to the legacy alone.

use crate::backfill::{self, Progress};
use crate::catalog::{TableDef, dependents, load};
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::feed;
use crate::ident::RelName;
use crate::locks::{self, LockMode};
use crate::pair::{Pair, Phase, Strategy, store};
use crate::parity::{self, Extent, Level, Verdict};
use crate::plan::Plan;
use crate::plan::create_twin::TwinSpec;
use crate::plan::{create_twin, dress, foreign_keys, sync_triggers};
use crate::switchover::{self, Direction, cleanup};
use crate::twin::{self, Request};
use crate::{preflight, session, spi, sync};
use pgrx::pg_sys::Oid;
use serde_json::json;
use std::time::Duration;

/// The plan of `create_twin()`, after every check.
fn plan_twin(legacy: &TableDef, request: &Request) -> Result<(TwinSpec, Plan)> {
    store::require_owner(legacy.oid.into())?;
    preflight::require_clean(legacy, request)?;
    let spec = twin::design(legacy, request)?;
    if request.keep_unique {
        cleanup::require_guardable(legacy.oid.into(), &legacy.name, &legacy.name.name)?;
    }
    if let Some(name) = twin::taken_name(&spec)? {
        return Err(Error::AlreadyExists {
            name: name.to_string(),
        });
    }
    let plan = create_twin::plan(legacy, &spec);
    Ok((spec, plan))
}

/// Makes the twin, or says how: the same plan either way.
pub fn create_twin(legacy_oid: Oid, request: &Request, mode: Mode) -> Result<Plan> {
    let legacy = load::table_def(legacy_oid)?;
    let (spec, plan) = plan_twin(&legacy, request)?;
    if mode == Mode::DryRun {
        return Ok(plan);
    }
    execute::run(&plan, Mode::Run)?;
    let twin = load::oid_of(&spec.twin)?.ok_or_else(|| Error::Internal("the twin was not made".into()))?;
    dress_twin(&legacy, twin, &spec)?;
    register(&legacy, twin, &spec, request)?;
    feed::follow(legacy_oid, twin)?;
    store::announce(legacy_oid);
    // The twin has the legacy's grants: rows written to it before sync begins would be in the way of the copy.
    sync::triggers::install_on_new_twin(&store::get(legacy_oid)?)?;
    store::log_run(
        &legacy.name.to_string(),
        "create_twin",
        "PREPARED",
        json!({ "twin": spec.twin.to_string(), "partitions": spec.partitions.len() }),
    )?;
    Ok(plan)
}

/// What indexes and the like are given under the names that the server chose for them.
fn dress_twin(legacy: &TableDef, twin: Oid, spec: &TwinSpec) -> Result<()> {
    let key = &spec.partition_key;
    let root = load::table_def(twin)?;
    let mut plan = dress::follow(legacy, &root, key);
    plan.extend(dress::identity(legacy, &root, key));
    plan.extend(dress::statistics(
        &dependents::statistics(legacy.oid.into())?,
        &dependents::statistics(twin)?,
    ));
    // They belong to whoever makes them, and are renamed by their owner alone.
    let are_the_owners: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(COALESCE(pg_catalog.bool_and(s.stxowner = c.relowner), false))
         FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_class c ON c.oid = s.stxrelid WHERE s.stxrelid = $1",
        &[Oid::from(legacy.oid).into()],
    )?;
    if are_the_owners == Some(true) {
        for statistics in dependents::statistics(twin)? {
            plan.push(
                format!(
                    "give statistics {} to the owner of the table",
                    statistics.name.name
                ),
                format!("ALTER STATISTICS {} OWNER TO {}", statistics.name, legacy.owner),
            );
        }
    }
    if dress::has_targets(legacy) || legacy.replica_identity == "i" {
        for partition in load::partitions(twin)? {
            let leaf = load::table_def(partition.oid.into())?;
            plan.extend(dress::targets(legacy, &leaf, true, key));
            plan.extend(dress::identity(legacy, &leaf, key));
        }
    }
    execute::run(&plan, Mode::Run)
}

fn register(legacy: &TableDef, twin: Oid, spec: &TwinSpec, request: &Request) -> Result<()> {
    let interval = (spec.strategy == Strategy::Range).then(|| request.partition_interval.clone());
    let partitions = (spec.strategy == Strategy::Hash).then_some(request.partitions);
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.pair
                 (legacy, twin, base_name, strategy, partition_key, partition_interval, partitions, keep_unique)
             VALUES ($1::oid, $2::oid, $3, $4, $5, $6, $7, $8)",
            &[
                Oid::from(legacy.oid).into(),
                twin.into(),
                legacy.name.name.as_str().into(),
                spec.strategy.as_str().into(),
                spec.partition_key.as_str().into(),
                interval.clone().into(),
                partitions.into(),
                request.keep_unique.into(),
            ],
        )?;
        if let Some(interval) = interval {
            spi::execute(
                "INSERT INTO partition_router.policy (parent, base_name, partition_interval, premake, origin)
                 VALUES ($1::oid, $2, $3, $4, $5)",
                &[
                    twin.into(),
                    legacy.name.name.as_str().into(),
                    interval.into(),
                    request.premake.into(),
                    twin::normal_origin(request.origin.as_deref(), &request.partition_interval)?.into(),
                ],
            )?;
        }
        Ok(())
    })
}

/// Refuses a table that is migrated already; one that is on its way may go on.
pub fn check(legacy: Oid) -> Result<()> {
    match store::find(legacy)? {
        Some(pair) if is_migrated(&pair)? => Err(Error::AlreadyPaired {
            relation: store::display_name(legacy)?,
            phase: pair.phase.to_string(),
        }),
        _ => Ok(()),
    }
}

/// A migration that is under way shall keep unique columns unique after all.
fn keep_unique(pair: &Pair) -> Result<()> {
    let pair = store::get_for_change(pair.legacy, "migrate")?;
    cleanup::require_guardable(pair.legacy, &load::table_def(pair.legacy)?.name, &pair.base_name)?;
    store::keep_unique(&pair)
}

fn is_migrated(pair: &Pair) -> Result<bool> {
    Ok(pair.phase > Phase::Live || (pair.phase == Phase::Live && pair.verified_at.is_some()))
}

/// Rows that one step of `migrate()` copies.
const BATCH_ROWS: i32 = 50_000;

/// Does the next step of a migration. The caller commits.
pub fn step(legacy: Oid, request: &Request) -> Result<Progress> {
    let pair = store::find(legacy)?;
    if let Some(pair) = pair
        .as_ref()
        .filter(|pair| request.keep_unique && !pair.keep_unique)
    {
        keep_unique(pair)?;
    }
    match pair {
        None => {
            create_twin(legacy, request, Mode::Run)?;
        }
        Some(pair) if pair.phase == Phase::Prepared => backfill::start_sync(legacy)?,
        Some(pair) if pair.phase > Phase::Live => return Ok(Progress::Finished),
        Some(pair) => {
            if backfill::step(legacy, BATCH_ROWS, Duration::ZERO)? == Progress::More {
                return Ok(Progress::More);
            }
            if pair.verified_at.is_some() {
                return Ok(Progress::Finished);
            }
            backfill::report::say(&pair, "verify", "both sides by checksum")?;
            let verdicts = parity::verify(legacy, Level::Checksum, Extent::Changed)?;
            require_equal(&pair, &verdicts)?;
        }
    }
    Ok(Progress::More)
}

fn require_equal(pair: &Pair, verdicts: &[Verdict]) -> Result<()> {
    let differing: Vec<_> = verdicts.iter().filter(|v| !v.matches()).collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::NotEqual {
        relation: store::display_name(pair.legacy)?,
        partitions: differing.len(),
        rows: differing
            .iter()
            .map(|v| (v.legacy.rows - v.twin.rows).abs())
            .sum(),
    })
}

/// Back to the untouched legacy, from any phase in which there is one; after a switchover the names swap back first. A pair
/// that has lost a side is only let go: what is left may hold the only copy of the rows.
pub fn abandon(relation: Oid, mode: Mode) -> Result<()> {
    let pair = store::get_to_let_go(relation, "abandon")?;
    if !pair.phase.can_abandon() {
        return Err(Error::WrongPhase {
            relation: store::display_name(pair.legacy)?,
            phase: pair.phase.to_string(),
            call: "abandon".into(),
            next: pair.phase.next_call().into(),
        });
    }
    if mode == Mode::DryRun {
        return execute::run(&abandon_plan(&pair)?, Mode::DryRun);
    }
    let is_whole = load::rel_name(pair.legacy)?.is_some() && load::rel_name(pair.twin)?.is_some();
    if pair.phase == Phase::Switched && is_whole {
        let verdicts = parity::verify(pair.legacy, Level::Checksum, Extent::Changed)?;
        require_equal(&pair, &verdicts)?;
        locks::acquire(&abandon_locks(&pair)?)?;
        switchover::swap_back(&pair)?;
    } else {
        locks::acquire(&abandon_locks(&pair)?)?;
    }
    let (legacy, twin) = (load::rel_name(pair.legacy)?, load::rel_name(pair.twin)?);
    sync::triggers::remove(&pair)?;
    if let (Some(_), Some(twin)) = (&legacy, &twin) {
        execute::run(&drop_twin(twin), Mode::Run)?;
    }
    backfill::log::drop_all(&pair)?;
    store::delete(&pair)?;
    let name = legacy.map_or_else(|| pair.base_name.to_string(), |name| name.to_string());
    store::log_run(
        &name,
        "abandon",
        "ABANDONED",
        json!({ "from_phase": pair.phase.as_str() }),
    )
}

/// All that dropping the triggers and the twin locks. A foreign key that goes takes ACCESS EXCLUSIVE on the table that
/// it points at, so that table is asked for within the budget too, not waited for with the legacy in hand.
fn abandon_locks(pair: &Pair) -> Result<Vec<(Oid, LockMode)>> {
    let mut tables = vec![];
    if load::rel_name(pair.legacy)?.is_some() {
        tables.push(pair.legacy);
    }
    let mut of_twin = vec![];
    if load::rel_name(pair.twin)?.is_some() {
        of_twin.push(pair.twin);
        of_twin.extend(load::partitions(pair.twin)?.iter().map(|p| Oid::from(p.oid)));
    }
    tables.extend(&of_twin);
    for table in of_twin {
        for key in load::table_def(table)?.foreign_keys {
            let parent = Oid::from(key.references);
            if !tables.contains(&parent) {
                tables.push(parent);
            }
        }
    }
    Ok(tables
        .into_iter()
        .map(|table| (table, LockMode::AccessExclusive))
        .collect())
}

fn drop_twin(twin: &RelName) -> Plan {
    let mut plan = Plan::default();
    plan.push("drop the twin", format!("DROP TABLE {twin}"));
    plan
}

fn abandon_plan(pair: &Pair) -> Result<Plan> {
    let (mut legacy, mut twin) = (load::rel_name(pair.legacy)?, load::rel_name(pair.twin)?);
    let place = sync_triggers::Place::Side;
    let mut plan = Plan::default();
    if let (Phase::Switched, Some(main), Some(_)) = (pair.phase, &twin, &legacy) {
        plan.extend(switchover::plan_back(pair)?);
        let away = switchover::twin_name(pair)?;
        (legacy, twin) = (Some(main.clone()), Some(main.sibling(away)));
    }
    if let Some(legacy) = &legacy {
        let name = sync_triggers::name_on_legacy(&pair.base_name);
        plan.extend(sync_triggers::uninstall(legacy, &name, place));
    }
    match (&legacy, &twin) {
        (Some(_), Some(twin)) => plan.extend(drop_twin(twin)),
        (None, Some(twin)) => {
            let name = sync_triggers::name_on_twin(&pair.base_name);
            plan.extend(sync_triggers::uninstall(twin, &name, place));
        }
        _ => {}
    }
    Ok(plan)
}

/// The plan of any operation on a pair, as rows.
pub fn plan(operation: &str, relation: Oid) -> Result<Plan> {
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    let legacy = load::table_def(pair.legacy)?;
    let twin = load::table_def(pair.twin)?;
    let (on_legacy, on_twin) = (
        sync_triggers::name_on_legacy(&pair.base_name),
        sync_triggers::name_on_twin(&pair.base_name),
    );
    use sync_triggers::{Part, Place, Purpose};
    match operation {
        "start_sync" => {
            let mut plan = sync_triggers::install(
                pair.id,
                &legacy.name,
                &on_legacy,
                Purpose::Capture,
                Place::Side,
                Part::All,
            );
            plan.extend(sync_triggers::install(
                pair.id,
                &twin.name,
                &on_twin,
                Purpose::Reject,
                Place::Side,
                Part::All,
            ));
            Ok(plan)
        }
        "backfill" => {
            let wanted = crate::plan::indexes::of_twin(&legacy, &pair.partition_key);
            let mut plan = crate::plan::indexes::drop_remade(&wanted, &twin);
            plan.push(
                "copy rows by block ranges",
                format!(
                    "-- {} blocks of {} into {}",
                    blocks(&legacy)?,
                    legacy.name,
                    twin.name
                ),
            );
            plan.extend(crate::plan::indexes::create(&wanted, &twin.name));
            plan.push(
                "drain the change log",
                format!("-- partition_router.change_log_{}", pair.id),
            );
            plan.extend(sync_triggers::install(
                pair.id,
                &legacy.name,
                &on_legacy,
                Purpose::Live,
                Place::Side,
                Part::All,
            ));
            plan.extend(sync_triggers::install(
                pair.id,
                &twin.name,
                &on_twin,
                Purpose::Live,
                Place::Side,
                Part::All,
            ));
            plan.extend(foreign_keys::on_root(&legacy, &twin.name));
            Ok(plan)
        }
        "switchover" => switchover::plan(relation, Direction::There),
        "rollback" => switchover::plan(relation, Direction::Back),
        "cleanup" => cleanup::plan(relation, cleanup::Wish::default()),
        "abandon" => abandon_plan(&pair),
        _ => Err(Error::BadArgument {
            argument: "operation".into(),
            reason: format!("there is no plan for \"{operation}\""),
            hint: "Use start_sync, backfill, switchover, rollback, cleanup, abandon or run_maintenance; create_twin() has its \
                   own dry run."
                .into(),
        }),
    }
}

fn blocks(legacy: &TableDef) -> Result<i64> {
    Ok(spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.pg_relation_size($1)
                / pg_catalog.current_setting('block_size')::bigint)",
        &[Oid::from(legacy.oid).into()],
    )?
    .unwrap_or(0))
}
