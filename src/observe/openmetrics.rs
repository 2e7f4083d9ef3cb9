//! `openmetrics()`: all that a rule or a panel asks for, as OpenMetrics text. The names are those that the exporters in
//! `docs/monitoring` give to the same figures.

use super::checks::{self, Check, Feed, Seen, Status};
use super::facts;
use super::metrics::{self, PairMetrics, TableMetrics};
use super::overview::Overview;
use super::server::{self, Server};
use super::sync_errors;
use crate::error::{Error, Result};
use crate::route::stats;
use crate::session::with_own_tables;
use crate::spi;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;

type Labels = Vec<(&'static str, String)>;

/// One family of samples.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<(Labels, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                let labelled = metric.encode_family(labels)?;
                match family.kind {
                    Kind::Gauge => ConstGauge::new(*value).encode(labelled)?,
                    Kind::Counter => ConstCounter::new(*value).encode(labelled)?,
                }
            }
        }
        Ok(())
    }
}

/// The families as they are gathered.
struct Gathered(Vec<Family>);

impl Gathered {
    /// A family with a sample for each item that has a value. One without samples is left out.
    fn add<'a, T: 'a>(
        &mut self,
        (name, help): (&'static str, &'static str),
        kind: Kind,
        items: impl IntoIterator<Item = T>,
        sample: impl Fn(T) -> Option<(Labels, f64)>,
    ) {
        let samples: Vec<_> = items.into_iter().filter_map(sample).collect();
        if !samples.is_empty() {
            self.0.push(Family {
                name,
                help,
                kind,
                samples,
            });
        }
    }
}

/// `openmetrics()`.
///
/// # Errors
/// Those of the queries.
pub fn openmetrics() -> Result<String> {
    let mut gathered = Gathered(vec![]);
    let overview = Overview::read()?;
    table_families(&metrics::tables_of(&overview), &mut gathered);
    let (pairs, feeds) = (facts::pairs()?, checks::feeds()?);
    pair_families(&metrics::pairs_of(&pairs, &overview.tables)?, &mut gathered);
    log_families(&mut gathered)?;
    error_families(&mut gathered)?;
    routing_families(&mut gathered)?;
    let checks = checks::checks_of(&Seen::new(&overview, &pairs, &feeds))?;
    health_families(&checks, &mut gathered);
    feed_families(&feeds, &mut gathered);
    server_families(&overview.server, &mut gathered);
    let mut registry = Registry::with_prefix("partition_router");
    registry.register_collector(Box::new(Families(gathered.0)));
    let mut text = String::new();
    text::encode(&mut text, &registry).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(text)
}

fn of(relation: &str) -> Labels {
    vec![("relation", relation.to_string())]
}

fn table_families(tables: &[TableMetrics], gathered: &mut Gathered) {
    let mut gauge = |named, value: &dyn Fn(&TableMetrics) -> Option<f64>| {
        gathered.add(named, Kind::Gauge, tables, |table: &TableMetrics| {
            Some((of(&table.relation), value(table)?))
        });
    };
    gauge(
        (
            "table_partitions",
            "Partitions that hold rows, the default among them",
        ),
        &|t| Some(t.partitions as f64),
    );
    gauge(
        ("table_partitions_ahead", "Partitions that begin after now"),
        &|t| t.partitions_ahead.map(|n| n as f64),
    );
    gauge(
        ("table_premake", "Partitions that maintenance keeps ahead"),
        &|t| t.premake.map(|n| n as f64),
    );
    gauge(
        (
            "table_default_rows",
            "Rows in the default partition, counted up to 100001",
        ),
        &|t| Some(t.default_rows as f64),
    );
    gauge(
        (
            "table_default_rows_to_move",
            "Those of them that maintenance moves: all that its last run did not leave alone",
        ),
        &|t| t.default_rows_to_move.map(|n| n as f64),
    );
    gauge(
        (
            "table_maintenance_failed",
            "1 when the last run of maintenance had an error",
        ),
        &|t| t.maintenance_failed.map(|failed| f64::from(u8::from(failed))),
    );
    gauge(
        (
            "table_maintenance_last_run_timestamp_seconds",
            "When maintenance last looked at the table",
        ),
        &|t| t.maintenance_last_run,
    );
    gauge(
        (
            "table_archives_unfinished",
            "Archives that were begun and are not finished",
        ),
        &|t| Some(t.archives_unfinished as f64),
    );
    gauge(
        (
            "table_archive_lag_seconds",
            "Since the oldest unfinished archive last changed",
        ),
        &|t| Some(t.archive_lag),
    );
    gathered.add(
        ("size_bytes", "Bytes of all partitions with indexes and TOAST: measured, or estimated as the last VACUUM or ANALYZE saw them"),
        Kind::Gauge,
        tables,
        |table: &TableMetrics| {
            let source = ("source", table.bytes_source.as_str().to_string());
            Some(([of(&table.relation), vec![source]].concat(), table.bytes as f64))
        },
    );
    gathered.add(
        (
            "table_estimated_rows",
            "Rows of all partitions, as the last VACUUM or ANALYZE saw them",
        ),
        Kind::Gauge,
        tables,
        |table: &TableMetrics| Some((of(&table.relation), table.estimated_rows as f64)),
    );
}

