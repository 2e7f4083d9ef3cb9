//! Calls that come too early, from the wrong role, or for a relation that is not there.

use super::common::{Cluster, Database, cluster_sh, one, run};
use super::{TABLES, all_refused, refused};
use postgres::Client;
use std::process::Command;
use std::sync::Arc;

#[test]
fn each_call_in_the_wrong_phase_names_the_phase_and_the_call_that_leads_on() {
    let database = Database::new("phases");
    let mut client = database.connect();
    run(&mut client, TABLES);
    let calls = [
        "SELECT partition_router.start_sync('s.t')",
        "CALL partition_router.backfill('s.t')",
        "SELECT partition_router.verify('s.t')",
        "SELECT partition_router.repair('s.t')",
    ];
    let wrong = |client: &mut Client, phase: &str, next: &str, calls: &[&str]| {
        for call in calls {
            let error = refused(client, call);
            assert_eq!(error.code().code(), "PR012", "{call}: {error:?}");
            assert!(
                error.message().ends_with(&format!("in phase \"{phase}\"")),
                "{error:?}"
            );
            assert_eq!(error.hint(), Some(format!("Call {next}.").as_str()), "{call}");
        }
    };
    for call in calls {
        assert_eq!(refused(&mut client, call).code().code(), "PR011", "{call}");
    }
    run(&mut client, &["SELECT partition_router.create_twin('s.t', 'at')"]);
    wrong(
        &mut client,
        "prepared",
        "partition_router.start_sync()",
        &calls[1..],
    );
    run(&mut client, &[calls[0]]);
    wrong(
        &mut client,
        "copying",
        "partition_router.backfill()",
        &[calls[0], calls[2], calls[3]],
    );
    run(&mut client, &[calls[1]]);
    wrong(&mut client, "live", "partition_router.switchover()", &calls[..1]);
}

#[test]
fn a_table_in_a_pair_is_not_migrated_again() {
    let database = Database::new("again");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &["SELECT partition_router.create_twin('s.t', 'at')"]);
    let error = refused(&mut client, "SELECT partition_router.create_twin('s.t', 'at')");
    assert_eq!(error.code().code(), "PR010");
    assert!(
        error.hint().is_some_and(|h| h.contains("start_sync")),
        "{error:?}"
    );
    run(&mut client, &["CALL partition_router.migrate('s.t', 'at')"]);
    all_refused(
        &mut client,
        &[
            ("CALL partition_router.migrate('s.t', 'at')", "PR010"),
            ("CALL partition_router.migrate('s.t_partitioned', 'at')", "PR010"),
            ("CALL partition_router.migrate('s.t_2025_01', 'at')", "PR010"),
            (
                "CALL partition_router.migrate('s.t', 'at', dry_run => true)",
                "PR010",
            ),
            ("SELECT partition_router.create_twin('s.t', 'at')", "PR010"),
        ],
    );
}

#[test]
fn relations_without_a_pair_or_without_existence_are_refused() {
    let database = Database::new("unknown");
    let mut client = database.connect();
    run(
        &mut client,
        &["CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL)"],
    );
    for (relation, sqlstate) in [
        ("'t'", "PR011"),
        ("'pg_class'", "PR011"),
        ("4000000000::oid", "42P01"),
    ] {
        for call in [
            "start_sync(@)",
            "verify(@)",
            "mismatches(@)",
            "repair(@)",
            "set_rollout(@, 5)",
            "abandon(@)",
            "plan('abandon', @)",
        ] {
            let statement = format!("SELECT partition_router.{}", call.replace('@', relation));
            assert_eq!(
                refused(&mut client, &statement).code().code(),
                sqlstate,
                "{statement}"
            );
        }
        let statement = format!("CALL partition_router.backfill({relation})");
        assert_eq!(
            refused(&mut client, &statement).code().code(),
            sqlstate,
            "{statement}"
        );
    }
    all_refused(
        &mut client,
        &[
            ("CALL partition_router.migrate(4000000000::oid, 'at')", "42P01"),
            (
                "SELECT partition_router.preflight(4000000000::oid, 'at')",
                "42P01",
            ),
        ],
    );
}

