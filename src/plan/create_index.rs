//! A new index on a partitioned table, without a moment in which nobody can write: first one on the root alone, which is
//! invalid and builds nothing, then one on every partition CONCURRENTLY, each attached to that of its parent at once, so that
//! whoever drops the root's drops them all. With the last one the root's is valid. What is there already is not made again,
//! so an interrupted build goes on.

use super::Plan;
use crate::ident::{Ident, MAX_NAME_BYTES, RelName};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};

/// A table of the tree, with its indexes.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    pub oid: u32,
    /// `None` for a root that is no partition itself.
    pub parent: Option<u32>,
    pub name: RelName,
    /// `pg_class.relkind`
    pub kind: String,
    pub indexes: Vec<Have>,
}

/// An index that is there. Primary keys are not among them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Have {
    pub oid: u32,
    pub name: Ident,
    pub unique: bool,
    pub valid: bool,
    /// The index of the parent table that it is part of.
    pub attached_to: Option<u32>,
    /// A session is building an index on the table now.
    pub is_building: bool,
    /// What stands behind the table's name: method, columns, parameters, predicate.
    pub definition: String,
}

/// The index that is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub name: Ident,
    /// Whether the caller chose the name: then an equal index of another name is another index.
    pub is_named: bool,
    pub unique: bool,
    pub definition: String,
}

impl Wanted {
    fn is_like(&self, have: &Have) -> bool {
        have.unique == self.unique && have.definition == self.definition
    }

    fn is_root(&self, have: &Have) -> bool {
        self.is_like(have) && (!self.is_named || have.name == self.name)
    }

    /// A statement that makes it on a table; `how` comes before its name, `only` before the table's.
    fn statement(&self, how: &str, name: &Ident, only: &str, table: &RelName) -> String {
        let unique = if self.unique { "UNIQUE " } else { "" };
        format!(
            "CREATE {unique}INDEX {how}{name} ON {only}{table} USING {}",
            self.definition
        )
    }
}

/// One thing to do. Each is a transaction of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub action: String,
    pub statement: String,
    /// The table that it is about.
    pub table: u32,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Takes a lock that keeps others out, for a moment.
    Short,
    /// Commits by itself and keeps nobody out.
    Concurrent,
}

/// What is left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// The root has the index and it is valid.
    Nothing,
    Tasks(Vec<Task>),
    /// Another session builds an index like it on this table.
    Building(RelName),
    /// Everything is there, and yet the root's index of this name is not valid.
    Stuck(RelName),
}

pub fn as_plan(tasks: &[Task]) -> Plan {
    let mut plan = Plan::default();
    for task in tasks {
        plan.push(task.action.clone(), task.statement.clone());
    }
    plan
}

/// Names that the plan may give, in the order of preference: whoever calls [`left`] says which of them are taken.
pub fn candidates(wanted: &Wanted, tree: &[Node]) -> Vec<Ident> {
    let is_plain = tree.first().is_some_and(|table| table.kind != "p");
    tree.iter()
        .skip(usize::from(!is_plain))
        .flat_map(|node| (0..2).map(|number| name_of(wanted, &tree[0].name.name, &node.name.name, number)))
        .collect()
}

/// The name of a partition's index: that of the root's, with the partition's name where the root's is.
pub fn name_of(wanted: &Wanted, root: &Ident, table: &Ident, number: u32) -> Ident {
    let name = wanted.name.as_str();
    let rest = match name.strip_prefix(root.as_str()) {
        Some(rest) => rest.to_owned(),
        None => format!("_{name}"),
    };
    let tail = match number {
        0 => rest,
        n => format!("{rest}{n}"),
    };
    let mut front = table.as_str();
    let mut tail = tail.as_str();
    while front.len() + tail.len() > MAX_NAME_BYTES {
        // The longer part gives way, a character at a time.
        let long = if front.len() >= tail.len() {
            &mut front
        } else {
            &mut tail
        };
        let mut chars = long.chars();
        chars.next_back();
        *long = chars.as_str();
    }
    Ident::new(format!("{front}{tail}"))
}

