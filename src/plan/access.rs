//! Statements that give a table a grant, a policy or a trigger of another one: for the twin when it is made, and for the
//! side that takes the name at a switchover.

use super::Plan;
use crate::catalog::{Grant, Policy, TableDef, Trigger};
use crate::ident::{Ident, Literal, RelName};

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

/// Creates a policy of `of` on `table`.
pub fn create_policy(plan: &mut Plan, policy: &Policy, of: &TableDef, table: &RelName) {
    plan.push(
        format!("create policy {}", policy.name),
        format!(
            "CREATE POLICY {} ON {table}{}",
            policy.name,
            meant_for(&policy.definition, of, &table.name)
        ),
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
        create_policy(plan, policy, template, table);
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

/// Gives a trigger the comment of the one that it comes from; `have` is what it has.
pub fn comment_trigger(plan: &mut Plan, trigger: &Trigger, have: Option<&String>, table: &RelName) {
    if trigger.comment.as_ref() == have {
        return;
    }
    let comment = trigger
        .comment
        .as_deref()
        .map_or("NULL".into(), |text| Literal(text).to_string());
    plan.push(
        format!("copy the comment of trigger {}", trigger.name),
        format!("COMMENT ON TRIGGER {} ON {table} IS {comment}", trigger.name),
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

/// The text of a policy of `of`, as it is to be for a table called `name`: in a sub-select the server writes the columns of the
/// policy's table with the table's name before them.
pub fn meant_for(text: &str, of: &TableDef, name: &Ident) -> String {
    let own = &of.name.name;
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let (word, length) = match c {
            '\'' => (None, quoted_length(rest, '\'')),
            '"' => {
                let length = quoted_length(rest, '"');
                (Some(rest[1..length.max(2) - 1].replace("\"\"", "\"")), length)
            }
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                (Some(rest[..length].to_string()), length)
            }
            c => (None, c.len_utf8()),
        };
        let (token, behind) = rest.split_at(length);
        let is_table = word.as_deref() == Some(own.as_str()) && before != '.' && names_column(behind, of);
        if is_table {
            done.push_str(&name.to_string());
        } else {
            done.push_str(token);
        }
        before = token.chars().next_back().unwrap_or(' ');
        rest = behind;
    }
    done
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// Of a quoted text at the beginning, with its quotes; doubled ones are part of it.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// Whether `.column` comes next, and it is no function's name.
fn names_column(behind: &str, table: &TableDef) -> bool {
    let Some(behind) = behind.strip_prefix('.') else {
        return false;
    };
    table.columns.iter().any(|column| {
        let quoted = column.name.to_string();
        let rest = behind
            .strip_prefix(quoted.as_str())
            .or_else(|| behind.strip_prefix(column.name.as_str()));
        rest.is_some_and(|rest| !rest.starts_with(|c: char| is_word(c) || c == '('))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Column;

    fn table(name: &str, columns: &[&str]) -> TableDef {
        TableDef {
            name: RelName::new("s", name),
            columns: columns
                .iter()
                .map(|name| Column {
                    name: Ident::new(*name),
                    ..Column::default()
                })
                .collect(),
            ..TableDef::default()
        }
    }

    #[test]
    fn columns_of_the_table_itself_are_those_of_the_other_one() {
        let t = table("t", &["a", "B b"]);
        let to = Ident::new("t_partitioned");
        for (text, expected) in [
            (" USING ((a > 0))", " USING ((a > 0))"),
            (
                " USING ((EXISTS ( SELECT FROM s.t x WHERE (x.id = t.a))))",
                " USING ((EXISTS ( SELECT FROM s.t x WHERE (x.id = \"t_partitioned\".a))))",
            ),
            ("(t.\"B b\" + t.abc)", "(\"t_partitioned\".\"B b\" + t.abc)"),
            (
                "(x.t.a, 't.a', t.a('it''s'), \"t\".a)",
                "(x.t.a, 't.a', t.a('it''s'), \"t_partitioned\".a)",
            ),
            ("'t.a", "'t.a"),
            ("\"", "\""),
        ] {
            assert_eq!(meant_for(text, &t, &to), expected);
        }
    }
}
