//! A feed goes on, whatever happens to its tables.

use super::common::{Database, one, run, texts};
use super::{ENABLE, TABLE, live, taken, told};
use postgres::Client;

fn status(client: &mut Client, check: &str) -> String {
    let query = format!(
        "SELECT string_agg(DISTINCT status, ',') FROM partition_router.health WHERE \"check\" = '{check}'"
    );
    one(client, &query)
}

#[test]
fn a_feed_goes_through_a_whole_migration() {
    let database = Database::new("migration");
    let mut client = database.connect();
    let c = &mut client;
    run(c, TABLE);
    run(c, &[ENABLE]);
    taken(c);
    let expect = |c: &mut Client, phase: &str, tables: &[&str]| {
        for table in tables {
            let update = format!("UPDATE {table} SET cents = cents + 1 WHERE id = 11");
            assert_eq!(told(c, &[&update]), ["r 11"], "{phase}: {table}");
        }
        assert_eq!(status(c, "change_feed"), "ok", "{phase}");
    };
    run(c, &["SELECT partition_router.create_twin('revenues', 'at')"]);
    expect(c, "prepared", &["revenues"]);
    run(c, &["SELECT partition_router.start_sync('revenues')"]);
    expect(c, "copying", &["revenues"]);
    run(c, &["CALL partition_router.backfill('revenues')"]);
    assert_eq!(taken(c), [] as [&str; 0], "copied rows do not change");
    run(c, &["SELECT partition_router.verify('revenues')"]);
    expect(
        c,
        "live",
        &["revenues", "revenues_partitioned", "revenues_2026_01"],
    );
    run(c, &["CALL partition_router.switchover('revenues')"]);
    expect(c, "switched", &["revenues", "revenues_legacy"]);
    run(c, &["CALL partition_router.rollback('revenues')"]);
    expect(c, "back", &["revenues", "revenues_partitioned"]);
    run(
        c,
        &[
            "CALL partition_router.switchover('revenues')",
            "CALL partition_router.cleanup('revenues')",
        ],
    );
    taken(c);
    expect(c, "done", &["revenues", "revenues_2026_01"]);
    let relations: String = one(c, "SELECT relations::text FROM partition_router.change_feeds");
    assert_eq!(relations, "{revenues}");
    run(c, &["CALL partition_router.unpartition('revenues')"]);
    taken(c);
    expect(c, "plain", &["revenues"]);
    run(c, &["SELECT partition_router.abandon('revenues')"]);
    taken(c);
    expect(c, "plain alone", &["revenues"]);
}

#[test]
fn abandon_leaves_the_feed_of_the_legacy() {
    let (_database, mut client) = live("abandon");
    let c = &mut client;
    run(c, &["SELECT partition_router.abandon('revenues')"]);
    taken(c);
    assert_eq!(told(c, &["UPDATE revenues SET cents = 1 WHERE id = 1"]), ["r 1"]);
    assert_eq!(status(c, "change_feed"), "ok");
}

#[test]
fn a_guard_does_not_tell_a_second_time() {
    let database = Database::new("guard");
    let mut client = database.connect();
    let c = &mut client;
    run(c, TABLE);
    run(
        c,
        &[
            "CALL partition_router.migrate('revenues', 'at', keep_unique => true)",
            ENABLE,
            "CALL partition_router.switchover('revenues')",
            "CALL partition_router.cleanup('revenues')",
        ],
    );
    taken(c);
    assert_eq!(
        told(c, &["INSERT INTO revenues VALUES (333, '2026-02-02')"]),
        ["r 333"]
    );
    assert_eq!(told(c, &["TRUNCATE revenues"]), ["r *"]);
    assert_eq!(status(c, "change_feed"), "ok");
    run(c, &["SELECT partition_router.disable_change_feed('revenues')"]);
    assert_eq!(
        one::<i64>(
            c,
            "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'partition\\_router\\_feed%'"
        ),
        0
    );
}

