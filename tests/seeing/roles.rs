//! Who sees what: `pg_monitor` everything that is no data, strangers nothing, others by grants.

use super::common::{one, run, sqlstate, texts};
use super::live;

/// What is for `pg_monitor`, as it is called.
const SEEN: [&str; 5] = [
    "SELECT partition_router.metrics()",
    "SELECT partition_router.openmetrics()",
    "SELECT partition_router.report()",
    "SELECT partition_router.verify_partitions()",
    "SELECT * FROM partition_router.chart('revenues')",
];

#[test]
fn a_monitor_sees_all_but_data_and_a_stranger_nothing() {
    let (database, mut client) = live("roles");
    let (monitor, stranger) = (format!("m_{}", database.name), format!("s_{}", database.name));
    run(
        &mut client,
        &[
            &format!("CREATE ROLE {monitor} LOGIN IN ROLE pg_monitor"),
            &format!("CREATE ROLE {stranger} LOGIN"),
            "INSERT INTO revenues (at) VALUES (current_date - 400)",
        ],
    );
    let views = texts(
        &mut client,
        "SELECT format('SELECT * FROM %s', c.oid::regclass) FROM pg_class c
         WHERE c.relnamespace = 'partition_router'::regnamespace AND c.relkind = 'v'",
    );
    assert!(views.len() >= 10, "{views:?}");
    let calls: Vec<&str> = SEEN.into_iter().chain(views.iter().map(String::as_str)).collect();
    let (mut m, mut s) = (database.connect_as(&monitor), database.connect_as(&stranger));
    for call in &calls {
        run(&mut m, &[call]);
        assert_eq!(sqlstate(&mut s, call), "42501", "{call}");
    }
    // What a monitor is told is what an administrator is told, and rows are counted without a right on the table.
    let health = "SELECT jsonb_agg(to_jsonb(h) ORDER BY h)::text FROM partition_router.health h";
    assert_eq!(one::<String>(&mut m, health), one::<String>(&mut client, health));
    for data in [
        "SELECT * FROM revenues",
        "SELECT * FROM revenues_partitioned",
        "SELECT * FROM partition_router.mismatches('revenues')",
        "SELECT * FROM partition_router.verify('revenues')",
        "CALL partition_router.run_maintenance()",
    ] {
        assert_eq!(sqlstate(&mut m, data), "42501", "{data}");
    }
    drop((m, s));
    run(
        &mut client,
        &[&format!("DROP ROLE {monitor}"), &format!("DROP ROLE {stranger}")],
    );
}

#[test]
fn an_operator_is_made_by_grants_and_is_no_superuser() {
    let (database, mut client) = live("operator");
    let (owner, operator) = (format!("o_{}", database.name), format!("p_{}", database.name));
    run(
        &mut client,
        &[
            &format!("CREATE ROLE {owner}"),
            &format!("CREATE ROLE {operator} LOGIN IN ROLE {owner}"),
            &format!("GRANT CREATE ON SCHEMA public TO {owner}"),
            &format!("ALTER TABLE revenues OWNER TO {owner}"),
            &format!("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO {operator}"),
            &format!("GRANT SELECT ON partition_router.health TO {operator}"),
        ],
    );
    let mut o = database.connect_as(&operator);
    run(
        &mut o,
        &[
            "INSERT INTO revenues (at) VALUES (current_date - 400)",
            "CALL partition_router.run_maintenance('revenues')",
            "SELECT * FROM partition_router.verify('revenues')",
            "SELECT partition_router.set_rollout('revenues', percent => 5)",
        ],
    );
    let wrong = texts(
        &mut o,
        "SELECT format('%s: %s', \"check\", message) FROM partition_router.health WHERE status <> 'ok'",
    );
    assert!(wrong.is_empty(), "{wrong:?}");
    drop(o);
    run(&mut client, &["SELECT partition_router.abandon('revenues')"]);
    run(
        &mut client,
        &[
            &format!("DROP OWNED BY {owner}, {operator} CASCADE"),
            &format!("DROP ROLE {owner}, {operator}"),
        ],
    );
}
