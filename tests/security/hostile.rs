//! What a hostile owner's code runs as while others call the extension. Whoever calls, it must be the owner, and it must not
//! become anybody else.

use crate::common::run;
use crate::scene::Scene;
use postgres::Client;

/// What reads and changes nothing, for `{t}`.
const LOOKS: &[&str] = &[
    "SELECT * FROM partition_router.status",
    "SELECT * FROM partition_router.partitions",
    "SELECT * FROM partition_router.progress",
    "SELECT * FROM partition_router.health",
    "SELECT * FROM partition_router.table_metrics",
    "SELECT * FROM partition_router.pair_metrics",
    "SELECT partition_router.metrics()",
    "SELECT partition_router.openmetrics()",
    "SELECT partition_router.verify_partitions()",
    "SELECT partition_router.report()",
    "SELECT * FROM partition_router.chart('{t}')",
    "SELECT * FROM partition_router.explain_route('{t}', 'x')",
    "SELECT partition_router.route('{t}')",
];

/// A whole migration, there and back, of `evil.bomb`.
const MIGRATION: &[&str] = &[
    "SELECT * FROM partition_router.preflight('evil.bomb', 'at')",
    "SELECT * FROM partition_router.create_twin('evil.bomb', 'at', dry_run => true)",
    "CALL partition_router.migrate('evil.bomb', 'at')",
    "SELECT * FROM partition_router.verify('evil.bomb', 'counts')",
    "SELECT * FROM partition_router.verify('evil.bomb', 'rows')",
    "SELECT * FROM partition_router.verify('evil.bomb', 'checksum', true)",
    "DIFFER",
    "SELECT * FROM partition_router.mismatches('evil.bomb')",
    "SELECT * FROM partition_router.repair('evil.bomb', true)",
    "SELECT * FROM partition_router.repair('evil.bomb')",
    "SELECT partition_router.set_rollout('evil.bomb', 50, ARRAY['x'])",
    "LOOKS",
    "CALL partition_router.create_index('evil.bomb', '(n, at)')",
    "SELECT partition_router.create_partitions('evil.bomb', 5)",
    "CALL partition_router.run_maintenance()",
    "CALL partition_router.switchover('evil.bomb', dry_run => true)",
    "CALL partition_router.switchover('evil.bomb')",
    "LOOKS",
    "CALL partition_router.rollback('evil.bomb')",
    "CALL partition_router.switchover('evil.bomb')",
    "CALL partition_router.cleanup('evil.bomb')",
    "SELECT * FROM partition_router.advise('evil.bomb')",
    "CALL partition_router.run_maintenance('evil.bomb')",
    "CALL partition_router.unpartition('evil.bomb')",
    "SELECT partition_router.abandon('evil.bomb')",
];

/// Writes one side of a pair alone, as its owner: rows that repair inserts, changes and deletes.
fn differ(scene: &mut Scene, client: &mut Client, table: &str) {
    let write = format!(
        "SET ROLE mallory; DELETE FROM {table} WHERE n = 2; UPDATE {table} SET digit = 5 WHERE n = 3;
         INSERT INTO {table} (id, at, n, parsed) VALUES (900, current_date, 13, 0); RESET ROLE"
    );
    crate::common::plant(client, table, &[&write]);
    run(client, &["RESET ALL", "CLOSE ALL"]);
    scene.forget();
}

fn play(scene: &mut Scene, client: &mut Client, table: &str, calls: &[&str]) {
    for call in calls {
        if *call == "LOOKS" {
            for look in LOOKS {
                scene.call(client, &look.replace("{t}", table));
            }
        } else if *call == "DIFFER" {
            differ(scene, client, table);
        } else if let Some(own) = call.strip_prefix("mallory: ") {
            run(&mut scene.database.connect_as("mallory"), &[own]);
            scene.forget();
        } else {
            scene.call(client, call);
        }
    }
}

#[test]
fn a_superuser_who_migrates_a_hostile_table_runs_nothing_of_it_as_himself() {
    let mut scene = Scene::new("hostile_migration", &[]);
    scene.plant("bomb", "PRIMARY KEY (id))", &[]);
    scene.forget();
    let mut postgres = scene.database.connect();
    play(&mut scene, &mut postgres, "evil.bomb", MIGRATION);
    scene.report(20);
}

