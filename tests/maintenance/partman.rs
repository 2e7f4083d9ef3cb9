//! `import_partman`: tables go over from pg_partman, of the version that is packaged (4 or 5), and of version 5 by a look-alike.

use crate::partitions;
use crate::session::Session;

/// Everything that `import_partman` reports.
fn import(s: &mut Session, arguments: &str) -> Vec<String> {
    s.column(&format!(
        "SELECT relation || ': ' || status || ': ' || message FROM partition_router.import_partman({arguments})"
    ))
}

fn policy(s: &mut Session, table: &str) -> String {
    s.one(&format!(
        "SELECT COALESCE((SELECT concat_ws(' | ', partition_interval, premake, retention, retention_count, retention_action,
             archive_schema, timezone) FROM partition_router.policy WHERE parent = '{table}'::regclass), 'none')"
    ))
}

fn with_partman(name: &str) -> Session {
    let mut s = Session::new(name);
    s.run("CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman");
    // Version 4 has words for intervals, and asks for the native kind.
    let is_old =
        s.one("SELECT (extversion < '5')::text FROM pg_extension WHERE extname = 'pg_partman'") == "true";
    let (interval, kind, sub_check) = if is_old {
        (
            "CASE step WHEN '1 day' THEN 'daily' WHEN '1 month' THEN 'monthly' WHEN '1 year' THEN 'yearly' ELSE step END",
            "native",
            "p_native_check",
        )
    } else {
        ("step", "range", "p_declarative_check")
    };
    s.run(&format!(
        "CREATE FUNCTION public.partman_parent(name text, key text, step text, ahead int DEFAULT 4) RETURNS void LANGUAGE sql AS
         $$ SELECT partman.create_parent(name, key, p_interval := {interval}, p_type := '{kind}', p_premake := ahead) $$;
         CREATE FUNCTION public.partman_sub_parent(name text, key text, step text) RETURNS void LANGUAGE sql AS
         $$ SELECT partman.create_sub_parent(name, key, p_interval := {interval}, p_type := '{kind}', {sub_check} := 'yes') $$"
    ));
    s
}

#[test]
fn tables_go_over_with_their_rules_and_their_partitions() {
    let mut s = with_partman("partman4");
    s.run(
        "CREATE SCHEMA attic;
         CREATE TABLE monthly (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE numbers (id bigint NOT NULL) PARTITION BY RANGE (id);
         CREATE TABLE forever (on_day date NOT NULL) PARTITION BY RANGE (on_day);
         SELECT partman_parent('public.monthly', 'at', '1 month', 2);
         SELECT partman_parent('public.numbers', 'id', '1000', 5);
         SELECT partman_parent('public.forever', 'on_day', '1 day');
         UPDATE partman.part_config SET retention = '3 months', retention_schema = 'attic' WHERE parent_table = 'public.monthly';
         UPDATE partman.part_config SET retention = '2500', retention_keep_table = false WHERE parent_table = 'public.numbers'",
    );
    let before = partitions(&mut s, "monthly");
    s.notices();
    let dry = import(&mut s, "dry_run => true");
    assert!(
        dry.iter().all(|row| row.contains(": to be taken over: ")),
        "{dry:?}"
    );
    assert_eq!(s.notices().len(), 6);
    assert_eq!(policy(&mut s, "monthly"), "none");
    let done = import(&mut s, "");
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|row| row.contains(": taken over: ")), "{done:?}");
    assert_eq!(
        policy(&mut s, "monthly"),
        "1 mon | 2 | 3 mons | archive | attic | UTC"
    );
    assert_eq!(policy(&mut s, "numbers"), "1000 | 5 | 4 | drop | UTC");
    assert_eq!(policy(&mut s, "forever"), "1 day | 4 | drop | UTC");
    assert_eq!(
        s.one("SELECT string_agg(DISTINCT automatic_maintenance, ',') FROM partman.part_config"),
        "off"
    );
    assert_eq!(partitions(&mut s, "monthly"), before);
    // Neither makes what the other has made: months that are there are not made again, the next one is ours.
    s.run("CALL partition_router.run_maintenance(); SELECT partition_router.set_policy('monthly', premake => 3)");
    s.run("CALL partition_router.run_maintenance()");
    let after = partitions(&mut s, "monthly");
    assert_eq!(after.len(), before.len() + 1, "{after:?}");
    assert_eq!(
        s.one("SELECT count(*)::text FROM partition_router.maintenance_event WHERE status = 'failed'"),
        "0"
    );
    // A second call leaves what is taken over already.
    let again = import(&mut s, "");
    assert!(again.iter().all(|row| row.contains(": left: ")), "{again:?}");
}

