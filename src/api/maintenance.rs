//! The calls of maintenance.

use super::{about, change, given};
use crate::error::{Error, Result, report};
use crate::execute::Mode;
use crate::ident::Ident;
use crate::maintenance::rules::Change;
use crate::maintenance::schedule::Job;
use crate::maintenance::{self, Part, When, by_hand, hold, import, place, schedule};
use crate::spi;
use pgrx::datum::Interval;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::ffi::CStr;

/// An argument of type `name`.
fn ident(name: &CStr) -> Ident {
    Ident::new(name.to_string_lossy())
}

/// A length of time, as text that every IntervalStyle reads.
///
/// # Errors
/// `BadArgument` when it is infinite, as it may be from PostgreSQL 17 on: all its fields are at their end.
pub(super) fn interval_text(argument: &str, interval: Interval) -> Result<String> {
    let (months, days, micros) = (interval.months(), interval.days(), interval.micros());
    let ends = [(i32::MAX, i32::MAX, i64::MAX), (i32::MIN, i32::MIN, i64::MIN)];
    if ends.contains(&(months, days, micros)) {
        return Err(Error::BadArgument {
            argument: argument.into(),
            reason: "it is infinite".into(),
            hint: "Use a length of time that ends, such as '24 months'.".into(),
        });
    }
    Ok(format!("{months} mons {days} days {micros} microseconds"))
}

fn rules(
    premake: Option<i32>,
    retention: Option<Interval>,
    retention_action: Option<String>,
    archive_schema: Option<&CStr>,
    timezone: Option<String>,
) -> Result<Change> {
    Ok(Change {
        premake,
        retention: retention.map(|it| interval_text("retention", it)).transpose()?,
        retention_action,
        archive_schema: archive_schema.map(ident),
        timezone,
        ..Change::default()
    })
}

