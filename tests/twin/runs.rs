//! Strategies, names, dry runs and the rights that a migration needs.

use super::common::{Database, assert_equal_sides, one, run};
use super::{partitions, texts};

#[test]
fn partitions_are_named_after_their_interval() {
    let database = Database::new("names");
    let mut client = database.connect();
    for (table, interval, name, lower, upper) in [
        ("m", "1 month", "m_2025_01", "2025-01-01", "2025-02-01"),
        ("q", "3 months", "q_2025_q1", "2025-01-01", "2025-04-01"),
        ("d", "1 day", "d_2025_01_31", "2025-01-31", "2025-02-01"),
        ("w", "1 week", "w_2025_w05", "2025-01-27", "2025-02-03"),
        ("y", "1 year", "y_2025", "2025-01-01", "2026-01-01"),
    ] {
        for kind in ["date", "timestamp", "timestamptz"] {
            run(
                &mut client,
                &[
                    &format!("DROP TABLE IF EXISTS {table}"),
                    &format!("CREATE TABLE {table} (id int PRIMARY KEY, at {kind} NOT NULL)"),
                    &format!("INSERT INTO {table} VALUES (1, '2025-01-31')"),
                    &format!("SELECT partition_router.create_twin('{table}', 'at', 'range', '{interval}')"),
                ],
            );
            let first = partitions(&mut client, &format!("{table}_partitioned")).remove(0);
            let zeros = match kind {
                "date" => "",
                "timestamp" => " 00:00:00",
                _ => " 00:00:00+00",
            };
            assert_eq!(
                first,
                format!("{name} FOR VALUES FROM ('{lower}{zeros}') TO ('{upper}{zeros}')")
            );
            run(
                &mut client,
                &[&format!("SELECT partition_router.abandon('{table}')")],
            );
        }
    }
}

#[test]
fn every_strategy_and_key_type_migrates_and_stays_in_step() {
    let database = Database::new("strategies");
    let mut client = database.connect();
    for (table, columns, key, arguments, rows, expected) in [
        (
            "i",
            "id bigint PRIMARY KEY",
            "id",
            ", partition_interval => '5000'",
            "SELECT generate_series(-5, 20005, 10)",
            "i_n5000 FOR VALUES FROM ('-5000') TO ('0')",
        ),
        (
            "e",
            "id int PRIMARY KEY, ts bigint NOT NULL",
            "ts",
            "",
            "SELECT g, 1790812800 + g * 86400 FROM generate_series(1, 60) g",
            "e_2026_10 FOR VALUES FROM ('1790812800') TO ('1793491200')",
        ),
        (
            "u",
            "id uuid PRIMARY KEY",
            "id",
            "",
            "SELECT (lpad(to_hex(1790812800000 + g * 86400000::bigint), 12, '0') || '7000800000000000'
                || lpad(to_hex(g), 4, '0'))::uuid FROM generate_series(1, 60) g",
            "u_2026_10 FOR VALUES FROM ('01a0f4c2-c400-0000-0000-000000000000') TO ('01a19467-e800-0000-0000-000000000000')",
        ),
        (
            "h",
            "id int PRIMARY KEY, org text",
            "org",
            ", 'hash', partitions => 5",
            "SELECT g, 'o' || g FROM generate_series(1, 100) g",
            "h_0 FOR VALUES WITH (modulus 5, remainder 0)",
        ),
        (
            "l",
            "id int PRIMARY KEY, status text",
            "status",
            ", 'list'",
            "VALUES (1, 'a b'), (2, 'default'), (3, 'O''Brien'), (4, repeat('x', 80)), (5, 'partitioned')",
            "\"l_a b\" FOR VALUES IN ('a b')",
        ),
    ] {
        run(
            &mut client,
            &[
                &format!("CREATE TABLE {table} ({columns})"),
                &format!("INSERT INTO {table} {rows}"),
                &format!("CALL partition_router.migrate('{table}', '{key}'{arguments})"),
            ],
        );
        let made = partitions(&mut client, &format!("{table}_partitioned"));
        assert!(made.contains(&expected.replace('"', "")), "{table}: {made:?}");
        assert_equal_sides(&mut client, table, &format!("{table}_partitioned"), "*");
        run(
            &mut client,
            &[&format!(
                "DELETE FROM {table} WHERE ctid = (SELECT min(ctid) FROM {table})"
            )],
        );
        assert_equal_sides(&mut client, table, &format!("{table}_partitioned"), "*");
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM l_default"), 0);
    assert_eq!(partitions(&mut client, "h_partitioned").len(), 5);
}

