//! Indexes and unique constraints. Their names belong to the schema, so both sides have their own; they are told apart by
//! what they index. On the twin a unique one is widened by the partition key.

use super::{Carried, Change, Other, Side, refuse};
use crate::catalog::{Index, TableDef};
use crate::ident::Ident;
use crate::plan::{Plan, indexes as make};

/// `was` is the other side before any of this was carried.
pub fn plan(change: &Change, was: &TableDef, other: &Other) -> Carried<Plan> {
    let mut plan = Plan::default();
    let Some(key) = change.partition_key_now() else {
        return Ok(plan);
    };
    for index in new_ones(change) {
        if index.exclusion {
            return refuse(
                "a partitioned table has no exclusion constraints over several partitions",
                "Keep it out of a table that is being partitioned, or end the pair with partition_router.abandon().",
            );
        }
        if !change.reaches(change.stage.indexes) || has_as_many(change, other, index, key) {
            continue;
        }
        let made = match change.side {
            Side::Legacy => make::for_twin(index, key),
            Side::Twin => index.clone(),
        };
        plan.extend(make::create(&[made], &other.table.name));
    }
    for index in gone(change) {
        change.require_not_half(change.stage.indexes, "indexes")?;
        drop_counterpart(change, was, other, index, &mut plan)?;
    }
    Ok(plan)
}

/// Those that are there, and valid, only now.
fn new_ones<'a>(change: &'a Change) -> impl Iterator<Item = &'a Index> {
    change.after.indexes.iter().filter(|index| {
        index.valid
            && change
                .before
                .indexes
                .iter()
                .all(|old| old.oid != index.oid || !old.valid)
    })
}

fn gone<'a>(change: &'a Change) -> impl Iterator<Item = &'a Index> {
    change
        .before
        .indexes
        .iter()
        .filter(|index| !index.primary && change.after.indexes.iter().all(|new| new.oid != index.oid))
}

/// Two equal indexes are two wishes. One that the other side has been given already, by hand or because the server remade it
/// with its column, is not made again.
fn has_as_many(change: &Change, other: &Other, index: &Index, key: &Ident) -> bool {
    let mine = change
        .after
        .indexes
        .iter()
        .filter(|i| i.valid && make::is_equal(i, index))
        .count();
    let theirs = other
        .table
        .indexes
        .iter()
        .filter(|i| change.is_counterpart(index, i, key))
        .count();
    theirs >= mine
}

fn drop_counterpart(
    change: &Change,
    was: &TableDef,
    other: &Other,
    index: &Index,
    plan: &mut Plan,
) -> Carried<()> {
    let left = change.before.indexes.iter().filter(|old| {
        make::is_equal(old, index) && change.after.indexes.iter().any(|new| new.oid == old.oid)
    });
    // An index that was remade under another oid is still wanted.
    let remade = new_ones(change).filter(|new| make::is_equal(new, index));
    let wanted = left.count() + remade.count();
    let there: Vec<&Index> = was
        .indexes
        .iter()
        .filter(|theirs| change.is_counterpart(index, theirs, change.partition_key))
        .filter(|theirs| other.table.indexes.iter().any(|now| now.oid == theirs.oid))
        .collect();
    if there.len() <= wanted {
        return Ok(());
    }
    let Some(theirs) = there.last() else { return Ok(()) };
    if change.side == Side::Twin && theirs.unique && theirs.key_columns != index.key_columns {
        return refuse(
            format!(
                "{} of the legacy is unique by fewer columns, and would be dropped with it",
                theirs.name
            ),
            "Drop the one of the legacy table: its counterpart goes with it.",
        );
    }
    let table = &other.table.name;
    plan.push(
        format!("drop the index like {}", index.name),
        match &theirs.constraint {
            Some(constraint) => format!("ALTER TABLE {table} DROP CONSTRAINT {constraint}"),
            None => format!("DROP INDEX {}", table.sibling(theirs.name.clone())),
        },
    );
    Ok(())
}
