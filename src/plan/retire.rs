//! The steps that take a partition away. Without a pair, or when the pair is done, the partition goes in one
//! transaction. While both sides are kept in step, its rows must leave both: they are deleted in batches through the
//! side that applications write, so that sync carries each batch, and the empty partition goes last.

use crate::ident::{Ident, RelName, list};
use crate::plan::Plan;
use crate::plan::maintain::{Parent, Range, create_like};
use crate::policy::RetentionAction;

/// Rows that one batch deletes: a transaction of some tens of milliseconds.
pub const BATCH_ROWS: usize = 5_000;

/// What becomes of the partition, with the schema that an archived one moves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Drop,
    Detach,
    Archive(Ident),
}

impl Fate {
    /// The fate that a policy asks for; none for an archive without a schema.
    pub fn new(action: RetentionAction, archive_schema: Option<&Ident>) -> Option<Self> {
        match (action, archive_schema) {
            (RetentionAction::Drop, _) => Some(Self::Drop),
            (RetentionAction::Detach, _) => Some(Self::Detach),
            (RetentionAction::Archive, Some(schema)) => Some(Self::Archive(schema.clone())),
            (RetentionAction::Archive, None) => None,
        }
    }

    /// Where the partition's rows live on.
    pub fn kept_as(&self, partition: &RelName) -> Option<RelName> {
        match self {
            Self::Drop => None,
            Self::Detach => Some(partition.clone()),
            Self::Archive(schema) => Some(RelName {
                schema: schema.clone(),
                name: partition.name.clone(),
            }),
        }
    }
}

/// Whether other tables have foreign keys to the partitioned table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referenced {
    Yes,
    No,
}

/// What a partition is: a table of this server, or the name of one on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Local,
    Foreign,
}

impl Kind {
    /// Drops the partition; of a foreign one the table over there stays.
    pub fn drop(self, partition: &RelName) -> String {
        match self {
            Self::Local => format!("DROP TABLE {partition}"),
            Self::Foreign => format!("DROP FOREIGN TABLE {partition}"),
        }
    }
}

/// Takes a partition away at once. With foreign keys in it is detached before it is dropped: DETACH checks them and names
/// the one in the way, DROP would only name the constraint.
///
/// What is kept stands on its own: `sequence_defaults` are dropped, or the parent's sequence could not be dropped any more.
pub fn at_once(
    parent: &RelName,
    partition: &RelName,
    kind: Kind,
    fate: &Fate,
    referenced: Referenced,
    sequence_defaults: &[Ident],
) -> Plan {
    let mut plan = Plan::default();
    if *fate != Fate::Drop || referenced == Referenced::Yes {
        plan.push(
            "detach partition",
            format!("ALTER TABLE {parent} DETACH PARTITION {partition}"),
        );
    }
    match fate {
        Fate::Drop => plan.push("drop partition", kind.drop(partition)),
        Fate::Detach => drop_defaults(&mut plan, partition, sequence_defaults),
        Fate::Archive(schema) => {
            drop_defaults(&mut plan, partition, sequence_defaults);
            plan.push(
                "move to archive schema",
                format!("ALTER TABLE {partition} SET SCHEMA {schema}"),
            );
        }
    }
    plan
}

/// Ends a DETACH CONCURRENTLY that did not come to its end.
pub fn finalize(parent: &RelName, partition: &RelName) -> Plan {
    let mut plan = Plan::default();
    plan.push(
        "finish the detach that was begun",
        format!("ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE"),
    );
    plan
}

/// Around the steps of a partition that is archived to `place`, a file or what a function makes.
pub fn archived(partition: &RelName, kind: Kind, place: &str, detach: Plan) -> Plan {
    let mut plan = Plan::default();
    plan.push(
        "write the archive, read it back and compare it",
        format!("-- {partition} to {place}"),
    );
    plan.extend(detach);
    plan.push(
        "drop it when it still holds what was archived",
        kind.drop(partition),
    );
    plan
}

fn drop_defaults(plan: &mut Plan, table: &RelName, columns: &[Ident]) {
    for column in columns {
        plan.push(
            "let go of the sequence",
            format!("ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT"),
        );
    }
}

/// A partition whose rows are also on the other side of its pair.
#[derive(Debug, Clone)]
pub struct Paired<'a> {
    pub parent: &'a Parent,
    pub partition: &'a RelName,
    pub range: &'a Range,
    /// Where rows are deleted: the legacy, or after switchover the partition itself.
    pub source: &'a RelName,
    /// The table that the rows are kept in until the partition is gone.
    pub holding: &'a RelName,
    pub fate: &'a Fate,
}

