//! What long calls are at: the view `calls`, and a NOTICE every `partition_router.notice_interval` for whoever waits for one.
//!
//! A call says [`at`] which stage it is and how far, as often as it likes: that is a few stores into memory that all backends share.
//! Nothing has to be said at the end. A line belongs to the statement that wrote it, and is nobody's once this session runs
//! another one, or none.
#![allow(unsafe_code)]

mod board;
mod pace;

use crate::error::Result;
use crate::pair::store;
use crate::{locks, session, settings, spi};
use board::Line;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::cell::Cell;
use std::time::Instant;

pub use pace::{Call, Stage, grouped, left};

/// What this session told last, and when it told it.
#[derive(Clone, Copy)]
struct Told {
    statement: i64,
    call: Call,
    stage: Stage,
    /// Of the stage, by the clock of [`Line::began`], and what was done then.
    began: i64,
    first: u64,
    /// The total, as it was thought to be then.
    whole: u64,
    /// When the client heard of something last; the beginning of the stage counts.
    heard: Instant,
}

thread_local! {
    static TOLD: Cell<Option<Told>> = const { Cell::new(None) };
    static CURRENT: Cell<Option<(Call, Oid, u64)>> = const { Cell::new(None) };
    /// When the client heard last of what it waits for, and in which statement.
    static WAITED: Cell<Option<(i64, Instant)>> = const { Cell::new(None) };
}

/// A call as the view `calls` has it.
pub struct AtWork {
    pub line: Line,
    /// Units a second, since the stage began.
    pub rate: Option<f64>,
    /// Seconds.
    pub eta: Option<f64>,
    pub blocked_by: Option<String>,
}

