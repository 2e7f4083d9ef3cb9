//! Whether tables have pages, by their files: to open thousands of tables takes longer than all the rest of the survey, and waits for who
//! has one locked.

use crate::error::Result;
use crate::spi;
use pgrx::pg_sys::Oid;
use std::collections::HashSet;
use std::fs;

/// Those of the tables that have pages, or may have. A table that gets another file in this very moment is taken for what it was, or
/// for filled.
pub fn filled(tables: impl Iterator<Item = u32>) -> Result<HashSet<u32>> {
    let tables: Vec<Oid> = tables.map(Oid::from).collect();
    if tables.is_empty() {
        return Ok(HashSet::new());
    }
    // Paths are relative to the data directory, which is where a session works; a foreign table has none.
    let paths = spi::texts_in_snapshot(
        "SELECT t.oid, pg_catalog.pg_relation_filepath(t.oid) FROM pg_catalog.unnest($1) t (oid)",
        &[tables.into()],
    )?;
    let is_empty = |path: &str| fs::metadata(path).is_ok_and(|file| file.len() == 0);
    Ok(paths
        .into_iter()
        .filter(|[_, path]| !path.as_deref().is_some_and(is_empty))
        .filter_map(|[oid, _]| oid?.parse().ok())
        .collect())
}
