//! What may have been given to one side alone since the twin was made: grants, row security, policies, triggers, comment.
//! The side that takes the name gets it as the other has it.

use super::Plan;
use crate::catalog::{Policy, TableDef, Trigger};
use crate::ident::Literal;
use crate::plan::access;

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

fn grants(plan: &mut Plan, from: &TableDef, to: &TableDef) {
    for surplus in to.grants.iter().filter(|g| !from.grants.contains(g)) {
        plan.push(
            format!("revoke {} from {}", surplus.privilege, surplus.grantee),
            format!(
                "REVOKE {}{} ON {} FROM {}",
                surplus.privilege,
                access::column(surplus),
                to.name,
                surplus.grantee
            ),
        );
    }
    for missing in from.grants.iter().filter(|g| !to.grants.contains(g)) {
        access::give(plan, missing, &to.name);
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
    let same = |a: &Policy, b: &Policy| {
        a.name == b.name
            && a.comment == b.comment
            && a.definition == access::meant_for(&b.definition, to, &from.name.name)
    };
    let is_surplus = |p: &&Policy| !from.policies.iter().any(|other| same(other, p));
    for surplus in to.policies.iter().filter(is_surplus) {
        plan.push(
            format!("drop policy {}", surplus.name),
            format!("DROP POLICY {} ON {}", surplus.name, to.name),
        );
    }
    let is_missing = |p: &&Policy| !to.policies.iter().any(|other| same(p, other));
    for missing in from.policies.iter().filter(is_missing) {
        access::create_policy(plan, missing, from, &to.name);
    }
}

/// A trigger of the twin alone is refused before ([`super::lost`]): it may be there for the twin's sake. On the way back one of
/// the legacy alone has been dropped under the name that applications use.
fn triggers(plan: &mut Plan, from: &TableDef, to: &TableDef) {
    let is_surplus = |t: &&Trigger| from.user_triggers().all(|other| other.name != t.name);
    for surplus in to.user_triggers().filter(is_surplus) {
        plan.push(
            format!("drop trigger {}", surplus.name),
            format!("DROP TRIGGER {} ON {}", surplus.name, to.name),
        );
    }
    for trigger in from.user_triggers() {
        let Some(tail) = &trigger.tail else { continue };
        let named = to.user_triggers().find(|t| t.name == trigger.name);
        let have = named.filter(|have| have.head == trigger.head && have.tail == trigger.tail);
        if have.is_none() {
            if named.is_some() {
                plan.push(
                    format!("drop trigger {}", trigger.name),
                    format!("DROP TRIGGER {} ON {}", trigger.name, to.name),
                );
            }
            access::create_trigger(plan, trigger, tail, &to.name);
        }
        let said = have.and_then(|have| have.comment.as_ref());
        access::comment_trigger(plan, trigger, said, &to.name);
        let now = have.map_or("O", |have| have.enabled.as_str());
        if now != trigger.enabled {
            access::set_trigger_state(plan, trigger, &to.name);
        }
    }
}
