//! Reads [`TableDef`]s from the catalog.
#![allow(unsafe_code)]

use super::TableDef;
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::spi;
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::ffi::{CStr, CString};

/// Everything the catalog says about a relation.
///
/// # Errors
/// `Internal` when there is no such relation: the caller got the oid from a `regclass`.
pub fn table_def(oid: Oid) -> Result<TableDef> {
    spi::row(include_str!("../../sql/catalog/table_def.sql"), &[oid.into()])?
        .ok_or_else(|| Error::UnknownRelation { oid: oid.to_u32() })
}

/// As [`table_def`], under the latest snapshot; `None` when there is no such relation (any more).
pub fn latest_table_def(oid: Oid) -> Result<Option<TableDef>> {
    Ok(spi::latest_rows(include_str!("../../sql/catalog/table_def.sql"), &[oid.into()])?.pop())
}

/// The schema-qualified name of a relation; `None` when it does not exist (any more). It comes from the catalog cache,
/// so a transaction with an old snapshot finds a relation that is younger.
pub fn rel_name(oid: Oid) -> Result<Option<RelName>> {
    let text = |name: *mut std::ffi::c_char| {
        // SAFETY: a palloc'ed C string of the server.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    };
    // SAFETY: look-ups in the catalog cache.
    let (name, schema) = unsafe {
        (
            text(pg_sys::get_rel_name(oid)),
            text(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid))),
        )
    };
    Ok(schema.zip(name).map(|(schema, name)| RelName::new(schema, name)))
}

/// The oid of a relation; `None` when there is none of that name.
pub fn oid_of(name: &RelName) -> Result<Option<Oid>> {
    let oid: Option<u32> = spi::row(
        "SELECT pg_catalog.to_jsonb(c.oid::bigint) FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
        &[name.schema.as_str().into(), name.name.as_str().into()],
    )?;
    Ok(oid.map(Oid::from))
}

/// As [`oid_of`], from the catalog cache: it sees what this transaction did last.
pub fn latest_oid_of(name: &RelName) -> Result<Option<Oid>> {
    let text = |name: &Ident| CString::new(name.as_str()).map_err(|e| Error::Internal(e.to_string()));
    let (schema, table) = (text(&name.schema)?, text(&name.name)?);
    // SAFETY: look-ups in the catalog cache.
    let oid = unsafe {
        pg_sys::get_relname_relid(table.as_ptr(), pg_sys::get_namespace_oid(schema.as_ptr(), true))
    };
    Ok((oid != Oid::INVALID).then_some(oid))
}

/// A partition below a partitioned table, at any depth.
#[derive(Debug, Clone, Deserialize)]
pub struct Partition {
    pub oid: u32,
    pub name: RelName,
    pub is_leaf: bool,
}

/// Every relation below a partitioned table, parents first.
pub fn partitions(root: Oid) -> Result<Vec<Partition>> {
    spi::rows(
        "SELECT pg_catalog.jsonb_build_object(
                    'oid', c.oid::bigint,
                    'name', pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname),
                    'is_leaf', t.isleaf)
         FROM pg_catalog.pg_partition_tree($1) t
         JOIN pg_catalog.pg_class c ON c.oid = t.relid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE t.level > 0
         ORDER BY t.level, c.relname",
        &[root.into()],
    )
}

/// The partitioned tables that a partitioned table is in, from the outermost to itself.
pub fn with_ancestors(table: Oid) -> Result<Vec<Oid>> {
    let found: Vec<u32> = spi::rows(
        "SELECT pg_catalog.to_jsonb(x.relid::oid::bigint)
         FROM pg_catalog.pg_partition_ancestors($1) WITH ORDINALITY AS x(relid, distance) ORDER BY x.distance DESC",
        &[table.into()],
    )?;
    Ok(found.into_iter().map(Oid::from).collect())
}

/// Whether a relation is a leaf partition below `root`.
pub fn is_leaf_of(oid: Oid, root: Oid) -> Result<bool> {
    Ok(spi::row::<bool>(
        "SELECT pg_catalog.to_jsonb(c.relkind = 'r' AND pg_catalog.pg_partition_root(c.oid)::oid = $2)
         FROM pg_catalog.pg_class c WHERE c.oid = $1 AND c.relispartition",
        &[oid.into(), root.into()],
    )?
    .unwrap_or(false))
}

