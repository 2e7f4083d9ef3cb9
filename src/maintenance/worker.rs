//! Maintenance without pg_cron. A launcher, started with the server where the library is preloaded, reads from
//! `pg_db_role_setting` which databases want maintenance, and starts for each that is due one worker after the other. A worker
//! connects as `partition_router.maintenance_role` and does what `CALL run_maintenance()` does for that role: it can do no more.
//! On a standby there is no launcher until it is promoted.
#![allow(unsafe_code)]

use super::{Part, When, lease};
use crate::error::{Error, Result};
use crate::locks::{self, budget};
use crate::session::with_own_tables;
use crate::worker::transaction;
use crate::{compat, settings, spi};
use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

const ACTIVITY: &CStr = c"partition_router: maintenance";
/// What `pg_stat_activity.backend_type` says.
const LAUNCHER: &str = "partition_router launcher";
const WORKER: &str = "partition_router maintenance";

/// How long the launcher sleeps before it looks again which databases want what: a changed setting counts after this.
const LOOK: Duration = Duration::from_secs(5);

/// Registers the launcher. Called once, when the library is loaded.
pub fn init() {
    // SAFETY: a plain read.
    if !unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    BackgroundWorkerBuilder::new(LAUNCHER)
        .set_type(LAUNCHER)
        .set_library("partition_router")
        .set_function("partition_router_maintenance_launcher")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(10)))
        .load();
}

/// What one database wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    database: Oid,
    interval: Duration,
    role: String,
}

/// The launcher's life.
///
/// # Safety
/// Called by the server as the main function of a background worker.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn partition_router_maintenance_launcher(_argument: pg_sys::Datum) {
    compat::end_at_sigterm();
    compat::reload_at_sighup();
    let home = CString::new(settings::launcher_database()).unwrap_or_default();
    // SAFETY: the order of calls is that of the server's own workers; the name is copied. As nobody's session: it reads
    // catalogs that all databases share, and runs nothing that a user can define.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnection(home.as_ptr(), std::ptr::null(), 0);
    }
    let mut last_runs: HashMap<Oid, Instant> = HashMap::new();
    loop {
        compat::reload_if_asked();
        let wishes = transaction(ACTIVITY, wishes);
        last_runs.retain(|database, _| wishes.iter().any(|wish| wish.database == *database));
        let mut pause = LOOK;
        for wish in wishes {
            let since = last_runs.get(&wish.database).map(Instant::elapsed);
            match since {
                Some(since) if since < wish.interval => pause = pause.min(wish.interval - since),
                _ => {
                    last_runs.insert(wish.database, Instant::now());
                    launch(&wish);
                    pause = pause.min(wish.interval);
                }
            }
        }
        locks::sleep(pause);
    }
}

/// Starts the worker of one database, and waits until it has ended: one at a time.
fn launch(wish: &Wish) {
    let role = match transaction(ACTIVITY, || worker_role(&wish.role)) {
        Ok(role) => role,
        Err(reason) => {
            pgrx::warning!("no maintenance by the clock: {reason}");
            return;
        }
    };
    // Both fit into what a worker gets to know.
    let argument = u64::from(wish.database.to_u32()) << 32 | u64::from(role.to_u32());
    // SAFETY: a plain read.
    let launcher = unsafe { pg_sys::MyProcPid };
    let worker = BackgroundWorkerBuilder::new(WORKER)
        .set_type(WORKER)
        .set_library("partition_router")
        .set_function("partition_router_maintenance_worker")
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .set_restart_time(None)
        .set_notify_pid(launcher)
        .enable_spi_access()
        .load_dynamic();
    match worker {
        Ok(worker) => {
            // It may have ended before it was seen to start, or with the postmaster, which takes the launcher too.
            let _ = worker.wait_for_startup();
            let _ = worker.wait_for_shutdown();
        }
        Err(_) => {
            pgrx::warning!("no maintenance by the clock: no background worker is free (max_worker_processes)")
        }
    }
}

/// The role that a worker is to be, or why it cannot be that.
fn worker_role(name: &str) -> Result<std::result::Result<Oid, String>> {
    if name.is_empty() {
        return Ok(Err("partition_router.maintenance_role names no role".into()));
    }
    let c_name = CString::new(name).map_err(|e| Error::Internal(e.to_string()))?;
    // SAFETY: looks at a shared catalog, in a transaction.
    let (role, is_superuser) = unsafe {
        let role = pg_sys::get_role_oid(c_name.as_ptr(), true);
        (role, role != Oid::INVALID && pg_sys::superuser_arg(role))
    };
    Ok(match (role, is_superuser) {
        (Oid::INVALID, _) => Err(format!("role \"{name}\" does not exist")),
        (_, true) => Err(format!("role \"{name}\" is a superuser")),
        (role, false) => Ok(role),
    })
}