#[test]
fn partitions_that_come_and_go_are_heard_of() {
    let database = Database::new("partitions");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE e (id int, at int) PARTITION BY RANGE (at)",
            "CREATE TABLE e_1 PARTITION OF e FOR VALUES FROM (0) TO (10)",
            "SELECT partition_router.enable_change_feed('e', ARRAY['id'], name => 'e')",
        ],
    );
    taken(c);
    assert_eq!(
        told(
            c,
            &["CREATE TABLE e_2 PARTITION OF e FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (at)"]
        ),
        [] as [&str; 0]
    );
    run(
        c,
        &[
            "CREATE TABLE e_2_1 PARTITION OF e_2 FOR VALUES FROM (10) TO (15)",
            "CREATE TABLE e_3 (LIKE e)",
        ],
    );
    assert_eq!(
        told(
            c,
            &["ALTER TABLE e ATTACH PARTITION e_3 FOR VALUES FROM (20) TO (30)"]
        ),
        [] as [&str; 0],
        "no row came with it"
    );
    for (table, at) in [("e_1", 1), ("e_2_1", 11), ("e_3", 21)] {
        let insert = format!("INSERT INTO {table} VALUES ({at}, {at})");
        assert_eq!(told(c, &[&insert]), [format!("e {at}")]);
        let moved = format!("UPDATE e SET at = (at + 10) % 30 WHERE id = {at} AND at < 15");
        run(c, &[&moved]);
        assert!(taken(c).len() <= 1, "to another partition, once");
        assert_eq!(told(c, &[&format!("TRUNCATE {table}")]), ["e *"]);
    }
    assert_eq!(status(c, "change_feed"), "ok");
    run(
        c,
        &["CREATE TABLE e_4 (LIKE e)", "INSERT INTO e_4 VALUES (1, 30)"],
    );
    assert_eq!(
        told(
            c,
            &["ALTER TABLE e ATTACH PARTITION e_4 FOR VALUES FROM (30) TO (40)"]
        ),
        ["e *"]
    );
    assert_eq!(told(c, &["ALTER TABLE e DETACH PARTITION e_4"]), ["e *"]);
    assert_eq!(told(c, &["DROP TABLE e_3"]), ["e *"]);
    assert_eq!(told(c, &["INSERT INTO e VALUES (2, 2)"]), ["e 2"]);
}

#[test]
fn an_owner_without_grants_adds_partitions_to_a_table_with_a_feed() {
    let (database, mut client) = live("owner");
    let roles = ["first", "second"].map(|role| format!("{}_{role}", database.name));
    for (number, role) in roles.iter().enumerate() {
        let year = 2040 + number;
        run(
            &mut client,
            &[
                &format!("CREATE ROLE {role} LOGIN"),
                &format!("GRANT CREATE ON SCHEMA public TO {role}"),
                &format!("ALTER TABLE revenues OWNER TO {role}"),
                &format!("ALTER TABLE revenues_partitioned OWNER TO {role}"),
            ],
        );
        run(
            &mut database.connect_as(role),
            &[&format!(
                "CREATE TABLE r_{year} PARTITION OF revenues_partitioned FOR VALUES FROM ('{year}-01-01') TO ('{year}-02-01')"
            )],
        );
        let told = told(
            &mut client,
            &[&format!("INSERT INTO revenues VALUES ({year}, '{year}-01-02')")],
        );
        assert_eq!(told, [format!("r {year}")]);
    }
    run(&mut client, &["ALTER TABLE revenues OWNER TO CURRENT_USER"]);
    run(
        &mut client,
        &["ALTER TABLE revenues_partitioned OWNER TO CURRENT_USER"],
    );
    for role in &roles {
        run(
            &mut client,
            &[&format!("DROP OWNED BY {role}"), &format!("DROP ROLE {role}")],
        );
    }
}

#[test]
fn maintenance_tells_of_what_it_retires_and_not_of_what_it_makes() {
    let database = Database::new("maintained");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE e (id int, at date NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE e_2020_01 PARTITION OF e FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
            "CREATE TABLE e_default PARTITION OF e DEFAULT",
            "INSERT INTO e SELECT g, now()::date FROM generate_series(1, 10) g",
            "SELECT partition_router.manage('e', '1 month')",
            "SELECT partition_router.enable_change_feed('e', ARRAY['id'], name => 'e')",
        ],
    );
    taken(c);
    run(c, &["CALL partition_router.run_maintenance('e')"]);
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM ONLY e_default"),
        0,
        "rows moved out of the default"
    );
    assert_eq!(taken(c), [] as [&str; 0]);
    assert_eq!(status(c, "change_feed"), "ok");
    run(
        c,
        &[
            "SELECT partition_router.set_policy('e', retention => '24 months')",
            "CALL partition_router.run_maintenance('e')",
        ],
    );
    assert!(!one::<bool>(c, "SELECT to_regclass('e_2020_01') IS NOT NULL"));
    let mut told = taken(c);
    told.dedup(); // one for each partition that went
    assert_eq!(told, ["e *"]);
}

