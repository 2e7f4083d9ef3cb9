//! `place()`: partitions go to another server and come back, while applications write, and whatever ends a call.

#[path = "../common/mod.rs"]
mod common;
mod keyed;
mod refused;
mod retired;

use common::{Cluster, Database, cluster_sh, is_stress, one, run, sqlstate, texts};
use postgres::Client;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Two servers: the second one is `cold` to the first.
struct World {
    far: Arc<Cluster>,
    here: Database,
    client: Client,
}

const SUM: &str =
    "SELECT format('%s %s', count(*), md5(string_agg(v::text, ',' ORDER BY id, at))) FROM visits v";

/// The statement that makes the place of January over there.
const PLACE: &str = "CREATE TABLE visits_2025_01 (id bigint NOT NULL, at date NOT NULL, note text,
    CHECK (at >= '2025-01-01' AND at < '2025-02-01'))";

impl World {
    fn there(&self) -> Client {
        self.far.connect(&self.here.name)
    }
}

/// The other server, which the tests share: each has a database of its name there.
fn far() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().expect("no test panicked in here");
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(Cluster::start(&["shared_buffers=16MB"]));
    *shared = Arc::downgrade(&cluster);
    cluster
}

fn world(test: &str) -> World {
    world_on(Cluster::shared(), test)
}

fn world_on(server: Arc<Cluster>, test: &str) -> World {
    let far = far();
    let here = Database::on(server, test);
    run(
        &mut far.connect("postgres"),
        &[&format!("CREATE DATABASE \"{}\"", here.name)],
    );
    let mut client = here.connect();
    run(
        &mut client,
        &[
            "CREATE EXTENSION postgres_fdw",
            &format!(
                "CREATE SERVER cold FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '5432', dbname '{}')",
                far.socket(),
                here.name
            ),
            "CREATE USER MAPPING FOR CURRENT_USER SERVER cold OPTIONS (user 'postgres')",
            "CREATE TABLE visits (id bigint NOT NULL, at date NOT NULL, note text) PARTITION BY RANGE (at)",
            "CREATE TABLE visits_2025_01 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "CREATE TABLE visits_2025_02 PARTITION OF visits FOR VALUES FROM ('2025-02-01') TO ('2025-03-01')",
            "CREATE INDEX ON visits (at)",
            "INSERT INTO visits SELECT g, date '2025-01-01' + g % 59, 'visit ' || g FROM generate_series(1, 4000) g",
            "SELECT partition_router.manage('visits', '1 month')",
            "SELECT partition_router.create_partitions('visits')",
        ],
    );
    World { far, here, client }
}

fn kind(client: &mut Client, table: &str) -> String {
    one(
        client,
        &format!("SELECT relkind::text FROM pg_class WHERE oid = '{table}'::regclass"),
    )
}

