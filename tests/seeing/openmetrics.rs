//! `openmetrics()` read by those that it is for.

use super::common::{Database, one, run, sqlstate, texts};
use super::live;
use super::processes::{Place, Prometheus, serve};
use postgres::Client;
use std::io::Write;
use std::process::{Command, Stdio};

pub const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Makes something happen in each family.
pub fn busy(client: &mut Client) {
    run(
        client,
        &[
            "SET partition_router.use_partitioned_tables = on",
            "SELECT partition_router.route('revenues')",
            "INSERT INTO revenues (at) VALUES (current_date - 400)",
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE revenues_partitioned DROP COLUMN note",
        ],
    );
    assert_eq!(
        sqlstate(client, "INSERT INTO revenues (at) VALUES (current_date)"),
        "PR015"
    );
    run(
        client,
        &[
            "ALTER TABLE revenues_partitioned ADD COLUMN note text",
            "RESET partition_router.carry_ddl",
            "CREATE SCHEMA attic",
            "CREATE TABLE visits (on_day date NOT NULL) PARTITION BY RANGE (on_day)",
            "CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
            "SELECT partition_router.manage('visits', '1 month', retention => '2 years', retention_action => 'archive',
                 archive_schema => 'attic')",
            "SELECT partition_router.create_partitions('visits')",
            "CALL partition_router.run_maintenance('visits')",
            "SELECT * FROM partition_router.verify('revenues')",
            "CREATE TABLE cached (id int)",
            "SELECT partition_router.enable_change_feed('cached', ARRAY['id'], max_lag => '1 microsecond', name => 'odd \"feed\"')",
        ],
    );
}

/// A pair, a managed table, and a name that is hard to quote.
pub fn database(name: &str) -> (Database, Client) {
    let (database, mut client) = live(name);
    run(&mut client, &["ALTER TABLE revenues ADD COLUMN note text"]);
    busy(&mut client);
    run(
        &mut client,
        &[
            "CREATE TABLE \"back\\slash \"\"quoted\"\"\n line\" (id int PRIMARY KEY, org text NOT NULL)",
            "SELECT partition_router.create_twin('\"back\\slash \"\"quoted\"\"\n line\"', 'id', 'hash', partitions => 2, twin => 'odd')",
        ],
    );
    (database, client)
}

#[test]
fn prometheus_reads_every_family_with_its_values() {
    let (_database, mut client) = database("openmetrics");
    let text: String = one(&mut client, "SELECT partition_router.openmetrics()");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let place = Place::new("openmetrics");
    let prometheus = Prometheus::start(&place, &[("ours", serve(text.clone(), TYPE))], None);
    assert_eq!(prometheus.value("up{job=\"ours\"}"), 1.0);
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let suffix = if words[3] == "counter" { "_total" } else { "" };
        prometheus.query(&format!("{}{suffix}", words[2]));
    }
    let revenues = "relation=\"public.revenues\"";
    for (query, expected) in [
        (
            format!("partition_router_side_rows{{{revenues}, side=\"twin\", source=\"proven\"}}"),
            91.0,
        ),
        (format!("partition_router_pair_proven{{{revenues}}}"), 1.0),
        (format!("partition_router_pair_backfill_ratio{{{revenues}}}"), 1.0),
        (
            format!("partition_router_sync_errors_total{{{revenues}, sqlstate=\"PR015\"}}"),
            1.0,
        ),
        (
            format!("partition_router_routing_decisions_total{{{revenues}, reason=\"setting\"}}"),
            1.0,
        ),
        (
            "partition_router_table_default_rows{relation=\"public.revenues_partitioned\"}".into(),
            1.0,
        ),
        (
            "partition_router_table_default_rows_to_move{relation=\"public.revenues_partitioned\"}".into(),
            1.0,
        ),
        (
            "partition_router_table_partitions_ahead{relation=\"public.visits\"}".into(),
            3.0,
        ),
        (
            "partition_router_archives_number{relation=\"public.visits\", state=\"archived\"}".into(),
            1.0,
        ),
        ("partition_router_phase_pairs{phase=\"prepared\"}".into(), 1.0),
        ("partition_router_replicas_connected".into(), 0.0),
    ] {
        assert_eq!(prometheus.value(&query), expected, "{query}");
    }
    let odd = prometheus.query("partition_router_pair_rollout_percent{relation=~\"(?s).*slash.*\"}");
    assert_eq!(
        odd[0]["metric"]["relation"].as_str(),
        Some("public.\"back\\slash \"\"quoted\"\"\n line\"")
    );
}

#[test]
fn promtool_has_nothing_to_say_against_it() {
    let (_database, mut client) = database("promtool");
    let text: String = one(&mut client, "SELECT partition_router.openmetrics()");
    // It reads the older format, in which a counter's family is called as its samples are.
    let text: String = text
        .lines()
        .filter(|line| *line != "# EOF")
        .map(|line| {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let counter = words.len() == 4 && text.contains(&format!("# TYPE {} counter", words[2]));
            match counter && line.starts_with("# ") {
                true => format!("# {} {}_total {}\n", words[1], words[2], words[3]),
                false => format!("{line}\n"),
            }
        })
        .collect();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: see scripts/setup.sh test");
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{said}\n{text}"
    );
}

#[test]
fn large_pairs_are_estimated_and_marked_as_such() {
    let (_database, mut client) = live("estimates");
    let c = &mut client;
    let exact = "SELECT (partition_router.metrics() #>> '{tables,0,countsExact}')::boolean";
    assert!(one::<bool>(c, exact));
    // What decides is the size, which nobody wants to write here: the pair gets more partitions than are counted.
    run(
        c,
        &["DO $$ BEGIN FOR g IN 1 .. 510 LOOP EXECUTE format('CREATE TABLE p%s PARTITION OF revenues_partitioned
               FOR VALUES FROM (%L) TO (%L)', g, date '1900-01-01' + g, date '1900-01-01' + g + 1); END LOOP; END $$"],
    );
    assert!(!one::<bool>(c, exact));
    assert!(one::<bool>(
        c,
        "SELECT t ->> 'provenCount' = '90' AND (t ->> 'provenAt')::timestamptz > now() - interval '1 hour'
             AND t ->> 'legacyCount' = '90'
         FROM (SELECT partition_router.metrics() #> '{tables,0}' AS t) m"
    ));
    // Asked for, every row is counted, and no partition stays locked.
    run(c, &["INSERT INTO revenues (at) VALUES (current_date)", "BEGIN"]);
    assert_eq!(
        one::<String>(
            c,
            "SELECT concat_ws(' ', t -> 'legacyCount', t -> 'partitionedCount', t -> 'rowCountDelta', t -> 'countsExact')
             FROM (SELECT partition_router.metrics(exact => true) #> '{tables,0}' AS t) m"
        ),
        "91 91 0 true"
    );
    assert_eq!(
        texts(
            c,
            "SELECT l.relation::regclass::text FROM pg_locks l JOIN pg_inherits i ON i.inhrelid = l.relation
             WHERE l.pid = pg_backend_pid() AND i.inhparent = 'revenues_partitioned'::regclass"
        ),
        [""; 0]
    );
    run(c, &["COMMIT"]);
    assert!(one::<bool>(
        c,
        "SELECT partition_router.metrics(exact => NULL) IS NULL"
    ));
}
