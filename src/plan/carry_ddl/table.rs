//! CHECK constraints, foreign keys out, and what is said of a table as a whole.

use super::{Carried, Change, Made, Other, Side, refuse};
use crate::catalog::{Check, ForeignKey, TableDef, Trigger};
use crate::ident::{Ident, RelName};
use crate::plan::Plan;

/// Of a table as a whole, what a statement may change.
#[derive(Debug, PartialEq)]
pub struct Properties<'a> {
    pub kind: &'a str,
    pub persistence: &'a str,
    pub is_partition: bool,
    pub is_inherited: bool,
    pub is_typed: bool,
    pub access_method: Option<&'a str>,
    pub owner: &'a Ident,
    pub row_security: (bool, bool),
    pub replica_identity: &'a str,
}

impl<'a> Properties<'a> {
    pub fn of(table: &'a TableDef) -> Self {
        Properties {
            kind: &table.kind,
            persistence: &table.persistence,
            is_partition: table.is_partition,
            is_inherited: table.is_inherited,
            is_typed: table.is_typed,
            access_method: table.access_method.as_deref(),
            owner: &table.owner,
            row_security: (table.row_security, table.force_row_security),
            replica_identity: &table.replica_identity,
        }
    }
}

/// What would make the table another kind of thing is refused.
pub fn require_same_nature(change: &Change) -> Carried<()> {
    let (before, after) = (Properties::of(change.before), Properties::of(change.after));
    let what = if before.persistence != after.persistence {
        "the table would be unlogged or logged, and its other side not"
    } else if before.is_partition != after.is_partition {
        "the table would be a partition of another one"
    } else if before.is_inherited != after.is_inherited {
        "the table would inherit, or be inherited from"
    } else if before.is_typed != after.is_typed {
        "the table would be, or be no more, a table of a composite type"
    } else if before.access_method != after.access_method {
        "the table would have another access method"
    } else {
        return Ok(());
    };
    refuse(
        what,
        "End the pair first with partition_router.abandon() or, after a switchover, partition_router.cleanup().",
    )
}

/// By name: a table has its own names for its constraints, so both sides have the same.
pub fn checks(change: &Change, other: &Other) -> Plan {
    let table = &other.table.name;
    let mut plan = Plan::default();
    let find = |checks: &[Check], name: &Ident| checks.iter().find(|c| &c.name == name).cloned();
    for old in &change.before.checks {
        let renamed = change
            .after
            .checks
            .iter()
            .find(|new| new.oid == old.oid && new.name != old.name);
        let is_gone = find(&change.after.checks, &old.name).is_none();
        if find(&other.table.checks, &old.name).is_none() {
            continue;
        }
        match renamed {
            Some(new) if find(&other.table.checks, &new.name).is_none() => plan.push(
                format!("rename constraint {}", old.name),
                format!(
                    "ALTER TABLE {table} RENAME CONSTRAINT {} TO {}",
                    old.name, new.name
                ),
            ),
            Some(_) => {}
            None if is_gone => drop_constraint(&mut plan, other, &old.name),
            None => {}
        }
    }
    for new in &change.after.checks {
        match change.before.checks.iter().find(|old| old.oid == new.oid) {
            Some(old) if !old.valid && new.valid => {
                let theirs = find(&other.table.checks, &new.name);
                // While rows are copied the twin may hold some that are no more: the backfill proves it at its end.
                if theirs.is_some_and(|theirs| !theirs.valid) && !is_unproven(change) {
                    plan.push(
                        format!("validate constraint {}", new.name),
                        format!("ALTER TABLE {table} VALIDATE CONSTRAINT {}", new.name),
                    );
                }
            }
            Some(_) => {}
            None => ensure_check(&mut plan, change, other, new),
        }
    }
    plan
}

/// What is next to be done for the CHECK constraints of a twin that is live now. Added is what was NOT VALID while rows
/// were copied, proven what was added meanwhile.
#[derive(Debug)]
pub enum NextCheck {
    /// Needs ACCESS EXCLUSIVE on the twin and its partitions, and reads nothing.
    Add(Plan),
    /// Reads the twin, and keeps nobody out.
    Prove(Plan),
}

pub fn next_check(legacy: &TableDef, twin: &TableDef) -> Option<NextCheck> {
    let of_twin = |check: &Check| twin.checks.iter().find(|c| c.name == check.name);
    let mut plan = Plan::default();
    if let Some(check) = legacy.checks.iter().find(|check| of_twin(check).is_none()) {
        add_check(&mut plan, &twin.name, check, " NOT VALID");
        return Some(NextCheck::Add(plan));
    }
    let is_unproven = |check: &&Check| check.valid && of_twin(check).is_some_and(|theirs| !theirs.valid);
    let check = legacy.checks.iter().find(is_unproven)?;
    validate(&mut plan, &twin.name, &check.name);
    Some(NextCheck::Prove(plan))
}

