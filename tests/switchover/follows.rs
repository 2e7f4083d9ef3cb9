//! Whatever refers to the table by its oid follows the name.

use super::common::{Database, assert_equal_sides, one, run, texts};
use super::{BACK, THERE};
use postgres::Client;

const WORLD: &[&str] = &[
    "CREATE ROLE sw_reader",
    "CREATE ROLE sw_writer",
    "CREATE SCHEMA s",
    "CREATE TABLE s.orgs (id int PRIMARY KEY)",
    "INSERT INTO s.orgs VALUES (1), (2)",
    "CREATE TABLE s.t (id serial PRIMARY KEY, at timestamp NOT NULL DEFAULT now(), org int REFERENCES s.orgs ON DELETE CASCADE,
        idn int GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 2), code text UNIQUE, amount int CHECK (amount >= 0))",
    "CREATE TABLE s.child (id int PRIMARY KEY, parent int REFERENCES s.t ON DELETE CASCADE)",
    "CREATE INDEX by_org ON s.t (org, at DESC) WHERE amount > 5",
    "CREATE STATISTICS s.st ON org, code FROM s.t",
    "CREATE VIEW s.v WITH (security_barrier) AS SELECT id, amount FROM s.t WITH CASCADED CHECK OPTION",
    "ALTER VIEW s.v ALTER amount SET DEFAULT 7",
    "COMMENT ON VIEW s.v IS 'a view'",
    "GRANT SELECT ON s.v TO sw_reader",
    "CREATE VIEW s.renamed (a, b) AS SELECT v.id, r.code FROM s.v JOIN s.t r USING (id)",
    "CREATE VIEW s.above AS SELECT count(*) FROM s.renamed",
    "CREATE MATERIALIZED VIEW s.m AS SELECT org, count(*) AS n FROM s.t GROUP BY org",
    "CREATE FUNCTION s.total(o int) RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM s.t WHERE org = o; END",
    "CREATE PROCEDURE s.raise(o int) LANGUAGE sql BEGIN ATOMIC UPDATE s.t SET amount = amount + 1 WHERE org = o; END",
    "GRANT EXECUTE ON FUNCTION s.total TO sw_reader",
    "CREATE TABLE s.other (id int)",
    "CREATE RULE also AS ON INSERT TO s.other DO ALSO UPDATE s.t SET amount = amount + 1 WHERE id = NEW.id",
    "CREATE POLICY po ON s.other USING (EXISTS (SELECT FROM s.t x WHERE x.id = other.id))",
    "CREATE PUBLICATION pub FOR TABLE s.t (id, at, amount) WHERE (id > 1) WITH (publish = 'insert')",
    "CREATE PUBLICATION whole FOR TABLE s.t, s.orgs",
    "GRANT SELECT, INSERT ON s.t TO sw_writer",
    "COMMENT ON SEQUENCE s.t_idn_seq IS 'numbers'",
    "GRANT USAGE ON SEQUENCE s.t_idn_seq TO sw_writer",
    "INSERT INTO s.t (at, org, code, amount)
        SELECT timestamp '2025-01-01' + g * interval '4 hours', 1 + g % 2, 'c' || g, g FROM generate_series(1, 1000) g",
    "INSERT INTO s.child SELECT g, g FROM generate_series(1, 100) g",
    "REFRESH MATERIALIZED VIEW s.m",
    "CALL partition_router.migrate('s.t', 'at')",
    // Given to one side alone since.
    "GRANT UPDATE (amount) ON s.t TO sw_writer WITH GRANT OPTION",
    "ALTER TABLE s.t ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY late ON s.t FOR SELECT TO sw_writer USING (amount > 10)",
    "CREATE FUNCTION s.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER late BEFORE UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.nothing()",
    "COMMENT ON TABLE s.t IS 'late'",
];

