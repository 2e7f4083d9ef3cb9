//! Statements that give a table a grant, a policy or a trigger of another one: for the twin when it is made, and for the
//! side that takes the name at a switchover.

use super::Plan;
use crate::catalog::{Grant, Policy, Trigger};
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
