//! What maintenance did, in `partition_router.maintenance_event` and with the policy.

use crate::error::Result;
use crate::policy::Skip;
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys::Oid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Done,
    Skipped,
    Failed,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Skipped => "skipped",
            Status::Failed => "failed",
        }
    }
}

/// One row of the log.
#[derive(Debug, Clone)]
pub struct Event {
    pub parent: String,
    pub partition: Option<String>,
    pub action: String,
    pub status: Status,
    pub row_count: Option<i64>,
    pub sqlstate: Option<String>,
    pub message: Option<String>,
}

impl Event {
    pub fn done(parent: &str, action: &str, message: &str) -> Self {
        Self::new(parent, action, Status::Done, message)
    }

    pub fn skipped(parent: &str, action: &str, message: &str) -> Self {
        Self::new(parent, action, Status::Skipped, message)
    }

    fn new(parent: &str, action: &str, status: Status, message: &str) -> Self {
        Event {
            parent: parent.into(),
            partition: None,
            action: action.into(),
            status,
            row_count: None,
            sqlstate: None,
            message: Some(message.into()),
        }
    }
}

/// Writes down why a table was passed over, unless that was the last word about its runs: not at every run what has not changed.
pub fn write_change(event: &Event) -> Result<()> {
    let is_known: Option<bool> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(e.status = 'skipped' AND e.message IS NOT DISTINCT FROM $3)
             FROM partition_router.maintenance_event e
             WHERE e.parent = $1 AND e.action = $2 ORDER BY e.id DESC LIMIT 1",
            &[
                event.parent.as_str().into(),
                event.action.as_str().into(),
                event.message.as_deref().into(),
            ],
        )
    })?;
    if is_known == Some(true) {
        Ok(())
    } else {
        write(event)
    }
}

/// What the last run of a table left alone.
pub fn left_alone(parent: Oid) -> Result<Vec<Skip>> {
    let known: Option<Vec<Skip>> = with_own_tables(|| {
        spi::kept_row(
            "SELECT p.left_alone FROM partition_router.policy p WHERE p.parent::oid = $1",
            &[parent.into()],
        )
    })?;
    Ok(known.unwrap_or_default())
}

pub fn set_left_alone(parent: Oid, skips: &[Skip]) -> Result<()> {
    let skips = serde_json::to_string(skips)?;
    with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.policy SET left_alone = $2::jsonb WHERE parent::oid = $1",
            &[parent.into(), skips.as_str().into()],
        )
    })?;
    Ok(())
}

pub fn write(event: &Event) -> Result<()> {
    with_own_tables(|| {
        spi::kept_execute(
            "INSERT INTO partition_router.maintenance_event
                 (parent, partition, action, status, row_count, sqlstate, message)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                event.parent.as_str().into(),
                event.partition.as_deref().into(),
                event.action.as_str().into(),
                event.status.as_str().into(),
                event.row_count.into(),
                event.sqlstate.as_deref().into(),
                event.message.as_deref().into(),
            ],
        )
    })?;
    Ok(())
}

/// A run has begun: what was wrong before is no longer the last word.
pub fn ran(parent: Oid) -> Result<()> {
    with_own_tables(|| {
        spi::kept_execute(
            "UPDATE partition_router.policy SET last_run_at = pg_catalog.clock_timestamp(), last_error = NULL
             WHERE parent::oid = $1",
            &[parent.into()],
        )
    })?;
    Ok(())
}

pub fn remember_error(parent: Oid, error: &str) -> Result<()> {
    with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.policy SET last_run_at = pg_catalog.clock_timestamp(), last_error = $2
             WHERE parent::oid = $1",
            &[parent.into(), error.into()],
        )
    })?;
    Ok(())
}

/// Policies, drains and holds of tables that are gone mean nothing, and their oid may be used again. Looked up one by one: a join would
/// read the whole catalog for some few of them.
pub fn forget_gone() -> Result<()> {
    with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.policy p
             WHERE (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = p.parent::oid) IS NULL",
            &[],
        )?;
        spi::execute(
            "DELETE FROM partition_router.drain d
             WHERE (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = d.parent::oid) IS NULL",
            &[],
        )?;
        spi::execute(
            "DELETE FROM partition_router.hold h
             WHERE (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = h.partition::oid) IS NULL",
            &[],
        )
    })?;
    Ok(())
}