/// What the catalog says about the name, whichever table has it.
fn about(client: &mut Client) -> Vec<String> {
    let queries = [
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 's.t'::regclass",
        "SELECT conname::text FROM pg_constraint WHERE conrelid = 's.t'::regclass",
        "SELECT stxname::text FROM pg_statistic_ext WHERE stxrelid = 's.t'::regclass",
        "SELECT 'publication ' || pubname || coalesce(' ' || rowfilter, '') || attnames::text FROM pg_publication_tables WHERE tablename = 't'",
        "SELECT 'policy ' || policyname FROM pg_policies WHERE tablename = 't'",
        "SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = 's.t'::regclass AND tgname NOT LIKE 'sync%' AND NOT tgisinternal",
        "SELECT 'grant ' || a::text FROM pg_class, unnest(relacl) a WHERE oid = 's.t'::regclass",
        "SELECT 'column grant ' || attname || a::text FROM pg_attribute, unnest(attacl) a WHERE attrelid = 's.t'::regclass",
        "SELECT 'security ' || relrowsecurity FROM pg_class WHERE oid = 's.t'::regclass",
        "SELECT 'comment ' || obj_description('s.t'::regclass, 'pg_class')",
        "SELECT 'serial ' || pg_get_serial_sequence('s.t', 'id') || pg_get_serial_sequence('s.t', 'idn')",
        "SELECT 'identity ' || attidentity::text FROM pg_attribute WHERE attrelid = 's.t'::regclass AND attname = 'idn'",
        "SELECT 'sequence ' || seqstart || ' ' || seqincrement || obj_description(seqrelid, 'pg_class') || relacl::text
         FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid WHERE relname = 't_idn_seq'",
        "SELECT pg_get_viewdef(oid) || coalesce(reloptions::text, '') || coalesce(relacl::text, '') || coalesce(obj_description(oid, 'pg_class'), '')
         FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 's'::regnamespace",
        "SELECT 'default ' || pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 's.v'::regclass",
        "SELECT pg_get_functiondef(oid) || coalesce(proacl::text, '') FROM pg_proc WHERE pronamespace = 's'::regnamespace AND prosqlbody IS NOT NULL",
        "SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE rulename = 'also'",
        "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polname = 'po'",
    ];
    let mut all = vec![];
    for query in queries {
        let mut found = texts(client, query);
        assert!(!found.is_empty(), "{query}");
        found.sort();
        all.extend(found);
    }
    all
}

/// The tables that the definitions of `about` depend on.
fn depends_on(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT DISTINCT pg_describe_object(classid, objid, 0) || ' on ' || refobjid::regclass FROM pg_depend
         WHERE classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass)
           AND refclassid = 'pg_class'::regclass AND deptype = 'n'
           AND pg_describe_object(classid, objid, 0) NOT LIKE 'policy late%'
           AND refobjid IN (SELECT oid FROM pg_class WHERE relnamespace = 's'::regnamespace AND relname LIKE 't%')
         ORDER BY 1",
    )
}

fn works(client: &mut Client, other: &str) {
    assert_eq!(
        one::<i64>(client, "SELECT count(*) FROM s.renamed"),
        one::<i64>(client, "SELECT count(*) FROM s.t")
    );
    assert_eq!(
        one::<i64>(client, "SELECT s.total(1)"),
        one::<i64>(client, "SELECT count(*) FROM s.t WHERE org = 1")
    );
    run(
        client,
        &[
            "REFRESH MATERIALIZED VIEW s.m",
            "UPDATE s.v SET amount = amount + 1 WHERE id = 20",
            "CALL s.raise(1)",
            "INSERT INTO s.other VALUES (30)",
            "INSERT INTO s.child VALUES ((SELECT max(id) FROM s.child) + 1, 500)",
        ],
    );
    assert_eq!(
        one::<i64>(client, "SELECT sum(n)::bigint FROM s.m"),
        one::<i64>(client, "SELECT count(*) FROM s.t")
    );
    assert_equal_sides(client, "s.t", other, "id, at, org, idn, code, amount");
}