fn add_check(plan: &mut Plan, table: &RelName, check: &Check, suffix: &str) {
    plan.push(
        format!("add constraint {}", check.name),
        format!(
            "ALTER TABLE {table} ADD CONSTRAINT {} CHECK ({}){suffix}",
            check.name, check.expression
        ),
    );
}

fn validate(plan: &mut Plan, table: &RelName, name: &Ident) {
    plan.push(
        format!("validate constraint {name}"),
        format!("ALTER TABLE {table} VALIDATE CONSTRAINT {name}"),
    );
}

fn drop_constraint(plan: &mut Plan, other: &Other, name: &Ident) {
    plan.push(
        format!("drop constraint {name}"),
        format!("ALTER TABLE {} DROP CONSTRAINT {name}", other.table.name),
    );
}

fn is_unproven(change: &Change) -> bool {
    change.stage.copying && change.side == Side::Legacy
}

fn ensure_check(plan: &mut Plan, change: &Change, other: &Other, new: &Check) {
    let theirs = other.table.checks.iter().find(|c| c.name == new.name);
    if theirs.is_some_and(|theirs| theirs.expression == new.expression) {
        return;
    }
    // The rows that break it would be in the way of the copy: the twin gets it when the pair is live.
    if !new.valid && change.side == Side::Legacy && change.stage.foreign_keys == Made::Later {
        return;
    }
    if theirs.is_some() && change.before.checks.iter().any(|old| old.name == new.name) {
        drop_constraint(plan, other, &new.name);
    }
    let suffix = if !new.valid || is_unproven(change) {
        " NOT VALID"
    } else {
        ""
    };
    add_check(plan, &other.table.name, new, suffix);
}

/// Whether both say the same, proven or not.
fn same_key(a: &ForeignKey, b: &ForeignKey) -> bool {
    let definition = |key: &ForeignKey| key.definition.trim_end_matches(" NOT VALID").to_string();
    definition(a) == definition(b)
}

/// The twin gets a key when it is proven: a partitioned table takes no other. Until then the legacy's guards both.
pub fn foreign_keys(change: &Change, other: &Other) -> Carried<Plan> {
    let table = &other.table.name;
    let mut plan = Plan::default();
    let find = |name: &Ident| other.table.foreign_keys.iter().find(|key| &key.name == name);
    for old in &change.before.foreign_keys {
        let new = change.after.foreign_keys.iter().find(|new| new.oid == old.oid);
        if new != Some(old) {
            change.require_not_half(change.stage.foreign_keys, "foreign keys")?;
        }
        let Some(theirs) = find(&old.name) else { continue };
        match new {
            None => drop_constraint(&mut plan, other, &theirs.name),
            Some(new) if new.name != old.name => plan.push(
                format!("rename constraint {}", old.name),
                format!(
                    "ALTER TABLE {table} RENAME CONSTRAINT {} TO {}",
                    old.name, new.name
                ),
            ),
            Some(new) if !same_key(new, old) => {
                return refuse(
                    format!("foreign key {} would behave otherwise", new.name),
                    "Drop it and add it again as it shall be.",
                );
            }
            Some(_) => {}
        }
    }
    for new in &change.after.foreign_keys {
        let old = change.before.foreign_keys.iter().find(|old| old.oid == new.oid);
        let is_new = old.is_none_or(|old| !old.valid);
        let points_at_itself = [change.after.oid, other.table.oid].contains(&new.references);
        if !is_new || !new.valid || points_at_itself || !change.reaches(change.stage.foreign_keys) {
            continue;
        }
        let gone = change
            .before
            .foreign_keys
            .iter()
            .any(|old| old.name == new.name && old.oid != new.oid);
        if find(&new.name).is_some_and(|theirs| !gone && same_key(theirs, new)) {
            continue;
        }
        // Proving it without keeping writers out was what the user wanted.
        if old.is_some() && change.side == Side::Legacy && !other.proven_keys.contains(&new.name) {
            return refuse(
                format!(
                    "foreign key {} would be proven on the twin while writers wait",
                    new.name
                ),
                format!(
                    "First, on each partition of {table}, ADD CONSTRAINT {} {} NOT VALID, and VALIDATE it; then this \
                     statement again.",
                    new.name, new.definition
                ),
            );
        }
        plan.push(
            format!("add foreign key {}", new.name),
            format!(
                "ALTER TABLE {table} ADD CONSTRAINT {} {}",
                new.name, new.definition
            ),
        );
    }
    Ok(plan)
}

