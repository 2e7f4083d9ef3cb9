//! `route`, `explain_route` and `set_rollout`: which side, and why.

use crate::common::{Database, migrated_revenues, one, plant, run, sqlstate};
use postgres::Client;

const TABLES: &[&str] = &[
    "CREATE TABLE revenues (id serial PRIMARY KEY, org text, at timestamp NOT NULL)",
    "INSERT INTO revenues (org, at) SELECT g, timestamp '2026-01-01' + g * interval '1 hour' FROM generate_series(1, 500) g",
];

fn live(name: &str) -> (Database, Client) {
    migrated_revenues(name, TABLES)
}

/// `target reason` of a decision.
fn explain(client: &mut Client, arguments: &str) -> String {
    let query =
        format!("SELECT target::text || ' ' || reason FROM partition_router.explain_route({arguments})");
    let explained: String = one(client, &query);
    let routed: String = one(
        client,
        &format!("SELECT partition_router.route({arguments})::text"),
    );
    assert_eq!(
        explained.split(' ').next(),
        Some(routed.as_str()),
        "route and explain_route agree"
    );
    explained
}

#[test]
fn every_reason_in_its_order() {
    let (_database, mut client) = live("reasons");
    let c = &mut client;
    assert_eq!(explain(c, "'revenues'"), "revenues default");
    assert_eq!(explain(c, "'revenues_partitioned'"), "revenues default");
    assert_eq!(explain(c, "'revenues_2026_01'"), "revenues default");
    run(c, &["SET partition_router.use_partitioned_tables = on"]);
    assert_eq!(explain(c, "'revenues'"), "revenues_partitioned setting");
    // Bucket 41 is that of 4711.
    run(c, &["SELECT partition_router.set_rollout('revenues', 42)"]);
    assert_eq!(
        explain(c, "'revenues', '4711'"),
        "revenues_partitioned in the first 42 %"
    );
    assert_eq!(explain(c, "'revenues', '42'"), "revenues_partitioned setting");
    run(c, &["RESET partition_router.use_partitioned_tables"]);
    assert_eq!(explain(c, "'revenues', '42'"), "revenues default");
    assert_eq!(explain(c, "'revenues'"), "revenues default");
    run(
        c,
        &["SELECT partition_router.set_rollout('revenues', pilots => ARRAY['4711', 'p'])"],
    );
    assert_eq!(explain(c, "'revenues', '4711'"), "revenues_partitioned pilot");
    run(
        c,
        &["SELECT partition_router.set_rollout('revenues', excluded => ARRAY['4711'])"],
    );
    assert_eq!(explain(c, "'revenues', '4711'"), "revenues excluded");
    assert_eq!(explain(c, "'revenues', 'p'"), "revenues_partitioned pilot");
    let asked = "SELECT partition_router.route('revenues', '4711', true)::text";
    assert_eq!(one::<String>(c, asked), "revenues_partitioned");
    run(c, &["SET partition_router.use_partitioned_tables = on"]);
    assert_eq!(explain(c, "'revenues', '4711'"), "revenues excluded");
    let refused = "SELECT partition_router.route('revenues', 'p', false)::text";
    assert_eq!(one::<String>(c, refused), "revenues");
    run(c, &["SET partition_router.enable_partition_routing = off"]);
    assert_eq!(explain(c, "'revenues', 'p'"), "revenues kill switch");
    assert_eq!(one::<String>(c, asked), "revenues");
}

#[test]
fn before_it_is_live_and_proven_the_twin_is_not_read() {
    let database = Database::new("early");
    let mut client = database.connect();
    run(&mut client, TABLES);
    let c = &mut client;
    run(c, &["SET partition_router.use_partitioned_tables = on"]);
    assert_eq!(explain(c, "'revenues'"), "revenues not in a pair");
    run(c, &["SELECT partition_router.create_twin('revenues', 'at')"]);
    assert_eq!(explain(c, "'revenues'"), "revenues phase is prepared");
    run(
        c,
        &[
            "SELECT partition_router.start_sync('revenues')",
            "SELECT partition_router.set_rollout('revenues', 100)",
        ],
    );
    assert_eq!(explain(c, "'revenues'"), "revenues phase is copying");
    run(c, &["CALL partition_router.backfill('revenues')"]);
    assert_eq!(explain(c, "'revenues'"), "revenues not proven equal");
    let asked = "SELECT partition_router.route('revenues', NULL, true)::text";
    assert_eq!(one::<String>(c, asked), "revenues");
    run(c, &["SELECT partition_router.verify('revenues', 'counts')"]);
    assert_eq!(one::<String>(c, asked), "revenues_partitioned");
}