fn pair_families(pairs: &[PairMetrics], gathered: &mut Gathered) {
    let mut phases: HashMap<&str, f64> = ["prepared", "copying", "live", "switched", "done"]
        .into_iter()
        .map(|phase| (phase, 0.0))
        .collect();
    for pair in pairs {
        *phases.entry(&pair.phase).or_default() += 1.0;
    }
    let mut phases: Vec<_> = phases.into_iter().collect();
    phases.sort_by_key(|(phase, _)| *phase);
    gathered.add(
        ("phase_pairs", "Pairs by phase"),
        Kind::Gauge,
        phases,
        |(phase, number): (&str, f64)| Some((vec![("phase", phase.to_string())], number)),
    );
    let sides = |pair: &PairMetrics| {
        let proven = pair.proven_rows.map(|rows| rows as f64);
        [
            ("legacy", "estimated", Some(pair.estimated_legacy_rows as f64)),
            ("twin", "estimated", Some(pair.estimated_twin_rows as f64)),
            ("legacy", "proven", proven),
            ("twin", "proven", proven),
        ]
        .map(|(side, source, rows)| (pair.relation.clone(), side, source, rows))
    };
    gathered.add(
        (
            "side_rows",
            "Rows of each side: estimated, or as the last verify that passed counted them",
        ),
        Kind::Gauge,
        pairs.iter().flat_map(sides),
        |(relation, side, source, rows): (String, &str, &str, Option<f64>)| {
            let more = vec![("side", side.to_string()), ("source", source.to_string())];
            Some(([of(&relation), more].concat(), rows?))
        },
    );
    let mut gauge = |named, value: &dyn Fn(&PairMetrics) -> Option<f64>| {
        gathered.add(named, Kind::Gauge, pairs, |pair: &PairMetrics| {
            Some((of(&pair.relation), value(pair)?))
        });
    };
    gauge(
        (
            "pair_estimated_row_delta",
            "Rows of the legacy less those of the twin, both estimated",
        ),
        &|p| (p.phase != "done").then_some((p.estimated_legacy_rows - p.estimated_twin_rows) as f64),
    );
    gauge(("pair_proven", "1 when both sides count as proven equal"), &|p| {
        (p.phase == "live" || p.phase == "switched").then_some(f64::from(u8::from(p.is_proven)))
    });
    gauge(
        ("pair_proven_timestamp_seconds", "When a verify last passed"),
        &|p| p.proven_at,
    );
    gauge(
        ("pair_rollout_percent", "Share of tenants that read the twin"),
        &|p| Some(f64::from(p.rollout_percent)),
    );
    gauge(
        ("pair_backfill_ratio", "How much of the copy is done, 0 to 1"),
        &|p| p.backfill_ratio,
    );
    gauge(
        ("pair_backfill_rows", "Rows that the backfill has copied"),
        &|p| p.backfill_rows.map(|n| n as f64),
    );
    gauge(
        (
            "pair_backfill_rows_expected",
            "Rows that there are to copy, estimated while it copies",
        ),
        &|p| p.backfill_rows_total.map(|n| n as f64),
    );
    gauge(
        ("pair_backfill_seconds_left", "Time of work left of the copy"),
        &|p| p.backfill_seconds_left,
    );
}

/// What the logs count.
#[derive(Deserialize)]
struct Logged {
    log: String,
    relation: Option<String>,
    kind: String,
    number: f64,
}

