//! Who holds what a swap waits for: prepared transactions, locks.

use crate::error::{Error, Result};
use crate::pair::{Pair, store};
use crate::{locks, session, spi};
use pgrx::pg_sys::Oid;

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
