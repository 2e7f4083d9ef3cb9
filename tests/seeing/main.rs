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

use common::{Database, migrated_revenues};
use postgres::Client;

const TABLES: &[&str] = &[
    "CREATE TABLE revenues (id serial PRIMARY KEY, at date NOT NULL)",
    "INSERT INTO revenues (at) SELECT date_trunc('month', current_date)::date - g FROM generate_series(1, 90) g",
    "ANALYZE revenues",
];

fn live(name: &str) -> (Database, Client) {
    migrated_revenues(name, TABLES)
}