#[test]
fn a_migrated_twin_can_have_any_name() {
    let database = Database::new("name");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO t VALUES (1, '2026-01-01')",
            "CALL partition_router.migrate('t', 'at', twin => 'It''s \"mine\" Ü')",
            "INSERT INTO t VALUES (2, '2026-01-02')",
        ],
    );
    assert_equal_sides(&mut client, "t", "\"It's \"\"mine\"\" Ü\"", "id, at");
}

#[test]
fn a_check_and_a_foreign_key_that_are_not_valid_do_not_stop_the_copy() {
    let database = Database::new("not_valid");
    let mut client = database.connect();
    // Older than the rows: they are all taken for young, and go through the change log.
    let mut old = database.connect();
    run(&mut old, &["BEGIN", "SELECT pg_current_xact_id()"]);
    run(
        &mut client,
        &[
            "CREATE TABLE o (id int PRIMARY KEY)",
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, amount int, o int)",
            "INSERT INTO t VALUES (1, '2026-01-01', -1, 99), (2, '2026-02-01', 1, NULL)",
            "ALTER TABLE t ADD CHECK (amount > 0) NOT VALID",
            "ALTER TABLE t ADD FOREIGN KEY (o) REFERENCES o NOT VALID",
        ],
    );
    let codes = texts(
        &mut client,
        "SELECT code FROM partition_router.preflight('t', 'at')",
    );
    assert!(codes.contains(&"foreign_key_not_valid".to_string()), "{codes:?}");
    run(
        &mut client,
        &[
            "CALL partition_router.migrate('t', 'at')",
            "DELETE FROM t WHERE id = 1",
        ],
    );
    run(&mut old, &["COMMIT"]);
    assert_equal_sides(&mut client, "t", "t_partitioned", "id, at, amount, o");
    let unproven = "SELECT count(*) FROM pg_constraint WHERE conname = 't_amount_check' AND NOT convalidated
                    AND conrelid IN ('t'::regclass, 't_partitioned'::regclass)";
    assert_eq!(one::<i64>(&mut client, unproven), 2);
    run(&mut client, &["ALTER TABLE t VALIDATE CONSTRAINT t_amount_check"]);
    assert_eq!(one::<i64>(&mut client, unproven), 0);
}

