//! Row by row: which rows differ, and in what.

use super::locate;
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::ident::{Ident, Literal, RelName, list};
use crate::pair::{Pair, store};
use crate::sync::pair_cache;
use crate::{calls, session, spi};
use pgrx::JsonB;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use serde_json::Value;

/// A row that differs.
#[derive(Debug, Deserialize)]
pub struct Mismatch {
    /// `missing` on the twin, `extra` on the twin, or `different`.
    pub kind: String,
    pub key: Value,
    pub legacy: Option<Value>,
    pub twin: Option<Value>,
    /// The columns that differ, of two rows with one key.
    pub columns: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct KeyColumn {
    name: Ident,
    /// The equality operator of the legacy's primary key, or of the type's default operator class.
    operator_schema: Ident,
    operator: String,
}

/// The query that joins both sides by the twin's key and keeps what differs.
pub struct Comparison {
    pub legacy: RelName,
    twin: RelName,
    key: Vec<KeyColumn>,
    columns: Vec<Ident>,
}

impl Comparison {
    pub fn of(pair: &Pair) -> Result<Comparison> {
        let legacy = load::table_def(pair.legacy)?;
        let twin = load::rel_name(pair.twin)?.ok_or_else(|| Error::Internal("the twin is gone".into()))?;
        let sync_pair = pair_cache::get(pair.id)?;
        let key = spi::rows(
            include_str!("../../sql/catalog/key_operators.sql"),
            &[pair.legacy.into(), sync_pair.twin_key.clone().into()],
        )?;
        Ok(Comparison {
            columns: legacy.columns.iter().map(|c| c.name.clone()).collect(),
            legacy: legacy.name,
            twin,
            key,
        })
    }

    /// `FROM … WHERE …`, with the sides called `l` and `t`. Rows are compared byte for byte, as `checksum` does.
    fn body(&self) -> String {
        let on = self
            .key
            .iter()
            .map(|k| {
                format!(
                    "l.{0} OPERATOR({1}.{2}) t.{0}",
                    k.name, k.operator_schema, k.operator
                )
            })
            .collect::<Vec<_>>()
            .join(" AND ");
        let row = |side: &str| list(self.columns.iter().map(|c| format!("{side}.{c}")));
        let first = self.key.first().map(|k| k.name.to_string()).unwrap_or_default();
        format!(
            "FROM {} l FULL JOIN {} t ON {on}
             WHERE l.{first} IS NULL OR t.{first} IS NULL
                OR pg_catalog.record_image_ne(ROW({}), ROW({}))",
            self.legacy,
            self.twin,
            row("l"),
            row("t")
        )
    }

