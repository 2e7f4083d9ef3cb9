//! The plan that makes a twin: the partitioned copy of a table, empty, with everything that can be carried over.

use super::{Plan, access, indexes};
use crate::bounds::RawBound;
use crate::catalog::TableDef;
use crate::ident::{Ident, Literal, RelName, list};
use crate::pair::Strategy;

/// One partition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartition {
    pub name: Ident,
    pub bounds: Bounds,
}

/// Bounds as SQL, ready to stand behind `FOR VALUES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bounds {
    /// Half-open.
    Range {
        lower: RawBound,
        upper: RawBound,
    },
    Hash {
        modulus: i32,
        remainder: i32,
    },
    List {
        value: String,
    },
    Default,
}

impl Bounds {
    fn clause(&self) -> String {
        match self {
            Bounds::Range { lower, upper } => {
                format!("FOR VALUES FROM ({}) TO ({})", end(lower), end(upper))
            }
            Bounds::Hash { modulus, remainder } => {
                format!("FOR VALUES WITH (MODULUS {modulus}, REMAINDER {remainder})")
            }
            Bounds::List { value } => format!("FOR VALUES IN ({})", Literal(value)),
            Bounds::Default => "DEFAULT".into(),
        }
    }
}

fn end(bound: &RawBound) -> String {
    match bound {
        RawBound::MinValue => "MINVALUE".into(),
        RawBound::MaxValue => "MAXVALUE".into(),
        RawBound::Value(value) => Literal(value).to_string(),
    }
}

/// What a twin shall be.
#[derive(Debug, Clone)]
pub struct TwinSpec {
    pub twin: RelName,
    pub strategy: Strategy,
    pub partition_key: Ident,
    pub partitions: Vec<NewPartition>,
    /// Whom default privileges give rights on each new table.
    pub given_by_default: Vec<String>,
}

/// The steps from nothing to an empty twin. Foreign keys come when the pair is live: during the copy they would
/// refuse changes of the tables that they point at because of rows that are long gone from the legacy.
pub fn plan(legacy: &TableDef, spec: &TwinSpec) -> Plan {
    let mut plan = Plan::default();
    let twin = &spec.twin;
    plan.push(
        "create twin",
        format!(
            "CREATE TABLE {twin} (LIKE {} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY) PARTITION BY {} ({}){}",
            legacy.name,
            spec.strategy.as_str().to_uppercase(),
            spec.partition_key,
            legacy.tablespace.as_ref().map(|t| format!(" TABLESPACE {t}")).unwrap_or_default(),
        ),
    );
    for check in legacy.checks.iter().filter(|check| !check.valid) {
        // LIKE makes it one that is in force, and the rows that break it would be in the way of the copy.
        plan.push(
            format!("leave constraint {} until the pair is live", check.name),
            format!("ALTER TABLE {twin} DROP CONSTRAINT {}", check.name),
        );
    }
    columns(&mut plan, legacy, spec);
    for partition in &spec.partitions {
        plan.push(
            format!("create partition {}", partition.name),
            create_partition(legacy, twin, partition),
        );
    }
    statistics(&mut plan, legacy, spec);
    plan.extend(indexes::create(
        &indexes::of_twin(legacy, &spec.partition_key),
        twin,
    ));
    access(&mut plan, legacy, spec);
    triggers(&mut plan, legacy, twin);
    plan
}

/// The statement that makes one partition, with the legacy's storage parameters.
pub fn create_partition(legacy: &TableDef, twin: &RelName, partition: &NewPartition) -> String {
    let options = if legacy.options.is_empty() {
        String::new()
    } else {
        format!(
            " WITH ({})",
            list(legacy.options.iter().map(|o| indexes::option(o)))
        )
    };
    let tablespace = legacy
        .tablespace
        .as_ref()
        .map(|t| format!(" TABLESPACE {t}"))
        .unwrap_or_default();
    format!(
        "CREATE TABLE {} PARTITION OF {twin} {}{options}{tablespace}",
        twin.sibling(partition.name.clone()),
        partition.bounds.clause()
    )
}

fn columns(plan: &mut Plan, legacy: &TableDef, spec: &TwinSpec) {
    let twin = &spec.twin;
    let key = legacy.key_columns();
    for column in &legacy.columns {
        let in_key = column.name == spec.partition_key || key.contains(&column.name);
        if in_key && !column.not_null {
            plan.push(
                format!("require column {}", column.name),
                format!("ALTER TABLE {twin} ALTER COLUMN {} SET NOT NULL", column.name),
            );
        }
        if let Some(sequence) = &column.sequence {
            // Both sides draw from one sequence, or a row written to the twin would take a used number.
            plan.push(
                format!("share the sequence of {}", column.name),
                format!(
                    "ALTER TABLE {twin} ALTER COLUMN {} SET DEFAULT {}",
                    column.name,
                    super::next_value(sequence)
                ),
            );
        }
    }
}

