//! What would stop a migration, and what would surprise. A finding of severity `error` stops `create_twin()`.

use crate::catalog::{TableDef, load};
use crate::error::{Error, Result};
use crate::ident::Ident;
use crate::pair::{Strategy, store};
use crate::plan::indexes;
use crate::{spi, twin};
use pgrx::pg_sys::Oid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Stops the migration.
    Error,
    /// Will behave otherwise than before.
    Warning,
    Info,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Finding {
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
    pub hint: String,
    /// What `create_twin()` raises.
    pub error: Option<Error>,
}

impl Finding {
    fn error(code: &'static str, error: Error) -> Self {
        Finding {
            severity: Severity::Error,
            code,
            message: error.message(),
            hint: error.hint().unwrap_or_default(),
            error: Some(error),
        }
    }

    fn warning(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Warning,
            code,
            message: message.into(),
            hint: hint.into(),
            error: None,
        }
    }

    fn info(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Info,
            ..Finding::warning(code, message, hint)
        }
    }
}

/// Everything there is to say about migrating `legacy`, most severe first. Changes nothing.
pub fn findings(legacy: &TableDef, partition_key: &Ident, strategy: &str) -> Result<Vec<Finding>> {
    let mut found = vec![];
    if let Some(error) = wrong_kind(legacy)? {
        // What is no ordinary table has nothing else worth saying.
        return Ok(vec![Finding::error(code_of(&error), error)]);
    }
    let strategy = match twin::strategy(strategy) {
        Ok(strategy) => Some(strategy),
        Err(error) => {
            found.push(Finding::error("bad_strategy", error));
            None
        }
    };
    if legacy.primary_key().is_none() {
        found.push(Finding::error(
            "no_primary_key",
            Error::NoPrimaryKey {
                relation: legacy.name.to_string(),
            },
        ));
    }
    key_findings(legacy, partition_key, strategy, &mut found)?;
    widened(legacy, partition_key, &mut found);
    what_cannot_follow(legacy, &mut found);
    surroundings(legacy, &mut found)?;
    found.sort_by_key(|f| f.severity as u8);
    Ok(found)
}

/// The first error among the findings, for calls that cannot go on.
pub fn require_clean(legacy: &TableDef, partition_key: &Ident, strategy: &str) -> Result<()> {
    match findings(legacy, partition_key, strategy)?
        .into_iter()
        .find_map(|f| f.error)
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn code_of(error: &Error) -> &'static str {
    match error {
        Error::TemporaryTable { .. } => "temporary",
        Error::UnloggedTable { .. } => "unlogged",
        Error::SystemTable { .. } => "system_table",
        Error::AlreadyPaired { .. } => "already_paired",
        _ => "not_an_ordinary_table",
    }
}

fn wrong_kind(legacy: &TableDef) -> Result<Option<Error>> {
    let relation = legacy.name.to_string();
    let reason = match legacy.kind.as_str() {
        "r" => None,
        "p" => Some("it is partitioned already"),
        "v" => Some("it is a view"),
        "m" => Some("it is a materialized view"),
        "f" => Some("it is a foreign table"),
        "S" => Some("it is a sequence"),
        "i" | "I" => Some("it is an index"),
        _ => Some("it is something else"),
    };
    if let Some(pair) = store::find(Oid::from(legacy.oid))? {
        return Ok(Some(Error::AlreadyPaired {
            relation,
            phase: pair.phase.to_string(),
        }));
    }
    Ok(if legacy.is_system {
        Some(Error::SystemTable { relation })
    } else if legacy.persistence == "t" {
        Some(Error::TemporaryTable { relation })
    } else if let Some(reason) = reason {
        Some(Error::NotAnOrdinaryTable {
            relation,
            reason: reason.into(),
        })
    } else if legacy.persistence == "u" {
        Some(Error::UnloggedTable { relation })
    } else if legacy.is_partition {
        Some(Error::NotAnOrdinaryTable {
            relation,
            reason: "it is a partition".into(),
        })
    } else if legacy.is_inherited {
        Some(Error::NotAnOrdinaryTable {
            relation,
            reason: "it has children or a parent by inheritance".into(),
        })
    } else if legacy.is_typed {
        Some(Error::NotAnOrdinaryTable {
            relation,
            reason: "it is a table of a composite type".into(),
        })
    } else if legacy.access_method.as_deref() != Some("heap") {
        Some(Error::NotAnOrdinaryTable {
            relation,
            reason: "its access method is not heap".into(),
        })
    } else {
        None
    })
}

