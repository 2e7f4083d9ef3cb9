//! Who may write, and where names are looked up.

use super::{Pair, SIDES};
use crate::common::sqlstate;

#[test]
fn a_writer_needs_no_right_on_the_other_side() {
    for (side, other) in [("a", "a_partitioned"), ("a_partitioned", "a")] {
        let mut pair = Pair::plain("rights");
        let role = format!("writer_{}", pair.database.name);
        pair.run(&[
            &format!("CREATE ROLE \"{role}\" LOGIN"),
            &format!("GRANT INSERT ON {side} TO \"{role}\""),
            &format!("REVOKE ALL ON {other} FROM \"{role}\", PUBLIC"),
        ]);
        let mut writer = pair.database.connect_as(&role);
        crate::common::run(
            &mut writer,
            &[&format!(
                "INSERT INTO {side} VALUES (500, '2026-02-02', 500, 1, 'writer')"
            )],
        );
        // It gained nothing by it.
        assert_eq!(sqlstate(&mut writer, &format!("DELETE FROM {side}")), "42501");
        assert_eq!(sqlstate(&mut writer, &format!("SELECT FROM {other}")), "42501");
        assert_eq!(
            sqlstate(
                &mut writer,
                &format!("INSERT INTO {other} VALUES (501, '2026-02-02')")
            ),
            "42501"
        );
        drop(writer);
        assert_eq!(pair.rows(), 101);
        pair.run(&[
            &format!("DROP OWNED BY \"{role}\""),
            &format!("DROP ROLE \"{role}\""),
        ]);
    }
}

#[test]
fn a_hostile_search_path_changes_nothing() {
    for side in SIDES {
        let mut pair = Pair::new(
            "path",
            &[
                "CREATE FUNCTION public.vet(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0'",
                "CREATE TABLE a (id int PRIMARY KEY CHECK (public.vet(id)), d date NOT NULL, s text,
                                 l text GENERATED ALWAYS AS (lower(s)) STORED)",
                "INSERT INTO a SELECT g, date '2026-01-01' + g, 'S' FROM generate_series(1, 50) g",
            ],
            "'d'",
        );
        pair.run(&[
            "CREATE SCHEMA evil",
            "CREATE TABLE evil.a_partitioned (id int)",
            "CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'evil'$$",
            "CREATE FUNCTION evil.evil_eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$",
            "CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.evil_eq)",
            "SET search_path = evil, pg_catalog, public",
            &format!("INSERT INTO public.{side} VALUES (500, '2026-02-02', 'UP')"),
            &format!("UPDATE public.{side} SET d = d + 40 WHERE id < 5"),
            &format!("DELETE FROM public.{side} WHERE id < 3"),
            "RESET search_path",
        ]);
        assert_eq!(pair.rows(), 49);
        assert_eq!(
            pair.one::<String>("SELECT l FROM a_partitioned WHERE id = 500"),
            "up"
        );
        pair.run(&[
            "SET search_path = evil, pg_catalog, public",
            &format!("TRUNCATE public.{side}"),
            "RESET search_path",
        ]);
        assert_eq!(pair.rows(), 0);
    }
}

#[test]
fn row_security_hides_no_row_from_the_sync() {
    let mut pair = Pair::new(
        "rls",
        &[
            "CREATE TABLE a (id int PRIMARY KEY, d date NOT NULL, who text)",
            "INSERT INTO a SELECT g, date '2026-01-01' + g, 'somebody' FROM generate_series(1, 50) g",
        ],
        "'d'",
    );
    let role = format!("tenant_{}", pair.database.name);
    pair.run(&[
        &format!("CREATE ROLE \"{role}\" LOGIN"),
        &format!("GRANT ALL ON a TO \"{role}\""),
        "ALTER TABLE a ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE a FORCE ROW LEVEL SECURITY",
        "ALTER TABLE a_partitioned ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE a_partitioned FORCE ROW LEVEL SECURITY",
        "CREATE POLICY p ON a USING (who = current_user)",
    ]);
    let mut tenant = pair.database.connect_as(&role);
    crate::common::run(
        &mut tenant,
        &[
            "INSERT INTO a VALUES (500, '2026-02-02', current_user)",
            "UPDATE a SET d = d + 60",
            "INSERT INTO a VALUES (501, '2026-02-02', current_user)",
            "DELETE FROM a WHERE id < 501",
        ],
    );
    assert_eq!(
        sqlstate(&mut tenant, "INSERT INTO a VALUES (502, '2026-02-02', 'other')"),
        "42501"
    );
    drop(tenant);
    assert_eq!(pair.rows(), 51);
    pair.run(&[
        "DROP POLICY p ON a",
        &format!("DROP OWNED BY \"{role}\""),
        &format!("DROP ROLE \"{role}\""),
    ]);
}
