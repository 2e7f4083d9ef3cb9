//! The table on the other server, before anything goes there.

use super::{Journey, refused};
use crate::catalog::Index;
use crate::error::{Error, Remote, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, Literal, RelName};
use crate::locks::budget;
use crate::plan::place::{Bounds, IN_BOUNDS};
use crate::plan::{Plan, indexes};
use crate::spi;
use serde::Deserialize;

/// The table over there is there, empty, can be written and read, and keeps bounds and keys.
pub fn require(journey: &Journey, server: &Ident) -> Result<()> {
    let (facts, placing) = (&journey.facts, journey.placing());
    let copy = placing.copy();
    let look = format!("SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM {copy}))");
    let looked = budget::subtransaction(|| journey.as_owner(|| spi::row::<bool>(&look, &[])));
    let has_rows = match looked {
        Ok(found) => found?,
        Err(caught) => {
            let said = Remote::from_caught(&caught);
            if said.sqlstate == "57014" {
                caught.rethrow();
            }
            return Err(refused(
                facts,
                format!("its place over there cannot be read: {}", said.message),
                format!("Run there, as the user of the mapping: {};", placing.over_there()),
            ));
        }
    };
    if has_rows == Some(true) {
        return Err(refused(
            facts,
            "the table over there has rows already",
            "Empty it, or name another server: what is there is not overwritten.",
        ));
    }
    let found = found(journey, server, &copy)?;
    let lacks = match journey.bounds {
        Bounds::Range { .. } if !found.check => Some("no CHECK of the partition's bounds".to_string()),
        _ => {
            let is_there = |key: &&Index| {
                let names = key.key_columns.iter().flatten();
                found.keys.iter().any(|columns| names.clone().eq(columns))
            };
            let lacking = journey.unique.iter().find(|key| !is_there(key));
            lacking
                .and_then(indexes::constraint)
                .map(|clause| format!("no {clause}"))
        }
    };
    match lacks {
        Some(lacks) => Err(refused(
            facts,
            format!("the table over there has {lacks} that its owner, the user of the mapping, sees"),
            format!("Make it anew over there: {};", placing.over_there()),
        )),
        None => Ok(()),
    }
}

/// What the other server's catalog says of the table over there.
#[derive(Deserialize)]
struct Found {
    /// Whether it has the CHECK that the copy here has, as the servers print them.
    check: bool,
    /// The columns of each primary key and unique constraint.
    keys: Vec<Vec<Ident>>,
}

fn found(journey: &Journey, server: &Ident, copy: &RelName) -> Result<Found> {
    let name = &journey.facts.name;
    let far = |what: &str| {
        name.sibling(Ident::new(format!(
            "partition_router_{what}_{}",
            journey.oid.to_u32()
        )))
    };
    let (checks, constraints, columns) = (far("checks"), far("constraints"), far("columns"));
    let tables = [
        (
            &checks,
            "constraint_schema text, constraint_name text, check_clause text",
            "check_constraints",
        ),
        (
            &constraints,
            "constraint_schema text, constraint_name text, table_schema text, table_name text, constraint_type text",
            "table_constraints",
        ),
        (
            &columns,
            "constraint_schema text, constraint_name text, table_schema text, table_name text, column_name text, \
             ordinal_position int",
            "key_column_usage",
        ),
    ];
    // Parentheses are not printed the same way by all versions.
    let query = format!(
        "SELECT pg_catalog.jsonb_build_object(
             'check', EXISTS (
                 SELECT FROM {checks} c JOIN {constraints} t ON t.constraint_schema = c.constraint_schema
                     AND t.constraint_name = c.constraint_name
                 WHERE t.table_schema = {schema} AND t.table_name = {table}
                   AND pg_catalog.translate(c.check_clause, '() ', '') = (
                       SELECT pg_catalog.translate(pg_catalog.pg_get_expr(k.conbin, k.conrelid), '() ', '')
                       FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class r ON r.oid = k.conrelid
                       JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
                       WHERE k.conname = {} AND r.relname = {} AND n.nspname = {})),
             'keys', (
                 SELECT COALESCE(pg_catalog.jsonb_agg(x.names), '[]')
                 FROM (SELECT pg_catalog.jsonb_agg(u.column_name ORDER BY u.ordinal_position) AS names
                       FROM {columns} u JOIN {constraints} t ON t.constraint_schema = u.constraint_schema
                           AND t.constraint_name = u.constraint_name AND t.table_name = u.table_name
                       WHERE t.table_schema = {schema} AND t.table_name = {table}
                         AND t.constraint_type IN ('PRIMARY KEY', 'UNIQUE')
                       GROUP BY t.constraint_name) x))",
        Literal(IN_BOUNDS),
        Literal(copy.name.as_str()),
        Literal(copy.schema.as_str()),
        schema = Literal(name.schema.as_str()),
        table = Literal(name.name.as_str()),
    );
    let found: Vec<Found> = budget::undone(|| {
        journey.as_owner(|| {
            let mut plan = Plan::default();
            for (table, columns, source) in tables {
                plan.push(
                    "read the other server's catalog",
                    format!(
                        "CREATE FOREIGN TABLE {table} ({columns}) SERVER {server} \
                         OPTIONS (schema_name 'information_schema', table_name '{source}')"
                    ),
                );
            }
            execute::run(&plan, Mode::Run)?;
            spi::latest_rows(&query, &[])
        })
    })?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| Error::Internal("no answer of the other server's catalog".into()))
}
