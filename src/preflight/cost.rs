//! What writing every row twice costs on this machine: a trial with rows of the table itself, on temporary tables that have its
//! columns and those of its indexes that are made of plain columns. It is undone, so nothing of it stays.
//!
//! Sync costs about what one statement that writes two tables does (docs/benchmarks.md), so that is what is tried. No expression, default or
//! constraint of the table is evaluated: the trial runs with the rights of the caller, and these are code of the owner.

use super::Finding;
use super::surroundings::Surroundings;
use crate::catalog::TableDef;
use crate::error::Result;
use crate::execute::{self, Mode};
use crate::ident::list;
use crate::locks::budget;
use crate::plan::Plan;
use crate::{ident::RelName, spi};
use std::time::{Duration, Instant};

/// Rows of the table that are written in each round.
const ROWS: i64 = 1000;
const ROUNDS: usize = 5;

pub fn finding(legacy: &TableDef, around: &Surroundings, found: &mut Vec<Finding>) -> Result<()> {
    let hint = "Sync writes each row twice, which costs about what one statement that writes two tables does; see docs/benchmarks.md.";
    if !around.may_try {
        found.push(Finding::info(
            "sync_cost",
            "the cost of sync was not measured: the trial needs temporary tables and SELECT on the table",
            hint,
        ));
        return Ok(());
    }
    let (rows, once, twice) = budget::undone(|| trial(legacy))?;
    if rows == 0 {
        found.push(Finding::info(
            "sync_cost",
            "the cost of sync was not measured: the table has no rows to try it with",
            hint,
        ));
        return Ok(());
    }
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let micros = (twice.saturating_sub(once)).as_secs_f64() * 1e6 / rows as f64;
    found.push(Finding::info(
        "sync_cost",
        format!(
            "a row more to write costs about {micros:.1} µs: {rows} rows of the table took {:.1} ms to write once, {:.1} ms twice",
            ms(once),
            ms(twice)
        ),
        hint,
    ));
    Ok(())
}

fn temporary(number: u8) -> RelName {
    RelName::new("pg_temp", format!("partition_router_trial_{number}"))
}

/// How many rows there were, and the medians of writing them into one table, and into two.
fn trial(legacy: &TableDef) -> Result<(i64, Duration, Duration)> {
    let (source, one, other) = (temporary(0), temporary(1), temporary(2));
    let mut plan = Plan::default();
    plan.push(
        "take rows to try with",
        format!(
            "CREATE TEMPORARY TABLE {} AS SELECT * FROM ONLY {} LIMIT {ROWS}",
            source.name, legacy.name
        ),
    );
    for table in [&one, &other] {
        plan.push(
            "make a table to try with",
            format!("CREATE TEMPORARY TABLE {} (LIKE {source})", table.name),
        );
        for index in legacy.indexes.iter().filter(|i| {
            i.valid && !i.exclusion && i.predicate.is_none() && i.key_columns.iter().all(Option::is_some)
        }) {
            plan.push(
                format!("make an index like {}", index.name),
                format!(
                    "CREATE INDEX ON {table} USING {} ({})",
                    index.method,
                    list(&index.keys)
                ),
            );
        }
    }
    execute::run(&plan, Mode::Run)?;
    let rows: Option<i64> = spi::row(
        &format!("SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM {source}"),
        &[],
    )?;
    let write_once = format!("INSERT INTO {one} SELECT * FROM {source}");
    let write_twice = format!(
        "WITH written AS (INSERT INTO {one} SELECT * FROM {source} RETURNING *) INSERT INTO {other} SELECT * FROM written"
    );
    let timed = |statement: &str| {
        let begun = Instant::now();
        spi::execute(statement, &[])?;
        Ok::<_, crate::error::Error>(begun.elapsed())
    };
    let (mut once, mut twice) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        once.push(timed(&write_once)?);
        twice.push(timed(&write_twice)?);
    }
    once.sort();
    twice.sort();
    Ok((rows.unwrap_or(0), once[ROUNDS / 2], twice[ROUNDS / 2]))
}