/// A function by its name and the types that it takes, qualified: `search_path` is pinned here.
fn signature(function: Oid) -> Result<String> {
    if function == Oid::INVALID {
        return Err(Error::BadArgument {
            argument: "archive_function".into(),
            reason: "there is no function with oid 0".into(),
            hint:
                "Name a function that takes a partition and gives the relation by which the archive is read."
                    .into(),
        });
    }
    let text: Option<String> = spi::row(
        "SELECT pg_catalog.to_jsonb($1::oid::pg_catalog.regprocedure::text)",
        &[function.into()],
    )?;
    text.ok_or_else(|| Error::Internal("a function has no name".into()))
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn manage(
    parent: Option<Oid>,
    partition_interval: Option<&str>,
    premake: Option<i32>,
    retention: Option<Interval>,
    retention_action: Option<&str>,
    archive_schema: Option<&CStr>,
    timezone: Option<&str>,
    retention_count: Option<i32>,
    min_partitions: Option<i32>,
    dry_run: Option<bool>,
    archive_format: Option<String>,
    archive_function: Option<Oid>,
    origin: Option<String>,
    template: Option<Oid>,
) {
    change(c"manage()", dry_run == Some(true), || {
        let parent = given("parent", parent)?;
        let partition_interval = given("partition_interval", partition_interval)?;
        let premake = given("premake", premake)?;
        let retention_action = given("retention_action", retention_action)?;
        let timezone = given("timezone", timezone)?;
        let dry_run = given("dry_run", dry_run)?;
        // The default action is no choice: without a length nothing is retired.
        let action =
            Some(retention_action.to_owned()).filter(|action| action != "drop" || retention.is_some());
        let change = Change {
            retention_count,
            min_partitions: Some(given("min_partitions", min_partitions)?),
            archive_format,
            archive_function: archive_function.map(signature).transpose()?,
            origin,
            template,
            ..rules(
                Some(premake),
                retention,
                action,
                archive_schema,
                Some(timezone.into()),
            )?
        };
        about(parent, || {
            maintenance::rules::manage(parent, partition_interval, change, Mode::from_dry_run(dry_run))
        })
    });
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn set_policy(
    relation: Option<Oid>,
    premake: Option<i32>,
    retention: Option<Interval>,
    retention_action: Option<String>,
    archive_schema: Option<&CStr>,
    timezone: Option<String>,
    retention_count: Option<i32>,
    min_partitions: Option<i32>,
    dry_run: Option<bool>,
    archive_format: Option<String>,
    archive_function: Option<Oid>,
    origin: Option<String>,
    template: Option<Oid>,
) {
    change(c"set_policy()", dry_run == Some(true), || {
        let (relation, dry_run) = (given("relation", relation)?, given("dry_run", dry_run)?);
        let change = Change {
            retention_count,
            min_partitions,
            archive_format,
            archive_function: archive_function.map(signature).transpose()?,
            origin,
            template,
            ..rules(premake, retention, retention_action, archive_schema, timezone)?
        };
        about(relation, || {
            maintenance::rules::set_policy(relation, change, Mode::from_dry_run(dry_run))
        })
    });
}

#[pg_extern(sql = false)]
fn create_partitions(
    relation: Option<Oid>,
    premake: Option<i32>,
    dry_run: Option<bool>,
) -> SetOfIterator<'static, String> {
    let names = change(c"create_partitions()", dry_run == Some(true), || {
        let mode = Mode::from_dry_run(given("dry_run", dry_run)?);
        let relation = given("relation", relation)?;
        about(relation, || by_hand::create_partitions(relation, premake, mode))
    });
    SetOfIterator::new(names.into_iter().map(|name| name.to_string()))
}

#[pg_extern(sql = false)]
fn create_range_partition(relation: Oid, partition: &CStr, lower: &str, upper: &str, dry_run: bool) {
    change(c"create_range_partition()", dry_run, || {
        let mode = Mode::from_dry_run(dry_run);
        about(relation, || {
            by_hand::create_range_partition(relation, ident(partition), lower, upper, mode)
        })
    });
}

#[pg_extern(sql = false)]
fn drop_partition(partition: Oid, dry_run: bool) {
    change(c"drop_partition()", dry_run, || {
        about(partition, || {
            by_hand::drop_partition(partition, Mode::from_dry_run(dry_run))
        })
    });
}

#[pg_extern(sql = false)]
fn restore_archive(archive: i64) -> Oid {
    change(c"restore_archive()", false, || {
        maintenance::restore::restore(archive)
    })
}

#[pg_extern(sql = false)]
fn hold(partition: Option<Oid>, reason: Option<&str>) {
    change(c"hold()", false, || {
        hold::hold(given("partition", partition)?, reason)
    });
}

#[pg_extern(sql = false)]
fn release(partition: Oid) -> bool {
    change(c"release()", false, || hold::release(partition))
}

#[pg_extern(sql = false)]
fn maintenance_targets(relation: Option<Oid>, part: Option<&str>) -> Vec<Oid> {
    change(c"run_maintenance()", false, || {
        Part::parse(given("part", part)?)?;
        maintenance::targets(relation)
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn maintenance_tasks(
    parent: Oid,
    part: &str,
    at_once: bool,
) -> TableIterator<'static, (name!(creating, Vec<String>), name!(cleaning, Vec<String>))> {
    let when = match at_once {
        true => When::AtOnce,
        false => When::Later,
    };
    let tasks = change(c"run_maintenance()", false, || {
        about(parent, || maintenance::tasks(parent, Part::parse(part)?, when))
    });
    TableIterator::once((tasks.create, tasks.cleanup))
}

#[pg_extern(sql = false)]
fn maintenance_let_go() {
    maintenance::lease::let_go();
}

#[pg_extern(sql = false)]
fn maintenance_task(parent: Oid, task: &str) -> bool {
    change(c"run_maintenance()", false, || {
        about(parent, || maintenance::task::run(parent, task))
    })
}

#[pg_extern(sql = false)]
fn maintenance_unproven(relation: Option<Oid>, part: Option<&str>) -> Vec<Oid> {
    change(c"run_maintenance()", false, || {
        let part = given("part", part)?;
        // The last look of a call: what could not be recorded before may have room by now.
        maintenance::failures::record_waiting()?;
        match Part::parse(part)?.cleans_up() {
            true => maintenance::parity::due(relation),
            false => Ok(Vec::new()),
        }
    })
}

#[pg_extern(sql = false)]
fn maintenance_verify(legacy: Oid) {
    change(c"run_maintenance()", false, || {
        about(legacy, || maintenance::parity::check(legacy))
    });
}

#[pg_extern(sql = false)]
fn maintenance_unanalyzed(relation: Option<Oid>) -> Vec<Oid> {
    report(|| maintenance::analyze::due(relation))
}

#[pg_extern(sql = false)]
fn maintenance_analyze(parent: Oid) {
    change(c"run_maintenance()", false, || {
        about(parent, || maintenance::analyze::run(parent))
    });
}

#[pg_extern(sql = false)]
fn maintenance_failed(
    parent: Option<Oid>,
    task: Option<String>,
    sqlstate: Option<&str>,
    message: Option<&str>,
) {
    change(c"run_maintenance()", false, || {
        let (sqlstate, message) = (given("sqlstate", sqlstate)?, given("message", message)?);
        maintenance::task::failed(given("parent", parent)?, task.as_deref(), sqlstate, message)
    });
}

#[pg_extern(sql = false)]
fn maintenance_dry_run(relation: Option<Oid>, part: Option<&str>) {
    report(|| maintenance::dry_run(relation, Part::parse(given("part", part)?)?));
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn import_partman(
    dry_run: Option<bool>,
    partman_schema: Option<&CStr>,
) -> TableIterator<
    'static,
    (
        name!(relation, String),
        name!(status, String),
        name!(message, String),
    ),
> {
    let outcomes = change(c"import_partman()", dry_run == Some(true), || {
        let mode = Mode::from_dry_run(given("dry_run", dry_run)?);
        import::import(partman_schema.map(ident), mode)
    });
    let rows = outcomes.into_iter();
    TableIterator::new(rows.map(|o| (o.relation, o.status.to_owned(), o.message)))
}

type JobRow = (i64, String, String, String);

fn job_rows(jobs: Vec<Job>) -> impl Iterator<Item = JobRow> {
    jobs.into_iter().map(|j| (j.job_id, j.job, j.schedule, j.command))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn schedule_maintenance(
    create_schedule: &str,
    cleanup_schedule: &str,
) -> TableIterator<
    'static,
    (
        name!(job_id, i64),
        name!(job, String),
        name!(schedule, String),
        name!(command, String),
    ),
> {
    TableIterator::new(job_rows(change(c"schedule_maintenance()", false, || {
        schedule::schedule(create_schedule, cleanup_schedule)
    })))
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn unschedule_maintenance() -> TableIterator<
    'static,
    (
        name!(job_id, i64),
        name!(job, String),
        name!(schedule, String),
        name!(command, String),
    ),
> {
    TableIterator::new(job_rows(change(
        c"unschedule_maintenance()",
        false,
        schedule::unschedule,
    )))
}

fn server_name(server: Option<&CStr>) -> Option<Ident> {
    server.map(ident)
}

#[pg_extern(sql = false)]
fn place_step(partition: Option<Oid>, server: Option<&CStr>) -> bool {
    change(c"place()", false, || {
        let partition = given("partition", partition)?;
        about(partition, || place::step(partition, server_name(server)))
    })
}

#[pg_extern(sql = false)]
fn place_dry_run(partition: Option<Oid>, server: Option<&CStr>) {
    report(|| {
        let partition = given("partition", partition)?;
        about(partition, || place::dry_run(partition, server_name(server)))
    });
}
