//! Narrows partitions whose sums differ down to rows, in passes over these partitions alone and in memory that does not
//! grow: the first pass sums the digests of both sides, one minus the other, in many buckets, which are zero where both
//! sides hold the same; the second one gathers the rows of the others, and strikes out those that both sides have.
#![allow(unsafe_code)]

use super::places::Places;
use super::scan::{HeapJob, Job, Reader};
use super::{Level, Look, Verdict};
use crate::catalog::load;
use crate::error::Result;
use crate::ident::{Ident, Literal, list};
use crate::pair::{Pair, store};
use crate::sync::pair_cache;
use crate::{calls, session, spi};
use pgrx::pg_sys::Oid;
use serde_json::Value;
use std::collections::HashSet;

const BUCKETS: usize = 1 << 16;
/// Blocks that are read before it is said how far that is.
const STRETCH: u32 = 1024;
/// So many rows are gathered without a first pass, and about so many at most: 1 MB.
const FEW: i64 = 20_000;
/// Keys that are found at a time.
pub const MOST_KEYS: usize = 10_000;

/// The keys of rows that differ.
pub struct Found {
    pub keys: Vec<Value>,
    /// False when there are more.
    pub complete: bool,
}

/// A row of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    column: u32,
    digest: u128,
    place: (u32, u16),
}

impl Row {
    fn identity(&self) -> (u32, u128) {
        (self.column, self.digest)
    }
}

/// All that differs.
pub enum Differences {
    Keys(Vec<Value>),
    Places(Places),
}

/// What of a look differs, and how it is read again.
struct Narrowing {
    job: Job,
    /// By partition.
    differs: Vec<bool>,
    /// Of both sides.
    rows: i64,
}

impl Narrowing {
    /// None when the sides are equal, or only counted.
    fn of(look: &Look, verdicts: &[Verdict]) -> Option<Narrowing> {
        let differs: Vec<bool> = (0..=look.job.partitions.len())
            .map(|i| verdicts.get(i).is_some_and(|v| v.legacy != v.twin))
            .collect();
        (look.job.level > Level::Counts && differs.contains(&true)).then(|| Narrowing {
            job: whole_heaps(&look.job),
            differs,
            rows: verdicts
                .iter()
                .filter(|v| v.legacy != v.twin)
                .map(|v| v.legacy.rows + v.twin.rows)
                .sum(),
        })
    }

    /// The buckets that are not zero; none where the rows are few.
    fn buckets(&self) -> Result<Option<Vec<bool>>> {
        if self.rows <= FEW {
            return Ok(None);
        }
        Ok(Some(differing_buckets(&self.job, &self.differs)?))
    }

    /// The keys of the rows in these buckets that differ.
    fn keys(&self, pair: &Pair, wanted: Option<&[bool]>) -> Result<Found> {
        let (mut legacy, mut twin) = (Vec::new(), Vec::new());
        each_in(&self.job, &self.differs, wanted, |row, sign| {
            if sign > 0 { &mut legacy } else { &mut twin }.push(row);
        })?;
        strike_out(&mut legacy, &mut twin);
        let mut names = KeyNames::of(pair)?;
        names.add(pair.legacy, &legacy)?;
        for (i, partition) in self.job.partitions.iter().enumerate() {
            let rows: Vec<Row> = twin
                .iter()
                .filter(|row| row.column == i as u32)
                .copied()
                .collect();
            names.add(Oid::from(*partition), &rows)?;
        }
        Ok(Found {
            keys: names.keys,
            complete: names.complete,
        })
    }
}

/// The keys of the rows in which the sides of a look differ, or of many of them; none when they are equal, or only counted.
pub fn keys(pair: &Pair, look: &Look, verdicts: &[Verdict]) -> Result<Option<Found>> {
    let Some(narrowing) = Narrowing::of(look, verdicts) else {
        return Ok(None);
    };
    session::as_user(load::owner(pair.legacy)?, || {
        // For types that are not known, and for the text of the keys.
        let _settings = super::pinned_output();
        let (wanted, are_all) = match narrowing.buckets()? {
            None => (None, true),
            Some(buckets) => {
                let (wanted, are_all) = some_of(buckets, narrowing.rows);
                (Some(wanted), are_all)
            }
        };
        let mut found = narrowing.keys(pair, wanted.as_deref())?;
        found.complete &= are_all;
        Ok(Some(found))
    })
}

