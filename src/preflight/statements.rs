//! Statements that will behave otherwise on the twin: upserts whose unique index is wider there, and queries that do not name
//! the partition key. They are looked for in functions and, where it can be read, in `pg_stat_statements`.

use super::Finding;
use super::sql_text::{SqlText, Target};
use super::surroundings::{Surroundings, bare};
use crate::catalog::{Index, TableDef};
use crate::error::Result;
use crate::ident::Ident;
use crate::locks::budget;
use crate::plan::indexes;
use crate::spi;
use serde::Deserialize;

/// So many statements are looked at, those that are called most first.
const LOOKED_AT: i32 = 1000;
/// So many are named.
const NAMED: usize = 5;

#[derive(Debug, Deserialize)]
struct Statement {
    query: String,
    calls: i64,
}

pub fn findings(
    legacy: &TableDef,
    partition_key: &Ident,
    around: &Surroundings,
    found: &mut Vec<Finding>,
) -> Result<()> {
    for function in around.functions.iter().chain(&around.known_bodies) {
        let text = SqlText::new(&function.source);
        let source = format!("function {}", function.name);
        upserts(legacy, partition_key, &text, &source, found);
    }
    let Some(statements) = seen(around, found)? else {
        return Ok(());
    };
    let (schema, table) = bare(&legacy.name);
    let mut without_key = vec![];
    for statement in &statements {
        let text = SqlText::new(&statement.query);
        if !text.names_table(schema, table) {
            continue;
        }
        let source = format!(
            "a statement seen {} times, \"{}\",",
            statement.calls,
            start(&statement.query)
        );
        upserts(legacy, partition_key, &text, &source, found);
        if text.looks_for_rows() && !text.names(partition_key.as_str()) {
            without_key.push(statement);
        }
    }
    for statement in without_key.iter().take(NAMED) {
        found.push(Finding::warning(
            "query_without_key",
            format!(
                "a statement seen {} times does not name {partition_key} and will look into every partition: {}",
                statement.calls,
                start(&statement.query)
            ),
            "Add a condition on the partition key where the application knows it.",
        ));
    }
    if without_key.len() > NAMED {
        found.push(Finding::warning(
            "query_without_key",
            format!(
                "{} more statements do not name {partition_key}",
                without_key.len() - NAMED
            ),
            "See pg_stat_statements for the others.",
        ));
    }
    Ok(())
}

/// What `pg_stat_statements` has on the table; `None` where there is no reading it, which is said.
fn seen(around: &Surroundings, found: &mut Vec<Finding>) -> Result<Option<Vec<Statement>>> {
    let Some(view) = &around.statements else {
        return Ok(None);
    };
    // The view is there in every database that has the extension; its library may not be loaded.
    let read = budget::subtransaction(|| {
        spi::rows(
            &format!(
                "SELECT pg_catalog.jsonb_build_object('query', s.query, 'calls', s.calls) FROM {view} s
                 WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
                   AND s.query IS NOT NULL
                 ORDER BY s.calls DESC LIMIT $1"
            ),
            &[LOOKED_AT.into()],
        )
    });
    match read {
        Ok(statements) => statements.map(Some),
        Err(caught)
            if budget::sqlstate(&caught)
                == Some(pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE) =>
        {
            found.push(Finding::info(
                "statements_not_seen",
                format!(
                    "pg_stat_statements is installed and cannot be read: {}",
                    budget::message(&caught)
                ),
                "Add it to shared_preload_libraries to hear which statements do not name the partition key.",
            ));
            Ok(None)
        }
        Err(caught) => caught.rethrow(),
    }
}

fn upserts(legacy: &TableDef, partition_key: &Ident, text: &SqlText, source: &str, found: &mut Vec<Finding>) {
    let (schema, table) = bare(&legacy.name);
    for target in text.conflict_targets(schema, table) {
        let widened =
            |index: &&Index| indexes::is_widened(index, partition_key) && is_arbiter(index, &target);
        if legacy.indexes.iter().find(widened).is_none() {
            continue;
        }
        found.push(match &target {
            Target::Columns(columns) => Finding::warning(
                "on_conflict",
                format!(
                    "{source} has ON CONFLICT ({}), for which the twin has no unique index",
                    columns.join(", ")
                ),
                format!("Name the partition key as well: ON CONFLICT ({}, {partition_key}).", columns.join(", ")),
            ),
            Target::Constraint(name) => Finding::warning(
                "on_conflict",
                format!("{source} has ON CONFLICT ON CONSTRAINT {name}, which compares the partition key as well on the twin"),
                "A row with another partition key is no conflict there; the legacy's constraint refuses it as long as the legacy is kept.",
            ),
        });
    }
}

fn is_arbiter(index: &Index, target: &Target) -> bool {
    match target {
        Target::Constraint(name) => index.constraint.as_ref().is_some_and(|c| c.as_str() == name),
        Target::Columns(columns) => {
            let mut key: Vec<&str> = index.key_columns.iter().flatten().map(Ident::as_str).collect();
            key.sort_unstable();
            index.key_columns.iter().all(Option::is_some) && key == *columns
        }
    }
}

/// The beginning of a statement, in one line.
fn start(query: &str) -> String {
    const LONGEST: usize = 100;
    let line = query.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LONGEST {
        return line;
    }
    let cut: String = line.chars().take(LONGEST).collect();
    format!("{cut}…")
}