/// Maintenance and health have nothing to say against what was done.
fn assert_well(client: &mut Client) {
    let failed = texts(
        client,
        "SELECT concat_ws(' ', status, message) FROM partition_router.maintenance_log WHERE status = 'failed'
         UNION ALL SELECT concat_ws(' ', \"check\", message) FROM partition_router.health WHERE status <> 'ok'",
    );
    assert!(failed.is_empty(), "{failed:?}");
}

/// The steps of `place()` one by one, there (`'cold'`) or back (`NULL`), until the state is reached.
fn step_until(client: &mut Client, server: &str, state: &str) {
    let found = "SELECT COALESCE((SELECT state FROM partition_router.placement), 'none')";
    while one::<String>(client, found) != state {
        let step = format!("SELECT partition_router.place_step('visits_2025_01', {server})");
        assert!(one::<bool>(client, &step));
    }
}

/// Nothing of a placement is left but what was asked for.
fn assert_clean(client: &mut Client) {
    let left = texts(
        client,
        "SELECT relname::text FROM pg_class WHERE relname LIKE 'partition\\_router\\_%' AND relnamespace = 'public'::regnamespace
         UNION ALL SELECT tgname FROM pg_trigger WHERE tgname = 'partition_router_place'
         UNION ALL SELECT partition::text FROM partition_router.placement
         UNION ALL SELECT partition::text FROM partition_router.hold",
    );
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_partition_goes_to_another_server_is_written_there_and_comes_back() {
    let mut world = world("placed");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &[PLACE]);
    let before: String = one(c, SUM);
    run(
        c,
        &["CALL partition_router.place('visits_2025_01', 'cold', dry_run => true)"],
    );
    assert_eq!(kind(c, "visits_2025_01"), "r");
    assert_clean(c);
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    assert_eq!(kind(c, "visits_2025_01"), "f");
    assert_clean(c);
    assert_eq!(one::<String>(c, SUM), before);
    let over_there = "SELECT count(*) FROM visits_2025_01";
    let rows: i64 = one(&mut there, over_there);
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM ONLY visits_2025_01"), rows);
    assert!(rows > 2000);
    // A second call has nothing to do.
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    run(
        c,
        &[
            "INSERT INTO visits VALUES (9000, '2025-01-31', 'late')",
            "UPDATE visits SET note = 'later' WHERE id = 9000",
        ],
    );
    assert_eq!(
        one::<String>(&mut there, "SELECT note FROM visits_2025_01 WHERE id = 9000"),
        "later"
    );
    let moved = "UPDATE visits SET at = '2025-02-02' WHERE id = 9000";
    assert_eq!(sqlstate(c, moved), "23514");
    run(
        c,
        &[
            "CALL partition_router.run_maintenance('visits')",
            "ANALYZE visits",
        ],
    );
    assert_well(c);
    let logged = "SELECT string_agg(concat_ws(' ', partition, action, row_count), ', ') FROM partition_router.maintenance_log
                  WHERE action = 'place'";
    assert_eq!(one::<String>(c, logged), format!("visits_2025_01 place {rows}"));

    let before: String = one(c, SUM);
    run(c, &["CALL partition_router.place('visits_2025_01', NULL)"]);
    assert_eq!(kind(c, "visits_2025_01"), "r");
    assert_clean(c);
    assert_eq!(one::<String>(c, SUM), before);
    assert_eq!(
        one::<i64>(&mut there, over_there),
        rows + 1,
        "what is there stays"
    );
    assert_eq!(
        one::<i64>(
            c,
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'visits_at_idx'::regclass
               AND inhrelid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'visits_2025_01'::regclass)"
        ),
        1
    );
    run(c, &[moved]);
    // Over there are rows, which are not overwritten.
    assert_eq!(
        sqlstate(c, "CALL partition_router.place('visits_2025_01', 'cold')"),
        "PR023"
    );
    run(&mut there, &["TRUNCATE visits_2025_01"]);
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    assert_eq!(kind(c, "visits_2025_01"), "f");
}

