//! Statements that give a table a grant, a policy or a trigger of another one: for the twin when it is made, and for the
//! side that takes the name at a switchover.

use super::Plan;
use crate::catalog::{Grant, Policy, TableDef, Trigger};
use crate::ident::{Literal, RelName};

/// ` (column)` of a grant on one column; nothing for the whole table.
pub fn column(grant: &Grant) -> String {
    grant
        .column
        .as_ref()
        .map(|c| format!(" ({c})"))
        .unwrap_or_default()
}

pub fn give(plan: &mut Plan, grant: &Grant, table: &RelName) {
    let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
    plan.push(
        format!("grant {} to {}", grant.privilege, grant.grantee),
        format!(
            "GRANT {}{} ON {table} TO {}{option}",
            grant.privilege,
            column(grant),
            grant.grantee
        ),
    );
}

pub fn create_policy(plan: &mut Plan, policy: &Policy, table: &RelName) {
    plan.push(
        format!("create policy {}", policy.name),
        format!("CREATE POLICY {} ON {table}{}", policy.name, policy.definition),
    );
    if let Some(comment) = &policy.comment {
        plan.push(
            format!("copy the comment of policy {}", policy.name),
            format!(
                "COMMENT ON POLICY {} ON {table} IS {}",
                policy.name,
                Literal(comment)
            ),
        );
    }
}

/// What a new partition gets of `template`, a sibling, beyond what LIKE copies and ATTACH brings: grants, row security with its
/// policies, statistics targets.
pub fn dress(plan: &mut Plan, template: &TableDef, table: &RelName) {
    for grant in &template.grants {
        give(plan, grant, table);
    }
    for (is_set, what) in [
        (template.row_security, "ENABLE"),
        (template.force_row_security, "FORCE"),
    ] {
        if is_set {
            plan.push(
                "set row security",
                format!("ALTER TABLE {table} {what} ROW LEVEL SECURITY"),
            );
        }
    }
    for policy in &template.policies {
        create_policy(plan, policy, table);
    }
    for column in &template.columns {
        if let Some(target) = column.statistics_target.filter(|target| *target >= 0) {
            plan.push(
                "set statistics target",
                format!(
                    "ALTER TABLE {table} ALTER COLUMN {} SET STATISTICS {target}",
                    column.name
                ),
            );
        }
        if !column.options.is_empty() {
            let options = column.options.iter().map(|o| super::indexes::option(o));
            plan.push(
                "set column options",
                format!(
                    "ALTER TABLE {table} ALTER COLUMN {} SET ({})",
                    column.name,
                    crate::ident::list(options)
                ),
            );
        }
    }
}

/// Creates a trigger whose definition ends with `tail` after the table's name.
pub fn create_trigger(plan: &mut Plan, trigger: &Trigger, tail: &str, table: &RelName) {
    plan.push(
        format!("create trigger {}", trigger.name),
        format!("{}{table}{tail}", trigger.head),
    );
}

/// Lets a trigger fire when the one that it comes from does.
pub fn set_trigger_state(plan: &mut Plan, trigger: &Trigger, table: &RelName) {
    let state = match trigger.enabled.as_str() {
        "D" => "DISABLE",
        "R" => "ENABLE REPLICA",
        "A" => "ENABLE ALWAYS",
        _ => "ENABLE",
    };
    plan.push(
        format!("set the state of trigger {}", trigger.name),
        format!("ALTER TABLE {table} {state} TRIGGER {}", trigger.name),
    );
}
