//! Columns: added, dropped, renamed, retyped, and what is set for each.

use super::{Carried, Change, Other, Side, refuse};
use crate::catalog::Column;
use crate::ident::{Ident, list};
use crate::plan::{Plan, indexes::option, next_value};

/// Renames, and in one statement more, so that the table is rewritten once, what else makes the columns.
pub fn structure(change: &Change, other: &Other) -> Carried<Plan> {
    require_key(change)?;
    let table = &other.table.name;
    let mut plan = Plan::default();
    let mut parts = vec![];
    for old in &change.before.columns {
        let Some(new) = change.after.column_number(old.number) else {
            if has(other, &old.name) {
                let cascade = if change.details.cascade { " CASCADE" } else { "" };
                parts.push(format!("DROP COLUMN {}{cascade}", old.name));
            }
            continue;
        };
        if new.name != old.name && has(other, &old.name) && !has(other, &new.name) {
            plan.push(
                format!("rename column {}", old.name),
                format!("ALTER TABLE {table} RENAME COLUMN {} TO {}", old.name, new.name),
            );
        }
        retype(change, other, old, new, &mut parts)?;
    }
    for new in added(change) {
        let dropped_here = |name: &Ident| {
            change
                .before
                .column(name.as_str())
                .is_some_and(|old| change.after.column_number(old.number).is_none())
        };
        if !has(other, &new.name) || dropped_here(&new.name) {
            parts.push(add(change, new)?);
        }
    }
    if !parts.is_empty() {
        plan.push(
            "change columns",
            format!("ALTER TABLE {table} {}", parts.join(", ")),
        );
    }
    Ok(plan)
}

fn has(other: &Other, name: &Ident) -> bool {
    other.table.column(name.as_str()).is_some()
}

/// Columns that the statement made.
pub fn added<'a>(change: &'a Change) -> impl Iterator<Item = &'a Column> {
    change
        .after
        .columns
        .iter()
        .filter(|c| change.before.column_number(c.number).is_none())
}

fn require_key(change: &Change) -> Carried<()> {
    for name in change.key() {
        let Some(old) = change.before.column(name.as_str()) else {
            continue;
        };
        if change.after.column_number(old.number).is_none() {
            return refuse(
                format!("column {name} is part of the primary key or the partition key"),
                "Rows are found by these columns; end the pair with partition_router.abandon() to drop one.",
            );
        }
    }
    let numbers = |table: &crate::catalog::TableDef| -> Vec<i16> {
        let key = table.key_columns();
        key.iter()
            .filter_map(|name| table.column(name.as_str()))
            .map(|c| c.number)
            .collect()
    };
    if numbers(change.before) != numbers(change.after) {
        return refuse(
            "the primary key would be another one",
            "Rows are found by the primary key; end the pair with partition_router.abandon() to change it.",
        );
    }
    Ok(())
}

fn is_retyped(change: &Change, old: &Column, new: &Column) -> bool {
    old.type_name != new.type_name
        || old.collation != new.collation
        || change.details.using.contains_key(&old.name)
}

fn retype(
    change: &Change,
    other: &Other,
    old: &Column,
    new: &Column,
    parts: &mut Vec<String>,
) -> Carried<()> {
    if !is_retyped(change, old, new) {
        return Ok(());
    }
    if &old.name == change.partition_key {
        return refuse(
            format!(
                "column {} is the partition key: its type decides which partition a row belongs to",
                old.name
            ),
            "End the pair with partition_router.abandon(), change the type, and migrate again.",
        );
    }
    if change.stage.copying && change.key().contains(&old.name) {
        return refuse(
            format!("the change log of the copy holds values of column {}", old.name),
            "Change its type when the pair is live, or start again after partition_router.abandon().",
        );
    }
    let using = change.details.using.get(&old.name);
    let Some(theirs) = other.table.column(old.name.as_str()) else {
        return Ok(());
    };
    if using.is_none() && theirs.type_name == new.type_name && theirs.collation == new.collation {
        return Ok(());
    }
    // A default that has no cast to the new type would be in the way; it is set again afterwards.
    if theirs.default.is_some() && !theirs.generated {
        parts.push(format!("ALTER COLUMN {} DROP DEFAULT", new.name));
    }
    let collation = new
        .collation
        .as_ref()
        .map(|c| format!(" COLLATE {c}"))
        .unwrap_or_default();
    let using = using
        .map(|expression| format!(" USING {expression}"))
        .unwrap_or_default();
    parts.push(format!(
        "ALTER COLUMN {} TYPE {}{collation}{using}",
        new.name, new.type_name
    ));
    Ok(())
}

fn add(change: &Change, new: &Column) -> Carried<String> {
    if change.details.volatile.contains(&new.name) {
        return refuse(
            format!(
                "the default of column {} is another value for each row, and on each side",
                new.name
            ),
            "Add the column without a default, set the default, then update the rows: three statements, all of which \
             are carried.",
        );
    }
    let mut text = format!("ADD COLUMN {} {}", new.name, new.type_name);
    if let Some(collation) = &new.collation {
        text += &format!(" COLLATE {collation}");
    }
    if new.generated {
        text += &format!(
            " GENERATED ALWAYS AS ({}) {}",
            new.default.as_deref().unwrap_or("NULL"),
            if new.is_virtual { "VIRTUAL" } else { "STORED" }
        );
    } else if let Some(default) = desired_default(change, new)? {
        text += &format!(" DEFAULT {default}");
    }
    if new.not_null {
        text += " NOT NULL";
    }
    Ok(text)
}

