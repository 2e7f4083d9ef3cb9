//! `advise`: reads how large the partitions of a table are, which of them are read, what its queries ask for and what planning
//! takes, and lets [`rules`] say what to do about it. Changes nothing.

mod rules;

pub use rules::Advice;

use crate::bounds::Interval;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::locks::budget;
use crate::pair::store;
use crate::session::{PinnedSettings, with_own_tables};
use crate::{spi, twin};
use pgrx::pg_sys::Oid;
use rules::{Cut, Leaf, Query, Seen};
use serde::Deserialize;

/// What there is to say about a partitioned table, or the twin of a pair.
///
/// # Errors
/// `NotOwner`; `NotPartitioned`.
pub fn advise(relation: Oid) -> Result<Vec<Advice>> {
    let table = store::find(relation)?.map_or(relation, |pair| pair.twin);
    let name = load::rel_name(table)?.ok_or_else(|| Error::UnknownRelation { oid: table.to_u32() })?;
    store::require_owner(table)?;
    let (strategy, key) = cut(table)?.ok_or_else(|| Error::NotPartitioned {
        relation: name.to_string(),
    })?;
    let _settings = PinnedSettings::search_path();
    let (leaves, direct) = leaves(table)?;
    let cut = match strategy.as_str() {
        "r" => Cut::Range(interval(table)?),
        "h" => Cut::Hash(direct),
        _ => Cut::List,
    };
    let seen = Seen {
        cut,
        planning: planning(&name)?,
        queries: queries(&name)?,
        key: key.map(|key| key.as_str().to_owned()),
        leaves,
    };
    Ok(rules::advise(&seen))
}

/// The strategy, and the key where it is one column.
fn cut(table: Oid) -> Result<Option<(String, Option<Ident>)>> {
    #[derive(Deserialize)]
    struct Row {
        strategy: String,
        key: Option<Ident>,
    }
    let row: Option<Row> = spi::row(
        "SELECT pg_catalog.jsonb_build_object('strategy', p.partstrat, 'key', a.attname)
         FROM pg_catalog.pg_partitioned_table p
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND p.partnatts = 1 AND a.attnum = p.partattrs[0]
         WHERE p.partrelid = $1",
        &[table.into()],
    )?;
    Ok(row.map(|row| (row.strategy, row.key)))
}

/// Every leaf, and how many partitions there are directly below the table.
fn leaves(table: Oid) -> Result<(Vec<Leaf>, usize)> {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        bytes: i64,
        scans: i64,
        bounds: String,
        level: i32,
        is_leaf: bool,
        is_newest: bool,
    }
    let rows: Vec<Row> = spi::rows(
        "SELECT pg_catalog.jsonb_build_object('name', c.relname, 'bytes', pg_catalog.pg_total_relation_size(c.oid),
             'scans', pg_catalog.pg_stat_get_numscans(c.oid) + COALESCE((
                 SELECT pg_catalog.sum(pg_catalog.pg_stat_get_numscans(i.indexrelid))
                 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), 0)::bigint,
             'bounds', COALESCE(pg_catalog.pg_get_expr(c.relpartbound, c.oid), ''), 'level', t.level, 'is_leaf', t.isleaf,
             'is_newest', pg_catalog.row_number() OVER (PARTITION BY t.isleaf ORDER BY
                 pg_catalog.pg_relation_size(c.oid) = 0, c.oid DESC) = 1)
         FROM pg_catalog.pg_partition_tree($1) t JOIN pg_catalog.pg_class c ON c.oid = t.relid
         WHERE t.level > 0 ORDER BY c.relname",
        &[table.into()],
    )?;
    let direct = rows.iter().filter(|row| row.level == 1).count();
    let leaves = rows.into_iter().filter(|row| row.is_leaf).map(|row| Leaf {
        is_default: row.bounds == "DEFAULT",
        is_newest: row.is_newest,
        name: row.name,
        bytes: row.bytes,
        scans: row.scans,
    });
    Ok((leaves.collect(), direct))
}

/// The interval of the policy.
fn interval(table: Oid) -> Result<Option<Interval>> {
    let text: Option<String> = with_own_tables(|| {
        spi::row(
            "SELECT pg_catalog.to_jsonb(partition_interval) FROM partition_router.policy WHERE parent::oid = $1",
            &[table.into()],
        )
    })?;
    text.map(|text| Interval::from_step(&text).or_else(|_| twin::parse_interval(&text)))
        .transpose()
}

/// How long the planner takes for a read of every partition, in milliseconds.
fn planning(table: &RelName) -> Result<f64> {
    let explained = spi::explained(&format!("EXPLAIN (SUMMARY, FORMAT json) SELECT FROM {table}"))?;
    explained
        .pointer("/0/Planning Time")
        .and_then(serde_json::Value::as_f64)
        .ok_or_else(|| Error::Internal("EXPLAIN tells no planning time".into()))
}

/// What pg_stat_statements has of the table, as far as the caller may see it. `None` where it is not there or not loaded.
fn queries(table: &RelName) -> Result<Option<Vec<Query>>> {
    #[derive(Deserialize)]
    struct Row {
        text: String,
        calls: i64,
        milliseconds: f64,
        planning: f64,
    }
    let schema: Option<Ident> = spi::row(
        "SELECT pg_catalog.to_jsonb(n.nspname) FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'",
        &[],
    )?;
    let Some(schema) = schema else { return Ok(None) };
    let query = format!(
        "SELECT pg_catalog.jsonb_build_object('text', s.query, 'calls', s.calls,
             'milliseconds', s.total_exec_time + s.total_plan_time, 'planning', s.total_plan_time)
         FROM {schema}.pg_stat_statements s
         WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
           AND pg_catalog.strpos(pg_catalog.lower(s.query), pg_catalog.lower($1)) > 0
           AND pg_catalog.lower(s.query) ~ '^\\s*(select|with|update|delete|merge)\\M'
         ORDER BY s.total_exec_time DESC LIMIT 500"
    );
    let found = budget::subtransaction(|| spi::rows::<Row>(&query, &[table.name.as_str().into()]));
    let rows = match found {
        Ok(rows) => rows?,
        Err(caught)
            if budget::sqlstate(&caught)
                == Some(pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE) =>
        {
            return Ok(None); // created, and not loaded with the server
        }
        Err(caught) => caught.rethrow(),
    };
    let queries = rows
        .into_iter()
        .filter(|row| rules::mentions(&row.text, table.name.as_str()))
        .map(|row| Query {
            text: row.text,
            calls: row.calls,
            milliseconds: row.milliseconds,
            planning: row.planning,
        });
    Ok(Some(queries.collect()))
}