#[test]
fn after_a_verify_that_failed_the_twin_is_not_read() {
    let (_database, mut client) = live("failed");
    let c = &mut client;
    run(c, &["SET partition_router.use_partitioned_tables = on"]);
    assert_eq!(explain(c, "'revenues'"), "revenues_partitioned setting");
    plant(c, "revenues", &["DELETE FROM revenues WHERE id = 1"]);
    run(c, &["SELECT partition_router.verify('revenues')"]);
    let refused: String = one(
        c,
        "SELECT to_char(refuted_at AT TIME ZONE 'UTC', '\"revenues not proven equal since \"YYYY-MM-DD HH24:MI')
         FROM partition_router.pair",
    );
    assert_eq!(explain(c, "'revenues'"), refused);
    run(c, &["SELECT partition_router.repair('revenues')"]);
    assert_eq!(explain(c, "'revenues'"), refused);
    run(c, &["SELECT partition_router.verify('revenues')"]);
    assert_eq!(explain(c, "'revenues'"), "revenues_partitioned setting");
}

#[test]
fn a_snapshot_older_than_live_reads_the_legacy() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = Database::new("snapshot");
        let (mut client, mut old) = (database.connect(), database.connect());
        run(&mut client, TABLES);
        run(
            &mut old,
            &[
                "SET partition_router.use_partitioned_tables = on",
                &format!("BEGIN ISOLATION LEVEL {level}"),
                "SELECT count(*) FROM pg_class",
            ],
        );
        run(&mut client, &["CALL partition_router.migrate('revenues', 'at')"]);
        let routed: String = one(&mut old, "SELECT partition_router.route('revenues')::text");
        assert_eq!(routed, "revenues", "{level}");
        let asked: String = one(
            &mut old,
            "SELECT partition_router.route('revenues', NULL, true)::text",
        );
        assert_eq!(asked, "revenues", "{level}");
        run(&mut old, &["COMMIT"]);
        assert_eq!(explain(&mut old, "'revenues'"), "revenues_partitioned setting");
    }
}

#[test]
fn a_share_of_tenants_is_stable_and_only_ever_grows() {
    let (_database, mut client) = live("share");
    let c = &mut client;
    let mut before: Vec<String> = vec![];
    for percent in [0, 1, 10, 42, 99, 100] {
        run(
            c,
            &[&format!(
                "SELECT partition_router.set_rollout('revenues', {percent})"
            )],
        );
        let now: Vec<String> = c
            .query(
                "SELECT org FROM revenues WHERE partition_router.route('revenues', org) <> 'revenues'::regclass ORDER BY 1",
                &[],
            )
            .expect("a list of tenants")
            .into_iter()
            .map(|row| row.get(0))
            .collect();
        assert!(before.iter().all(|t| now.contains(t)), "{percent}");
        let expected = percent as f64 * 5.0;
        assert!(
            (now.len() as f64 - expected).abs() < 40.0,
            "{percent}: {}",
            now.len()
        );
        before = now;
    }
    assert_eq!(before.len(), 500);
    assert_eq!(
        explain(c, "'revenues'"),
        "revenues_partitioned in the first 100 %"
    );
}

#[test]
fn set_rollout_keeps_what_is_null_and_is_logged() {
    let (_database, mut client) = live("rollout");
    let c = &mut client;
    run(
        c,
        &[
            "SELECT partition_router.set_rollout('revenues', 25, ARRAY['a', NULL, 'b'], ARRAY['x'])",
            "SELECT partition_router.set_rollout('revenues_partitioned', percent => 30)",
            "SELECT partition_router.set_rollout('revenues', excluded => '{}')",
        ],
    );
    let state: String = one(
        c,
        "SELECT concat_ws(' ', rollout_percent, pilots, excluded) FROM partition_router.status",
    );
    assert_eq!(state, "30 {a,b} {}");
    let logged = "SELECT count(*) FROM partition_router.run_log WHERE operation = 'set_rollout'";
    assert_eq!(one::<i64>(c, logged), 3);
}

