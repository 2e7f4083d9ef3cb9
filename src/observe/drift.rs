//! Columns and indexes in which the two sides of a pair are not the same.

use crate::error::Result;
use crate::session::with_own_tables;
use crate::spi;
use serde::Deserialize;
use std::collections::HashMap;

/// One difference, and the statement that makes the side which is not authoritative as the other.
#[derive(Debug, Clone, Deserialize)]
pub struct Drift {
    id: i32,
    pub what: String,
    pub mend: String,
}

/// By the number of the pair.
type ByPair = HashMap<i32, Vec<Drift>>;

pub fn columns() -> Result<ByPair> {
    read(include_str!("../../sql/observe/columns.sql"))
}

pub fn indexes() -> Result<ByPair> {
    read(include_str!("../../sql/observe/indexes.sql"))
}

fn read(query: &str) -> Result<ByPair> {
    let rows: Vec<Drift> = with_own_tables(|| spi::rows(query, &[]))?;
    let mut found = ByPair::new();
    for row in rows {
        found.entry(row.id).or_default().push(row);
    }
    Ok(found)
}