/// Row security, replica identity, and which triggers of the users are in force.
pub fn properties(change: &Change, other: &Other) -> Carried<Plan> {
    let (before, after) = (Properties::of(change.before), Properties::of(change.after));
    let theirs = Properties::of(other.table);
    let table = &other.table.name;
    let mut plan = Plan::default();
    if before.row_security.0 != after.row_security.0 && theirs.row_security.0 != after.row_security.0 {
        let verb = if after.row_security.0 { "ENABLE" } else { "DISABLE" };
        plan.push(
            "switch row security",
            format!("ALTER TABLE {table} {verb} ROW LEVEL SECURITY"),
        );
    }
    if before.row_security.1 != after.row_security.1 && theirs.row_security.1 != after.row_security.1 {
        let verb = if after.row_security.1 { "FORCE" } else { "NO FORCE" };
        plan.push(
            "switch forced row security",
            format!("ALTER TABLE {table} {verb} ROW LEVEL SECURITY"),
        );
    }
    if before.replica_identity != after.replica_identity {
        let identity = match after.replica_identity {
            "d" => "DEFAULT",
            "f" => "FULL",
            "n" => "NOTHING",
            _ => {
                return refuse(
                    "the replica identity would be an index that the other side does not have under that name",
                    "Use REPLICA IDENTITY DEFAULT or FULL.",
                );
            }
        };
        for table in other.tables() {
            plan.push(
                format!("set the replica identity of {}", table.name),
                format!("ALTER TABLE {table} REPLICA IDENTITY {identity}"),
            );
        }
    }
    triggers(change, other, &mut plan)?;
    Ok(plan)
}

/// The new owner. Comes last: after it the other statements could be refused.
pub fn owner(change: &Change, other: &Other) -> Plan {
    let owner = &change.after.owner;
    let mut plan = Plan::default();
    if &change.before.owner != owner {
        for table in other.tables() {
            plan.push(
                format!("give {} to its new owner", table.name),
                format!("ALTER TABLE {table} OWNER TO {owner}"),
            );
        }
    }
    plan
}

/// What may not be done to a partition alone: it would refuse rows that the legacy has. `keys` are the legacy's.
pub fn partition(before: &TableDef, after: &TableDef, keys: &[ForeignKey]) -> Carried<()> {
    let is_new_check = |check: &&Check| before.checks.iter().all(|old| old.oid != check.oid);
    let is_new_key = |key: &&ForeignKey| {
        before.foreign_keys.iter().all(|old| old.oid != key.oid) && keys.iter().all(|k| k.name != key.name)
    };
    let is_stricter = |new: &&crate::catalog::Column| {
        before
            .column_number(new.number)
            .is_some_and(|old| !old.not_null && new.not_null)
    };
    let what = if let Some(check) = after.checks.iter().find(is_new_check) {
        format!(
            "constraint {} would refuse rows that the legacy takes",
            check.name
        )
    } else if let Some(key) = after.foreign_keys.iter().find(is_new_key) {
        format!("foreign key {} would refuse rows that the legacy takes", key.name)
    } else if let Some(column) = after.columns.iter().find(is_stricter) {
        format!("column {} would refuse NULL, which the legacy takes", column.name)
    } else if let Some(trigger) = disabled(before, after) {
        format!("trigger {trigger} keeps both sides equal")
    } else if before.persistence != after.persistence || before.access_method != after.access_method {
        "the partition would be of another kind than the others".into()
    } else {
        return Ok(());
    };
    refuse(
        what,
        "Change the twin as a whole, or the legacy: what can be carried is.",
    )
}

/// A sync trigger that was in force and is no more.
fn disabled<'a>(before: &'a TableDef, after: &TableDef) -> Option<&'a Ident> {
    // Statement triggers fire always, and the row trigger where changes are replicated.
    let is_in_force = |old: &Trigger| {
        let stays = |new: &&Trigger| new.ours && (new.enabled == old.enabled || new.enabled == "A");
        after
            .triggers
            .iter()
            .filter(stays)
            .any(|new| new.name == old.name)
    };
    let old = before
        .triggers
        .iter()
        .find(|old| old.ours && ["A", "R"].contains(&old.enabled.as_str()) && !is_in_force(old));
    old.map(|old| &old.name)
}

fn triggers(change: &Change, other: &Other, plan: &mut Plan) -> Carried<()> {
    if let Some(trigger) = disabled(change.before, change.after) {
        return refuse(
            format!("trigger {trigger} keeps both sides equal"),
            "Name the triggers that you want to disable one by one, without those of partition_router; \
             partition_router.abandon() removes these.",
        );
    }
    for old in &change.before.triggers {
        let new = change.after.triggers.iter().find(|new| new.name == old.name);
        let Some(new) = new.filter(|new| !new.ours && new.enabled != old.enabled) else {
            continue;
        };
        let theirs = other
            .table
            .triggers
            .iter()
            .find(|theirs| theirs.name == new.name && !theirs.ours);
        if theirs.is_none_or(|theirs| theirs.enabled == new.enabled) {
            continue;
        }
        let verb = match new.enabled.as_str() {
            "D" => "DISABLE",
            "R" => "ENABLE REPLICA",
            "A" => "ENABLE ALWAYS",
            _ => "ENABLE",
        };
        plan.push(
            format!("set the state of trigger {}", new.name),
            format!("ALTER TABLE {} {verb} TRIGGER {}", other.table.name, new.name),
        );
    }
    Ok(())
}
