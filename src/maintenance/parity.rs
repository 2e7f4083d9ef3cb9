//! The proof that maintenance renews: pairs whose last verify is older than `partition_router.verify_interval`.

use super::log::{self, Event, Status};
use super::table;
use crate::error::Result;
use crate::pair::store;
use crate::parity::{self, Extent, Level, Verdict};
use crate::session::{self, with_own_tables};
use crate::{settings, spi};
use pgrx::pg_sys::Oid;

/// What a verify that finds differences ends with.
const NOT_EQUAL: &str = "PR014";

/// The legacy tables of the pairs in step that the caller owns and whose last verify is too old: of the table that is named,
/// or of all.
pub fn due(relation: Option<Oid>) -> Result<Vec<Oid>> {
    let (true, Some(interval)) = (
        settings::enable_partition_maintenance(),
        settings::verify_interval(),
    ) else {
        return Ok(Vec::new());
    };
    let named = match relation {
        None => None,
        Some(relation) => match store::find(relation)? {
            Some(pair) => Some(pair.id),
            None => return Ok(Vec::new()),
        },
    };
    let user = session::current_user();
    let due: Vec<u32> = with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.to_jsonb(p.legacy::oid::bigint)
             FROM partition_router.pair p
             JOIN pg_catalog.pg_class l ON l.oid = p.legacy::oid
             JOIN pg_catalog.pg_class t ON t.oid = p.twin::oid
             LEFT JOIN partition_router.parity_mark m ON m.pair_id = p.id
             WHERE p.phase IN ('live', 'switched') AND pg_catalog.pg_has_role($1, l.relowner, 'USAGE')
               AND (p.id = $3 OR $3 IS NULL)
               AND (m.marked_at IS NULL
                    OR m.marked_at <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2))
             ORDER BY p.id",
            &[user.into(), interval.as_secs_f64().into(), named.into()],
        )
    })?;
    Ok(due.into_iter().map(Oid::from).collect())
}

/// Verifies a pair by checksum, and records the result.
pub fn check(legacy: Oid) -> Result<()> {
    let name = table::display(legacy)?;
    let verdicts = parity::verify(legacy, Level::Checksum, Extent::Changed)?;
    let differing: Vec<&Verdict> = verdicts.iter().filter(|v| !v.matches()).collect();
    let mut event = Event::done(&name, "verify", "both sides are equal");
    event.row_count = Some(verdicts.iter().map(|v| v.legacy.rows).sum());
    if let Some(first) = differing.first() {
        let message = format!(
            "both sides differ in {} of {} partitions, the first is {}",
            differing.len(),
            verdicts.len(),
            table::display(first.partition)?
        );
        pgrx::warning!("{name}: {message} ({NOT_EQUAL})");
        event.status = Status::Failed;
        event.sqlstate = Some(NOT_EQUAL.into());
        event.message = Some(message);
    }
    log::write(&event)
}
