//! The indexes and unique constraints of a twin, made from those of its legacy. A unique index of a partitioned
//! table must contain the partition key, so unique ones are widened by it.

use super::Plan;
use crate::catalog::{Index, TableDef};
use crate::ident::{Ident, RelName, list};

/// What the twin gets: every valid index of the legacy, unique ones widened. Exclusion constraints cannot be
/// carried over; preflight reports them.
pub fn of_twin(legacy: &TableDef, partition_key: &Ident) -> Vec<Index> {
    legacy
        .indexes
        .iter()
        .filter(|index| index.valid && !index.exclusion)
        .map(|index| widened(index, partition_key))
        .collect()
}

/// What the twin has for an index of the legacy.
pub fn for_twin(index: &Index, partition_key: &Ident) -> Index {
    widened(index, partition_key)
}

fn widened(index: &Index, partition_key: &Ident) -> Index {
    let mut index = index.clone();
    let has_key = index
        .key_columns
        .iter()
        .flatten()
        .any(|column| column == partition_key);
    if index.unique && !has_key {
        index.key_columns.push(Some(partition_key.clone()));
        index.keys.push(partition_key.to_string());
    }
    index
}

/// Whether the legacy's uniqueness gets weaker by widening.
pub fn is_widened(index: &Index, partition_key: &Ident) -> bool {
    index.unique
        && !index
            .key_columns
            .iter()
            .flatten()
            .any(|column| column == partition_key)
}

fn with_options(index: &Index) -> String {
    if index.options.is_empty() {
        return String::new();
    }
    format!(" WITH ({})", list(index.options.iter().map(|o| option(o))))
}

fn in_tablespace(index: &Index, clause: &str) -> String {
    let tablespace = index.tablespace.as_ref();
    tablespace.map(|t| format!("{clause} {t}")).unwrap_or_default()
}

/// A storage parameter of the catalog, `name=value`, as SQL.
pub fn option(stored: &str) -> String {
    let name = |name: &str| match name.strip_prefix("toast.") {
        Some(name) => format!("toast.{}", Ident::new(name)),
        None => Ident::new(name).to_string(),
    };
    match stored.split_once('=') {
        Some((before, value)) => format!("{} = {}", name(before), crate::ident::Literal(value)),
        None => name(stored),
    }
}

fn nulls(index: &Index) -> &'static str {
    match index.nulls_not_distinct {
        true => " NULLS NOT DISTINCT",
        false => "",
    }
}

fn include(index: &Index) -> String {
    match index.include.is_empty() {
        true => String::new(),
        false => format!(" INCLUDE ({})", list(&index.include)),
    }
}

fn kind(index: &Index) -> String {
    match index.primary {
        true => "PRIMARY KEY".into(),
        false => format!("UNIQUE{}", nulls(index)),
    }
}

fn deferrable(index: &Index) -> &'static str {
    match (index.deferrable, index.deferred) {
        (true, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        _ => "",
    }
}

/// What a constraint says in CREATE TABLE: none for an index that is no constraint.
pub fn constraint(index: &Index) -> Option<String> {
    let columns: Option<Vec<&Ident>> = index.key_columns.iter().map(Option::as_ref).collect();
    let columns = columns.filter(|_| index.constraint.is_some())?;
    Some(format!("{} ({}){}", kind(index), list(columns), include(index)))
}

/// The statement that makes one index on `table`. The server chooses its name.
fn statement(index: &Index, table: &RelName) -> String {
    if let Some(constraint) = constraint(index) {
        let tablespace = in_tablespace(index, " USING INDEX TABLESPACE");
        return format!(
            "ALTER TABLE {table} ADD {constraint}{}{tablespace}{}",
            with_options(index),
            deferrable(index)
        );
    }
    format!("CREATE {}INDEX {}", unique(index), on_table(index, table))
}

fn unique(index: &Index) -> &'static str {
    if index.unique { "UNIQUE " } else { "" }
}

fn on_table(index: &Index, table: &RelName) -> String {
    format!(
        "ON {table} USING {} ({}){}{}{}{}{}",
        index.method,
        list(&index.keys),
        include(index),
        nulls(index),
        with_options(index),
        in_tablespace(index, " TABLESPACE"),
        index
            .predicate
            .as_ref()
            .map(|p| format!(" WHERE {p}"))
            .unwrap_or_default()
    )
}

/// What a step is called that makes `index`.
fn action(index: &Index) -> String {
    let kind = match (index.primary, index.unique) {
        (true, _) => "primary key",
        (_, true) => "unique index",
        _ => "index",
    };
    format!("create {kind} like {}", index.name)
}

