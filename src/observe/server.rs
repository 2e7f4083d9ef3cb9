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
    pub is_standby: bool,
    /// How far this standby is behind; none when it is not, or is none.
    pub standby_lag: Option<f64>,
    pub replicas: Vec<Replica>,
    /// Background workers of the extension by their kind: `launcher`, `maintenance`, …
    pub workers: BTreeMap<String, i64>,
    pub preloaded: Vec<String>,
    pub shared_preload: String,
    pub max_workers: i64,
    pub role: Role,
    pub archives: Vec<Archives>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Replica {
    pub name: String,
    pub seconds: f64,
    pub bytes: f64,
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

pub fn sequences() -> Result<Vec<Sequence>> {
    with_own_tables(|| spi::rows(include_str!("../../sql/observe/sequences.sql"), &[]))
}
