//! Every function and procedure on a streaming standby, and in a read-only transaction: what reads answers, what writes says
//! 25006 and where to call it instead.

use super::calls::CALLS;
use super::common::{Cluster, Database, one, run, texts};
use super::rights::world_on;
use postgres::{Client, NoTls};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// What only reads. A call that is not here changes something.
const READING: &[&str] = &[
    "advise",
    "calls_at_work",
    "chart",
    "compare_plans",
    "dismiss_workers",
    "explain_route",
    "explain_route_query",
    "health_checks",
    "is_replication_worker",
    "maintenance_dry_run",
    "maintenance_let_go",
    "maintenance_unanalyzed",
    "metrics",
    "migrate_check",
    "mismatches",
    "openmetrics",
    "pair_figures",
    "plan",
    "preflight",
    "report",
    "reset_routing_stats",
    "route",
    "routing_counts",
    "switchover_dry_run",
    "table_figures",
    "verify",
    "verify_partitions",
];

/// What is called by the server alone, as a trigger.
const TRIGGERS: &[&str] = &["carry_ddl", "change_feed", "log_key", "out_of_bounds", "sync"];

/// What reads, too, and answers with an error here as on any server: the phase is another, there is no pg_partman, no such server.
const ANSWERING: &[(&str, &str)] = &[
    ("cleanup_dry_run", "PR012"),
    ("import_partman", "22023"),
    ("place_dry_run", "PR023"),
];

/// The SQLSTATE, DETAIL and HINT of a call; `00000` when it succeeds.
fn said(client: &mut Client, call: &str) -> [String; 3] {
    match client.batch_execute(call) {
        Ok(()) => ["00000".into(), String::new(), String::new()],
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{call}: {error}"));
            [
                error.code().code().to_string(),
                error.detail().unwrap_or_default().to_string(),
                error.hint().unwrap_or_default().to_string(),
            ]
        }
    }
}

/// What each call should say, and does not. `tell` is the HINT of those that change something.
fn wrong(client: &mut Client, tell: &str) -> Vec<String> {
    let mut wrong = vec![];
    for (signature, _, _, call) in CALLS {
        let name = signature.split('(').next().expect("a name");
        let answer = ANSWERING.iter().find(|(answering, _)| *answering == name);
        let expected = if let Some((_, code)) = answer {
            code
        } else if READING.contains(&name) {
            "00000"
        } else if TRIGGERS.contains(&name) {
            "0A000"
        } else {
            "25006"
        };
        let [code, detail, hint] = said(client, call);
        let is_told = code != "25006" || hint.contains(tell);
        if code != expected || !is_told {
            wrong.push(format!("{call}: {code}, not {expected}; {detail} {hint}"));
        }
    }
    wrong
}

#[test]
fn every_call_on_a_standby_answers_or_says_where_the_primary_is() {
    let server = Arc::new(Cluster::start(&["shared_buffers=32MB"]));
    let (database, mut client) = world_on(Database::on(Arc::clone(&server), "on_standby"));
    let standby = server.standby(&[]);
    let mut session = standby.connect(&database.name);
    let written: String = one(&mut client, "SELECT pg_current_wal_lsn()::text");
    let started = Instant::now();
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
    while !one::<bool>(&mut session, &replayed) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the standby never caught up"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let primary = format!("{}:5432", server.socket());
    let found = wrong(&mut session, &format!("Call it on the primary, {primary}"));
    assert!(found.is_empty(), "{found:#?}");
    let [_, detail, _] = said(&mut session, "SELECT partition_router.repair('o.t')");
    assert!(detail.contains(&format!("follows {primary}")), "{detail}");
    // A dry run only reads, and a proof is a proof: here it cannot be recorded.
    for dry_run in [
        "SELECT partition_router.abandon('o.t', true)",
        "SELECT partition_router.repair('o.t', true)",
        "CALL partition_router.switchover('o.t', true)",
        "CALL partition_router.run_maintenance('o.m', true)",
        "SELECT partition_router.create_twin('o.plain', 'at', dry_run => true)",
        "CALL partition_router.migrate('o.plain', 'at', dry_run => true)",
        "SELECT partition_router.drop_partition('o.m_2026_01', true)",
    ] {
        assert_eq!(said(&mut session, dry_run)[0], "00000", "{dry_run}");
    }
    let events = "SELECT count(*) FROM partition_router.run_log WHERE operation = 'verify'";
    let before: i64 = one(&mut session, events);
    let (sender, notices) = channel();
    let mut config = standby.config("postgres", &database.name);
    config.notice_callback(move |notice| {
        sender
            .send(notice.message().to_string())
            .expect("the test listens")
    });
    let mut hearing = config.connect(NoTls).expect("the standby takes a connection");
    let equal = "SELECT bool_and(matches) FROM partition_router.verify('o.t', 'rows', true)";
    assert!(one::<bool>(&mut hearing, equal));
    let heard: Vec<String> = notices.try_iter().collect();
    assert!(
        heard.iter().any(|notice| notice.contains("not recorded")),
        "{heard:?}"
    );
    assert_eq!(one::<i64>(&mut session, events), before);
    let views = texts(
        &mut session,
        "SELECT viewname FROM pg_views WHERE schemaname = 'partition_router'",
    );
    assert!(views.len() >= 16, "{views:?}");
    for view in views {
        run(&mut session, &[&format!("SELECT * FROM partition_router.{view}")]);
    }
}

#[test]
fn every_call_in_a_read_only_transaction_answers_or_says_so() {
    let (_database, mut client) = world_on(Database::new("read_only"));
    run(&mut client, &["SET default_transaction_read_only = on"]);
    let found = wrong(&mut client, "in a transaction that may write");
    assert!(found.is_empty(), "{found:#?}");
}
