//! Names that change hands: of the tables, their indexes, constraints and statistics objects.

use super::{Plan, Swap, indexes};
use crate::catalog::Index;
use crate::ident::{Ident, MAX_NAME_BYTES, RelName};

/// Gives out names that nothing else has.
pub struct Names<'a> {
    swap: Swap<'a>,
    taken: Vec<Ident>,
}

impl<'a> Names<'a> {
    pub fn new(swap: &Swap<'a>) -> Self {
        let mut taken = swap.from.dependents.taken.clone();
        taken.push(swap.away.clone());
        Names { swap: *swap, taken }
    }

    /// `name` with `suffix`, shortened where that is too long and numbered where it is taken.
    pub fn free(&mut self, name: &Ident, suffix: &str) -> Ident {
        let mut number = 0;
        loop {
            let suffix = match number {
                0 => suffix.to_string(),
                n => format!("{suffix}{n}"),
            };
            let mut end = name.as_str().len().min(MAX_NAME_BYTES - suffix.len());
            while !name.as_str().is_char_boundary(end) {
                end -= 1;
            }
            let free = Ident::new(format!("{}{suffix}", &name.as_str()[..end]));
            if !self.taken.contains(&free) {
                self.taken.push(free.clone());
                return free;
            }
            number += 1;
        }
    }

    pub fn tables(&mut self, plan: &mut Plan) {
        let (from, to) = (&self.swap.from.table.name, &self.swap.to.table.name);
        for (table, name) in [(from, self.swap.away), (to, &from.name)] {
            plan.push(
                format!("{} becomes {name}", table.name),
                format!("ALTER TABLE {table} RENAME TO {name}"),
            );
        }
    }

    /// Each index of the table that takes the name takes the name of its counterpart, which makes room.
    pub fn indexes(&mut self, plan: &mut Plan) {
        let swap = self.swap;
        let away = swap.from.table.name.sibling(swap.away.clone());
        let here = swap.to.table.name.sibling(swap.from.table.name.name.clone());
        let (from, to) = (swap.from.table, swap.to.table);
        for (index, other) in indexes::counterparts(from, to, to.kind == "p", swap.partition_key) {
            let free = self.free(&index.name, swap.suffix);
            rename_index(plan, &away, index, &free);
            rename_index(plan, &here, other, &index.name);
        }
    }

    pub fn statistics(&mut self, plan: &mut Plan) {
        let swap = self.swap;
        let mut rest: Vec<_> = swap.to.dependents.statistics.iter().collect();
        for statistics in &swap.from.dependents.statistics {
            let Some(found) = rest.iter().position(|s| s.definition == statistics.definition) else {
                continue;
            };
            let other = rest.swap_remove(found);
            let free = self.free(&statistics.name.name, swap.suffix);
            rename_statistics(plan, &statistics.name, &free);
            rename_statistics(plan, &other.name, &statistics.name.name);
        }
    }
}

fn rename_index(plan: &mut Plan, table: &RelName, index: &Index, name: &Ident) {
    plan.push(
        format!("index {} becomes {name}", index.name),
        match &index.constraint {
            Some(constraint) => format!("ALTER TABLE {table} RENAME CONSTRAINT {constraint} TO {name}"),
            None => format!(
                "ALTER INDEX {} RENAME TO {name}",
                table.sibling(index.name.clone())
            ),
        },
    );
}

fn rename_statistics(plan: &mut Plan, statistics: &RelName, name: &Ident) {
    plan.push(
        format!("statistics object {} becomes {name}", statistics.name),
        format!("ALTER STATISTICS {statistics} RENAME TO {name}"),
    );
}