#[test]
fn a_row_that_is_written_while_a_partition_is_placed_goes_with_it() {
    let mut world = world("raced");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &[PLACE]);
    let found = |c: &mut Client| {
        one::<String>(
            c,
            "SELECT COALESCE(string_agg(state || ' ' || attempts, ''), 'placed') FROM partition_router.placement",
        )
    };
    // Committed between the proof and the swap, each kind of write.
    for write in [
        "INSERT INTO visits VALUES (9001, '2025-01-05', 'through the root')",
        "INSERT INTO visits_2025_01 VALUES (9002, '2025-01-06', 'straight')",
        "UPDATE visits SET note = 'changed' WHERE id = 9001",
        "DELETE FROM visits WHERE id = 9002",
    ] {
        step_until(c, "'cold'", "proven");
        run(c, &[write]);
        assert!(one::<bool>(
            c,
            "SELECT partition_router.place_step('visits_2025_01', 'cold')"
        ));
        assert!(found(c).starts_with("copying"), "{write}: {}", found(c));
    }
    // Without triggers of its own a session that replicates is noted as well.
    step_until(c, "'cold'", "proven");
    run(
        c,
        &[
            "UPDATE partition_router.placement SET attempts = 0",
            "SET session_replication_role = replica",
            "INSERT INTO visits VALUES (9003, '2025-01-07', 'replicated')",
            "RESET session_replication_role",
        ],
    );
    assert!(one::<bool>(
        c,
        "SELECT partition_router.place_step('visits_2025_01', 'cold')"
    ));
    assert!(found(c).starts_with("copying"));
    // Held at the swap: the writer has written and not committed, the copy does not see it.
    step_until(c, "'cold'", "proven");
    let mut writer = world.here.connect();
    run(
        &mut writer,
        &["BEGIN", "INSERT INTO visits VALUES (9004, '2025-01-08', 'held')"],
    );
    let mut placer = world.here.connect();
    let placing = std::thread::spawn(move || {
        run(
            &mut placer,
            &["CALL partition_router.place('visits_2025_01', 'cold')"],
        );
    });
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
                 AND relation IN ('visits'::regclass, 'visits_2025_01'::regclass))";
    let started = Instant::now();
    while !one::<bool>(c, waits) {
        assert!(started.elapsed() < Duration::from_secs(60), "nobody waits");
        std::thread::yield_now();
    }
    run(&mut writer, &["COMMIT"]);
    placing.join().expect("it is placed");
    assert_eq!(found(c), "placed");
    assert_eq!(kind(c, "visits_2025_01"), "f");
    let written =
        "SELECT string_agg(id || ' ' || note, ', ' ORDER BY id) FROM visits_2025_01 WHERE id > 9000";
    assert_eq!(
        one::<String>(&mut there, written),
        "9001 changed, 9003 replicated, 9004 held"
    );
    assert_clean(c);
    // Emptied in the middle of its way back.
    assert!(one::<bool>(
        c,
        "SELECT partition_router.place_step('visits_2025_01', NULL)"
    ));
    assert!(one::<bool>(
        c,
        "SELECT partition_router.place_step('visits_2025_01', NULL)"
    ));
    assert!(one::<bool>(
        c,
        "SELECT partition_router.place_step('visits_2025_01', NULL)"
    ));
    assert!(found(c).starts_with("proven"));
    run(
        c,
        &[
            "TRUNCATE visits_2025_01",
            "INSERT INTO visits VALUES (9005, '2025-01-09', 'after')",
        ],
    );
    run(c, &["CALL partition_router.place('visits_2025_01', NULL)"]);
    assert_eq!(
        texts(c, "SELECT id || ' ' || note FROM visits_2025_01"),
        ["9005 after"]
    );
    assert_clean(c);
}

#[test]
fn a_truncate_while_a_partition_is_placed_is_seen() {
    let mut world = world("truncated");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &[PLACE]);
    step_until(c, "'cold'", "proven");
    run(c, &["TRUNCATE visits"]);
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    assert_eq!(one::<i64>(&mut there, "SELECT count(*) FROM visits_2025_01"), 0);
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM visits"), 0);
}

/// Before PostgreSQL 16 no trigger tells of it, on the way back there is no file here that would.
#[test]
fn a_truncate_while_a_partition_comes_back_is_seen() {
    let mut world = world("truncated_there");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &[PLACE]);
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    step_until(c, "NULL", "proven");
    run(c, &["TRUNCATE visits"]);
    run(c, &["CALL partition_router.place('visits_2025_01', NULL)"]);
    assert_eq!(kind(c, "visits_2025_01"), "r");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM visits"), 0);
}

#[test]
fn a_server_that_is_killed_between_copy_and_swap_goes_on_from_there() {
    let states: &[&str] = match is_stress() {
        true => &["copying", "copied", "proven"],
        false => &["copied"],
    };
    for state in states.iter().copied() {
        let server = Arc::new(Cluster::start(&["shared_buffers=32MB"]));
        let mut world = world_on(Arc::clone(&server), "killed");
        let mut there = world.there();
        run(&mut there, &[PLACE]);
        let before: String = one(&mut world.client, SUM);
        step_until(&mut world.client, "'cold'", state);
        if state == "copying" {
            // The other server has committed what it got, and this one has not.
            run(
                &mut there,
                &[
                    "INSERT INTO visits_2025_01 SELECT g, '2025-01-01', 'left over' FROM generate_series(1, 10) g",
                ],
            );
        }
        cluster_sh(&["crash", server.directory()]);
        cluster_sh(&["start", server.directory()]);
        world.client = world.here.connect();
        let c = &mut world.client;
        assert_eq!(one::<String>(c, SUM), before, "{state}");
        run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
        assert_eq!(kind(c, "visits_2025_01"), "f");
        assert_eq!(one::<String>(c, SUM), before, "{state}");
        assert_clean(c);
    }
}

