//! Who may call what. Every function and procedure has its line here: one that has none fails the test.

use crate::common::{Database, one, run, texts};
use postgres::Client;
use std::collections::BTreeMap;

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
    /// Nothing: it tells no row of a table, changes what belongs to the session, or, as `set_rollout()`, chooses between equal
    /// sides for whom EXECUTE was given for just that.
    Nothing,
    /// To be a trigger.
    Trigger,
}
use Asks::{Nothing, Owner, Trigger};
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
        Nothing,
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
        Nothing,
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

const ROLES: [&str; 5] = ["superuser", "owner", "writer", "monitor", "stranger"];

/// A live pair, a managed table and some more, all of `right_owner`.
fn world(test: &str) -> (Database, Client) {
    world_on(Database::new(test))
}

/// The same in a database that there is.
pub fn world_on(database: Database) -> (Database, Client) {
    let mut client = database.connect();
    for role in ROLES {
        let attribute = if role == "superuser" { "SUPERUSER" } else { "" };
        let name = role_name(role);
        run(
            &mut client,
            &[&format!(
                "DO $$BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name} LOGIN {attribute}; END IF; END$$"
            )],
        );
    }
    run(
        &mut client,
        &[
            "GRANT pg_monitor TO right_monitor",
            "CREATE SCHEMA o AUTHORIZATION right_owner",
            "SET ROLE right_owner",
            "CREATE TABLE o.t (id int PRIMARY KEY, at date NOT NULL, n int)",
            "CREATE TABLE o.plain (id int PRIMARY KEY, at date NOT NULL)",
            "CREATE TABLE o.m (at date) PARTITION BY RANGE (at)",
            "CREATE TABLE o.m_2026_01 PARTITION OF o.m FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
            "CREATE TABLE o.free (at date) PARTITION BY RANGE (at)",
            "CREATE MATERIALIZED VIEW o.kept AS SELECT 1 AS one",
            "GRANT USAGE ON SCHEMA o TO PUBLIC",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA o TO right_writer",
            "RESET ROLE",
            "CALL partition_router.migrate('o.t', 'at')",
            "SELECT partition_router.manage('o.m', '1 month')",
        ],
    );
    (database, client)
}

fn role_name(role: &str) -> String {
    format!("right_{role}")
}

fn has_execute(role: &str, by: By) -> bool {
    match by {
        Grant => role == "superuser",
        Monitor => ["superuser", "monitor"].contains(&role),
        Everybody => true,
    }
}

/// The SQLSTATE of a call that leaves nothing behind where it can be rolled back; of one that succeeds, `00000`.
fn outcome(client: &mut Client, call: &str, in_transaction: bool) -> String {
    let result = if in_transaction {
        run(client, &["BEGIN"]);
        let result = client.batch_execute(call);
        run(client, &["ROLLBACK"]);
        result
    } else {
        client.batch_execute(call)
    };
    match result {
        Ok(()) => "00000".into(),
        Err(error) => match error.as_db_error() {
            Some(error) => error.code().code().to_string(),
            None => panic!("{call}: {error}"),
        },
    }
}

#[test]
fn every_function_has_its_line_and_every_role_the_rights_of_that_line() {
    let (database, mut client) = world("rights_table");
    let mut lines: BTreeMap<&str, (By, Asks, &str)> = BTreeMap::new();
    for (signature, by, asks, call) in CALLS {
        assert!(
            lines.insert(signature, (*by, *asks, call)).is_none(),
            "{signature} has two lines"
        );
    }
    let functions = texts(
        &mut client,
        "SELECT substr(oid::regprocedure::text, length('partition_router.') + 1) FROM pg_proc
         WHERE pronamespace = 'partition_router'::regnamespace ORDER BY 1",
    );
    let unknown: Vec<_> = functions
        .iter()
        .filter(|f| !lines.contains_key(f.as_str()))
        .collect();
    assert!(unknown.is_empty(), "these functions have no line: {unknown:#?}");
    let gone: Vec<_> = lines
        .keys()
        .filter(|l| !functions.iter().any(|f| f == *l))
        .collect();
    assert!(gone.is_empty(), "these lines have no function: {gone:#?}");
    for role in ROLES {
        let name = role_name(role);
        let mut session = database.connect_as(&name);
        for (signature, (by, asks, call)) in &lines {
            let may =
                format!("SELECT has_function_privilege('{name}', 'partition_router.{signature}', 'EXECUTE')");
            assert_eq!(
                one::<bool>(&mut client, &may),
                has_execute(role, *by),
                "{role}: {signature}"
            );
            if !has_execute(role, *by) {
                assert_eq!(outcome(&mut session, call, false), "42501", "{role}: {call}");
            } else if role != "superuser" {
                let got = outcome(&mut session, call, true);
                let expected = if *asks == Trigger { "0A000" } else { "00000" };
                assert_eq!(got, expected, "{role}: {call}");
            }
        }
    }
}

#[test]
fn execute_alone_opens_no_table_of_somebody_else() {
    let (database, mut client) = world("rights_granted");
    run(
        &mut client,
        &[
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO right_owner, right_writer, right_monitor, right_stranger",
        ],
    );
    let mut wrong = vec![];
    for role in ["writer", "monitor", "stranger", "owner"] {
        let mut session = database.connect_as(&role_name(role));
        for (_, _, asks, call) in CALLS {
            // What is refused can be called as it is; what is not must leave the others something to call.
            let refused = role != "owner" && *asks == Owner;
            let got = outcome(&mut session, call, !refused);
            let is_right = match asks {
                Owner if refused => got == "42501",
                Trigger => got == "0A000",
                _ => got != "42501",
            };
            if !is_right || got.starts_with("XX") {
                wrong.push(format!("{role}: {call}: {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Nobody reads the extension's own tables, but for the one that is a view of the reference and has no rows of a user.
    for role in ["owner", "writer", "monitor", "stranger"] {
        let mut session = database.connect_as(&role_name(role));
        for table in texts(
            &mut client,
            "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'partition_router'::regnamespace AND relkind IN ('r', 'S') AND relname <> 'archives'",
        ) {
            assert_eq!(
                outcome(&mut session, &format!("SELECT * FROM {table}"), false),
                "42501",
                "{role}: {table}"
            );
        }
    }
}
