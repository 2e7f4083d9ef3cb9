//! What is left to do in a stage that several processes may do together: block ranges of the copy, then partitions.
//! A task is a row of `partition_router.copy_task`. Whoever does it deletes the row in the transaction that does the
//! work, past those that others are at (`SKIP LOCKED`): a crash, an error or a cancel gives it back by itself, and no
//! task is done twice.

use super::state::Stage;
use crate::error::Result;
use crate::pair::Pair;
use crate::{session, spi};
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// The copy is cut into about this many ranges: that many transactions at least, and so small a rest at the end.
const RANGES: u32 = 256;
/// The shortest and the longest range, in blocks. The longest keeps the table of ranges short for a large legacy.
const SHORTEST: u32 = 128;
const LONGEST: u32 = 4096;

/// Partitions are taken together until they have so many blocks, or there are so many of them.
const BLOCKS_TOGETHER: u32 = 256;
const LEAVES_TOGETHER: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Task {
    relation: u32,
    pub first_block: u32,
    pub end_block: u32,
}

impl Task {
    pub fn relation(&self) -> Oid {
        self.relation.into()
    }

    pub fn blocks(&self) -> u32 {
        self.end_block.saturating_sub(self.first_block)
    }

    /// What is left of it from `block` on.
    pub fn from(&self, block: u32) -> Task {
        Task {
            first_block: block,
            ..*self
        }
    }
}

fn range_length(blocks: u32) -> u32 {
    (blocks / RANGES).clamp(SHORTEST, LONGEST)
}

/// Cuts the blocks of the legacy into ranges; forgets what there was.
pub fn cut_ranges(pair: &Pair, blocks: u32) -> Result<()> {
    clear(pair)?;
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.copy_task (pair_id, relation, first_block, end_block)
             SELECT $1, $2::oid::pg_catalog.regclass, b, LEAST(b + $4, $3)
             FROM pg_catalog.generate_series(0::bigint, $3 - 1, $4) b",
            &[
                pair.id.into(),
                pair.legacy.into(),
                i64::from(blocks).into(),
                i64::from(range_length(blocks)).into(),
            ],
        )
    })?;
    Ok(())
}

/// One task for each partition that holds rows.
pub fn list_leaves(pair: &Pair) -> Result<()> {
    clear(pair)?;
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.copy_task (pair_id, relation, first_block, end_block)
             SELECT $1, t.relid, 0,
                    COALESCE(pg_catalog.pg_relation_size(t.relid), 0)
                        / pg_catalog.current_setting('block_size')::bigint
             FROM pg_catalog.pg_partition_tree($2) t WHERE t.isleaf AND t.level > 0",
            &[pair.id.into(), pair.twin.into()],
        )
    })?;
    Ok(())
}

fn clear(pair: &Pair) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.copy_task WHERE pair_id = $1",
            &[pair.id.into()],
        )
    })?;
    Ok(())
}

/// Takes the next task that nobody is at, and no more: a join could run a subquery again for every row, and each time it would
/// find another task, since the one before is deleted; so it is a materialized CTE. `None`: all are done, or others are at them.
pub fn claim(pair_id: i32, stage: Stage) -> Result<Option<Task>> {
    let order = match stage {
        Stage::Copy => "first_block",
        _ => "end_block DESC, relation",
    };
    session::with_own_tables(|| {
        spi::returning(
            &format!(
                "WITH n AS MATERIALIZED (
                     SELECT c.relation, c.first_block FROM partition_router.copy_task c WHERE c.pair_id = $1
                     ORDER BY {order} LIMIT 1 FOR UPDATE SKIP LOCKED)
                 DELETE FROM partition_router.copy_task d USING n
                 WHERE d.pair_id = $1 AND d.relation = n.relation AND d.first_block = n.first_block
                 RETURNING pg_catalog.jsonb_build_object(
                     'relation', d.relation::oid::bigint, 'first_block', d.first_block, 'end_block', d.end_block)"
            ),
            &[pair_id.into()],
        )
    })
}

/// Takes partitions: a long one, or several short ones.
pub fn claim_leaves(pair_id: i32, stage: Stage) -> Result<Vec<Task>> {
    let mut claimed = Vec::new();
    let mut blocks = 0;
    while blocks < BLOCKS_TOGETHER && claimed.len() < LEAVES_TOGETHER {
        let Some(task) = claim(pair_id, stage)? else { break };
        blocks += task.blocks();
        claimed.push(task);
    }
    Ok(claimed)
}

/// Gives back what is left of a claimed task.
pub fn give_back(pair_id: i32, task: Task) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.copy_task (pair_id, relation, first_block, end_block)
             VALUES ($1, $2::oid::pg_catalog.regclass, $3, $4)",
            &[
                pair_id.into(),
                task.relation().into(),
                i64::from(task.first_block).into(),
                i64::from(task.end_block).into(),
            ],
        )
    })?;
    Ok(())
}

/// Whether there is a task, be it that somebody is at it.
pub fn are_left(pair: &Pair) -> Result<bool> {
    let left: Option<bool> = session::with_own_tables(|| {
        spi::latest_row(
            "SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM partition_router.copy_task WHERE pair_id = $1))",
            pair.id,
        )
    })?;
    Ok(left == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_neither_many_nor_long() {
        assert_eq!(range_length(0), SHORTEST);
        assert_eq!(range_length(10_000), SHORTEST);
        assert_eq!(range_length(256_000), 1000);
        assert_eq!(range_length(u32::MAX), LONGEST);
    }
}