/// All rows in which the sides of a look differ: their keys where these are few, or else their places. The look's snapshot is
/// active.
fn all(pair: &Pair, look: &Look, verdicts: &[Verdict]) -> Result<Differences> {
    let Some(narrowing) = Narrowing::of(look, verdicts) else {
        return Ok(Differences::Keys(Vec::new()));
    };
    session::as_user(load::owner(pair.legacy)?, || {
        let _settings = super::pinned_output();
        let buckets = narrowing.buckets()?;
        let are_few = match &buckets {
            None => true,
            Some(buckets) => some_of(buckets.clone(), narrowing.rows).1,
        };
        if are_few {
            let found = narrowing.keys(pair, buckets.as_deref())?;
            if found.complete {
                return Ok(Differences::Keys(found.keys));
            }
        }
        let mut places = Places::new(pair, &narrowing.job);
        each_in(
            &narrowing.job,
            &narrowing.differs,
            buckets.as_deref(),
            |row, sign| {
                places.add(row.digest, row.column, sign < 0, row.place);
            },
        )?;
        places.strike_out();
        Ok(Differences::Places(places))
    })
}

/// The same heaps, to be read from end to end.
fn whole_heaps(job: &Job) -> Job {
    Job {
        level: Level::Checksum,
        twin: job.twin,
        partitions: job.partitions.clone(),
        heaps: job
            .heaps
            .iter()
            .map(|heap| HeapJob { known: None, ..*heap })
            .collect(),
    }
}

/// Calls `body` with each row of the partitions that differ: its partition, its digest, its place, and 1 for the legacy
/// or -1 for the twin.
fn each(job: &Job, differs: &[bool], mut body: impl FnMut(Row, i64)) -> Result<()> {
    let is_read = |index: usize| index == 0 || differs[index - 1];
    let heaps = job.heaps.iter().enumerate();
    let total = heaps
        .filter(|(index, _)| is_read(*index))
        .map(|(_, heap)| u64::from(heap.blocks))
        .sum();
    let mut done = 0;
    for index in (0..job.heaps.len()).filter(|index| is_read(*index)) {
        // SAFETY: the look's snapshot is active.
        let mut reader = unsafe { Reader::open(job, index)? };
        let mut row = |place, column: usize, digest| {
            if index > 0 {
                let column = index as u32 - 1;
                body(
                    Row {
                        column,
                        digest,
                        place,
                    },
                    -1,
                );
            } else if differs[column] {
                let column = column as u32;
                body(
                    Row {
                        column,
                        digest,
                        place,
                    },
                    1,
                );
            }
            Ok(())
        };
        let all = reader.blocks();
        if reader.is_whole() {
            reader.each(&mut row)?;
        } else {
            let of = (index == 0).then_some(differs);
            for first in all.clone().step_by(STRETCH as usize) {
                reader.each_of(first..all.end.min(first.saturating_add(STRETCH)), of, &mut row)?;
                calls::step(calls::Stage::Compare, done + u64::from(first), total)?;
            }
        }
        done += u64::from(all.end);
        reader.close();
    }
    calls::step(calls::Stage::Compare, done, total)
}

fn bucket(row: &Row) -> usize {
    // A row that lies in another partition has the same digest there: it must not fall into the same bucket.
    (row.digest as u64).wrapping_add(u64::from(row.column).wrapping_mul(0x9E37_79B9_7F4A_7C15)) as usize
        % BUCKETS
}

/// Calls `body` as [`each`] does, with the rows in these buckets.
fn each_in(
    job: &Job,
    differs: &[bool],
    wanted: Option<&[bool]>,
    mut body: impl FnMut(Row, i64),
) -> Result<()> {
    each(job, differs, |row, sign| {
        if wanted.is_none_or(|wanted| wanted[bucket(&row)]) {
            body(row, sign);
        }
    })
}

/// The buckets that are not zero.
fn differing_buckets(job: &Job, differs: &[bool]) -> Result<Vec<bool>> {
    let mut sums = vec![(0i64, 0u128); BUCKETS];
    each(job, differs, |row, sign| {
        let sum = &mut sums[bucket(&row)];
        sum.0 += sign;
        sum.1 = if sign > 0 {
            sum.1.wrapping_add(row.digest)
        } else {
            sum.1.wrapping_sub(row.digest)
        };
    })?;
    Ok(sums.into_iter().map(|sum| sum != (0, 0)).collect())
}

/// As many of these buckets as may be gathered, of so many rows in all; and whether these are all.
fn some_of(mut buckets: Vec<bool>, rows: i64) -> (Vec<bool>, bool) {
    let most = (FEW * BUCKETS as i64 / rows.max(1)).max(1) as usize;
    let mut taken = 0;
    for bucket in &mut buckets {
        taken += usize::from(*bucket);
        *bucket &= taken <= most;
    }
    (buckets, taken <= most)
}

