//! What would stop a migration, and what would surprise: rows of severity, code, message and hint. An `error` stops
//! `create_twin()`.
//!
//! Preflight changes nothing, and on the table takes ACCESS SHARE alone. What it says comes from the catalog, from statistics
//! views, from the partition key's values, and from one trial that is undone ([`cost`]).

mod constraints;
mod cost;
mod key;
mod kind;
mod sql_text;
mod statements;
mod surroundings;

use crate::catalog::{TableDef, dependents};
use crate::error::{Error, Result};
use crate::plan::indexes;
use crate::twin::{self, Request};
use pgrx::pg_sys::Oid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Stops the migration.
    Error,
    /// Will behave otherwise than before.
    Warning,
    Info,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Finding {
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
    pub hint: String,
    /// What `create_twin()` raises.
    pub error: Option<Error>,
}

impl Finding {
    fn error(code: &'static str, error: Error) -> Self {
        Finding {
            severity: Severity::Error,
            code,
            message: error.message(),
            hint: error.hint().unwrap_or_default(),
            error: Some(error),
        }
    }

    fn warning(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Warning,
            code,
            message: message.into(),
            hint: hint.into(),
            error: None,
        }
    }

    fn info(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Info,
            ..Finding::warning(code, message, hint)
        }
    }
}

/// Everything there is to say about migrating `legacy`, most severe first. Changes nothing.
pub fn findings(legacy: &TableDef, request: &Request) -> Result<Vec<Finding>> {
    if let Some(error) = kind::wrong_kind(legacy)? {
        // What is no ordinary table has nothing else worth saying.
        return Ok(vec![Finding::error(kind::code_of(&error), error)]);
    }
    let mut found = blocking(legacy, request)?;
    let can_be_designed = found.iter().all(|finding| finding.error.is_none());
    let partitions = match can_be_designed {
        true => key::values(legacy, request, &mut found)?,
        false => 0,
    };
    let key = &request.partition_key;
    constraints::different(legacy, key, &mut found);
    constraints::pointing_in(legacy, key, &mut found);
    let around = surroundings::load(legacy)?;
    let refers = dependents::load(Oid::from(legacy.oid), Oid::INVALID)?;
    let is_widened = legacy
        .primary_key()
        .is_some_and(|index| indexes::is_widened(index, key));
    surroundings::replication(legacy, &around, &mut found);
    surroundings::dependents(legacy, &around, &refers, is_widened, &mut found);
    statements::findings(legacy, key, &around, &mut found)?;
    surroundings::locks(legacy, &around, partitions, &mut found);
    surroundings::disk(&around, &mut found);
    cost::finding(legacy, &around, &mut found)?;
    found.sort_by_key(|f| f.severity as u8);
    Ok(found)
}

/// What stops any migration of the table by this key, and what is found on the way.
fn blocking(legacy: &TableDef, request: &Request) -> Result<Vec<Finding>> {
    let mut found = vec![];
    let strategy = match twin::strategy(&request.strategy) {
        Ok(strategy) => Some(strategy),
        Err(error) => {
            found.push(Finding::error("bad_strategy", error));
            None
        }
    };
    if legacy.primary_key().is_none() {
        found.push(Finding::error(
            "no_primary_key",
            Error::NoPrimaryKey {
                relation: legacy.name.to_string(),
            },
        ));
    }
    key::findings(legacy, request, strategy, &mut found)?;
    constraints::impossible(legacy, &mut found);
    Ok(found)
}

/// The first error among the findings, for calls that cannot go on.
pub fn require_clean(legacy: &TableDef, request: &Request) -> Result<()> {
    if let Some(error) = kind::wrong_kind(legacy)? {
        return Err(error);
    }
    match blocking(legacy, request)?.into_iter().find_map(|f| f.error) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
