//! The tables that faults are planted in: one partition of the twin has few rows, so that a fault can be alone in it.

use crate::common::{Database, one, run};
use crate::kinds::{Shape, TYPES};
use postgres::Client;

/// Rows of a partition. Its keys lie in `[partition × 10, partition × 10 + ROWS)`.
pub const ROWS: i64 = 4;

pub struct World {
    pub shape: &'static Shape,
    pub partitions: i64,
    pub client: Client,
    _database: Database,
}

impl World {
    /// A table, its twin and a copy of its rows as they were (`origin`), in a database of its own.
    pub fn new(shape: &'static Shape, partitions: i64) -> World {
        let database = Database::new(&format!("faults_{}", shape.table));
        let mut client = database.connect();
        run(&mut client, &TYPES);
        let table = shape.table;
        let definitions: Vec<String> = shape
            .columns
            .iter()
            .map(|c| {
                let ty = c.ty.split(" STORAGE_").next().expect("a type has a name");
                format!("{} {ty}", c.name)
            })
            .collect();
        let values: Vec<&str> = shape.columns.iter().map(|c| c.value).collect();
        run(
            &mut client,
            &[&format!(
                "CREATE TABLE {table} (id bigint PRIMARY KEY, part int NOT NULL, {})",
                definitions.join(", ")
            )],
        );
        for column in shape.columns {
            if let Some((_, storage)) = column.ty.split_once(" STORAGE_") {
                run(
                    &mut client,
                    &[&format!(
                        "ALTER TABLE {table} ALTER {} SET STORAGE {storage}",
                        column.name
                    )],
                );
            }
        }
        run(
            &mut client,
            &[
                &format!(
                    "INSERT INTO {table} SELECT g, p * 10 + r, {}
                     FROM generate_series(0, {partitions} - 1) p, generate_series(0, {ROWS} - 1) r,
                          LATERAL (SELECT (100 + p * 10 + r)::bigint AS g) x",
                    values.join(", ")
                ),
                &format!("CREATE TABLE origin AS TABLE {table}"),
                &format!(
                    "CALL partition_router.migrate('{table}', 'part', partition_interval => '10', premake => 0)"
                ),
            ],
        );
        let rows: i64 = one(&mut client, &format!("SELECT count(*) FROM {table}_partitioned"));
        assert_eq!(rows, partitions * ROWS);
        World {
            shape,
            partitions,
            client,
            _database: database,
        }
    }

    pub fn twin(&self) -> String {
        format!("{}_partitioned", self.shape.table)
    }

    pub fn columns(&self) -> Vec<&'static str> {
        self.shape.columns.iter().map(|c| c.name).collect()
    }
}
