//! What a statement reads while it writes, before its changes are carried to the twin.

use crate::Routed;
use crate::common::{run, texts};

/// Without the difference by which the tests tell the sides: here they are told by what they hold.
fn equal(test: &str) -> Routed {
    let mut routed = Routed::new(test);
    routed.run(&["UPDATE revenues SET side = 'both'"]);
    routed
}

const COUNT: &str = "SELECT count(*)::text FROM revenues WHERE org = 'x'";

#[test]
fn a_volatile_function_sees_the_rows_that_its_statement_has_written() {
    let mut routed = equal("volatile");
    let c = &mut routed.client;
    run(
        c,
        &["CREATE FUNCTION so_far() RETURNS int LANGUAGE plpgsql VOLATILE AS
             $$ BEGIN RETURN (SELECT count(*) FROM revenues WHERE org = 'x'); END $$"],
    );
    let insert =
        "INSERT INTO revenues (org, at, amount) SELECT 'x', '2026-01-05', so_far() FROM generate_series(1, 5)
                  RETURNING amount::text";
    assert_eq!(texts(c, insert), ["0", "1", "2", "3", "4"]);
    assert_eq!(texts(c, COUNT), ["5"]);
}

#[test]
fn triggers_see_what_fired_them() {
    let mut routed = equal("triggers");
    let c = &mut routed.client;
    run(
        c,
        &[
            "CREATE TABLE seen (event text, rows int)",
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
             $$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM revenues WHERE org = 'x';
             INSERT INTO seen VALUES (TG_NAME, n); RETURN NULL; END $$",
            "CREATE TRIGGER a_row AFTER INSERT OR DELETE ON revenues FOR EACH ROW EXECUTE FUNCTION look()",
            "CREATE TRIGGER a_statement AFTER INSERT OR DELETE ON revenues FOR EACH STATEMENT EXECUTE FUNCTION look()",
            "CREATE TRIGGER z_statement AFTER INSERT OR DELETE ON revenues FOR EACH STATEMENT EXECUTE FUNCTION look()",
            "CREATE TRIGGER a_truncate AFTER TRUNCATE ON revenues FOR EACH STATEMENT EXECUTE FUNCTION look()",
            "CREATE TRIGGER z_truncate AFTER TRUNCATE ON revenues FOR EACH STATEMENT EXECUTE FUNCTION look()",
        ],
    );
    let mut seen = |statement: &str| {
        run(c, &["TRUNCATE seen", statement]);
        texts(c, "SELECT DISTINCT event || ' ' || rows FROM seen ORDER BY 1")
    };
    let insert = "INSERT INTO revenues (org, at) SELECT 'x', '2026-01-05' FROM generate_series(1, 3)";
    assert_eq!(seen(insert), ["a_row 3", "a_statement 3", "z_statement 3"]);
    let delete = "DELETE FROM revenues WHERE id = (SELECT min(id) FROM revenues WHERE org = 'x')";
    assert_eq!(seen(delete), ["a_row 2", "a_statement 2", "z_statement 2"]);
    assert_eq!(seen("TRUNCATE revenues"), ["a_truncate 0", "z_truncate 0"]);
    assert_eq!(texts(c, "SELECT count(*)::text FROM revenues"), ["0"]);
}

#[test]
fn a_transaction_reads_its_own_writes() {
    let mut routed = equal("own_writes");
    let c = &mut routed.client;
    run(
        c,
        &[
            "PREPARE p AS SELECT count(*)::text FROM revenues WHERE org = 'x'",
            "BEGIN",
            "INSERT INTO revenues (org, at) VALUES ('x', '2026-01-05')",
        ],
    );
    assert_eq!(texts(c, "EXECUTE p"), ["1"]);
    run(
        c,
        &[
            "SAVEPOINT s",
            "INSERT INTO revenues (org, at) VALUES ('x', '2026-02-05')",
        ],
    );
    assert_eq!(texts(c, "EXECUTE p"), ["2"]);
    run(c, &["ROLLBACK TO s"]);
    assert_eq!(texts(c, "EXECUTE p"), ["1"]);
    run(
        c,
        &["INSERT INTO revenues_partitioned (org, at) VALUES ('x', '2026-03-05')"],
    );
    assert_eq!(texts(c, COUNT), ["2"]);
    run(c, &["ROLLBACK"]);
    assert_eq!(texts(c, "EXECUTE p"), ["0"]);
}

#[test]
fn a_data_modifying_cte_reads_what_was_there_before() {
    let mut routed = equal("cte");
    let query = "WITH w AS (INSERT INTO revenues (org, at) SELECT 'x', '2026-01-05' FROM generate_series(1, 4) RETURNING id)
                 SELECT (SELECT count(*) FROM w) || ' ' || count(*) FROM revenues WHERE org = 'x'";
    assert_eq!(texts(&mut routed.client, query), ["4 0"]);
    assert_eq!(texts(&mut routed.client, COUNT), ["4"]);
}

#[test]
fn an_error_in_the_middle_of_a_write_leaves_routing_as_it_was() {
    let mut routed = Routed::new("error_between");
    let c = &mut routed.client;
    run(
        c,
        &[
            "DO $$ BEGIN INSERT INTO revenues (id, org, at) VALUES (1, 'x', '2026-01-05');
             EXCEPTION WHEN unique_violation THEN NULL; END $$",
            "BEGIN",
            "SAVEPOINT s",
        ],
    );
    assert_eq!(
        crate::common::sqlstate(c, "INSERT INTO revenues (id, at) VALUES (1, '2026-01-05')"),
        "23505"
    );
    run(c, &["ROLLBACK TO s"]);
    assert_eq!(texts(c, crate::SIDE), ["twin"]);
    run(c, &["COMMIT"]);
    assert_eq!(texts(c, crate::SIDE), ["twin"]);
}