fn statement() -> i64 {
    // SAFETY: a plain read.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// Microseconds since 2000, as the server counts.
fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Says that this session is in `stage` of `call` for `relation`, and has `done` of `total` units. A `total` of 0 is not known.
/// Now and then its client hears of it, too.
pub fn at(call: Call, relation: Oid, stage: Stage, done: u64, total: u64) -> Result<()> {
    let (told, line) = note(call, relation, stage, done, total);
    if settings::notice_interval().is_some_and(|every| told.heard.elapsed() >= every) {
        TOLD.set(Some(Told {
            heard: Instant::now(),
            ..told
        }));
        pgrx::notice!("{}: {}", store::display_name(relation)?, line.words(now()));
    }
    Ok(())
}

/// As [`at`], for a process that has no client, or another way to talk to it. Takes no transaction.
pub fn quietly_at(call: Call, relation: Oid, stage: Stage, done: u64, total: u64) {
    note(call, relation, stage, done, total);
}

/// As [`at`], where only what is left is known: all there is, is what was left when this statement said so first.
pub fn still(call: Call, relation: Oid, stage: Stage, left: u64) -> Result<()> {
    let whole = told(call, stage).map_or(left, |told| told.whole.max(left));
    at(call, relation, stage, whole - left, whole)
}

/// What was told last, if that was in this statement and of this stage.
fn told(call: Call, stage: Stage) -> Option<Told> {
    let statement = statement();
    TOLD.get()
        .filter(|told| told.statement == statement && told.call == call && told.stage == stage)
}

fn note(call: Call, relation: Oid, stage: Stage, done: u64, total: u64) -> (Told, Line) {
    let statement = statement();
    let told = told(call, stage).unwrap_or_else(|| Told {
        statement,
        call,
        stage,
        began: now(),
        first: done,
        whole: total,
        heard: Instant::now(),
    });
    TOLD.set(Some(told));
    let line = Line {
        call,
        stage,
        relation: relation.to_u32(),
        first: told.first,
        done,
        total,
        statement,
        began: told.began,
        ..Line::mine()
    };
    board::write(&line);
    (told, line)
}

/// While it lives, [`step`] speaks for this call: for work that several calls have in common.
pub struct During(());

impl Drop for During {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Gives work below a name. None while a call above has done so: it keeps its own.
pub fn during(call: Call, relation: Oid) -> Option<During> {
    if CURRENT.get().is_some() {
        return None;
    }
    CURRENT.set(Some((call, relation, 0)));
    Some(During(()))
}

/// How many units the next stage has, for a [`step`] that cannot know.
pub fn expect(total: u64) {
    CURRENT.set(CURRENT.get().map(|(call, relation, _)| (call, relation, total)));
}

/// As [`at`], for the call that has given its name. A helping worker has none, and says nothing.
pub fn step(stage: Stage, done: u64, total: u64) -> Result<()> {
    CURRENT.get().map_or(Ok(()), |(call, relation, expected)| {
        at(
            call,
            relation,
            stage,
            done,
            if total == 0 { expected } else { total },
        )
    })
}

/// Says how far the worker with this pid is, of which this session waits for the end.
pub fn tell_of(pid: i32) -> Result<()> {
    let Some(line) = board::lines().into_iter().find(|line| line.pid == pid) else {
        return Ok(());
    };
    at(
        line.call,
        Oid::from(line.relation),
        line.stage,
        line.done,
        line.total,
    )
}

/// Says who holds `relation`, after a lock on it was not to be had: at most every `partition_router.notice_interval`.
pub fn waits_for(relation: Oid, mode: Option<&str>) -> Result<()> {
    let (statement, now) = (statement(), Instant::now());
    let since = match WAITED.get() {
        Some((same, since)) if same == statement => since,
        _ => {
            WAITED.set(Some((statement, now)));
            return Ok(());
        }
    };
    if settings::notice_interval().is_none_or(|every| now.duration_since(since) < every) {
        return Ok(());
    }
    WAITED.set(Some((statement, now)));
    if let Some(who) = locks::holders(relation)? {
        let mode = mode.unwrap_or("locks");
        pgrx::notice!("{}: waits for {mode}: {who}", store::display_name(relation)?);
    }
    Ok(())
}

/// A session whose line it may be.
#[derive(Deserialize)]
struct Session {
    pid: i32,
    /// Microseconds since 2000, as the others; of the statement that it runs now, where that is tracked.
    statement: Option<i64>,
    is_idle: bool,
    /// Begins many statements in one call.
    is_worker: bool,
    started: i64,
    blocked_by: Option<String>,
}

impl Session {
    /// Whether it still does what the line tells.
    fn is_at(&self, line: &Line) -> bool {
        self.pid == line.pid
            && self.started <= line.began
            && (self.is_worker
                || !self.is_idle && self.statement.is_none_or(|statement| statement == line.statement))
    }
}

/// The calls at work in this database.
pub fn at_work() -> Result<Vec<AtWork>> {
    let lines = board::lines();
    let pids: Vec<i32> = lines.iter().map(|line| line.pid).collect();
    let sessions: Vec<Session> = session::with_own_tables(|| {
        spi::latest_rows(
            "SELECT pg_catalog.jsonb_build_object(
                 'pid', a.pid,
                 'statement', CASE WHEN a.state IS DISTINCT FROM 'disabled'
                                   THEN (EXTRACT(epoch FROM a.query_start) * 1000000)::bigint - 946684800000000 END,
                 'is_idle', COALESCE(a.state = 'idle', false),
                 'is_worker', a.backend_type <> 'client backend',
                 'started', (EXTRACT(epoch FROM a.backend_start) * 1000000)::bigint - 946684800000000,
                 'blocked_by', (SELECT pg_catalog.string_agg(DISTINCT b.pid::text, ', ')
                                FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS b(pid)))
             FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY ($1)",
            &[pids.into()],
        )
    })?;
    let now = now();
    Ok(lines
        .into_iter()
        .filter_map(|line| {
            let session = sessions.iter().find(|session| session.is_at(&line))?;
            Some(AtWork {
                rate: line.rate(now),
                eta: line.eta(now),
                blocked_by: session.blocked_by.clone(),
                line,
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            pid: 7,
            database: 5,
            relation: 16_384,
            call: Call::Verify,
            stage: Stage::Read,
            first: 0,
            done: 10,
            total: 100,
            statement: 1_000,
            began: 1_500,
        }
    }

    fn session() -> Session {
        Session {
            pid: 7,
            statement: Some(1_000),
            is_idle: false,
            is_worker: false,
            started: 500,
            blocked_by: None,
        }
    }

    #[test]
    fn a_line_is_that_of_the_statement_that_wrote_it() {
        assert!(session().is_at(&line()));
        let other = |change: fn(&mut Session)| {
            let mut session = session();
            change(&mut session);
            session.is_at(&line())
        };
        assert!(!other(|s| s.statement = Some(2_000)), "the next statement");
        assert!(!other(|s| s.is_idle = true), "has ended");
        assert!(!other(|s| s.pid = 8), "somebody else");
        assert!(!other(|s| s.started = 1_600), "another process with this pid");
        assert!(other(|s| s.statement = None), "statements are not tracked");
        assert!(other(|s| {
            s.is_worker = true;
            s.statement = Some(2_000);
        }));
    }
}
