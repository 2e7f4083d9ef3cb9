//! A round: faults are planted, found by `verify`, named by `mismatches`, mended by `repair`, and nothing is left.

use crate::common::{one, plant, run};
use crate::kinds::Column;
use crate::world::{ROWS, World};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// What a fault does.
#[derive(Clone, Copy)]
pub enum Fault {
    /// One value becomes another one.
    Value(&'static Column, (&'static str, &'static str)),
    /// Two columns of a row exchange their values.
    SwappedColumns([&'static str; 2]),
    Row(RowFault),
}

#[derive(Clone, Copy, PartialEq)]
pub enum RowFault {
    Missing,
    Extra,
    /// Two more rows, equal but for their keys: under XOR much of them cancels.
    ExtraPair,
    /// Two rows exchange what they hold.
    SwappedRows,
    /// One row's values take the place of another's.
    Doubled,
    /// The row is in the next partition.
    Moved,
    OtherKey,
    Emptied,
}

const ROW_FAULTS: [(RowFault, &str); 8] = [
    (RowFault::Missing, "a row missing"),
    (RowFault::Extra, "a row more"),
    (RowFault::ExtraPair, "duplicates in pairs"),
    (RowFault::SwappedRows, "two rows swapped"),
    (RowFault::Doubled, "a row in the place of another one"),
    (RowFault::Moved, "a row in another partition"),
    (RowFault::OtherKey, "another key"),
    (RowFault::Emptied, "all values NULL"),
];

impl Fault {
    pub fn name(self) -> String {
        match self {
            Fault::Value(_, (name, _)) => name.to_string(),
            Fault::SwappedColumns(_) => "two columns swapped".to_string(),
            Fault::Row(fault) => {
                let named = ROW_FAULTS.iter().find(|(f, _)| *f == fault);
                named.expect("every fault has a name").1.to_string()
            }
        }
    }
}

/// All faults that a table can have.
pub fn faults(world: &World) -> Vec<Fault> {
    let values = world
        .shape
        .columns
        .iter()
        .flat_map(|c| c.faults.iter().map(move |f| Fault::Value(c, *f)));
    let columns = world.shape.same_type.into_iter().map(Fault::SwappedColumns);
    let rows = ROW_FAULTS.iter().map(|(f, _)| Fault::Row(*f));
    values.chain(columns).chain(rows).collect()
}

/// A row that differs, as `mismatches` names it: kind, id, partition key, columns.
type Named = (String, i64, i32, Vec<String>);

/// What a round plants, and what must be said about it.
#[derive(Default)]
struct Expected {
    /// Statements for the legacy and for the twin.
    statements: [Vec<String>; 2],
    partitions: BTreeSet<i64>,
    named: BTreeSet<Named>,
    kinds: BTreeMap<String, usize>,
}

const FAR: i64 = 1_000_000_000;

impl Expected {
    /// Plants `fault` at row `row` of partition `partition`; `on_twin` says on which side.
    fn add(
        &mut self,
        world: &World,
        random: &mut ChaCha8Rng,
        fault: Fault,
        partition: i64,
        row: i64,
        on_twin: bool,
    ) {
        *self.kinds.entry(fault.name()).or_default() += 1;
        let side = if on_twin {
            world.twin()
        } else {
            world.shape.table.to_string()
        };
        let part = partition * 10 + row;
        let id = 100 + part;
        let other = id - row + (row + 1) % ROWS;
        // Named as the twin has it: what a statement takes away or adds on the other side is the opposite there.
        let (gone, come) = if on_twin {
            ("missing", "extra")
        } else {
            ("extra", "missing")
        };
        let mut name = |kind: &str, id: i64, part: i64, columns: &[&str]| {
            let columns = columns.iter().map(|c| c.to_string()).collect();
            self.named.insert((kind.to_string(), id, part as i32, columns));
            self.partitions.insert(part / 10);
        };
        let all = world.columns().join(", ");
        let copy = |far: i64| {
            format!(
                "INSERT INTO {side} (id, part, {all}) SELECT id + {far}, part, {all} FROM {side} WHERE id = {id}"
            )
        };
        let statement = match fault {
            Fault::Value(column, (_, expression)) => {
                name("different", id, part, &[column.name]);
                let expression = expression.replace("$r", &random.random_range(0..1_000_000).to_string());
                format!(
                    "UPDATE {side} SET {} = {expression} WHERE id = {id} AND part = {part}",
                    column.name
                )
            }
            Fault::SwappedColumns([a, b]) => {
                name("different", id, part, &[a, b]);
                format!("UPDATE {side} SET {a} = {b}, {b} = {a} WHERE id = {id} AND part = {part}")
            }
            Fault::Row(RowFault::Missing) => {
                name(gone, id, part, &[]);
                format!("DELETE FROM {side} WHERE id = {id} AND part = {part}")
            }
            Fault::Row(RowFault::Extra) => {
                name(come, id + FAR, part, &[]);
                copy(FAR)
            }
            Fault::Row(RowFault::ExtraPair) => {
                name(come, id + FAR, part, &[]);
                name(come, id + 2 * FAR, part, &[]);
                format!("{}; {}", copy(FAR), copy(2 * FAR))
            }
            Fault::Row(RowFault::SwappedRows) => {
                // The columns are asked of the server: neighbours are equal in many.
                name("different", id, part, &["?"]);
                name("different", other, other - 100, &["?"]);
                format!(
                    "UPDATE {side} s SET ({all}) = (SELECT {all} FROM {side} o WHERE o.id = {id} + {other} - s.id) WHERE id IN ({id}, {other})"
                )
            }
            Fault::Row(RowFault::Doubled) => {
                name("different", id, part, &["?"]);
                format!(
                    "UPDATE {side} s SET ({all}) = (SELECT {all} FROM {side} o WHERE o.id = {other}) WHERE id = {id}"
                )
            }
            Fault::Row(RowFault::Moved) => {
                name(gone, id, part, &[]);
                name(come, id, part + 10, &[]);
                format!("UPDATE {side} SET part = part + 10 WHERE id = {id} AND part = {part}")
            }
            Fault::Row(RowFault::OtherKey) => {
                name(gone, id, part, &[]);
                name(come, id + FAR, part, &[]);
                format!("UPDATE {side} SET id = id + {FAR} WHERE id = {id} AND part = {part}")
            }
            Fault::Row(RowFault::Emptied) => {
                name("different", id, part, &["?"]);
                let nulls: Vec<String> = world.columns().iter().map(|c| format!("{c} = NULL")).collect();
                format!(
                    "UPDATE {side} SET {} WHERE id = {id} AND part = {part}",
                    nulls.join(", ")
                )
            }
        };
        self.statements[on_twin as usize].push(statement);
    }
}

/// One fault to a partition, so that none is found thanks to another one; gives how many of each kind were planted.
pub fn alone(world: &mut World, random: &mut ChaCha8Rng, first: usize) -> BTreeMap<String, usize> {
    let all = faults(world);
    let mut expected = Expected::default();
    let mut partition = 0;
    let mut number = first;
    while partition < world.partitions {
        let fault = all[number % all.len()];
        number += 1;
        let moves = matches!(fault, Fault::Row(RowFault::Moved));
        if moves && partition + 1 == world.partitions {
            break;
        }
        let (row, on_twin) = (random.random_range(0..ROWS), random.random_bool(0.7));
        expected.add(world, random, fault, partition, row, on_twin);
        partition += 1 + i64::from(moves);
    }
    check(world, expected)
}

/// A fault in most rows: many to a partition.
pub fn crowded(world: &mut World, random: &mut ChaCha8Rng) -> BTreeMap<String, usize> {
    // Those that take a second row would meet another fault there.
    let all: Vec<Fault> = faults(world)
        .into_iter()
        .filter(|f| {
            !matches!(
                f,
                Fault::Row(RowFault::SwappedRows | RowFault::Doubled | RowFault::Moved)
            )
        })
        .collect();
    let mut expected = Expected::default();
    let mut rows: Vec<(i64, i64)> = (0..world.partitions)
        .flat_map(|p| (0..ROWS).map(move |r| (p, r)))
        .collect();
    rows.shuffle(random);
    rows.truncate(rows.len() * 4 / 5);
    for (partition, row) in rows {
        let fault = *all.choose(random).expect("there are faults");
        let on_twin = random.random_bool(0.5);
        expected.add(world, random, fault, partition, row, on_twin);
    }
    check(world, expected)
}

/// The columns in which a row differs, byte for byte, asked of the server and not of the extension.
fn columns_that_differ(world: &mut World, id: i64, part: i32) -> Vec<String> {
    let each: Vec<String> = world
        .columns()
        .iter()
        .map(|c| format!("CASE WHEN record_image_ne(ROW(l.{c}), ROW(t.{c})) THEN '{c}' END"))
        .collect();
    let query = format!(
        "SELECT array_remove(ARRAY[{}]::text[], NULL) FROM {} l JOIN {} t USING (id, part) WHERE id = {id} AND part = {part}",
        each.join(", "),
        world.shape.table,
        world.twin()
    );
    one(&mut world.client, &query)
}

/// Rows in which the sides differ, asked of the server.
fn rows_that_differ(world: &mut World) -> i64 {
    let (table, twin, all) = (world.shape.table, world.twin(), world.columns());
    let row = |side: &str| {
        let columns: Vec<String> = all.iter().map(|c| format!("{side}.{c}")).collect();
        format!("ROW({})", columns.join(", "))
    };
    one(
        &mut world.client,
        &format!(
            "SELECT count(*) FROM {table} l FULL JOIN {twin} t USING (id, part)
             WHERE l.id IS NULL OR t.id IS NULL OR record_image_ne({}, {})",
            row("l"),
            row("t")
        ),
    )
}

/// The partitions of which `verify` says that they differ, by number.
fn partitions_that_differ(world: &mut World) -> BTreeSet<i64> {
    let query = format!(
        "SELECT (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''?(-?\\d+)'))[1]::bigint / 10
         FROM partition_router.verify('{}', 'checksum') v JOIN pg_class c ON c.oid = v.partition WHERE NOT v.matches",
        world.shape.table
    );
    let rows = world.client.query(&query, &[]).expect("verify can be called");
    rows.iter().map(|row| row.get(0)).collect()
}

/// What `mismatches` names.
fn named(world: &mut World) -> BTreeSet<Named> {
    let query = format!(
        "SELECT kind, (key ->> 'id')::bigint, (key ->> 'part')::int, columns, legacy IS NULL, twin IS NULL
         FROM partition_router.mismatches('{}', 1000000)",
        world.shape.table
    );
    let rows = world.client.query(&query, &[]).expect("mismatches can be called");
    let found: BTreeSet<Named> = rows
        .iter()
        .map(|row| {
            let kind: String = row.get(0);
            let (without_legacy, without_twin): (bool, bool) = (row.get(4), row.get(5));
            assert_eq!(without_legacy, kind == "extra", "{kind}");
            assert_eq!(without_twin, kind == "missing", "{kind}");
            let mut columns: Vec<String> = row.get::<_, Option<Vec<String>>>(3).unwrap_or_default();
            columns.sort();
            (kind, row.get(1), row.get(2), columns)
        })
        .collect();
    assert_eq!(found.len(), rows.len(), "mismatches named a row twice");
    found
}

/// Inserted, updated, deleted.
fn repair(world: &mut World, dry_run: bool) -> (i64, i64, i64) {
    let query = format!(
        "SELECT inserted, updated, deleted FROM partition_router.repair('{}', dry_run => {dry_run})",
        world.shape.table
    );
    let row = world.client.query_one(&query, &[]).expect("repair can be called");
    (row.get(0), row.get(1), row.get(2))
}

fn check(world: &mut World, mut expected: Expected) -> BTreeMap<String, usize> {
    let table = world.shape.table;
    assert_eq!(partitions_that_differ(world), BTreeSet::new(), "{table}: before");
    let [legacy, twin] = std::mem::take(&mut expected.statements);
    for (side, statements) in [(table.to_string(), legacy), (world.twin(), twin)] {
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        plant(&mut world.client, &side, &statements);
    }
    let expected_named: BTreeSet<Named> = std::mem::take(&mut expected.named)
        .into_iter()
        .map(|(kind, id, part, mut columns)| {
            if kind == "different" {
                let differ = columns_that_differ(world, id, part);
                if columns == ["?"] {
                    columns = differ;
                } else {
                    columns.sort();
                    let mut sorted = differ;
                    sorted.sort();
                    assert_eq!(
                        sorted, columns,
                        "{table}: row {id} was not planted as it was meant"
                    );
                }
                columns.sort();
            }
            (kind, id, part, columns)
        })
        .collect();
    let wanted = expected_named.len() as i64;
    assert_eq!(rows_that_differ(world), wanted, "{table}: what was planted");

    let found = partitions_that_differ(world);
    assert_eq!(found, expected.partitions, "{table}: partitions by verify");
    let listed = named(world);
    let lost: Vec<_> = expected_named.difference(&listed).collect();
    let invented: Vec<_> = listed.difference(&expected_named).collect();
    assert!(
        lost.is_empty() && invented.is_empty(),
        "{table}: not named: {lost:#?}, named for nothing: {invented:#?}"
    );
    let limited: i64 = one(
        &mut world.client,
        &format!("SELECT count(*) FROM partition_router.mismatches('{table}', 7)"),
    );
    assert_eq!(limited, wanted.min(7));

    let count = |kind: &str| expected_named.iter().filter(|n| n.0 == kind).count() as i64;
    let counts = (count("missing"), count("different"), count("extra"));
    assert_eq!(repair(world, true), counts, "{table}: a dry run counts");
    assert_eq!(
        rows_that_differ(world),
        wanted,
        "{table}: a dry run changes nothing"
    );
    assert_eq!(repair(world, false), counts, "{table}: a repair counts");
    assert_eq!(rows_that_differ(world), 0, "{table}: after the repair");
    assert_eq!(
        partitions_that_differ(world),
        BTreeSet::new(),
        "{table}: after the repair"
    );
    assert_eq!(named(world), BTreeSet::new(), "{table}: after the repair");
    assert_eq!(repair(world, false), (0, 0, 0), "{table}: a second repair");
    restore(world);
    expected.kinds
}

/// The rows as they were, for the next round: what was planted on the legacy is the truth after a repair.
fn restore(world: &mut World) {
    let (table, all) = (world.shape.table, world.columns());
    let row = |side: &str| {
        let columns: Vec<String> = all.iter().map(|c| format!("{side}.{c}")).collect();
        format!("ROW({side}.part, {})", columns.join(", "))
    };
    run(
        &mut world.client,
        &[
            &format!(
                "DELETE FROM {table} t WHERE NOT EXISTS
                 (SELECT FROM origin o WHERE o.id = t.id AND record_image_eq({}, {}))",
                row("o"),
                row("t")
            ),
            &format!(
                "INSERT INTO {table} SELECT * FROM origin o WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.id = o.id)"
            ),
        ],
    );
    assert_eq!(rows_that_differ(world), 0, "{table}: restored");
}