/// Statements that make `indexes` on `table`. On a partitioned table each also makes, or takes in, the same index of
/// every partition.
pub fn create(indexes: &[Index], table: &RelName) -> Plan {
    let mut plan = Plan::default();
    for index in indexes {
        plan.push(action(index), statement(index, table));
    }
    plan
}

/// Those of `wanted` that `existing` lacks, whatever their names.
pub fn missing<'a>(wanted: &'a [Index], existing: &[Index]) -> Vec<&'a Index> {
    // Two equal indexes are two wishes.
    let mut rest: Vec<&Index> = existing.iter().filter(|i| i.valid).collect();
    wanted
        .iter()
        .filter(|want| match rest.iter().position(|have| is_same(have, want)) {
            Some(position) => {
                rest.swap_remove(position);
                false
            }
            None => true,
        })
        .collect()
}

/// The unique indexes of a model that a new table lacks. It has one primary key.
pub fn missing_keys(model: &TableDef, new: &TableDef) -> Vec<Index> {
    let has_primary = new.indexes.iter().any(|index| index.primary);
    let keys = model
        .indexes
        .iter()
        .filter(|key| key.unique && key.valid && !key.exclusion);
    let is_there = |key: &Index| new.indexes.iter().any(|have| is_equal(have, key));
    keys.filter(|key| !is_there(key) && (!key.primary || !has_primary))
        .cloned()
        .collect()
}

/// What a DBA runs by hand so that each partition has the indexes of its root, and the root none: first without keeping
/// anybody out, then in one short transaction. Dropping an index of a root drops those below it.
pub fn one_each(root: &TableDef, leaves: &[TableDef]) -> Plan {
    let (mut before, mut change) = (Plan::default(), Plan::default());
    change.push("first, by hand", "BEGIN");
    // Nobody is to queue behind it for longer; then it is begun again.
    change.push("first, by hand", "SET LOCAL lock_timeout = '1s'");
    for key in &root.indexes {
        change.push(
            format!("first, by hand, drop {} with what is below it", key.name),
            match &key.constraint {
                Some(constraint) => format!("ALTER TABLE {} DROP CONSTRAINT {constraint}", root.name),
                None => format!("DROP INDEX {}", root.name.sibling(key.name.clone())),
            },
        );
        for leaf in leaves {
            let Some(have) = leaf.indexes.iter().find(|have| is_equal(have, key)) else {
                continue;
            };
            let own = Ident::new(format!("{}_own", have.name.as_str())).cut();
            before.push(
                "first, by hand, make an index of the partition alone",
                format!(
                    "CREATE {}INDEX CONCURRENTLY {own} {}",
                    unique(have),
                    on_table(have, &leaf.name)
                ),
            );
            keep(&mut change, leaf, have, &own);
        }
    }
    change.push("first, by hand", "COMMIT");
    before.extend(change);
    before
}

/// The partition's own index takes the place of the one that went.
fn keep(plan: &mut Plan, leaf: &TableDef, have: &Index, own: &Ident) {
    let action = "first, by hand, let it take the name";
    let (table, name) = (&leaf.name, &have.name);
    plan.push(
        action,
        match &have.constraint {
            Some(constraint) => format!(
                "ALTER TABLE {table} ADD CONSTRAINT {constraint} {} USING INDEX {own}{}",
                match have.primary {
                    true => "PRIMARY KEY",
                    false => "UNIQUE",
                },
                deferrable(have)
            ),
            None => format!("ALTER INDEX {} RENAME TO {name}", table.sibling(own.clone())),
        },
    );
    if have.replica_identity {
        let identity = format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {name}");
        plan.push(action, identity);
    }
}

/// Statements that drop those indexes of the twin that [`of_twin`] makes again.
pub fn drop_remade(wanted: &[Index], twin: &TableDef) -> Plan {
    let mut plan = Plan::default();
    for index in twin
        .indexes
        .iter()
        .filter(|have| wanted.iter().any(|want| is_same(have, want)))
    {
        let table = &twin.name;
        plan.push(
            format!("drop index {} until the copy is done", index.name),
            match &index.constraint {
                Some(constraint) => format!("ALTER TABLE {table} DROP CONSTRAINT {constraint}"),
                None => format!("DROP INDEX {}", table.sibling(index.name.clone())),
            },
        );
    }
    plan
}

