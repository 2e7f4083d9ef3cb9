//! The table that new partitions take after, where a policy names one: its storage parameters, tablespace, grants, row security,
//! replica identity, publications, statistics and partitions of its own.

use super::table::{Partitioned, Template, display};
use crate::catalog::{load, subpartitions};
use crate::error::{Error, Result};
use crate::plan::indexes;
use crate::spi;
use pgrx::pg_sys::Oid;

/// A table that a caller names as template.
///
/// # Errors
/// `BadArgument` for what is no table of the same owner, or has a column or a replica identity that a partition could not have;
/// `Unsupported` for ranges of the partition key below it.
pub fn named(table: &Partitioned, oid: Oid) -> Result<Template> {
    let name = load::rel_name(oid)?;
    let template = load::table_def(oid)?;
    let bad = |reason: String, hint: &str| {
        Err(Error::BadArgument {
            argument: "template".into(),
            reason,
            hint: hint.into(),
        })
    };
    let shown = display(oid)?;
    if !["r", "p"].contains(&template.kind.as_str()) || template.persistence != "p" {
        return bad(
            format!("{shown} is not a permanent table"),
            "Name a table that has what partitions are to have: CREATE TABLE … (LIKE …) makes one.",
        );
    }
    if load::owner(oid)? != table.owner() {
        return bad(
            format!("{shown} belongs to another role than {}", table.display),
            "Give it to the owner of the partitioned table.",
        );
    }
    let parent = load::table_def(table.oid())?;
    if let Some(column) = template
        .columns
        .iter()
        .find(|c| parent.column(c.name.as_str()).is_none())
    {
        return bad(
            format!(
                "{shown} has column {}, which {} has not",
                column.name, table.display
            ),
            "Drop the column, or make the template anew with CREATE TABLE … (LIKE …).",
        );
    }
    let identity = template.indexes.iter().find(|index| index.replica_identity);
    if let Some(identity) = identity
        && !parent
            .indexes
            .iter()
            .any(|index| indexes::is_equal(index, identity))
    {
        return bad(
            format!(
                "index {} is its replica identity, and {} has no such index",
                identity.name, table.display
            ),
            "Create the index on the partitioned table, where partitions get it from.",
        );
    }
    if let Some(publication) = not_owned(oid, table.owner())? {
        return bad(
            format!(
                "{shown} is published by {publication}, which {} does not own",
                table.owner_name
            ),
            "Publish the partitioned table instead: its partitions come along.",
        );
    }
    if template.kind == "p" {
        subpartitions::load(oid, table.key()?)?;
    }
    Ok(Template {
        oid: oid.to_u32(),
        name,
        kind: Some(template.kind),
    })
}

/// A publication that names the table and that its owner could not add another one to.
fn not_owned(table: Oid, owner: Oid) -> Result<Option<String>> {
    spi::row(
        "SELECT pg_catalog.to_jsonb(p.pubname)
         FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
         WHERE r.prrelid = $1 AND NOT pg_catalog.pg_has_role($2, p.pubowner, 'USAGE')
         ORDER BY 1 LIMIT 1",
        &[table.into(), owner.into()],
    )
}
