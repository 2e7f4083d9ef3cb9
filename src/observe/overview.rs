//! What `openmetrics()`, the page and the figures of tables are all made of: each kind of fact, read once. Pairs and feeds are read by
//! those that tell of them.

use super::default_rows;
use super::facts::{self, Bounds, Part, Source, TableFacts};
use super::server::{self, Server};
use crate::error::Result;
use std::collections::HashMap;

pub struct Overview {
    /// With the bounds of all partitions.
    pub tables: Vec<TableFacts>,
    /// By the table's oid.
    pub parts: HashMap<u32, Vec<Part>>,
    pub source: Source,
    /// Rows of default partitions, by their oids.
    pub defaults: HashMap<u32, i64>,
    pub server: Server,
}

impl Overview {
    pub fn read() -> Result<Overview> {
        let mut tables = facts::tables(Bounds::None)?;
        let source = Source::of(tables.iter().map(|table| table.leaves).sum());
        let roots: Vec<u32> = tables.iter().map(|table| table.root).collect();
        let parts = facts::parts(&roots, source)?;
        // To print bounds takes longer than all else: the partitions have brought them along, but for those that are partitioned.
        if tables.iter().any(|table| table.is_deep) {
            tables = facts::tables(Bounds::All)?;
        } else {
            tables.iter_mut().for_each(|table| table.take_bounds(&parts));
        }
        Ok(Overview {
            defaults: default_rows::counted(&tables)?,
            server: server::server()?,
            tables,
            parts,
            source,
        })
    }
}
