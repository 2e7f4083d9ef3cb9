//! Rights are those on the legacy.

use crate::Routed;
use crate::common::{run, sqlstate, texts};

struct Reader {
    routed: Routed,
    role: String,
    client: postgres::Client,
}

impl Reader {
    /// A role without a right on either side, whose plain SQL is routed to the twin.
    fn new(test: &str) -> Reader {
        let mut routed = Routed::new(test);
        let role = format!("reader_{}", routed.database.name);
        routed.run(&[&format!("CREATE ROLE {role} LOGIN")]);
        let mut client = routed.database.connect_as(&role);
        run(
            &mut routed.client,
            &[
                "CREATE FUNCTION load() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN LOAD 'partition_router'; RETURN 1; END $$",
            ],
        );
        run(
            &mut client,
            &[
                "SELECT load()",
                "SET partition_router.transparent = on",
                "SET partition_router.use_partitioned_tables = on",
            ],
        );
        Reader { routed, role, client }
    }

    fn admin(&mut self, statements: &[&str]) {
        let statements: Vec<_> = statements.iter().map(|s| s.replace("$R", &self.role)).collect();
        for statement in statements {
            self.routed.run(&[&statement]);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.admin(&["DROP OWNED BY $R", "DROP ROLE $R"]);
        }
    }
}

#[test]
fn who_may_read_the_legacy_needs_no_right_on_the_twin() {
    let mut reader = Reader::new("no_right");
    assert_eq!(sqlstate(&mut reader.client, "SELECT side FROM revenues"), "42501");
    reader.admin(&["GRANT SELECT ON revenues TO $R"]);
    assert_eq!(texts(&mut reader.client, crate::SIDE), ["twin"]);
    let direct = "SELECT side FROM revenues_partitioned";
    assert_eq!(sqlstate(&mut reader.client, direct), "42501");
    run(
        &mut reader.client,
        &["PREPARE p AS SELECT DISTINCT side FROM revenues"],
    );
    assert_eq!(texts(&mut reader.client, "EXECUTE p"), ["twin"]);
    reader.admin(&["REVOKE SELECT ON revenues FROM $R"]);
    assert_eq!(sqlstate(&mut reader.client, "EXECUTE p"), "42501");
    assert_eq!(sqlstate(&mut reader.client, crate::SIDE), "42501");
}

#[test]
fn a_right_on_the_twin_is_none_on_the_legacy() {
    let mut reader = Reader::new("twin_right");
    reader.admin(&["GRANT SELECT ON revenues_partitioned TO $R"]);
    assert_eq!(sqlstate(&mut reader.client, crate::SIDE), "42501");
    assert_eq!(
        texts(
            &mut reader.client,
            "SELECT DISTINCT side FROM revenues_partitioned"
        ),
        ["twin"]
    );
}

#[test]
fn column_privileges_are_the_legacys() {
    let mut reader = Reader::new("columns");
    reader.admin(&["GRANT SELECT (id, side) ON revenues TO $R"]);
    let c = &mut reader.client;
    assert_eq!(
        texts(c, "SELECT DISTINCT side FROM revenues WHERE id > 3"),
        ["twin"]
    );
    for refused in [
        "SELECT * FROM revenues",
        "SELECT amount FROM revenues",
        "SELECT id FROM revenues WHERE amount > 3",
        "SELECT r FROM revenues r",
        "SELECT count(amount) FROM revenues",
        "SELECT a.id FROM revenues a JOIN revenues b USING (id, org)",
    ] {
        assert_eq!(sqlstate(c, refused), "42501", "{refused}");
    }
    assert_eq!(texts(c, "SELECT count(*)::text FROM revenues"), ["500"]);
}

