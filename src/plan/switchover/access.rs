//! What may have been given to one side alone since the twin was made: grants, row security, policies, triggers, comment.
//! The side that takes the name gets it as the other has it.

use super::Plan;
use crate::catalog::{Grant, TableDef};
use crate::ident::{Literal, RelName};

pub fn follow(plan: &mut Plan, from: &TableDef, to: &TableDef) {
    grants(plan, from, to);
    row_security(plan, from, to);
    policies(plan, from, to);
    triggers(plan, from, to);
    if from.comment != to.comment {
        let comment = from
            .comment
            .as_deref()
            .map_or("NULL".into(), |c| Literal(c).to_string());
        plan.push(
            "copy the comment",
            format!("COMMENT ON TABLE {} IS {comment}", to.name),
        );
    }
}

fn grant(grant: &Grant, table: &RelName) -> String {
    let column = grant
        .column
        .as_ref()
        .map(|c| format!(" ({c})"))
        .unwrap_or_default();
    let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
    format!(
        "GRANT {}{column} ON {table} TO {}{option}",
        grant.privilege, grant.grantee
    )
}

fn grants(plan: &mut Plan, from: &TableDef, to: &TableDef) {
    for surplus in to.grants.iter().filter(|g| !from.grants.contains(g)) {
        let column = surplus
            .column
            .as_ref()
            .map(|c| format!(" ({c})"))
            .unwrap_or_default();
        plan.push(
            format!("revoke {} from {}", surplus.privilege, surplus.grantee),
            format!(
                "REVOKE {}{column} ON {} FROM {}",
                surplus.privilege, to.name, surplus.grantee
            ),
        );
    }
    for missing in from.grants.iter().filter(|g| !to.grants.contains(g)) {
        plan.push(
            format!("grant {} to {}", missing.privilege, missing.grantee),
            grant(missing, &to.name),
        );
    }
}

fn row_security(plan: &mut Plan, from: &TableDef, to: &TableDef) {
    if from.row_security != to.row_security {
        let verb = if from.row_security { "ENABLE" } else { "DISABLE" };
        plan.push(
            "row security as before",
            format!("ALTER TABLE {} {verb} ROW LEVEL SECURITY", to.name),
        );
    }
    if from.force_row_security != to.force_row_security {
        let verb = if from.force_row_security {
            "FORCE"
        } else {
            "NO FORCE"
        };
        plan.push(
            "forced row security as before",
            format!("ALTER TABLE {} {verb} ROW LEVEL SECURITY", to.name),
        );
    }
}

fn policies(plan: &mut Plan, from: &TableDef, to: &TableDef) {
    for surplus in to.policies.iter().filter(|p| !from.policies.contains(p)) {
        plan.push(
            format!("drop policy {}", surplus.name),
            format!("DROP POLICY {} ON {}", surplus.name, to.name),
        );
    }
    for missing in from.policies.iter().filter(|p| !to.policies.contains(p)) {
        plan.push(
            format!("create policy {}", missing.name),
            format!(
                "CREATE POLICY {} ON {}{}",
                missing.name, to.name, missing.definition
            ),
        );
        if let Some(comment) = &missing.comment {
            plan.push(
                format!("copy the comment of policy {}", missing.name),
                format!(
                    "COMMENT ON POLICY {} ON {} IS {}",
                    missing.name,
                    to.name,
                    Literal(comment)
                ),
            );
        }
    }
}

fn triggers(plan: &mut Plan, from: &TableDef, to: &TableDef) {
    for trigger in from.user_triggers() {
        let have = to.user_triggers().find(|t| t.name == trigger.name);
        let Some(tail) = &trigger.tail else { continue };
        if have.is_none_or(|have| have.head != trigger.head || have.tail != trigger.tail) {
            if have.is_some() {
                plan.push(
                    format!("drop trigger {}", trigger.name),
                    format!("DROP TRIGGER {} ON {}", trigger.name, to.name),
                );
            }
            plan.push(
                format!("create trigger {}", trigger.name),
                format!("{}{}{tail}", trigger.head, to.name),
            );
        }
        let now = have
            .filter(|have| have.head == trigger.head && have.tail == trigger.tail)
            .map_or("O", |have| have.enabled.as_str());
        if now != trigger.enabled {
            let state = match trigger.enabled.as_str() {
                "D" => "DISABLE",
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ => "ENABLE",
            };
            plan.push(
                format!("set the state of trigger {}", trigger.name),
                format!("ALTER TABLE {} {state} TRIGGER {}", to.name, trigger.name),
            );
        }
    }
}
