//! Change feeds: whether every table tells of its changes, and whether anybody takes them.

use super::{Check, Checks, Status, duration};
use crate::error::Result;
use crate::ident::Literal;
use crate::{session, spi};
use serde::Deserialize;

/// A change feed and its outbox.
#[derive(Debug, Deserialize)]
pub struct Feed {
    /// One of its tables, if it has any.
    relation: Option<String>,
    pub name: String,
    key_columns: Vec<String>,
    notify: bool,
    retention: String,
    max_lag: String,
    pub retention_seconds: f64,
    pub max_lag_seconds: f64,
    /// Sides of a pair, and partitions, without triggers that fire always.
    silent: Vec<String>,
    /// Key columns that a table of the feed has no more.
    gone: Vec<String>,
    pub waiting: i64,
    /// Seconds since the oldest change that waits.
    pub lag: Option<f64>,
    is_late: bool,
    is_lost: bool,
}

/// Every change feed, by name.
pub fn feeds() -> Result<Vec<Feed>> {
    session::with_own_tables(|| spi::rows(include_str!("../../../sql/observe/feeds.sql"), &[]))
}

/// The checks of every feed that has a table.
pub fn checks(feeds: &[Feed], found: &mut Vec<Check>) {
    for feed in feeds {
        let Some(relation) = &feed.relation else {
            continue;
        };
        let mut checks = Checks { relation, found };
        triggers(feed, &mut checks);
        lag(feed, &mut checks);
    }
}

fn triggers(feed: &Feed, checks: &mut Checks<'_>) {
    if !feed.gone.is_empty() {
        return checks.add(
            "change_feed",
            Status::Fail,
            format!(
                "feed {} has lost key columns, and tells of every key at each change: {}",
                feed.name,
                feed.gone.join(", ")
            ),
            checks.call("SELECT partition_router.disable_change_feed"),
        );
    }
    if feed.silent.is_empty() {
        return checks.ok("change_feed", "every table of the feed tells of its changes");
    }
    let columns: Vec<String> = feed.key_columns.iter().map(|c| Literal(c).to_string()).collect();
    let mend = format!(
        "SELECT partition_router.enable_change_feed({}, ARRAY[{}], name => {}, retention => {}, max_lag => {}, notify => {})",
        Literal(checks.relation),
        columns.join(", "),
        Literal(&feed.name),
        Literal(&feed.retention),
        Literal(&feed.max_lag),
        feed.notify
    );
    let message = format!(
        "triggers of feed {} are missing or disabled: {}",
        feed.name,
        feed.silent.join(", ")
    );
    checks.add("change_feed", Status::Fail, message, Some(mend));
}

fn lag(feed: &Feed, checks: &mut Checks<'_>) {
    let Some(lag) = feed.lag.filter(|_| feed.is_late || feed.is_lost) else {
        return checks.ok("change_feed_lag", "no change waits for longer than max_lag");
    };
    let status = match feed.is_lost {
        true => Status::Fail,
        false => Status::Warn,
    };
    let message = format!(
        "nobody takes the changes of feed {}: {} wait, the oldest for {}; start its consumer",
        feed.name,
        feed.waiting,
        duration(lag)
    );
    let look = format!(
        "SELECT * FROM partition_router.change_feeds WHERE name = {}",
        Literal(&feed.name)
    );
    checks.add("change_feed_lag", status, message, Some(look));
}
