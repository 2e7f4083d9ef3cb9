//! What is told of a decision: a line in the log, when asked for, and a count.

use super::decide::{Decision, Side};
use super::state::PairState;
use super::stats;
use crate::settings;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Tells of a decision about a read.
pub fn decided(pair: &PairState, tenant: Option<&str>, decision: Decision) {
    let target = match decision.side {
        Side::Legacy => pair.legacy,
        Side::Twin => pair.twin,
    };
    stats::count(pair.legacy, target, decision.reason);
    if settings::log_partition_routing() {
        let line = format!("[PartitionRouting] SELECT - {}", line(pair, decision.side));
        let detail = format!(
            "Tenant: {}. Reason: {}.",
            tenant.unwrap_or("none"),
            decision.reason
        );
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            line,
            "partition_router",
        )
        .set_detail(detail)
        .report(PgLogLevel::LOG);
    }
}

/// `revenues -> revenues_partitioned`
pub fn line(pair: &PairState, side: Side) -> String {
    let target = match side {
        Side::Legacy => pair.legacy,
        Side::Twin => pair.twin,
    };
    format!("{} -> {}", name(pair.legacy), name(target))
}

/// The bare name of a relation, or its oid when it is gone.
fn name(relation: Oid) -> String {
    match crate::catalog::load::rel_name(relation) {
        Ok(Some(name)) => name.name.as_str().to_string(),
        _ => relation.to_u32().to_string(),
    }
}
