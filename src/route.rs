//! Which side a read uses, and why: one pure decision, fed by [`crate::route::decide::Inputs`].
//!
//! `route()` hands the decision to an application that builds its own queries. Plain SQL is routed by [`hook`]: a
//! query that reads a legacy ([`reading`]) gets the twin in its place ([`substitute`]).

mod alternatives;
pub mod choose;
mod comparable;
pub mod decide;
mod digest;
pub mod explain;
mod hook;
mod mark;
mod nodes;
mod reading;
mod report;
mod shadow;
mod state;
pub mod stats;
mod substitute;

use crate::error::{Error, Result};
use crate::pair::store;
use crate::{session, spi};
use choose::Session;
use decide::{Decision, Kept, Reason, Side};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use state::{Key, PairState};
use std::rc::Rc;

/// Called once, when the library is loaded.
pub fn init() {
    state::init();
    alternatives::init();
    hook::init();
    explain::init();
    shadow::init();
}

/// The pair of either side, or of a partition, under the snapshot of the statement.
fn pair_of(relation: Oid) -> Option<Rc<PairState>> {
    #[allow(unsafe_code)]
    // SAFETY: the function that calls was called by a statement, which has an active snapshot.
    unsafe {
        let snapshot = pg_sys::GetActiveSnapshot();
        if let Some(pair) = state::under(relation, Key::Legacy, snapshot) {
            return Some(pair);
        }
        let mut root = relation;
        while pg_sys::get_rel_relispartition(root) {
            root = crate::compat::get_partition_parent(root, true);
        }
        state::under(root, Key::Twin, snapshot)
    }
}

/// The table to read now, and the reason.
pub fn route(relation: Oid, tenant: Option<&str>, requested: Option<bool>) -> Result<(Oid, Reason)> {
    let Some(pair) = pair_of(relation) else {
        return Ok((relation, Reason::NotPaired));
    };
    let session = Session::now();
    let mut decision = session.decide(&pair, tenant, requested);
    // An old snapshot may see a pair that others have let go of.
    if decision.side == Side::Twin && !crate::ddl::pairs::exists(pair.twin) {
        decision = Decision {
            side: Side::Legacy,
            reason: Reason::Kept(Kept::TwinGone),
        };
    }
    report::decided(&pair, tenant.or(session.tenant()), decision);
    let Decision { side, reason } = decision;
    let target = match side {
        Side::Legacy => pair.legacy,
        Side::Twin => pair.twin,
    };
    Ok((target, reason))
}

/// Changes who reads the twin. NULL keeps what there is. Who may is a grant: EXECUTE on the function, which nobody has until it
/// is given to them. Both sides are proven equal, so it changes how the rows are read, not which ones.
pub fn set_rollout(
    relation: Oid,
    percent: Option<i32>,
    pilots: Option<Vec<Option<String>>>,
    excluded: Option<Vec<Option<String>>>,
    tenant_column: Option<&str>,
) -> Result<()> {
    let pair = store::get(relation)?;
    if let Some(percent) = percent
        && !(0..=100).contains(&percent)
    {
        return Err(Error::BadArgument {
            argument: "percent".into(),
            reason: format!("{percent} is no share of a hundred"),
            hint: "Give a whole number from 0 to 100.".into(),
        });
    }
    if let Some(name) = tenant_column.filter(|name| !name.is_empty()) {
        require_tenant_column(pair.legacy, name)?;
    }
    let clean = |list: Option<Vec<Option<String>>>| list.map(|l| l.into_iter().flatten().collect::<Vec<_>>());
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.rollout AS r (pair_id, percent, pilots, excluded, tenant_column)
             VALUES ($1, COALESCE($2, 0), COALESCE($3, '{}'), COALESCE($4, '{}'), NULLIF($5, ''))
             ON CONFLICT (pair_id) DO UPDATE SET
                 percent = COALESCE($2, r.percent), pilots = COALESCE($3, r.pilots),
                 excluded = COALESCE($4, r.excluded), tenant_column = NULLIF(COALESCE($5, r.tenant_column), ''),
                 changed_at = pg_catalog.now(), changed_by = SESSION_USER",
            &[
                pair.id.into(),
                percent.into(),
                clean(pilots).into(),
                clean(excluded).into(),
                tenant_column.into(),
            ],
        )?;
        // What decides is known by the version of this row.
        spi::execute(
            "UPDATE partition_router.pair SET rollout_version = rollout_version + 1 WHERE id = $1",
            &[pair.id.into()],
        )
    })?;
    store::announce(pair.legacy);
    store::log_run(
        &store::display_name(pair.legacy)?,
        "set_rollout",
        "CHANGED",
        serde_json::json!({ "percent": percent, "tenant_column": tenant_column }),
    )
}

/// # Errors
/// `PR009` unless the table has this column, and its values name tenants.
fn require_tenant_column(legacy: Oid, name: &str) -> Result<()> {
    let column: Option<u32> = spi::row(
        "SELECT pg_catalog.to_jsonb(a.atttypid::bigint) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped",
        &[legacy.into(), name.into()],
    )?;
    let column = column.ok_or_else(|| Error::BadArgument {
        argument: "tenant_column".into(),
        reason: format!("there is no column {name}"),
        hint: "Name the column of the table that says whose a row is.".into(),
    })?;
    if choose::names_tenants(column.into()) {
        return Ok(());
    }
    Err(Error::BadArgument {
        argument: "tenant_column".into(),
        reason: format!("the type of {name} names no tenant"),
        hint: "Tenants are text, integers or UUIDs.".into(),
    })
}