    /// The rows with the keys of the array `$1`, on both sides, where they differ: `ord`, `key`, `kind`, `l`, `t`, and the
    /// names of the columns that differ. Of several rows of the twin with one key the others are extra. Keys that are equal in
    /// other bytes (1.0 and 1.00) name a row once.
    pub fn of_keys(&self) -> String {
        let on = |side: &str| {
            self.key
                .iter()
                .map(|k| {
                    format!(
                        "{side}.{0} OPERATOR({1}.{2}) (k.r).{0}",
                        k.name, k.operator_schema, k.operator
                    )
                })
                .collect::<Vec<_>>()
                .join(" AND ")
        };
        let first = self.key.first().map(|k| k.name.to_string()).unwrap_or_default();
        let differ = self
            .columns
            .iter()
            .map(|c| {
                format!(
                    "CASE WHEN pg_catalog.record_image_ne(ROW(l.{c}), ROW(t.{c})) THEN {} END",
                    Literal(c.as_str())
                )
            })
            .collect::<Vec<_>>()
            .join(", ");
        let row = |side: &str| list(self.columns.iter().map(|c| format!("{side}.{c}")));
        let (l_row, t_row) = (row("l"), row("t"));
        format!(
            "SELECT x.ord, x.key, x.l, x.t,
                    CASE WHEN x.nth > 1 OR x.l_gone THEN 'extra' WHEN x.t_gone THEN 'missing' ELSE 'different' END AS kind,
                    CASE WHEN NOT (x.nth > 1 OR x.l_gone OR x.t_gone)
                         THEN pg_catalog.array_remove(x.columns, NULL) END AS columns
             FROM (SELECT k.ord, k.key, l.*::{legacy} AS l, t.*::{twin} AS t, l.{first} IS NULL AS l_gone, t.{first} IS NULL AS t_gone,
                          pg_catalog.record_image_ne(ROW({l_row}), ROW({t_row})) AS differs,
                          ARRAY[{differ}]::pg_catalog.text[] AS columns,
                          pg_catalog.row_number() OVER (PARTITION BY k.ord ORDER BY
                              pg_catalog.record_image_ne(ROW({l_row}), ROW({t_row})), t.tableoid, t.ctid) AS nth,
                          pg_catalog.row_number() OVER (PARTITION BY l.tableoid, l.ctid, t.tableoid, t.ctid ORDER BY k.ord) AS seen
                   FROM (SELECT u.ord, u.key, pg_catalog.jsonb_populate_record(NULL::{legacy}, u.key) AS r
                         FROM pg_catalog.jsonb_array_elements($1) WITH ORDINALITY u(key, ord) OFFSET 0) k
                   LEFT JOIN {legacy} l ON {}
                   LEFT JOIN {twin} t ON {}) x
             WHERE x.seen = 1 AND NOT (x.l_gone AND x.t_gone) AND (x.l_gone OR x.t_gone OR x.differs OR x.nth > 1)",
            on("l"),
            on("t"),
            legacy = self.legacy,
            twin = self.twin,
        )
    }
}

pub fn owner_of(pair: &Pair) -> Result<Oid> {
    load::owner(pair.legacy)
}

/// The first `max_rows` rows that differ.
pub fn mismatches(relation: Oid, max_rows: i32) -> Result<Vec<Mismatch>> {
    let pair = store::get(relation)?;
    store::require_owner(pair.legacy)?;
    if max_rows < 0 {
        return Err(Error::BadArgument {
            argument: "max_rows".into(),
            reason: format!("{max_rows} rows were asked for"),
            hint: "Ask for zero rows or more.".into(),
        });
    }
    let _during = calls::during(calls::Call::Mismatches, pair.legacy);
    super::lock(&pair)?;
    super::under_newest_snapshot(|| {
        let found = locate::keys_now(&pair)?;
        // Keys are read back from their text as it was written, and values are shown whole.
        let _settings = super::pinned_output();
        let comparison = Comparison::of(&pair)?;
        session::as_user(owner_of(&pair)?, || {
            spi::rows_in_snapshot(
                &format!(
                    "SELECT pg_catalog.jsonb_build_object('kind', m.kind, 'key', m.key, 'legacy', pg_catalog.to_jsonb(m.l),
                        'twin', pg_catalog.to_jsonb(m.t), 'columns', m.columns)
                     FROM ({}) m ORDER BY m.ord LIMIT {max_rows}",
                    comparison.of_keys(),
                ),
                &[JsonB(Value::Array(found.keys)).into()],
            )
        })
    })
}

/// How many rows differ, by the partition that they are or belong in.
pub fn count_by_partition(pair: &Pair) -> Result<Vec<(Oid, i64)>> {
    let comparison = Comparison::of(pair)?;
    let rows: Vec<(Option<u32>, i64)> = session::as_user(owner_of(pair)?, || {
        spi::rows(
            &format!(
                "SELECT pg_catalog.jsonb_build_array(p, pg_catalog.count(*))
                 FROM (SELECT t.tableoid::bigint AS p {}) x GROUP BY p",
                comparison.body()
            ),
            &[],
        )
    })?;
    // Rows that the twin lacks have no partition: the counts of their partition differ already.
    Ok(rows
        .into_iter()
        .filter_map(|(partition, count)| partition.map(|p| (p.into(), count)))
        .collect())
}
