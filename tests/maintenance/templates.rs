//! What new partitions take after: a template, or the newest of their siblings.

use super::session::Session;
use super::{events, partitions};

/// The newest partition of a table.
fn newest(s: &mut Session, table: &str) -> String {
    s.one(&format!(
        "SELECT max(inhrelid)::regclass::text FROM pg_inherits WHERE inhparent = '{table}'::regclass"
    ))
}

/// All that a template gives, in lines.
fn looks(s: &mut Session, table: &str, role: &str, publication: &str) -> Vec<String> {
    s.column(&format!(
        "SELECT concat_ws(' ', c.relrowsecurity, c.relforcerowsecurity, c.relreplident, array_to_string(c.reloptions, ','),
                          array_to_string(t.reloptions, ','))
         FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = '{table}'::regclass
         UNION ALL SELECT concat_ws(' ', attname, attstattarget, substring(attoptions::text FROM 'n_distinct=[0-9]*')) FROM pg_attribute
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
         UNION ALL SELECT concat_ws(' ', polname, pg_get_expr(polqual, polrelid)) FROM pg_policy WHERE polrelid = '{table}'::regclass
         UNION ALL SELECT concat_ws(' ', has_table_privilege('{role}', '{table}', 'SELECT'), has_table_privilege('{role}', '{table}', 'INSERT'),
                                    has_column_privilege('{role}', '{table}', 'who', 'UPDATE'))
         UNION ALL SELECT 'identity ' || pg_get_indexdef(indexrelid, 1, false) FROM pg_index WHERE indrelid = '{table}'::regclass AND indisreplident
         UNION ALL SELECT concat_ws(' ', stxkind, pg_get_statisticsobjdef_columns(oid), stxstattarget) FROM pg_statistic_ext
             WHERE stxrelid = '{table}'::regclass
         UNION ALL SELECT 'published ' || count(*) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = '{publication}' AND prrelid = '{table}'::regclass"
    ))
}

/// A table with one bare partition, and a template with everything.
fn with_template(s: &mut Session, role: &str) {
    s.run(&format!(
        "CREATE ROLE {role};
         CREATE TABLE t (id int NOT NULL, at date NOT NULL, who text, code int NOT NULL) PARTITION BY RANGE (at);
         CREATE UNIQUE INDEX ON t (code, at);
         CREATE STATISTICS t_known (dependencies) ON id, who FROM t;
         ALTER STATISTICS t_known SET STATISTICS 77;
         CREATE TABLE t_old PARTITION OF t FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
         CREATE TABLE model (LIKE t INCLUDING ALL)
             WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_enabled = off);
         ALTER STATISTICS model_id_who_stat SET STATISTICS 77;
         CREATE STATISTICS model_more (mcv) ON who, code FROM model;
         ALTER STATISTICS model_more SET STATISTICS 88;
         GRANT SELECT, UPDATE (who) ON model TO {role};
         ALTER TABLE model ALTER who SET STATISTICS 500, ALTER who SET (n_distinct = 9);
         ALTER TABLE model ENABLE ROW LEVEL SECURITY;
         ALTER TABLE model FORCE ROW LEVEL SECURITY;
         CREATE POLICY own ON model FOR SELECT TO {role} USING (who = CURRENT_USER AND EXISTS (SELECT FROM pg_roles WHERE rolname = model.who));
         CREATE PUBLICATION {role} FOR TABLE model"
    ));
    let index = s.one("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'model'::regclass");
    s.run(&format!("ALTER TABLE model REPLICA IDENTITY USING INDEX {index}"));
}

