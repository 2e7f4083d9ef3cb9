//! A partition on another server, and back: the statements. Its rows are copied under another name, while a trigger notes who writes
//! to it; then the copy takes its place.

use crate::ident::{Ident, Literal, RelName, list};
use crate::plan::Plan;
use crate::plan::maintain::Range;

/// The trigger that notes writes.
const NOTING: &str = "partition_router_place";
/// The trigger that keeps rows of other partitions out of one by hash.
const BOUNDS: &str = "partition_router_bounds";
/// The CHECK of the bounds.
pub const IN_BOUNDS: &str = "partition_router_in_bounds";

/// Rows that go over, and come back, at once.
const BATCH_ROWS: usize = 1_000;
const FETCH_ROWS: usize = 10_000;

/// What keeps a row of another partition out of a foreign one, which the server here does not ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bounds {
    /// A CHECK, which the table over there has as well.
    Range { key: Ident, range: Range },
    /// As `satisfies_hash_partition` takes them.
    Hash {
        modulus: i32,
        remainder: i32,
        keys: Vec<Ident>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction<'a> {
    /// To that server.
    There(&'a Ident),
    Back,
}

/// A partition on its way.
#[derive(Debug, Clone)]
pub struct Placing<'a> {
    pub parent: &'a RelName,
    pub partition: &'a RelName,
    /// What makes the names of the copy and of the log its own.
    pub oid: u32,
    pub direction: Direction<'a>,
    pub columns: &'a [Ident],
    /// Name, type, collation and NOT NULL.
    pub definitions: &'a [String],
    /// Its primary key and unique constraints, which the table over there has as well.
    pub keys: Vec<String>,
    /// As the server prints them.
    pub for_values: &'a str,
    /// The partition constraint, as the server prints it.
    pub condition: &'a str,
    pub bounds: &'a Bounds,
}