/// What ANALYZE should know of the columns: a new partition does not take it from its parent.
fn statistics(plan: &mut Plan, legacy: &TableDef, spec: &TwinSpec) {
    let twin = &spec.twin;
    for column in &legacy.columns {
        if let Some(target) = column.statistics_target {
            plan.push(
                format!("set the statistics target of {}", column.name),
                format!(
                    "ALTER TABLE {twin} ALTER COLUMN {} SET STATISTICS {target}",
                    column.name
                ),
            );
        }
        if column.options.is_empty() {
            continue;
        }
        let options = list(column.options.iter().map(|o| indexes::option(o)));
        for table in tables(spec) {
            plan.push(
                format!("set the statistics options of {} of {}", column.name, table.name),
                format!("ALTER TABLE {table} ALTER COLUMN {} SET ({options})", column.name),
            );
        }
    }
}

/// The twin and its partitions.
fn tables(spec: &TwinSpec) -> impl Iterator<Item = RelName> + '_ {
    let partitions = spec.partitions.iter();
    std::iter::once(spec.twin.clone()).chain(partitions.map(|p| spec.twin.sibling(p.name.clone())))
}

fn access(plan: &mut Plan, legacy: &TableDef, spec: &TwinSpec) {
    let twin = &spec.twin;
    for policy in &legacy.policies {
        access::create_policy(plan, policy, legacy, twin);
    }
    if legacy.row_security {
        plan.push(
            "enable row security",
            format!("ALTER TABLE {twin} ENABLE ROW LEVEL SECURITY"),
        );
    }
    if legacy.force_row_security {
        plan.push(
            "force row security",
            format!("ALTER TABLE {twin} FORCE ROW LEVEL SECURITY"),
        );
    }
    for role in &spec.given_by_default {
        // Nobody gets rights that he does not have on the legacy; and partitions have no row security.
        for table in tables(spec) {
            plan.push(
                format!("take from {role} what new tables give by default"),
                format!("REVOKE ALL ON {table} FROM {role}"),
            );
        }
    }
    for grant in &legacy.grants {
        access::give(plan, grant, twin);
    }
    if let Some(comment) = &legacy.comment {
        plan.push(
            "copy the comment",
            format!("COMMENT ON TABLE {twin} IS {}", Literal(comment)),
        );
    }
    let identity = match legacy.replica_identity.as_str() {
        "f" => Some("FULL"),
        "n" => Some("NOTHING"),
        _ => None,
    };
    for (table, identity) in tables(spec).zip(std::iter::repeat(identity)) {
        let Some(identity) = identity else { continue };
        plan.push(
            format!("set the replica identity of {}", table.name),
            format!("ALTER TABLE {table} REPLICA IDENTITY {identity}"),
        );
    }
    for table in tables(spec) {
        plan.push(
            format!("give {} to the legacy's owner", table.name),
            format!("ALTER TABLE {table} OWNER TO {}", legacy.owner),
        );
    }
    if !legacy.owner_lacks.is_empty() {
        plan.push(
            "take from the owner what he has not on the legacy",
            format!(
                "REVOKE {} ON {twin} FROM {}",
                list(&legacy.owner_lacks),
                legacy.owner
            ),
        );
    }
}

fn triggers(plan: &mut Plan, legacy: &TableDef, twin: &RelName) {
    for trigger in legacy.user_triggers() {
        let Some(tail) = &trigger.tail else { continue };
        if trigger.row && trigger.transition {
            continue; // not possible on a partitioned table; preflight reports it
        }
        access::create_trigger(plan, trigger, tail, twin);
        access::comment_trigger(plan, trigger, None, twin);
        if trigger.enabled != "O" {
            access::set_trigger_state(plan, trigger, twin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_quoted_as_literals() {
        let bounds = Bounds::List {
            value: "o'brien".into(),
        };
        assert_eq!(bounds.clause(), "FOR VALUES IN ('o''brien')");
        assert_eq!(
            Bounds::Hash {
                modulus: 16,
                remainder: 3
            }
            .clause(),
            "FOR VALUES WITH (MODULUS 16, REMAINDER 3)"
        );
    }
}
