//! Takes tables over from pg_partman: reads its `part_config`, of version 4 or 5 by the columns that are there, puts each table under
//! maintenance by the same rules, and switches pg_partman's own maintenance of it off. Partitions stay as they are, with their
//! names. One table that cannot be taken over stops no other.

use super::log::{self, Event};
use super::rules::{self, Change};
use super::table;
use crate::bounds::Interval;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, Literal, RelName};
use crate::locks::budget;
use crate::plan::Plan;
use crate::session::PinnedSettings;
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// A row of `part_config`, as far as both versions have it.
#[derive(Debug, Clone, Deserialize)]
struct Config {
    parent_table: String,
    control: String,
    /// Version 4: `native` or `partman`, by triggers; version 5: `range` or `list`.
    partition_type: String,
    partition_interval: String,
    premake: i32,
    #[serde(default)]
    epoch: Option<String>,
    retention: Option<String>,
    retention_schema: Option<Ident>,
    retention_keep_table: bool,
    automatic_maintenance: String,
    #[serde(default)]
    undo_in_progress: bool,
    #[serde(default)]
    template_table: Option<String>,
    #[serde(default)]
    constraint_cols: Option<Vec<String>>,
}

/// What became of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub relation: String,
    /// `taken over`, in a dry run `to be taken over`, or `left`.
    pub status: &'static str,
    pub message: String,
}

/// Takes over every table that pg_partman maintains and the caller owns.
///
/// # Errors
/// `BadArgument` where there is no `part_config`; the server's where the caller may not read or change it.
pub fn import(schema: Option<Ident>, mode: Mode) -> Result<Vec<Outcome>> {
    let config = part_config(schema)?;
    let rows: Vec<Config> = spi::rows(
        &format!("SELECT pg_catalog.to_jsonb(c) FROM ONLY {config} c ORDER BY c.parent_table"),
        &[],
    )?;
    let mut outcomes = Vec::with_capacity(rows.len());
    for row in rows {
        let relation = row.parent_table.clone();
        let (status, message) = match budget::subtransaction(|| take_over(&config, &row, mode)) {
            Ok(Ok(message)) if mode == Mode::DryRun => ("to be taken over", message),
            Ok(Ok(message)) => ("taken over", message),
            Ok(Err(error)) => ("left", explained(&error)),
            Err(caught) if budget::is_cancel(&caught) => caught.rethrow(),
            Err(caught) => (
                "left",
                format!(
                    "{} ({})",
                    budget::message(&caught),
                    budget::sqlstate_text(&caught)
                ),
            ),
        };
        outcomes.push(Outcome {
            relation,
            status,
            message,
        });
    }
    Ok(outcomes)
}

fn explained(error: &Error) -> String {
    let detail = error
        .detail()
        .map(|detail| format!(". {detail}"))
        .unwrap_or_default();
    format!("{} ({}){detail}", error.message(), error.sqlstate())
}

/// Where pg_partman keeps its configuration.
fn part_config(schema: Option<Ident>) -> Result<RelName> {
    let schema: Option<Ident> = match schema {
        Some(schema) => Some(schema),
        None => spi::row(
            "SELECT pg_catalog.to_jsonb(n.nspname) FROM pg_catalog.pg_extension e
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_partman'",
            &[],
        )?,
    };
    let bad = |reason: String| Error::BadArgument {
        argument: "partman_schema".into(),
        reason,
        hint: "Name the schema that pg_partman's table part_config is in.".into(),
    };
    let Some(schema) = schema else {
        return Err(bad("the extension pg_partman is not in this database".into()));
    };
    let config = RelName {
        schema,
        name: Ident::new("part_config"),
    };
    let is_table: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(true) FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = 'part_config' AND c.relkind = 'r'",
        &[config.schema.as_str().into()],
    )?;
    match is_table {
        Some(true) => Ok(config),
        _ => Err(bad(format!("there is no table {config}"))),
    }
}

/// Takes one table over; says by which rules.
fn take_over(config: &RelName, row: &Config, mode: Mode) -> Result<String> {
    let left = |reason: &str| Error::Unsupported {
        what: reason.into(),
        hint: "See docs/reference.md for what can be taken over.".into(),
    };
    match row.partition_type.as_str() {
        "native" | "range" => {}
        "partman" => {
            return Err(left(
                "its rows are sent to their partitions by triggers, not by the server",
            ));
        }
        other => {
            return Err(left(&format!(
                "partition type \"{other}\" has no ranges that come and go"
            )));
        }
    }
    if row.automatic_maintenance != "on" {
        return Err(left("pg_partman's automatic maintenance of it is not on"));
    }
    if row.undo_in_progress {
        return Err(left("pg_partman is undoing its partitions"));
    }
    if has_subpartitions(config, row)? {
        return Err(left("pg_partman partitions its partitions, too: part_config_sub"));
    }
    let parent = parent_of(row)?;
    if is_partition(parent)? {
        return Err(left("it is a partition itself"));
    }
    crate::pair::store::require_owner(parent)?;
    let table = {
        let _settings = table::pin("UTC");
        table::partitioned(parent)?
    };
    if table.key()?.as_str() != row.control {
        return Err(left(
            "it is partitioned by another column than pg_partman's control",
        ));
    }
    let is_number = Interval::from_step(&row.partition_interval).is_ok();
    if row.epoch.as_deref() == Some("nanoseconds") {
        return Err(left("its key counts nanoseconds"));
    }
    let zone = zone(parent, row, &table.name)?;
    let change = Change {
        premake: Some(row.premake),
        retention: row.retention.clone().filter(|_| !is_number),
        retention_count: row
            .retention
            .as_deref()
            .filter(|_| is_number)
            .map(|retention| kept(retention, &row.partition_interval))
            .transpose()?,
        retention_action: row.retention.as_ref().map(|_| action(row).to_owned()),
        archive_schema: row.retention_schema.clone().filter(|_| row.retention.is_some()),
        timezone: Some(zone.clone()),
        ..Change::default()
    };
    let summary = summary(row, &change, &zone);
    rules::manage(parent, &row.partition_interval, change, mode)?;
    let mut plan = Plan::default();
    plan.push(
        format!("switch pg_partman's maintenance of {} off", table.display),
        format!(
            "UPDATE {config} SET automatic_maintenance = 'off' WHERE parent_table = {}",
            Literal(&row.parent_table)
        ),
    );
    execute::run(&plan, mode)?;
    if mode == Mode::Run {
        log::write(&Event::done(&table.display, "import", &summary))?;
    }
    Ok(summary)
}

