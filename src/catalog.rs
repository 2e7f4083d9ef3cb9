//! What the catalog says about a table, as plain structs. They are filled by one query
//! (`sql/catalog/table_def.sql`, run by [`load`]) and never touch the server again, so that plans made of them
//! are pure functions.

pub mod dependents;
pub mod load;
pub mod subpartitions;

use crate::ident::{Ident, RelName};
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
pub struct TableDef {
    pub oid: u32,
    pub name: RelName,
    /// `pg_class.relkind`
    pub kind: String,
    /// `pg_class.relpersistence`
    pub persistence: String,
    pub is_partition: bool,
    pub is_system: bool,
    pub is_inherited: bool,
    pub is_typed: bool,
    pub owner: Ident,
    pub access_method: Option<String>,
    pub tablespace: Option<Ident>,
    /// Storage parameters as the catalog has them: `name=value`; those of the TOAST table with `toast.` before the name.
    pub options: Vec<String>,
    pub row_security: bool,
    pub force_row_security: bool,
    /// `pg_class.relreplident`
    pub replica_identity: String,
    pub comment: Option<String>,
    /// The planner's estimate; 0 for a table never analysed.
    pub estimated_rows: i64,
    pub columns: Vec<Column>,
    #[serde(default)]
    pub checks: Vec<Check>,
    pub indexes: Vec<Index>,
    pub foreign_keys: Vec<ForeignKey>,
    pub referenced_by: Vec<Reference>,
    pub triggers: Vec<Trigger>,
    pub policies: Vec<Policy>,
    pub grants: Vec<Grant>,
    /// Privileges that the owner has taken from himself.
    #[serde(default)]
    pub owner_lacks: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Column {
    /// `pg_attribute.attnum`: stays when the column is renamed.
    #[serde(default)]
    pub number: i16,
    pub name: Ident,
    /// With its modifier, as `format_type` prints it.
    pub type_name: String,
    /// Without modifier; of a domain, the type below it.
    pub base_type: String,
    pub not_null: bool,
    pub generated: bool,
    /// Generated when it is read (from PostgreSQL 18 on), not stored.
    #[serde(default)]
    pub is_virtual: bool,
    pub identity: bool,
    /// Of an identity column.
    pub sequence: Option<RelName>,
    pub statistics_target: Option<i32>,
    /// `name=value`: `n_distinct` and `n_distinct_inherited`. What a server keeps there for itself is not ours to copy.
    #[serde(default)]
    pub options: Vec<String>,
    /// Quoted, where it is not the type's own.
    #[serde(default)]
    pub collation: Option<String>,
    /// The default, or of a generated column its expression, deparsed by the server.
    #[serde(default)]
    pub default: Option<String>,
    /// `pg_attribute.attstorage`
    #[serde(default)]
    pub storage: String,
    /// `pg_attribute.attcompression`; empty for the server's default.
    #[serde(default)]
    pub compression: String,
}

/// A CHECK constraint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Check {
    pub oid: u32,
    pub name: Ident,
    /// Deparsed by the server.
    pub expression: String,
    #[serde(default)]
    pub comment: Option<String>,
    pub valid: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Index {
    #[serde(default)]
    pub oid: u32,
    pub name: Ident,
    pub method: Ident,
    pub unique: bool,
    pub primary: bool,
    pub valid: bool,
    pub exclusion: bool,
    /// The constraint that the index implements.
    pub constraint: Option<Ident>,
    pub deferrable: bool,
    pub deferred: bool,
    pub nulls_not_distinct: bool,
    /// Names of the key columns; `None` where the key is an expression.
    pub key_columns: Vec<Option<Ident>>,
    /// Each key with collation, operator class and order, deparsed by the server.
    pub keys: Vec<String>,
    pub include: Vec<String>,
    pub predicate: Option<String>,
    pub options: Vec<String>,
    pub tablespace: Option<Ident>,
    #[serde(default)]
    pub comment: Option<String>,
    /// Of the constraint that the index implements.
    #[serde(default)]
    pub constraint_comment: Option<String>,
    /// Whether it is the table's replica identity.
    #[serde(default)]
    pub replica_identity: bool,
    /// Whether CLUSTER goes by it.
    #[serde(default)]
    pub clustered: bool,
    /// Statistics targets of its columns, which are counted from 1: only expressions have any.
    #[serde(default)]
    pub targets: Vec<(i16, i32)>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ForeignKey {
    #[serde(default)]
    pub oid: u32,
    pub name: Ident,
    /// `FOREIGN KEY (…) REFERENCES …`, deparsed by the server.
    pub definition: String,
    pub references: u32,
    #[serde(default)]
    pub comment: Option<String>,
    pub valid: bool,
}

/// A foreign key that points here, of another table or of this one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Reference {
    pub name: Ident,
    /// The table that has it, as people read it.
    pub relation: String,
    /// The same, as statements name it.
    pub table: RelName,
    /// Its oid and kind (`pg_class.relkind`).
    pub oid: u32,
    pub kind: String,
    /// What it points at.
    pub columns: Vec<Ident>,
    /// `FOREIGN KEY (…) REFERENCES …`, deparsed by the server.
    pub definition: String,
    /// `pg_constraint.confdeltype`
    pub on_delete: String,
    pub valid: bool,
    pub comment: Option<String>,
    /// Whether the current user may do with the table what its owner may.
    pub owned: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Trigger {
    pub name: Ident,
    /// `pg_trigger.tgenabled`
    pub enabled: String,
    pub comment: Option<String>,
    /// One of this extension's own.
    pub ours: bool,
    pub row: bool,
    /// Has transition tables.
    pub transition: bool,
    /// The definition up to and including `ON `.
    pub head: String,
    /// The definition behind the table's name; `None` where the server printed another head than expected.
    pub tail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Policy {
    pub name: Ident,
    pub comment: Option<String>,
    pub definition: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Grant {
    pub privilege: String,
    pub column: Option<Ident>,
    /// Quoted, or `PUBLIC`.
    pub grantee: String,
    pub grantable: bool,
}

impl TableDef {
    pub fn column_number(&self, number: i16) -> Option<&Column> {
        self.columns.iter().find(|c| c.number == number)
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name.as_str() == name)
    }

    pub fn primary_key(&self) -> Option<&Index> {
        self.indexes.iter().find(|i| i.primary)
    }

    /// The columns of the primary key, in its order. Empty without one.
    pub fn key_columns(&self) -> Vec<Ident> {
        self.primary_key()
            .map(|i| i.key_columns.iter().flatten().cloned().collect())
            .unwrap_or_default()
    }

    /// Triggers that the users made.
    pub fn user_triggers(&self) -> impl Iterator<Item = &Trigger> {
        self.triggers.iter().filter(|t| !t.ours)
    }
}

impl Index {
    /// The same thing indexed in the same way, whatever its name.
    pub fn same_definition(&self, other: &Index) -> bool {
        self.method == other.method
            && self.unique == other.unique
            && self.primary == other.primary
            && self.keys == other.keys
            && self.include == other.include
            && self.predicate == other.predicate
            && self.nulls_not_distinct == other.nulls_not_distinct
            && self.constraint.is_some() == other.constraint.is_some()
    }
}
