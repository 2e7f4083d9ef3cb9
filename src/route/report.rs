//! What is told of a decision: a line in the log, when asked for, and a count.

use super::decide::{Decision, Side};
use super::state::PairState;
use crate::error::Result;
use crate::settings;
use pgrx::pg_sys::Oid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Tells of a decision about a read.
pub fn decided(pair: &PairState, tenant: Option<&str>, decision: Decision) -> Result<()> {
    let target = match decision.side {
        Side::Legacy => pair.legacy,
        Side::Twin => pair.twin,
    };
    if settings::log_partition_routing() {
        let name = |oid: Oid| -> Result<String> {
            Ok(crate::catalog::load::rel_name(oid)?
                .map(|n| n.name.as_str().to_string())
                .unwrap_or_default())
        };
        let line = format!(
            "[PartitionRouting] SELECT - {} -> {}",
            name(pair.legacy)?,
            name(target)?
        );
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
    Ok(())
}
