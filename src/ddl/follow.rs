//! A table of a pair that a statement changes: both sides are locked and its definition noted when the statement begins,
//! and what is different at its end is done to the other side.

use super::pairs::{self, Place, Sides};
use super::pending::OwnDdl;
use super::statement::{self, Alter};
use crate::backfill::state::Stage as CopyStage;
use crate::backfill::{copy, copy_stage};
use crate::catalog::{TableDef, load};
use crate::error::{self, Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::{self, LockMode, budget};
use crate::pair::{Pair, Phase, store};
use crate::plan::Plan;
use crate::plan::carry_ddl::{self, Change, Details, Made, Other, Refusal, Side, Stage};
use crate::session::{self, PinnedSettings};
use crate::spi;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use serde_json::json;
use std::ffi::c_int;

/// As many statements as `run_log` shows of one that was carried: some are repeated for each partition.
const LOGGED_STATEMENTS: usize = 10;

/// A table that a statement is changing.
pub struct Following {
    pub pair: Pair,
    pub place: Place,
    pub before: TableDef,
    pub details: Details,
    /// CREATE INDEX CONCURRENTLY.
    pub concurrently: bool,
    /// Of the twin, and of a partition: every partition there was.
    pub partitions: Vec<u32>,
}

pub fn refused(what: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::NotCarried {
        what: what.into(),
        reason: reason.into(),
        hint: hint.into(),
    }
}

/// The pair, when its tables are to be kept alike.
pub fn current(sides: Sides) -> Result<Option<Pair>> {
    Ok(store::latest(sides.id)?.filter(Pair::is_in_force))
}

/// Notes how `table` is. With a lock level, that is taken on both sides first: legacy, twin, partitions, all within
/// the lock budget. Gives nothing for a table that the current user does not own: the server will refuse the statement.
pub fn begin(sides: Sides, place: Place, table: Oid, lock: Option<c_int>) -> Result<Option<Following>> {
    if !load::is_owner(table)? {
        return Ok(None);
    }
    let Some(pair) = current(sides)? else {
        return Ok(None);
    };
    if place != Place::Partition && pair.guard.is_none() {
        store::require_owner(pairs::other(&pair, place))?;
    }
    if pair.guard.is_some() {
        return super::guard::begin(pair, place, table);
    }
    if let Some(level) = lock.filter(|_| place != Place::Partition) {
        acquire(sides, level)?;
    }
    // The phase may have changed while the lock was awaited.
    let Some(pair) = current(sides)? else {
        return Ok(None);
    };
    let Some(before) = load::latest_table_def(table)? else {
        return Ok(None);
    };
    Following::new(pair, place, before).map(Some)
}

fn acquire(sides: Sides, level: c_int) -> Result<()> {
    let mode = LockMode::at_least(level);
    let mut wanted = vec![(sides.legacy, mode), (sides.twin, mode)];
    wanted.extend(
        pairs::partitions(sides.twin)?
            .iter()
            .map(|p| (Oid::from(p.oid), mode)),
    );
    locks::acquire(&wanted)
}

impl Following {
    /// Of a table that is as `before` says.
    pub fn new(pair: Pair, place: Place, before: TableDef) -> Result<Following> {
        let partitions = match place {
            Place::Legacy => vec![],
            _ => pairs::partitions(pair.twin)?.iter().map(|p| p.oid).collect(),
        };
        Ok(Following {
            pair,
            place,
            before,
            details: Details::default(),
            concurrently: false,
            partitions,
        })
    }

    fn table(&self) -> Oid {
        self.before.oid.into()
    }

    fn what(&self) -> String {
        format!(
            "carry the change of {} to the other side of its pair",
            self.before.name
        )
    }

    fn refuse(&self, refusal: Refusal) -> Error {
        refused(self.what(), refusal.reason, refusal.hint)
    }

    /// What of an ALTER TABLE the catalog will not show.
    pub fn look_into(&mut self, alter: &Alter) -> Result<()> {
        if self.pair.guard.is_some() {
            return Ok(()); // nothing is carried
        }
        self.details.cascade = alter.commands.iter().any(|c| c.cascade);
        if let Some(name) = alter.added_and_defaulted() {
            return Err(refused(
                self.what(),
                format!("column {name} would be added with one default and then given another"),
                "Use two statements: one that adds the column, one that sets its default.",
            ));
        }
        for command in &alter.commands {
            let Some(name) = &command.name else { continue };
            // The statement itself says it when there is no such column.
            if self.before.column(name.as_str()).is_none() {
                continue;
            }
            if let Some((expression, volatile)) = command.using(self.table())? {
                if volatile {
                    return Err(refused(
                        self.what(),
                        format!(
                            "the USING expression of column {name} is another value for each call, and on each side"
                        ),
                        "Add a new column, fill it with UPDATE, and drop the old one.",
                    ));
                }
                self.details.using.insert(name.clone(), expression);
            }
            if self.place == Place::Legacy && command.drops_sequence() {
                self.let_go_of_sequence(name)?;
            }
        }
        Ok(())
    }

    /// The twin draws from a sequence that belongs to the legacy's column: it would be in the way of dropping that.
    fn let_go_of_sequence(&self, column: &Ident) -> Result<()> {
        let _path = PinnedSettings::search_path();
        let args = [
            self.pair.legacy.into(),
            self.pair.twin.into(),
            column.as_str().into(),
        ];
        let depends: Vec<bool> =
            spi::latest_rows(include_str!("../../sql/catalog/shares_sequence.sql"), &args)?;
        if depends.first() != Some(&true) {
            return Ok(());
        }
        let twin = required_name(self.pair.twin)?;
        let mut plan = Plan::default();
        plan.push(
            format!("let go of the sequence of column {column}"),
            format!("ALTER TABLE {twin} ALTER COLUMN {column} DROP DEFAULT"),
        );
        self.run_as_owner(self.pair.twin, &plan)
    }

    /// The statement has ended: the other side follows.
    pub fn end(self) -> Result<()> {
        let _path = PinnedSettings::search_path();
        let Some(after) = load::latest_table_def(self.table())? else {
            return Ok(());
        };
        if self.pair.guard.is_some() {
            return super::guard::end(&self, &after);
        }
        if self.concurrently {
            super::concurrent::require_partitions_still(&self, &after)?;
        }
        match self.place {
            Place::Legacy => self.carry(&after, Side::Legacy)?,
            Place::Twin => self.carry(&after, Side::Twin)?,
            Place::Partition => {
                let legacy = load::latest_table_def(self.pair.legacy)?;
                let keys = legacy.map(|legacy| legacy.foreign_keys).unwrap_or_default();
                carry_ddl::table::partition(&self.before, &after, &keys).map_err(|r| {
                    refused(
                        format!("change partition {} alone", self.before.name),
                        r.reason,
                        r.hint,
                    )
                })?;
            }
        }
        if self.place != Place::Legacy {
            super::partitions::welcome(&self.pair, &self.partitions)?;
        }
        Ok(())
    }

    fn carry(&self, after: &TableDef, side: Side) -> Result<()> {
        let mut details = self.details.clone();
        let mut change = Change {
            side,
            before: &self.before,
            after,
            partition_key: &self.pair.partition_key,
            details: &self.details,
            stage: stage(&self.pair)?,
        };
        if change.is_empty() {
            return Ok(());
        }
        details.volatile = self.volatile_columns(&change)?;
        change.details = &details;
        let other = pairs::other(&self.pair, self.place);
        if let Some(key) = change
            .partition_key_now()
            .filter(|key| **key != self.pair.partition_key)
        {
            store::set_partition_key(&self.pair, key)?;
        }
        for (before, after) in change.renamed_columns() {
            store::rename_tenant_column(&self.pair, before, after)?;
        }
        let done = self.follow(&change, other)?;
        if done.is_empty() {
            return Ok(());
        }
        self.require_same_values(&change)?;
        store::log_run(
            &store::display_name(self.pair.legacy)?,
            "ddl",
            "CARRIED",
            json!({
                "from": self.before.name.to_string(),
                "count": done.len(),
                "statements": &done[..done.len().min(LOGGED_STATEMENTS)],
            }),
        )
    }

    /// Does to `other` what the change asks for; gives the statements.
    fn follow(&self, change: &Change, other: Oid) -> Result<Vec<String>> {
        let _quiet = PinnedSettings::new(&[(c"client_min_messages", "warning")]);
        let was = required_def(other)?;
        let partitions: Vec<RelName> = pairs::partitions(self.pair.twin)?
            .into_iter()
            .map(|p| p.name)
            .collect();
        let proven_keys = match change.side {
            Side::Legacy => self.proven_keys(change)?,
            Side::Twin => vec![],
        };
        let target = |table| Other {
            table,
            partitions: &partitions,
            proven_keys: &proven_keys,
        };
        let mut done = vec![];
        let structure = carry_ddl::structure(change, &target(&was)).map_err(|r| self.refuse(r))?;
        self.run_as_owner(other, &structure)?;
        let now = required_def(other)?;
        let rest = carry_ddl::rest(change, &was, &target(&now)).map_err(|r| self.refuse(r))?;
        self.run_as_owner(other, &rest.as_owner)?;
        self.run_as_caller(other, &rest.as_caller)?;
        for plan in [structure, rest.as_owner, rest.as_caller] {
            done.extend(plan.steps.into_iter().map(|step| step.statement));
        }
        Ok(done)
    }

    /// Of the keys that the statement has proven, those that every partition has proven before.
    fn proven_keys(&self, change: &Change) -> Result<Vec<Ident>> {
        let mut keys: Vec<Ident> = change.validated_keys().cloned().collect();
        if keys.is_empty() {
            return Ok(keys);
        }
        for partition in pairs::partitions(self.pair.twin)? {
            let table = required_def(partition.oid.into())?;
            if table.kind == "r" {
                keys.retain(|name| {
                    table
                        .foreign_keys
                        .iter()
                        .any(|key| &key.name == name && key.valid)
                });
            }
        }
        Ok(keys)
    }

    /// Expressions of the table are evaluated: not with the rights of whoever runs the statement.
    fn run_as_owner(&self, other: Oid, plan: &Plan) -> Result<()> {
        if plan.steps.is_empty() {
            return Ok(());
        }
        let owner = load::owner(other)?;
        session::as_user(owner, || self.run(other, plan))
    }

    /// What the server itself does as the table's owner where it evaluates, and asks the caller only for the right to.
    fn run_as_caller(&self, other: Oid, plan: &Plan) -> Result<()> {
        if plan.steps.is_empty() {
            return Ok(());
        }
        self.run(other, plan)
    }

    fn run(&self, other: Oid, plan: &Plan) -> Result<()> {
        let hint: fn(PgSqlErrorCode) -> Option<&'static str> = match self.pair.phase {
            Phase::Copying => |_| {
                Some(
                    "The statement was being carried to the other side of a partition_router pair. While rows are copied \
                      the twin may hold some that are no more: try again when the pair is live.",
                )
            },
            _ => |_| Some("The statement was being carried to the other side of a partition_router pair."),
        };
        error::keeping_sqlstate(
            || {
                budget::within_budget(other, || {
                    let _own = OwnDdl::new();
                    execute::run(plan, Mode::Run)
                })
            },
            hint,
        )
    }

    fn volatile_columns(&self, change: &Change) -> Result<Vec<Ident>> {
        let mut volatile = vec![];
        for column in carry_ddl::columns::added(change).filter(|column| !column.generated) {
            if statement::has_volatile_default(self.table(), &column.name)? {
                volatile.push(column.name.clone());
            }
        }
        // Without rows there is nothing that could differ.
        if !volatile.is_empty() && !copy::has_rows(self.pair.legacy)? && !copy::has_rows(self.pair.twin)? {
            volatile.clear();
        }
        Ok(volatile)
    }

    /// A function that says STABLE and is not may have given each table its own value.
    fn require_same_values(&self, change: &Change) -> Result<()> {
        for column in carry_ddl::columns::added(change) {
            let args = [
                self.pair.legacy.into(),
                self.pair.twin.into(),
                column.name.as_str().into(),
            ];
            let same: Vec<bool> =
                spi::latest_rows(include_str!("../../sql/catalog/same_missing_value.sql"), &args)?;
            if same.first() == Some(&false) {
                return Err(refused(
                    self.what(),
                    format!(
                        "the default of column {} is another value on each side",
                        column.name
                    ),
                    "Add the column without a default, set the default, then update the rows.",
                ));
            }
        }
        Ok(())
    }
}

fn required_def(table: Oid) -> Result<TableDef> {
    load::latest_table_def(table)?.ok_or_else(|| Error::UnknownRelation { oid: table.to_u32() })
}

pub fn required_name(table: Oid) -> Result<RelName> {
    load::rel_name(table)?.ok_or_else(|| Error::UnknownRelation { oid: table.to_u32() })
}

/// What the twin has got of the legacy yet. The locks of the statement keep the backfill from getting on meanwhile.
pub fn stage(pair: &Pair) -> Result<Stage> {
    let copy = copy_stage(pair)?;
    let copying = pair.phase == Phase::Copying;
    let indexes = match copy {
        _ if !copying => Made::There,
        None | Some(CopyStage::Copy) => Made::Later,
        Some(CopyStage::Index) => Made::Now,
        Some(_) => Made::There,
    };
    let foreign_keys = match copy {
        Some(CopyStage::Finish) => Made::Now,
        _ if pair.phase < Phase::Live => Made::Later,
        _ => Made::There,
    };
    Ok(Stage {
        copying,
        indexes,
        foreign_keys,
    })
}