/// A table under maintenance, with rows for the default partition, archives of each kind, and what comes back.
const MAINTENANCE: &[&str] = &[
    "SELECT partition_router.manage('evil.parts', '1 month', 2, dry_run => true)",
    "SELECT partition_router.manage('evil.parts', '1 month', 2)",
    "LOOKS",
    "SELECT * FROM partition_router.advise('evil.parts')",
    "CALL partition_router.run_maintenance('evil.parts', true)",
    "CALL partition_router.run_maintenance()",
    "SELECT * FROM partition_router.plan('run_maintenance', 'evil.parts')",
    "CALL partition_router.create_index('evil.parts', '(n, at)')",
    "SELECT partition_router.create_range_partition('evil.parts', 'far', '1999-01-01', '1999-02-01')",
    "SELECT partition_router.drop_partition('evil.far')",
    "SELECT partition_router.set_policy('evil.parts', retention => '7 months', retention_action => 'archive', archive_format => 'csv')",
    "CALL partition_router.run_maintenance('evil.parts')",
    "SELECT partition_router.restore_archive(1)",
    "SELECT partition_router.set_policy('evil.parts', retention => '6 months', archive_format => 'parquet')",
    "CALL partition_router.run_maintenance('evil.parts')",
    "SELECT partition_router.manage('evil.more', '1 month', 2)",
    "CALL partition_router.run_maintenance('evil.more')",
    "SELECT partition_router.set_policy('evil.more', retention => '7 months', retention_action => 'archive', archive_function => 'evil.keep(regclass)')",
    "CALL partition_router.run_maintenance('evil.more')",
    "LOOKS",
];

#[test]
fn maintenance_of_a_hostile_table_by_a_superuser_runs_nothing_of_it_as_himself() {
    let directory = std::env::temp_dir().join(format!("partition_router_hostile_{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("a directory");
    let path = directory.to_str().expect("UTF-8").to_string();
    let mut scene = Scene::new(
        "hostile_maintenance",
        &[&format!("partition_router.archive_directory={path}")],
    );
    scene.plant(
        "parts",
        "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        &[
            "CREATE TABLE evil.parts_default PARTITION OF evil.parts DEFAULT",
            "CREATE FUNCTION evil.keep(part regclass) RETURNS regclass LANGUAGE plpgsql AS $$DECLARE kept text; BEGIN
                 PERFORM evil.say('archive function');
                 kept := 'evil.kept_' || part::oid;
                 EXECUTE format('CREATE TABLE %s AS SELECT * FROM %s', kept, part);
                 RETURN kept::regclass; END$$",
        ],
    );
    scene.plant(
        "more",
        "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        &["CREATE TABLE evil.more_default PARTITION OF evil.more DEFAULT"],
    );
    scene.forget();
    let mut postgres = scene.database.connect();
    play(&mut scene, &mut postgres, "evil.parts", MAINTENANCE);
    std::fs::remove_dir_all(&directory).expect("the directory goes");
    let failed =
        "SELECT coalesce(string_agg(concat_ws(' ', action, partition, sqlstate, message), e'\\n'), '')
        FROM partition_router.maintenance_log WHERE status = 'failed'";
    assert_eq!(crate::common::one::<String>(&mut postgres, failed), "");
    scene.report(20);
}

#[test]
fn who_looks_on_runs_nothing_of_a_hostile_table_as_a_superuser() {
    let mut scene = Scene::new("hostile_looks", &[]);
    scene.plant(
        "parts",
        "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        &["CREATE TABLE evil.parts_default PARTITION OF evil.parts DEFAULT"],
    );
    scene.plant("bomb", "PRIMARY KEY (id))", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
            "GRANT USAGE ON SCHEMA evil TO watcher",
            "SELECT partition_router.manage('evil.parts', '1 month')",
            "CALL partition_router.migrate('evil.bomb', 'at')",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory",
        ],
    );
    scene.forget();
    for role in ["watcher", "mallory"] {
        let mut session = scene.database.connect_as(role);
        let looks = LOOKS
            .iter()
            .filter(|look| role == "watcher" || look.contains("SELECT partition_router."));
        for look in looks {
            scene.call(&mut session, &look.replace("{t}", "evil.parts"));
        }
    }
    // The owner gains nothing by calling what works with the rights of a superuser.
    let mut mallory = scene.database.connect_as("mallory");
    for call in MIGRATION
        .iter()
        .filter(|c| c.contains("verify") || c.contains("switchover") || c.contains("rollback"))
    {
        scene.call(&mut mallory, call);
    }
    scene.report(10);
}

