//! The sync triggers of a pair, as statements.

use super::Plan;
use crate::ident::{Ident, Literal, RelName};

/// What a set of sync triggers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// On the legacy, during the copy: log the keys of changed rows.
    Capture,
    /// Carry every change to the other side.
    Live,
    /// On the twin, during the copy: refuse writes.
    Reject,
}

/// The table that the triggers are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The legacy, or the root of the twin.
    Side,
    /// A partition: row triggers come to it from the root.
    Partition,
}

/// Which of the triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    /// Those that may lie ready before the flip, behind the row trigger that refuses writes.
    Statement,
    Row,
}

/// `sync_to_partitioned_<legacy>`: carries changes of the legacy to the twin.
pub fn name_on_legacy(base: &Ident) -> Ident {
    Ident::new(format!("sync_to_partitioned_{}", base.as_str()))
}

/// `sync_to_legacy_<legacy>`: carries changes of the twin to the legacy.
pub fn name_on_twin(base: &Ident) -> Ident {
    Ident::new(format!("sync_to_legacy_{}", base.as_str()))
}

/// The longest name that the triggers of `base` get.
pub fn longest_name(base: &Ident) -> Ident {
    name_on_legacy(base).with_suffix("_b")
}

/// The suffixes of the statement triggers, with timing, events and transition tables.
const STATEMENT_TRIGGERS: [(&str, &str); 5] = [
    ("_b", "BEFORE INSERT OR UPDATE OR DELETE ON {} FOR EACH STATEMENT"),
    (
        "_i",
        "AFTER INSERT ON {} REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT",
    ),
    (
        "_u",
        "AFTER UPDATE ON {} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT",
    ),
    (
        "_d",
        "AFTER DELETE ON {} REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT",
    ),
    ("_t", "AFTER TRUNCATE ON {} FOR EACH STATEMENT"),
];

/// When a trigger fires, by `session_replication_role`.
#[derive(Debug, Clone, Copy)]
enum Firing {
    /// Also in a session that replicates.
    Always,
    /// In such a session alone. In any other the server does not so much as look at the trigger's condition, which it would read from
    /// its text in each statement.
    Replica,
}

/// Statements that install the triggers on `table`.
pub fn install(pair: i32, table: &RelName, name: &Ident, purpose: Purpose, place: Place, part: Part) -> Plan {
    let mut plan = Plan::default();
    let mode = match purpose {
        Purpose::Capture => "capture",
        Purpose::Live => "live",
        Purpose::Reject => "reject",
    };
    let mut add = |name: Ident, firing: Firing, definition: String| {
        let pair = pair.to_string();
        plan.push(
            format!("create trigger {name} ({mode})"),
            format!(
                "CREATE OR REPLACE TRIGGER {name} {definition} EXECUTE FUNCTION partition_router.sync({}, {})",
                Literal(&pair),
                Literal(mode)
            ),
        );
        let (when, enable) = match firing {
            Firing::Always => ("always", "ENABLE ALWAYS"),
            Firing::Replica => ("where changes are replicated", "ENABLE REPLICA"),
        };
        plan.push(
            format!("let {name} fire {when}"),
            format!("ALTER TABLE {table} {enable} TRIGGER {name}"),
        );
    };
    let row_events = "INSERT OR UPDATE OR DELETE";
    if purpose == Purpose::Reject {
        add(
            name.clone(),
            Firing::Always,
            format!("BEFORE {row_events} ON {table} FOR EACH ROW"),
        );
        return plan;
    }
    if place == Place::Side && part != Part::Statement {
        add(
            name.clone(),
            Firing::Replica,
            format!(
                "AFTER {row_events} ON {table} FOR EACH ROW WHEN (partition_router.is_replication_worker())"
            ),
        );
    }
    for (suffix, definition) in STATEMENT_TRIGGERS {
        if part == Part::Row {
            break;
        }
        if suffix == "_b" && purpose == Purpose::Capture {
            continue;
        }
        add(
            name.with_suffix(suffix),
            Firing::Always,
            definition.replace("{}", &table.to_string()),
        );
    }
    plan
}

/// The names of all triggers that [`install`] makes under `name`.
pub fn names(name: &Ident) -> Vec<Ident> {
    let suffixed = STATEMENT_TRIGGERS
        .iter()
        .map(|(suffix, _)| name.with_suffix(suffix));
    std::iter::once(name.clone()).chain(suffixed).collect()
}

/// The statement that drops the row trigger.
pub fn uninstall_row(table: &RelName, name: &Ident) -> Plan {
    let mut plan = Plan::default();
    plan.push(
        format!("drop trigger {name}"),
        format!("DROP TRIGGER IF EXISTS {name} ON {table}"),
    );
    plan
}

/// Statements that drop whatever [`install`] made under `name`.
pub fn uninstall(table: &RelName, name: &Ident, place: Place) -> Plan {
    let mut plan = Plan::default();
    if place == Place::Side {
        plan.extend(uninstall_row(table, name));
    }
    for (suffix, _) in STATEMENT_TRIGGERS {
        plan.extend(uninstall_row(table, &name.with_suffix(suffix)));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trigger_fires_in_a_session_that_replicates() {
        let table = RelName::new("public", "revenues");
        for purpose in [Purpose::Capture, Purpose::Live, Purpose::Reject] {
            let name = name_on_legacy(&table.name);
            let plan = install(1, &table, &name, purpose, Place::Side, Part::All);
            for made in plan.steps.chunks(2) {
                let [create, enable] = made else {
                    panic!("{made:?}");
                };
                let firing = if create.statement.contains("WHEN") {
                    "REPLICA"
                } else {
                    "ALWAYS"
                };
                assert!(
                    enable.statement.contains(&format!("ENABLE {firing} TRIGGER")),
                    "{made:?}"
                );
            }
            assert!(
                plan.steps[0]
                    .statement
                    .contains("\"sync_to_partitioned_revenues\"")
            );
        }
    }

    #[test]
    fn uninstall_names_every_trigger_that_install_makes() {
        let table = RelName::new("public", "T\"x");
        let name = name_on_twin(&table.name);
        let dropped: Vec<_> = uninstall(&table, &name, Place::Side)
            .steps
            .into_iter()
            .map(|s| s.statement)
            .collect();
        for step in install(7, &table, &name, Purpose::Live, Place::Side, Part::All).steps {
            if let Some(rest) = step.statement.strip_prefix("CREATE OR REPLACE TRIGGER ") {
                let trigger = rest.split_whitespace().next().unwrap_or_default();
                assert!(dropped.iter().any(|d| d.contains(trigger)), "{trigger}");
            }
        }
    }
}
