//! Whose a query is: the session's tenant, or what the query itself asks for.

use crate::Routed;
use crate::common::{run, sqlstate, texts};
use postgres::Client;

fn with_pilot(test: &str) -> Routed {
    let mut routed = Routed::new(test);
    routed.run(&[
        "SET partition_router.use_partitioned_tables = off",
        "SELECT partition_router.set_rollout('revenues', pilots => '{3}', tenant_column => 'org')",
    ]);
    routed
}

fn side(c: &mut Client, query: &str) -> String {
    texts(c, query).join(",")
}

#[test]
fn the_query_names_the_tenant() {
    let mut routed = with_pilot("named");
    let c = &mut routed.client;
    run(
        c,
        &[
            "CREATE VIEW v AS SELECT side AS s, org AS o FROM revenues WHERE amount > 0",
            "CREATE VIEW u AS SELECT side, org FROM revenues UNION ALL SELECT side, org FROM revenues",
            "CREATE FUNCTION of_org(o text) RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT side FROM revenues WHERE org = o'",
            "CREATE TABLE orgs (org text PRIMARY KEY)",
            "INSERT INTO orgs VALUES ('3'), ('4')",
        ],
    );
    for query in [
        "SELECT DISTINCT side FROM revenues WHERE org = $T",
        "SELECT DISTINCT side FROM revenues WHERE $T = org AND amount > 0",
        "SELECT DISTINCT r.side FROM revenues r JOIN orgs o ON r.org = o.org WHERE o.org = $T",
        "SELECT DISTINCT r.side FROM orgs o JOIN revenues r USING (org) WHERE org = $T",
        "SELECT DISTINCT r.side FROM orgs o LEFT JOIN revenues r ON r.org = o.org AND r.org = $T WHERE r.side IS NOT NULL",
        "SELECT DISTINCT s FROM v WHERE o = $T",
        "SELECT DISTINCT side FROM u WHERE org = $T",
        "SELECT DISTINCT side FROM (SELECT org, side FROM revenues) s WHERE org = $T",
        "SELECT DISTINCT x FROM of_org($T) x",
        "SELECT (SELECT DISTINCT side FROM revenues WHERE org = $T)",
        "WITH w AS (SELECT side FROM revenues WHERE org = $T) SELECT DISTINCT side FROM w",
    ] {
        for (tenant, expected) in [("'3'", "twin"), ("'4'", "legacy")] {
            assert_eq!(
                side(c, &query.replace("$T", tenant)),
                expected,
                "{query} of {tenant}"
            );
        }
    }
    for query in [
        "SELECT DISTINCT side FROM revenues",
        "SELECT DISTINCT side FROM revenues WHERE org = '3' OR amount > 0",
        "SELECT DISTINCT side FROM revenues WHERE org <> '3'",
        "SELECT DISTINCT side FROM revenues WHERE NOT org = '3'",
        "SELECT DISTINCT side FROM revenues WHERE side IS NOT NULL AND amount = 3",
    ] {
        assert_eq!(side(c, query), "legacy", "{query}");
    }
    assert_eq!(
        side(
            c,
            "SELECT DISTINCT a.side || b.side FROM revenues a, revenues b WHERE a.org = '3' AND b.org = '4'"
        ),
        "twinlegacy"
    );
}

#[test]
fn the_sessions_tenant_comes_before_the_querys() {
    let mut routed = with_pilot("first");
    let c = &mut routed.client;
    run(c, &["SET partition_router.tenant = '4'"]);
    assert_eq!(
        side(c, "SELECT DISTINCT side FROM revenues WHERE org = '3'"),
        "legacy"
    );
    run(c, &["SET partition_router.tenant = '3'"]);
    assert_eq!(
        side(c, "SELECT DISTINCT side FROM revenues WHERE org = '4'"),
        "twin"
    );
    run(c, &["RESET partition_router.tenant"]);
    assert_eq!(
        side(c, "SELECT DISTINCT side FROM revenues WHERE org = '4'"),
        "legacy"
    );
}

