//! Takes partitions away when they are past their retention.

use super::archive::{self, Destination};
use super::log::{self, Event};
use super::state::has_rows;
use super::table::{Managed, Partition};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::budget;
use crate::pair::{Pair, Phase, store};
use crate::plan::Plan;
use crate::plan::maintain::{Parent, Range};
use crate::plan::retire::{self, Fate, Paired};
use crate::policy::RetentionAction;
use crate::session::as_user;
use crate::spi;
use pgrx::pg_sys::Oid;

/// How far one step got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Rows went, more may be there: call again in a new transaction.
    More(u64),
    /// A table of its own now, to be archived and dropped.
    Detached,
    Gone,
}

/// What the policy wants to become of a partition.
pub fn fate(managed: &Managed) -> Result<Fate> {
    let policy = &managed.policy;
    if Destination::of(policy).is_some() {
        return Ok(Fate::Detach);
    }
    RetentionAction::parse(&policy.retention_action)
        .and_then(|action| Fate::new(action, policy.archive_schema.as_ref()))
        .ok_or_else(|| Error::BadArgument {
            argument: "archive_schema".into(),
            reason: format!(
                "the policy of {} archives, but names no schema",
                managed.table.display
            ),
            hint: "Name one with partition_router.set_policy().".into(),
        })
}

/// A partition of a pair whose rows another table has, too, with all that its way out needs.
struct Leaving {
    parent: Parent,
    partition: RelName,
    range: Range,
    source: RelName,
    holding: RelName,
    fate: Fate,
}

impl Leaving {
    fn new(managed: &Managed, pair: &Pair, partition: &Partition, fate: Fate) -> Result<Self> {
        if !load::partitions(partition.oid.into())?.is_empty() {
            return Err(Error::Unsupported {
                what: format!(
                    "{} has partitions of its own, and another table has its rows",
                    partition.display
                ),
                hint: "End the migration with partition_router.cleanup() first: then it goes at once.".into(),
            });
        }
        let (lower, upper) = partition.range()?;
        let source = match pair.phase {
            Phase::Live => load::rel_name(pair.legacy)?
                .ok_or_else(|| Error::Internal(format!("the legacy of {} is gone", managed.table.display)))?,
            _ => partition.name.clone(),
        };
        // The partition keeps its name until it is dropped: its rows wait in a table named after its oid.
        let waiting = Ident::new(format!("partition_router_retired_{}", partition.oid));
        let holding = fate
            .kept_as(&partition.name)
            .unwrap_or_else(|| partition.name.clone())
            .sibling(waiting);
        Ok(Leaving {
            parent: managed.table.as_parent()?,
            partition: partition.name.clone(),
            range: Range { lower, upper },
            source,
            holding,
            fate,
        })
    }

    fn paired(&self) -> Paired<'_> {
        Paired {
            parent: &self.parent,
            partition: &self.partition,
            range: &self.range,
            source: &self.source,
            holding: &self.holding,
            fate: &self.fate,
        }
    }
}

fn followed(managed: &Managed) -> Option<&Pair> {
    managed.pair.as_ref().filter(|pair| pair.is_followed())
}

/// The steps that take a partition away whose rows no other table has, with the partitions below it.
fn at_once(managed: &Managed, partition: &Partition, fate: &Fate) -> Result<Plan> {
    let mut plan = retire::at_once(
        &managed.table.name,
        &partition.name,
        partition.kind(),
        fate,
        managed.table.referenced(),
        &managed.table.sequence_defaults,
    );
    if let Fate::Archive(schema) = fate {
        for below in load::partitions(partition.oid.into())? {
            plan.push(
                "move to archive schema",
                format!("ALTER TABLE {} SET SCHEMA {schema}", below.name),
            );
        }
    }
    Ok(plan)
}

/// All the steps that take a partition away.
pub fn plan(managed: &Managed, partition: &Partition) -> Result<Plan> {
    let fate = fate(managed)?;
    let to = Destination::of(&managed.policy);
    let Some(pair) = followed(managed) else {
        let alone = at_once(managed, partition, &fate)?;
        return Ok(match to {
            None => alone,
            Some(to) => retire::archived(&partition.name, partition.kind(), &to.to_string(), alone),
        });
    };
    let leaving = Leaving::new(managed, pair, partition, fate)?;
    let paired = leaving.paired();
    let mut plan = paired.prepare();
    plan.extend(paired.batch());
    plan.extend(paired.lock());
    plan.extend(paired.finish(managed.table.referenced()));
    Ok(match to {
        None => plan,
        Some(to) => retire::archived(&partition.name, partition.kind(), &to.to_string(), plan),
    })
}

