//! Subscriptions apply by name, and keep by oid how far they are with a table: what comes for a table that they do not know is passed
//! over without a word, by every worker that is started from then on. So the side that takes the name becomes known to them in the
//! transaction that gives it the name.

use crate::error::{Error, Result};
use crate::pair::store;
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys::Oid;

/// # Errors
/// `55006` while the first copy of a subscription fills a table: its worker would go on in the other one.
pub fn require_copied(from: Oid) -> Result<()> {
    let copying: Option<String> = with_own_tables(|| {
        spi::latest_rows(
            "SELECT to_jsonb(s.subname) FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
             WHERE r.srrelid = $1 AND r.srsubstate <> 'r' AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
             ORDER BY s.subname LIMIT 1",
            &[from.into()],
        )
        .map(|mut rows| rows.pop())
    })?;
    match copying {
        None => Ok(()),
        Some(subscription) => Err(Error::Busy {
            relation: store::display_name(from)?,
            operation: format!("the first copy by subscription \"{subscription}\""),
        }),
    }
}

/// Makes `to` known to the subscriptions that know `from`, which they go on to know: it comes to its name again by a rollback.
pub fn follow(from: Oid, to: Oid) -> Result<()> {
    with_own_tables(|| {
        spi::execute(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate, srsublsn)
             SELECT r.srsubid, $2, r.srsubstate, r.srsublsn FROM pg_subscription_rel r
             WHERE r.srrelid = $1
               AND NOT EXISTS (SELECT FROM pg_subscription_rel k WHERE k.srsubid = r.srsubid AND k.srrelid = $2)",
            &[from.into(), to.into()],
        )
    })?;
    Ok(())
}