#[test]
fn row_security_is_the_legacys() {
    let mut reader = Reader::new("row_security");
    reader.admin(&[
        "GRANT SELECT ON revenues, revenues_partitioned TO $R",
        "CREATE TABLE allowed (org text)",
        "INSERT INTO allowed VALUES ('3')",
        "GRANT SELECT ON allowed TO $R",
        "ALTER TABLE revenues ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON revenues USING (org IN (SELECT org FROM allowed) AND amount > 0)",
        "CREATE FUNCTION leak(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
         $$ BEGIN RAISE NOTICE 'saw %', t; RETURN true; END $$",
        "CREATE VIEW by_owner AS SELECT * FROM revenues",
        "CREATE VIEW by_invoker WITH (security_invoker) AS SELECT * FROM revenues",
        "GRANT SELECT ON by_owner, by_invoker TO $R",
    ]);
    let c = &mut reader.client;
    assert_eq!(texts(c, "SELECT DISTINCT org || side FROM revenues"), ["3twin"]);
    assert_eq!(
        texts(c, "SELECT DISTINCT org || side FROM revenues WHERE leak(org)"),
        ["3twin"]
    );
    assert_eq!(
        texts(c, "SELECT count(*)::text FROM revenues r WHERE r IS NOT NULL"),
        ["50"]
    );
    assert_eq!(texts(c, "SELECT count(DISTINCT org)::text FROM by_owner"), ["10"]);
    assert_eq!(texts(c, "SELECT DISTINCT org || side FROM by_invoker"), ["3twin"]);
    let joined =
        "SELECT count(a.org) || ' ' || count(b.org) FROM revenues a FULL JOIN revenues b ON a.id = b.id + 10";
    assert_eq!(texts(c, joined), ["50 50"]);
    run(c, &["PREPARE q AS SELECT count(*)::text FROM revenues"]);
    assert_eq!(texts(c, "EXECUTE q"), ["50"]);
    reader.admin(&["UPDATE allowed SET org = '4'"]);
    assert_eq!(
        texts(&mut reader.client, "SELECT DISTINCT org || side FROM revenues"),
        ["4twin"]
    );
    assert_eq!(reader.routed.one::<i64>("SELECT count(*) FROM revenues"), 500);
}

#[test]
fn row_security_hides_rows_from_leaky_functions() {
    let mut reader = Reader::new("leaky");
    reader.admin(&[
        "GRANT SELECT ON revenues TO $R",
        "ALTER TABLE revenues ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON revenues USING (org = '3')",
        "CREATE FUNCTION leak(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
         $$ BEGIN RAISE NOTICE 'saw %', t; RETURN true; END $$",
    ]);
    let (mut c, notices) = reader.routed.database.connect_hearing_as(&reader.role);
    run(
        &mut c,
        &[
            "SELECT load()",
            "SET partition_router.transparent = on",
            "SET partition_router.use_partitioned_tables = on",
        ],
    );
    assert_eq!(
        texts(&mut c, "SELECT DISTINCT side FROM revenues WHERE leak(org)"),
        ["twin"]
    );
    let seen: Vec<String> = notices.try_iter().collect();
    assert!(
        !seen.is_empty() && seen.iter().all(|message| message == "saw 3"),
        "{seen:?}"
    );
}

#[test]
fn a_monitor_sees_that_dark_reads_differ_and_no_value_in_them() {
    let mut reader = Reader::new("dark_texts");
    reader.admin(&[
        "GRANT SELECT ON revenues TO $R",
        "CREATE ROLE $R_watch LOGIN IN ROLE pg_monitor",
        "SET partition_router.shadow_sample = 1",
        "SELECT count(*) FROM revenues WHERE org = 'secret of mine'",
        "SET partition_router.shadow_sample = 0",
        "UPDATE partition_router.shadow_read SET error = 'secret too', by_role = '$R'",
    ]);
    let texts_of =
        "SELECT concat_ws('|', by_role = SESSION_USER, query, error) FROM partition_router.shadow_reads";
    let own = texts(&mut reader.routed.client, texts_of);
    assert!(
        own[0].contains("secret of mine") && own[0].contains("secret too"),
        "{own:?}"
    );
    let watch = format!("{}_watch", reader.role);
    let mut watcher = reader.routed.database.connect_as(&watch);
    assert_eq!(texts(&mut watcher, texts_of), ["f"]);
    let row = "SELECT to_jsonb(s)::text FROM partition_router.shadow_reads s";
    assert!(!texts(&mut watcher, row)[0].contains("secret"));
    // Who read sees what he read, as far as he is given the view; a role that is gone keeps its texts to superusers.
    reader.admin(&["GRANT SELECT ON partition_router.shadow_reads TO $R"]);
    assert!(texts(&mut reader.client, texts_of)[0].contains("secret of mine"));
    reader.admin(&["UPDATE partition_router.shadow_read SET by_role = 'nobody any more'"]);
    assert_eq!(texts(&mut watcher, texts_of), ["f"]);
    assert!(texts(&mut reader.routed.client, texts_of)[0].contains("secret too"));
    drop(watcher);
    reader.admin(&["DROP ROLE $R_watch"]);
}

