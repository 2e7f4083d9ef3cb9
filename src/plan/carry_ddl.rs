//! What a DDL statement did to one side of a pair, as statements that do the same to the other side.
//!
//! The table's definition before and after the statement are compared: columns by their number, constraints and indexes by
//! their oid, so that a rename is a rename. Only what the statement changed is carried; what the sides had different
//! before stays different. What the other side has already is not made again.

pub mod columns;
pub mod indexes;
pub mod table;

use super::Plan;
use crate::catalog::{Index, TableDef};
use crate::ident::{Ident, RelName};
use std::collections::HashMap;

/// The side that the user's statement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Legacy,
    Twin,
}

/// What cannot be carried, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub hint: String,
}

pub type Carried<T> = Result<T, Refusal>;

fn refuse<T>(reason: impl Into<String>, hint: impl Into<String>) -> Carried<T> {
    Err(Refusal {
        reason: reason.into(),
        hint: hint.into(),
    })
}

/// What comparing definitions cannot tell.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// A column or constraint was dropped with CASCADE.
    pub cascade: bool,
    /// `ALTER COLUMN … TYPE … USING`: the expression by the column's name, deparsed by the server.
    pub using: HashMap<Ident, String>,
    /// New columns whose default is another one for each row, of a table that has rows.
    pub volatile: Vec<Ident>,
}

/// Whether the twin has got something of the legacy yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// The backfill will give it what the legacy has then.
    Later,
    /// The backfill is at it, partition by partition.
    Now,
    There,
}

/// Where the pair is, as far as that decides what is carried to the twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The twin may hold rows that the legacy has no more.
    pub copying: bool,
    pub indexes: Made,
    pub foreign_keys: Made,
}

/// What one statement did to one side.
#[derive(Debug)]
pub struct Change<'a> {
    pub side: Side,
    pub before: &'a TableDef,
    pub after: &'a TableDef,
    /// As it was called before the statement.
    pub partition_key: &'a Ident,
    pub details: &'a Details,
    pub stage: Stage,
}

/// The side that follows.
#[derive(Debug)]
pub struct Other<'a> {
    pub table: &'a TableDef,
    /// Of the twin, whichever side it is: what does not come to them from their root is done to each.
    pub partitions: &'a [RelName],
    /// Of the twin: foreign keys that every partition has, and has proven.
    pub proven_keys: &'a [Ident],
}

impl Other<'_> {
    /// The table, and every partition of the pair.
    fn tables(&self) -> impl Iterator<Item = &RelName> {
        std::iter::once(&self.table.name).chain(self.partitions)
    }
}

impl Change<'_> {
    /// Whether anything changed that the other side could have to follow in.
    pub fn is_empty(&self) -> bool {
        let (before, after) = (self.before, self.after);
        self.details.using.is_empty()
            && before.columns == after.columns
            && before.checks == after.checks
            && before.indexes == after.indexes
            && before.foreign_keys == after.foreign_keys
            && before.triggers == after.triggers
            && table::Properties::of(before) == table::Properties::of(after)
    }

    /// The partition key as it is called now; `None` when it is gone.
    pub fn partition_key_now(&self) -> Option<&Ident> {
        let number = self.before.column(self.partition_key.as_str())?.number;
        self.after.column_number(number).map(|column| &column.name)
    }

    /// Columns that have another name now: the old one and the new one.
    pub fn renamed_columns(&self) -> impl Iterator<Item = (&Ident, &Ident)> {
        self.before.columns.iter().filter_map(|old| {
            let new = self.after.column_number(old.number)?;
            (new.name != old.name).then_some((&old.name, &new.name))
        })
    }

    /// Foreign keys that the statement has proven.
    pub fn validated_keys(&self) -> impl Iterator<Item = &Ident> {
        let was_unproven = |oid| {
            self.before
                .foreign_keys
                .iter()
                .any(|old| old.oid == oid && !old.valid)
        };
        let keys = self.after.foreign_keys.iter();
        keys.filter(move |new| new.valid && was_unproven(new.oid))
            .map(|key| &key.name)
    }

    /// Columns that both keys need: the primary key's and the partition key, as they were called before.
    fn key(&self) -> Vec<Ident> {
        let mut key = self.before.key_columns();
        if !key.contains(self.partition_key) {
            key.push(self.partition_key.clone());
        }
        key
    }

    /// Whether the other side gets what is new now, and not from the backfill.
    fn reaches(&self, made: Made) -> bool {
        self.side == Side::Twin || made == Made::There
    }

    /// While the backfill gives partitions one by one what the legacy has, nothing of it can be dropped: some have it.
    fn require_not_half(&self, made: Made, what: &str) -> Carried<()> {
        if self.side == Side::Legacy && made == Made::Now {
            return refuse(
                format!("the backfill is giving {what} to the partitions of the twin"),
                "Wait until CALL partition_router.backfill() has got on: see partition_router.progress.",
            );
        }
        Ok(())
    }

    /// Whether `mine`, of the side that was changed, is what the other side has as `theirs`.
    fn is_counterpart(&self, mine: &Index, theirs: &Index, partition_key: &Ident) -> bool {
        match self.side {
            Side::Legacy => super::indexes::is_counterpart(mine, theirs, partition_key),
            Side::Twin => super::indexes::is_counterpart(theirs, mine, partition_key),
        }
    }
}

/// First the columns themselves. What hangs on them is planned by [`rest`] from what the other side is then: the server
/// drops and remakes much by itself.
pub fn structure(change: &Change, other: &Other) -> Carried<Plan> {
    table::require_same_nature(change)?;
    columns::structure(change, other)
}

/// What follows the columns.
#[derive(Debug, Default)]
pub struct Rest {
    /// Evaluates expressions of the table: to be run as its owner.
    pub as_owner: Plan,
    /// Needs rights that the owner may lack, and whoever ran the statement has: an index needs CREATE on the schema, a
    /// foreign key REFERENCES. The server builds the one and proves the other as the tables' owners.
    pub as_caller: Plan,
}

/// Then everything else. `was` is the other side before [`structure`] ran, `other` after.
pub fn rest(change: &Change, was: &TableDef, other: &Other) -> Carried<Rest> {
    let mut rest = Rest::default();
    rest.as_owner.extend(columns::properties(change, other)?);
    rest.as_owner.extend(table::checks(change, other));
    rest.as_owner.extend(table::properties(change, other)?);
    rest.as_caller.extend(indexes::plan(change, was, other)?);
    rest.as_caller.extend(table::foreign_keys(change, other)?);
    rest.as_caller.extend(table::owner(change, other));
    Ok(rest)
}

#[cfg(test)]
mod tests;