#[test]
fn rows_that_only_the_other_server_has_committed_do_not_come_twice() {
    let mut world = world("half_committed");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &[PLACE]);
    let before: String = one(c, SUM);
    // It commits first: what a crash in between leaves is rows over there, and a state here that knows nothing of them.
    step_until(c, "'cold'", "copied");
    run(
        c,
        &["UPDATE partition_router.placement SET state = 'copying', attempts = 0"],
    );
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    assert_eq!(one::<String>(c, SUM), before);
}

#[test]
fn what_was_begun_can_be_stopped_and_nothing_is_left() {
    let mut world = world("stopped");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &[PLACE]);
    let before: String = one(c, SUM);
    step_until(c, "'cold'", "proven");
    // Health tells of one that is left so.
    let told =
        "SELECT concat_ws(' ', status, mend) FROM partition_router.health WHERE \"check\" = 'placement'";
    assert_eq!(one::<String>(c, told), "ok");
    run(
        c,
        &["UPDATE partition_router.placement SET begun_at = begun_at - interval '2 days'"],
    );
    assert_eq!(
        one::<String>(c, told),
        "warn CALL partition_router.place('public.visits_2025_01', 'cold')"
    );
    // Nothing takes it away meanwhile.
    assert_eq!(
        sqlstate(c, "SELECT partition_router.drop_partition('visits_2025_01')"),
        "55000"
    );
    run(c, &["CALL partition_router.place('visits_2025_01', NULL)"]);
    assert_eq!(kind(c, "visits_2025_01"), "r");
    assert_eq!(one::<String>(c, SUM), before);
    assert_eq!(one::<i64>(&mut there, "SELECT count(*) FROM visits_2025_01"), 0);
    assert_clean(c);
    // The other way, too.
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    assert!(one::<bool>(
        c,
        "SELECT partition_router.place_step('visits_2025_01', NULL)"
    ));
    run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
    assert_eq!(kind(c, "visits_2025_01"), "f");
    assert_eq!(one::<String>(c, SUM), before);
    assert_clean(c);
}

#[test]
fn a_partition_by_hash_goes_and_keeps_the_rows_of_others_out() {
    let mut world = world("hashed");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &["CREATE TABLE h_1 (org int NOT NULL, n int)"]);
    run(
        c,
        &[
            "CREATE TABLE h (org int NOT NULL, n int) PARTITION BY HASH (org)",
            "CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (modulus 2, remainder 0)",
            "CREATE TABLE h_1 PARTITION OF h FOR VALUES WITH (modulus 2, remainder 1)",
            "INSERT INTO h SELECT g, g FROM generate_series(1, 500) g",
        ],
    );
    let sum = "SELECT format('%s %s', count(*), sum(org * n)) FROM h";
    let before: String = one(c, sum);
    run(c, &["CALL partition_router.place('h_1', 'cold')"]);
    assert_eq!(kind(c, "h_1"), "f");
    assert_eq!(one::<String>(c, sum), before);
    let rows: i64 = one(&mut there, "SELECT count(*) FROM h_1");
    assert!(rows > 100);
    let [theirs, ours]: [i32; 2] = ["h_1", "h_0"].map(|part| one(c, &format!("SELECT min(org) FROM {part}")));
    // The key of another partition: the row would stay where nobody looks for it.
    assert_eq!(
        sqlstate(c, &format!("UPDATE h SET org = {ours} WHERE org = {theirs}")),
        "23514"
    );
    assert_eq!(
        sqlstate(c, &format!("INSERT INTO h_1 VALUES ({ours}, 1)")),
        "23514"
    );
    run(
        c,
        &[
            &format!("UPDATE h SET n = n + 1 WHERE org = {theirs}"),
            "INSERT INTO h SELECT g, g FROM generate_series(501, 600) g",
        ],
    );
    let before: String = one(c, sum);
    run(c, &["CALL partition_router.place('h_1', NULL)"]);
    assert_eq!(kind(c, "h_1"), "r");
    assert_eq!(one::<String>(c, sum), before);
    run(c, &[&format!("UPDATE h SET org = {ours} WHERE org = {theirs}")]);
    assert_clean(c);
}
