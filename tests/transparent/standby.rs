//! Reads on a hot standby are routed as on its primary, take no transaction id, and go on after a promotion.

use crate::common::{Cluster, Database, one, run, sqlstate};
use crate::marked::{self, ROUTED, SIDE, side};
use postgres::{Client, NoTls};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits until the standby has replayed what the primary has written.
fn catch_up(primary: &mut Client, standby: &mut Client) {
    let written: String = one(primary, "SELECT pg_current_wal_lsn()::text");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
    let started = Instant::now();
    while !one::<bool>(standby, &replayed) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the standby never came to {written}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What changes something.
const WRITING: &[&str] = &[
    "CALL partition_router.migrate('other', 'at')",
    "SELECT partition_router.create_twin('other', 'at')",
    "SELECT partition_router.start_sync('revenues')",
    "CALL partition_router.backfill('revenues')",
    "SELECT partition_router.repair('revenues')",
    "SELECT partition_router.set_rollout('revenues', 0)",
    "CALL partition_router.switchover('revenues')",
    "CALL partition_router.rollback('revenues')",
    "CALL partition_router.cleanup('revenues')",
    "SELECT partition_router.abandon('revenues')",
    "SELECT partition_router.manage('other', '1 month')",
    "SELECT partition_router.set_policy('revenues', premake => 4)",
    "SELECT partition_router.create_partitions('revenues')",
    "SELECT partition_router.create_range_partition('revenues', 'p', '2030-01-01', '2030-02-01')",
    "SELECT partition_router.drop_partition('revenues_2026_01')",
    "CALL partition_router.run_maintenance()",
    "SELECT partition_router.hold('revenues_2026_01')",
    "SELECT partition_router.release('revenues_2026_01')",
    "SELECT partition_router.schedule_maintenance()",
    "SELECT partition_router.unschedule_maintenance()",
];

/// What only reads, and so works.
const READING: &[&str] = &[
    "SELECT partition_router.metrics()",
    "SELECT partition_router.verify_partitions()",
    "SELECT * FROM partition_router.status",
    "SELECT * FROM partition_router.health",
    "SELECT * FROM partition_router.partitions",
    "SELECT partition_router.verify('revenues')",
    "SELECT * FROM partition_router.mismatches('revenues')",
    "SELECT * FROM partition_router.compare_plans('SELECT count(*) FROM revenues')",
    "SELECT partition_router.plan('abandon', 'revenues')",
    "SELECT partition_router.reset_routing_stats()",
];

#[test]
fn a_hot_standby_routes_and_goes_on_after_promotion() {
    let settings = [
        "session_preload_libraries=partition_router",
        "shared_buffers=32MB",
    ];
    let server = Arc::new(Cluster::start(&settings));
    let database = Database::on(server.clone(), "standby");
    let mut owner = database.connect();
    run(&mut owner, marked::TABLE);
    run(
        &mut owner,
        &["CREATE TABLE other (id int PRIMARY KEY, at date NOT NULL)"],
    );
    marked::migrate(&mut owner);
    let standby = server.standby(&[]);
    let mut reader = standby
        .config("postgres", &database.name)
        .connect(NoTls)
        .expect("the standby takes a connection");
    catch_up(&mut owner, &mut reader);
    let c = &mut reader;
    assert!(one::<bool>(c, "SELECT pg_is_in_recovery()"));
    assert_eq!(side(c), "legacy");
    run(
        c,
        &[
            ROUTED,
            "PREPARE q(int) AS SELECT side FROM revenues WHERE id = $1",
        ],
    );
    for _ in 0..7 {
        assert_eq!(side(c), "twin");
        assert_eq!(one::<String>(c, "EXECUTE q(0)"), "twin");
    }
    let explained = "SELECT target::text || ' ' || reason FROM partition_router.explain_route('revenues')";
    assert_eq!(one::<String>(c, explained), "revenues_partitioned setting");
    assert_eq!(
        one::<String>(c, "SELECT partition_router.route('revenues')::text"),
        "revenues_partitioned"
    );
    let why = format!("SELECT count(*) FROM partition_router.explain_route_query($q${SIDE}$q$)");
    assert_eq!(one::<i64>(c, &why), 1);
    run(c, &["SELECT count(*) FROM partition_router.routing_stats"]);
    // A rollout that is changed on the primary reaches plans that are cached here.
    run(c, &["RESET partition_router.use_partitioned_tables"]);
    for (percent, wanted) in [(100, "twin"), (0, "legacy"), (100, "twin")] {
        run(
            &mut owner,
            &[&format!(
                "SELECT partition_router.set_rollout('revenues', {percent})"
            )],
        );
        catch_up(&mut owner, c);
        assert_eq!(side(c), wanted, "{percent} %");
        assert_eq!(one::<String>(c, "EXECUTE q(0)"), wanted, "{percent} %");
    }
    // So does a phase.
    run(&mut owner, &["SELECT partition_router.abandon('revenues')"]);
    catch_up(&mut owner, c);
    assert_eq!(one::<String>(c, "EXECUTE q(0)"), "legacy");
    marked::migrate(&mut owner);
    run(
        &mut owner,
        &["SELECT partition_router.set_rollout('revenues', 100)"],
    );
    catch_up(&mut owner, c);
    assert_eq!(one::<String>(c, "EXECUTE q(0)"), "twin");
    // A snapshot that is older than all that, on the standby too.
    run(c, &["BEGIN ISOLATION LEVEL REPEATABLE READ"]);
    assert_eq!(side(c), "twin");
    assert!(one::<bool>(c, "SELECT pg_current_xact_id_if_assigned() IS NULL"));
    run(c, &["COMMIT"]);
    for call in WRITING {
        assert_eq!(sqlstate(c, call), "25006", "{call}");
    }
    for call in READING {
        run(c, &[call]);
    }

    assert!(one::<bool>(c, "SELECT pg_promote()"));
    assert!(!one::<bool>(c, "SELECT pg_is_in_recovery()"));
    assert_eq!(one::<String>(c, "EXECUTE q(0)"), "twin");
    // It is a server like any other: writes are carried, and a rollout may be changed.
    run(
        c,
        &[
            "INSERT INTO revenues VALUES (1000, 'org-1', '2026-02-02', 1, 'new')",
            "SELECT partition_router.set_rollout('revenues', 0)",
        ],
    );
    assert_eq!(one::<String>(c, "EXECUTE q(0)"), "legacy");
    assert_eq!(
        one::<String>(c, "SELECT side FROM revenues_partitioned WHERE id = 1000"),
        "new"
    );
    assert_eq!(side(&mut owner), "legacy");
}

#[test]
fn a_routed_read_takes_no_transaction_id() {
    let (_database, mut session) = marked::marked("no_xid");
    run(&mut session, &[ROUTED, "BEGIN"]);
    assert_eq!(side(&mut session), "twin");
    run(
        &mut session,
        &[
            "SELECT count(*) FROM revenues r JOIN revenues q USING (id)",
            "SELECT * FROM partition_router.explain_route('revenues')",
        ],
    );
    assert!(one::<bool>(
        &mut session,
        "SELECT pg_current_xact_id_if_assigned() IS NULL"
    ));
    run(&mut session, &["COMMIT"]);
    run(&mut session, &["BEGIN READ ONLY"]);
    assert_eq!(side(&mut session), "twin");
    run(&mut session, &["COMMIT"]);
}
