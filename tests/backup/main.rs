//! Dumps, base backups and upgrades: what the extension remembers comes back by name, nothing is carried while rows come back, and
//! every pair goes on from where it was, in each of its phases.

#[path = "../common/mod.rs"]
mod common;
mod dumps;
mod servers;
mod versions;

use common::{Database, is_stress, one, run, sqlstate, texts};
use postgres::Client;

/// A table for each place that a pair can be in; in the short run for those that differ most.
fn places() -> &'static [&'static str] {
    match is_stress() {
        true => &[
            "plain", "prepared", "copy", "index", "drain", "finish", "live", "switched", "back", "done",
        ],
        false => &["prepared", "copy", "index", "drain", "live", "switched", "done"],
    }
}

/// Makes a database with a pair in each phase, a table under maintenance, and everything that is remembered of them.
fn world(c: &mut Client) {
    for place in places().iter().copied() {
        make(c, place);
    }
    run(
        c,
        &[
            "CREATE TABLE kept (id int, at date NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE kept_2020_01 PARTITION OF kept FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
            "CREATE TABLE kept_default PARTITION OF kept DEFAULT",
            "INSERT INTO kept VALUES (1, '2020-01-05')",
            "SELECT partition_router.manage('kept', '1 month', retention => '24 months')",
            "SELECT partition_router.hold('kept_2020_01', 'a case')",
            "CALL partition_router.run_maintenance('kept')",
            "SELECT partition_router.set_rollout('t_live', 30, ARRAY['a'], ARRAY['b'])",
            "SELECT partition_router.enable_change_feed('t_live', ARRAY['id'], name => 'live')",
            "SELECT partition_router.take_changes()",
        ],
    );
}

fn make(c: &mut Client, place: &str) {
    run(
        c,
        &[
            &format!("CREATE TABLE t_{place} (id int PRIMARY KEY, at date NOT NULL, n int NOT NULL, t text)"),
            // More blocks than one step copies.
            &format!(
                "INSERT INTO t_{place} SELECT g, date '2026-01-01' + g % 80, 0, repeat(md5(g::text), 45) FROM generate_series(1, 1000) g"
            ),
        ],
    );
    let call = |what: &str| format!("CALL partition_router.{what}('t_{place}')");
    match place {
        "plain" => {}
        "prepared" => run(
            c,
            &[&format!("SELECT partition_router.create_twin('t_{place}', 'at')")],
        ),
        "copy" | "index" | "drain" | "finish" => {
            run(
                c,
                &[
                    &format!("SELECT partition_router.create_twin('t_{place}', 'at')"),
                    &format!("SELECT partition_router.start_sync('t_{place}')"),
                ],
            );
            let stage = format!(
                "SELECT coalesce((SELECT stage FROM partition_router.copy_state s JOIN partition_router.pair p ON p.id = s.pair_id
                 WHERE p.legacy = 't_{place}'::regclass AND s.next_block > 0 OR stage <> 'copy'
                   AND p.legacy = 't_{place}'::regclass), '')"
            );
            while one::<String>(c, &stage) != place {
                run(
                    c,
                    &[
                        &format!("SELECT partition_router.backfill_step('t_{place}', 100)"),
                        &format!("UPDATE t_{place} SET n = n + 1 WHERE id % 100 = 7"),
                    ],
                );
            }
        }
        _ => {
            run(c, &[&format!("CALL partition_router.migrate('t_{place}', 'at')")]);
            if place != "live" {
                run(c, &[&call("switchover")]);
            }
            if place == "back" {
                run(c, &[&call("rollback")]);
            }
            if place == "done" {
                // With a guard: what it keeps is kept by triggers.
                run(
                    c,
                    &[&format!(
                        "CALL partition_router.cleanup('t_{place}', keep_unique => true)"
                    )],
                );
            }
        }
    }
    run(
        c,
        &[
            &format!("UPDATE t_{place} SET n = n + 1 WHERE id % 90 = 8"),
            &format!("DELETE FROM t_{place} WHERE id = 5"),
            &format!("INSERT INTO t_{place} VALUES (2000, '2026-02-02', 1, 'new')"),
        ],
    );
}