fn log_families(gathered: &mut Gathered) -> Result<()> {
    let rows: Vec<Logged> = with_own_tables(|| {
        spi::rows(
            "SELECT jsonb_build_object('log', 'maintenance', 'relation', e.parent, 'kind', e.status, 'number', count(*))
             FROM partition_router.maintenance_event e GROUP BY e.parent, e.status
             UNION ALL
             SELECT jsonb_build_object('log', 'shadow', 'relation', NULL, 'kind', x.kind, 'number', count(s.id))
             FROM (VALUES ('equal'), ('different'), ('error')) AS x(kind)
             LEFT JOIN partition_router.shadow_read s
                ON x.kind = CASE WHEN s.error IS NOT NULL THEN 'error' WHEN s.is_equal THEN 'equal' ELSE 'different' END
             GROUP BY x.kind
             UNION ALL
             SELECT jsonb_build_object('log', 'archive', 'relation', a.parent::text, 'kind', a.state, 'number', count(*))
             FROM partition_router.archives a JOIN pg_class c ON c.oid = a.parent::oid GROUP BY a.parent, a.state
             ORDER BY 1",
            &[],
        )
    })?;
    let mut add = |named, kind, log: &str, by: &'static str| {
        let of_log = rows.iter().filter(|row| row.log == log);
        gathered.add(named, kind, of_log, |row: &Logged| {
            let mut labels = row.relation.as_deref().map(of).unwrap_or_default();
            labels.push((by, row.kind.clone()));
            Some((labels, row.number))
        });
    };
    let maintenance = ("maintenance_tasks", "Entries of maintenance_log by status");
    add(maintenance, Kind::Counter, "maintenance", "status");
    add(
        ("shadow_reads", "Reads that ran on both sides, by result"),
        Kind::Counter,
        "shadow",
        "result",
    );
    add(
        ("archives_number", "Archives by state"),
        Kind::Gauge,
        "archive",
        "state",
    );
    Ok(())
}

/// Names of relations by their oids, as `regclass` prints them; those that are gone are left out.
fn names(oids: Vec<u32>) -> Result<HashMap<u32, String>> {
    let oids: Vec<pgrx::pg_sys::Oid> = oids.into_iter().map(Into::into).collect();
    let rows: Vec<(u32, String)> = with_own_tables(|| {
        spi::rows(
            "SELECT jsonb_build_array(c.oid::bigint, c.oid::regclass::text) FROM pg_class c WHERE c.oid = ANY ($1)",
            &[oids.into()],
        )
    })?;
    Ok(rows.into_iter().collect())
}

fn error_families(gathered: &mut Gathered) -> Result<()> {
    let counts = sync_errors::counts()?;
    let names = names(counts.iter().map(|count| count.legacy).collect())?;
    gathered.add(
        (
            "sync_errors",
            "Statements that failed because a change could not reach the other side",
        ),
        Kind::Counter,
        &counts,
        |count: &sync_errors::Count| {
            let more = vec![("sqlstate", count.sqlstate.clone())];
            Some((
                [of(names.get(&count.legacy)?), more].concat(),
                count.number as f64,
            ))
        },
    );
    Ok(())
}

fn routing_families(gathered: &mut Gathered) -> Result<()> {
    let counts = stats::counts()?;
    let oids = counts.iter().flat_map(|count| [count.legacy, count.target]);
    let names = names(oids.map(pgrx::pg_sys::Oid::to_u32).collect())?;
    gathered.add(
        (
            "routing_decisions",
            "Reads that were decided, by target and reason",
        ),
        Kind::Counter,
        &counts,
        |count: &stats::Count| {
            let more = vec![
                ("target", names.get(&count.target.to_u32())?.clone()),
                ("reason", count.reason.clone()),
            ];
            let relation = of(names.get(&count.legacy.to_u32())?);
            Some(([relation, more].concat(), count.decisions as f64))
        },
    );
    Ok(())
}

fn health_families(checks: &[Check], gathered: &mut Gathered) {
    gathered.add(
        ("health_checks", "Checks of the view health by status"),
        Kind::Gauge,
        Status::ALL,
        |status| {
            let number = checks.iter().filter(|check| check.status == status).count();
            Some((vec![("status", status.as_str().to_string())], number as f64))
        },
    );
    // One of many checks of a name that is not ok stands for them.
    let mut worst: HashMap<(&str, &str), Status> = HashMap::new();
    for check in checks.iter().filter(|check| check.status != Status::Ok) {
        let entry = worst
            .entry((&check.relation, check.check))
            .or_insert(check.status);
        *entry = (*entry).max(check.status);
    }
    let mut worst: Vec<_> = worst.into_iter().collect();
    worst.sort();
    gathered.add(
        (
            "problem_severity",
            "Checks that are not ok: 1 for warn, 2 for fail",
        ),
        Kind::Gauge,
        worst,
        |((relation, check), status): ((&str, &str), Status)| {
            let more = vec![("check", check.to_string())];
            let value = if status == Status::Fail { 2.0 } else { 1.0 };
            Some(([of(relation), more].concat(), value))
        },
    );
}

