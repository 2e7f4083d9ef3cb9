//! Who holds what a swap waits for: transactions that are older than the copy, prepared transactions, locks.

use crate::error::{Error, Result};
use crate::pair::{Pair, store};
use crate::{locks, session, spi};
use pgrx::pg_sys::Oid;
use std::time::{Duration, Instant};

/// How long statements that began before the copy ended are waited for, and how often they are asked after.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// # Errors
/// `PR020` when a prepared transaction holds a lock on a side: nobody knows when that ends.
pub fn require_no_prepared(pair: &Pair) -> Result<()> {
    let sides = [pair.legacy, pair.twin];
    for side in sides {
        let found: Option<String> = session::with_own_tables(|| {
            spi::latest_rows(
                "SELECT pg_catalog.to_jsonb(pg_catalog.string_agg(pg_catalog.quote_literal(x.gid), ', '))
                 FROM pg_catalog.pg_prepared_xacts x
                 WHERE x.database = pg_catalog.current_database() AND EXISTS (
                     SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_locks own
                       ON own.virtualtransaction = l.virtualtransaction AND own.transactionid = x.transaction
                     WHERE l.pid IS NULL AND l.relation = $1
                       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                                         WHERE d.datname = pg_catalog.current_database()))
                 HAVING pg_catalog.count(*) > 0",
                &[side.into()],
            )
            .map(|mut rows| rows.pop())
        })?;
        if let Some(transactions) = found {
            return Err(Error::PreparedTransaction {
                relation: store::display_name(side)?,
                transactions,
            });
        }
    }
    Ok(())
}

/// A snapshot that was taken before the copy ended sees none of the rows that were copied, and nothing tells a plain query of the
/// name so: it would read an empty table.
///
/// # Errors
/// `55P03` when there is such a snapshot.
pub fn require_no_old_snapshot(pair: &Pair) -> Result<()> {
    match old_snapshots(pair)? {
        None => Ok(()),
        Some(sessions) => Err(Error::SnapshotInTheWay {
            relation: store::display_name(pair.legacy)?,
            sessions,
        }),
    }
}

/// Waits until there is no such snapshot, for [`PATIENCE`] at most.
pub fn wait_for_old_snapshots(pair: &Pair) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while old_snapshots(pair)?.is_some() && Instant::now() < deadline {
        locks::sleep(POLL);
        // What this transaction has seen of other sessions it would see again.
        spi::execute("SELECT pg_catalog.pg_stat_clear_snapshot()", &[])?;
    }
    Ok(())
}

/// The sessions that have such a snapshot.
fn old_snapshots(pair: &Pair) -> Result<Option<String>> {
    session::with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(pg_catalog.string_agg(
                 pg_catalog.format('pid %s (%s)', a.pid, a.state), ', ' ORDER BY a.pid))
             FROM pg_catalog.pg_stat_get_activity(NULL) a, partition_router.copy_state s
             WHERE s.pair_id = $1 AND a.backend_xmin IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
               AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
               AND a.usesysid IS NOT NULL
               AND a.xact_start <= s.updated_at + interval '1 minute'
               AND pg_catalog.age(a.backend_xmin) >= pg_catalog.age(s.xmin)
             HAVING pg_catalog.count(*) > 0",
            &[pair.id.into()],
        )
        .map(|mut rows| rows.pop())
    })
}

/// Each session that holds a lock which a call has to wait for, with what it runs.
pub fn lines(tables: impl Iterator<Item = Oid>) -> Result<Vec<String>> {
    let mut lines = vec![];
    for table in tables {
        if let Some(who) = locks::holders(table)? {
            lines.push(format!("{}: {who}", store::display_name(table)?));
        }
    }
    Ok(lines)
}

/// For a dry run.
pub fn tell(lines: &[String]) {
    for line in lines {
        pgrx::notice!("in the way now: {line}");
    }
}