#[test]
fn a_dry_run_changes_nothing_and_prints_the_plan_of_the_real_run() {
    let database = Database::new("dry");
    let (mut client, notices) = database.connect_hearing();
    run(
        &mut client,
        &[
            "CREATE TABLE t (id serial PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO t (at) SELECT date '2026-01-01' + g FROM generate_series(1, 90) g",
        ],
    );
    let count = "SELECT count(*) FROM pg_class";
    let before: i64 = one(&mut client, count);
    run(
        &mut client,
        &["CALL partition_router.migrate('t', 'at', dry_run => true)"],
    );
    let steps = "SELECT concat_ws(': ', 'step ' || step, action, statement)
                 FROM partition_router.create_twin('t', 'at', dry_run => ";
    let printed: Vec<String> = notices.try_iter().collect();
    let dry = texts(&mut client, &format!("{steps} true)"));
    assert_eq!(printed, dry);
    assert!(dry.len() > 8, "{dry:?}");
    assert_eq!(before, one::<i64>(&mut client, count));
    let real = texts(&mut client, &format!("{steps} false)"));
    assert_eq!(dry, real);
    for (operation, action) in [
        ("start_sync", "create trigger"),
        ("backfill", "copy rows"),
        ("abandon", "drop the twin"),
    ] {
        let before: i64 = one(&mut client, count);
        let plan = texts(
            &mut client,
            &format!("SELECT action FROM partition_router.plan('{operation}', 't') ORDER BY step"),
        );
        assert!(plan.iter().any(|a| a.contains(action)), "{operation}: {plan:?}");
        assert_eq!(before, one::<i64>(&mut client, count));
    }
    notices.try_iter().for_each(drop);
    run(
        &mut client,
        &["SELECT partition_router.abandon('t', dry_run => true)"],
    );
    assert!(notices.try_iter().any(|n| n.contains("DROP TABLE")));
    assert_eq!(
        one::<String>(&mut client, "SELECT phase FROM partition_router.status"),
        "prepared"
    );
}

#[test]
fn an_owner_without_superuser_runs_the_whole_of_a_migration() {
    let database = Database::new("plain_owner");
    let mut admin = database.connect();
    let owner = format!("owner_{}", database.name);
    run(
        &mut admin,
        &[
            &format!("CREATE ROLE {owner} LOGIN"),
            &format!("CREATE SCHEMA s AUTHORIZATION {owner}"),
            &format!("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO {owner}"),
        ],
    );
    let mut client = database.connect_as(&owner);
    run(
        &mut client,
        &[
            "CREATE TABLE s.o (id int PRIMARY KEY)",
            "INSERT INTO s.o VALUES (1)",
            "CREATE TABLE s.t (id serial PRIMARY KEY, at date NOT NULL, o int REFERENCES s.o)",
            "INSERT INTO s.t (at, o) SELECT date '2026-01-01' + g, 1 FROM generate_series(1, 90) g",
            "SELECT partition_router.preflight('s.t', 'at')",
            "CALL partition_router.migrate('s.t', 'at', dry_run => true)",
            "CALL partition_router.migrate('s.t', 'at')",
            "UPDATE s.t SET at = at + 40 WHERE id < 20",
            "SELECT partition_router.set_rollout('s.t', 100)",
            "SELECT partition_router.plan('abandon', 's.t')",
        ],
    );
    for level in ["counts", "checksum", "rows"] {
        let query = format!("SELECT bool_and(matches) FROM partition_router.verify('s.t', '{level}')");
        assert!(one::<bool>(&mut client, &query), "{level}");
    }
    assert_eq!(
        one::<String>(&mut client, "SELECT partition_router.route('s.t')::text"),
        "s.t_partitioned"
    );
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM partition_router.mismatches('s.t')"
        ),
        0
    );
    assert_eq!(
        one::<i64>(&mut client, "SELECT inserted FROM partition_router.repair('s.t')"),
        0
    );
    run(
        &mut client,
        &[
            "SELECT partition_router.abandon('s.t')",
            "INSERT INTO s.t (at) VALUES ('2026-01-01')",
        ],
    );
    let left = texts(
        &mut client,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 's'::regnamespace AND relkind = 'r' ORDER BY 1",
    );
    assert_eq!(left, ["o", "t"]);
    drop(client);
    run(
        &mut admin,
        &[
            "DROP SCHEMA s CASCADE",
            &format!("DROP OWNED BY {owner}"),
            &format!("DROP ROLE {owner}"),
        ],
    );
}

#[test]
fn partitions_stay_in_the_tablespace_of_the_legacy() {
    let database = Database::new("space");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "SET allow_in_place_tablespaces = on",
            "CREATE TABLESPACE \"far Away\" LOCATION ''",
            "CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL) TABLESPACE \"far Away\"",
            "INSERT INTO t VALUES (1, '2026-01-01')",
            "CALL partition_router.migrate('t', 'at')",
        ],
    );
    let spaces = texts(
        &mut client,
        "SELECT DISTINCT coalesce(s.spcname::text, 'default') FROM pg_partition_tree('t_partitioned') p
         JOIN pg_class c ON c.oid = p.relid LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace",
    );
    assert_eq!(spaces, ["far Away"]);
    run(
        &mut client,
        &["DROP TABLE t_partitioned, t", "DROP TABLESPACE \"far Away\""],
    );
}
