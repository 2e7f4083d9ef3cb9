//! The partition key: its column, and the values that it has.

use super::Finding;
use crate::bounds;
use crate::catalog::{Column, TableDef, load};
use crate::error::{Error, Result};
use crate::pair::Strategy;
use crate::plan::create_twin::{NewPartition, TwinSpec};
use crate::twin::{self, Request};
use pgrx::pg_sys::Oid;

/// More partitions than most tables want: a row or two far out may be the reason.
const MANY_PARTITIONS: usize = 300;

/// What stops a migration by this column.
pub fn findings(
    legacy: &TableDef,
    request: &Request,
    strategy: Option<Strategy>,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let Some(column) = legacy.column(request.partition_key.as_str()) else {
        found.push(Finding::error(
            "unknown_column",
            Error::UnknownColumn {
                relation: legacy.name.to_string(),
                column: request.partition_key.as_str().into(),
            },
        ));
        return Ok(());
    };
    let unsuitable = |type_name: String| Error::UnsuitableKey {
        column: column.name.as_str().into(),
        type_name,
        strategy: strategy.map(|s| s.to_string()).unwrap_or_default(),
    };
    if column.generated {
        let type_name = format!("{} (generated)", column.type_name);
        found.push(Finding::error("generated_key", unsuitable(type_name)));
    }
    if !is_suitable(legacy, column, strategy)? {
        found.push(Finding::error(
            "unsuitable_key",
            unsuitable(column.type_name.clone()),
        ));
    }
    nulls(legacy, column, found)
}

fn is_suitable(legacy: &TableDef, column: &Column, strategy: Option<Strategy>) -> Result<bool> {
    const RANGES: [&str; 10] = [
        "date",
        "timestamp without time zone",
        "timestamp with time zone",
        "uuid",
        "text",
        "character varying",
        "character",
        "smallint",
        "integer",
        "bigint",
    ];
    let method = match strategy {
        None => return Ok(true),
        Some(Strategy::Range) => return Ok(RANGES.contains(&column.base_type.as_str())),
        Some(Strategy::Hash) => load::Method::Hash,
        Some(Strategy::List) => load::Method::Btree,
    };
    load::has_operator_class(Oid::from(legacy.oid), &column.name, method)
}

fn nulls(legacy: &TableDef, column: &Column, found: &mut Vec<Finding>) -> Result<()> {
    let nulls = twin::null_keys(legacy, column)?;
    if nulls > 0 {
        found.push(Finding::error(
            "null_keys",
            Error::NullPartitionKey {
                relation: legacy.name.to_string(),
                column: column.name.as_str().into(),
                rows: nulls,
            },
        ));
    } else if !column.not_null {
        found.push(Finding::warning(
            "nullable_key",
            format!("partition key \"{}\" may become null", column.name.as_str()),
            "Set the column NOT NULL: a row with a null key cannot be carried to the twin and its statement fails.",
        ));
    }
    Ok(())
}

/// What the values that there are make of the twin; gives how many partitions it would have.
pub fn values(legacy: &TableDef, request: &Request, found: &mut Vec<Finding>) -> Result<usize> {
    let Some(column) = legacy.column(request.partition_key.as_str()) else {
        return Ok(0);
    };
    if twin::strategy(&request.strategy)? == Strategy::Range {
        infinite(legacy, column, found)?;
    }
    match twin::design(legacy, request) {
        Ok(spec) => {
            many(&spec, found);
            if let Some(name) = twin::taken_name(&spec)? {
                found.push(Finding::error(
                    "name_taken",
                    Error::AlreadyExists {
                        name: name.to_string(),
                    },
                ));
            }
            Ok(spec.partitions.len())
        }
        Err(error) => {
            found.push(undesigned(column, error)?);
            Ok(0)
        }
    }
}

fn infinite(legacy: &TableDef, column: &Column, found: &mut Vec<Finding>) -> Result<()> {
    let rows = twin::infinite_keys(legacy, column)?;
    if rows > 0 {
        found.push(Finding::warning(
            "infinite_keys",
            format!(
                "partition key \"{}\" is infinite in {rows} rows, which go to the default partition",
                column.name.as_str()
            ),
            "Give them a date that is one, if queries and retention are to find them.",
        ));
    }
    Ok(())
}

fn many(spec: &TwinSpec, found: &mut Vec<Finding>) {
    let named: Vec<&NewPartition> = spec.partitions.iter().collect();
    let (Some(first), true) = (named.first(), named.len() > MANY_PARTITIONS) else {
        return;
    };
    // The default comes last.
    let last = named.iter().rev().nth(1).unwrap_or(first);
    found.push(Finding::warning(
        "many_partitions",
        format!(
            "the twin would have {} partitions, from {} to {}",
            named.len(),
            first.name,
            last.name
        ),
        "Look for rows that lie far out, or choose longer intervals: what does not name the key goes through all of them.",
    ));
}

/// Why there is no twin to be had by this request.
fn undesigned(column: &Column, error: Error) -> Result<Finding> {
    let is_integer = ["smallint", "integer", "bigint"].contains(&column.base_type.as_str());
    Ok(match error {
        Error::TooManyPartitions {
            ref wanted,
            ref value,
            ..
        } => {
            let message = format!(
                "too many partitions: {wanted}, of {} at most; the outermost value is {value}",
                bounds::MAX_PARTITIONS
            );
            Finding {
                message,
                ..Finding::error("too_many_partitions", error)
            }
        }
        // A length of time is what the argument has when nobody gives one.
        Error::BadInterval { .. } if is_integer => Finding::warning(
            "interval",
            format!(
                "integer key \"{}\" holds no epoch times, so it wants a whole number as partition_interval",
                column.name.as_str()
            ),
            "Give partition_interval to migrate, as in partition_interval => '1000000'.",
        ),
        Error::NameTooLong { .. } => Finding::error("name_too_long", error),
        Error::UnsuitableCollation { .. } => Finding::error("unsuitable_key", error),
        // A value that is no ULID.
        Error::BadArgument { .. } if twin::is_text(&column.base_type) => {
            Finding::error("unsuitable_key", error)
        }
        other => return Err(other),
    })
}
