//! The plan that lets one side of a pair take the other's name, whichever way: at the switchover the twin takes the legacy's,
//! at the rollback the legacy takes it back. Tables keep their oids, so triggers, rows and indexes stay where they are; what
//! refers to the name's old owner by oid is defined anew. All of it is one transaction under the locks that the plan names.

mod access;
pub mod keys_in;
mod names;

use super::{Plan, indexes};
use crate::catalog::TableDef;
use crate::catalog::dependents::{Dependents, Publication, Sequence};
use crate::ident::{Ident, Literal, RelName, list};
use keys_in::Moved;
use names::Names;

/// A side of the pair, with what refers to it.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    pub table: &'a TableDef,
    pub dependents: &'a Dependents,
    /// Of the twin.
    pub partitions: &'a [(u32, RelName)],
}

/// The name goes from one side to the other.
#[derive(Debug, Clone, Copy)]
pub struct Swap<'a> {
    /// Has the name that applications use.
    pub from: Side<'a>,
    /// Takes it.
    pub to: Side<'a>,
    /// What `from` is called afterwards.
    pub away: &'a Ident,
    pub partition_key: &'a Ident,
    /// Publications that were made to publish by way of the root for the switchover, when this is the way back.
    pub restore_via_root: &'a [Ident],
    /// Partitions have the identity of their parent, as from PostgreSQL 17 on, rather than a default of their own.
    pub shares_identity: bool,
    /// What is appended to names of indexes and the like that have to make room.
    pub suffix: &'a str,
}

/// How strong a lock of the swap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// Against everybody.
    AccessExclusive,
    /// Against writers.
    ShareRowExclusive,
}

/// A lock that the swap takes before it changes anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    pub oid: u32,
    pub name: String,
    pub strength: Strength,
}

/// What the swap does, in the order in which it does it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwapPlan {
    /// Views first, as whoever reads one locks it before its tables.
    pub locks: Vec<Lock>,
    /// Run as the caller.
    pub names: Plan,
    /// Definitions that the server gave, run again: with the rights of a superuser, since a new definition of a view asks for more
    /// rights than its owner may have.
    pub definitions: Plan,
    /// Who owns what is defined again. Its constants may be code that runs when they are parsed.
    pub owners: Vec<u32>,
    /// Publications that were made to publish by way of the root.
    pub via_root: Vec<Ident>,
    /// Foreign keys that are to be proven when the swap has committed.
    pub moved: Vec<Moved>,
    /// In words, foreign keys that go on pointing at the side that loses the name.
    pub staying: Vec<String>,
}

impl SwapPlan {
    /// All the steps, as they are shown.
    pub fn shown(&self, budget_ms: u128) -> Plan {
        let mut plan = Plan::default();
        for lock in &self.locks {
            let mode = match lock.strength {
                Strength::AccessExclusive => "ACCESS EXCLUSIVE",
                Strength::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            };
            plan.push(
                format!("lock until the swap commits; wait for it {budget_ms} ms at most, together with the others"),
                format!("LOCK TABLE {} IN {mode} MODE", lock.name),
            );
        }
        plan.extend(self.names.clone());
        plan.extend(self.definitions.clone());
        plan
    }
}