/// Takes a partition away, or a batch of its rows.
pub fn step(managed: &Managed, partition: &Partition) -> Result<Progress> {
    let fate = fate(managed)?;
    free_name(partition, &fate)?;
    let owner = managed.table.owner();
    let to = Destination::of(&managed.policy);
    let Some(pair) = followed(managed) else {
        if let Some(to) = &to {
            return archive::step(managed, partition, to).map(|()| Progress::More(0));
        }
        let plan = at_once(managed, partition, &fate)?;
        budget::within_budget(partition.oid.into(), || {
            as_user(owner, || execute::run(&plan, Mode::Run))?;
            moved(managed, partition, &fate)
        })?;
        return Ok(Progress::Gone);
    };
    let leaving = Leaving::new(managed, pair, partition, fate)?;
    let paired = leaving.paired();
    let rows = as_user(owner, || {
        if paired.fate != &Fate::Drop && load::oid_of(&leaving.holding)?.is_none() {
            execute::run(&paired.prepare(), Mode::Run)?;
        }
        batch(&paired)
    })?;
    if rows > 0 {
        return Ok(Progress::More(rows));
    }
    finish(managed, &leaving, partition, owner)
}

/// Ends a detach that somebody began, and did not come to its end.
pub fn finalize(managed: &Managed, name: &RelName) -> Result<()> {
    if !managed.table.half_detached.contains(name) {
        return Ok(());
    }
    let plan = retire::finalize(&managed.table.name, name);
    budget::within_budget(managed.table.oid(), || {
        store::change_layout(managed.table.oid())?;
        as_user(managed.table.owner(), || execute::run(&plan, Mode::Run))
    })?;
    let mut event = Event::done(
        &managed.table.display,
        "detach",
        "begun by somebody, and finished",
    );
    event.partition = Some(name.name.as_str().into());
    log::write(&event)
}

fn batch(paired: &Paired) -> Result<u64> {
    paired
        .batch()
        .steps
        .iter()
        .map(|step| spi::execute(&step.statement, &[]))
        .sum()
}

/// Drops the partition when it is empty under lock. Rows may have come in since the last batch; when the side that they
/// are deleted from has none, both sides have drifted apart and nothing is dropped.
fn finish(managed: &Managed, leaving: &Leaving, partition: &Partition, owner: Oid) -> Result<Progress> {
    let paired = leaving.paired();
    let to = Destination::of(&managed.policy);
    budget::within_budget(partition.oid.into(), || {
        if let Some(pair) = followed(managed) {
            store::change_layout(pair.twin)?;
        }
        let is_gone = as_user(owner, || {
            execute::run(&paired.lock(), Mode::Run)?;
            if !has_rows(&leaving.partition, "true")? {
                execute::run(&paired.finish(managed.table.referenced()), Mode::Run)?;
                return Ok(true);
            }
            if has_rows(&leaving.source, &leaving.range.condition(&leaving.parent.key))? {
                return Ok(false);
            }
            Err(Error::PartitionInUse {
                partition: leaving.partition.to_string(),
                reason: "it holds rows that the legacy does not have".into(),
                hint: "See partition_router.mismatches() and run partition_router.repair().".into(),
            })
        })?;
        match (is_gone, &to) {
            (false, _) => Ok(Progress::More(0)),
            (true, Some(to)) => archive::note_detached(managed, partition, to).map(|()| Progress::Detached),
            (true, None) => moved(managed, partition, &leaving.fate).map(|()| Progress::Gone),
        }
    })
}

/// Notes what moved to an archive schema: `restore_archive` knows it from there.
fn moved(managed: &Managed, partition: &Partition, fate: &Fate) -> Result<()> {
    let (Fate::Archive(_), Some(kept)) = (fate, fate.kept_as(&partition.name)) else {
        return Ok(());
    };
    let table = load::latest_oid_of(&kept)?
        .ok_or_else(|| Error::Internal(format!("{kept} is not where it was moved to")))?;
    archive::note(managed, partition, "schema", &kept.to_string(), "archived", table)
}

/// An archive must not meet another table of the same name.
fn free_name(partition: &Partition, fate: &Fate) -> Result<()> {
    match fate.kept_as(&partition.name) {
        Some(kept) if kept != partition.name && load::oid_of(&kept)?.is_some() => Err(Error::AlreadyExists {
            name: kept.to_string(),
        }),
        _ => Ok(()),
    }
}
