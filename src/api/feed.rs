//! The calls of the change feed.

use super::maintenance::interval_text;
use super::{change, given};
use crate::execute::Mode;
use crate::feed::{self, Request};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn enable_change_feed(
    relation: Option<Oid>,
    key_columns: Option<Vec<Option<String>>>,
    name: Option<String>,
    retention: Option<Interval>,
    max_lag: Option<Interval>,
    notify: Option<bool>,
    dry_run: Option<bool>,
) {
    change(c"enable_change_feed()", dry_run == Some(true), || {
        let columns = given("key_columns", key_columns)?.into_iter();
        let request = Request {
            key_columns: columns
                .map(|c| given("key_columns", c))
                .collect::<crate::error::Result<_>>()?,
            name,
            retention: interval_text("retention", given("retention", retention)?)?,
            max_lag: interval_text("max_lag", given("max_lag", max_lag)?)?,
            notify: given("notify", notify)?,
        };
        let mode = Mode::from_dry_run(given("dry_run", dry_run)?);
        feed::enable(given("relation", relation)?, &request, mode)
    });
}

#[pg_extern(sql = false)]
fn disable_change_feed(relation: Oid, dry_run: bool) {
    change(c"disable_change_feed()", dry_run, || {
        feed::disable(relation, Mode::from_dry_run(dry_run))
    });
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn take_changes(
    max_events: Option<i32>,
    feed: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(feed, String),
        name!(key, Option<Vec<Option<String>>>),
        name!(changed_at, TimestampWithTimeZone),
    ),
> {
    TableIterator::new(change(c"take_changes()", false, || {
        feed::take(given("max_events", max_events)?, feed)
    }))
}
