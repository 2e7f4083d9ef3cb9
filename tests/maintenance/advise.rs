//! `advise`: what sizes, reads and queries say.

use crate::common::{Cluster, Database};
use crate::session::Session;
use std::sync::Arc;

fn of(s: &mut Session, table: &str, topic: &str) -> String {
    s.one(&format!(
        "SELECT severity || ': ' || message || ' ' || hint FROM partition_router.advise('{table}') WHERE topic = '{topic}'"
    ))
}

#[test]
fn small_partitions_blind_queries_and_what_nobody_reads_are_named() {
    let cluster = Arc::new(Cluster::start(&["shared_preload_libraries=pg_stat_statements"]));
    let mut s = Session::on(Arc::new(Database::on(cluster, "advise")));
    s.run(
        "CREATE TABLE days (at date NOT NULL, id int) PARTITION BY RANGE (at);
         SELECT partition_router.manage('days', '1 day', premake => 0);
         DO $$BEGIN FOR n IN 0 .. 59 LOOP
             EXECUTE format('CREATE TABLE days_%s PARTITION OF days FOR VALUES FROM (%L) TO (%L)',
                            n, date '2025-01-01' + n, date '2025-01-02' + n);
         END LOOP; END$$;
         INSERT INTO days SELECT date '2025-01-01' + g % 60, g FROM generate_series(1, 60000) g",
    );
    assert!(of(&mut s, "days", "pruning").starts_with("info: pg_stat_statements is not"));
    s.run("CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()");
    s.run("SELECT count(*) FROM days WHERE at = '2025-01-05'; SELECT pg_stat_force_next_flush()");
    assert!(of(&mut s, "days", "interval").starts_with("warning: 59 full partitions of 1 day"));
    assert!(
        of(&mut s, "days", "pruning").starts_with("info: 1 queries"),
        "{}",
        of(&mut s, "days", "pruning")
    );
    s.run("SELECT count(*) FROM days WHERE id = 7 AND at > '2030-01-01'; SELECT at FROM days WHERE id = 7");
    let pruning = of(&mut s, "days", "pruning");
    assert!(
        pruning.starts_with("warning: 1 of 3 queries")
            && pruning.contains("SELECT at FROM days WHERE id = $1"),
        "{pruning}"
    );
    s.run("SELECT pg_stat_force_next_flush(); SELECT pg_stat_reset(); SELECT count(*) FROM days WHERE at < '2025-02-28'; SELECT pg_stat_force_next_flush(); SELECT 1");
    let unread = of(&mut s, "days", "never read");
    assert!(
        unread.starts_with("warning: 2 partitions") && unread.contains("days_58, days_59"),
        "{unread}"
    );
    assert!(of(&mut s, "days", "planning time").contains("60 partitions"));
}

#[test]
fn hash_and_list_tables_pairs_and_tables_without_a_policy_are_understood() {
    let mut s = Session::new("advise_kinds");
    s.run(
        "CREATE TABLE h (id int) PARTITION BY HASH (id);
         CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE h_1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE TABLE l (id int) PARTITION BY LIST (id);
         CREATE TABLE r (at date) PARTITION BY RANGE (at);
         CREATE TABLE plain (id int PRIMARY KEY, at date NOT NULL);
         CREATE TABLE paired (id int PRIMARY KEY, at date NOT NULL)",
    );
    s.run("SELECT partition_router.create_twin('paired', 'at')");
    assert!(of(&mut s, "h", "hash partitions").starts_with("info: 2 partitions of"));
    assert!(of(&mut s, "l", "interval").contains("lists have no interval"));
    assert!(of(&mut s, "r", "interval").contains("not under maintenance"));
    assert!(of(&mut s, "paired", "interval").contains("too early"));
    assert_eq!(s.sqlstate("SELECT partition_router.advise('plain')"), "42809");
    s.run("CREATE ROLE advise_other; GRANT EXECUTE ON FUNCTION partition_router.advise TO advise_other; SET ROLE advise_other");
    assert_eq!(s.sqlstate("SELECT partition_router.advise('h')"), "42501");
    s.run("RESET ROLE; DROP OWNED BY advise_other; DROP ROLE advise_other");
}