#[test]
fn a_new_partition_has_what_the_template_has() {
    let mut s = Session::new("template");
    with_template(&mut s, "pr_model");
    s.run(
        "SELECT partition_router.manage('t', '1 month', premake => 1, template => 'model');
         CALL partition_router.run_maintenance('t')",
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    let model: Vec<_> = looks(&mut s, "model", "pr_model", "pr_model");
    let new = newest(&mut s, "t");
    assert_ne!(new, "t_old");
    let short = new.clone();
    let expected: Vec<_> = model
        .iter()
        .map(|line| line.replace("model.", &format!("{short}.")))
        .collect();
    assert_eq!(looks(&mut s, &new, "pr_model", "pr_model"), expected);
    assert!(
        expected
            .iter()
            .any(|line| line.contains("autovacuum_enabled=off"))
    );
    assert!(expected.iter().any(|line| line.starts_with("identity code")));
    // Without the template the newest sibling is the model, and it has all of it but what is published.
    let last =
        s.one("SELECT partition_interval FROM partition_router.policy WHERE template = 'model'::regclass");
    assert_eq!(last, "1 month");
    s.run(
        "SELECT partition_router.set_policy('t', premake => 2, template => 't');
         CALL partition_router.run_maintenance('t')",
    );
    let next = newest(&mut s, "t");
    assert_ne!(next, new);
    let unpublished: Vec<_> = expected
        .iter()
        .map(|line| {
            line.replace(&format!("{new}."), &format!("{next}."))
                .replace("published 1", "published 0")
        })
        .collect();
    assert_eq!(looks(&mut s, &next, "pr_model", "pr_model"), unpublished);
    s.run("DROP PUBLICATION pr_model; DROP OWNED BY pr_model; DROP ROLE pr_model");
}

#[test]
fn partitions_of_a_drained_default_take_after_the_template_too() {
    let mut s = Session::new("template_drain");
    with_template(&mut s, "pr_model_drain");
    s.run(
        "ALTER TABLE t ADD PRIMARY KEY (id, at);
         CREATE TABLE t_default PARTITION OF t DEFAULT;
         INSERT INTO t SELECT n, date '2024-05-01' + n % 20, 'x', n FROM generate_series(1, 60000) n;
         SELECT partition_router.manage('t', '1 month', premake => 0, template => 'model');
         CALL partition_router.run_maintenance('t')",
    );
    assert_eq!(events(&mut s, "status = 'failed'"), [""; 0]);
    assert_eq!(s.one("SELECT string_agg(DISTINCT action, ' ') FROM partition_router.maintenance_event WHERE row_count = 60000"), "drain");
    let expected: Vec<_> = looks(&mut s, "model", "pr_model_drain", "pr_model_drain")
        .iter()
        .map(|line| line.replace("model.", "t_2024_05."))
        .collect();
    assert_eq!(
        looks(&mut s, "t_2024_05", "pr_model_drain", "pr_model_drain"),
        expected
    );
    s.run("DROP PUBLICATION pr_model_drain; DROP OWNED BY pr_model_drain; DROP ROLE pr_model_drain");
}

#[test]
fn a_template_that_cannot_be_one_is_refused_and_one_that_is_gone_stops_its_table_only() {
    let mut s = Session::new("template_refused");
    s.run(
        "CREATE ROLE pr_model_other;
         CREATE TABLE t (id int, at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE other (id int, at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE wide (id int, at date, more int);
         CREATE TABLE foreign_one (id int, at date); ALTER TABLE foreign_one OWNER TO pr_model_other;
         CREATE VIEW seen AS SELECT 1 AS id;
         CREATE TABLE keyed (id int NOT NULL UNIQUE, at date); ALTER TABLE keyed REPLICA IDENTITY USING INDEX keyed_id_key;
         CREATE TABLE twice (id int, at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE plain (id int, at date NOT NULL)",
    );
    for bad in ["wide", "foreign_one", "seen", "keyed"] {
        let call = format!("SELECT partition_router.manage('t', '1 month', template => '{bad}')");
        assert_eq!(s.sqlstate(&call), "22023", "{bad}");
    }
    let ranges = "SELECT partition_router.manage('t', '1 month', template => 'twice')";
    assert_eq!(s.sqlstate(ranges), "0A000");
    s.run(
        "SELECT partition_router.manage('t', '1 month', template => 'plain');
         SELECT partition_router.manage('other', '1 month');
         DROP TABLE plain;
         CALL partition_router.run_maintenance()",
    );
    assert_eq!(partitions(&mut s, "t"), [""; 0]);
    assert_eq!(partitions(&mut s, "other").len(), 4);
    let error = s.one("SELECT last_error FROM partition_router.policy WHERE parent = 't'::regclass");
    assert!(error.contains("template"), "{error}");
    s.run(
        "SELECT partition_router.set_policy('t', template => 't'); CALL partition_router.run_maintenance()",
    );
    assert_eq!(partitions(&mut s, "t").len(), 4);
    s.run("DROP OWNED BY pr_model_other; DROP ROLE pr_model_other");
}