#[test]
fn changes_that_nobody_takes_become_one_of_every_key_and_health_says_so() {
    let (_database, mut client) = live("retention");
    let c = &mut client;
    assert_eq!(status(c, "change_feed_lag"), "ok");
    run(c, &["UPDATE revenues SET cents = 1"]);
    let later = "UPDATE partition_router.change_event SET changed_at = changed_at - interval";
    run(c, &[&format!("{later} '2 minutes'")]);
    assert_eq!(status(c, "change_feed_lag"), "warn");
    run(c, &["CALL partition_router.run_maintenance()"]);
    assert_eq!(
        one::<i64>(c, "SELECT waiting FROM partition_router.change_feeds"),
        100
    );
    run(
        c,
        &[
            &format!("{later} '8 days'"),
            "UPDATE revenues SET cents = 2 WHERE id = 5",
        ],
    );
    assert_eq!(status(c, "change_feed_lag"), "fail");
    run(c, &["CALL partition_router.run_maintenance()"]);
    assert_eq!(taken(c), ["r 5", "r *"]);
    assert_eq!(status(c, "change_feed_lag"), "ok");
}

#[test]
fn a_lost_trigger_is_mended_and_a_lost_column_makes_every_key_a_changed_one() {
    let (_database, mut client) = live("mended");
    let c = &mut client;
    for broken in [
        "DROP TRIGGER partition_router_feed ON revenues",
        "ALTER TABLE revenues_2026_02 DISABLE TRIGGER partition_router_feed",
        "DROP TRIGGER partition_router_feed_truncate ON revenues_2026_02",
    ] {
        run(
            c,
            &[
                "SET partition_router.carry_ddl = off",
                broken,
                "RESET partition_router.carry_ddl",
            ],
        );
        assert_eq!(status(c, "change_feed"), "fail", "{broken}");
        let mend: String = one(
            c,
            "SELECT mend FROM partition_router.health WHERE \"check\" = 'change_feed'",
        );
        run(c, &[&mend]);
        assert_eq!(status(c, "change_feed"), "ok", "{mend}");
        assert_eq!(taken(c), ["r *"]);
    }
    run(
        c,
        &[
            "CREATE TABLE t (id int, n int)",
            "SELECT partition_router.enable_change_feed('t', ARRAY['n'], name => 't')",
        ],
    );
    taken(c);
    run(c, &["ALTER TABLE t DROP COLUMN n"]);
    assert_eq!(told(c, &["INSERT INTO t VALUES (1)"]), ["t *"]);
    assert!(status(c, "change_feed").contains("fail"));
    let mend: String = one(
        c,
        "SELECT mend FROM partition_router.health WHERE \"check\" = 'change_feed' AND status = 'fail'",
    );
    run(c, &[&mend]);
    assert_eq!(status(c, "change_feed"), "ok");
}

#[test]
fn a_table_that_is_dropped_is_told_of_and_its_feed_forgotten() {
    let database = Database::new("dropped");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE t (id int)",
            "SELECT partition_router.enable_change_feed('t', ARRAY['id'], name => 't')",
        ],
    );
    taken(c);
    run(c, &["DROP TABLE t", "CALL partition_router.run_maintenance()"]);
    assert_eq!(taken(c), ["t *"]);
    run(c, &["CALL partition_router.run_maintenance()"]);
    assert_eq!(
        texts(c, "SELECT name FROM partition_router.change_feeds"),
        [] as [&str; 0]
    );
}