#[test]
fn a_background_worker_and_its_helpers_run_hostile_code_as_its_owner() {
    let mut scene = Scene::new("hostile_workers", &[]);
    scene.plant("bomb", "PRIMARY KEY (id))", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE ROLE bgw_operator LOGIN IN ROLE mallory",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO bgw_operator",
        ],
    );
    scene.forget();
    let mut operator = scene.database.connect_as("bgw_operator");
    for client in [&mut postgres, &mut operator] {
        run(
            client,
            &[
                "SET partition_router.backfill_workers = 4",
                "SET partition_router.verify_workers = 4",
            ],
        );
        scene.call(client, "CALL partition_router.migrate('evil.bomb', 'at')");
        scene.call(
            client,
            "SELECT * FROM partition_router.verify('evil.bomb', 'rows')",
        );
        scene.call(client, "SELECT partition_router.abandon('evil.bomb')");
    }
    scene.report(8);
}

/// The worker of `maintenance_interval`, whose role is a member of the owner's.
#[test]
fn maintenance_by_the_clock_runs_hostile_code_as_its_owner() {
    let mut scene = Scene::new(
        "hostile_clock",
        &[
            "shared_preload_libraries=partition_router",
            "max_worker_processes=16",
        ],
    );
    scene.plant(
        "parts",
        "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        &["CREATE TABLE evil.parts_default PARTITION OF evil.parts DEFAULT"],
    );
    let mut postgres = scene.database.connect();
    let name = scene.database.name.clone();
    run(
        &mut postgres,
        &[
            "CREATE ROLE keeper LOGIN IN ROLE mallory",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO keeper",
            "SELECT partition_router.manage('evil.parts', '1 month', 2)",
            "SELECT partition_router.set_policy('evil.parts', retention => '6 months', retention_action => 'drop')",
            &format!("ALTER DATABASE \"{name}\" SET partition_router.maintenance_role = 'keeper'"),
        ],
    );
    scene.forget();
    run(
        &mut postgres,
        &[&format!(
            "ALTER DATABASE \"{name}\" SET partition_router.maintenance_interval = '1s'"
        )],
    );
    let started = std::time::Instant::now();
    // What retention takes comes last; the default partition was drained before.
    let is_done =
        "SELECT count(*) > 0 FROM partition_router.maintenance_log WHERE status = 'done' AND action = 'drop'";
    while !crate::common::one::<bool>(&mut postgres, is_done) {
        assert!(
            started.elapsed().as_secs() < 120,
            "the worker never came: {:?}",
            crate::common::texts(
                &mut postgres,
                "SELECT message FROM partition_router.maintenance_log"
            )
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    run(&mut postgres, &[&format!("ALTER DATABASE \"{name}\" RESET ALL")]);
    scene.note("the worker");
    scene.report(5);
}

/// A deferred trigger would run when the caller's transaction commits, and not before he has his rights back (CVE-2020-25695).
#[test]
fn a_deferred_trigger_does_not_wait_for_the_callers_rights() {
    let mut scene = Scene::new("hostile_deferred", &[]);
    let deferred = [
        "CREATE CONSTRAINT TRIGGER d AFTER INSERT OR UPDATE OR DELETE ON {t} DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION evil.fired()",
        "ALTER TABLE {t} ENABLE ALWAYS TRIGGER d",
    ];
    scene.plant("bomb", "PRIMARY KEY (id))", &deferred);
    let parts = [
        &["CREATE TABLE evil.parts_default PARTITION OF evil.parts DEFAULT"],
        &deferred[..],
    ]
    .concat();
    scene.plant("parts", "PRIMARY KEY (id, at)) PARTITION BY RANGE (at)", &parts);
    let mut postgres = scene.database.connect();
    scene.forget();
    let mut refused = 0;
    for call in MIGRATION.iter().chain(MAINTENANCE) {
        if *call == "LOOKS" {
            continue;
        }
        if *call == "DIFFER" {
            differ(&mut scene, &mut postgres, "evil.bomb");
            continue;
        }
        match postgres.batch_execute(call) {
            Ok(()) => {}
            Err(error) => refused += usize::from(error.code().is_some_and(|code| code.code() == "42501")),
        }
        scene.note(call);
    }
    let offenders = scene.offenders();
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
    let failed: i64 = crate::common::one(
        &mut postgres,
        "SELECT count(*) FROM partition_router.maintenance_log WHERE sqlstate = '42501'",
    );
    assert!(
        failed > 0,
        "no deferred trigger was in the way; {refused} calls were refused"
    );
}

/// What follows the name and has constants of a domain, which are checked when its text is parsed again: `{who}`'s.
const FOLLOWERS: &[&str] = &[
    "CREATE VIEW {who}.looks AS SELECT id, '{5}'::{who}.digit[] AS digits FROM evil.t",
    "CREATE RULE looks AS ON INSERT TO {who}.other DO ALSO SELECT '{7}'::{who}.digit[] FROM evil.t",
    "CREATE POLICY looks ON {who}.other USING ('{8}'::{who}.digit[] IS NOT NULL AND EXISTS (SELECT FROM evil.t))",
    "CREATE FUNCTION {who}.looks() RETURNS int BEGIN ATOMIC SELECT count(*)::int FROM evil.t WHERE '{9}'::{who}.digit[] IS NOT NULL; END",
];

#[test]
fn constants_that_are_code_run_as_the_owner_of_what_follows_the_name_or_not_at_all() {
    let mut scene = Scene::new("hostile_views", &[]);
    let mut postgres = scene.database.connect();
    run(
        &mut postgres,
        &[
            "CREATE ROLE alice LOGIN",
            "CREATE SCHEMA alice AUTHORIZATION alice",
            "GRANT USAGE ON SCHEMA evil TO alice",
            "GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO mallory",
            "SET ROLE alice",
            "CREATE FUNCTION alice.ok() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
                 $$BEGIN RAISE LOG 'MARK|alice|%|%||', current_user, session_user; RETURN true; END$$",
            "CREATE DOMAIN alice.digit AS int CHECK (alice.ok())",
            "RESET ROLE",
        ],
    );
    for (who, follower) in ["evil", "alice"]
        .iter()
        .flat_map(|who| FOLLOWERS.iter().map(move |f| (*who, *f)))
    {
        let role = if who == "evil" { "mallory" } else { "alice" };
        run(
            &mut postgres,
            &[
                "SET ROLE mallory",
                "CREATE TABLE evil.t (id int PRIMARY KEY, at date NOT NULL)",
                "GRANT SELECT ON evil.t TO alice",
                "RESET ROLE",
                &format!("SET ROLE {role}"),
                &format!("CREATE TABLE {who}.other (id int)"),
                &follower.replace("{who}", who),
                "RESET ROLE",
                "CALL partition_router.migrate('evil.t', 'at')",
            ],
        );
        scene.forget();
        let mut mallory = scene.database.connect_as("mallory");
        let switchover = "CALL partition_router.switchover('evil.t')";
        if who == "evil" {
            scene.call(&mut mallory, switchover);
            scene.call(&mut postgres, "CALL partition_router.rollback('evil.t')");
        } else {
            // Neither the table's owner nor a superuser makes it run with the rights of anybody but alice.
            for client in [&mut mallory, &mut postgres] {
                assert_eq!(crate::common::sqlstate(client, switchover), "42501", "{follower}");
                scene.note(follower);
            }
        }
        run(
            &mut postgres,
            &[
                "SELECT partition_router.abandon('evil.t')",
                "DROP FUNCTION IF EXISTS evil.looks, alice.looks",
                &format!("DROP TABLE {who}.other"),
                "DROP TABLE evil.t CASCADE",
            ],
        );
        scene.forget();
    }
    scene.report(2);
}
