//! Who may, and as whom it runs.

use super::{Pair, one, run};
use crate::common::sqlstate;

/// A live pair that belongs to `owner`, with sessions of the owner and of another role.
fn owned(test: &str) -> (Pair, String, String) {
    let mut pair = Pair::live(test);
    let (owner, other) = (
        format!("o_{}", pair.database.name),
        format!("p_{}", pair.database.name),
    );
    pair.run(&[
        &format!("CREATE ROLE {owner} LOGIN"),
        &format!("CREATE ROLE {other} LOGIN"),
        &format!("ALTER TABLE a OWNER TO {owner}"),
        &format!("GRANT ALL ON a, a_partitioned TO {other}"),
    ]);
    (pair, owner, other)
}

fn clean(mut pair: Pair, roles: &[String]) {
    for role in roles {
        pair.run(&[
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
                    AND datname = current_database()",
            &format!("DROP OWNED BY {role}"),
            &format!("DROP ROLE {role}"),
        ]);
    }
}

#[test]
fn an_owner_without_other_rights_may_alter_either_side() {
    let (mut pair, owner, other) = owned("owner");
    // Not even on the schema, which an index needs.
    pair.run(&["REVOKE CREATE ON SCHEMA public FROM PUBLIC"]);
    let mut session = pair.database.connect_as(&owner);
    run(
        &mut session,
        &[
            "ALTER TABLE a ADD COLUMN x int DEFAULT 1",
            "ALTER TABLE a_partitioned ADD CHECK (x > 0)",
            "ALTER TABLE a RENAME COLUMN d TO day",
            "ALTER TABLE a_partitioned ALTER n TYPE bigint USING n + 1",
            "ALTER TABLE a ADD COLUMN y int GENERATED ALWAYS AS (x + 1) STORED",
        ],
    );
    pair.in_step();
    // What the superuser may, the owner need not.
    pair.run(&["CREATE INDEX ON a (n)"]);
    pair.in_step();
    assert_eq!(sqlstate(&mut session, "CREATE INDEX ON a (x)"), "42501");
    pair.run(&[&format!("GRANT CREATE ON SCHEMA public TO {owner}")]);
    run(
        &mut session,
        &["CREATE INDEX ON a (x)", "CREATE INDEX ON a_partitioned (y)"],
    );
    pair.in_step();
    drop(session);
    pair.run(&[
        &format!("REVOKE CREATE ON SCHEMA public FROM {owner}"),
        "ALTER TABLE a OWNER TO postgres",
    ]);
    clean(pair, &[owner, other]);
}

#[test]
fn who_may_not_alter_a_table_cannot_even_lock_it() {
    let (mut pair, owner, other) = owned("stranger");
    let mut holder = pair.database.connect();
    run(
        &mut holder,
        &["BEGIN", "LOCK TABLE a_partitioned IN ACCESS SHARE MODE"],
    );
    let mut session = pair.database.connect_as(&other);
    for statement in [
        "ALTER TABLE a ADD COLUMN x int",
        "ALTER TABLE a_partitioned DROP COLUMN n",
        "CREATE INDEX ON a (n)",
        "DROP TABLE a",
        "DROP INDEX a_u_d_key",
        "ALTER TABLE a DISABLE TRIGGER USER",
        "CREATE TABLE p PARTITION OF a_partitioned FOR VALUES FROM ('2090-01-01') TO ('2090-02-01')",
    ] {
        assert_eq!(sqlstate(&mut session, statement), "42501", "{statement}");
    }
    run(&mut holder, &["COMMIT"]);
    pair.in_step();
    drop((session, holder));
    pair.run(&["ALTER TABLE a OWNER TO postgres"]);
    clean(pair, &[owner, other]);
}

#[test]
fn who_owns_one_side_only_is_refused() {
    let (mut pair, owner, other) = owned("half");
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        &format!("ALTER TABLE a_partitioned OWNER TO {other}"),
        "SET partition_router.carry_ddl = on",
    ]);
    for (role, side) in [(&owner, "a"), (&other, "a_partitioned")] {
        let mut session = pair.database.connect_as(role);
        assert_eq!(
            sqlstate(&mut session, &format!("ALTER TABLE {side} ADD COLUMN x int")),
            "42501"
        );
    }
    pair.run(&["ALTER TABLE a OWNER TO postgres"]);
    pair.in_step();
    clean(pair, &[owner, other]);
}

#[test]
fn expressions_run_as_the_owner_whoever_carries() {
    let (mut pair, owner, other) = owned("as_owner");
    let mut session = pair.database.connect_as(&owner);
    pair.run(&[
        "CREATE TABLE who (name text)",
        "GRANT ALL ON who TO PUBLIC",
        &format!("GRANT CREATE ON SCHEMA public TO {owner}"),
    ]);
    run(
        &mut session,
        &[
            "CREATE FUNCTION f(bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS
         $$ BEGIN INSERT INTO public.who VALUES (current_user); RETURN true; END $$",
            // On the twin alone, where the superuser's statement does not show it.
            "ALTER TABLE a_partitioned ADD CONSTRAINT evil CHECK (f(n))",
        ],
    );
    pair.run(&[
        "SET partition_router.carry_ddl = off",
        "ALTER TABLE a DROP CONSTRAINT evil",
        "SET partition_router.carry_ddl = on",
        "TRUNCATE who",
        // Rewrites the twin and checks its constraints.
        "ALTER TABLE a ALTER n TYPE bigint",
    ]);
    assert_eq!(
        super::texts(&mut pair.client, "SELECT DISTINCT name FROM who"),
        std::slice::from_ref(&owner)
    );
    assert!(one::<i64>(&mut pair.client, "SELECT count(*) FROM who") >= 100);
    pair.run(&["ALTER TABLE a_partitioned DROP CONSTRAINT evil"]);
    drop(session);
    pair.run(&[
        "ALTER TABLE a OWNER TO postgres",
        &format!("REVOKE CREATE ON SCHEMA public FROM {owner}"),
    ]);
    clean(pair, &[owner, other]);
}

#[test]
fn a_hostile_search_path_changes_nothing() {
    let mut pair = Pair::live("hostile");
    pair.run(&[
        "CREATE SCHEMA evil",
        "CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'evil'; END $$",
        "CREATE FUNCTION evil.nextval(regclass) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$",
        "CREATE TABLE evil.pair (id int)",
        "CREATE DOMAIN evil.int8 AS text",
        "ALTER TABLE a ADD CHECK (lower(t) <> 'x')",
        "SET search_path = evil, public, pg_catalog",
        "ALTER TABLE a ADD COLUMN x pg_catalog.int8, ADD COLUMN y int8 DEFAULT '5'",
        "ALTER TABLE a_partitioned ALTER n TYPE pg_catalog.int8",
    ]);
    let kinds = "SELECT string_agg(format('%s %s', attname, atttypid::oid::regtype), ', ' ORDER BY attname)
                 FROM pg_catalog.pg_attribute WHERE attrelid = 'public.a_partitioned'::regclass AND attname IN ('n', 'x', 'y')";
    pair.run(&["SET search_path = public"]);
    assert_eq!(pair.one::<String>(kinds), "n bigint, x bigint, y evil.int8");
    pair.in_step();
}
