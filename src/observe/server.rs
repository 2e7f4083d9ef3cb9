//! What is about the server and the database as a whole.

use crate::error::{Error, Result};
use crate::session::with_own_tables;
use crate::{settings, spi};
use serde::Deserialize;
use std::collections::BTreeMap;

/// As `sql/observe/server.sql` gives it. Times are seconds.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    pub database: String,
    pub standby: Standby,
    pub replicas: Vec<Replica>,
    pub slots: Vec<Slot>,
    /// Background workers of the extension by their kind: `launcher`, `maintenance`, …
    pub workers: BTreeMap<String, i64>,
    pub session_user: String,
    /// Lists of libraries, as the settings have them.
    pub shared_preload: String,
    pub session_preload: SessionPreload,
    pub max_workers: i64,
    pub role: Role,
    pub archives: Vec<Archives>,
}

/// The view `standby_metrics`; on a primary nothing of it is so.
#[derive(Debug, Clone, Deserialize)]
pub struct Standby {
    pub is_standby: bool,
    pub is_paused: bool,
    pub is_receiving: bool,
    /// How far it is behind; 0 where it has replayed all that there is.
    pub seconds: f64,
    pub primary: Option<String>,
    /// Whether it is set up to stream from another server.
    pub wants_primary: bool,
}

/// A row of the view `replica_metrics`.
#[derive(Debug, Clone, Deserialize)]
pub struct Replica {
    pub name: String,
    pub kind: String,
    pub seconds: f64,
    pub bytes: f64,
}

/// A row of the view `slot_metrics`.
#[derive(Debug, Clone, Deserialize)]
pub struct Slot {
    pub name: String,
    pub kind: String,
    pub is_active: bool,
    pub is_lost: bool,
    pub wal_status: String,
    /// Bytes of log that are kept for it, and that its reader has not confirmed.
    pub kept: f64,
    pub lag: f64,
}

/// `session_preload_libraries`.
#[derive(Debug, Clone, Deserialize)]
pub struct SessionPreload {
    /// Of this session.
    pub value: String,
    /// Where that is from, as `pg_settings` says it.
    pub source: String,
    /// What is set for the database.
    pub of_database: Option<String>,
}

/// What `partition_router.maintenance_role` names.
#[derive(Debug, Clone, Deserialize)]
pub struct Role {
    pub exists: bool,
    #[serde(rename = "super")]
    pub is_super: bool,
}

/// The archives of a table in one state.
#[derive(Debug, Clone, Deserialize)]
pub struct Archives {
    pub relation: String,
    pub state: String,
    pub number: i64,
    /// Since the oldest of them last changed.
    pub age: f64,
}

impl Archives {
    /// Whether there is something left to do.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.state.as_str(), "writing" | "verified" | "detached")
    }
}

/// A sequence that feeds a small integer column.
#[derive(Debug, Clone, Deserialize)]
pub struct Sequence {
    pub relation: String,
    pub sequence: String,
    pub column: String,
    /// 0 to 1.
    pub used: f64,
    pub mend: String,
}

pub fn server() -> Result<Server> {
    with_own_tables(|| {
        spi::row(
            include_str!("../../sql/observe/server.sql"),
            &[settings::maintenance_role().as_str().into()],
        )
    })?
    .ok_or_else(|| Error::Internal("the server says nothing of itself".into()))
}

/// Where this standby has its log from: host and port.
pub fn primary() -> Result<Option<String>> {
    let query = "SELECT to_jsonb(primary_server) FROM partition_router.standby_metrics WHERE primary_server IS NOT NULL";
    with_own_tables(|| spi::row(query, &[]))
}

pub fn sequences() -> Result<Vec<Sequence>> {
    with_own_tables(|| spi::rows(include_str!("../../sql/observe/sequences.sql"), &[]))
}