pub fn plan(swap: &Swap) -> SwapPlan {
    let mut done = SwapPlan {
        locks: locks(swap),
        ..SwapPlan::default()
    };
    let plan = &mut done.names;
    access::follow(plan, swap.from.table, swap.to.table);
    for publication in &swap.from.dependents.publications {
        if publish(plan, swap, publication) {
            done.via_root.push(publication.name.clone());
        }
    }
    let mut names = Names::new(swap);
    names.tables(plan);
    names.indexes(plan);
    names.statistics(plan);
    for sequence in &swap.from.dependents.sequences {
        match &sequence.identity {
            None => give_sequence(plan, swap, sequence),
            Some(kind) => give_identity(plan, swap, sequence, kind, &mut names),
        }
    }
    let plan = &mut done.definitions;
    let actions = |side: Side, enabled: bool, verb: &str, plan: &mut Plan| {
        for action in side.dependents.actions.iter().filter(|a| a.enabled == enabled) {
            plan.push(
                format!(
                    "let the foreign keys of one side act: {verb} those of {}",
                    side.table.name.name
                ),
                format!("ALTER TABLE {} {verb} TRIGGER {}", action.table, action.trigger),
            );
        }
    };
    actions(swap.from, true, "DISABLE", plan);
    actions(swap.to, false, "ENABLE", plan);
    for follower in &swap.from.dependents.followers {
        plan.push(
            format!("let {} {} follow the name", follower.kind, follower.name),
            follower.statement.clone(),
        );
    }
    done.moved = keys_in::make_again(plan, swap);
    done.owners = swap.from.dependents.followers.iter().map(|f| f.owner).collect();
    done.staying = keys_in::staying(swap);
    done
}

fn locks(swap: &Swap) -> Vec<Lock> {
    let mut locks: Vec<Lock> = vec![];
    let mut add = |oid: u32, name: String, strength| {
        if oid != 0 && locks.iter().all(|lock| lock.oid != oid) {
            locks.push(Lock { oid, name, strength });
        }
    };
    for follower in &swap.from.dependents.followers {
        let name = follower
            .name
            .rsplit(" on ")
            .next()
            .unwrap_or_default()
            .to_string();
        add(follower.relation, name, Strength::AccessExclusive);
    }
    // Whoever writes to such a table locks it before the one that it points at.
    for key in keys_in::moving(swap) {
        add(key.oid, key.table.to_string(), Strength::AccessExclusive);
    }
    // The order in which sync locks them: the side that is written, and then the other.
    for side in [swap.from, swap.to] {
        add(
            side.table.oid,
            side.table.name.to_string(),
            Strength::AccessExclusive,
        );
    }
    let moves_identity = swap
        .from
        .dependents
        .sequences
        .iter()
        .any(|s| s.identity.is_some());
    // Defaults of partitions change, or the triggers that they have for keys which point at them.
    let changes_partitions = moves_identity || keys_in::moving(swap).next().is_some();
    for (oid, name) in swap.from.partitions.iter().chain(swap.to.partitions) {
        if changes_partitions {
            add(*oid, name.to_string(), Strength::AccessExclusive);
        }
    }
    for side in [swap.from, swap.to] {
        for action in &side.dependents.actions {
            add(action.oid, action.table.to_string(), Strength::ShareRowExclusive);
        }
    }
    locks
}

/// The table that a publication names follows; gives whether it has to publish by way of the root from now on.
fn publish(plan: &mut Plan, swap: &Swap, publication: &Publication) -> bool {
    let (name, from, to) = (&publication.name, &swap.from.table.name, &swap.to.table.name);
    plan.push(
        format!("take {} out of publication {name}", from.name),
        format!("ALTER PUBLICATION {name} DROP TABLE {from}"),
    );
    let to_root = swap.to.table.kind == "p" && !publication.via_root;
    if to_root || swap.restore_via_root.contains(name) {
        plan.push(
            format!("let publication {name} publish under the name of the table"),
            format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = {to_root})"),
        );
    }
    let columns = publication
        .columns
        .as_ref()
        .map(|columns| format!(" ({})", list(columns)))
        .unwrap_or_default();
    let filter = publication
        .filter
        .as_ref()
        .map(|filter| format!(" WHERE {filter}"))
        .unwrap_or_default();
    plan.push(
        format!("put {} into publication {name}", to.name),
        format!("ALTER PUBLICATION {name} ADD TABLE {to}{columns}{filter}"),
    );
    to_root
}

/// A serial column's sequence serves both sides; it must not go when the table does that it belongs to.
fn give_sequence(plan: &mut Plan, swap: &Swap, sequence: &Sequence) {
    let to = swap.to.table.name.sibling(swap.from.table.name.name.clone());
    plan.push(
        format!(
            "let the sequence of {} belong to the table of that name",
            sequence.column
        ),
        format!(
            "ALTER SEQUENCE {} OWNED BY {to}.{}",
            sequence.name, sequence.column
        ),
    );
}