/// Takes out what both have, one for one.
fn strike_out(a: &mut Vec<Row>, b: &mut Vec<Row>) {
    a.sort_unstable();
    b.sort_unstable();
    let (mut only_a, mut only_b) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let order = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => x.identity().cmp(&y.identity()),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Less => only_a.push(a[i]),
            std::cmp::Ordering::Greater => only_b.push(b[j]),
            std::cmp::Ordering::Equal => {}
        }
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
    (*a, *b) = (only_a, only_b);
}

/// Gathers the keys of rows, each once.
struct KeyNames {
    columns: Vec<String>,
    keys: Vec<Value>,
    seen: HashSet<String>,
    complete: bool,
}

impl KeyNames {
    fn of(pair: &Pair) -> Result<KeyNames> {
        Ok(KeyNames {
            columns: pair_cache::get(pair.id)?.twin_key.clone(),
            keys: Vec::new(),
            seen: HashSet::new(),
            complete: true,
        })
    }

    /// Adds the keys of rows of `table`.
    fn add(&mut self, table: Oid, rows: &[Row]) -> Result<()> {
        let room = MOST_KEYS.saturating_sub(self.keys.len());
        self.complete &= rows.len() <= room;
        let rows = &rows[..rows.len().min(room)];
        if rows.is_empty() {
            return Ok(());
        }
        let name = load::rel_name(table)?;
        let Some(name) = name else {
            return Err(crate::error::Error::UnknownRelation { oid: table.to_u32() });
        };
        let key = list(self.columns.iter().map(|c| {
            let column = Ident::new(c.clone());
            format!("{}, x.{column}", Literal(c))
        }));
        let places: Vec<String> = rows
            .iter()
            .map(|row| format!("({},{})", row.place.0, row.place.1))
            .collect();
        let found: Vec<Value> = spi::rows_in_snapshot(
            &format!(
                "SELECT pg_catalog.jsonb_build_object({key}) FROM ONLY {name} x
                 WHERE x.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]::pg_catalog.tid[])"
            ),
            &[places.into()],
        )?;
        self.complete &= found.len() == rows.len(); // row security may hide some from their owner
        for key in found {
            if self.seen.insert(key.to_string()) {
                self.keys.push(key);
            }
        }
        Ok(())
    }
}

/// The keys of the rows that differ now: what the last verify found when it failed, or, where it found too many, passed, or
/// the tables are small, what a look finds.
pub fn keys_now(pair: &Pair) -> Result<Found> {
    if let Some(keys) = kept(pair)? {
        return Ok(Found { keys, complete: true });
    }
    let look = super::look(pair, Level::Checksum, super::Extent::Changed, None)?;
    let verdicts = look.verdicts(pair);
    Ok(keys(pair, &look, &verdicts)?.unwrap_or(Found {
        keys: Vec::new(),
        complete: true,
    }))
}

/// As [`keys_now`], but all rows that differ, however many.
pub fn all_now(pair: &Pair) -> Result<Differences> {
    if let Some(keys) = kept(pair)? {
        return Ok(Differences::Keys(keys));
    }
    let look = super::look(pair, Level::Checksum, super::Extent::Changed, None)?;
    let verdicts = look.verdicts(pair);
    all(pair, &look, &verdicts)
}

/// What the last verify found when it failed, where the tables are large.
fn kept(pair: &Pair) -> Result<Option<Vec<Value>>> {
    store::require_owner(pair.legacy)?;
    if !super::is_large(pair)? {
        return Ok(None);
    }
    super::evidence::different_keys(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(digest: u128, item: u16) -> Row {
        Row {
            column: 0,
            digest,
            place: (0, item),
        }
    }

    #[test]
    fn what_both_have_is_struck_out_one_for_one() {
        let mut a = vec![row(5, 1), row(3, 2), row(5, 3), row(9, 4)];
        let mut b = vec![row(5, 7), row(9, 8), row(10, 9)];
        strike_out(&mut a, &mut b);
        assert_eq!(a.iter().map(|r| r.digest).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(b.iter().map(|r| r.digest).collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn a_row_in_the_wrong_partition_is_not_struck_out() {
        let mut a = vec![row(5, 1)];
        let mut b = vec![Row {
            column: 1,
            ..row(5, 1)
        }];
        assert_ne!(bucket(&a[0]), bucket(&b[0]));
        strike_out(&mut a, &mut b);
        assert_eq!((a.len(), b.len()), (1, 1));
    }
}
