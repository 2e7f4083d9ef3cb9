//! The steps that make a partition of a table that is already partitioned and in use. The new table is made by itself
//! and attached: `CREATE TABLE … PARTITION OF` would lock the parent against everybody, ATTACH locks only the default.
//! Rows of its range move out of the default in the same transaction, while nobody else can change them.

use crate::bounds::RawBound;
use crate::catalog::TableDef;
use crate::catalog::subpartitions::{Below, Depth};
use crate::ident::{Ident, Literal, RelName, list};
use crate::plan::{Plan, access, indexes};
use std::fmt;

/// A partitioned table, as far as making a partition of it goes.
#[derive(Debug, Clone)]
pub struct Parent {
    pub name: RelName,
    pub key: Ident,
    /// Without generated columns: those compute themselves.
    pub columns: Vec<Ident>,
    /// Columns whose default draws from a sequence.
    pub sequence_defaults: Vec<Ident>,
    pub default: Option<RelName>,
    /// `pg_class.relreplident`
    pub replica_identity: String,
    /// Where the parent's partitions go; LIKE does not copy it.
    pub tablespace: Option<Ident>,
    /// Storage parameters for a new partition: `name=value`.
    pub options: Vec<String>,
    /// What new partitions are published by, by themselves.
    pub publications: Vec<Ident>,
    /// How new partitions are partitioned themselves.
    pub depth: Option<Depth>,
    /// Tables, by oid, whose indexes and statistics objects have what a new one is to be given when it is there: the server
    /// names its indexes.
    pub completed_like: Vec<u32>,
    /// A partition whose grants, row security and statistics targets the next one gets; none where it has nothing of the kind.
    pub template: Option<TableDef>,
    /// Whom default privileges give rights on each new table: a partition has no row security that the parent has.
    pub given_by_default: Vec<String>,
}

impl Parent {
    /// Takes from a new table what default privileges gave on it.
    pub fn take_defaults(&self, plan: &mut Plan, table: &RelName) {
        for role in &self.given_by_default {
            plan.push(
                format!("take from {role} what new tables give by default"),
                format!("REVOKE ALL ON {table} FROM {role}"),
            );
        }
    }
}

/// A half-open range in the words of the server: instants, not local times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub lower: RawBound,
    pub upper: RawBound,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FROM ({}) TO ({})", end(&self.lower), end(&self.upper))
    }
}