/// Whether `twin` is what the twin has for the legacy's `legacy`, be it a constraint or only an index.
pub fn is_counterpart(legacy: &Index, twin: &Index, partition_key: &Ident) -> bool {
    let mut want = widened(legacy, partition_key);
    want.constraint = twin.constraint.clone();
    is_same(twin, &want)
}

/// The indexes of one side, each with its counterpart of the other: the root of the twin or one of its partitions, whichever side
/// that is. Two equal ones have two counterparts.
pub fn counterparts<'a>(
    from: &'a TableDef,
    to: &'a TableDef,
    to_twin: bool,
    partition_key: &Ident,
) -> Vec<(&'a Index, &'a Index)> {
    let mut rest: Vec<&Index> = to.indexes.iter().filter(|i| i.valid).collect();
    let mut pairs = vec![];
    for index in from.indexes.iter().filter(|i| i.valid) {
        let found = rest.iter().position(|other| match to_twin {
            true => is_counterpart(index, other, partition_key),
            false => is_counterpart(other, index, partition_key),
        });
        if let Some(found) = found {
            pairs.push((index, rest.swap_remove(found)));
        }
    }
    pairs
}

/// Whether both are the same index of tables with the same columns, be it a constraint or only an index.
pub fn is_equal(a: &Index, b: &Index) -> bool {
    let mut want = b.clone();
    want.constraint = a.constraint.clone();
    is_same(a, &want)
}

/// The widened key has no operator class yet, so plain columns are compared by name.
fn is_same(have: &Index, want: &Index) -> bool {
    if have.same_definition(want) {
        return true;
    }
    want.unique
        && have.unique
        && have.primary == want.primary
        && have.method == want.method
        && have.constraint.is_some() == want.constraint.is_some()
        && have.include == want.include
        && have.predicate == want.predicate
        && have.nulls_not_distinct == want.nulls_not_distinct
        && have.key_columns == want.key_columns
        && have.keys.len() == want.keys.len()
        && have
            .keys
            .iter()
            .zip(&want.keys)
            .all(|(h, w)| h == w || h.starts_with(w.as_str()) || plain(h, w))
}

/// `"column"` and `column pg_catalog.int4_ops ASC NULLS LAST` name the same key.
fn plain(have: &str, want: &str) -> bool {
    let unquoted = want.trim_matches('"');
    have.split_whitespace()
        .next()
        .is_some_and(|first| first == unquoted || first == want)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(columns: &[&str], unique: bool, primary: bool) -> Index {
        Index {
            oid: 1,
            name: Ident::new("i"),
            method: Ident::new("btree"),
            unique,
            primary,
            valid: true,
            exclusion: false,
            constraint: primary.then(|| Ident::new("i")),
            deferrable: false,
            deferred: false,
            nulls_not_distinct: false,
            key_columns: columns.iter().map(|c| Some(Ident::new(*c))).collect(),
            keys: columns
                .iter()
                .map(|c| format!("{c} pg_catalog.int4_ops ASC NULLS LAST"))
                .collect(),
            include: vec![],
            predicate: None,
            options: vec![],
            ..Index::default()
        }
    }

    #[test]
    fn a_primary_key_is_widened_by_the_partition_key() {
        let key = Ident::new("occurred_at");
        let wide = widened(&index(&["id"], true, true), &key);
        assert_eq!(
            statement(&wide, &RelName::new("public", "t_partitioned")),
            "ALTER TABLE \"public\".\"t_partitioned\" ADD PRIMARY KEY (\"id\", \"occurred_at\")"
        );
        assert_eq!(widened(&wide, &key), wide);
    }

    #[test]
    fn a_plain_index_stays_as_it_is() {
        let plain = index(&["org_id"], false, false);
        assert_eq!(widened(&plain, &Ident::new("occurred_at")), plain);
    }

    #[test]
    fn what_the_twin_has_already_is_not_made_again() {
        let wide = widened(&index(&["id"], true, true), &Ident::new("at"));
        let mut have = wide.clone();
        have.keys[1] = "at pg_catalog.timestamp_ops ASC NULLS LAST".into();
        assert!(missing(std::slice::from_ref(&wide), &[have]).is_empty());
        assert_eq!(missing(std::slice::from_ref(&wide), &[]).len(), 1);
    }

    #[test]
    fn two_equal_indexes_are_two_wishes() {
        let plain = index(&["org_id"], false, false);
        assert_eq!(missing(&[plain.clone(), plain.clone()], &[plain]).len(), 1);
    }
}
