//! Foreign keys that point at the table: those that can go with the name. A key cannot be given another table to point at, so it is
//! dropped and made again: not valid, which reads nothing, and proven when the swap has committed and writers go on. No row can break it meanwhile:
//! the key held before, both sides hold the same rows, and what is written is checked.

use super::{Plan, Swap};
use crate::catalog::{Index, Reference};
use crate::ident::{Ident, Literal, RelName};
use crate::plan::foreign_keys::{Incoming, incoming};
use serde::{Deserialize, Serialize};

/// A key that was made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub table: RelName,
    pub name: Ident,
}

impl Moved {
    /// Keeps nobody out: SHARE UPDATE EXCLUSIVE on the table that has the key.
    pub fn proof(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            format!("prove foreign key {} of {}", self.name, self.table.name),
            format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", self.table, self.name),
        );
        plan
    }
}

/// The keys that go with the name.
pub fn moving<'a>(swap: &Swap<'a>) -> impl Iterator<Item = &'a Reference> {
    let (from, to, partition_key) = (swap.from.table, swap.to.table, swap.partition_key);
    from.referenced_by.iter().filter(move |key| {
        incoming(key, from, partition_key) == Incoming::Moves
            && to
                .indexes
                .iter()
                .any(|index| can_be_pointed_at(index, &key.columns))
    })
}

/// Those that stay with the side that loses the name, each in words with the reason.
pub fn staying(swap: &Swap) -> Vec<String> {
    let is_moving =
        |key: &Reference| moving(swap).any(|moved| (moved.oid, &moved.name) == (key.oid, &key.name));
    let from = swap.from.table;
    let staying = from.referenced_by.iter().filter(|key| !is_moving(key));
    staying
        .map(|key| {
            let reason = match incoming(key, from, swap.partition_key) {
                Incoming::Stays(reason) => reason,
                Incoming::Moves => "the other side has no such unique index",
            };
            format!("foreign key {} of {}: {reason}", key.name, key.relation)
        })
        .collect()
}

fn can_be_pointed_at(index: &Index, columns: &[Ident]) -> bool {
    let key: Vec<&Ident> = index.key_columns.iter().flatten().collect();
    index.unique
        && index.valid
        && !index.deferrable
        && index.predicate.is_none()
        && index.key_columns.len() == columns.len()
        && columns.iter().all(|column| key.contains(&column))
}

/// Makes the keys again, when the names are swapped. Gives those that are to be proven.
pub fn make_again(plan: &mut Plan, swap: &Swap) -> Vec<Moved> {
    let mut moved = vec![];
    for key in moving(swap) {
        let definition = key.definition.trim_end_matches(" NOT VALID");
        plan.push(
            format!(
                "let foreign key {} of {} follow the name",
                key.name, key.table.name
            ),
            format!(
                "ALTER TABLE {} DROP CONSTRAINT {1}, ADD CONSTRAINT {1} {definition} NOT VALID",
                key.table, key.name
            ),
        );
        if let Some(comment) = &key.comment {
            plan.push(
                format!("copy the comment of foreign key {}", key.name),
                format!(
                    "COMMENT ON CONSTRAINT {} ON {} IS {}",
                    key.name,
                    key.table,
                    Literal(comment)
                ),
            );
        }
        if key.valid {
            moved.push(Moved {
                table: key.table.clone(),
                name: key.name.clone(),
            });
        }
    }
    moved
}
