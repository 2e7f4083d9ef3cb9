//! Strong locks on live tables, within a budget: a request, for however many tables, waits at most `partition_router.lock_timeout`, then
//! steps back so that whoever queued behind it goes on, and tries again after a pause.
#![allow(unsafe_code)]

pub mod budget;
mod cancel;

use crate::error::{Error, Result};
use crate::{calls, pair, session, settings, spi};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::cell::Cell;
use std::ffi::c_int;
use std::time::{Duration, Instant};

/// How often a lock is asked for before the call gives up.
const ATTEMPTS: usize = 50;

/// The first attempts wait for a part of the budget only: beside short transactions the first or second of them gets its locks, and
/// who queues behind one that does not is let go soon.
const SHORT_ATTEMPTS: u32 = 4;

/// After this many attempts, and again after as many more, autovacuum is asked to step aside.
const ATTEMPTS_BEFORE_CANCEL: usize = 5;

/// The lock modes that this extension takes on tables that are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    AccessExclusive,
}

impl LockMode {
    /// The weakest of these modes that is at least as strong as the server's `number`.
    pub fn at_least(number: c_int) -> Self {
        use LockMode::*;
        let modes = [ShareUpdateExclusive, Share, ShareRowExclusive];
        modes
            .into_iter()
            .find(|mode| mode.number() >= number)
            .unwrap_or(AccessExclusive)
    }

