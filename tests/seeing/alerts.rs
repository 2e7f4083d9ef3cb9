//! The rules and the dashboard where several servers are watched, with tables and slots of one name.

use super::exporters::{shipped, text_of, yaml};
use super::processes::Place;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// A metric with its labels, and its values minute by minute on the server where the rule fires, and on two where it is silent.
type Series = (&'static str, [&'static str; 3]);

/// For each rule what is measured, and the minute at which it is looked at.
const RULES: &[(&str, &[Series], u32)] = &[
    (
        "PartitionRouterCheckFails",
        &[(
            "problem_severity{relation='public.t',check='sync'}",
            ["2x60", "1x60", "_x60"],
        )],
        10,
    ),
    (
        "PartitionRouterCheckWarns",
        &[(
            "problem_severity{relation='public.t',check='parity'}",
            ["1x90", "2x90", "1x40 _x50"],
        )],
        70,
    ),
    (
        "PartitionRouterNotProvenEqual",
        &[("pair_proven{relation='public.t'}", ["0x60", "1x60", "0x10 1x50"])],
        30,
    ),
    (
        "PartitionRouterProofIsOld",
        &[
            (
                "pair_proven_timestamp_seconds{relation='public.t'}",
                ["-300000x90", "0x90", "-300000x90"],
            ),
            ("pair_proven{relation='public.t'}", ["1x90", "1x90", "0x90"]),
        ],
        70,
    ),
    (
        "PartitionRouterSyncErrors",
        &[
            // The first of its kind, one that is over, and a server that nobody watched when there were some.
            (
                "sync_errors_total{relation='public.t',sqlstate='PR015'}",
                ["_x20 1x40", "3x60", "_x20 7x40"],
            ),
            (
                "sync_errors_total{relation='public.u',sqlstate='53100'}",
                ["2x60", "0x60", "_x20 7x40"],
            ),
            ("health_checks{status='ok'}", ["9x60", "9x60", "_x20 9x40"]),
        ],
        25,
    ),
    (
        "PartitionRouterBackfillStands",
        &[
            (
                "pair_backfill_ratio{relation='public.t'}",
                ["0.5x60", "0.5x60", "1x60"],
            ),
            (
                "pair_backfill_rows{relation='public.t'}",
                ["70x60", "70+10x60", "70x60"],
            ),
        ],
        55,
    ),
    (
        "PartitionRouterNoPartitionAhead",
        &[
            (
                "table_partitions_ahead{relation='public.t'}",
                ["0x60", "3x60", "0x60"],
            ),
            ("table_premake{relation='public.t'}", ["3x60", "3x60", "0x60"]),
        ],
        45,
    ),
    (
        "PartitionRouterRowsInDefault",
        &[
            (
                "table_default_rows_to_move{relation='public.t'}",
                ["1x500", "0x500", "5x200 0x300"],
            ),
            (
                "table_default_rows{relation='public.t'}",
                ["4x500", "3x500", "8x500"],
            ),
        ],
        400,
    ),
    (
        "PartitionRouterMaintenanceFails",
        &[(
            "table_maintenance_failed{relation='public.t'}",
            ["1x60", "0x60", "1x10 0x50"],
        )],
        30,
    ),
    (
        "PartitionRouterMaintenanceIsLate",
        &[(
            "table_maintenance_last_run_timestamp_seconds{relation='public.t'}",
            ["-3460000x90", "-3440000x90", "_x90"],
        )],
        70,
    ),
    (
        "PartitionRouterArchiveLags",
        &[(
            "table_archive_lag_seconds{relation='public.t'}",
            ["90000+60x90", "80000x90", "0x90"],
        )],
        70,
    ),
    (
        "PartitionRouterShadowReadsDiffer",
        &[
            (
                "shadow_reads_total{result='different'}",
                ["0x10 1x50", "4x60", "0x60"],
            ),
            ("shadow_reads_total{result='equal'}", ["0x60", "0+9x60", "0+9x60"]),
        ],
        20,
    ),
    (
        "PartitionRouterReplicaLags",
        &[(
            "replica_lag_seconds{replica='r',kind='physical'}",
            ["400x60", "200x60", "400x10 0x50"],
        )],
        30,
    ),
    (
        "PartitionRouterSlotKeepsLog",
        &[
            (
                "slot_kept_bytes{slot='s',kind='physical'}",
                ["5000000000x60", "5000000000x60", "4000000000x60"],
            ),
            ("slot_active{slot='s',kind='physical'}", ["0x60", "1x60", "0x60"]),
        ],
        30,
    ),
    (
        "PartitionRouterSlotIsLost",
        &[("slot_lost{slot='s',kind='logical'}", ["1x60", "0x60", "_x60"])],
        10,
    ),
    (
        "PartitionRouterStandbyIsBehind",
        &[("standby_lag_seconds", ["301+60x60", "300x60", "0x60"])],
        30,
    ),
    (
        "PartitionRouterChangesWait",
        &[
            ("change_feed_lag_seconds{feed='f'}", ["70x60", "50x60", "70x60"]),
            (
                "change_feed_max_lag_seconds{feed='f'}",
                ["60x60", "60x60", "3600x60"],
            ),
        ],
        10,
    ),
    (
        "PartitionRouterChangesAreLost",
        &[
            (
                "change_feed_lag_seconds{feed='f'}",
                ["9000x60", "7000x60", "9000x60"],
            ),
            (
                "change_feed_retention_seconds{feed='f'}",
                ["8000x60", "8000x60", "10000x60"],
            ),
        ],
        10,
    ),
];

