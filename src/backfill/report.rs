//! What a person who waits for `migrate()` or `backfill()` sees: a NOTICE when a stage begins, and within a stage one
//! every `partition_router.notice_interval`.

use super::state::{CopyState, Stage};
use crate::calls::{self, Call, grouped};
use crate::catalog::load;
use crate::error::Result;
use crate::pair::{Pair, store};
use crate::settings;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// The last report of this session.
#[derive(Clone, Copy)]
struct Said {
    pair: i32,
    stage: Stage,
    at: Instant,
    rows: u64,
}

thread_local! {
    static LAST: RefCell<Option<Said>> = const { RefCell::new(None) };
}

impl Said {
    /// Whether there is something to say after this: another stage, or enough time.
    fn is_due(self, pair: i32, stage: Stage, now: Instant, every: Option<Duration>) -> bool {
        self.pair != pair
            || self.stage != stage
            || every.is_some_and(|every| now.duration_since(self.at) >= every)
    }

    /// Rows a second since then.
    fn rate(self, rows: u64, now: Instant) -> Option<u64> {
        let seconds = now.duration_since(self.at).as_secs_f64();
        (self.stage == Stage::Copy && seconds > 0.0)
            .then(|| (rows.saturating_sub(self.rows) as f64 / seconds) as u64)
    }
}

/// Says how far the backfill of `pair` is, when that is due.
pub fn progress(pair: &Pair, state: &CopyState) -> Result<()> {
    let (done, all) = note(pair, state)?;
    let now = Instant::now();
    let rows = state.rows_copied + state.rows_logged;
    let last = LAST.take().filter(|last| last.pair == pair.id);
    if let Some(last) = last
        && !last.is_due(pair.id, state.stage, now, settings::notice_interval())
    {
        LAST.set(Some(last));
        return Ok(());
    }
    LAST.set(Some(Said {
        pair: pair.id,
        stage: state.stage,
        at: now,
        rows,
    }));
    let what = match state.stage {
        Stage::Copy => match last.and_then(|last| last.rate(rows, now)) {
            Some(rate) => {
                let left = time_left(state, rows, rate).map_or_else(String::new, |left| format!(", {left}"));
                format!("{}, {} rows/s{left}", copied(state, rows), grouped(rate))
            }
            None => copied(state, rows),
        },
        Stage::Index => format!(
            "{} rows copied; {done} of {all} partitions have indexes",
            grouped(rows)
        ),
        Stage::Drain => format!("{} changed keys carried over", grouped(state.rows_drained)),
        Stage::Flip => "writers wait for a moment".into(),
        Stage::Finish => format!("live; statistics and foreign keys, {done} of {all} partitions"),
        Stage::Done => "the backfill is finished".into(),
    };
    say(pair, state.stage.as_str(), &what)
}

/// For the view `calls`, at every step. Gives how much of the stage is done, and of how much; zeros when all is.
fn note(pair: &Pair, state: &CopyState) -> Result<(u64, u64)> {
    let next = u64::from(state.next_block);
    let partitions = || load::count_leaves(pair.twin);
    let (stage, done, all) = match state.stage {
        Stage::Copy => (calls::Stage::Copy, next, state.blocks.into()),
        Stage::Index => (calls::Stage::Index, next, partitions()?),
        Stage::Drain => (calls::Stage::Drain, state.rows_drained, 0),
        Stage::Flip => (calls::Stage::Flip, 0, 0),
        Stage::Finish => (calls::Stage::Finish, next.saturating_sub(1), partitions()?),
        Stage::Done => return Ok((0, 0)),
    };
    calls::quietly_at(Call::Backfill, pair.legacy, stage, done, all);
    Ok((done, all))
}

/// Says one thing about a stage of a pair's way.
pub fn say(pair: &Pair, stage: &str, what: &str) -> Result<()> {
    pgrx::notice!("{}: {stage}: {what}", store::display_name(pair.legacy)?);
    Ok(())
}

/// Blocks are what is counted; how many rows lie in those to come can only be told from those that were read.
fn copied(state: &CopyState, rows: u64) -> String {
    if state.next_block == 0 {
        return format!("{} rows", grouped(rows));
    }
    format!("{} of about {} rows", grouped(rows), grouped(total(state, rows)))
}

fn total(state: &CopyState, rows: u64) -> u64 {
    (u128::from(rows) * u128::from(state.blocks) / u128::from(state.next_block.max(1))) as u64
}

/// How long the rest of the copy takes at this rate.
fn time_left(state: &CopyState, rows: u64, rate: u64) -> Option<String> {
    let rest = total(state, rows).checked_sub(rows)?;
    (rate > 0).then(|| calls::left(rest as f64 / rate as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_stage_a_report_comes_now_and_then() {
        let at = Instant::now();
        let last = Said {
            pair: 1,
            stage: Stage::Copy,
            at,
            rows: 1_000,
        };
        let every = Some(Duration::from_secs(5));
        assert!(!last.is_due(1, Stage::Copy, at + Duration::from_millis(4_900), every));
        assert!(last.is_due(1, Stage::Copy, at + Duration::from_secs(5), every));
        assert!(!last.is_due(1, Stage::Copy, at + Duration::from_secs(5), None));
        assert!(last.is_due(1, Stage::Index, at, None));
        assert!(last.is_due(2, Stage::Copy, at, None));
        assert_eq!(last.rate(11_000, at + Duration::from_secs(5)), Some(2_000));
    }
}
