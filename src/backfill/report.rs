//! What a person who waits for `migrate()` or `backfill()` sees: a NOTICE when a stage begins, and within a stage one
//! every five seconds.

use super::state::{CopyState, Stage};
use crate::catalog::load;
use crate::error::Result;
use crate::pair::{Pair, store};
use std::cell::RefCell;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(5);

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
    fn is_due(self, pair: i32, stage: Stage, now: Instant) -> bool {
        self.pair != pair || self.stage != stage || now.duration_since(self.at) >= EVERY
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
    let now = Instant::now();
    let rows = state.rows_copied + state.rows_logged;
    let last = LAST.take().filter(|last| last.pair == pair.id);
    if let Some(last) = last
        && !last.is_due(pair.id, state.stage, now)
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
    let partitions =
        || -> Result<usize> { Ok(load::partitions(pair.twin)?.iter().filter(|p| p.is_leaf).count()) };
    let what = match state.stage {
        Stage::Copy => match last.and_then(|last| last.rate(rows, now)) {
            Some(rate) => format!("{}, {} rows/s", copied(state, rows), grouped(rate)),
            None => copied(state, rows),
        },
        Stage::Index => format!(
            "{} rows copied; {} of {} partitions have indexes",
            grouped(rows),
            state.next_block,
            partitions()?
        ),
        Stage::Drain => format!("{} changed keys carried over", grouped(state.rows_drained)),
        Stage::Flip => "writers wait for a moment".into(),
        Stage::Finish => format!(
            "live; statistics and foreign keys, {} of {} partitions",
            state.next_block.saturating_sub(1),
            partitions()?
        ),
        Stage::Done => "the backfill is finished".into(),
    };
    say(pair, state.stage.as_str(), &what)
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
    let total = u128::from(rows) * u128::from(state.blocks) / u128::from(state.next_block);
    format!("{} of about {} rows", grouped(rows), grouped(total as u64))
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_stage_a_report_comes_every_five_seconds() {
        let at = Instant::now();
        let last = Said {
            pair: 1,
            stage: Stage::Copy,
            at,
            rows: 1_000,
        };
        assert!(!last.is_due(1, Stage::Copy, at + Duration::from_millis(4_900)));
        assert!(last.is_due(1, Stage::Copy, at + Duration::from_secs(5)));
        assert!(last.is_due(1, Stage::Index, at));
        assert!(last.is_due(2, Stage::Copy, at));
        assert_eq!(last.rate(11_000, at + Duration::from_secs(5)), Some(2_000));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