    fn number(self) -> c_int {
        match self {
            LockMode::ShareUpdateExclusive => pg_sys::ShareUpdateExclusiveLock as c_int,
            LockMode::Share => pg_sys::ShareLock as c_int,
            LockMode::ShareRowExclusive => pg_sys::ShareRowExclusiveLock as c_int,
            LockMode::AccessExclusive => pg_sys::AccessExclusiveLock as c_int,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            LockMode::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            LockMode::Share => "SHARE",
            LockMode::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            LockMode::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

/// Locks `wanted` in the given order until the transaction ends: all of them or none.
///
/// # Errors
/// `55P03` with the blocking sessions in its DETAIL when none of the attempts fitted.
pub fn acquire(wanted: &[(Oid, LockMode)]) -> Result<()> {
    let mut pause = Duration::from_millis(10);
    for attempt in 1..=ATTEMPTS {
        match try_all(wanted, patience(attempt, settings::lock_timeout()))? {
            None => return Ok(()),
            Some((blocked, mode)) if attempt == ATTEMPTS => {
                return Err(Error::LockNotAvailable {
                    relation: pair::store::display_name(blocked)?,
                    mode: Some(mode.name()),
                    attempts: ATTEMPTS,
                    blockers: blockers(blocked)?,
                });
            }
            Some((blocked, mode)) => {
                if attempt % ATTEMPTS_BEFORE_CANCEL == 0 {
                    cancel_autovacuum(blocked)?;
                }
                calls::waits_for(blocked, Some(mode.name()))?;
                sleep(pause);
            }
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
    Ok(())
}

/// How long attempt number `attempt`, from 1 on, waits at most: the whole of `budget` from the first that is not short.
fn patience(attempt: usize, budget: Duration) -> Duration {
    let parts = SHORT_ATTEMPTS + 1;
    let part = u32::try_from(attempt).map_or(parts, |attempt| attempt.min(parts));
    (budget * part / parts).max(Duration::from_millis(1))
}

/// One attempt for all of them, for at most `limit`, in one subtransaction so that a failure leaves no lock behind. Gives the relation
/// that was not to be had.
fn try_all(wanted: &[(Oid, LockMode)], limit: Duration) -> Result<Option<(Oid, LockMode)>> {
    let limit = limit.as_millis() as c_int;
    let asked = Cell::new(None);
    let listening = cancel::Listening::begin();
    // SAFETY: LockTimeout is what the setting lock_timeout stores; it is put back before anything else runs, since the
    // subtransaction hands back every error instead of letting it pass.
    let result = unsafe {
        let saved = pg_sys::LockTimeout;
        let result = budget::subtransaction(|| {
            let begun = Instant::now();
            for &(relation, mode) in wanted {
                asked.set(Some((relation, mode)));
                // Whoever waits for the first waits until all are there.
                let left = limit.saturating_sub(begun.elapsed().as_millis() as c_int).max(1);
                pg_sys::LockTimeout = if saved > 0 { saved.min(left) } else { left };
                pg_sys::LockRelationOid(relation, mode.number());
            }
            Ok(())
        });
        pg_sys::LockTimeout = saved;
        result
    };
    match result {
        Ok(locked) => locked.map(|()| None),
        Err(caught) if budget::is_lock_failure(&caught) => {
            listening.end_if_asked();
            Ok(asked.get())
        }
        Err(caught) => caught.rethrow(),
    }
}

/// What `pg_stat_activity` shows stays as it was when this transaction looked first: a worker that came since would be missed.
fn look_at_sessions_anew() {
    // SAFETY: forgets a copy that the server makes again.
    unsafe { pg_sys::pgstat_clear_backend_activity_snapshot() };
}

/// Cancels autovacuum on `relation`, as the server does for whoever waits longer than `deadlock_timeout`: our waits are
/// shorter than that. A vacuum against wraparound is left alone, as the server leaves it.
fn cancel_autovacuum(relation: Oid) -> Result<()> {
    look_at_sessions_anew();
    session::with_own_tables(|| {
        spi::row::<bool>(
            "SELECT pg_catalog.to_jsonb(pg_catalog.bool_or(pg_catalog.pg_cancel_backend(a.pid)))
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
             WHERE l.relation = $1 AND l.granted AND a.backend_type = 'autovacuum worker'
               AND pg_catalog.strpos(a.query, 'to prevent wraparound') = 0
               AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                 WHERE datname = pg_catalog.current_database())
             HAVING pg_catalog.count(*) > 0",
            &[relation.into()],
        )
    })?;
    Ok(())
}

fn blockers(relation: Oid) -> Result<String> {
    Ok(holders(relation)?.unwrap_or_else(|| "a session that has ended meanwhile".into()))
}

/// Who holds locks on `relation`, with what they run or ran last where the current user may see that.
pub fn holders(relation: Oid) -> Result<Option<String>> {
    look_at_sessions_anew();
    let user = session::current_user();
    session::with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.to_jsonb(pg_catalog.string_agg(
                    pg_catalog.format('pid %s (%s)%s', l.pid, COALESCE(a.state, 'prepared transaction'),
                        CASE WHEN pg_catalog.pg_has_role($2, a.usesysid, 'USAGE')
                               OR pg_catalog.pg_has_role($2, 'pg_read_all_stats', 'USAGE')
                             THEN ': ' || pg_catalog.left(a.query, 100) END), ', ' ORDER BY l.pid))
             FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks
                   WHERE relation = $1 AND granted AND pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
                     AND database = (SELECT oid FROM pg_catalog.pg_database
                                     WHERE datname = pg_catalog.current_database())) l
             LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
             HAVING pg_catalog.count(*) > 0",
            &[relation.into(), user.into()],
        )
        .map(|mut rows| rows.pop())
    })
}

/// For how long something goes on, as `run_log` has it: milliseconds, with one digit behind the point.
pub fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10_000.0).round() / 10.0
}

/// Sleeps, a day at most; interrupts are heard all the while.
pub fn sleep(duration: Duration) {
    const SLICE: Duration = Duration::from_secs(1);
    let deadline = Instant::now() + duration.min(Duration::from_secs(86_400));
    loop {
        pgrx::check_for_interrupts!();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        // SAFETY: waiting on the backend's own latch, as pg_sleep does.
        unsafe {
            pg_sys::WaitLatch(
                pg_sys::MyLatch,
                (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as c_int,
                left.min(SLICE).as_millis().max(1) as std::ffi::c_long,
                pg_sys::PG_WAIT_EXTENSION,
            );
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_to_the_budget_and_never_beyond() {
        let budget = Duration::from_millis(100);
        let waits: Vec<u128> = (1..=7).map(|n| patience(n, budget).as_millis()).collect();
        assert_eq!(waits, [20, 40, 60, 80, 100, 100, 100]);
        assert_eq!(patience(ATTEMPTS, budget), budget);
        // A lock_timeout of zero would wait for ever.
        assert_eq!(patience(1, Duration::from_millis(1)), Duration::from_millis(1));
    }
}