#[test]
fn what_cannot_go_over_is_left_as_it_is_and_says_why() {
    let mut s = with_partman("partman_left");
    s.run(
        "CREATE TABLE nested (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE ours (at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE gone (at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE odd (at timestamp NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE good (at date NOT NULL) PARTITION BY RANGE (at);
         SELECT partman_parent('public.nested', 'at', '1 year');
         SELECT partman_sub_parent('public.nested', 'at', '1 month');
         SELECT partman_parent('public.ours', 'at', '1 month');
         SELECT partman_parent('public.gone', 'at', '1 month');
         SELECT partman_parent('public.odd', 'at', '00:30:00');
         SELECT partman_parent('public.good', 'at', '1 month');
         SELECT partition_router.manage('ours', '1 month');
         DROP TABLE gone",
    );
    let rows = import(&mut s, "");
    let of = |table: &str| -> String {
        let found = rows
            .iter()
            .find(|row| row.starts_with(&format!("public.{table}")));
        found.unwrap_or_else(|| panic!("{table} in {rows:?}")).clone()
    };
    assert!(of("good").contains(": taken over: interval 1 mon, premake 4, no retention"));
    for (table, reason) in [
        ("nested:", "part_config_sub"),
        ("nested_p", "a partition itself"),
        ("ours", "PR017"),
        ("gone", "no such table"),
        ("odd", "PR008"),
    ] {
        assert!(
            of(table).contains(": left: ") && of(table).contains(reason),
            "{}",
            of(table)
        );
    }
    assert_eq!(
        s.one("SELECT string_agg(parent_table, ',') FROM partman.part_config WHERE automatic_maintenance = 'off'"),
        "public.good"
    );
}

#[test]
fn a_configuration_of_version_5_is_read_by_its_columns() {
    let mut s = Session::new("partman5");
    s.run(
        "CREATE SCHEMA keeper;
         CREATE TABLE keeper.part_config (
             parent_table text PRIMARY KEY, control text NOT NULL, time_encoder text, time_decoder text,
             partition_interval text NOT NULL, partition_type text NOT NULL, premake int NOT NULL DEFAULT 4,
             automatic_maintenance text NOT NULL DEFAULT 'on', template_table text, retention text, retention_schema text,
             retention_keep_index boolean NOT NULL DEFAULT true, retention_keep_table boolean NOT NULL DEFAULT true,
             epoch text NOT NULL DEFAULT 'none', constraint_cols text[], optimize_constraint int NOT NULL DEFAULT 30,
             infinite_time_partitions boolean NOT NULL DEFAULT false, datetime_string text, jobmon boolean NOT NULL DEFAULT true,
             sub_partition_set_full boolean NOT NULL DEFAULT false, undo_in_progress boolean NOT NULL DEFAULT false,
             inherit_privileges boolean DEFAULT false, constraint_valid boolean NOT NULL DEFAULT true,
             ignore_default_data boolean NOT NULL DEFAULT true, date_trunc_interval text, maintenance_order int,
             retention_keep_publication boolean NOT NULL DEFAULT false, maintenance_last_run timestamptz);
         CREATE TABLE t (at timestamptz NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE t_p20250101 PARTITION OF t FOR VALUES FROM ('2025-01-01 00:00+01') TO ('2025-01-02 00:00+01');
         CREATE TABLE l (kind text NOT NULL) PARTITION BY LIST (kind);
         CREATE TABLE \"Re.venues'\" (at date NOT NULL) PARTITION BY RANGE (at);
         INSERT INTO keeper.part_config (parent_table, control, partition_interval, partition_type, retention)
         VALUES ('public.t', 'at', '1 day', 'range', '30 days'), ('public.l', 'kind', '1', 'list', NULL),
                ('public.Re.venues''', 'at', '1 mon', 'range', NULL)",
    );
    assert_eq!(s.sqlstate("SELECT partition_router.import_partman()"), "22023");
    assert_eq!(
        s.sqlstate("SELECT partition_router.import_partman(partman_schema => 'nowhere')"),
        "22023"
    );
    s.run("SET TimeZone = 'Europe/Vienna'");
    let rows = import(&mut s, "partman_schema => 'keeper'");
    assert_eq!(rows.len(), 3);
    assert!(
        rows.iter().any(|row| row.starts_with("public.l: left: ")),
        "{rows:?}"
    );
    assert_eq!(
        policy(&mut s, "t"),
        "1 day | 4 | 30 days | detach | Europe/Vienna"
    );
    assert_eq!(
        policy(&mut s, "\"Re.venues''\""),
        "1 mon | 4 | drop | Europe/Vienna"
    );
    assert_eq!(
        s.one("SELECT string_agg(automatic_maintenance, ',' ORDER BY parent_table COLLATE \"C\") FROM keeper.part_config"),
        "off,on,off"
    );
}

#[test]
fn a_caller_takes_over_only_tables_of_their_own() {
    let mut s = with_partman("partman_rights");
    s.run(
        "CREATE ROLE partman_user;
         GRANT USAGE ON SCHEMA partman TO partman_user; GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA partman TO partman_user;
         GRANT EXECUTE ON FUNCTION partition_router.import_partman TO partman_user;
         CREATE TABLE theirs (at date NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE mine (at date NOT NULL) PARTITION BY RANGE (at);
         SELECT partman_parent('public.theirs', 'at', '1 month');
         SELECT partman_parent('public.mine', 'at', '1 month');
         ALTER TABLE mine OWNER TO partman_user;
         SET ROLE partman_user",
    );
    let rows = import(&mut s, "");
    s.run("RESET ROLE");
    assert!(rows[0].starts_with("public.mine: taken over: "), "{rows:?}");
    assert!(
        rows[1].starts_with("public.theirs: left: ") && rows[1].contains("42501"),
        "{rows:?}"
    );
    assert_eq!(policy(&mut s, "theirs"), "none");
    assert_eq!(
        s.one("SELECT automatic_maintenance FROM partman.part_config WHERE parent_table = 'public.theirs'"),
        "on"
    );
    s.run("DROP OWNED BY partman_user; DROP ROLE partman_user");
}