fn feed_families(feeds: &[Feed], gathered: &mut Gathered) {
    let mut gauge = |named, value: fn(&Feed) -> f64| {
        gathered.add(named, Kind::Gauge, feeds, |feed: &Feed| {
            Some((vec![("feed", feed.name.clone())], value(feed)))
        });
    };
    gauge(
        (
            "change_feed_waiting",
            "Changed keys that no consumer has taken yet",
        ),
        |feed| feed.waiting as f64,
    );
    gauge(
        ("change_feed_lag_seconds", "How long the oldest of them waits"),
        |feed| feed.lag.unwrap_or(0.0),
    );
    gauge(
        (
            "change_feed_max_lag_seconds",
            "How long a change may wait before health warns",
        ),
        |feed| feed.max_lag_seconds,
    );
    gauge(
        (
            "change_feed_retention_seconds",
            "How long a change may wait before it becomes one of every key",
        ),
        |feed| feed.retention_seconds,
    );
}

fn server_families(server: &Server, gathered: &mut Gathered) {
    let kinds = ["launcher", "maintenance", "backfill", "verify"];
    gathered.add(
        ("worker_processes", "Background workers that run"),
        Kind::Gauge,
        kinds,
        |kind| {
            let number = server.workers.get(&format!("partition_router {kind}"));
            Some((
                vec![("kind", kind.to_string())],
                number.copied().unwrap_or(0) as f64,
            ))
        },
    );
    gathered.add(
        ("replicas_connected", "Replicas that are connected"),
        Kind::Gauge,
        [()],
        |()| Some((vec![], server.replicas.len() as f64)),
    );
    let replica =
        |replica: &server::Replica| vec![("replica", replica.name.clone()), ("kind", replica.kind.clone())];
    gathered.add(
        ("replica_lag_seconds", "How far a replica is behind"),
        Kind::Gauge,
        &server.replicas,
        |one: &server::Replica| Some((replica(one), one.seconds)),
    );
    gathered.add(
        ("replica_lag_bytes", "Log that a replica has not replayed"),
        Kind::Gauge,
        &server.replicas,
        |one: &server::Replica| Some((replica(one), one.bytes)),
    );
    slot_families(server, gathered);
    standby_families(server, gathered);
}

fn slot_families(server: &Server, gathered: &mut Gathered) {
    let mut gauge = |named, value: fn(&server::Slot) -> f64| {
        gathered.add(named, Kind::Gauge, &server.slots, |slot: &server::Slot| {
            let labels = vec![("slot", slot.name.clone()), ("kind", slot.kind.clone())];
            Some((labels, value(slot)))
        });
    };
    gauge(
        ("slot_active", "1 when somebody reads the replication slot"),
        |s| f64::from(u8::from(s.is_active)),
    );
    gauge(
        (
            "slot_lost",
            "1 when log that the slot needs is gone, or goes with the next checkpoint",
        ),
        |s| f64::from(u8::from(s.is_lost)),
    );
    gauge(
        ("slot_kept_bytes", "Log that the server keeps for the slot"),
        |s| s.kept,
    );
    gauge(
        (
            "slot_lag_bytes",
            "Log that the reader of the slot has not confirmed",
        ),
        |s| s.lag,
    );
}

fn standby_families(server: &Server, gathered: &mut Gathered) {
    let number = |is: bool| f64::from(u8::from(is));
    let standby = &server.standby;
    for (named, value) in [
        (
            ("standby_mode", "1 when the server is a standby"),
            number(standby.is_standby),
        ),
        (
            ("standby_paused", "1 when the standby's replay is paused"),
            number(standby.is_paused),
        ),
        (
            (
                "standby_receiving",
                "1 when log comes from the primary by streaming",
            ),
            number(standby.is_receiving),
        ),
        (
            ("standby_lag_seconds", "How far the standby is behind"),
            standby.seconds,
        ),
    ] {
        gathered.add(named, Kind::Gauge, [()], |()| Some((vec![], value)));
    }
}