/// The default that the other side's column gets. Both sides of an identity column draw from one sequence.
fn desired_default(change: &Change, column: &Column) -> Carried<Option<String>> {
    if !column.identity {
        return Ok(column.default.clone());
    }
    match (change.side, &column.sequence) {
        (Side::Legacy, Some(sequence)) => Ok(Some(next_value(sequence))),
        _ => refuse(
            format!(
                "column {} of the twin cannot be an identity column: its partitions would not be",
                column.name
            ),
            "Make it one on the legacy table: the twin then draws from the same sequence.",
        ),
    }
}

/// Defaults, NOT NULL, and what storage and ANALYZE know of a column.
pub fn properties(change: &Change, other: &Other) -> Carried<Plan> {
    let mut plan = Plan::default();
    let mut parts = vec![];
    for new in &change.after.columns {
        let old = change.before.column_number(new.number);
        if old == Some(new) && !change.details.using.contains_key(&new.name) {
            continue;
        }
        let Some(theirs) = other.table.column(new.name.as_str()) else {
            return refuse(
                format!("the other side has no column {}", new.name),
                "Make the columns of both tables the same first.",
            );
        };
        default(change, old, new, theirs, &mut parts)?;
        not_null(change, old, new, theirs, &mut parts)?;
        storage(old, new, theirs, &mut parts);
        per_table(old, new, theirs, other, &mut plan);
    }
    if !parts.is_empty() {
        let table = &other.table.name;
        let mut all = Plan::default();
        all.push(
            "set up columns",
            format!("ALTER TABLE {table} {}", parts.join(", ")),
        );
        all.extend(plan);
        return Ok(all);
    }
    Ok(plan)
}

fn default(
    change: &Change,
    old: Option<&Column>,
    new: &Column,
    theirs: &Column,
    parts: &mut Vec<String>,
) -> Carried<()> {
    let name = &new.name;
    if old.is_some_and(|old| old.generated) && !new.generated && theirs.generated {
        parts.push(format!("ALTER COLUMN {name} DROP EXPRESSION"));
        return Ok(());
    }
    let touched = old.is_none_or(|old| {
        old.default != new.default || old.identity != new.identity || is_retyped(change, old, new)
    });
    if new.generated || !touched {
        return Ok(());
    }
    if theirs.identity {
        if old.is_some_and(|old| is_retyped(change, old, new)) {
            return Ok(()); // it keeps its sequence
        }
        return refuse(
            format!("column {name} of the legacy is an identity column: it has no other default"),
            "Change the identity on the legacy table.",
        );
    }
    let desired = desired_default(change, new)?;
    if desired == theirs.default {
        return Ok(());
    }
    parts.push(match desired {
        Some(default) => format!("ALTER COLUMN {name} SET DEFAULT {default}"),
        None => format!("ALTER COLUMN {name} DROP DEFAULT"),
    });
    Ok(())
}

fn not_null(
    change: &Change,
    old: Option<&Column>,
    new: &Column,
    theirs: &Column,
    parts: &mut Vec<String>,
) -> Carried<()> {
    if old.is_some_and(|old| old.not_null == new.not_null) || theirs.not_null == new.not_null {
        return Ok(());
    }
    let name = &new.name;
    if new.not_null {
        parts.push(format!("ALTER COLUMN {name} SET NOT NULL"));
    } else if old.is_some_and(|old| change.key().contains(&old.name)) {
        return refuse(
            format!("column {name} is part of the twin's primary key, which takes no NULL"),
            "Leave it NOT NULL, or end the pair with partition_router.abandon().",
        );
    } else if old.is_some() {
        parts.push(format!("ALTER COLUMN {name} DROP NOT NULL"));
    }
    Ok(())
}

fn storage(old: Option<&Column>, new: &Column, theirs: &Column, parts: &mut Vec<String>) {
    let name = &new.name;
    if old.is_none_or(|old| old.storage != new.storage) && new.storage != theirs.storage {
        let storage = match new.storage.as_str() {
            "p" => "PLAIN",
            "e" => "EXTERNAL",
            "m" => "MAIN",
            _ => "EXTENDED",
        };
        parts.push(format!("ALTER COLUMN {name} SET STORAGE {storage}"));
    }
    if old.is_none_or(|old| old.statistics_target != new.statistics_target)
        && new.statistics_target != theirs.statistics_target
    {
        let target = new.statistics_target.unwrap_or(-1);
        parts.push(format!("ALTER COLUMN {name} SET STATISTICS {target}"));
    }
}

/// What the server does not hand down from the root to its partitions.
fn per_table(old: Option<&Column>, new: &Column, theirs: &Column, other: &Other, plan: &mut Plan) {
    let name = &new.name;
    let mut parts = vec![];
    if old.is_none_or(|old| old.compression != new.compression) && new.compression != theirs.compression {
        let method = match new.compression.as_str() {
            "p" => "pglz",
            "l" => "lz4",
            _ => "default",
        };
        parts.push(format!("ALTER COLUMN {name} SET COMPRESSION {method}"));
    }
    if old.is_some_and(|old| old.options != new.options) && new.options != theirs.options {
        let gone: Vec<Ident> = theirs
            .options
            .iter()
            .filter_map(|option| option.split_once('='))
            .filter(|(key, _)| {
                new.options
                    .iter()
                    .all(|option| !option.starts_with(&format!("{key}=")))
            })
            .map(|(key, _)| Ident::new(key))
            .collect();
        if !gone.is_empty() {
            parts.push(format!("ALTER COLUMN {name} RESET ({})", list(gone)));
        }
        if !new.options.is_empty() {
            parts.push(format!(
                "ALTER COLUMN {name} SET ({})",
                list(new.options.iter().map(|o| option(o)))
            ));
        }
    }
    if parts.is_empty() {
        return;
    }
    for table in other.tables() {
        plan.push(
            format!("set up column {name} of {}", table.name),
            format!("ALTER TABLE {table} {}", parts.join(", ")),
        );
    }
}