impl Range {
    /// The condition that a row lies in the range.
    pub fn condition(&self, key: &Ident) -> String {
        let side = |operator: &str, bound: &RawBound| {
            bound
                .value()
                .map(|value| format!("{key} OPERATOR(pg_catalog.{operator}) {}", Literal(value)))
        };
        let sides: Vec<_> = [side(">=", &self.lower), side("<", &self.upper)]
            .into_iter()
            .flatten()
            .collect();
        match sides.is_empty() {
            true => format!("{key} IS NOT NULL"),
            false => sides.join(" AND "),
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

/// What making a partition takes. The parts are apart because rows move with the triggers of users out of force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPartition {
    pub create: Plan,
    /// What it gets beyond what LIKE copies and ATTACH brings.
    pub dress: Plan,
    pub drain: Plan,
    /// The default partition whose rows these are.
    pub default: Option<RelName>,
    /// Tables that are completed before they are attached, each with the one that it is to be like.
    pub complete: Vec<(RelName, u32)>,
    pub attach: Plan,
    /// For a pair in step: the triggers that carry what is written straight into the partition.
    pub sync: Plan,
}

impl NewPartition {
    pub fn whole(&self) -> Plan {
        let mut plan = self.create.clone();
        plan.extend(self.dress.clone());
        for (table, _) in &self.complete {
            plan.push(
                format!(
                    "give {} what indexes and statistics of its model have",
                    table.name
                ),
                format!("-- replica identity and statistics targets of {table}"),
            );
        }
        plan.extend(self.drain.clone());
        plan.extend(self.attach.clone());
        plan.extend(self.sync.clone());
        plan
    }
}

/// Makes a partition and attaches it.
pub fn create_partition(parent: &Parent, name: &RelName, range: &Range) -> NewPartition {
    let mut parts = NewPartition::default();
    match &parent.depth {
        None => parts.create.push("create partition", create_like(parent, name)),
        Some(depth) => create_deep(&mut parts, parent, name, depth),
    }
    parts.dress.extend(dress(parent, name));
    parts
        .complete
        .extend(parent.completed_like.iter().map(|like| (name.clone(), *like)));
    if let Some(default) = &parent.default {
        move_rows(&mut parts.drain, parent, default, name, range);
        parts.default = Some(default.clone());
    }
    parts.attach.push(
        "attach partition",
        format!(
            "ALTER TABLE {} ATTACH PARTITION {name} FOR VALUES {range}",
            parent.name
        ),
    );
    parts.attach.extend(publish(parent, name));
    parts
}

/// What a new partition is given beyond what LIKE copies and ATTACH brings.
pub fn dress(parent: &Parent, name: &RelName) -> Plan {
    let mut plan = Plan::default();
    parent.take_defaults(&mut plan, name);
    if let Some(template) = &parent.template {
        access::dress(&mut plan, template, name);
    }
    set_identity(&mut plan, name, &parent.replica_identity);
    plan
}

/// Publishes a partition that is published by itself. Once its rows are there: those of the default were published before.
pub fn publish(parent: &Parent, name: &RelName) -> Plan {
    let mut plan = Plan::default();
    for publication in &parent.publications {
        plan.push(
            format!("publish it by {publication}"),
            format!("ALTER PUBLICATION {publication} ADD TABLE {name}"),
        );
    }
    plan
}

/// The replica identity that needs no index.
fn set_identity(plan: &mut Plan, table: &RelName, identity: &str) {
    let word = match identity {
        "f" => "FULL",
        "n" => "NOTHING",
        _ => return,
    };
    plan.push(
        "set replica identity",
        format!("ALTER TABLE {table} REPLICA IDENTITY {word}"),
    );
}

/// Makes a partition that is partitioned itself, with all that is below it.
fn create_deep(parts: &mut NewPartition, parent: &Parent, name: &RelName, depth: &Depth) {
    parts.create.push(
        "create partition",
        format!(
            "CREATE TABLE {name} (LIKE {} INCLUDING ALL EXCLUDING IDENTITY) PARTITION BY {}",
            parent.name, depth.key
        ),
    );
    create_below(parts, parent, name, depth);
}

fn create_below(parts: &mut NewPartition, parent: &Parent, above: &RelName, depth: &Depth) {
    for Below {
        suffix,
        bounds,
        like,
        depth,
    } in &depth.parts
    {
        let name = above.sibling(above.name.with_suffix(suffix));
        let by = depth
            .as_ref()
            .map(|depth| format!(" PARTITION BY {}", depth.key))
            .unwrap_or_default();
        let tablespace = like.tablespace.as_ref().or(parent.tablespace.as_ref());
        parts.create.push(
            "create partition below it",
            format!(
                "CREATE TABLE {name} PARTITION OF {above} {bounds}{by}{}{}",
                with_options(&like.options),
                in_tablespace(tablespace)
            ),
        );
        parent.take_defaults(&mut parts.dress, &name);
        access::dress(&mut parts.dress, like, &name);
        set_identity(&mut parts.dress, &name, &like.replica_identity);
        if like.replica_identity == "i" {
            parts.complete.push((name.clone(), like.oid));
        }
        if let Some(depth) = depth {
            create_below(parts, parent, &name, depth);
        }
    }
}

fn in_tablespace(tablespace: Option<&Ident>) -> String {
    tablespace.map(|t| format!(" TABLESPACE {t}")).unwrap_or_default()
}

fn with_options(options: &[String]) -> String {
    match options.is_empty() {
        true => String::new(),
        false => format!(" WITH ({})", list(options.iter().map(|o| indexes::option(o)))),
    }
}

/// An empty table like the parent's partitions. Without identity: a partition has none of its own.
pub fn create_like(parent: &Parent, name: &RelName) -> String {
    like(parent, name, "EXCLUDING IDENTITY")
}

/// An empty table like the parent's partitions, but for what is excluded.
pub fn like(parent: &Parent, name: &RelName, excluding: &str) -> String {
    format!(
        "CREATE TABLE {name} (LIKE {} INCLUDING ALL {excluding}){}{}",
        parent.name,
        with_options(&parent.options),
        in_tablespace(parent.tablespace.as_ref())
    )
}

/// Also when no row is known to lie there: one may come in until the lock is ours, and ATTACH would refuse.
///
/// Writers wait at the parent: one that waited at the default would have chosen it already, and fail when the range has
/// a partition of its own. EXCLUSIVE keeps writers straight into the default and `FOR UPDATE` away from the rows that
/// move (one that waited for a moved row would take it for deleted), and lets readers go on.
fn move_rows(plan: &mut Plan, parent: &Parent, default: &RelName, name: &RelName, range: &Range) {
    let columns = list(&parent.columns);
    plan.push(
        "keep writers away",
        format!("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE", parent.name),
    );
    plan.push(
        "lock default partition",
        format!("LOCK TABLE {default} IN EXCLUSIVE MODE"),
    );
    plan.push(
        "move rows out of the default partition",
        format!(
            "WITH moved AS (DELETE FROM {default} WHERE {} RETURNING {columns}) \
             INSERT INTO {name} ({columns}) SELECT {columns} FROM moved",
            range.condition(&parent.key)
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> RawBound {
        RawBound::Value(text.into())
    }

    fn parent(default: Option<&str>) -> Parent {
        Parent {
            name: RelName::new("public", "Re\"venues"),
            key: Ident::new("occurred at"),
            columns: vec![Ident::new("id"), Ident::new("occurred at")],
            sequence_defaults: Vec::new(),
            default: default.map(|name| RelName::new("public", name)),
            replica_identity: "d".into(),
            tablespace: None,
            options: Vec::new(),
            publications: Vec::new(),
            depth: None,
            completed_like: Vec::new(),
            template: None,
            given_by_default: Vec::new(),
        }
    }

    fn statements(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.statement.as_str()).collect()
    }

    #[test]
    fn a_partition_is_attached_never_created_in_place() {
        let range = Range {
            lower: value("2025-01-01"),
            upper: RawBound::MaxValue,
        };
        let plan = create_partition(&parent(None), &RelName::new("public", "x_2025_01"), &range).whole();
        assert_eq!(
            statements(&plan),
            [
                "CREATE TABLE \"public\".\"x_2025_01\" (LIKE \"public\".\"Re\"\"venues\" INCLUDING ALL EXCLUDING IDENTITY)",
                "ALTER TABLE \"public\".\"Re\"\"venues\" ATTACH PARTITION \"public\".\"x_2025_01\" \
                 FOR VALUES FROM ('2025-01-01') TO (MAXVALUE)",
            ]
        );
    }

    #[test]
    fn rows_leave_the_default_between_create_and_attach() {
        let range = Range {
            lower: value("2025-01-01"),
            upper: value("2025-02-01"),
        };
        let plan = create_partition(&parent(Some("d")), &RelName::new("public", "x"), &range).whole();
        assert_eq!(plan.steps.len(), 5);
        assert!(plan.steps[1].statement.ends_with("IN SHARE ROW EXCLUSIVE MODE"));
        assert_eq!(
            plan.steps[2].statement,
            "LOCK TABLE \"public\".\"d\" IN EXCLUSIVE MODE"
        );
        assert_eq!(
            plan.steps[3].statement,
            "WITH moved AS (DELETE FROM \"public\".\"d\" WHERE \"occurred at\" OPERATOR(pg_catalog.>=) '2025-01-01' AND \
             \"occurred at\" OPERATOR(pg_catalog.<) '2025-02-01' RETURNING \"id\", \"occurred at\") \
             INSERT INTO \"public\".\"x\" (\"id\", \"occurred at\") SELECT \"id\", \"occurred at\" FROM moved"
        );
        assert!(plan.steps[4].statement.contains("ATTACH"));
    }

    #[test]
    fn a_literal_in_a_bound_cannot_end_early() {
        let range = Range {
            lower: value("a'b"),
            upper: RawBound::MinValue,
        };
        assert_eq!(range.to_string(), "FROM ('a''b') TO (MINVALUE)");
    }
}