impl Paired<'_> {
    /// Makes the table that keeps the rows; nothing when they are dropped.
    pub fn prepare(&self) -> Plan {
        let mut plan = Plan::default();
        if *self.fate != Fate::Drop {
            plan.push("create archive table", create_like(self.parent, self.holding));
            self.parent.take_defaults(&mut plan, self.holding);
            drop_defaults(&mut plan, self.holding, &self.parent.sequence_defaults);
        }
        plan
    }

    /// One batch: rows leave both sides, and enter the archive, in one statement. Repeated until no row is left.
    pub fn batch(&self) -> Plan {
        let columns = list(&self.parent.columns);
        let delete = format!(
            "DELETE FROM ONLY {source} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(\
             SELECT ctid FROM ONLY {source} WHERE {condition} LIMIT {BATCH_ROWS}))",
            source = self.source,
            condition = self.range.condition(&self.parent.key),
        );
        let mut plan = Plan::default();
        if *self.fate == Fate::Drop {
            plan.push("delete rows on both sides, batch by batch", delete);
        } else {
            plan.push(
                "archive and delete rows on both sides, batch by batch",
                format!(
                    "WITH gone AS ({delete} RETURNING {columns}) \
                     INSERT INTO {} ({columns}) SELECT {columns} FROM gone",
                    self.holding
                ),
            );
        }
        plan
    }

    /// Locks the partition that is empty by now, so that the caller can make sure of it.
    pub fn lock(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            "lock empty partition",
            format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", self.partition),
        );
        plan
    }

    /// Drops the empty partition and gives its name to the table that keeps the rows.
    pub fn finish(&self, referenced: Referenced) -> Plan {
        let mut plan = at_once(
            &self.parent.name,
            self.partition,
            Kind::Local,
            &Fate::Drop,
            referenced,
            &[],
        );
        if *self.fate != Fate::Drop {
            let name = &self.partition.name;
            plan.push(
                "name archive table",
                format!("ALTER TABLE {} RENAME TO {name}", self.holding),
            );
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::RawBound;

    fn statements(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.statement.as_str()).collect()
    }

    fn name(text: &str) -> RelName {
        RelName::new("s", text)
    }

    #[test]
    fn a_partition_alone_goes_at_once() {
        let drop = at_once(
            &name("t"),
            &name("p"),
            Kind::Local,
            &Fate::Drop,
            Referenced::No,
            &[],
        );
        assert_eq!(statements(&drop), ["DROP TABLE \"s\".\"p\""]);
        let far = at_once(
            &name("t"),
            &name("p"),
            Kind::Foreign,
            &Fate::Drop,
            Referenced::No,
            &[],
        );
        assert_eq!(statements(&far), ["DROP FOREIGN TABLE \"s\".\"p\""]);
        let detach = at_once(
            &name("t"),
            &name("p"),
            Kind::Local,
            &Fate::Detach,
            Referenced::No,
            &[],
        );
        assert_eq!(
            statements(&detach),
            ["ALTER TABLE \"s\".\"t\" DETACH PARTITION \"s\".\"p\""]
        );
        let archive = at_once(
            &name("t"),
            &name("p"),
            Kind::Local,
            &Fate::Archive(Ident::new("Arch ive")),
            Referenced::No,
            &[],
        );
        assert_eq!(
            statements(&archive)[1],
            "ALTER TABLE \"s\".\"p\" SET SCHEMA \"Arch ive\""
        );
    }

    #[test]
    fn foreign_keys_in_are_checked_by_a_detach() {
        let drop = at_once(
            &name("t"),
            &name("p"),
            Kind::Local,
            &Fate::Drop,
            Referenced::Yes,
            &[],
        );
        assert_eq!(drop.steps.len(), 2);
        assert!(drop.steps[0].statement.contains("DETACH"));
    }

    #[test]
    fn rows_of_a_pair_leave_both_sides_before_the_partition_goes() {
        let parent = Parent {
            name: name("t"),
            key: Ident::new("k"),
            sequence_defaults: vec![Ident::new("id")],
            columns: vec![Ident::new("id"), Ident::new("k")],
            default: None,
            replica_identity: "d".into(),
            tablespace: None,
            options: Vec::new(),
            publications: Vec::new(),
            depth: None,
            completed_like: Vec::new(),
            template: None,
            given_by_default: Vec::new(),
        };
        let range = Range {
            lower: RawBound::Value("1".into()),
            upper: RawBound::Value("2".into()),
        };
        let (partition, source, holding) = (name("p"), name("legacy"), name("held"));
        let mut paired = Paired {
            parent: &parent,
            partition: &partition,
            range: &range,
            source: &source,
            holding: &holding,
            fate: &Fate::Detach,
        };
        assert_eq!(paired.prepare().steps.len(), 2);
        let batch = paired.batch().steps[0].statement.clone();
        assert!(
            batch.starts_with("WITH gone AS (DELETE FROM ONLY \"s\".\"legacy\""),
            "{batch}"
        );
        assert!(
            batch.contains("INSERT INTO \"s\".\"held\" (\"id\", \"k\")"),
            "{batch}"
        );
        let finish = paired.finish(Referenced::No);
        assert_eq!(
            statements(&finish),
            [
                "DROP TABLE \"s\".\"p\"",
                "ALTER TABLE \"s\".\"held\" RENAME TO \"p\""
            ]
        );
        paired.fate = &Fate::Drop;
        assert!(paired.prepare().steps.is_empty());
        assert!(paired.batch().steps[0].statement.starts_with("DELETE FROM ONLY"));
        assert_eq!(paired.finish(Referenced::No).steps.len(), 1);
    }
}