/// Whether the current user may do what only the relation's owner may.
pub fn is_owner(oid: Oid) -> Result<bool> {
    Ok(spi::latest_rows::<bool>(
        "SELECT pg_catalog.to_jsonb(pg_catalog.pg_has_role(c.relowner, 'USAGE'))
         FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[oid.into()],
    )?
    .pop()
    .unwrap_or(false))
}

/// The owner of a relation.
pub fn owner(oid: Oid) -> Result<Oid> {
    spi::latest_rows::<u32>(
        "SELECT pg_catalog.to_jsonb(c.relowner::bigint) FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[oid.into()],
    )?
    .pop()
    .map(Oid::from)
    .ok_or_else(|| Error::UnknownRelation { oid: oid.to_u32() })
}

/// Roles that get privileges on a table which `maker` makes in `schema`: the current user, or a role. Quoted, or `PUBLIC`.
pub fn given_by_default(schema: &Ident, maker: Option<Oid>) -> Result<Vec<String>> {
    spi::kept_rows(
        "SELECT DISTINCT pg_catalog.to_jsonb(
             CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(e.grantee)) END)
         FROM pg_catalog.pg_default_acl da, pg_catalog.aclexplode(da.defaclacl) e
         WHERE da.defaclobjtype = 'r' AND e.grantee <> da.defaclrole
           AND da.defaclnamespace IN (0, (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $1))
           AND da.defaclrole = COALESCE($2, (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = CURRENT_USER))
         ORDER BY 1",
        &[schema.as_str().into(), maker.into()],
    )
}

/// The publications that name a table.
pub fn publications(table: Oid) -> Result<Vec<Ident>> {
    spi::rows(
        "SELECT pg_catalog.to_jsonb(p.pubname) FROM pg_catalog.pg_publication_rel r
         JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = $1 ORDER BY 1",
        &[table.into()],
    )
}

/// How many partitions without partitions of their own a table has. Locks none of them: others may be at work there, and wait for
/// the caller.
pub fn count_leaves(table: Oid) -> Result<u64> {
    let number: Option<u64> = spi::row(
        "WITH RECURSIVE tree AS (
             SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1
             UNION ALL
             SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.inhrelid)
         SELECT pg_catalog.to_jsonb(pg_catalog.count(*))
         FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.inhrelid WHERE c.relkind <> 'p'",
        &[table.into()],
    )?;
    Ok(number.unwrap_or(0))
}

/// Rows that the last VACUUM or ANALYZE counted; 0 when there was none.
pub fn estimated_rows(table: Oid) -> Result<u64> {
    let number: Option<i64> = spi::row(
        "SELECT pg_catalog.to_jsonb(GREATEST(reltuples, 0)::bigint) FROM pg_catalog.pg_class WHERE oid = $1",
        &[table.into()],
    )?;
    Ok(number.unwrap_or(0).unsigned_abs())
}

/// The tables that hold a relation's rows: its leaf partitions, or the table itself.
pub fn leaves(table: Oid) -> Result<Vec<Oid>> {
    let oids: Vec<u32> = spi::rows(
        "SELECT pg_catalog.to_jsonb(c.oid::bigint)
         FROM (SELECT t.relid::oid AS oid FROM pg_catalog.pg_partition_tree($1) t UNION SELECT $1::oid) x
         JOIN pg_catalog.pg_class c ON c.oid = x.oid AND c.relkind = 'r' ORDER BY c.oid",
        &[table.into()],
    )?;
    Ok(oids.into_iter().map(Oid::from).collect())
}

/// An index method whose operator classes partitioning uses.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    Btree,
    Hash,
}

/// Whether a column's type has a default operator class of a method: partitioning cannot do without.
pub fn has_operator_class(table: Oid, column: &Ident, method: Method) -> Result<bool> {
    let type_oid: Option<u32> = spi::row(
        "SELECT pg_catalog.to_jsonb(a.atttypid::bigint) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = $1 AND a.attname = $2",
        &[table.into(), column.as_str().into()],
    )?;
    let method = match method {
        Method::Btree => pg_sys::BTREE_AM_OID,
        Method::Hash => pg_sys::HASH_AM_OID,
    };
    let Some(type_oid) = type_oid else {
        return Ok(false);
    };
    // SAFETY: reads the catalog; domains are looked through.
    let class = unsafe { pg_sys::GetDefaultOpClass(type_oid.into(), method) };
    Ok(class != Oid::INVALID)
}
