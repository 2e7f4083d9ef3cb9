//! Rows in default partitions: how many there are, and which of them maintenance moves.

use super::facts::TableFacts;
use crate::catalog::load;
use crate::error::Result;
use crate::policy::Skip;
use crate::{session, spi};
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// Rows of a default partition are counted up to here: whoever looks at `health` every few seconds must not scan them all.
pub const COUNTED_ROWS: i64 = 100_000;

/// What the default partition of a table holds. One row more than [`COUNTED_ROWS`] stands for any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InDefault {
    pub rows: i64,
    /// Those that maintenance moves: all but those that its last run looked at and left alone. Where more stay than are counted,
    /// nobody can tell, and it is none.
    pub to_move: i64,
    /// What that run left alone for good: how many rows, and why, with some of their keys.
    pub stays: Vec<(i64, String)>,
}

impl InDefault {
    fn new(rows: i64, left_alone: &[Skip]) -> InDefault {
        let for_good = left_alone.iter().filter(|skip| skip.for_good);
        let stays: Vec<(i64, String)> = for_good
            .filter_map(|skip| Some((skip.rows?, skip.reason.clone())))
            .collect();
        let staying: i64 = stays.iter().map(|(rows, _)| rows).sum();
        InDefault {
            rows,
            to_move: (rows - staying).max(0),
            stays,
        }
    }
}

/// A number of rows, for people.
pub fn told(rows: i64) -> String {
    match rows > COUNTED_ROWS {
        true => format!("more than {COUNTED_ROWS}"),
        false => rows.to_string(),
    }
}

/// What the default partition of a table holds, of which the rows were [`counted`]. Without a policy, or while the table is
/// filled by a backfill, nothing moves them.
pub fn in_default(table: &TableFacts, counted: &HashMap<u32, i64>) -> InDefault {
    let rows = table.default.and_then(|default| counted.get(&default));
    let rows = rows.copied().unwrap_or(0);
    match &table.policy {
        Some(policy) if !table.is_copied => InDefault::new(rows, &policy.left_alone),
        _ => InDefault {
            rows,
            ..InDefault::default()
        },
    }
}

/// The number of rows of each default partition that has any. The file of an empty one has no page, so that it is not even opened.
pub fn counted(tables: &[TableFacts]) -> Result<HashMap<u32, i64>> {
    let defaults: Vec<Oid> = tables.iter().filter_map(|t| t.default).map(Oid::from).collect();
    let filled: Vec<u32> = session::with_own_tables(|| {
        spi::rows(
            "SELECT to_jsonb(c.oid::bigint) FROM pg_class c
             WHERE c.oid = ANY ($1) AND (c.relkind <> 'r' OR pg_relation_size(c.oid) > 0)",
            &[defaults.into()],
        )
    })?;
    let mut rows = HashMap::new();
    for default in filled {
        let Some(name) = load::rel_name(default.into())? else {
            continue;
        };
        // Reads no column; but to plan it the server runs what an index or a constraint makes of constants.
        let query = format!(
            "SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM (SELECT FROM {name} LIMIT {}) x",
            COUNTED_ROWS + 1
        );
        let owner = load::owner(default.into())?;
        let number = session::with_all_rows_of(owner, || spi::row(&query, &[]))?.unwrap_or(0);
        rows.insert(default, number);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(rows: Option<i64>, for_good: bool) -> Skip {
        Skip {
            partition: None,
            rows,
            reason: "why".into(),
            for_good,
        }
    }

    #[test]
    fn only_what_stays_for_good_is_not_to_move() {
        let left = [skip(Some(2), true), skip(Some(50), false), skip(None, false)];
        let found = InDefault::new(60, &left);
        assert_eq!(found.to_move, 58);
        assert_eq!(found.stays, [(2, "why".to_string())]);
    }

    #[test]
    fn fewer_rows_than_once_stayed_are_none_to_move() {
        assert_eq!(InDefault::new(1, &[skip(Some(2), true)]).to_move, 0);
        assert_eq!(
            InDefault::new(COUNTED_ROWS + 1, &[skip(Some(1 << 40), true)]).to_move,
            0
        );
    }
}