fn key_findings(
    legacy: &TableDef,
    partition_key: &Ident,
    strategy: Option<Strategy>,
    found: &mut Vec<Finding>,
) -> Result<()> {
    let Some(column) = legacy.column(partition_key.as_str()) else {
        found.push(Finding::error(
            "unknown_column",
            Error::UnknownColumn {
                relation: legacy.name.to_string(),
                column: partition_key.as_str().into(),
            },
        ));
        return Ok(());
    };
    if column.generated {
        found.push(Finding::error(
            "generated_key",
            Error::UnsuitableKey {
                column: column.name.as_str().into(),
                type_name: format!("{} (generated)", column.type_name),
                strategy: strategy.map(|s| s.to_string()).unwrap_or_default(),
            },
        ));
    }
    if strategy == Some(Strategy::Range)
        && ![
            "date",
            "timestamp without time zone",
            "timestamp with time zone",
            "uuid",
        ]
        .contains(&column.base_type.as_str())
        && !["smallint", "integer", "bigint"].contains(&column.base_type.as_str())
    {
        found.push(Finding::error(
            "unsuitable_key",
            Error::UnsuitableKey {
                column: column.name.as_str().into(),
                type_name: column.type_name.clone(),
                strategy: "range".into(),
            },
        ));
    }
    let method = match strategy {
        Some(Strategy::Hash) => Some(load::Method::Hash),
        Some(Strategy::List) => Some(load::Method::Btree),
        _ => None,
    };
    if let Some(method) = method
        && !load::has_operator_class(Oid::from(legacy.oid), &column.name, method)?
    {
        found.push(Finding::error(
            "unsuitable_key",
            Error::UnsuitableKey {
                column: column.name.as_str().into(),
                type_name: column.type_name.clone(),
                strategy: strategy.map(|s| s.to_string()).unwrap_or_default(),
            },
        ));
    }
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

fn widened(legacy: &TableDef, partition_key: &Ident, found: &mut Vec<Finding>) {
    for index in legacy
        .indexes
        .iter()
        .filter(|i| indexes::is_widened(i, partition_key))
    {
        found.push(Finding::warning(
            "unique_widened",
            format!("unique index {} gets the partition key on the twin", index.name),
            "As long as the legacy is kept its own index keeps the values unique; ON CONFLICT on the twin must name the partition key too.",
        ));
    }
}

fn what_cannot_follow(legacy: &TableDef, found: &mut Vec<Finding>) {
    for index in legacy.indexes.iter().filter(|i| i.exclusion) {
        found.push(Finding::error(
            "exclusion_constraint",
            Error::Unsupported {
                what: format!(
                    "exclusion constraint {} cannot be carried to a partitioned table",
                    index.name
                ),
                hint: "Drop the constraint, or keep the table as it is.".into(),
            },
        ));
    }
    for index in legacy.indexes.iter().filter(|i| !i.valid) {
        found.push(Finding::warning(
            "invalid_index",
            format!("index {} is invalid and is left out", index.name),
            "Run REINDEX INDEX CONCURRENTLY, or drop it.",
        ));
    }
    for key in legacy.foreign_keys.iter().filter(|k| !k.valid) {
        found.push(Finding::warning(
            "foreign_key_not_valid",
            format!(
                "foreign key {} is not valid and is not carried to the twin",
                key.name
            ),
            "Run ALTER TABLE … VALIDATE CONSTRAINT first.",
        ));
    }
    for reference in &legacy.referenced_by {
        found.push(Finding::warning(
            "foreign_key_in",
            format!("foreign key {} of {} points at this table", reference.name, reference.relation),
            "It goes on pointing at the legacy, which is kept in step; it must be moved before the legacy can go.",
        ));
    }
    for trigger in legacy.user_triggers() {
        if trigger.tail.is_none() || (trigger.row && trigger.transition) {
            found.push(Finding::error(
                "trigger",
                Error::Unsupported {
                    what: format!(
                        "trigger {} cannot be carried to a partitioned table",
                        trigger.name
                    ),
                    hint: "Make it a statement trigger, or a row trigger without transition tables.".into(),
                },
            ));
        }
    }
    for column in legacy.columns.iter().filter(|c| c.identity) {
        found.push(Finding::info(
            "identity",
            format!(
                "identity column {} draws from the legacy's sequence on both sides",
                column.name
            ),
            "On the twin it is a default, not an identity.",
        ));
    }
}

fn surroundings(legacy: &TableDef, found: &mut Vec<Finding>) -> Result<()> {
    let oid = Oid::from(legacy.oid);
    let publications: Vec<String> = spi::rows(
        "SELECT pg_catalog.to_jsonb(p.pubname) FROM pg_catalog.pg_publication p
         WHERE p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $1)",
        &[oid.into()],
    )?;
    for publication in publications {
        found.push(Finding::info(
            "publication",
            format!("the table is published by {}", Ident::new(publication)),
            "The legacy stays published; add the twin to a publication only where it is read.",
        ));
    }
    let rules: Vec<String> = spi::rows(
        "SELECT pg_catalog.to_jsonb(r.rulename) FROM pg_catalog.pg_rewrite r WHERE r.ev_class = $1",
        &[oid.into()],
    )?;
    for rule in rules {
        found.push(Finding::warning(
            "rule",
            format!("rule {} is not carried to the twin", Ident::new(rule)),
            "Replace it by a trigger.",
        ));
    }
    let bytes: Option<i64> = spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.pg_total_relation_size($1))",
        &[oid.into()],
    )?;
    let readable: Option<String> = spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.pg_size_pretty($1::bigint))",
        &[bytes.unwrap_or(0).into()],
    )?;
    found.push(Finding::info(
        "disk",
        format!(
            "the twin will take about as much disk as the table: {}",
            readable.unwrap_or_default()
        ),
        "Have twice that free: the change log and WAL come on top.",
    ));
    Ok(())
}