/// What is left to do for `wanted`, where the names in `taken` are not free. The root is the first of `tree`.
pub fn left(wanted: &Wanted, tree: &[Node], taken: &HashSet<(Ident, Ident)>) -> Left {
    let Some((root, below)) = tree.split_first() else {
        return Left::Nothing;
    };
    if root.kind != "p" {
        return left_on_plain(wanted, root, taken);
    }
    let mut tasks = Vec::new();
    // The index of each partitioned table that others are attached to: its oid, when it is there, and its name.
    let mut tops: HashMap<u32, (Option<u32>, RelName)> = HashMap::new();
    match root.indexes.iter().find(|have| wanted.is_root(have)) {
        Some(have) if have.valid => return Left::Nothing,
        Some(have) => {
            tops.insert(root.oid, (Some(have.oid), root.name.sibling(have.name.clone())));
        }
        None => {
            tasks.push(Task {
                action: format!("create the index on {} alone, invalid for now", root.name),
                statement: wanted.statement("", &wanted.name, "ONLY ", &root.name),
                table: root.oid,
                kind: Kind::Short,
            });
            tops.insert(root.oid, (None, root.name.sibling(wanted.name.clone())));
        }
    }
    let mut taken = taken.clone();
    for node in below {
        let Some((top, top_name)) = node.parent.and_then(|parent| tops.get(&parent)).cloned() else {
            continue; // below a table that came after its parent was read
        };
        let index = match part(wanted, node, top) {
            Part::Attached(have) => node.name.sibling(have.name.clone()),
            Part::Building => return Left::Building(node.name.clone()),
            Part::There(have) => {
                let index = node.name.sibling(have.name.clone());
                tasks.push(attaching(node, &top_name, &index));
                index
            }
            Part::Missing(leftovers) => {
                tasks.extend(leftovers.iter().map(|have| dropping(node, have)));
                let index = match leftovers.first() {
                    Some(have) => node.name.sibling(have.name.clone()),
                    None => free_name(wanted, root, node, &mut taken),
                };
                tasks.push(making(wanted, node, &index));
                tasks.push(attaching(node, &top_name, &index));
                index
            }
        };
        if node.kind == "p" {
            let own = node.indexes.iter().find(|have| have.name == index.name);
            tops.insert(node.oid, (own.map(|have| have.oid), index));
        }
    }
    if tasks.is_empty() {
        let name = tops.remove(&root.oid).map(|(_, name)| name).unwrap_or_default();
        return Left::Stuck(name);
    }
    Left::Tasks(tasks)
}

/// The same for a table that is not partitioned.
fn left_on_plain(wanted: &Wanted, table: &Node, taken: &HashSet<(Ident, Ident)>) -> Left {
    let alike: Vec<&Have> = table.indexes.iter().filter(|have| wanted.is_root(have)).collect();
    if alike.iter().any(|have| have.valid) {
        return Left::Nothing;
    }
    if alike.iter().any(|have| have.is_building) {
        return Left::Building(table.name.clone());
    }
    let mut tasks: Vec<Task> = alike.iter().map(|have| dropping(table, have)).collect();
    let name = match (alike.first(), wanted.is_named) {
        (Some(have), _) => table.name.sibling(have.name.clone()),
        (None, true) => table.name.sibling(wanted.name.clone()),
        (None, false) => free_name(wanted, table, table, &mut taken.clone()),
    };
    tasks.push(making(wanted, table, &name));
    Left::Tasks(tasks)
}

/// What a table has of the index.
enum Part<'a> {
    Attached(&'a Have),
    There(&'a Have),
    Building,
    /// Nothing but what interrupted builds have left.
    Missing(Vec<&'a Have>),
}

fn part<'a>(wanted: &Wanted, node: &'a Node, top: Option<u32>) -> Part<'a> {
    let attached = |have: &&Have| top.is_some() && have.attached_to == top;
    if let Some(have) = node.indexes.iter().find(attached) {
        return Part::Attached(have);
    }
    let mut free = node
        .indexes
        .iter()
        .filter(|have| wanted.is_like(have) && have.attached_to.is_none());
    if let Some(have) = free.clone().find(|have| have.valid || node.kind == "p") {
        return Part::There(have);
    }
    if free.clone().any(|have| have.is_building) {
        return Part::Building;
    }
    Part::Missing(free.by_ref().collect())
}

fn free_name(wanted: &Wanted, root: &Node, node: &Node, taken: &mut HashSet<(Ident, Ident)>) -> RelName {
    let free = (0..)
        .map(|number| name_of(wanted, &root.name.name, &node.name.name, number))
        .find(|name| taken.insert((node.name.schema.clone(), name.clone())));
    node.name.sibling(free.unwrap_or_default())
}

fn dropping(node: &Node, have: &Have) -> Task {
    Task {
        action: format!("drop what an interrupted build left on {}", node.name),
        statement: format!("DROP INDEX CONCURRENTLY {}", node.name.sibling(have.name.clone())),
        table: node.oid,
        kind: Kind::Concurrent,
    }
}

fn making(wanted: &Wanted, node: &Node, index: &RelName) -> Task {
    let is_leaf = node.kind != "p";
    let (how, only) = if is_leaf {
        ("CONCURRENTLY ", "")
    } else {
        ("", "ONLY ")
    };
    Task {
        action: format!("create the index on {}", node.name),
        statement: wanted.statement(how, &index.name, only, &node.name),
        table: node.oid,
        kind: if is_leaf { Kind::Concurrent } else { Kind::Short },
    }
}

fn attaching(node: &Node, top: &RelName, index: &RelName) -> Task {
    Task {
        action: format!("attach the index of {}", node.name),
        statement: format!("ALTER INDEX {top} ATTACH PARTITION {index}"),
        table: node.oid,
        kind: Kind::Short,
    }
}

#[cfg(test)]
mod tests;