#[test]
fn the_tenant_of_a_transaction_counts_where_a_call_names_none() {
    let (_database, mut client) = live("tenant");
    let c = &mut client;
    run(
        c,
        &["SELECT partition_router.set_rollout('revenues', pilots => ARRAY['o''brien'])"],
    );
    run(c, &["BEGIN", "SET LOCAL partition_router.tenant = 'o''brien'"]);
    assert_eq!(explain(c, "'revenues'"), "revenues_partitioned pilot");
    assert_eq!(explain(c, "'revenues', 'other'"), "revenues default");
    run(c, &["COMMIT"]);
    assert_eq!(explain(c, "'revenues'"), "revenues default");
    run(
        c,
        &["BEGIN", "SET LOCAL partition_router.use_partitioned_tables = on"],
    );
    assert_eq!(explain(c, "'revenues'"), "revenues_partitioned setting");
    run(c, &["ROLLBACK"]);
    assert_eq!(explain(c, "'revenues'"), "revenues default");
}

#[test]
fn null_and_strangers_are_routed_to_themselves() {
    let (_database, mut client) = live("strangers");
    let c = &mut client;
    assert_eq!(
        one::<Option<u32>>(c, "SELECT partition_router.route(NULL)::oid"),
        None
    );
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM partition_router.explain_route(NULL)"),
        0
    );
    assert_eq!(explain(c, "'pg_class'"), "pg_class not in a pair");
    assert_eq!(explain(c, "'revenues_id_seq'"), "revenues_id_seq not in a pair");
    assert_eq!(explain(c, "'revenues', ''"), "revenues default");
}

#[test]
fn a_decision_is_one_line_in_the_log() {
    let (database, mut client) = live("log");
    let c = &mut client;
    let marker = format!("marker_{}", database.name);
    run(
        c,
        &[
            &format!("SET application_name = '{marker}'"),
            "SELECT partition_router.route('revenues')",
            "SET partition_router.log_partition_routing = on",
            "SELECT partition_router.route('revenues')",
            "SET partition_router.use_partitioned_tables = on",
            "SELECT partition_router.route('revenues')",
        ],
    );
    let log = std::fs::read_to_string(format!("{}/log", database.cluster.directory())).expect("the log");
    let lines: Vec<_> = log
        .lines()
        .filter(|l| l.contains(&marker))
        .filter_map(|l| l.split_once("LOG:  ").map(|(_, m)| m.to_string()))
        .collect();
    assert_eq!(
        lines,
        [
            "[PartitionRouting] SELECT - revenues -> revenues",
            "[PartitionRouting] SELECT - revenues -> revenues_partitioned"
        ]
    );
}

#[test]
fn who_may_change_a_rollout_is_a_grant() {
    let (database, mut client) = live("grant");
    let [owner, operator, nobody] =
        ["owner", "operator", "nobody"].map(|role| format!("{role}_{}", database.name));
    let c = &mut client;
    for role in [&owner, &operator, &nobody] {
        run(c, &[&format!("CREATE ROLE {role} LOGIN")]);
    }
    let function = "FUNCTION partition_router.set_rollout(regclass, int, text[], text[], name)";
    run(
        c,
        &[
            &format!("ALTER TABLE revenues OWNER TO {owner}"),
            &format!("ALTER TABLE revenues_partitioned OWNER TO {owner}"),
            &format!("GRANT EXECUTE ON {function} TO {operator}"),
        ],
    );
    let change = |percent: u32| format!("SELECT partition_router.set_rollout('revenues', {percent})");
    let now = |c: &mut Client| explain(c, "'revenues'");
    // Neither to be the owner nor to be anybody else is a grant.
    for role in [&owner, &nobody] {
        let mut session = database.connect_as(role);
        assert_eq!(sqlstate(&mut session, &change(100)), "42501", "{role}");
        assert_eq!(now(&mut session), "revenues default");
    }
    let mut session = database.connect_as(&operator);
    run(&mut session, &[&change(100)]);
    assert_eq!(now(c), "revenues_partitioned in the first 100 %");
    run(
        &mut session,
        &["SELECT partition_router.set_rollout('revenues', pilots => '{a}', tenant_column => 'org')"],
    );
    // The grant is of this call alone.
    for denied in [
        "UPDATE partition_router.rollout SET percent = 0",
        "UPDATE partition_router.pair SET rollout_version = 0",
        "SELECT * FROM revenues",
        "SELECT * FROM revenues_partitioned",
        "SELECT partition_router.abandon('revenues')",
        "SELECT partition_router.verify('revenues')",
    ] {
        assert_eq!(sqlstate(&mut session, denied), "42501", "{denied}");
    }
    assert_eq!(
        one::<String>(
            c,
            "SELECT changed_by::text FROM partition_router.rollout WHERE percent = 100"
        ),
        operator
    );
    run(c, &[&format!("REVOKE EXECUTE ON {function} FROM {operator}")]);
    assert_eq!(sqlstate(&mut session, &change(0)), "42501");
    drop(session);
    run(
        c,
        &[
            "SELECT partition_router.abandon('revenues')",
            &format!("DROP OWNED BY {owner}, {operator}, {nobody}"),
            &format!("DROP ROLE {owner}, {operator}, {nobody}"),
        ],
    );
}

