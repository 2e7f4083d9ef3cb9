//! Constraints, indexes and triggers that are otherwise on a partitioned table, or cannot be there.

use super::Finding;
use crate::catalog::TableDef;
use crate::error::Error;
use crate::ident::{Ident, list};
use crate::plan::foreign_keys::{self, Incoming};
use crate::plan::indexes;

/// What no partitioned table can have.
pub fn impossible(legacy: &TableDef, found: &mut Vec<Finding>) {
    for index in legacy.indexes.iter().filter(|i| i.exclusion) {
        found.push(Finding::error(
            "exclusion_constraint",
            Error::Unsupported {
                what: format!(
                    "exclusion constraint {} cannot be carried to a partitioned table",
                    index.name
                ),
                hint: "Drop the constraint, or keep the table as it is.".into(),
            },
        ));
    }
    for trigger in legacy.user_triggers() {
        if trigger.tail.is_none() || (trigger.row && trigger.transition) {
            found.push(Finding::error(
                "trigger",
                Error::Unsupported {
                    what: format!(
                        "trigger {} cannot be carried to a partitioned table",
                        trigger.name
                    ),
                    hint: "Make it a statement trigger, or a row trigger without transition tables.".into(),
                },
            ));
        }
    }
}

/// What the twin has otherwise.
pub fn different(legacy: &TableDef, partition_key: &Ident, found: &mut Vec<Finding>) {
    for index in legacy
        .indexes
        .iter()
        .filter(|i| indexes::is_widened(i, partition_key))
    {
        found.push(Finding::warning(
            "unique_widened",
            format!("unique index {} gets the partition key on the twin", index.name),
            "As long as the legacy is kept its own index keeps the values unique, and after that keep_unique => true does; ON CONFLICT on the \
             twin must name the partition key too.",
        ));
    }
    for index in legacy.indexes.iter().filter(|i| !i.valid) {
        found.push(Finding::warning(
            "invalid_index",
            format!("index {} is invalid and is left out", index.name),
            "Run REINDEX INDEX CONCURRENTLY, or drop it.",
        ));
    }
    for index in legacy.indexes.iter().filter(|i| i.clustered) {
        found.push(Finding::info(
            "clustered",
            format!(
                "CLUSTER goes by index {}, which a partitioned table cannot note",
                index.name
            ),
            "Run CLUSTER on a partition, with its index named.",
        ));
    }
    for key in legacy.foreign_keys.iter().filter(|k| !k.valid) {
        found.push(Finding::warning(
            "foreign_key_not_valid",
            format!(
                "foreign key {} is not valid and is not carried to the twin",
                key.name
            ),
            "Run ALTER TABLE … VALIDATE CONSTRAINT first.",
        ));
    }
    for column in legacy.columns.iter().filter(|c| c.identity) {
        found.push(Finding::info(
            "identity",
            format!(
                "identity column {} draws from the legacy's sequence on both sides",
                column.name
            ),
            "On the twin it is a default, not an identity, until it takes the name.",
        ));
    }
}

/// Foreign keys of other tables.
pub fn pointing_in(legacy: &TableDef, partition_key: &Ident, found: &mut Vec<Finding>) {
    for key in &legacy.referenced_by {
        let columns = list(&key.columns);
        let who = format!(
            "foreign key {} of {} points at {columns} of this table",
            key.name, key.relation
        );
        found.push(match foreign_keys::incoming(key, legacy, partition_key) {
            Incoming::Moves => Finding::info(
                "foreign_key_in",
                who,
                "It follows the name at the switchover, and is proven again there without keeping writers out.",
            ),
            Incoming::Stays(reason) => Finding::warning(
                "foreign_key_in",
                format!("{who}: {reason}"),
                "It goes on pointing at the legacy, which is kept in step, and cleanup is refused while it is there. Choices: \
                 keep what it points at with keep_unique => true; let it point at the partition key as well, with ON DELETE NO ACTION; \
                 drop it before cleanup; or keep the legacy with cleanup(keep_legacy => true).",
            ),
        });
    }
}
