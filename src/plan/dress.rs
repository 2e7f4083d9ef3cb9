//! What indexes, constraints and statistics objects are given after they are made: comments, statistics targets, the replica identity. The
//! server names what it makes on a twin, so these are planned from what is there.

use super::{Plan, indexes};
use crate::catalog::dependents::Statistics;
use crate::catalog::{Index, TableDef};
use crate::ident::{Ident, Literal, RelName};

/// Gives what `to` has the comments and targets that its counterparts of `from` have. Of two sides; the one is the root of the
/// twin. Keeps nobody out: SHARE UPDATE EXCLUSIVE is the strongest lock of it.
pub fn follow(from: &TableDef, to: &TableDef, partition_key: &Ident) -> Plan {
    let mut plan = Plan::default();
    for (index, other) in indexes::counterparts(from, to, to.kind == "p", partition_key) {
        if index.comment != other.comment {
            plan.push(
                format!("copy the comment of index {}", index.name),
                format!(
                    "COMMENT ON INDEX {} IS {}",
                    to.name.sibling(other.name.clone()),
                    comment(&index.comment)
                ),
            );
        }
        if let Some(name) = &other.constraint
            && index.constraint_comment != other.constraint_comment
        {
            constraint_comment(&mut plan, &to.name, name, &index.constraint_comment);
        }
    }
    let checks = |table: &TableDef| -> Vec<(Ident, Option<String>)> {
        let keys = table
            .foreign_keys
            .iter()
            .map(|k| (k.name.clone(), k.comment.clone()));
        let checks = table.checks.iter().map(|c| (c.name.clone(), c.comment.clone()));
        keys.chain(checks).collect()
    };
    let theirs = checks(to);
    for (name, said) in checks(from) {
        if theirs
            .iter()
            .any(|(other, comment)| *other == name && *comment != said)
        {
            constraint_comment(&mut plan, &to.name, &name, &said);
        }
    }
    plan.extend(targets(from, to, to.kind == "p", partition_key));
    plan
}

/// Statistics targets of indexed expressions, of a side or of a partition.
pub fn targets(from: &TableDef, to: &TableDef, to_twin: bool, partition_key: &Ident) -> Plan {
    targets_of(indexes::counterparts(from, to, to_twin, partition_key), to)
}

fn targets_of(pairs: Vec<(&Index, &Index)>, to: &TableDef) -> Plan {
    let mut plan = Plan::default();
    for (index, other) in pairs {
        let name = to.name.sibling(other.name.clone());
        let mut set = |column: i16, target: i32| {
            plan.push(
                format!(
                    "set the statistics target of column {column} of index {}",
                    other.name
                ),
                format!("ALTER INDEX {name} ALTER COLUMN {column} SET STATISTICS {target}"),
            );
        };
        for (column, target) in index.targets.iter().filter(|t| !other.targets.contains(t)) {
            set(*column, *target);
        }
        for (column, _) in &other.targets {
            if index.targets.iter().all(|(c, _)| c != column) {
                set(*column, -1);
            }
        }
    }
    plan
}

/// Whether any index has a statistics target, so that partitions are to be looked at.
pub fn has_targets(table: &TableDef) -> bool {
    table.indexes.iter().any(|index| !index.targets.is_empty())
}

/// The targets of statistics objects.
pub fn statistics(from: &[Statistics], to: &[Statistics]) -> Plan {
    let mut plan = Plan::default();
    for mine in from {
        let theirs = to
            .iter()
            .find(|other| other.definition == mine.definition && other.target != mine.target);
        if let Some(theirs) = theirs {
            plan.push(
                format!("set the target of statistics object {}", theirs.name),
                format!(
                    "ALTER STATISTICS {} SET STATISTICS {}",
                    theirs.name,
                    mine.target.unwrap_or(-1)
                ),
            );
        }
    }
    plan
}

/// The statistics objects that one has and the other lacks.
pub fn missing_statistics(from: &[Statistics], to: &[Statistics], table: &RelName) -> Plan {
    let mut plan = Plan::default();
    for mine in from {
        if to.iter().any(|other| other.definition == mine.definition) {
            continue;
        }
        let Some((kinds, columns)) = mine.definition.split_once(' ') else {
            continue;
        };
        let kinds: Vec<_> = [('d', "ndistinct"), ('f', "dependencies"), ('m', "mcv")]
            .into_iter()
            .filter(|(letter, _)| kinds.contains(*letter))
            .map(|(_, kind)| kind)
            .collect();
        // Of one expression alone the kinds are not said.
        let kinds = match kinds.is_empty() {
            true => String::new(),
            false => format!(" ({})", kinds.join(", ")),
        };
        let name = table.name.with_suffix(&format!("_{}", mine.name.name.as_str()));
        plan.push(
            format!("create statistics object like {}", mine.name),
            format!(
                "CREATE STATISTICS {}{kinds} ON {columns} FROM {table}",
                table.sibling(name.cut())
            ),
        );
    }
    plan
}

/// The replica identity, where it is an index: of the twin or one of its partitions. Needs ACCESS EXCLUSIVE there.
pub fn identity(legacy: &TableDef, table: &TableDef, partition_key: &Ident) -> Plan {
    identity_of(indexes::counterparts(legacy, table, true, partition_key), table)
}

/// The replica identity and the targets of indexed expressions of a partition, by a model with the same columns: no index is widened.
pub fn alike(model: &TableDef, table: &TableDef) -> Plan {
    let equal = |index: &&Index| table.indexes.iter().find(|other| indexes::is_equal(index, other));
    let pairs = || -> Vec<(&Index, &Index)> {
        let indexes = model.indexes.iter();
        indexes
            .filter_map(|index| equal(&index).map(|other| (index, other)))
            .collect()
    };
    let mut plan = identity_of(pairs(), table);
    plan.extend(targets_of(pairs(), table));
    plan
}

fn identity_of(pairs: Vec<(&Index, &Index)>, table: &TableDef) -> Plan {
    let mut plan = Plan::default();
    for (index, other) in pairs {
        if index.replica_identity && !other.replica_identity {
            plan.push(
                format!("set the replica identity of {}", table.name.name),
                format!(
                    "ALTER TABLE {} REPLICA IDENTITY USING INDEX {}",
                    table.name, other.name
                ),
            );
        }
    }
    plan
}

fn comment(text: &Option<String>) -> String {
    text.as_deref()
        .map_or("NULL".into(), |text| Literal(text).to_string())
}

fn constraint_comment(plan: &mut Plan, table: &RelName, name: &Ident, text: &Option<String>) {
    plan.push(
        format!("copy the comment of constraint {name}"),
        format!("COMMENT ON CONSTRAINT {name} ON {table} IS {}", comment(text)),
    );
}