#[test]
fn a_parameter_names_the_tenant_of_each_execution() {
    let mut routed = with_pilot("parameters");
    let c = &mut routed.client;
    run(
        c,
        &[
            "CREATE FUNCTION side_of(o text) RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN RETURN (SELECT DISTINCT side FROM revenues WHERE org = o); END $$",
            "PREPARE p(text) AS SELECT DISTINCT side FROM revenues WHERE org = $1",
        ],
    );
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        run(c, &[&format!("SET plan_cache_mode = {mode}")]);
        let statement = c
            .prepare("SELECT DISTINCT side FROM revenues WHERE org = $1")
            .expect("prepared");
        for _ in 0..8 {
            for (tenant, expected) in [("3", "twin"), ("4", "legacy")] {
                assert_eq!(side(c, &format!("EXECUTE p('{tenant}')")), expected, "{mode}");
                assert_eq!(
                    side(c, &format!("SELECT side_of('{tenant}')")),
                    expected,
                    "{mode}"
                );
                let driver: String = c.query_one(&statement, &[&tenant]).expect("a side").get(0);
                assert_eq!(driver, expected, "{mode}");
            }
        }
    }
}

#[test]
fn tenants_are_texts_integers_and_uuids() {
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    for (name, column, tenant, literal) in [
        ("bigint", "bigint", "-3", "-3".to_string()),
        ("smallint", "smallint", "3", "3".to_string()),
        ("varchar", "varchar(9)", "o'b", "'o''b'".to_string()),
        ("bpchar", "char(5)", "ab", "'ab'".to_string()),
        ("uuid", "uuid", uuid, format!("'{uuid}'")),
    ] {
        let database = crate::Database::new(&format!("tenant_{name}"));
        let mut admin = database.connect();
        run(
            &mut admin,
            &[
                &format!("CREATE TABLE a (id serial PRIMARY KEY, org {column}, side text)"),
                &format!("INSERT INTO a (org, side) VALUES ({literal}, 'legacy')"),
                "CALL partition_router.migrate('a', 'id', 'hash', partitions => 2)",
            ],
        );
        crate::plant(
            &mut admin,
            "a_partitioned",
            &["UPDATE a_partitioned SET side = 'twin'"],
        );
        admin
            .execute(
                "SELECT partition_router.set_rollout('a', pilots => ARRAY[$1], tenant_column => 'org')",
                &[&tenant],
            )
            .expect("a rollout");
        let mut c = Routed::session(&database);
        run(&mut c, &["RESET partition_router.use_partitioned_tables"]);
        assert_eq!(
            side(&mut c, &format!("SELECT side FROM a WHERE org = {literal}")),
            "twin",
            "{name}"
        );
        assert_eq!(side(&mut c, "SELECT side FROM a"), "legacy", "{name}");
    }
}

#[test]
fn a_tenant_column_has_to_be_one() {
    let mut routed = with_pilot("columns");
    let c = &mut routed.client;
    for wrong in ["nothing", "at", "ctid"] {
        let call = format!("SELECT partition_router.set_rollout('revenues', tenant_column => '{wrong}')");
        assert_eq!(sqlstate(c, &call), "22023", "{wrong}");
    }
    let query = "SELECT DISTINCT side FROM revenues WHERE org = '3'";
    assert_eq!(side(c, query), "twin");
    run(c, &["ALTER TABLE revenues RENAME COLUMN org TO organisation"]);
    let renamed = "SELECT DISTINCT side FROM revenues WHERE organisation = '3'";
    assert_eq!(side(c, renamed), "twin", "the rollout follows the column's name");
    run(
        c,
        &["SELECT partition_router.set_rollout('revenues', tenant_column => '')"],
    );
    assert_eq!(side(c, renamed), "legacy");
}