const FIRES: &str = "fires:9187";
const SILENT: [&str; 2] = ["silent:9187", "elsewhere:9187"];

/// A test of `promtool`: only the first server fires.
fn rule_test((alert, all, minute): &(&str, &[Series], u32)) -> Value {
    let series = all.iter().flat_map(|(metric, values)| {
        let (name, labels) = metric.split_once('{').unwrap_or((metric, "}"));
        [FIRES, SILENT[0], SILENT[1]]
            .into_iter()
            .zip(values)
            .map(move |(server, values)| {
                let comma = if labels == "}" { "" } else { "," };
                json!({
                    "series": format!("partition_router_{name}{{job='pg',instance='{server}'{comma}{labels}"),
                    "values": values,
                })
            })
    });
    json!({
        "interval": "1m",
        "name": alert,
        "input_series": series.collect::<Vec<_>>(),
        "promql_expr_test": [{
            "expr": format!("count by (instance, job) (ALERTS{{alertname='{alert}', alertstate='firing'}})"),
            "eval_time": format!("{minute}m"),
            "exp_samples": [{ "labels": format!("{{instance='{FIRES}', job='pg'}}"), "value": 1 }],
        }],
    })
}

pub fn promtool(arguments: &[&str], file: &Path) {
    let output = Command::new("promtool")
        .args(arguments)
        .arg(file)
        .output()
        .expect("promtool: see scripts/setup.sh test");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_rule_fires_for_the_server_that_is_ill_and_for_no_other() {
    let rules = yaml("alerts.yml");
    let shipped_rules: BTreeSet<&str> = rules["groups"][0]["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| rule["alert"].as_str().expect("a name"))
        .collect();
    assert_eq!(shipped_rules, RULES.iter().map(|(alert, ..)| *alert).collect());
    let place = Place::new("alerts");
    let tests = json!({
        "rule_files": [shipped("alerts.yml")],
        "evaluation_interval": "1m",
        "tests": RULES.iter().map(rule_test).collect::<Vec<_>>(),
    });
    // JSON is YAML.
    promtool(&["test", "rules"], &place.write("tests.yml", &tests.to_string()));
}

#[test]
fn a_panel_is_of_the_servers_that_are_chosen() {
    let dashboard: Value = serde_json::from_str(&text_of("grafana.json")).expect("JSON");
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
        .iter()
        .map(|variable| variable["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "relation"]);
    let targets = dashboard["panels"].as_array().expect("panels").iter();
    let targets: Vec<&Value> = targets
        .flat_map(|panel| panel["targets"].as_array().expect("targets"))
        .collect();
    let mut rules = vec![];
    for (place, target) in targets.iter().enumerate() {
        let expression = target["expr"].as_str().expect("an expression");
        let metrics = expression.matches("partition_router_").count();
        let chosen = "{job=~\"$job\",instance=~\"$instance\"";
        assert!(
            metrics > 0 && expression.matches(chosen).count() == metrics,
            "{expression}"
        );
        // Two servers are two lines, also of a sum.
        assert!(!expression.contains(" by ("), "{expression}");
        let legend = target["legendFormat"].as_str().expect("a legend");
        assert!(
            legend.is_empty() || legend.starts_with("{{instance}} "),
            "{legend}"
        );
        rules.push(json!({ "record": format!("panel_{place}"), "expr": expression }));
    }
    let place = Place::new("panels");
    let groups = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    promtool(
        &["check", "rules"],
        &place.write("panels.yml", &groups.to_string()),
    );
}
