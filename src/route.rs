//! Which side a read uses, and why: one pure decision, fed by [`crate::route::decide::Inputs`].

pub mod decide;

use crate::error::{Error, Result};
use crate::pair::{Pair, store};
use crate::{session, settings, spi};
use decide::{Decision, Inputs, Rollout, Side};
use pgrx::pg_sys::Oid;
use serde::Deserialize;

#[derive(Deserialize)]
struct RolloutRow {
    percent: i32,
    pilots: Vec<String>,
    excluded: Vec<String>,
}

fn rollout_of(pair: &Pair) -> Result<Rollout> {
    let row: Option<RolloutRow> = session::with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.jsonb_build_object('percent', percent, 'pilots', pilots, 'excluded', excluded)
             FROM partition_router.rollout WHERE pair_id = $1",
            &[pair.id.into()],
        )
    })?;
    Ok(row.map_or_else(Rollout::default, |r| Rollout {
        percent: r.percent,
        pilots: r.pilots,
        excluded: r.excluded,
    }))
}

/// The table to read now, and the reason.
pub fn route(relation: Oid, tenant: Option<String>, requested: Option<bool>) -> Result<(Oid, String)> {
    let Some(pair) = store::find(relation)? else {
        return Ok((relation, "not in a pair".into()));
    };
    let inputs = Inputs {
        routing_enabled: settings::enable_partition_routing(),
        phase: pair.phase,
        proven: pair.verified_at.is_some(),
        requested,
        use_partitioned_tables: settings::use_partitioned_tables(),
        tenant: tenant.or_else(settings::tenant),
        rollout: rollout_of(&pair)?,
    };
    let Decision { side, reason } = decide::decide(&inputs);
    let target = match side {
        Side::Legacy => pair.legacy,
        Side::Twin => pair.twin,
    };
    if settings::log_partition_routing() {
        let name = |oid| -> Result<String> {
            Ok(crate::catalog::load::rel_name(oid)?
                .map(|n| n.name.as_str().to_string())
                .unwrap_or_default())
        };
        pgrx::log!(
            "[PartitionRouting] SELECT - {} -> {}",
            name(pair.legacy)?,
            name(target)?
        );
    }
    Ok((target, reason))
}

/// Changes who reads the twin. NULL keeps what there is.
pub fn set_rollout(
    relation: Oid,
    percent: Option<i32>,
    pilots: Option<Vec<Option<String>>>,
    excluded: Option<Vec<Option<String>>>,
) -> Result<()> {
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    if let Some(percent) = percent
        && !(0..=100).contains(&percent)
    {
        return Err(Error::BadArgument {
            argument: "percent".into(),
            reason: format!("{percent} is no share of a hundred"),
            hint: "Give a whole number from 0 to 100.".into(),
        });
    }
    let clean = |list: Option<Vec<Option<String>>>| list.map(|l| l.into_iter().flatten().collect::<Vec<_>>());
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.rollout AS r (pair_id, percent, pilots, excluded)
             VALUES ($1, COALESCE($2, 0), COALESCE($3, '{}'), COALESCE($4, '{}'))
             ON CONFLICT (pair_id) DO UPDATE SET
                 percent = COALESCE($2, r.percent), pilots = COALESCE($3, r.pilots),
                 excluded = COALESCE($4, r.excluded), changed_at = pg_catalog.now(), changed_by = SESSION_USER",
            &[pair.id.into(), percent.into(), clean(pilots).into(), clean(excluded).into()],
        )
    })?;
    store::log_run(
        &store::display_name(pair.legacy)?,
        "set_rollout",
        "CHANGED",
        serde_json::json!({ "percent": percent }),
    )
}
