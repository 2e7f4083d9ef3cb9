//! `partition_router` turns a live table into a partitioned one, from inside the database, while applications keep
//! writing.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`api`] | every SQL-callable function: parse, call, return |
//! | [`error`], [`settings`], [`session`], [`locks`] | errors and their SQLSTATEs, settings, who we run as, lock budget |
//! | [`ident`], [`spi`], [`catalog`] | names, the one way to run SQL, tables as the catalog has them |
//! | [`pair`], [`bounds`], [`plan`] | phases, partition arithmetic, plans: no server in them |
//! | [`execute`] | runs or prints a plan |
//! | [`preflight`], [`twin`], [`migrate`] | from a table to a pair, and back |
//! | [`switchover`] | the names swap, there and back; the end of the legacy |
//! | [`unpartition`] | back to one plain table |
//! | [`sync`] | the dual write: triggers, one side of a pair, change log |
//! | [`ddl`] | DDL on one side of a pair: carried to the other, or refused |
//! | [`backfill`] | copy, index, drain, flip |
//! | [`worker`] | background workers that help a backfill; what all workers have in common |
//! | [`parity`] | digests, differences, repair |
//! | [`route`] | which side a read uses, and why |
//! | [`policy`], [`maintenance`] | what maintenance should do, and doing it |
//! | [`feed`] | the outbox of changed keys, for caches |
//! | [`archive`] | partitions as files, and back |
//! | [`index_build`] | a new index on every partition, with nobody kept out |
//! | [`advise`] | what to do about sizes, pruning and planning |
//! | [`observe`] | metrics, health, the page and the chart |
//! | [`calls`] | what long calls are at: a view, and NOTICEs |
//! | [`shared_file`] | memory that all backends share |
//! | [`compat`] | what differs between PostgreSQL versions |

mod advise;
mod api;
mod archive;
mod backfill;
mod bounds;
mod calls;
mod catalog;
mod compat;
mod ddl;
mod error;
mod execute;
mod feed;
mod ident;
mod index_build;
mod locks;
mod maintenance;
mod migrate;
mod observe;
mod pair;
mod parity;
mod plan;
mod policy;
mod preflight;
mod route;
mod session;
mod settings;
mod shared_file;
mod spi;
mod switchover;
mod sync;
#[cfg(feature = "pg_test")]
mod tests;
mod twin;
mod unpartition;
mod worker;

pgrx::pg_module_magic!();

pgrx::extension_sql_file!("../sql/schema.sql", name = "schema", bootstrap);
pgrx::extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["schema"]);
pgrx::extension_sql_file!(
    "../sql/event_triggers.sql",
    name = "event_triggers",
    requires = ["functions", "views"]
);
pgrx::extension_sql_file!(
    "../sql/procedures.sql",
    name = "procedures",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/functions/maintenance.sql",
    name = "maintenance",
    requires = ["schema"]
);
pgrx::extension_sql_file!(
    "../sql/procedures/switchover.sql",
    name = "switchover",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/procedures/run_maintenance.sql",
    name = "run_maintenance",
    requires = ["maintenance"]
);
pgrx::extension_sql_file!(
    "../sql/procedures/create_index.sql",
    name = "create_index",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/procedures/unpartition.sql",
    name = "unpartition",
    requires = ["functions"]
);
pgrx::extension_sql_file!(
    "../sql/procedures/place.sql",
    name = "place",
    requires = ["functions"]
);
pgrx::extension_sql_file!("../sql/functions/feed.sql", name = "feed", requires = ["schema"]);
pgrx::extension_sql_file!(
    "../sql/functions/observe.sql",
    name = "observe",
    requires = ["schema"]
);
pgrx::extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = [
        "procedures",
        "observe",
        "feed",
        "run_maintenance",
        "switchover",
        "create_index",
        "unpartition",
        "place"
    ]
);

/// Called by the server when the library is loaded into a backend.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    error::init();
    settings::init();
    session::strangers::init();
    sync::init();
    worker::init();
    maintenance::init();
    route::init();
    ddl::init();
    feed::init();
}

/// What the test framework of pgrx asks for.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["timezone = 'UTC'"]
    }
}
