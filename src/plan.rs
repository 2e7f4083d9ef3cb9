//! A plan: the list of steps that an operation runs. A dry run prints it, a real run executes the same value.
//! What makes plans lives in the modules below, one an operation: pure functions of catalog and policy.

pub mod access;
pub mod carry_ddl;
pub mod create_index;
pub mod create_twin;
pub mod drain;
pub mod dress;
pub mod feed;
pub mod foreign_keys;
pub mod guard;
pub mod indexes;
pub mod maintain;
pub mod place;
pub mod retire;
pub mod switchover;
pub mod sync_triggers;

use crate::ident::{Literal, RelName};
use serde::Serialize;

/// The expression that draws the next number of a sequence.
pub fn next_value(sequence: &RelName) -> String {
    format!(
        "pg_catalog.nextval({}::pg_catalog.regclass)",
        Literal(&sequence.to_string())
    )
}

/// One statement and, in a few words, what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub action: String,
    pub statement: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

impl Plan {
    pub fn push(&mut self, action: impl Into<String>, statement: impl Into<String>) {
        self.steps.push(Step {
            action: action.into(),
            statement: statement.into(),
        });
    }

    pub fn extend(&mut self, other: Plan) {
        self.steps.extend(other.steps);
    }

    /// `(step, action, statement)`, counted from 1: the rows of `partition_router.plan()`.
    pub fn rows(&self) -> Vec<(i32, String, String)> {
        self.steps
            .iter()
            .enumerate()
            .map(|(i, step)| (i as i32 + 1, step.action.clone(), step.statement.clone()))
            .collect()
    }
}
