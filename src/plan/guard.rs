//! What makes a guard of a legacy that nobody reads any more. A partitioned table keeps unique only what has the partition key in
//! it; the legacy keeps the rest, and foreign keys point at it. So it stays, with those columns alone: no row is copied, no key
//! is proven again, and the sync that kept it in step goes on.

use super::Plan;
use crate::catalog::TableDef;
use crate::catalog::dependents::Statistics;
use crate::ident::{Ident, Literal, RelName, list};
use serde::Deserialize;

/// What of the legacy is unique, and what refers to it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Unique {
    pub indexes: Vec<Index>,
    /// Foreign keys of the table to itself.
    pub self_keys: Vec<SelfKey>,
    /// Foreign keys of other tables point at it.
    pub is_referenced: bool,
    pub guard_name_taken: bool,
}

/// A unique index.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    pub name: Ident,
    pub primary: bool,
    /// What must be unique, expressions aside.
    pub keys: Vec<Ident>,
    /// All that it reads.
    pub columns: Vec<Ident>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SelfKey {
    pub name: Ident,
    /// It changes or deletes rows by itself.
    pub acts: bool,
    pub columns: Vec<Ident>,
}

impl Unique {
    /// Whether a guard has anything to do that the partitions do not.
    pub fn needs_guard(&self, partition_key: &Ident) -> bool {
        self.is_referenced
            || !self.self_keys.is_empty()
            || self
                .indexes
                .iter()
                .any(|index| !index.keys.contains(partition_key))
    }

    /// Foreign keys may point at any unique constraint, and the primary key names the row.
    fn keeps(&self, name: &Ident, partition_key: &Ident) -> bool {
        let kept = |index: &Index| {
            index.primary
                || self.is_referenced
                || !self.self_keys.is_empty()
                || !index.keys.contains(partition_key)
        };
        self.indexes
            .iter()
            .any(|index| &index.name == name && kept(index))
    }

    fn keeps_column(&self, name: &Ident, partition_key: &Ident) -> bool {
        let of_indexes = self
            .indexes
            .iter()
            .filter(|index| self.keeps(&index.name, partition_key))
            .flat_map(|index| &index.columns);
        let of_keys = self.self_keys.iter().flat_map(|key| &key.columns);
        name == partition_key || of_indexes.chain(of_keys).any(|column| column == name)
    }

    /// In words, what a guard cannot keep: it follows the table and never goes before it.
    pub fn lost(&self) -> Vec<String> {
        let acting = self.self_keys.iter().filter(|key| key.acts);
        acting
            .map(|key| {
                format!(
                    "foreign key {} of the table to itself changes rows by itself",
                    key.name
                )
            })
            .collect()
    }
}

/// The trigger that closes a guard.
pub const TRIGGER: &str = "partition_router_guard";

/// The name of the guard of a table.
pub fn name(base: &Ident) -> Ident {
    base.with_suffix("_unique")
}

/// Takes from `legacy` all that a guard does not need, and gives it its name.
pub fn make(
    legacy: &TableDef,
    statistics: &[Statistics],
    unique: &Unique,
    partition_key: &Ident,
    guard: &Ident,
) -> Plan {
    let table = &legacy.name;
    let mut plan = Plan::default();
    let mut alter = |action: String, what: String| plan.push(action, format!("ALTER TABLE {table} {what}"));
    if legacy.row_security {
        alter(
            "row security is the table's affair".into(),
            "DISABLE ROW LEVEL SECURITY".into(),
        );
    }
    if legacy.replica_identity != "d" {
        alter(
            "the primary key names a row".into(),
            "REPLICA IDENTITY DEFAULT".into(),
        );
    }
    let own_keys = legacy
        .foreign_keys
        .iter()
        .filter(|key| key.references != legacy.oid);
    for name in own_keys
        .map(|key| &key.name)
        .chain(legacy.checks.iter().map(|check| &check.name))
    {
        alter(
            format!("constraint {name} is checked by the table"),
            format!("DROP CONSTRAINT {name}"),
        );
    }
    let surplus = || {
        legacy
            .indexes
            .iter()
            .filter(|index| !unique.keeps(&index.name, partition_key))
    };
    for name in surplus().filter_map(|index| index.constraint.as_ref()) {
        alter(
            format!("drop constraint {name}"),
            format!("DROP CONSTRAINT {name}"),
        );
    }
    for column in legacy
        .columns
        .iter()
        .filter(|c| unique.keeps_column(&c.name, partition_key))
    {
        let name = &column.name;
        if column.generated {
            alter(
                format!("{name} is computed by the table"),
                format!("ALTER COLUMN {name} DROP EXPRESSION"),
            );
        } else if column.identity {
            alter(
                format!("{name} is numbered by the table"),
                format!("ALTER COLUMN {name} DROP IDENTITY"),
            );
        } else if column.default.is_some() {
            alter(
                format!("{name} is given by the table"),
                format!("ALTER COLUMN {name} DROP DEFAULT"),
            );
        }
    }
    drop_rest(
        &mut plan,
        legacy,
        statistics,
        surplus()
            .filter(|index| index.constraint.is_none())
            .map(|i| &i.name),
    );
    for grant in &legacy.grants {
        let column = super::access::column(grant);
        plan.push(
            format!("take {} from {}", grant.privilege, grant.grantee),
            format!(
                "REVOKE {}{column} ON {table} FROM {} CASCADE",
                grant.privilege, grant.grantee
            ),
        );
    }
    let rest: Vec<_> = legacy
        .columns
        .iter()
        .filter(|c| !unique.keeps_column(&c.name, partition_key))
        .map(|c| format!("DROP COLUMN {}", c.name))
        .collect();
    if !rest.is_empty() {
        plan.push(
            "keep the columns that are unique, and the partition key",
            format!("ALTER TABLE {table} {}", list(rest)),
        );
    }
    plan.push(
        format!("{} becomes {guard}", table.name),
        format!("ALTER TABLE {table} RENAME TO {guard}"),
    );
    plan
}

