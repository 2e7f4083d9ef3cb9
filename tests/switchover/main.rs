//! The names swap and swap back: nothing is lost, what refers to the table follows, and who cannot wait does not have to.

#[path = "../common/mod.rs"]
mod common;

mod anywhere;
mod ends;
mod follows;
mod interrupted;
mod keys;
mod load;
mod old_snapshots;
mod refused;
mod sessions;

use common::{Database, assert_equal_sides, one, plant, run, sqlstate, texts};
use postgres::Client;

/// A small table with what most tables have, migrated and proven.
pub const TABLES: &[&str] = &[
    "CREATE SCHEMA s",
    "CREATE TABLE s.orgs (id int PRIMARY KEY)",
    "INSERT INTO s.orgs VALUES (1), (2), (3)",
    "CREATE TABLE s.t (id serial PRIMARY KEY, at timestamp NOT NULL, org int REFERENCES s.orgs ON DELETE CASCADE,
        note text)",
    "CREATE INDEX ON s.t (org)",
    "INSERT INTO s.t (at, org, note)
        SELECT timestamp '2025-01-01' + g * interval '4 hours', 1 + g % 3, 'n' || g FROM generate_series(1, 1000) g",
    "CALL partition_router.migrate('s.t', 'at')",
];

pub const THERE: &str = "CALL partition_router.switchover('s.t')";
pub const BACK: &str = "CALL partition_router.rollback('s.t')";

pub fn phase(client: &mut Client) -> String {
    one(client, "SELECT phase FROM partition_router.status")
}

/// Asserts that the sides hold the same rows; `switched` says under which names they are.
pub fn equal(client: &mut Client, switched: bool) {
    let other = if switched { "s.t_legacy" } else { "s.t_partitioned" };
    assert_equal_sides(client, "s.t", other, "id, at, org, note");
}

fn kind(client: &mut Client, table: &str) -> String {
    one(
        client,
        &format!("SELECT relkind::text FROM pg_class WHERE oid = '{table}'::regclass"),
    )
}

#[test]
fn the_twin_takes_the_name_and_gives_it_back_with_every_write_made_since() {
    let database = Database::new("round");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &[THERE]);
    assert_eq!(phase(&mut client), "switched");
    assert_eq!(kind(&mut client, "s.t"), "p");
    assert_eq!(kind(&mut client, "s.t_legacy"), "r");
    run(
        &mut client,
        &[
            "INSERT INTO s.t (at, org, note) VALUES ('2025-03-03', 1, 'after')",
            "UPDATE s.t SET note = 'changed', at = at + interval '40 days' WHERE id = 7",
            "DELETE FROM s.t WHERE id = 8",
            "INSERT INTO s.t_legacy (at, org, note) VALUES ('2025-03-04', 2, 'through the old table')",
            "DELETE FROM s.orgs WHERE id = 3",
        ],
    );
    equal(&mut client, true);
    let rows: i64 = one(&mut client, "SELECT count(*) FROM s.t");
    run(&mut client, &[BACK]);
    assert_eq!(phase(&mut client), "live");
    assert_eq!(kind(&mut client, "s.t"), "r");
    assert_eq!(kind(&mut client, "s.t_partitioned"), "p");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.t"), rows);
    assert_eq!(
        texts(
            &mut client,
            "SELECT note FROM s.t WHERE id IN (7, 8, 1001, 1002) ORDER BY id"
        ),
        ["changed", "after", "through the old table"]
    );
    run(
        &mut client,
        &[
            "INSERT INTO s.t (at, org) VALUES ('2025-05-05', 1)",
            "DELETE FROM s.orgs WHERE id = 2",
        ],
    );
    equal(&mut client, false);
    run(&mut client, &[THERE]);
    equal(&mut client, true);
}