#[test]
fn everything_that_refers_to_the_table_follows_the_name_there_and_back() {
    let database = Database::new("follows");
    let mut client = database.connect();
    run(&mut client, WORLD);
    let before = about(&mut client);
    let tables = depends_on(&mut client);
    assert_eq!(tables.len(), 7, "{tables:?}");
    let kept: i64 = one(&mut client, "SELECT sum(n)::bigint FROM s.m");
    let number: i32 = one(&mut client, "SELECT max(idn) FROM s.t");
    run(&mut client, &["DELETE FROM s.t WHERE id = 1000", THERE]);
    assert_eq!(about(&mut client), before);
    assert_eq!(depends_on(&mut client), tables);
    assert_eq!(
        one::<i64>(&mut client, "SELECT sum(n)::bigint FROM s.m"),
        kept,
        "a materialized view keeps its rows"
    );
    works(&mut client, "s.t_legacy");
    assert_eq!(
        one::<i32>(
            &mut client,
            "INSERT INTO s.t (org, amount) VALUES (1, 20) RETURNING idn"
        ),
        number + 2
    );
    assert_eq!(
        one::<i32>(
            &mut client,
            "INSERT INTO s.t_legacy (org, amount) VALUES (1, 20) RETURNING idn"
        ),
        number + 4
    );
    run(&mut client, &[BACK]);
    assert_eq!(about(&mut client), before);
    assert_eq!(depends_on(&mut client), tables);
    works(&mut client, "s.t_partitioned");
    assert_eq!(
        one::<i32>(
            &mut client,
            "INSERT INTO s.t (org, amount) VALUES (1, 20) RETURNING idn"
        ),
        number + 6
    );
    assert_eq!(
        one::<i32>(
            &mut client,
            "INSERT INTO s.t_partitioned (org, amount) VALUES (1, 20) RETURNING idn"
        ),
        number + 8
    );
    run(
        &mut client,
        &[
            "DROP ROLE IF EXISTS nobody",
            "DROP OWNED BY sw_reader, sw_writer",
            "DROP ROLE sw_reader, sw_writer",
        ],
    );
}

#[test]
fn foreign_keys_act_once_whichever_side_has_the_name() {
    let database = Database::new("cascades");
    let mut client = database.connect();
    run(&mut client, super::TABLES);
    run(
        &mut client,
        &[
            "CREATE TABLE s.child (id int PRIMARY KEY, parent int REFERENCES s.t ON DELETE SET NULL)",
            "INSERT INTO s.child SELECT g, g FROM generate_series(1, 60) g",
            "CREATE TABLE s.fired (n int)",
            "CREATE FUNCTION s.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO s.fired VALUES (1); RETURN OLD; END'",
            "CREATE TRIGGER note AFTER DELETE ON s.t FOR EACH ROW EXECUTE FUNCTION s.note()",
        ],
    );
    for (call, other, org) in [(THERE, "s.t_legacy", 1), (BACK, "s.t_partitioned", 2)] {
        let rows: i64 = one(
            &mut client,
            &format!("SELECT count(*) FROM s.t WHERE org = {org}"),
        );
        run(
            &mut client,
            &[
                "TRUNCATE s.fired",
                call,
                &format!("DELETE FROM s.orgs WHERE id = {org}"),
            ],
        );
        assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM s.fired"), rows);
        assert_equal_sides(&mut client, "s.t", other, "id, at, org, note");
        let dangling = "SELECT count(*) FROM s.child c WHERE parent IS NOT NULL AND NOT EXISTS (SELECT FROM s.t WHERE id = c.parent)";
        assert_eq!(one::<i64>(&mut client, dangling), 0);
    }
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM s.child WHERE parent IS NULL"),
        40
    );
}

#[test]
fn names_that_are_long_or_taken_make_room() {
    let database = Database::new("names");
    let mut client = database.connect();
    let long = "l".repeat(63);
    run(
        &mut client,
        &[
            "CREATE SCHEMA s",
            &format!("CREATE TABLE s.t (id int, at date NOT NULL, CONSTRAINT {long} PRIMARY KEY (id))"),
            "CREATE INDEX i ON s.t (at)",
            "CREATE TABLE s.i_legacy (id int)",
            "INSERT INTO s.t SELECT g, date '2025-01-01' + g FROM generate_series(1, 50) g",
            "CALL partition_router.migrate('s.t', 'at')",
        ],
    );
    let names = "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 's.t'::regclass ORDER BY 1";
    let before = texts(&mut client, names);
    for call in [THERE, BACK, THERE, BACK] {
        run(&mut client, &[call]);
        assert_eq!(texts(&mut client, names), before);
    }
}
