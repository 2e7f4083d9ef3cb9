//! What people and machines see: metrics, the checks behind `health`, a page and a chart.
//!
//! All of it reads the same facts ([`facts`]), with one query for each kind of them however many tables there are, and no lock on
//! any table that outlives its query. Only the few rows that are counted are read from users' tables, without running anything of theirs.

mod chart;
mod checks;
mod default_rows;
mod drift;
mod facts;
mod metrics;
mod openmetrics;
mod overview;
mod page;
mod server;
pub mod sync_errors;
mod timeline;

pub use chart::chart;
pub use checks::{checks, verify_partitions};
pub use metrics::{Counting, metrics, pairs as pair_metrics, tables as table_metrics};
pub use openmetrics::openmetrics;
pub use page::report;
pub use server::primary;