#[test]
fn who_does_not_own_the_table_is_refused_even_with_every_grant_but_for_the_rollout() {
    let database = Database::new("owner");
    let mut client = database.connect();
    run(&mut client, TABLES);
    let role = format!("stranger_{}", std::process::id());
    run(
        &mut client,
        &[
            "CREATE TABLE s.p (id int PRIMARY KEY, at date NOT NULL)",
            "CALL partition_router.migrate('s.p', 'at')",
            &format!("CREATE ROLE {role} LOGIN"),
            &format!("GRANT ALL ON SCHEMA s TO {role}"),
            &format!("GRANT ALL ON ALL TABLES IN SCHEMA s TO {role}"),
            &format!("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO {role}"),
        ],
    );
    for statement in [
        "CALL partition_router.migrate('s.t', 'at')",
        "CALL partition_router.migrate('s.t', 'at', dry_run => true)",
        "SELECT partition_router.create_twin('s.t', 'at')",
        "SELECT partition_router.preflight('s.t', 'at')",
        "SELECT partition_router.start_sync('s.p')",
        "CALL partition_router.backfill('s.p')",
        "SELECT partition_router.verify('s.p')",
        "SELECT partition_router.mismatches('s.p')",
        "SELECT partition_router.repair('s.p')",
        "SELECT partition_router.repair('s.p', true)",
        "CALL partition_router.switchover('s.p')",
        "CALL partition_router.switchover('s.p', true)",
        "CALL partition_router.rollback('s.p')",
        "CALL partition_router.cleanup('s.p')",
        "SELECT partition_router.set_policy('s.p', premake => 4)",
        "SELECT partition_router.create_partitions('s.p')",
        "SELECT partition_router.drop_partition('s.p_default')",
        "SELECT partition_router.hold('s.p_default')",
        "SELECT partition_router.release('s.p_default')",
        "SELECT partition_router.abandon('s.p')",
        "SELECT partition_router.abandon('s.p', true)",
        "SELECT partition_router.plan('abandon', 's.p')",
    ] {
        run(&mut client, &[&format!("SET SESSION AUTHORIZATION {role}")]);
        let error = client.batch_execute(statement).expect_err(statement);
        run(&mut client, &["RESET SESSION AUTHORIZATION"]);
        let error = error.as_db_error().expect("the server answered").clone();
        assert_eq!(error.code().code(), "42501", "{statement}: {error:?}");
        assert!(
            error.message().starts_with("must be owner"),
            "{statement}: {error:?}"
        );
        assert_eq!(error.hint(), Some("Run the call as the table's owner."));
        assert_eq!(
            refused(&mut client, "SELECT partition_router.start_sync('s.p')")
                .code()
                .code(),
            "PR012"
        );
    }
    run(
        &mut client,
        &[&format!("DROP OWNED BY {role}"), &format!("DROP ROLE {role}")],
    );
}

#[test]
fn a_rust_backtrace_never_reaches_the_client() {
    let cluster = Cluster::start(&[]);
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster.sh");
    cluster_sh(&["stop", cluster.directory()]);
    let status = Command::new(script)
        .args(["start", cluster.directory()])
        .env("RUST_BACKTRACE", "1")
        .env_remove("RUST_LIB_BACKTRACE")
        .stdout(std::process::Stdio::null())
        .status()
        .expect("cluster.sh runs");
    assert!(status.success());
    let database = Database::on(Arc::new(cluster), "backtrace");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TEMP TABLE variable (value text)",
            "COPY variable FROM PROGRAM 'echo $RUST_BACKTRACE'",
        ],
    );
    assert_eq!(one::<String>(&mut client, "SELECT value FROM variable"), "1");
    run(&mut client, TABLES);
    for statement in [
        "CALL partition_router.migrate('s.t', 'nope')",
        "CALL partition_router.migrate('s.t', 'at', partition_interval => 'banana')",
        "SELECT partition_router.verify('s.t')",
    ] {
        let error = refused(&mut client, statement);
        assert!(
            !error.detail().unwrap_or_default().contains("Backtrace"),
            "{error:?}"
        );
        assert!(!error.detail().unwrap_or_default().contains('\n'), "{error:?}");
    }
    // An error of the server's own that goes through Rust frames.
    run(
        &mut client,
        &[
            "CALL partition_router.migrate('s.t', 'at')",
            "CREATE VIEW v AS SELECT * FROM s.t_partitioned",
        ],
    );
    let error = client
        .batch_execute("SELECT partition_router.abandon('s.t')")
        .expect_err("the view is in the way");
    let error = error.as_db_error().expect("the server answered");
    assert_eq!(error.code().code(), "2BP01");
    assert_eq!(
        error.detail(),
        Some("view public.v depends on table s.t_partitioned")
    );
}