#[test]
fn each_stage_writes_rows_and_checksums_down() {
    let database = Database::new("stages");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &[THERE, BACK]);
    for operation in ["switchover", "rollback"] {
        assert_eq!(
            texts(
                &mut client,
                &format!(
                    "SELECT stage FROM partition_router.run_log WHERE operation = '{operation}' ORDER BY id"
                )
            ),
            [
                "PRE-FLIGHT",
                "PRE-MIGRATION",
                "SWAPPED",
                "POST-MIGRATION",
                "POST-SWITCH"
            ]
        );
    }
    let proven: i64 = one(
        &mut client,
        "SELECT count(*) FROM partition_router.run_log
         WHERE operation IN ('switchover', 'rollback') AND stage <> 'SWAPPED' AND legacy = '\"s\".\"t\"'
           AND (detail ->> 'legacy_rows')::int = 1000 AND (detail ->> 'twin_rows')::int = 1000
           AND detail ->> 'legacy_checksum' = detail ->> 'twin_checksum' AND length(detail ->> 'twin_checksum') = 32",
    );
    assert_eq!(proven, 8);
    let held: i64 = one(
        &mut client,
        "SELECT count(*) FROM partition_router.run_log WHERE stage = 'SWAPPED' AND (detail ->> 'locked_ms')::float > 0",
    );
    assert_eq!(held, 2);
    // Statistics are there before the first statement is planned.
    assert!(one::<bool>(
        &mut client,
        "SELECT reltuples = 1000 FROM pg_class WHERE oid = 's.t_partitioned'::regclass"
    ));
}

#[test]
fn what_is_printed_is_what_is_executed() {
    let database = Database::new("printed");
    let mut client = database.connect();
    run(&mut client, TABLES);
    let before = texts(&mut client, "SELECT relname::text FROM pg_class ORDER BY 1");
    let plan = texts(
        &mut client,
        "SELECT statement FROM partition_router.plan('switchover', 's.t') WHERE statement NOT LIKE '--%' ORDER BY step",
    );
    run(
        &mut client,
        &["CALL partition_router.switchover('s.t', dry_run => true)"],
    );
    assert_eq!(
        texts(&mut client, "SELECT relname::text FROM pg_class ORDER BY 1"),
        before
    );
    assert_eq!(phase(&mut client), "live");
    assert!(
        plan.iter()
            .any(|s| s == "LOCK TABLE \"s\".\"t\" IN ACCESS EXCLUSIVE MODE"),
        "{plan:?}"
    );
    // Pasted by hand, it gives the same names as the call.
    let names = "SELECT string_agg(relname || ' ' || relkind::text, ', ' ORDER BY relname) FROM pg_class
                 WHERE relnamespace = 's'::regnamespace";
    run(
        &mut client,
        &["BEGIN", "SET LOCAL partition_router.carry_ddl = off"],
    );
    for statement in &plan {
        run(&mut client, &[statement]);
    }
    let by_hand: String = one(&mut client, names);
    run(&mut client, &["ROLLBACK", THERE]);
    assert_eq!(one::<String>(&mut client, names), by_hand);
    let plan = texts(
        &mut client,
        "SELECT statement FROM partition_router.plan('rollback', 's.t') ORDER BY step",
    );
    assert!(
        plan.iter()
            .any(|s| s == "ALTER TABLE \"s\".\"t_legacy\" RENAME TO \"t\""),
        "{plan:?}"
    );
}

#[test]
fn after_the_switchover_the_twin_counts() {
    let database = Database::new("counts");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(&mut client, &[THERE]);
    plant(
        &mut client,
        "s.t_legacy",
        &[
            "DELETE FROM s.t_legacy WHERE id = 7",
            "UPDATE s.t_legacy SET note = 'wrong' WHERE id = 8",
        ],
    );
    assert!(!one::<bool>(
        &mut client,
        "SELECT bool_and(matches) FROM partition_router.verify('s.t')"
    ));
    assert_eq!(sqlstate(&mut client, BACK), "PR014");
    assert_eq!(phase(&mut client), "switched");
    assert_eq!(
        sqlstate(&mut client, "CALL partition_router.cleanup('s.t')"),
        "PR014"
    );
    assert_eq!(
        texts(&mut client, "SELECT partition_router.repair('s.t')::text"),
        ["(1,1,0)"]
    );
    assert_eq!(
        one::<String>(&mut client, "SELECT note FROM s.t WHERE id = 8"),
        "n8"
    );
    equal(&mut client, true);
    run(&mut client, &[BACK]);
}