impl Placing<'_> {
    fn named(&self, what: &str) -> RelName {
        self.partition
            .sibling(Ident::new(format!("partition_router_{what}_{}", self.oid)))
    }

    /// The table that is filled, until it takes the partition's name.
    pub fn copy(&self) -> RelName {
        self.named("placed")
    }

    /// Who was written meanwhile: the partition keys of the rows.
    pub fn log(&self) -> RelName {
        self.named("place_log")
    }

    /// The statement for the other server, where its table is made by hand.
    pub fn over_there(&self) -> String {
        let check = match self.bounds {
            Bounds::Range { key, range } => Some(format!("CHECK ({})", range.condition(key))),
            Bounds::Hash { .. } => None,
        };
        let parts: Vec<&str> = self
            .definitions
            .iter()
            .chain(&self.keys)
            .chain(&check)
            .map(String::as_str)
            .collect();
        format!("CREATE TABLE {} ({})", self.partition, parts.join(", "))
    }

    /// Makes the copy, empty; of one that comes back by the statement that makes such a table.
    pub fn create(&self, table: &str) -> Plan {
        let mut plan = Plan::default();
        let copy = self.copy();
        match self.direction {
            Direction::There(server) => {
                plan.push(
                    "create foreign table",
                    format!(
                        "CREATE FOREIGN TABLE {copy} ({}) SERVER {server} OPTIONS (schema_name {}, table_name {}, \
                         batch_size '{BATCH_ROWS}', fetch_size '{FETCH_ROWS}')",
                        self.definitions.join(", "),
                        Literal(self.partition.schema.as_str()),
                        Literal(self.partition.name.as_str()),
                    ),
                );
                if let Bounds::Range { key, range } = self.bounds {
                    plan.push(
                        "say which rows it holds",
                        format!(
                            "ALTER FOREIGN TABLE {copy} ADD CONSTRAINT {} CHECK ({})",
                            Ident::new(IN_BOUNDS),
                            range.condition(key)
                        ),
                    );
                }
            }
            Direction::Back => {
                plan.push("create table", table);
                plan.push(
                    "let in what belongs to the partition",
                    format!(
                        "ALTER TABLE {copy} ADD CONSTRAINT {} CHECK ({})",
                        Ident::new(IN_BOUNDS),
                        self.condition
                    ),
                );
            }
        }
        plan
    }

    fn keys(&self) -> Vec<Ident> {
        match self.bounds {
            Bounds::Range { key, .. } => vec![key.clone()],
            Bounds::Hash { keys, .. } => keys.clone(),
        }
    }

    /// The log of writes, which belongs to the table's owner.
    pub fn create_log(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            "create log of writes",
            format!(
                "CREATE TABLE {} AS SELECT {} FROM ONLY {} WITH NO DATA",
                self.log(),
                list(self.keys()),
                self.partition
            ),
        );
        plan
    }

    /// From its commit on every write to the partition is noted. Writers wait for that moment.
    pub fn note_writes(&self) -> Plan {
        let partition = self.partition;
        let trigger = Ident::new(NOTING);
        let mut plan = Plan::default();
        plan.push(
            "note who writes to the partition",
            format!(
                "CREATE TRIGGER {trigger} AFTER INSERT OR UPDATE OR DELETE ON {partition} FOR EACH ROW \
                 EXECUTE FUNCTION partition_router.log_key({})",
                Literal(self.log().name.as_str())
            ),
        );
        plan.push(
            "whoever it is",
            format!("ALTER TABLE {partition} ENABLE ALWAYS TRIGGER {trigger}"),
        );
        plan
    }

    /// Empties log and copy, and fills the copy. In this order: what is written from then on is in the log.
    pub fn fill(&self) -> Plan {
        let (copy, columns) = (self.copy(), list(self.columns));
        let mut plan = Plan::default();
        plan.push("forget older writes", format!("DELETE FROM {}", self.log()));
        plan.push(
            "remove what an earlier attempt left",
            format!("DELETE FROM {copy}"),
        );
        plan.push(
            "copy the rows",
            format!(
                "INSERT INTO {copy} ({columns}) SELECT {columns} FROM ONLY {}",
                self.partition
            ),
        );
        plan
    }

    /// The copy takes the partition's place, and the partition goes.
    pub fn swap(&self) -> Plan {
        let (parent, partition, copy) = (self.parent, self.partition, self.copy());
        let mut plan = Plan::default();
        plan.push(
            "detach partition",
            format!("ALTER TABLE {parent} DETACH PARTITION {partition}"),
        );
        let (old, drop) = match self.direction {
            Direction::There(_) => ("drop the rows here", "TABLE"),
            Direction::Back => (
                "drop the foreign table; what is over there stays",
                "FOREIGN TABLE",
            ),
        };
        plan.push(old, format!("DROP {drop} {partition}"));
        plan.push("drop log of writes", format!("DROP TABLE {}", self.log()));
        plan.push(
            "name the copy",
            format!("ALTER TABLE {copy} RENAME TO {}", partition.name),
        );
        plan.push(
            "attach it",
            format!(
                "ALTER TABLE {parent} ATTACH PARTITION {partition} {}",
                self.for_values
            ),
        );
        match (self.direction, self.bounds) {
            (Direction::Back, _) => plan.push(
                "drop the proof of the bounds",
                format!("ALTER TABLE {partition} DROP CONSTRAINT {}", Ident::new(IN_BOUNDS)),
            ),
            (Direction::There(_), Bounds::Range { .. }) => {}
            (
                Direction::There(_),
                Bounds::Hash {
                    modulus,
                    remainder,
                    keys,
                },
            ) => plan.push(
                "keep rows of other partitions out",
                format!(
                    "CREATE TRIGGER {} BEFORE INSERT OR UPDATE ON {partition} FOR EACH ROW \
                     WHEN (NOT pg_catalog.satisfies_hash_partition({}::pg_catalog.regclass, {modulus}, {remainder}, {})) \
                     EXECUTE FUNCTION partition_router.out_of_bounds()",
                    Ident::new(BOUNDS),
                    Literal(&parent.to_string()),
                    keys.iter()
                        .map(|key| format!("NEW.{key}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ),
        }
        plan
    }

    /// Removes what was copied: also over there.
    pub fn empty(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push("remove what was copied", format!("DELETE FROM {}", self.copy()));
        plan
    }

    /// Back to before: nothing was swapped yet.
    pub fn cancel(&self) -> Plan {
        let copy = self.copy();
        let mut plan = Plan::default();
        plan.push(
            "stop noting writes",
            format!("DROP TRIGGER {} ON {}", Ident::new(NOTING), self.partition),
        );
        plan.push("drop log of writes", format!("DROP TABLE {}", self.log()));
        plan.push(
            "drop what was filled",
            match self.direction {
                Direction::There(_) => format!("DROP FOREIGN TABLE {copy}"),
                Direction::Back => format!("DROP TABLE {copy}"),
            },
        );
        plan
    }
}

/// The parts of the bounds of a partition by hash, as the server prints them.
pub fn hash_bounds(text: &str) -> Option<(i32, i32)> {
    let inner = text
        .strip_prefix("FOR VALUES WITH (modulus ")?
        .strip_suffix(')')?;
    let (modulus, remainder) = inner.split_once(", remainder ")?;
    Some((modulus.parse().ok()?, remainder.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::RawBound;

    fn statements(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.statement.as_str()).collect()
    }

    #[test]
    fn nothing_is_dropped_before_the_swap_and_the_copy_has_the_bounds() {
        let (parent, partition) = (RelName::new("s", "t"), RelName::new("s", "p"));
        let bounds = Bounds::Range {
            key: Ident::new("k"),
            range: Range {
                lower: RawBound::Value("1".into()),
                upper: RawBound::Value("2".into()),
            },
        };
        let server = Ident::new("cold");
        let (columns, definitions) = ([Ident::new("k")], ["k int".to_string()]);
        let mut placing = Placing {
            parent: &parent,
            partition: &partition,
            oid: 7,
            direction: Direction::There(&server),
            columns: &columns,
            definitions: &definitions,
            keys: vec!["UNIQUE (k)".to_string()],
            for_values: "FOR VALUES FROM (1) TO (2)",
            condition: "(k >= 1)",
            bounds: &bounds,
        };
        assert!(
            placing
                .over_there()
                .contains("(k int, UNIQUE (k), CHECK (\"k\" OPERATOR(pg_catalog.>=) '1'")
        );
        let before = [
            placing.create(""),
            placing.create_log(),
            placing.note_writes(),
            placing.fill(),
        ];
        assert!(
            before
                .iter()
                .flat_map(statements)
                .all(|statement| !statement.starts_with("DROP"))
        );
        assert!(statements(&placing.swap()).contains(&"DROP TABLE \"s\".\"p\""));
        placing.direction = Direction::Back;
        assert!(statements(&placing.swap()).contains(&"DROP FOREIGN TABLE \"s\".\"p\""));
        assert!(statements(&placing.create("CREATE TABLE c ()"))[0].starts_with("CREATE TABLE"));
    }

    #[test]
    fn a_partition_by_hash_is_told_by_a_trigger() {
        assert_eq!(
            hash_bounds("FOR VALUES WITH (modulus 4, remainder 1)"),
            Some((4, 1))
        );
        assert_eq!(hash_bounds("DEFAULT"), None);
        let (parent, partition) = (RelName::new("s", "t"), RelName::new("s", "p"));
        let server = Ident::new("cold");
        let bounds = Bounds::Hash {
            modulus: 4,
            remainder: 1,
            keys: vec![Ident::new("k")],
        };
        let placing = Placing {
            parent: &parent,
            partition: &partition,
            oid: 7,
            direction: Direction::There(&server),
            columns: &[],
            definitions: &[],
            keys: vec![],
            for_values: "",
            condition: "",
            bounds: &bounds,
        };
        let swap = placing.swap();
        let last = statements(&swap).pop().unwrap_or_default().to_string();
        assert!(
            last.contains("(\'\"s\".\"t\"\'::pg_catalog.regclass, 4, 1, NEW.\"k\")"),
            "{last}"
        );
    }
}
