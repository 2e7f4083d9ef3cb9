//! What cannot be placed, and who may place what can.

use crate::common::{one, run, sqlstate};
use crate::{PLACE, SUM, assert_clean, kind, world};
use postgres::Client;

#[test]
fn what_cannot_be_placed_is_refused_before_anything_changes() {
    let mut world = world("unplaceable");
    let (mut there, c) = (world.there(), &mut world.client);
    run(
        c,
        &[
            "CREATE EXTENSION file_fdw",
            "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
            "CREATE SERVER unmapped FOREIGN DATA WRAPPER postgres_fdw",
            "CREATE SERVER down FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere')",
            "CREATE USER MAPPING FOR CURRENT_USER SERVER down OPTIONS (user 'postgres')",
            "CREATE TABLE keyed (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
            "CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "CREATE TABLE listed (at int) PARTITION BY LIST (at)",
            "CREATE TABLE listed_1 PARTITION OF listed FOR VALUES IN (1)",
            "CREATE TABLE visits_rest PARTITION OF visits DEFAULT",
            "CREATE TABLE computed (at date, y int GENERATED ALWAYS AS (EXTRACT(year FROM at)::int) STORED) PARTITION BY RANGE (at)",
            "CREATE TABLE computed_1 PARTITION OF computed FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "CREATE TABLE named (at date PRIMARY KEY)",
            "CREATE TABLE pointing (at date REFERENCES named) PARTITION BY RANGE (at)",
            "CREATE TABLE pointing_1 PARTITION OF pointing FOR VALUES FROM ('2025-01-01') TO ('2025-02-01')",
            "CREATE TABLE paired (id int PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO paired VALUES (1, '2025-01-01')",
            "CALL partition_router.migrate('paired', 'at')",
        ],
    );
    let said = |c: &mut Client, partition: &str, server: &str, words: &str| {
        let call = format!("CALL partition_router.place('{partition}', '{server}')");
        let error = c.batch_execute(&call).expect_err(&call);
        let error = error.as_db_error().expect("an error of the server").clone();
        let text = format!("{} {}", error.detail().unwrap_or(""), error.hint().unwrap_or(""));
        assert_eq!(error.code().code(), "PR023", "{call}: {} {text}", error.message());
        assert!(text.contains(words), "{call}: {text}");
        assert_clean(c);
    };
    said(c, "visits_2025_01", "nowhere", "There is no server");
    said(c, "visits_2025_01", "files", "none of postgres_fdw");
    said(c, "visits_2025_01", "unmapped", "no user mapping");
    said(c, "visits_2025_01", "down", "cannot be read");
    said(
        c,
        "visits_2025_01",
        "cold",
        "CREATE TABLE \"public\".\"visits_2025_01\"",
    );
    said(c, "keyed_1", "cold", "unique index");
    said(c, "keyed_1", "cold", "dry_run => true prints");
    said(c, "listed_1", "cold", "by range of one column, or by hash");
    said(c, "visits_rest", "cold", "by range of one column, or by hash");
    said(c, "computed_1", "cold", "is generated");
    said(c, "pointing_1", "cold", "foreign key");
    said(c, "paired_2025_01", "cold", "pair");
    // A table without the bounds, with other bounds, with rows.
    for (table, words) in [
        (
            "CREATE TABLE visits_2025_01 (id bigint, at date, note text)",
            "no CHECK",
        ),
        (
            "CREATE TABLE visits_2025_01 (id bigint, at date, note text, CHECK (at >= '2025-01-01' AND at < '2025-03-01'))",
            "no CHECK",
        ),
    ] {
        run(&mut there, &["DROP TABLE IF EXISTS visits_2025_01", table]);
        said(c, "visits_2025_01", "cold", words);
    }
    run(
        &mut there,
        &[
            "DROP TABLE visits_2025_01",
            PLACE,
            "INSERT INTO visits_2025_01 VALUES (1, '2025-01-01', 'somebody''s')",
        ],
    );
    said(c, "visits_2025_01", "cold", "has rows already");
    for (call, code) in [
        ("CALL partition_router.place('visits_2025_01', NULL)", "PR023"),
        ("CALL partition_router.place('named', 'cold')", "42809"),
        ("CALL partition_router.place(NULL, 'cold')", "22004"),
    ] {
        assert_eq!(sqlstate(c, call), code, "{call}");
    }
    // An owner who may not use the server.
    let role = format!("placer_{}", world.here.name);
    run(
        c,
        &[
            &format!("CREATE ROLE {role} LOGIN"),
            &format!("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA partition_router TO {role}"),
            &format!("ALTER TABLE visits OWNER TO {role}"),
            &format!("ALTER TABLE visits_2025_01 OWNER TO {role}"),
            &format!("GRANT ALL ON SCHEMA public TO {role}"),
        ],
    );
    let mut owner = world.here.connect_as(&role);
    let call = "CALL partition_router.place('visits_2025_01', 'cold')";
    let error = owner.batch_execute(call).expect_err(call);
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "PR023");
    assert!(
        error.detail().unwrap_or("").contains("may not use server"),
        "{error:?}"
    );
    drop(owner);
    run(
        c,
        &[
            &format!("DROP OWNED BY {role} CASCADE"),
            &format!("DROP ROLE {role}"),
        ],
    );
}

#[test]
fn an_owner_who_is_no_superuser_places_with_execute_on_the_call_alone() {
    let mut world = world("owned");
    let (mut there, c) = (world.there(), &mut world.client);
    run(&mut there, &[PLACE]);
    let role = format!("owner_{}", world.here.name);
    run(
        c,
        &[
            &format!("CREATE ROLE {role} LOGIN"),
            &format!(
                "GRANT EXECUTE ON FUNCTION partition_router.place_step(regclass, name) TO {role};
                 GRANT EXECUTE ON PROCEDURE partition_router.place(regclass, name, boolean) TO {role}"
            ),
            &format!("GRANT USAGE ON FOREIGN SERVER cold TO {role}"),
            // Only a superuser may say that no password is asked for, as the tests' servers do not.
            &format!(
                "CREATE USER MAPPING FOR {role} SERVER cold OPTIONS (user 'postgres', password_required 'false')"
            ),
            &format!("GRANT CREATE ON SCHEMA public TO {role}"),
            &format!("ALTER TABLE visits OWNER TO {role}"),
            &format!("ALTER TABLE visits_2025_01 OWNER TO {role}"),
            // A trigger of the table whose function its owner may not execute comes to the foreign table as well.
            "CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "REVOKE ALL ON FUNCTION loud() FROM PUBLIC",
            "CREATE TRIGGER loud AFTER UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION loud()",
        ],
    );
    let before: String = one(c, SUM);
    let mut owner = world.here.connect_as(&role);
    run(
        &mut owner,
        &["CALL partition_router.place('visits_2025_01', 'cold')"],
    );
    assert_eq!(kind(c, "visits_2025_01"), "f");
    assert_eq!(one::<String>(&mut owner, SUM), before);
    let owned = "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = 'visits_2025_01'::regclass";
    assert_eq!(one::<String>(c, owned), role);
    run(
        &mut owner,
        &["CALL partition_router.place('visits_2025_01', NULL)"],
    );
    assert_eq!(one::<String>(c, owned), role);
    assert_eq!(one::<String>(c, SUM), before);
    assert_clean(c);
    drop(owner);
    run(
        c,
        &[
            &format!("DROP OWNED BY {role} CASCADE"),
            &format!("DROP ROLE {role}"),
        ],
    );
}
