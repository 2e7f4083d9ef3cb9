//! Installs and removes the sync triggers of a pair. The caller holds the locks.

use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::{self, LockMode};
use crate::pair::Pair;
use crate::plan::Plan;
pub use crate::plan::sync_triggers::Place;
use crate::plan::sync_triggers::{self as plan, Part, Purpose};
use crate::session::{self, PinnedSettings};
use crate::spi;
use pgrx::pg_sys::Oid;

/// Runs trigger DDL. It runs no code of a user: the trigger function is the extension's own.
fn run(plan: &Plan) -> Result<()> {
    let _quiet = PinnedSettings::new(&[(c"client_min_messages", "warning")]); // IF EXISTS would tell what does not
    session::with_own_tables(|| execute::run(plan, Mode::Run))
}

fn name_of(oid: Oid) -> Result<RelName> {
    load::rel_name(oid)?.ok_or_else(|| Error::Internal(format!("relation {} is gone", oid.to_u32())))
}

/// Until the pair is live, writes to the twin are refused: rows by a row trigger, and statements that find no row by the
/// statement triggers of the live sync, which lie ready so that little is left to do at the flip.
pub fn install_on_new_twin(pair: &Pair) -> Result<()> {
    on_twin(pair, Purpose::Reject, Part::All)?;
    on_twin(pair, Purpose::Live, Part::Statement)?;
    for partition in load::partitions(pair.twin)? {
        install_on_partition(pair, &partition.name)?;
    }
    Ok(())
}

/// During the copy the legacy's changes are logged.
pub fn install_capture(pair: &Pair) -> Result<()> {
    on_legacy(pair, Purpose::Capture)
}

/// Lays the rest of the twin's triggers ready, so that the flip has nothing to do there: those of partitions that came by
/// hand meanwhile, and the row trigger, in the place of the one that refuses rows. Until the pair is live the statement triggers refuse every
/// write. The caller keeps everybody out of the twin.
pub fn install_ahead(pair: &Pair) -> Result<()> {
    install_on_bare_partitions(pair)?;
    let name = plan::name_on_twin(&pair.base_name);
    run(&plan::uninstall_row(&name_of(pair.twin)?, &name))?;
    on_twin(pair, Purpose::Live, Part::Row)
}

/// From the flip on changes of either side reach the other.
pub fn flip_to_live(pair: &Pair) -> Result<()> {
    on_legacy(pair, Purpose::Live)
}

fn on_legacy(pair: &Pair, purpose: Purpose) -> Result<()> {
    let name = plan::name_on_legacy(&pair.base_name);
    run(&plan::install(
        pair.id,
        &name_of(pair.legacy)?,
        &name,
        purpose,
        Place::Side,
        Part::All,
    ))
}

fn on_twin(pair: &Pair, purpose: Purpose, part: Part) -> Result<()> {
    let name = plan::name_on_twin(&pair.base_name);
    run(&plan::install(
        pair.id,
        &name_of(pair.twin)?,
        &name,
        purpose,
        Place::Side,
        part,
    ))
}

/// Statement triggers do not come to a partition from its root: each gets its own, so that DML straight into a
/// partition reaches the legacy. For partitions of a live pair.
pub fn install_on_partition(pair: &Pair, partition: &RelName) -> Result<()> {
    let name = plan::name_on_twin(&pair.base_name);
    run(&plan::install(
        pair.id,
        partition,
        &name,
        Purpose::Live,
        Place::Partition,
        Part::All,
    ))
}

/// Partitions that came to the twin by hand (CREATE TABLE … PARTITION OF, ATTACH): their own sync triggers are missing
/// or disabled, so that DML straight into them stays on one side.
pub fn bare_partitions(pair: &Pair) -> Result<Vec<Oid>> {
    let trigger = plan::name_on_twin(&pair.base_name).with_suffix("_i");
    let bare: Vec<u32> = spi::rows(
        "SELECT pg_catalog.to_jsonb(p.relid::oid::bigint)
         FROM pg_catalog.pg_partition_tree($1) p
         WHERE p.level > 0 AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = p.relid AND t.tgname = $2::pg_catalog.name AND t.tgenabled = 'A')
         ORDER BY p.relid",
        &[pair.twin.into(), trigger.as_str().into()],
    )?;
    Ok(bare.into_iter().map(Oid::from).collect())
}

/// The tables of a partitioned one, itself last, that lack the triggers of a pair by its number.
pub fn not_laid(table: Oid, base: &Ident, pair: i32) -> Result<Vec<Oid>> {
    let trigger = plan::name_on_twin(base).with_suffix("_i");
    let bare: Vec<u32> = spi::rows(
        "SELECT pg_catalog.to_jsonb(p.relid::oid::bigint)
         FROM pg_catalog.pg_partition_tree($1) p
         WHERE NOT EXISTS (
             SELECT FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = p.relid AND t.tgname = $2::pg_catalog.name AND t.tgenabled = 'A'
               AND pg_catalog.starts_with(pg_catalog.encode(t.tgargs, 'escape'), $3::text || E'\\\\000'))
         ORDER BY p.level = 0, p.relid",
        &[table.into(), trigger.as_str().into(), pair.to_string().into()],
    )?;
    Ok(bare.into_iter().map(Oid::from).collect())
}

/// Lays the live triggers of a pair that is not there yet. Until it is they do nothing.
pub fn lay(table: &RelName, base: &Ident, pair: i32, place: Place) -> Result<()> {
    let name = plan::name_on_twin(base);
    run(&plan::install(
        pair,
        table,
        &name,
        Purpose::Live,
        place,
        Part::All,
    ))
}

/// Takes triggers away that were laid.
pub fn take_up(table: &RelName, base: &Ident, place: Place) -> Result<()> {
    run(&plan::uninstall(table, &plan::name_on_twin(base), place))
}

/// Gives them their triggers.
pub fn install_on_bare_partitions(pair: &Pair) -> Result<()> {
    for partition in bare_partitions(pair)? {
        locks::acquire(&[(partition, LockMode::ShareRowExclusive)])?;
        install_on_partition(pair, &name_of(partition)?)?;
    }
    Ok(())
}

/// Removes the triggers from a partition that leaves the pair.
pub fn remove_from_partition(pair: &Pair, partition: &RelName) -> Result<()> {
    run(&plan::uninstall(
        partition,
        &plan::name_on_twin(&pair.base_name),
        Place::Partition,
    ))
}

/// Removes every sync trigger of the pair.
pub fn remove(pair: &Pair) -> Result<()> {
    let base = &pair.base_name;
    if let Some(legacy) = load::rel_name(pair.legacy)? {
        run(&plan::uninstall(
            &legacy,
            &plan::name_on_legacy(base),
            Place::Side,
        ))?;
    }
    if let Some(twin) = load::rel_name(pair.twin)? {
        for partition in load::partitions(pair.twin)? {
            remove_from_partition(pair, &partition.name)?;
        }
        run(&plan::uninstall(&twin, &plan::name_on_twin(base), Place::Side))?;
    }
    Ok(())
}
