//! Maintenance by the clock, through pg_cron: one job that creates, one that cleans up. Jobs run as whoever schedules them.

use crate::error::{Error, Result};
use crate::ident::Literal;
use crate::spi;
use serde::Deserialize;

/// A job of pg_cron.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    pub job_id: i64,
    pub job: String,
    pub schedule: String,
    pub command: String,
}

/// The names of the jobs, with the part of maintenance that each does.
const JOBS: [(&str, &str); 2] = [
    ("partition_router create", "create"),
    ("partition_router cleanup", "cleanup"),
];

fn command(part: &str) -> String {
    format!("CALL partition_router.run_maintenance(part => {})", Literal(part))
}

/// Schedules both jobs in this database, or changes the schedules that they have.
///
/// # Errors
/// `SchedulerMissing` where pg_cron is not; what pg_cron says to a schedule that it cannot read.
pub fn schedule(create_schedule: &str, cleanup_schedule: &str) -> Result<Vec<Job>> {
    require_pg_cron([create_schedule, cleanup_schedule])?;
    let mut jobs = Vec::with_capacity(JOBS.len());
    for ((name, part), schedule) in JOBS.into_iter().zip([create_schedule, cleanup_schedule]) {
        let command = command(part);
        let job_id: Option<i64> = spi::returning(
            "SELECT pg_catalog.to_jsonb(cron.schedule($1, $2, $3))",
            &[name.into(), schedule.into(), command.as_str().into()],
        )?;
        jobs.push(Job {
            job_id: job_id.ok_or_else(|| Error::Internal("pg_cron gave no job".into()))?,
            job: name.into(),
            schedule: schedule.into(),
            command,
        });
    }
    Ok(jobs)
}

/// Takes the caller's jobs away; gives those that were there.
///
/// # Errors
/// `SchedulerMissing` where pg_cron is not.
pub fn unschedule() -> Result<Vec<Job>> {
    require_pg_cron(["0 2 1 * *", "0 3 15 * *"])?;
    let mut jobs = Vec::new();
    for (name, _) in JOBS {
        let job: Option<Job> = spi::row(
            "SELECT pg_catalog.jsonb_build_object('job_id', j.jobid, 'job', j.jobname, 'schedule', j.schedule,
                                                  'command', j.command)
             FROM cron.job j WHERE j.jobname = $1 AND j.username = CURRENT_USER
               AND j.database = pg_catalog.current_database()",
            &[name.into()],
        )?;
        if let Some(job) = job {
            spi::execute("SELECT cron.unschedule($1::bigint)", &[job.job_id.into()])?;
            jobs.push(job);
        }
    }
    Ok(jobs)
}

/// The schema `cron` is pg_cron's only where the extension is.
fn require_pg_cron(schedules: [&str; 2]) -> Result<()> {
    #[derive(Deserialize)]
    struct Place {
        installed: bool,
        database: String,
        cron_database: Option<String>,
    }
    let place: Option<Place> = spi::row(
        "SELECT pg_catalog.jsonb_build_object(
             'installed', EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron'),
             'database', pg_catalog.current_database(),
             'cron_database', pg_catalog.current_setting('cron.database_name', true))",
        &[],
    )?;
    let place = place.ok_or_else(|| Error::Internal("the server has no name for this database".into()))?;
    if place.installed {
        return Ok(());
    }
    let mend = match place.cron_database {
        Some(cron) if cron == place.database => "Run CREATE EXTENSION pg_cron".to_owned(),
        Some(cron) => format!(
            "pg_cron is at home in database \"{cron}\": run there {}",
            JOBS.into_iter()
                .zip(schedules)
                .map(|((name, part), schedule)| format!(
                    "SELECT cron.schedule_in_database({}, {}, {}, {})",
                    Literal(&format!("{name} {}", place.database)),
                    Literal(schedule),
                    Literal(&command(part)),
                    Literal(&place.database)
                ))
                .collect::<Vec<_>>()
                .join("; ")
        ),
        None => {
            "Add pg_cron to shared_preload_libraries, restart the server and run CREATE EXTENSION pg_cron"
                .into()
        }
    };
    Err(Error::SchedulerMissing {
        database: place.database,
        hint: format!("{mend}; or let a background worker do it: partition_router.maintenance_interval."),
    })
}
