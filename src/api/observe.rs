//! The calls that show what there is.

use crate::error::report;
use crate::observe::Counting;
use crate::{calls, observe};
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::{JsonB, prelude::*};

#[pg_extern(sql = false)]
fn metrics(exact: bool) -> JsonB {
    let counting = if exact { Counting::All } else { Counting::Small };
    report(|| Ok(JsonB(observe::metrics(counting)?)))
}

#[pg_extern(sql = false)]
fn verify_partitions() -> JsonB {
    report(|| Ok(JsonB(observe::verify_partitions()?)))
}

#[pg_extern(sql = false)]
fn openmetrics() -> String {
    report(observe::openmetrics)
}

#[pg_extern(sql = false, name = "report")]
fn report_page() -> String {
    report(observe::report)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn chart(
    relation: Oid,
) -> TableIterator<
    'static,
    (
        name!(partition, String),
        name!(bounds, String),
        name!(estimated_rows, i64),
        name!(size, String),
        name!(bar, String),
    ),
> {
    report(|| {
        let bars = observe::chart(relation)?.into_iter();
        Ok(TableIterator::new(bars.map(|bar| {
            (bar.partition, bar.bounds, bar.estimated_rows, bar.size, bar.bar)
        })))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn health_checks() -> TableIterator<
    'static,
    (
        name!(relation, String),
        name!(check, String),
        name!(status, String),
        name!(message, String),
        name!(mend, Option<String>),
    ),
> {
    report(|| {
        Ok(TableIterator::new(observe::checks()?.into_iter().map(|c| {
            (
                c.relation,
                c.check.to_string(),
                c.status.as_str().to_string(),
                c.message,
                c.mend,
            )
        })))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn table_figures() -> TableIterator<
    'static,
    (
        name!(relation, String),
        name!(partitions, i64),
        name!(partitions_ahead, Option<i64>),
        name!(premake, Option<i64>),
        name!(bytes, i64),
        name!(bytes_source, String),
        name!(estimated_rows, i64),
        name!(default_rows, i64),
        name!(default_rows_to_move, Option<i64>),
        name!(maintenance_failed, Option<bool>),
        name!(maintenance_last_run, Option<f64>),
        name!(archives_unfinished, i64),
        name!(archive_lag, f64),
    ),
> {
    report(|| {
        Ok(TableIterator::new(observe::table_metrics()?.into_iter().map(
            |t| {
                (
                    t.relation,
                    t.partitions,
                    t.partitions_ahead,
                    t.premake,
                    t.bytes,
                    t.bytes_source.as_str().to_string(),
                    t.estimated_rows,
                    t.default_rows,
                    t.default_rows_to_move,
                    t.maintenance_failed,
                    t.maintenance_last_run,
                    t.archives_unfinished,
                    t.archive_lag,
                )
            },
        )))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn pair_figures() -> TableIterator<
    'static,
    (
        name!(relation, String),
        name!(twin, Option<String>),
        name!(phase, String),
        name!(strategy, String),
        name!(estimated_legacy_rows, i64),
        name!(estimated_twin_rows, i64),
        name!(proven_rows, Option<i64>),
        name!(proven_at, Option<f64>),
        name!(is_proven, bool),
        name!(rollout_percent, i32),
        name!(backfill_ratio, Option<f64>),
        name!(backfill_rows, Option<i64>),
        name!(backfill_rows_total, Option<i64>),
        name!(backfill_seconds_left, Option<f64>),
        name!(sync_errors, i64),
    ),
> {
    report(|| {
        Ok(TableIterator::new(observe::pair_metrics()?.into_iter().map(
            |p| {
                (
                    p.relation,
                    p.twin,
                    p.phase,
                    p.strategy,
                    p.estimated_legacy_rows,
                    p.estimated_twin_rows,
                    p.proven_rows,
                    p.proven_at,
                    p.is_proven,
                    p.rollout_percent,
                    p.backfill_ratio,
                    p.backfill_rows,
                    p.backfill_rows_total,
                    p.backfill_seconds_left,
                    p.sync_errors,
                )
            },
        )))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn calls_at_work() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(relation, Oid),
        name!(call, String),
        name!(stage, String),
        name!(done, i64),
        name!(total, Option<i64>),
        name!(unit, String),
        name!(rate, Option<f64>),
        name!(seconds_left, Option<f64>),
        name!(blocked_by, Option<String>),
        name!(began, f64),
    ),
> {
    report(|| {
        Ok(TableIterator::new(calls::at_work()?.into_iter().map(|at_work| {
            let line = at_work.line;
            (
                line.pid,
                Oid::from(line.relation),
                line.call.as_str().to_string(),
                line.stage.as_str().to_string(),
                line.done as i64,
                (line.total > 0).then_some(line.total as i64),
                line.stage.unit().as_str().to_string(),
                at_work.rate,
                at_work.eta,
                at_work.blocked_by,
                line.began_unix(),
            )
        })))
    })
}
