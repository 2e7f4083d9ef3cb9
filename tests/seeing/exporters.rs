//! The files of docs/monitoring, in the programs that they are for.

use super::alerts::promtool;
use super::common::{Cluster, Database, one, run};
use super::openmetrics::{TYPE, busy};
use super::processes::{Place, Program, Prometheus, free_port, get, serve};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/monitoring")
        .join(name)
}

pub fn text_of(name: &str) -> String {
    std::fs::read_to_string(shipped(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The metrics that expressions name.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("partition_router_"))
        .map(str::to_string)
        .collect()
}

/// The expressions of the rules and of the panels.
fn wanted() -> BTreeSet<String> {
    let rules = text_of("alerts.yml");
    let rules: String = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .map(|expression| format!("{expression}\n"))
        .collect();
    let dashboard: Value = serde_json::from_str(&text_of("grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let expressions = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"))
        .map(|target| target["expr"].as_str().expect("an expression"));
    let mut found = named(&rules);
    assert!(found.len() > 10, "{found:?}");
    found.extend(expressions.flat_map(named));
    found
}

#[test]
fn every_metric_that_a_rule_or_a_panel_names_is_there_by_exporter_and_by_call() {
    let cluster = Arc::new(Cluster::start(&[]));
    // Two of one name, and a slot that nobody reads.
    let _standbys = [cluster.standby(&[]), cluster.standby(&[])];
    let database = Database::on(Arc::clone(&cluster), "exported");
    let mut client = database.connect();
    let c = &mut client;
    run(
        c,
        &[
            "CREATE TABLE revenues (id serial PRIMARY KEY, at date NOT NULL, note text)",
            "INSERT INTO revenues (at) SELECT current_date - g FROM generate_series(1, 5000) g",
            "CALL partition_router.migrate('revenues', 'at')",
        ],
    );
    busy(c);
    // A backfill that is under way has the time that is left.
    run(
        c,
        &[
            "UPDATE partition_router.copy_state SET stage = 'copy', blocks = 4, next_block = 2, busy = '1 s'",
            "INSERT INTO revenues (at) VALUES (current_date + 4000)",
            "CREATE ROLE exporter LOGIN IN ROLE pg_monitor",
            "SELECT pg_create_physical_replication_slot('unread', true)",
        ],
    );
    let place = Place::new("exporters");
    let exporter_port = free_port();
    let _exporter = Program::start(
        Command::new("prometheus-postgres-exporter")
            .env(
                "DATA_SOURCE_NAME",
                format!(
                    "host={} port=5432 user=exporter dbname={} sslmode=disable",
                    cluster.socket(),
                    database.name
                ),
            )
            .arg(format!(
                "--extend.query-path={}",
                shipped("postgres_exporter.yml").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{exporter_port}"))
            .args(["--disable-default-metrics", "--disable-settings-metrics"]),
        &place.0.join("exporter.log"),
    );
    let started = Instant::now();
    while get(exporter_port, "/metrics").is_none() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the exporter does not answer"
        );
        std::thread::yield_now();
    }
    let text: String = one(c, "SELECT partition_router.openmetrics()");
    let jobs = [("exporter", exporter_port), ("call", serve(text, TYPE))];
    let rules = shipped("alerts.yml");
    let prometheus = Prometheus::start(&place, &jobs, Some(&rules));
    for metric in wanted() {
        let labels = |job: &str| {
            // A column that is NULL is not a number to the exporter, and is not said by the call.
            let result = prometheus.query(&format!(
                "count by (relation, side, source, check, status, state, phase, target, reason, kind, replica, slot, result, feed) (
                     {metric}{{job=\"{job}\"}} == {metric}{{job=\"{job}\"}})"
            ));
            let metrics = result.into_iter().map(|one| one["metric"].to_string());
            metrics.collect::<BTreeSet<String>>()
        };
        assert_eq!(labels("exporter"), labels("call"), "{metric}");
    }
    // A rule fires on what is wrong here: rows in the default.
    prometheus.query(
        "ALERTS{alertname=\"PartitionRouterRowsInDefault\", relation=\"public.revenues_partitioned\"}",
    );
    // And changes that nobody takes.
    prometheus.query("ALERTS{alertname=\"PartitionRouterChangesWait\", feed='odd \"feed\"'}");
}

#[test]
fn prometheus_takes_the_rules() {
    promtool(&["check", "rules"], &shipped("alerts.yml"));
}

/// A file as whoever reads YAML sees it.
pub fn yaml(name: &str) -> Value {
    let output = Command::new("/usr/bin/python3")
        .args([
            "-c",
            "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)",
        ])
        .arg(shipped(name))
        .output()
        .expect("python3 with yaml: see scripts/setup.sh test");
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(value: &Value) -> String {
    let words = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Queries by name, and metrics by name: kind, description, labels, and the column and the query that they are of.
type Asked = (
    BTreeMap<String, String>,
    BTreeMap<String, (String, String, Vec<String>, String, String)>,
);

fn asked_by_postgres_exporter() -> Asked {
    let (mut queries, mut metrics) = Asked::default();
    let file = yaml("postgres_exporter.yml");
    for (name, part) in file.as_object().expect("queries") {
        queries.insert(name.clone(), text(&part["query"]));
        let columns = part["metrics"].as_array().expect("metrics").iter();
        let columns: Vec<_> = columns
            .flat_map(|one| one.as_object().expect("a column"))
            .collect();
        let (labels, values): (Vec<_>, Vec<_>) =
            columns.into_iter().partition(|(_, it)| it["usage"] == "LABEL");
        let labels: Vec<String> = labels.into_iter().map(|(label, _)| label.clone()).collect();
        for (column, it) in values {
            let (kind, help) = (text(&it["usage"]).to_lowercase(), text(&it["description"]));
            metrics.insert(
                format!("{name}_{column}"),
                (kind, help, labels.clone(), column.clone(), name.clone()),
            );
        }
    }
    (queries, metrics)
}

fn asked_by_sql_exporter() -> Asked {
    let (mut queries, mut metrics) = Asked::default();
    let file = yaml("sql_exporter.collector.yml");
    assert_eq!(file["collector_name"], "partition_router");
    for query in file["queries"].as_array().expect("queries") {
        queries.insert(text(&query["query_name"]), text(&query["query"]));
    }
    for metric in file["metrics"].as_array().expect("metrics") {
        let list = |key: &str| {
            metric[key]
                .as_array()
                .map_or(vec![], |all| all.iter().map(text).collect())
        };
        let [column] = &list("values")[..] else {
            panic!("one value: {metric}");
        };
        metrics.insert(
            text(&metric["metric_name"]),
            (
                text(&metric["type"]),
                text(&metric["help"]),
                list("key_labels"),
                column.clone(),
                text(&metric["query_ref"]),
            ),
        );
    }
    (queries, metrics)
}

#[test]
fn both_exporters_ask_the_same() {
    let (ours, theirs) = (asked_by_postgres_exporter(), asked_by_sql_exporter());
    assert_eq!(ours, theirs);
    let missing: Vec<_> = wanted()
        .into_iter()
        .filter(|metric| !theirs.1.contains_key(metric))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
