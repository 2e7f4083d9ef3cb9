//! What becomes of a partition on another server when it is past its retention.

use crate::common::{one, run, sqlstate, texts};
use crate::{PLACE, kind, world};
use std::os::unix::fs::PermissionsExt;

#[test]
fn retention_drops_a_foreign_partition_and_leaves_what_is_over_there() {
    for by_hand in [false, true] {
        let mut world = world("retired_far");
        let (mut there, c) = (world.there(), &mut world.client);
        run(&mut there, &[PLACE]);
        run(c, &["CALL partition_router.place('visits_2025_01', 'cold')"]);
        let rows: i64 = one(&mut there, "SELECT count(*) FROM visits_2025_01");
        if by_hand {
            run(c, &["SELECT partition_router.drop_partition('visits_2025_01')"]);
        } else {
            run(
                c,
                &[
                    "SELECT partition_router.set_policy('visits', retention => '1 month')",
                    "CALL partition_router.run_maintenance('visits')",
                ],
            );
        }
        let failed = texts(
            c,
            "SELECT concat_ws(' ', sqlstate, message) FROM partition_router.maintenance_log WHERE status = 'failed'",
        );
        assert!(failed.is_empty(), "{failed:?}");
        assert!(one::<bool>(c, "SELECT to_regclass('visits_2025_01') IS NULL"));
        assert_eq!(
            one::<i64>(&mut there, "SELECT count(*) FROM visits_2025_01"),
            rows
        );
    }
}

#[test]
fn a_partition_over_there_is_archived_and_then_let_go_of() {
    for to_schema in [true, false] {
        let mut world = world("archived_far");
        let (mut there, c) = (world.there(), &mut world.client);
        run(&mut there, &[PLACE]);
        run(
            c,
            &[
                "CALL partition_router.place('visits_2025_01', 'cold')",
                "CREATE SCHEMA old",
            ],
        );
        let sum = "SELECT format('%s %s', count(*), md5(string_agg(v::text, ',' ORDER BY id))) FROM";
        let before: String = one(c, &format!("{sum} visits_2025_01 v"));
        let there_before: String = one(&mut there, &format!("{sum} visits_2025_01 v"));
        let to = match to_schema {
            true => "archive_schema => 'old'",
            false => "archive_format => 'csv'",
        };
        run(
            c,
            &[&format!(
                "SELECT partition_router.set_policy('visits', retention => '1 month', retention_action => 'archive', {to})"
            )],
        );
        let directory = std::env::temp_dir().join(&world.here.name);
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).expect("its rights");
        run(
            c,
            &[&format!(
                "SET partition_router.archive_directory = '{}'",
                directory.display()
            )],
        );
        let (mut hearing, notices) = world.here.connect_hearing();
        run(
            &mut hearing,
            &["CALL partition_router.run_maintenance('visits', dry_run => true)"],
        );
        drop(hearing);
        let planned: Vec<String> = notices
            .iter()
            .filter(|line| line.contains("visits_2025_01") && line.contains("TABLE"))
            .collect();
        let dropped = planned
            .iter()
            .filter(|line| line.contains("DROP "))
            .collect::<Vec<_>>();
        assert!(
            dropped.iter().all(|line| line.contains("DROP FOREIGN TABLE")),
            "{planned:?}"
        );
        assert_eq!(dropped.is_empty(), to_schema, "{planned:?}");
        run(c, &["CALL partition_router.run_maintenance('visits')"]);
        let failed = texts(
            c,
            "SELECT concat_ws(' ', action, partition, sqlstate, message) FROM partition_router.maintenance_log WHERE status = 'failed'",
        );
        assert!(failed.is_empty(), "{failed:?}");
        assert!(one::<bool>(c, "SELECT to_regclass('visits_2025_01') IS NULL"));
        let kept = "SELECT state FROM partition_router.archives WHERE partition = 'visits_2025_01'";
        assert_eq!(one::<String>(c, kept), "archived");
        if to_schema {
            assert_eq!(kind(c, "old.visits_2025_01"), "f");
            assert_eq!(one::<String>(c, &format!("{sum} old.visits_2025_01 v")), before);
        }
        // What is over there stays, whatever became of the name here.
        assert_eq!(
            one::<String>(&mut there, &format!("{sum} visits_2025_01 v")),
            there_before
        );
        run(
            c,
            &[
                "SELECT partition_router.restore_archive(id) FROM partition_router.archives
               WHERE partition = 'visits_2025_01'",
            ],
        );
        let back: String = one(c, &format!("{sum} visits v WHERE at < '2025-02-01'"));
        assert_eq!(back, before);
        assert_eq!(kind(c, "visits_2025_01"), if to_schema { "f" } else { "r" });
        if to_schema {
            let moved = "UPDATE visits SET at = '2025-02-02' WHERE at = '2025-01-05'";
            assert_eq!(sqlstate(c, moved), "23514");
        }
        std::fs::remove_dir_all(&directory).expect("the directory goes");
    }
}
