//! The triggers of a change feed, as statements.

use super::Plan;
use crate::ident::{Ident, Literal, RelName};

/// The row trigger; partitions have it from their root.
const ROWS: &str = "partition_router_feed";
/// The statement trigger for TRUNCATE, which each partition needs for itself.
const TRUNCATE: &str = "partition_router_feed_truncate";

/// What the triggers of a feed are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    pub id: i32,
    /// Whether a commit wakes the consumer.
    pub notify: bool,
    pub key_columns: Vec<Ident>,
}

impl Feed {
    fn call(&self) -> String {
        let id = self.id.to_string();
        let how = if self.notify { "notify" } else { "quiet" };
        let columns = self.key_columns.iter().map(Ident::as_str);
        let arguments: Vec<String> = [id.as_str(), how]
            .into_iter()
            .chain(columns)
            .map(|argument| Literal(argument).to_string())
            .collect();
        format!(
            "EXECUTE FUNCTION partition_router.change_feed({})",
            arguments.join(", ")
        )
    }

    /// Statements that let `table`, and so its partitions, tell of every row.
    pub fn install(&self, table: &RelName) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            format!("tell of the changed rows of {table}"),
            format!(
                "CREATE TRIGGER {ROWS} AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW {}",
                self.call()
            ),
        );
        plan.push(
            format!("let {ROWS} fire always"),
            format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {ROWS}"),
        );
        plan.extend(self.install_truncate(table));
        plan
    }

    /// The same of TRUNCATE: for the table and for each partition.
    pub fn install_truncate(&self, table: &RelName) -> Plan {
        let mut plan = Plan::default();
        plan.push(
            format!("tell when {table} is truncated"),
            format!(
                "CREATE TRIGGER {TRUNCATE} AFTER TRUNCATE ON {table} FOR EACH STATEMENT {}",
                self.call()
            ),
        );
        plan.push(
            format!("let {TRUNCATE} fire always"),
            format!("ALTER TABLE ONLY {table} ENABLE ALWAYS TRIGGER {TRUNCATE}"),
        );
        plan
    }
}

/// The statement that takes a trigger away.
pub fn uninstall(table: &RelName, trigger: &Ident) -> Plan {
    let mut plan = Plan::default();
    plan.push(
        format!("drop trigger {trigger} of {table}"),
        format!("DROP TRIGGER IF EXISTS {trigger} ON {table}"),
    );
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trigger_of_a_feed_fires_always_and_knows_its_columns() {
        let feed = Feed {
            id: 7,
            notify: false,
            key_columns: vec![Ident::new("it's"), Ident::new("Id")],
        };
        let plan = feed.install(&RelName::new("s", "t"));
        let created: Vec<_> = plan
            .steps
            .iter()
            .filter(|step| step.statement.starts_with("CREATE TRIGGER"))
            .collect();
        assert_eq!(created.len(), 2);
        for step in &created {
            assert!(
                step.statement
                    .ends_with("partition_router.change_feed('7', 'quiet', 'it''s', 'Id')"),
                "{}",
                step.statement
            );
        }
        let always = plan
            .steps
            .iter()
            .filter(|s| s.statement.contains("ENABLE ALWAYS"));
        assert_eq!(always.count(), 2);
    }
}
