//! Which snapshots are too old for a swap: they do not see the rows that were copied, and nothing tells a plain query of the name so.
//!
//! What tells them is who ran when the copy was over, which is noted once (`copy_state.visible_at`, `running_then`). The oldest
//! transaction of a snapshot alone says too little: while one of before the copy is open, in whatever database, every snapshot
//! looks as old as that.

use crate::error::{Error, Result};
use crate::pair::{Pair, store};
use crate::{locks, session, spi};
use std::time::{Duration, Instant};

/// How long statements that began before the copy ended are waited for, and how often they are asked after.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// Notes that the copy is over, and who has a snapshot now: younger ones see all that was copied. Does nothing when that is noted
/// already, and nothing in the transaction that ends the copy, which nobody sees yet.
pub fn note_end_of_copy(pair: &Pair) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.copy_state s
             SET visible_at = pg_catalog.clock_timestamp(),
                 running_then = ARRAY(
                     SELECT l.virtualtransaction
                     FROM pg_catalog.pg_stat_get_activity(NULL) a JOIN pg_catalog.pg_locks l ON l.pid = a.pid
                     WHERE l.locktype = 'virtualxid' AND a.backend_xmin IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
                       AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database d
                                      WHERE d.datname = pg_catalog.current_database()))
             WHERE pair_id = $1 AND stage IN ('finish', 'done') AND visible_at IS NULL
               AND pg_catalog.age(s.xmin) > pg_catalog.age(pg_catalog.pg_current_xact_id()::pg_catalog.xid)",
            &[pair.id.into()],
        )
    })?;
    Ok(())
}

/// Rows were written to the side that is not authoritative, which older snapshots do not see: the copy is over when this transaction is.
pub fn copied_more(pair: &Pair) -> Result<()> {
    session::with_own_tables(|| {
        spi::execute(
            "UPDATE partition_router.copy_state SET visible_at = NULL, running_then = NULL WHERE pair_id = $1",
            &[pair.id.into()],
        )
    })?;
    Ok(())
}

/// # Errors
/// `55P03` when there is such a snapshot.
pub fn require_no_old(pair: &Pair) -> Result<()> {
    match old(pair)? {
        None => Ok(()),
        Some(sessions) => Err(Error::SnapshotInTheWay {
            relation: store::display_name(pair.legacy)?,
            sessions,
        }),
    }
}

/// Waits until there is no such snapshot, for [`PATIENCE`] at most.
pub fn wait_for_old(pair: &Pair) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while old(pair)?.is_some() && Instant::now() < deadline {
        locks::sleep(POLL);
        // What this transaction has seen of other sessions it would see again.
        spi::execute("SELECT pg_catalog.pg_stat_clear_snapshot()", &[])?;
    }
    Ok(())
}

/// The sessions that have such a snapshot. Who began before the end of the copy is told by the clock, and by the number of the
/// transaction as well: clocks may be set back. A standby's sessions, which live on when it is promoted, are told by the clock alone.
fn old(pair: &Pair) -> Result<Option<String>> {
    session::with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(pg_catalog.string_agg(
                 pg_catalog.format('pid %s (%s)', a.pid, a.state), ', ' ORDER BY a.pid))
             FROM pg_catalog.pg_stat_get_activity(NULL) a, partition_router.copy_state s
             WHERE s.pair_id = $1 AND a.backend_xmin IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
               AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
               AND a.usesysid IS NOT NULL
               AND pg_catalog.age(a.backend_xmin) >= pg_catalog.age(s.xmin)
               AND (s.visible_at IS NULL OR a.xact_start <= s.visible_at
                    OR EXISTS (SELECT FROM pg_catalog.pg_locks l
                               WHERE l.pid = a.pid AND l.locktype = 'virtualxid'
                                 AND l.virtualtransaction = ANY (s.running_then)))
             HAVING pg_catalog.count(*) > 0",
            &[pair.id.into()],
        )
        .map(|mut rows| rows.pop())
    })
}
