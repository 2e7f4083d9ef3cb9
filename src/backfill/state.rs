//! How far a backfill is, as kept in `partition_router.copy_state`.

use super::copy::Origin;
use crate::error::{Error, Result};
use crate::pair::Pair;
use crate::{session, spi};
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Copy,
    Index,
    Drain,
    Flip,
    Finish,
    Done,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Copy => "copy",
            Stage::Index => "index",
            Stage::Drain => "drain",
            Stage::Flip => "flip",
            Stage::Finish => "finish",
            Stage::Done => "done",
        }
    }
}

/// What one step did of a stage that several processes share.
#[derive(Debug, Default)]
pub struct Done {
    /// Blocks, or partitions.
    pub parts: u32,
    pub rows: u64,
    pub logged: u64,
    /// Its share of the time that the backfill takes.
    pub busy: Duration,
}

#[derive(Debug, Clone, Deserialize)]
pub struct CopyState {
    pub stage: Stage,
    /// A full transaction id: row versions of older transactions are copied.
    #[serde(rename = "horizon")]
    horizon_text: String,
    pub file_node: u32,
    /// Whose file and transactions these are.
    pub server: String,
    pub blocks: u32,
    /// How far the stage is: blocks of the legacy copied, the block of the change log to go on from, or partitions that
    /// have their indexes or foreign keys (of the latter one more).
    pub next_block: u32,
    pub rows_copied: u64,
    pub rows_logged: u64,
    pub rows_drained: u64,
    /// Keys found in the current pass over the change log.
    pub pass_keys: u64,
}

const COLUMNS: &str = "pg_catalog.jsonb_build_object(
    'stage', stage, 'horizon', horizon::text, 'file_node', file_node::bigint, 'server', server, 'blocks', blocks,
    'next_block', next_block, 'rows_copied', rows_copied, 'rows_logged', rows_logged,
    'rows_drained', rows_drained, 'pass_keys', pass_keys)";

impl CopyState {
    /// As it is now, whoever changed it.
    pub fn load(pair: &Pair) -> Result<Option<CopyState>> {
        session::with_own_tables(|| {
            spi::latest_row(
                &format!("SELECT {COLUMNS} FROM partition_router.copy_state WHERE pair_id = $1"),
                pair.id,
            )
        })
    }

    /// Of a pair that begins at a stage: the first one, or the last where there was nothing to copy.
    pub fn insert(pair: &Pair, stage: Stage, origin: &Origin, rows_total: i64) -> Result<()> {
        session::with_own_tables(|| {
            spi::execute(
                "INSERT INTO partition_router.copy_state (pair_id, stage, horizon, file_node, blocks, rows_total, server)
                 VALUES ($1, $2, $3::pg_catalog.xid8, $4, $5, $6, $7)",
                &[
                    pair.id.into(),
                    stage.as_str().into(),
                    origin.horizon.to_string().into(),
                    origin.file_node.into(),
                    i64::from(origin.blocks).into(),
                    rows_total.into(),
                    origin.server.as_str().into(),
                ],
            )
        })?;
        Ok(())
    }

    /// The copy begins again on a new file of the legacy, with a new horizon: capture has seen all that is younger than the first
    /// one, and nothing that was copied stays. What a restored dump brings has a horizon of another server.
    pub fn restart(&mut self, origin: &Origin) {
        self.horizon_text = origin.horizon.to_string();
        self.server = origin.server.clone();
        self.file_node = origin.file_node.to_u32();
        self.blocks = origin.blocks;
        self.next_block = 0;
        self.rows_copied = 0;
        self.rows_logged = 0;
    }

    pub fn horizon(&self) -> Result<u64> {
        self.horizon_text
            .parse()
            .map_err(|_| Error::Internal("the copy's horizon is no number".into()))
    }

    /// Counts what one step of a stage did that several processes share: nothing of what others counted is overwritten.
    pub fn count(&mut self, pair: &Pair, done: &Done) -> Result<()> {
        let counted: Option<CopyState> = session::with_own_tables(|| {
            spi::returning(
                &format!(
                    "UPDATE partition_router.copy_state
                     SET next_block = next_block + $2, rows_copied = rows_copied + $3, rows_logged = rows_logged + $4,
                         busy = busy + pg_catalog.make_interval(secs => $5), updated_at = pg_catalog.clock_timestamp()
                     WHERE pair_id = $1 RETURNING {COLUMNS}"
                ),
                &[
                    pair.id.into(),
                    i64::from(done.parts).into(),
                    (done.rows as i64).into(),
                    (done.logged as i64).into(),
                    done.busy.as_secs_f64().into(),
                ],
            )
        })?;
        *self = counted.ok_or_else(|| Error::Internal("the state of the backfill is gone".into()))?;
        Ok(())
    }

    /// Overwrites what is kept: only for a process that has the pair to itself.
    pub fn save(&self, pair: &Pair) -> Result<()> {
        session::with_own_tables(|| {
            spi::execute(
                "UPDATE partition_router.copy_state
                 SET stage = $2, file_node = $3, blocks = $4, next_block = $5, rows_copied = $6, rows_logged = $7,
                     rows_drained = $8, pass_keys = $9, horizon = $10::pg_catalog.xid8, server = $11, updated_at = pg_catalog.clock_timestamp()
                 WHERE pair_id = $1",
                &[
                    pair.id.into(),
                    self.stage.as_str().into(),
                    pgrx::pg_sys::Oid::from(self.file_node).into(),
                    i64::from(self.blocks).into(),
                    i64::from(self.next_block).into(),
                    (self.rows_copied as i64).into(),
                    (self.rows_logged as i64).into(),
                    (self.rows_drained as i64).into(),
                    (self.pass_keys as i64).into(),
                    self.horizon_text.as_str().into(),
                    self.server.as_str().into(),
                ],
            )
        })?;
        Ok(())
    }
}