#[test]
fn routing_follows_the_name() {
    let database = Database::new("routing");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            "LOAD 'partition_router'",
            "SET partition_router.transparent = on",
            "SET partition_router.use_partitioned_tables = on",
            "PREPARE q AS SELECT count(*) FROM s.t WHERE org = 1",
        ],
    );
    let plan =
        |client: &mut Client, query: &str| texts(client, &format!("EXPLAIN (COSTS off) {query}")).join("\n");
    assert!(plan(&mut client, "SELECT * FROM s.t").contains("t_2025_01"));
    run(&mut client, &["EXECUTE q", THERE, "EXECUTE q"]);
    assert!(plan(&mut client, "SELECT * FROM s.t").contains("t_2025_01"));
    let old = plan(&mut client, "SELECT * FROM s.t_legacy");
    assert!(old.contains("Seq Scan on t_legacy"), "{old}");
    let route = |client: &mut Client, of: &str| -> String {
        one(client, &format!("SELECT partition_router.route({of})::text"))
    };
    run(&mut client, &["RESET partition_router.use_partitioned_tables"]);
    assert_eq!(route(&mut client, "'s.t'"), "s.t");
    assert_eq!(route(&mut client, "'s.t_legacy'"), "s.t");
    assert_eq!(
        route(&mut client, "'s.t', use_partitioned => false"),
        "s.t_legacy"
    );
    run(
        &mut client,
        &["SET partition_router.enable_partition_routing = off"],
    );
    assert_eq!(route(&mut client, "'s.t'"), "s.t_legacy");
    run(
        &mut client,
        &["RESET partition_router.enable_partition_routing", BACK],
    );
    assert_eq!(route(&mut client, "'s.t'"), "s.t");
    assert_eq!(
        route(&mut client, "'s.t', use_partitioned => true"),
        "s.t_partitioned"
    );
    // In this session alone the library was loaded by hand, of which health warns.
    run(&mut client, &["RESET partition_router.transparent"]);
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM partition_router.health WHERE status <> 'ok'"
        ),
        0
    );
}

#[test]
fn ddl_on_either_side_is_carried_after_the_switchover() {
    let database = Database::new("ddl");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            THERE,
            "ALTER TABLE s.t ADD COLUMN extra int NOT NULL DEFAULT 7",
            "ALTER TABLE s.t_legacy ADD COLUMN other text",
            "ALTER TABLE s.t RENAME COLUMN note TO remark",
            "CREATE INDEX by_extra ON s.t (extra)",
            "UPDATE s.t SET extra = 8, other = 'x' WHERE id = 3",
            "INSERT INTO s.t_legacy (at, org, remark) VALUES ('2025-02-02', 1, 'r')",
        ],
    );
    assert_equal_sides(
        &mut client,
        "s.t",
        "s.t_legacy",
        "id, at, org, remark, extra, other",
    );
    run(&mut client, &[BACK, "ALTER TABLE s.t DROP COLUMN other"]);
    assert_equal_sides(
        &mut client,
        "s.t",
        "s.t_partitioned",
        "id, at, org, remark, extra",
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM pg_indexes WHERE schemaname = 's' AND tablename IN ('t', 't_partitioned') AND indexdef LIKE '%(extra)'"
        ),
        2
    );
}

#[test]
fn maintenance_keeps_both_sides_equal_after_the_switchover() {
    let database = Database::new("maintenance");
    let mut client = database.connect();
    run(&mut client, TABLES);
    run(
        &mut client,
        &[
            THERE,
            "INSERT INTO s.t (at, org) VALUES ('2024-11-11', 1)",
            "SELECT partition_router.set_policy('s.t', premake => 5)",
            "CALL partition_router.run_maintenance('s.t')",
        ],
    );
    equal(&mut client, true);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.t_default"), 0);
    let rows: i64 = one(&mut client, "SELECT count(*) FROM s.t");
    run(
        &mut client,
        &[
            "SELECT partition_router.set_policy('s.t', retention => '20 months')",
            "CALL partition_router.run_maintenance('s.t')",
            "INSERT INTO s.t (at, org) SELECT max(at) + interval '1 month', 1 FROM s.t",
        ],
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT DISTINCT status FROM partition_router.maintenance_log"
        ),
        ["done"]
    );
    assert!(one::<i64>(&mut client, "SELECT count(*) FROM s.t") < rows);
    equal(&mut client, true);
    run(&mut client, &[BACK]);
    equal(&mut client, false);
}
