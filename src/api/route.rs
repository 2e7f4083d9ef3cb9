//! The calls that decide which side a read takes, and those that tell of it.

use super::{change, given, text};
use crate::error::report;
use crate::route;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::{JsonB, prelude::*};
use std::ffi::CStr;

#[pg_extern(sql = false)]
fn route(relation: Option<Oid>, tenant: Option<&str>, use_partitioned: Option<bool>) -> Option<Oid> {
    report(|| match relation {
        Some(relation) => Ok(Some(route::route(relation, tenant, use_partitioned)?.0)),
        None => Ok(None),
    })
}

#[pg_extern(sql = false)]
fn explain_route(
    relation: Option<Oid>,
    tenant: Option<&str>,
) -> TableIterator<'static, (name!(target, Oid), name!(reason, String))> {
    report(|| match relation {
        Some(relation) => {
            let (target, reason) = route::route(relation, tenant, None)?;
            Ok(TableIterator::once((target, reason.to_string())))
        }
        None => Ok(TableIterator::empty()),
    })
}

#[pg_extern(sql = false)]
fn set_rollout(
    relation: Option<Oid>,
    percent: Option<i32>,
    pilots: Option<Vec<Option<String>>>,
    excluded: Option<Vec<Option<String>>>,
    tenant_column: Option<&CStr>,
) {
    change(c"set_rollout()", false, || {
        let column = tenant_column.map(text);
        let relation = given("relation", relation)?;
        route::set_rollout(relation, percent, pilots, excluded, column.as_deref())
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn explain_route_query(
    sql: &str,
) -> TableIterator<
    'static,
    (
        name!(relation, Oid),
        name!(target, Oid),
        name!(tenant, Option<String>),
        name!(reason, String),
    ),
> {
    report(|| {
        let places = route::explain::explain_query(sql)?;
        Ok(TableIterator::new(
            places
                .into_iter()
                .map(|p| (p.relation, p.target, p.tenant, p.reason.to_string())),
        ))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn compare_plans(
    sql: &str,
) -> TableIterator<
    'static,
    (
        name!(side, String),
        name!(cost, f64),
        name!(milliseconds, f64),
        name!(row_count, i64),
        name!(buffers_hit, i64),
        name!(buffers_read, i64),
        name!(partitions, i64),
        name!(plan, JsonB),
    ),
> {
    report(|| {
        let sides = route::explain::compare(sql)?;
        Ok(TableIterator::new(sides.into_iter().map(|s| {
            (
                s.side.to_string(),
                s.cost,
                s.milliseconds,
                s.rows,
                s.buffers_hit,
                s.buffers_read,
                s.partitions,
                s.plan(),
            )
        })))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn routing_counts() -> TableIterator<
    'static,
    (
        name!(legacy, Oid),
        name!(target, Oid),
        name!(reason, String),
        name!(decisions, i64),
    ),
> {
    report(|| {
        let counts = route::stats::counts()?;
        Ok(TableIterator::new(
            counts
                .into_iter()
                .map(|c| (c.legacy, c.target, c.reason, c.decisions)),
        ))
    })
}

#[pg_extern(sql = false)]
fn reset_routing_stats() {
    report(route::stats::reset);
}
