//! How a partition is partitioned itself, so that the next one can be made like it.

use super::{TableDef, load};
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// The partitions below a partition.
#[derive(Debug, Clone)]
pub struct Depth {
    /// What follows PARTITION BY.
    pub key: String,
    pub parts: Vec<Below>,
}

#[derive(Debug, Clone)]
pub struct Below {
    /// What its name has behind that of the table above it.
    pub suffix: String,
    /// `FOR VALUES …` or `DEFAULT`.
    pub bounds: String,
    /// The partition that the new one is made like.
    pub like: TableDef,
    pub depth: Option<Depth>,
}

#[derive(Deserialize)]
struct Shape {
    key: String,
    ranges_of: Option<Ident>,
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    oid: u32,
    bounds: String,
}

/// How the partitions of `table` are cut, which is a partition of one that is cut by `key`.
///
/// # Errors
/// `Unsupported` where they are ranges of the same key: each partition would need others, and maintenance knows one interval.
pub fn load(table: Oid, key: &Ident) -> Result<Depth> {
    let shape: Option<Shape> = spi::row(
        "SELECT pg_catalog.jsonb_build_object(
             'key', pg_catalog.pg_get_partkeydef(t.partrelid),
             'ranges_of', (SELECT a.attname FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = t.partrelid AND a.attnum = t.partattrs[0] AND t.partstrat = 'r'),
             'parts', (SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                           'oid', c.oid::bigint, 'bounds', pg_catalog.pg_get_expr(c.relpartbound, c.oid)) ORDER BY c.oid), '[]')
                       FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
                       WHERE i.inhparent = t.partrelid AND NOT i.inhdetachpending))
         FROM pg_catalog.pg_partitioned_table t WHERE t.partrelid = $1",
        &[table.into()],
    )?;
    let name = load::rel_name(table)?;
    let (Some(shape), Some(name)) = (shape, name) else {
        return Err(Error::UnknownRelation { oid: table.to_u32() });
    };
    if shape.ranges_of.as_ref() == Some(key) {
        return Err(Error::Unsupported {
            what: format!("{name} is cut by ranges of {key} once more"),
            hint: "Choose a shorter interval, or let partitions be cut by another column: by HASH, say."
                .into(),
        });
    }
    let parts = shape.parts.into_iter().enumerate();
    Ok(Depth {
        key: shape.key,
        parts: parts
            .map(|(number, part)| below(&name, number, part, key))
            .collect::<Result<_>>()?,
    })
}

fn below(above: &RelName, number: usize, part: Part, key: &Ident) -> Result<Below> {
    let like = load::table_def(part.oid.into())?;
    let depth = match like.kind.as_str() {
        "p" => Some(load(part.oid.into(), key)?),
        _ => None,
    };
    let suffix = like.name.name.as_str().strip_prefix(above.name.as_str());
    Ok(Below {
        suffix: suffix.map_or_else(|| format!("_{number}"), str::to_owned),
        bounds: part.bounds,
        like,
        depth,
    })
}