fn drop_rest<'a>(
    plan: &mut Plan,
    legacy: &'a TableDef,
    statistics: &[Statistics],
    indexes: impl Iterator<Item = &'a Ident>,
) {
    let table = &legacy.name;
    for trigger in legacy.user_triggers() {
        plan.push(
            format!("drop trigger {}", trigger.name),
            format!("DROP TRIGGER {} ON {table}", trigger.name),
        );
    }
    for policy in &legacy.policies {
        plan.push(
            format!("drop policy {}", policy.name),
            format!("DROP POLICY {} ON {table}", policy.name),
        );
    }
    for statistics in statistics {
        plan.push(
            format!("drop statistics {}", statistics.name),
            format!("DROP STATISTICS {}", statistics.name),
        );
    }
    for index in indexes {
        plan.push(
            format!("drop index {index}"),
            format!("DROP INDEX {}", table.sibling(index.clone())),
        );
    }
}

/// Keeps everybody from the guard but the sync, which fires no trigger.
pub fn close(pair: i32, guard: &RelName, table: &RelName) -> Plan {
    let mut plan = Plan::default();
    plan.push(
        "refuse writes that do not come from the table",
        format!(
            "CREATE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {guard} \
             FOR EACH STATEMENT EXECUTE FUNCTION partition_router.sync({}, 'guard')",
            Literal(&pair.to_string())
        ),
    );
    let comment = format!(
        "keeps unique what is unique in {table} without its partition key; written by partition_router alone"
    );
    plan.push(
        "say what it is for",
        format!("COMMENT ON TABLE {guard} IS {}", Literal(&comment)),
    );
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unique(is_referenced: bool) -> Unique {
        serde_json::from_value(json!({
            "indexes": [
                { "name": "t_pkey", "primary": true, "keys": ["id"], "columns": ["id"] },
                { "name": "t_code", "primary": false, "keys": ["code"], "columns": ["code", "state"] },
                { "name": "t_at", "primary": false, "keys": ["at", "org"], "columns": ["at", "org"] }
            ],
            "self_keys": [], "is_referenced": is_referenced, "guard_name_taken": false
        }))
        .expect("a value")
    }

    fn legacy() -> TableDef {
        let column = |name: &str, default: Option<&str>| {
            json!({ "name": name, "type_name": "int", "base_type": "int", "not_null": true, "generated": false,
                "identity": false, "sequence": null, "statistics_target": null, "default": default })
        };
        let columns = json!([
            column("id", Some("nextval('s')")),
            column("at", None),
            column("code", None),
            column("state", None),
            column("org", None),
            column("note", Some("''"))
        ]);
        TableDef {
            oid: 1,
            name: RelName::new("s", "t_legacy"),
            replica_identity: "d".into(),
            columns: serde_json::from_value(columns).expect("columns"),
            ..TableDef::default()
        }
    }

    fn statements(unique: &Unique) -> Vec<String> {
        let plan = make(&legacy(), &[], unique, &Ident::new("at"), &name(&Ident::new("t")));
        plan.steps.into_iter().map(|step| step.statement).collect()
    }

    #[test]
    fn what_unique_indexes_read_and_the_partition_key_stay() {
        assert_eq!(
            statements(&unique(false)),
            [
                "ALTER TABLE \"s\".\"t_legacy\" ALTER COLUMN \"id\" DROP DEFAULT",
                "ALTER TABLE \"s\".\"t_legacy\" DROP COLUMN \"org\", DROP COLUMN \"note\"",
                "ALTER TABLE \"s\".\"t_legacy\" RENAME TO \"t_unique\"",
            ]
        );
    }

    #[test]
    fn what_foreign_keys_may_point_at_stays() {
        let made = statements(&unique(true));
        assert!(
            made.iter().any(|s| s.ends_with("DROP COLUMN \"note\"")),
            "{made:?}"
        );
        assert!(made.iter().all(|s| !s.contains("\"org\"")), "{made:?}");
    }

    #[test]
    fn a_table_whose_unique_columns_have_the_partition_key_needs_no_guard() {
        let mut unique = unique(false);
        assert!(unique.needs_guard(&Ident::new("at")));
        unique.indexes.retain(|index| index.name.as_str() == "t_at");
        assert!(!unique.needs_guard(&Ident::new("at")));
        unique.is_referenced = true;
        assert!(unique.needs_guard(&Ident::new("at")));
    }
}