/// pg_partman joins schema and name with a dot, and quotes neither.
fn parent_of(row: &Config) -> Result<Oid> {
    let oid: Option<u32> = spi::row(
        "SELECT pg_catalog.to_jsonb(c.oid::bigint) FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')",
        &[row.parent_table.as_str().into()],
    )?;
    oid.map(Oid::from).ok_or_else(|| Error::Unsupported {
        what: "there is no such table any more".into(),
        hint: "Delete its row from part_config.".into(),
    })
}

fn is_partition(table: Oid) -> Result<bool> {
    let found: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(c.relispartition) FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[table.into()],
    )?;
    Ok(found == Some(true))
}

fn has_subpartitions(config: &RelName, row: &Config) -> Result<bool> {
    let sub = config.sibling(Ident::new("part_config_sub"));
    if crate::catalog::load::oid_of(&sub)?.is_none() {
        return Ok(false);
    }
    let found: Option<bool> = spi::row(
        &format!("SELECT pg_catalog.to_jsonb(true) FROM {sub} s WHERE s.sub_parent = $1"),
        &[row.parent_table.as_str().into()],
    )?;
    Ok(found == Some(true))
}

/// The zone that the partitions are cut in. pg_partman cuts in that of the session which runs it, so that is not written anywhere:
/// this session's, if the newest partition begins there where ours would, else UTC.
fn zone(parent: Oid, row: &Config, name: &RelName) -> Result<String> {
    let session: Option<String> = spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.current_setting('TimeZone'))",
        &[],
    )?;
    let session = session.unwrap_or_else(|| "UTC".into());
    let policy = |timezone: &str| table::PolicyRow {
        base_name: name.name.clone(),
        partition_interval: row.partition_interval.clone(),
        premake: row.premake,
        retention: None,
        retention_count: None,
        min_partitions: 1,
        retention_action: "drop".into(),
        archive_schema: None,
        archive_format: None,
        archive_function: None,
        timezone: timezone.into(),
        origin: None,
        template: None,
    };
    let policy = policy(&session);
    let _settings: PinnedSettings = table::pin(table::zone_of(&policy)?);
    let managed = table::Managed::read(parent, policy, None)?;
    match super::state::newest_is_aligned(&managed)? {
        true => Ok(session),
        false => Ok("UTC".into()),
    }
}

/// What pg_partman does with a partition past its retention: it keeps the table unless told otherwise.
fn action(row: &Config) -> &'static str {
    match (&row.retention_schema, row.retention_keep_table) {
        (Some(_), _) => "archive",
        (None, true) => "detach",
        (None, false) => "drop",
    }
}

/// For an integer key: how many partitions hold the newest `retention` values, wherever in the newest one they end.
fn kept(retention: &str, step: &str) -> Result<i32> {
    let number = |text: &str| text.trim().parse::<i64>().ok().filter(|n| *n > 0);
    let count = number(retention)
        .zip(number(step))
        .and_then(|(retention, step)| i32::try_from((retention - 1) / step + 2).ok());
    count.ok_or_else(|| Error::BadArgument {
        argument: "retention".into(),
        reason: format!("it is \"{retention}\" for partitions of {step}"),
        hint: "Correct it in part_config.".into(),
    })
}

/// By which rules the table is maintained now, and what is not carried over.
fn summary(row: &Config, change: &Change, zone: &str) -> String {
    let retention = match (&change.retention, change.retention_count) {
        (Some(length), _) => format!("retention {length}, then {}", action(row)),
        (None, Some(count)) => format!("retention {count} partitions, then {}", action(row)),
        (None, None) => "no retention".into(),
    };
    let mut text = format!(
        "interval {}, premake {}, {retention}, time zone {zone}",
        row.partition_interval, row.premake
    );
    if row.constraint_cols.is_some() {
        text.push_str("; constraint_cols is not carried over");
    }
    if row.template_table.is_some() {
        text.push_str("; template_table is not carried over: new partitions are like their parent");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::kept;

    #[test]
    fn as_many_partitions_stay_as_hold_the_values_that_stay() {
        assert_eq!(kept("100", "10"), Ok(11));
        assert_eq!(kept("101", "10"), Ok(12));
        assert_eq!(kept("5", "10"), Ok(2));
        assert!(kept("three months", "10").is_err());
        assert!(kept("0", "10").is_err());
    }
}
