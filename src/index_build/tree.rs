//! The tables of a partitioned table and their indexes, read from the catalog.

use crate::error::{Error, Result};
use crate::ident::Ident;
use crate::plan::create_index::{self, Have, Left, Node, Wanted};
use crate::session::{PinnedSettings, with_own_tables};
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::collections::HashSet;

/// A partitioned table with every table below it, parents first. Empty when there is none.
pub fn read(root: Oid) -> Result<Vec<Node>> {
    // Whether an index is being built is for those to see who may see what other sessions do.
    with_own_tables(|| spi::latest_rows(include_str!("../../sql/catalog/index_tree.sql"), &[root.into()]))
}

/// The indexes of the root.
pub fn indexes(root: Oid) -> Result<Vec<Have>> {
    Ok(read(root)?
        .into_iter()
        .next()
        .map(|node| node.indexes)
        .unwrap_or_default())
}

/// What is left to do for an index.
///
/// # Errors
/// `Unsupported` where a partition is a foreign table, which has no indexes.
pub fn left(wanted: &Wanted, root: Oid) -> Result<Left> {
    let tree = read(root)?;
    if let Some(foreign) = tree.iter().find(|node| node.kind == "f") {
        return Err(Error::Unsupported {
            what: format!("partition {} is a foreign table", foreign.name),
            hint: "A foreign table has no indexes: make them on each partition that is here.".into(),
        });
    }
    if tree.is_empty() {
        return Err(Error::UnknownRelation { oid: root.to_u32() });
    }
    let taken = taken(&create_index::candidates(wanted, &tree))?;
    Ok(create_index::left(wanted, &tree, &taken))
}

fn taken(candidates: &[Ident]) -> Result<HashSet<(Ident, Ident)>> {
    #[derive(Deserialize)]
    struct Row {
        schema: Ident,
        name: Ident,
    }
    let _path = PinnedSettings::search_path();
    let names: Vec<String> = candidates.iter().map(|name| name.as_str().to_owned()).collect();
    let rows: Vec<Row> = spi::latest_rows(
        "SELECT pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname = ANY ($1::text[]::name[])",
        &[names.into()],
    )?;
    Ok(rows.into_iter().map(|row| (row.schema, row.name)).collect())
}
