//! The steps that empty a large default partition without a long lock. Its rows are copied, batch by batch, under a staging table
//! that has the partitions to come and a new default; meanwhile a trigger logs the keys of what changes. When all but the last
//! changes have followed, one short transaction swaps: the partitions and the new default leave the staging table for the parent,
//! and the old default goes. Until then nobody sees anything but the old default, and afterwards everything is where it belongs.

use super::Plan;
use super::maintain::{Parent, Range, like};
use crate::ident::{Ident, Literal, RelName, list};

/// Keys that one transaction carries over while the log is drained.
pub const LOG_ROWS: usize = 10_000;

/// The constraint that spares ATTACH a scan.
pub const IN_BOUNDS: &str = "partition_router_in_bounds";

/// A partition to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: RelName,
    pub range: Range,
}

/// A drain under way, as far as its statements go.
#[derive(Debug, Clone)]
pub struct Drain<'a> {
    pub id: i32,
    pub parent: &'a Parent,
    pub default: &'a RelName,
    /// The columns of the primary key.
    pub key: &'a [Ident],
    pub parts: &'a [Part],
}

impl Drain<'_> {
    fn named(&self, what: &str) -> RelName {
        let name = Ident::new(format!("partition_router_{what}_{}", self.id));
        self.default.sibling(name)
    }

    pub fn staging(&self) -> RelName {
        self.named("drain")
    }

    /// The default to come, until it has its name.
    pub fn new_default(&self) -> RelName {
        self.named("default")
    }

    /// The keys of rows that have changed.
    pub fn log(&self) -> RelName {
        self.named("drain_log")
    }

    /// Those of them that this transaction carries over.
    fn claimed(&self) -> RelName {
        self.named("drain_now")
    }

    /// The old default when it is none any more.
    pub fn old_default(&self) -> RelName {
        self.named("drained")
    }

    fn trigger(&self) -> Ident {
        Ident::new("partition_router_drain")
    }

    /// The staging table with the partitions to come, and the log.
    pub fn prepare(&self) -> Plan {
        let (staging, parent) = (self.staging(), self.parent);
        let mut plan = Plan::default();
        plan.push(
            "create staging table",
            format!(
                "CREATE TABLE {staging} (LIKE {} INCLUDING DEFAULTS INCLUDING GENERATED) PARTITION BY RANGE ({})",
                parent.name, parent.key
            ),
        );
        parent.take_defaults(&mut plan, &staging);
        for part in self.parts {
            plan.push(
                "create partition",
                like(parent, &part.name, "EXCLUDING IDENTITY EXCLUDING INDEXES"),
            );
            parent.take_defaults(&mut plan, &part.name);
            plan.push(
                "let its bounds be known",
                in_bounds(&part.name, &parent.key, &part.range),
            );
            plan.push(
                "attach partition to the staging table",
                format!(
                    "ALTER TABLE {staging} ATTACH PARTITION {} FOR VALUES {}",
                    part.name, part.range
                ),
            );
        }
        let new = self.new_default();
        plan.push(
            "create new default",
            like(parent, &new, "EXCLUDING IDENTITY EXCLUDING INDEXES"),
        );
        parent.take_defaults(&mut plan, &new);
        plan.push(
            "attach new default to the staging table",
            format!("ALTER TABLE {staging} ATTACH PARTITION {new} DEFAULT"),
        );
        for log in [self.log(), self.claimed()] {
            plan.push(
                "create log of changed keys",
                format!(
                    "CREATE TABLE {log} AS SELECT {} FROM ONLY {} WITH NO DATA",
                    list(self.key),
                    self.default
                ),
            );
        }
        plan
    }

    /// From its commit on every change of the default is in the log. Writers wait for that moment.
    pub fn watch(&self) -> Plan {
        let mut plan = Plan::default();
        let (trigger, default) = (self.trigger(), self.default);
        plan.push(
            "log changes of the default",
            format!(
                "CREATE TRIGGER {trigger} AFTER INSERT OR UPDATE OR DELETE ON {default} FOR EACH ROW \
                 EXECUTE FUNCTION partition_router.log_key({})",
                Literal(self.log().name.as_str())
            ),
        );
        plan.push(
            "log them whoever makes them",
            format!("ALTER TABLE {default} ENABLE ALWAYS TRIGGER {trigger}"),
        );
        plan
    }

    /// Copies the rows in a range of blocks.
    pub fn copy(&self, first_block: i64, end_block: i64) -> Plan {
        let columns = list(&self.parent.columns);
        let mut plan = Plan::default();
        plan.push(
            "copy rows, batch by batch",
            format!(
                "INSERT INTO {} ({columns}) SELECT {columns} FROM ONLY {} WHERE ctid >= '({first_block},0)' AND ctid < '({end_block},0)'",
                self.staging(),
                self.default
            ),
        );
        plan
    }

    /// Makes the copy equal to the default for keys in the log: what is taken from the log is looked at anew.
    pub fn follow(&self, most: Option<usize>) -> Plan {
        let columns = list(&self.parent.columns);
        let (log, claimed, key) = (self.log(), self.claimed(), list(self.key));
        let limit = most.map(|rows| format!(" LIMIT {rows}")).unwrap_or_default();
        let same = list_and(self.key);
        let taken = list(self.parent.columns.iter().map(|column| format!("x.{column}")));
        let mut plan = Plan::default();
        plan.push(
            "take keys from the log",
            format!(
                "WITH taken AS (DELETE FROM {log} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {log}{limit})) RETURNING {key}) \
                 INSERT INTO {claimed} ({key}) SELECT DISTINCT {key} FROM taken"
            ),
        );
        plan.push(
            "delete what was copied of these rows",
            format!("DELETE FROM {} x USING {claimed} c WHERE {same}", self.staging()),
        );
        plan.push(
            "copy these rows as they are now",
            format!(
                "INSERT INTO {} ({columns}) SELECT {taken} FROM ONLY {} x JOIN {claimed} c ON {same}",
                self.staging(),
                self.default
            ),
        );
        plan.push("forget the keys", format!("DELETE FROM {claimed}"));
        plan
    }

    /// Nobody else is at the parent or at its default from here.
    pub fn lock(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            "lock parent",
            format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", self.parent.name),
        );
        plan.push(
            "lock default",
            format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", self.default),
        );
        plan
    }

    /// The partitions and the new default take the place of the old one.
    pub fn swap(&self) -> Plan {
        let (parent, staging, new) = (&self.parent.name, self.staging(), self.new_default());
        let mut plan = Plan::default();
        plan.push(
            "detach old default",
            format!("ALTER TABLE {parent} DETACH PARTITION {}", self.default),
        );
        plan.push(
            "detach new default",
            format!("ALTER TABLE {staging} DETACH PARTITION {new}"),
        );
        for part in self.parts {
            plan.push(
                "detach from the staging table",
                format!("ALTER TABLE {staging} DETACH PARTITION {}", part.name),
            );
            plan.push(
                "attach partition",
                format!(
                    "ALTER TABLE {parent} ATTACH PARTITION {} FOR VALUES {}",
                    part.name, part.range
                ),
            );
        }
        plan.push(
            "put the old default aside",
            format!(
                "ALTER TABLE {} RENAME TO {}",
                self.default,
                self.old_default().name
            ),
        );
        plan.push(
            "name the new default",
            format!("ALTER TABLE {new} RENAME TO {}", self.default.name),
        );
        plan.push(
            "attach new default",
            format!("ALTER TABLE {parent} ATTACH PARTITION {} DEFAULT", self.default),
        );
        plan.push(
            "drop staging table",
            format!("DROP TABLE {staging}, {}, {}", self.log(), self.claimed()),
        );
        plan
    }

    /// What nobody needs any more: statements that each are a transaction. Whoever held one partition and waited for the next would
    /// keep writers waiting that come to them in another order.
    pub fn finish(&self) -> Plan {
        let mut plan = Plan::default();
        for part in self.parts {
            plan.extend(self.forget_proof(part));
        }
        plan.extend(self.drop_old_default());
        plan
    }

    /// A partition has bounds of its own by now. Not in the transaction of the swap, in which everybody waits.
    pub fn forget_proof(&self, part: &Part) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            "drop the proof of its bounds",
            format!(
                "ALTER TABLE IF EXISTS {} DROP CONSTRAINT IF EXISTS {}",
                part.name,
                Ident::new(IN_BOUNDS)
            ),
        );
        plan
    }

    pub fn drop_old_default(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            "drop old default",
            format!("DROP TABLE IF EXISTS {}", self.old_default()),
        );
        plan
    }

    /// Takes everything back: the default has all rows still.
    pub fn undo(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            "stop logging",
            format!("DROP TRIGGER IF EXISTS {} ON {}", self.trigger(), self.default),
        );
        plan.push(
            "drop what was copied",
            format!(
                "DROP TABLE IF EXISTS {}, {}, {}",
                self.staging(),
                self.log(),
                self.claimed()
            ),
        );
        plan
    }
}

/// A constraint that ATTACH needs no scan to see that the bounds are kept.
pub fn in_bounds(table: &RelName, key: &Ident, range: &Range) -> String {
    format!(
        "ALTER TABLE {table} ADD CONSTRAINT {} CHECK ({key} IS NOT NULL AND {})",
        Ident::new(IN_BOUNDS),
        range.condition(key)
    )
}

fn list_and(key: &[Ident]) -> String {
    key.iter()
        .map(|column| format!("x.{column} = c.{column}"))
        .collect::<Vec<_>>()
        .join(" AND ")
}
