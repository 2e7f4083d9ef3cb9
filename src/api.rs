//! Every SQL-callable function: takes the arguments apart, calls the module that does the work, and hands back rows.
//! The SQL declarations, with defaults, comments and grants, are in `sql/functions/`.

mod feed;
mod index_build;
mod maintenance;
mod observe;
mod route;
mod switchover;

use crate::error::{Error, Result, report};
use crate::execute::{self, Mode};
use crate::maintenance::Part;
use crate::plan::Plan;
use crate::session::strangers;
use crate::twin::Request;
use crate::{backfill, catalog::load, compat, ident::Ident, migrate, parity, preflight};
use backfill::Progress;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::{JsonB, prelude::*};
use std::ffi::CStr;
use std::time::Duration;

fn plan_rows(
    plan: &Plan,
) -> TableIterator<'static, (name!(step, i32), name!(action, String), name!(statement, String))> {
    TableIterator::new(plan.rows())
}

/// A `name` argument.
fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

/// Runs a call that changes something, which neither a standby can nor a read-only transaction: there it ends with 25006. A dry run
/// only reads.
fn change<T>(call: &CStr, dry_run: bool, body: impl FnOnce() -> Result<T>) -> T {
    report(|| {
        if !dry_run {
            require_writable(call)?;
        }
        body()
    })
}

/// # Errors
/// `25006` where nothing can be written.
fn require_writable(call: &CStr) -> Result<()> {
    let Some(why) = compat::read_only() else {
        return Ok(());
    };
    let standby = why == compat::ReadOnly::Recovery;
    let primary = match standby {
        true => crate::observe::primary()?,
        false => None,
    };
    Err(Error::ReadOnly {
        call: text(call),
        standby,
        primary,
    })
}

/// Runs a call about a table. Whoever calls: the code of the table's owner that the server comes across runs as the owner.
fn about<T>(relation: Oid, body: impl FnOnce() -> Result<T>) -> Result<T> {
    match load::owner(relation) {
        Ok(owner) => strangers::as_owner(owner, body),
        // The call itself says what it makes of that.
        Err(Error::UnknownRelation { .. }) => body(),
        Err(error) => Err(error),
    }
}

/// An argument of a function that is not STRICT because others of its arguments may be null.
fn given<T>(argument: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::NullArgument {
        argument: argument.into(),
    })
}