/// The sequence of an identity column cannot be given away: the other column gets one that goes on from there, under the same
/// name. The side that had it draws from it by a default.
fn give_identity(plan: &mut Plan, swap: &Swap, sequence: &Sequence, kind: &str, names: &mut Names) {
    let column = &sequence.column;
    let to = swap.to.table.name.sibling(swap.from.table.name.name.clone());
    let from = swap.from.table.name.sibling(swap.away.clone());
    let new = sequence.name.sibling(names.free(&sequence.name.name, "_new"));
    let always = if kind == "a" { "ALWAYS" } else { "BY DEFAULT" };
    plan.push(
        format!("take the default of {column} away"),
        format!("ALTER TABLE {to} ALTER COLUMN {column} DROP DEFAULT"),
    );
    plan.push(
        format!("make {column} an identity column"),
        format!(
            "ALTER TABLE {to} ALTER COLUMN {column} ADD GENERATED {always} AS IDENTITY (SEQUENCE NAME {new} {})",
            sequence.options
        ),
    );
    plan.push(
        format!("go on with the numbers of {column}"),
        format!(
            "SELECT pg_catalog.setval({}, last_value, is_called) FROM {}",
            Literal(&new.to_string()),
            sequence.name
        ),
    );
    // Where identity is not theirs, partitions draw by a default.
    for (_, partition) in swap.from.partitions.iter().filter(|_| !swap.shares_identity) {
        plan.push(
            format!("take the default of {column} of {} away", partition.name),
            format!("ALTER TABLE {partition} ALTER COLUMN {column} DROP DEFAULT"),
        );
    }
    plan.push(
        format!("end the identity of {column}, with its sequence"),
        format!("ALTER TABLE {from} ALTER COLUMN {column} DROP IDENTITY"),
    );
    plan.push(
        "give the sequence its name",
        format!("ALTER SEQUENCE {new} RENAME TO {}", sequence.name.name),
    );
    plan.push(
        format!("let both sides draw from the sequence of {column}"),
        format!(
            "ALTER TABLE {from} ALTER COLUMN {column} SET DEFAULT {}",
            super::next_value(&sequence.name)
        ),
    );
    for grant in &sequence.grants {
        plan.push(
            format!("grant {} on the sequence to {}", grant.privilege, grant.grantee),
            format!(
                "GRANT {} ON SEQUENCE {} TO {}{}",
                grant.privilege,
                sequence.name,
                grant.grantee,
                if grant.grantable { " WITH GRANT OPTION" } else { "" }
            ),
        );
    }
    if let Some(comment) = &sequence.comment {
        plan.push(
            "copy the comment of the sequence",
            format!("COMMENT ON SEQUENCE {} IS {}", sequence.name, Literal(comment)),
        );
    }
}

/// What stands in the way of a swap, in words: to be told before anything is locked.
pub fn lost(swap: &Swap) -> Vec<String> {
    let mut lost = swap.from.dependents.lost.clone();
    for publication in &swap.from.dependents.publications {
        let name = &publication.name;
        if publication.has_both {
            lost.push(format!("publication {name} names both sides of the pair"));
        }
        if swap.to.table.kind == "p" && !publication.via_root && publication.has_other {
            lost.push(format!(
                "publication {name} publishes partitions under their own names, which other tables in it rely on"
            ));
        }
    }
    for trigger in swap.to.table.user_triggers() {
        let is_alone = swap.from.table.user_triggers().all(|t| t.name != trigger.name);
        if is_alone && swap.to.table.kind == "p" {
            lost.push(format!(
                "trigger {} is on {} alone",
                trigger.name, swap.to.table.name
            ));
        }
    }
    for index in swap.from.table.indexes.iter().filter(|i| i.exclusion) {
        if swap.to.table.kind == "p" {
            lost.push(format!("exclusion constraint {} has no counterpart", index.name));
        }
    }
    lost
}

#[cfg(test)]
mod tests;