/// What is there, by name: rows, pairs, policies, what is held, who reads what, and health.
fn facts(c: &mut Client) -> Vec<String> {
    let mut facts = Vec::new();
    for place in places().iter().copied() {
        facts.extend(rows(c, place));
    }
    for query in [
        "SELECT concat_ws(' ', id, legacy, twin, base_name, strategy, partition_key, phase, verified_level, live_at) FROM partition_router.pair",
        "SELECT concat_ws(' ', parent, base_name, premake, retention, retention_action, template) FROM partition_router.policy",
        "SELECT concat_ws(' ', partition, reason) FROM partition_router.hold",
        "SELECT concat_ws(' ', pair_id, percent, pilots, excluded) FROM partition_router.rollout",
        "SELECT concat_ws(' ', pair_id, relation, first_block, end_block) FROM partition_router.copy_task",
        "SELECT concat_ws(' ', pair_id, stage, rows_copied, rows_logged, rows_drained) FROM partition_router.copy_state",
        "SELECT concat_ws(' ', name, relations, key_columns, waiting) FROM partition_router.change_feeds",
        "SELECT concat_ws(' ', parent, partition) FROM partition_router.partitions",
        "SELECT concat_ws(' ', operation, stage, legacy) FROM partition_router.run_log",
        "SELECT concat_ws(' ', relation, \"check\", status) FROM partition_router.health
         WHERE \"check\" NOT IN ('replica_lag', 'replication_slots', 'standby', 'settings', 'worker')",
    ] {
        facts.extend(texts(c, &format!("{query} ORDER BY 1")));
    }
    facts
}

/// The rows of both sides, as one text.
fn rows(c: &mut Client, place: &str) -> Vec<String> {
    let tables = texts(
        c,
        &format!(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relname LIKE 't\\_{place}%' AND c.relkind IN ('r', 'p')
             AND NOT c.relispartition ORDER BY 1"
        ),
    );
    let digest = |table: &String| {
        format!(
            "SELECT format('{table} %s %s', count(*), md5(string_agg(x::text, ',' ORDER BY id))) FROM {table} x"
        )
    };
    tables.iter().map(|table| one(c, &digest(table))).collect()
}

/// Nothing is wrong that was not so before: what is under way is to be gone on with.
fn assert_healthy(c: &mut Client) {
    let wrong = texts(
        c,
        "SELECT format('%s %s: %s', relation, \"check\", message) FROM partition_router.health
         WHERE status <> 'ok' AND NOT (\"check\" IN ('phase', 'parity') AND relation ~ '_(prepared|copy|index|drain|finish)$')",
    );
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Every pair goes on to its end, with every row that it had and those that are written meanwhile.
fn assert_goes_on(c: &mut Client) {
    for place in places().iter().copied() {
        let write = [
            format!("UPDATE t_{place} SET n = n + 10 WHERE id % 50 = 9"),
            format!("DELETE FROM t_{place} WHERE id = 15"),
            format!("INSERT INTO t_{place} VALUES (3000, '2026-03-03', 1, 'newer')"),
        ];
        run(c, &write.each_ref().map(String::as_str));
        let count = format!("SELECT format('%s %s', count(*), sum(n)) FROM t_{place}");
        let expected: String = one(c, &count);
        let steps: &[&str] = match place {
            "plain" => &["CALL partition_router.migrate('$T', 'at')"],
            "prepared" => &[
                "SELECT partition_router.start_sync('$T')",
                "CALL partition_router.backfill('$T')",
            ],
            "copy" | "index" | "drain" | "finish" => &["CALL partition_router.backfill('$T')"],
            _ => &[],
        };
        for step in steps {
            run(c, &[&step.replace("$T", &format!("t_{place}"))]);
        }
        if place == "done" {
            assert_eq!(one::<String>(c, &count), expected, "{place}");
            let twice =
                format!("INSERT INTO t_{place} VALUES (3000, '2026-01-03', 1, 'in another partition')");
            assert_eq!(sqlstate(c, &twice), "23505");
            continue;
        }
        let proof =
            format!("SELECT bool_and(matches) FROM partition_router.verify('t_{place}', 'rows', true)");
        assert!(one::<bool>(c, &proof), "{place}");
        let turn = if place == "switched" {
            "rollback"
        } else {
            "switchover"
        };
        run(
            c,
            &[
                &format!("CALL partition_router.{turn}('t_{place}')"),
                &format!("UPDATE t_{place} SET n = n + 0"),
            ],
        );
        assert_eq!(one::<String>(c, &count), expected, "{place}");
        assert!(one::<bool>(c, &proof), "{place}");
    }
    run(c, &["CALL partition_router.run_maintenance()"]);
    assert!(
        one::<bool>(c, "SELECT to_regclass('kept_2020_01') IS NOT NULL"),
        "it is held"
    );
    let wrong = texts(
        c,
        "SELECT format('%s %s: %s', relation, \"check\", message) FROM partition_router.health WHERE status <> 'ok'",
    );
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// An empty database for a dump.
fn target(cluster: std::sync::Arc<common::Cluster>, name: &str) -> (Database, Client) {
    let database = Database::on(cluster, name);
    let mut client = database.connect();
    run(&mut client, &["DROP EXTENSION partition_router"]);
    (database, client)
}