#[pg_extern(sql = false)]
fn is_replication_worker() -> bool {
    #[allow(unsafe_code)]
    // SAFETY: a plain read.
    unsafe {
        pg_sys::IsLogicalWorker()
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn preflight(
    legacy: Oid,
    partition_key: &CStr,
    strategy: &str,
) -> TableIterator<
    'static,
    (
        name!(severity, String),
        name!(code, String),
        name!(message, String),
        name!(hint, String),
    ),
> {
    report(|| {
        crate::pair::store::require_owner(legacy)?;
        let request = Request {
            partition_key: Ident::new(text(partition_key)),
            ..Request::with_defaults(strategy)
        };
        let findings = about(legacy, || {
            preflight::findings(&load::table_def(legacy)?, &request)
        })?;
        Ok(TableIterator::new(findings.into_iter().map(|f| {
            (
                f.severity.as_str().to_string(),
                f.code.to_string(),
                f.message,
                f.hint,
            )
        })))
    })
}

/// What the arguments that `migrate()` and `create_twin()` share ask for.
#[allow(clippy::too_many_arguments)]
fn request(
    partition_key: Option<&CStr>,
    strategy: Option<&str>,
    partition_interval: Option<&str>,
    partitions: Option<i32>,
    premake: Option<i32>,
    twin: Option<&CStr>,
    keep_unique: Option<bool>,
    origin: Option<&str>,
) -> Result<Request> {
    Ok(Request {
        partition_key: Ident::new(text(given("partition_key", partition_key)?)),
        strategy: given("strategy", strategy)?.into(),
        partition_interval: given("partition_interval", partition_interval)?.into(),
        partitions: given("partitions", partitions)?,
        premake: given("premake", premake)?,
        twin: twin.map(|name| Ident::new(text(name))),
        keep_unique: given("keep_unique", keep_unique)?,
        origin: origin.map(str::to_owned),
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn create_twin(
    legacy: Option<Oid>,
    partition_key: Option<&CStr>,
    strategy: Option<&str>,
    partition_interval: Option<&str>,
    partitions: Option<i32>,
    premake: Option<i32>,
    twin: Option<&CStr>,
    dry_run: Option<bool>,
    keep_unique: Option<bool>,
    origin: Option<&str>,
) -> TableIterator<'static, (name!(step, i32), name!(action, String), name!(statement, String))> {
    change(c"create_twin()", dry_run == Some(true), || {
        let legacy = given("legacy", legacy)?;
        let request = request(
            partition_key,
            strategy,
            partition_interval,
            partitions,
            premake,
            twin,
            keep_unique,
            origin,
        )?;
        let dry_run = given("dry_run", dry_run)?;
        let plan = about(legacy, || {
            migrate::create_twin(legacy, &request, Mode::from_dry_run(dry_run))
        })?;
        if dry_run {
            execute::run(&plan, Mode::DryRun)?;
        }
        Ok(plan_rows(&plan))
    })
}

#[pg_extern(sql = false)]
fn migrate_check(legacy: Option<Oid>) {
    report(|| migrate::check(given("legacy", legacy)?))
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn migrate_step(
    legacy: Option<Oid>,
    partition_key: Option<&CStr>,
    strategy: Option<&str>,
    partition_interval: Option<&str>,
    partitions: Option<i32>,
    premake: Option<i32>,
    twin: Option<&CStr>,
    keep_unique: Option<bool>,
    origin: Option<&str>,
) -> bool {
    change(c"migrate()", false, || {
        let legacy = given("legacy", legacy)?;
        let request = request(
            partition_key,
            strategy,
            partition_interval,
            partitions,
            premake,
            twin,
            keep_unique,
            origin,
        )?;
        Ok(about(legacy, || migrate::step(legacy, &request))? == Progress::More)
    })
}

#[pg_extern(sql = false)]
fn start_sync(relation: Oid) {
    change(c"start_sync()", false, || {
        about(relation, || backfill::start_sync(relation))
    })
}

/// An interval as a time to wait.
fn waiting_time(pause: Option<pgrx::datum::Interval>) -> Duration {
    let micros = pause.map_or(0, |pause| pause.as_micros().max(0));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[pg_extern(sql = false)]
fn muster_workers(relation: Option<Oid>, batch_rows: Option<i32>, pause: Option<pgrx::datum::Interval>) {
    change(c"migrate() or backfill()", false, || {
        let (relation, batch_rows) = (given("relation", relation)?, given("batch_rows", batch_rows)?);
        crate::worker::muster(relation, batch_rows, waiting_time(pause))
    })
}

#[pg_extern(sql = false)]
fn dismiss_workers() {
    crate::worker::dismiss();
}

#[pg_extern(sql = false)]
fn backfill_step(
    relation: Option<Oid>,
    batch_rows: Option<i32>,
    pause: Option<pgrx::datum::Interval>,
) -> bool {
    change(c"backfill()", false, || {
        let (relation, batch_rows) = (given("relation", relation)?, given("batch_rows", batch_rows)?);
        let pause = waiting_time(pause);
        Ok(about(relation, || backfill::step(relation, batch_rows, pause))? == Progress::More)
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn verify(
    relation: Oid,
    level: &str,
    full: bool,
) -> TableIterator<
    'static,
    (
        name!(partition, Oid),
        name!(legacy_rows, i64),
        name!(twin_rows, i64),
        name!(legacy_checksum, Option<String>),
        name!(twin_checksum, Option<String>),
        name!(matches, bool),
    ),
> {
    report(|| {
        let level = level.parse::<parity::Level>()?;
        let checksum =
            |tally: parity::digest::Tally| (level > parity::Level::Counts).then(|| tally.checksum());
        let extent = if full {
            parity::Extent::Full
        } else {
            parity::Extent::Changed
        };
        let rows: Vec<_> = about(relation, || parity::verify(relation, level, extent))?
            .into_iter()
            .map(|v| {
                (
                    v.partition,
                    v.legacy.rows,
                    v.twin.rows,
                    checksum(v.legacy),
                    checksum(v.twin),
                    v.matches(),
                )
            })
            .collect();
        Ok(TableIterator::new(rows))
    })
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn mismatches(
    relation: Oid,
    max_rows: i32,
) -> TableIterator<
    'static,
    (
        name!(kind, String),
        name!(key, JsonB),
        name!(legacy, Option<JsonB>),
        name!(twin, Option<JsonB>),
        name!(columns, Option<Vec<String>>),
    ),
> {
    report(|| {
        let rows = about(relation, || parity::diff::mismatches(relation, max_rows))?;
        Ok(TableIterator::new(rows.into_iter().map(|m| {
            (
                m.kind,
                JsonB(m.key),
                m.legacy.map(JsonB),
                m.twin.map(JsonB),
                m.columns,
            )
        })))
    })
}

#[pg_extern(sql = false)]
fn repair(
    relation: Oid,
    dry_run: bool,
) -> TableIterator<'static, (name!(inserted, i64), name!(updated, i64), name!(deleted, i64))> {
    change(c"repair()", dry_run, || {
        let repaired = about(relation, || parity::repair::repair(relation, dry_run))?;
        Ok(TableIterator::once((
            repaired.inserted,
            repaired.updated,
            repaired.deleted,
        )))
    })
}

#[pg_extern(sql = false)]
fn abandon(relation: Oid, dry_run: bool) {
    change(c"abandon()", dry_run, || {
        about(relation, || {
            migrate::abandon(relation, Mode::from_dry_run(dry_run))
        })
    })
}

#[pg_extern(sql = false)]
fn plan(
    operation: &str,
    relation: Oid,
) -> TableIterator<'static, (name!(step, i32), name!(action, String), name!(statement, String))> {
    report(|| {
        let plan = about(relation, || match operation {
            "run_maintenance" => crate::maintenance::plan(relation, Part::All),
            _ => migrate::plan(operation, relation),
        })?;
        Ok(plan_rows(&plan))
    })
}