/// The databases that want maintenance: by a setting of their own, else by the server's. Templates never do.
fn wishes() -> Result<Vec<Wish>> {
    #[derive(Deserialize)]
    struct Row {
        database: u32,
        interval: Option<String>,
        role: Option<String>,
    }
    let rows: Vec<Row> = with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_object('database', d.oid::bigint,
                 'interval', (SELECT pg_catalog.substr(c, 39) FROM pg_catalog.unnest(s.setconfig) AS c
                              WHERE pg_catalog.starts_with(pg_catalog.lower(c), 'partition_router.maintenance_interval=')),
                 'role', (SELECT pg_catalog.substr(c, 35) FROM pg_catalog.unnest(s.setconfig) AS c
                          WHERE pg_catalog.starts_with(pg_catalog.lower(c), 'partition_router.maintenance_role=')))
             FROM pg_catalog.pg_database d
             LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
             WHERE d.datallowconn AND NOT d.datistemplate ORDER BY d.oid",
            &[],
        )
    })?;
    let wish = |row: Row| Wish {
        database: row.database.into(),
        interval: row
            .interval
            .and_then(|text| settings::parse_maintenance_interval(&text))
            .unwrap_or_else(settings::maintenance_interval),
        role: row.role.unwrap_or_else(settings::maintenance_role),
    };
    Ok(rows
        .into_iter()
        .map(wish)
        .filter(|wish| !wish.interval.is_zero())
        .collect())
}

/// A worker's life: one run in one database.
///
/// # Safety
/// Called by the server with the argument that [`launch`] made.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn partition_router_maintenance_worker(argument: pg_sys::Datum) {
    compat::end_at_sigterm();
    let argument = argument.value() as u64;
    let (database, role) = (Oid::from((argument >> 32) as u32), Oid::from(argument as u32));
    // SAFETY: the order of calls is that of the server's own workers.
    unsafe {
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, role, 0);
    }
    if transaction(ACTIVITY, may_run) {
        run();
    }
}

/// Whether the extension is in this database, and its calls are for this role.
fn may_run() -> Result<bool> {
    let may: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.has_function_privilege(
             pg_catalog.to_regprocedure('partition_router.run_maintenance(regclass,boolean,text)'), 'EXECUTE'))
         WHERE EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'partition_router')",
        &[],
    )?;
    match may {
        Some(true) => Ok(true),
        Some(false) => {
            pgrx::warning!(
                "no maintenance by the clock: the role may not execute partition_router.run_maintenance()"
            );
            Ok(false)
        }
        None => Ok(false),
    }
}

/// What the procedure `run_maintenance` does, in the same order.
fn run() {
    let part = Part::All;
    let mut cleanup = Vec::new();
    for parent in transaction(ACTIVITY, || super::targets(None)) {
        let Some(tasks) = attempt(parent, None, || super::tasks(parent, part, When::AtOnce)) else {
            continue;
        };
        for task in &tasks.create {
            work_off(parent, task);
        }
        cleanup.extend(tasks.cleanup.into_iter().map(|task| (parent, task)));
        lease::let_go();
    }
    for (parent, task) in &cleanup {
        work_off(*parent, task);
    }
    lease::let_go();
    for parent in transaction(ACTIVITY, || super::analyze::due(None)) {
        attempt(parent, None, || super::analyze::run(parent));
    }
    for legacy in transaction(ACTIVITY, || super::parity::due(None)) {
        attempt(legacy, None, || super::parity::check(legacy));
    }
}

fn work_off(parent: Oid, task: &str) {
    while attempt(parent, Some(task), || super::task::run(parent, task)) == Some(true) {}
}

/// Runs `body` in a transaction of its own; a failure is recorded and stops nothing else.
fn attempt<T>(parent: Oid, task: Option<&str>, body: impl FnOnce() -> Result<T>) -> Option<T> {
    transaction(ACTIVITY, || match budget::subtransaction(body) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(error)) => {
            super::task::failed(parent, task, error.sqlstate(), &error.message())?;
            Ok(None)
        }
        Err(caught) if budget::is_cancel(&caught) => caught.rethrow(),
        Err(caught) => {
            super::task::failed(
                parent,
                task,
                &budget::sqlstate_text(&caught),
                &budget::message(&caught),
            )?;
            Ok(None)
        }
    })
}
