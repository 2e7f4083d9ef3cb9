//! What people and machines see, started for real: health with its mends, OpenMetrics in Prometheus, the page in a browser.

#[path = "../common/mod.rs"]
mod common;

mod alerts;
mod browser;
mod chart;
mod exporters;
mod health;
mod looks;
mod openmetrics;
mod page;
mod processes;
mod replication;
mod roles;
mod settings;

use common::{Database, migrated_revenues, one, run};
use postgres::Client;

const TABLES: &[&str] = &[
    "CREATE TABLE revenues (id serial PRIMARY KEY, at date NOT NULL)",
    "INSERT INTO revenues (at) SELECT date_trunc('month', current_date)::date - g FROM generate_series(1, 90) g",
    "ANALYZE revenues",
];

fn report(client: &mut Client) -> String {
    one(client, "SELECT partition_router.report()")
}

/// A thousand partitions by day, one missing among them.
fn thousand(name: &str) -> (Database, Client) {
    let database = Database::new(name);
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE days (on_day date NOT NULL) PARTITION BY RANGE (on_day)",
            "DO $$ BEGIN FOR g IN 1 .. 1001 LOOP CONTINUE WHEN g = 500; EXECUTE format(
                 'CREATE TABLE days_%s PARTITION OF days FOR VALUES FROM (%L) TO (%L)',
                 g, current_date - 900 + g, current_date - 899 + g); END LOOP; END $$",
            "INSERT INTO days SELECT current_date - 900 + g FROM generate_series(1, 400) g",
            "SELECT partition_router.manage('days', '1 day')",
        ],
    );
    (database, client)
}

fn live(name: &str) -> (Database, Client) {
    migrated_revenues(name, TABLES)
}
