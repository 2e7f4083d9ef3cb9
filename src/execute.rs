//! Runs a [`Plan`], or prints it.

use crate::ddl::pending::OwnDdl;
use crate::error::Result;
use crate::plan::Plan;
use crate::spi;

/// Whether to change something or only say what would be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Run,
    DryRun,
}

impl Mode {
    pub fn from_dry_run(dry_run: bool) -> Self {
        if dry_run { Mode::DryRun } else { Mode::Run }
    }
}

/// Runs every step in the current transaction, as the current user; in a dry run prints each as a NOTICE.
pub fn run(plan: &Plan, mode: Mode) -> Result<()> {
    for (number, action, statement) in plan.rows() {
        match mode {
            Mode::DryRun => print(number, &action, &statement),
            Mode::Run => {
                let _own = OwnDdl::new();
                spi::execute(&statement, &[])?;
            }
        }
    }
    Ok(())
}

/// Prints one step of a dry run.
pub fn print(number: i32, action: &str, statement: &str) {
    pgrx::notice!("step {number}: {action}: {statement}");
}