#[test]
fn a_table_that_goes_with_its_schema_or_its_owner_is_told_of() {
    let database = Database::new("dropped_with");
    let role = "feed_leaver";
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            &format!("DROP ROLE IF EXISTS {role}"),
            &format!("CREATE ROLE {role}"),
            "CREATE TABLE root (id int, at int) PARTITION BY RANGE (at)",
            "CREATE SCHEMA elsewhere",
            "CREATE TABLE elsewhere.leaf PARTITION OF root FOR VALUES FROM (0) TO (10)",
            "CREATE SCHEMA \"Going\"",
            "CREATE TABLE \"Going\".t (id int)",
            "CREATE TABLE stays (id int)",
            "SELECT partition_router.enable_change_feed('root', ARRAY['id'], name => 'root')",
            "SELECT partition_router.enable_change_feed('\"Going\".t', ARRAY['id'], name => 'going')",
            "SELECT partition_router.enable_change_feed('stays', ARRAY['id'], name => 'stays')",
        ],
    );
    taken(c);
    assert_eq!(
        told(c, &["DROP SCHEMA IF EXISTS \"going\" CASCADE"]),
        [] as [&str; 0],
        "there is none of this name"
    );
    assert!(c.batch_execute("DROP SCHEMA \"Going\"").is_err());
    assert_eq!(taken(c), [] as [&str; 0], "it was refused");
    assert_eq!(told(c, &["DROP SCHEMA \"Going\" CASCADE"]), ["going *"]);
    assert_eq!(
        told(c, &["DROP SCHEMA elsewhere CASCADE"]),
        ["root *"],
        "a partition in it took its rows along"
    );
    run(
        c,
        &[
            &format!("ALTER TABLE root OWNER TO {role}"),
            &format!("CREATE SCHEMA theirs AUTHORIZATION {role}"),
            "CREATE TABLE theirs.mine (id int)",
            "SELECT partition_router.enable_change_feed('theirs.mine', ARRAY['id'], name => 'mine')",
        ],
    );
    taken(c);
    assert_eq!(
        told(c, &[&format!("DROP OWNED BY {role} CASCADE")]),
        ["mine *", "root *"]
    );
    assert_eq!(told(c, &["INSERT INTO stays VALUES (1)"]), ["stays 1"]);
    run(c, &[&format!("DROP ROLE {role}")]);
}

#[test]
fn disable_leaves_the_schema_as_it_was() {
    let (database, mut client) = super::common::migrated_revenues("disabled", TABLE);
    let c = &mut client;
    let before = database.schema_dump(&[]);
    run(c, &[ENABLE, "UPDATE revenues SET cents = 1"]);
    assert_ne!(database.schema_dump(&[]), before);
    run(
        c,
        &["SELECT partition_router.disable_change_feed('revenues_partitioned')"],
    );
    assert_eq!(database.schema_dump(&[]), before);
    assert_eq!(
        one::<i64>(c, "SELECT count(*) FROM partition_router.change_event"),
        0
    );
    assert_eq!(told(c, &["UPDATE revenues SET cents = 2"]), [] as [&str; 0]);
}

#[test]
fn a_dump_brings_the_feed_back_with_what_waits() {
    let (database, mut client) = live("dumped");
    let c = &mut client;
    run(c, &["UPDATE revenues SET cents = 1 WHERE id = 77"]);
    let name = database.name.clone();
    let file = std::env::temp_dir().join(format!("{name}_{}.dump", std::process::id()));
    let file = file.to_str().expect("UTF-8");
    database.program("pg_dump", &["-Fc", "-f", file, &name]);
    let restored = Database::new("feed_restored");
    let mut there = restored.connect();
    run(&mut there, &["DROP EXTENSION partition_router"]);
    restored.program(
        "pg_restore",
        &["--exit-on-error", "-j", "2", "-d", &restored.name, file],
    );
    assert_eq!(taken(&mut there), ["r 77"], "a restore changes nothing");
    assert_eq!(
        told(&mut there, &["UPDATE revenues SET cents = 9 WHERE id = 1"]),
        ["r 1"]
    );
    assert_eq!(status(&mut there, "change_feed"), "ok");
    run(
        &mut there,
        &[
            "CREATE TABLE t (id int)",
            "SELECT partition_router.enable_change_feed('t', ARRAY['id'])",
        ],
    );
    std::fs::remove_file(file).expect("the dump is removed");
}