/// Plans are made for one role and run by another (CVE-2023-2455, CVE-2024-10976): policies must be those of whoever runs them.
#[test]
fn cve_2023_2455_a_cached_plan_has_the_row_security_of_who_runs_it() {
    let mut reader = Reader::new("plan_reuse");
    reader.admin(&[
        "CREATE ROLE $R_a",
        "CREATE ROLE $R_b",
        "CREATE ROLE $R_both LOGIN",
        "GRANT $R_a, $R_b TO $R_both",
        "GRANT SELECT ON revenues TO $R_a, $R_b",
        "ALTER TABLE revenues ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY a ON revenues TO $R_a USING (org = '3')",
        "CREATE POLICY b ON revenues TO $R_b USING (org = '4')",
        "CREATE FUNCTION in_sql() RETURNS text LANGUAGE sql STABLE AS $$ SELECT string_agg(DISTINCT side || org, ' ') FROM revenues $$",
        "CREATE FUNCTION in_plpgsql() RETURNS text LANGUAGE plpgsql STABLE AS
         $$ BEGIN RETURN (SELECT string_agg(DISTINCT side || org, ' ') FROM revenues); END $$",
        "CREATE FUNCTION in_atomic() RETURNS SETOF text STABLE BEGIN ATOMIC SELECT DISTINCT side || org FROM revenues; END",
    ]);
    let both = format!("{}_both", reader.role);
    let mut client = reader.routed.database.connect_as(&both);
    let c = &mut client;
    run(
        c,
        &[
            "SELECT load()",
            "SET partition_router.transparent = on",
            "SET partition_router.use_partitioned_tables = on",
        ],
    );
    let (a, b) = (format!("{}_a", reader.role), format!("{}_b", reader.role));
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        run(
            c,
            &[
                &format!("SET plan_cache_mode = {mode}"),
                "RESET ROLE",
                "DEALLOCATE ALL",
                "DISCARD PLANS",
                &format!("SET ROLE {a}"),
                "PREPARE p AS SELECT DISTINCT side || org FROM revenues",
                "PREPARE q(int) AS SELECT DISTINCT side || org FROM revenues WHERE id > $1",
            ],
        );
        // Both directions, and often enough for a generic plan; the side changes in between, so that kept plans of the other side
        // are run by the other role, too.
        for round in 0..14 {
            let (role, org) = if round % 2 == 0 { (&a, "3") } else { (&b, "4") };
            let (routing, side) = if (round / 4) % 2 == 0 {
                ("on", "twin")
            } else {
                ("off", "legacy")
            };
            run(
                c,
                &[
                    &format!("SET ROLE {role}"),
                    &format!("SET partition_router.use_partitioned_tables = {routing}"),
                ],
            );
            for query in [
                "EXECUTE p",
                "EXECUTE q(0)",
                "SELECT in_sql()",
                "SELECT in_plpgsql()",
                "SELECT in_atomic()",
                "SELECT DISTINCT side || org FROM revenues",
            ] {
                assert_eq!(
                    texts(c, query),
                    [format!("{side}{org}")],
                    "{mode}, round {round}: {query} as {role}"
                );
            }
        }
    }
    drop(client);
    reader.admin(&[
        "ALTER TABLE revenues DISABLE ROW LEVEL SECURITY",
        "DROP POLICY a ON revenues",
        "DROP POLICY b ON revenues",
        "DROP OWNED BY $R_a, $R_b, $R_both",
        "DROP ROLE $R_both",
        "DROP ROLE $R_a",
        "DROP ROLE $R_b",
    ]);
}
