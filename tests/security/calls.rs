//! Each function and procedure: who may call it, what is asked of whoever does, and a call. One that has no line here fails the test.

/// Who may call a function before anybody has granted anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    /// Superusers.
    Grant,
    /// And members of `pg_monitor`.
    Monitor,
    /// It reads what everybody may read, runs the caller's own SQL as the caller, or is a trigger that does nothing for tables of others.
    Everybody,
}

/// What is asked of a caller who was granted EXECUTE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asks {
    /// To own the table that the call is about.
    Owner,
    /// To have SELECT on the keys that it gives.
    Reader,
    /// Nothing: it tells no row of a table, changes what belongs to the session, or, as `set_rollout()`, chooses between equal
    /// sides for whom EXECUTE was given for just that.
    Nothing,
    /// To be a trigger.
    Trigger,
}
use Asks::{Nothing, Owner, Reader, Trigger};
use By::{Everybody, Grant, Monitor};

/// Signature, who may, what is asked, and a call: `o.t` is a live pair of the owner, `o.m` a table under maintenance.
pub const CALLS: &[(&str, By, Asks, &str)] = &[
    (
        "abandon(regclass,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.abandon('o.t')",
    ),
    (
        "advise(regclass)",
        Grant,
        Owner,
        "SELECT partition_router.advise('o.m')",
    ),
    (
        "backfill(regclass,integer,interval,interval)",
        Grant,
        Owner,
        "CALL partition_router.backfill('o.t')",
    ),
    (
        "backfill_step(regclass,integer,interval)",
        Grant,
        Owner,
        "SELECT partition_router.backfill_step('o.t', 10)",
    ),
    (
        "carry_ddl()",
        Grant,
        Trigger,
        "SELECT partition_router.carry_ddl()",
    ),
    (
        "calls_at_work()",
        Monitor,
        Nothing,
        "SELECT partition_router.calls_at_work()",
    ),
    (
        "change_feed()",
        Grant,
        Trigger,
        "SELECT partition_router.change_feed()",
    ),
    (
        "chart(regclass)",
        Monitor,
        Nothing,
        "SELECT partition_router.chart('o.t')",
    ),
    (
        "cleanup(regclass,boolean,boolean,boolean)",
        Grant,
        Owner,
        "CALL partition_router.cleanup('o.t')",
    ),
    (
        "cleanup_dry_run(regclass,boolean,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.cleanup_dry_run('o.t', false, false)",
    ),
    (
        "cleanup_step(regclass,text,boolean,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.cleanup_step('o.t', 'END', false, false)",
    ),
    (
        "compare_plans(text)",
        Everybody,
        Nothing,
        "SELECT partition_router.compare_plans('SELECT 1')",
    ),
    (
        "create_index(regclass,text,boolean)",
        Grant,
        Owner,
        "CALL partition_router.create_index('o.t', '(n)')",
    ),
    (
        "create_index_dry_run(regclass,text,text)",
        Grant,
        Owner,
        "SELECT partition_router.create_index_dry_run('o.t', '(n)', 'public')",
    ),
    (
        "create_index_step(regclass,text,text)",
        Grant,
        Owner,
        "SELECT partition_router.create_index_step('o.t', '(n)', 'public')",
    ),
    (
        "create_partitions(regclass,integer,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.create_partitions('o.m', 5)",
    ),
    (
        "create_range_partition(regclass,name,text,text,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.create_range_partition('o.m', 'm_old', '1999-01-01', '1999-02-01')",
    ),
    (
        "create_twin(regclass,name,text,text,integer,integer,name,boolean,boolean,text)",
        Grant,
        Owner,
        "SELECT partition_router.create_twin('o.plain', 'at')",
    ),
    (
        "disable_change_feed(regclass,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.disable_change_feed('o.t')",
    ),
    (
        "dismiss_workers()",
        Grant,
        Nothing,
        "SELECT partition_router.dismiss_workers()",
    ),
    (
        "drop_partition(regclass,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.drop_partition('o.m_2026_01')",
    ),
    (
        "enable_change_feed(regclass,text[],text,interval,interval,boolean,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.enable_change_feed('o.t', ARRAY['id'])",
    ),
    (
        "explain_route(regclass,text)",
        Everybody,
        Nothing,
        "SELECT partition_router.explain_route('o.t')",
    ),
    (
        "explain_route_query(text)",
        Everybody,
        Nothing,
        "SELECT partition_router.explain_route_query('SELECT 1')",
    ),
    (
        "health_checks()",
        Monitor,
        Nothing,
        "SELECT partition_router.health_checks()",
    ),
    (
        "hold(regclass,text)",
        Grant,
        Owner,
        "SELECT partition_router.hold('o.m_2026_01')",
    ),
    (
        "import_partman(boolean,name)",
        Grant,
        Nothing,
        "SELECT partition_router.import_partman(true)",
    ),
    (
        "is_replication_worker()",
        Everybody,
        Nothing,
        "SELECT partition_router.is_replication_worker()",
    ),
    ("log_key()", Grant, Trigger, "SELECT partition_router.log_key()"),
    (
        "maintenance_analyze(regclass)",
        Grant,
        Owner,
        "SELECT partition_router.maintenance_analyze('o.m')",
    ),
    (
        "maintenance_dry_run(regclass,text)",
        Grant,
        Owner,
        "SELECT partition_router.maintenance_dry_run('o.m', 'all')",
    ),
    (
        "maintenance_failed(regclass,text,text,text)",
        Grant,
        Owner,
        "SELECT partition_router.maintenance_failed('o.m', NULL, '00000', 'x')",
    ),
    (
        "maintenance_let_go()",
        Grant,
        Nothing,
        "SELECT partition_router.maintenance_let_go()",
    ),
    (
        "maintenance_targets(regclass,text)",
        Grant,
        Owner,
        "SELECT partition_router.maintenance_targets('o.m', 'all')",
    ),
    (
        "maintenance_task(regclass,text)",
        Grant,
        Owner,
        "SELECT partition_router.maintenance_task('o.m', '{}')",
    ),
    (
        "maintenance_tasks(regclass,text,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.maintenance_tasks('o.m')",
    ),
    (
        "maintenance_unanalyzed(regclass)",
        Grant,
        Nothing,
        "SELECT partition_router.maintenance_unanalyzed('o.m')",
    ),
    (
        "maintenance_unproven(regclass,text)",
        Grant,
        Nothing,
        "SELECT partition_router.maintenance_unproven('o.t', 'all')",
    ),
    (
        "maintenance_verify(regclass)",
        Grant,
        Owner,
        "SELECT partition_router.maintenance_verify('o.t')",
    ),
    (
        "manage(regclass,text,integer,interval,text,name,text,integer,integer,boolean,text,regprocedure,text,regclass)",
        Grant,
        Owner,
        "SELECT partition_router.manage('o.free', '1 month')",
    ),
    (
        "metrics(boolean)",
        Monitor,
        Nothing,
        "SELECT partition_router.metrics()",
    ),
    (
        "migrate(regclass,name,text,text,integer,integer,name,boolean,boolean,text)",
        Grant,
        Owner,
        "CALL partition_router.migrate('o.plain', 'at')",
    ),
    (
        "migrate_check(regclass)",
        Grant,
        Nothing,
        "SELECT partition_router.migrate_check('o.plain')",
    ),
    (
        "migrate_step(regclass,name,text,text,integer,integer,name,boolean,text)",
        Grant,
        Owner,
        "SELECT partition_router.migrate_step('o.plain', 'at', 'range', '1 month', 16, 3, NULL, false, NULL)",
    ),
    (
        "mismatches(regclass,integer)",
        Grant,
        Owner,
        "SELECT partition_router.mismatches('o.t')",
    ),
    (
        "muster_workers(regclass,integer,interval)",
        Grant,
        Nothing,
        "SELECT partition_router.muster_workers('o.t', 10, '0')",
    ),
    (
        "openmetrics()",
        Monitor,
        Nothing,
        "SELECT partition_router.openmetrics()",
    ),
    (
        "pair_figures()",
        Monitor,
        Nothing,
        "SELECT partition_router.pair_figures()",
    ),
    (
        "out_of_bounds()",
        Grant,
        Trigger,
        "SELECT partition_router.out_of_bounds()",
    ),
    (
        "place(regclass,name,boolean)",
        Grant,
        Owner,
        "CALL partition_router.place('o.m_2026_01', 'elsewhere')",
    ),
    (
        "place_dry_run(regclass,name)",
        Grant,
        Owner,
        "SELECT partition_router.place_dry_run('o.m_2026_01', 'elsewhere')",
    ),
    (
        "place_step(regclass,name)",
        Grant,
        Owner,
        "SELECT partition_router.place_step('o.m_2026_01', 'elsewhere')",
    ),
    (
        "plan(text,regclass)",
        Grant,
        Owner,
        "SELECT partition_router.plan('abandon', 'o.t')",
    ),
    (
        "preflight(regclass,name,text)",
        Grant,
        Owner,
        "SELECT partition_router.preflight('o.plain', 'at')",
    ),
    (
        "redefine_materialized_view(regclass,text)",
        Grant,
        Owner,
        "SELECT partition_router.redefine_materialized_view('o.kept', 'SELECT 2 AS one')",
    ),
    (
        "release(regclass)",
        Grant,
        Owner,
        "SELECT partition_router.release('o.m_2026_01')",
    ),
    (
        "repair(regclass,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.repair('o.t')",
    ),
    ("report()", Monitor, Nothing, "SELECT partition_router.report()"),
    (
        "reset_routing_stats()",
        Grant,
        Nothing,
        "SELECT partition_router.reset_routing_stats()",
    ),
    (
        "restore_archive(bigint)",
        Grant,
        Owner,
        "SELECT partition_router.restore_archive(1)",
    ),
    (
        "rollback(regclass,boolean)",
        Grant,
        Owner,
        "CALL partition_router.rollback('o.t')",
    ),
    (
        "route(regclass,text,boolean)",
        Everybody,
        Nothing,
        "SELECT partition_router.route('o.t')",
    ),
    (
        "routing_counts()",
        Monitor,
        Nothing,
        "SELECT partition_router.routing_counts()",
    ),
    (
        "run_maintenance(regclass,boolean,text)",
        Grant,
        Owner,
        "CALL partition_router.run_maintenance('o.m')",
    ),
    (
        "schedule_maintenance(text,text)",
        Grant,
        Nothing,
        "SELECT partition_router.schedule_maintenance()",
    ),
    (
        "set_policy(regclass,integer,interval,text,name,text,integer,integer,boolean,text,regprocedure,text,regclass)",
        Grant,
        Owner,
        "SELECT partition_router.set_policy('o.m', 4)",
    ),
    (
        "set_rollout(regclass,integer,text[],text[],name)",
        Grant,
        Nothing,
        "SELECT partition_router.set_rollout('o.t', 5)",
    ),
    (
        "start_sync(regclass)",
        Grant,
        Owner,
        "SELECT partition_router.start_sync('o.t')",
    ),
    (
        "switchover(regclass,boolean)",
        Grant,
        Owner,
        "CALL partition_router.switchover('o.t')",
    ),
    (
        "switchover_dry_run(regclass,text)",
        Grant,
        Owner,
        "SELECT partition_router.switchover_dry_run('o.t', 'switchover')",
    ),
    (
        "switchover_step(regclass,text,text)",
        Grant,
        Owner,
        "SELECT partition_router.switchover_step('o.t', 'switchover', 'SWAP')",
    ),
    ("sync()", Everybody, Trigger, "SELECT partition_router.sync()"),
    (
        "table_figures()",
        Monitor,
        Nothing,
        "SELECT partition_router.table_figures()",
    ),
    (
        "take_changes(integer,text)",
        Grant,
        Reader,
        "SELECT * FROM partition_router.take_changes()",
    ),
    (
        "unpartition(regclass,boolean,boolean)",
        Grant,
        Owner,
        "CALL partition_router.unpartition('o.m')",
    ),
    (
        "unpartition_step(regclass,text)",
        Grant,
        Owner,
        "SELECT partition_router.unpartition_step('o.m', 'PREPARE')",
    ),
    (
        "unschedule_maintenance()",
        Grant,
        Nothing,
        "SELECT partition_router.unschedule_maintenance()",
    ),
    (
        "verify(regclass,text,boolean)",
        Grant,
        Owner,
        "SELECT partition_router.verify('o.t')",
    ),
    (
        "verify_partitions()",
        Monitor,
        Nothing,
        "SELECT partition_router.verify_partitions()",
    ),
];