#[test]
fn anybody_may_ask_and_only_who_was_given_the_right_may_change() {
    let (database, mut client) = live("rights");
    let role = format!("nobody_{}", database.name);
    run(
        &mut client,
        &[
            &format!("CREATE ROLE {role} LOGIN"),
            "SELECT partition_router.set_rollout('revenues', 100)",
        ],
    );
    let mut nobody = database.connect_as(&role);
    assert_eq!(
        explain(&mut nobody, "'revenues'"),
        "revenues_partitioned in the first 100 %"
    );
    for change in [
        "SELECT partition_router.set_rollout('revenues', 0)",
        "SELECT partition_router.verify('revenues')",
        "UPDATE partition_router.rollout SET percent = 0",
        "SELECT * FROM partition_router.pair",
        "SELECT * FROM revenues_partitioned",
    ] {
        assert_eq!(sqlstate(&mut nobody, change), "42501", "{change}");
    }
    drop(nobody);
    run(&mut client, &[&format!("DROP ROLE {role}")]);
}

#[test]
fn routing_reads_in_a_read_only_transaction_and_assigns_no_transaction_id() {
    let (_database, mut client) = live("read_only");
    let c = &mut client;
    run(
        c,
        &[
            "BEGIN READ ONLY",
            "SELECT partition_router.route('revenues', 'a')",
        ],
    );
    assert!(one::<bool>(c, "SELECT pg_current_xact_id_if_assigned() IS NULL"));
    run(c, &["COMMIT"]);
}

#[test]
fn the_settings_have_the_defaults_of_the_design() {
    let (_database, mut client) = live("settings");
    let settings: Vec<String> = client
        .query(
            "SELECT concat_ws(' ', name, setting, unit, context, vartype) FROM pg_settings
             WHERE name LIKE 'partition_router.%' ORDER BY name",
            &[],
        )
        .expect("settings")
        .into_iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        settings,
        [
            "partition_router.archive_directory  superuser string",
            "partition_router.backfill_workers 1 user integer",
            "partition_router.carry_ddl on superuser bool",
            "partition_router.enable_partition_maintenance on user bool",
            "partition_router.enable_partition_routing on user bool",
            "partition_router.launcher_database postgres sighup string",
            "partition_router.lock_timeout 100 ms user integer",
            "partition_router.log_partition_routing off user bool",
            "partition_router.maintenance_interval 0 s superuser integer",
            "partition_router.maintenance_role  superuser string",
            "partition_router.max_replica_lag 60000 ms user integer",
            "partition_router.max_slot_wal 1024 MB user integer",
            "partition_router.notice_interval 5000 ms user integer",
            "partition_router.shadow_sample 0 user real",
            "partition_router.tenant  user string",
            "partition_router.transparent off user bool",
            "partition_router.use_partitioned_tables off user bool",
            "partition_router.verify_interval 1440 min user integer",
            "partition_router.verify_workers 1 user integer",
        ]
    );
}

#[test]
fn a_pass_of_counts_does_not_take_back_what_a_checksum_refuted() {
    let (_database, mut client) = live("counts");
    let c = &mut client;
    let verified = |c: &mut Client, level: &str| {
        one::<bool>(
            c,
            &format!("SELECT bool_and(matches) FROM partition_router.verify('revenues', '{level}')"),
        )
    };
    run(c, &["SET partition_router.use_partitioned_tables = on"]);
    plant(
        c,
        "revenues_partitioned",
        &["UPDATE revenues_partitioned SET org = 'another' WHERE id = 7"],
    );
    assert!(!verified(c, "checksum"));
    assert!(verified(c, "counts"), "counts see no value");
    assert!(explain(c, "'revenues'").starts_with("revenues not proven equal since"));
    run(c, &["SELECT partition_router.repair('revenues')"]);
    assert!(verified(c, "counts"));
    assert!(explain(c, "'revenues'").starts_with("revenues not proven equal since"));
    assert!(verified(c, "checksum"));
    assert_eq!(explain(c, "'revenues'"), "revenues_partitioned setting");
}
