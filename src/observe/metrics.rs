//! `metrics()`, and the figures of tables and pairs that exporters read as rows. Cheap however large the tables are: rows are counted
//! where that is soon done or asked for, else estimated, and the last proof says what they were then.

use super::default_rows::in_default;
use super::facts::{self, Bounds, PairFacts, Part, Source, TableFacts};
use super::overview::Overview;
use super::sync_errors;
use super::{server, timeline};
use crate::error::Result;
use crate::session::with_own_tables;
use crate::{parity, spi};
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Unasked, pairs are counted, the smallest first, while all that is counted has at most so many bytes: a tenth of a second, …
const COUNTED_BYTES: i64 = 64 << 20;
/// … and so many tables: each is opened.
const COUNTED_TABLES: i64 = 200;

/// Which pairs are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Those that are soon counted.
    Small,
    /// All, however long that takes.
    All,
}

/// The figures of one partitioned table.
#[derive(Debug, Clone)]
pub struct TableMetrics {
    pub relation: String,
    pub partitions: i64,
    /// None where that cannot be said: hash, list, plain numbers.
    pub partitions_ahead: Option<i64>,
    pub premake: Option<i64>,
    /// With indexes and TOAST.
    pub bytes: i64,
    pub bytes_source: Source,
    pub estimated_rows: i64,
    pub default_rows: i64,
    /// Of these, without those that maintenance leaves alone; none without a policy.
    pub default_rows_to_move: Option<i64>,
    pub maintenance_failed: Option<bool>,
    /// Seconds since 1970.
    pub maintenance_last_run: Option<f64>,
    pub archives_unfinished: i64,
    /// Seconds since the oldest of them changed.
    pub archive_lag: f64,
}

/// The figures of one pair.
#[derive(Debug, Clone)]
pub struct PairMetrics {
    pub relation: String,
    pub twin: Option<String>,
    pub phase: String,
    pub strategy: String,
    pub estimated_legacy_rows: i64,
    pub estimated_twin_rows: i64,
    /// Of the last verify that passed, which both sides had.
    pub proven_rows: Option<i64>,
    pub proven_at: Option<f64>,
    /// Whether the pair counts as proven equal now.
    pub is_proven: bool,
    pub rollout_percent: i32,
    /// 0 to 1, of the copy.
    pub backfill_ratio: Option<f64>,
    pub backfill_rows: Option<i64>,
    pub backfill_rows_total: Option<i64>,
    pub backfill_seconds_left: Option<f64>,
    pub sync_errors: i64,
}

/// The figures of every partitioned table that is a twin or under maintenance, by name.
pub fn tables() -> Result<Vec<TableMetrics>> {
    Ok(tables_of(&Overview::read()?))
}

/// The same, of what has been read.
pub fn tables_of(overview: &Overview) -> Vec<TableMetrics> {
    let metrics = |table: &TableFacts| {
        let parts = overview.parts.get(&table.root).map_or(&[][..], Vec::as_slice);
        let policy = table.policy.as_ref();
        let unfinished = || {
            let of_table = overview
                .server
                .archives
                .iter()
                .filter(|a| a.relation == table.name);
            of_table.filter(|a| a.is_unfinished())
        };
        let in_default = in_default(table, &overview.defaults);
        TableMetrics {
            relation: table.name.clone(),
            partitions: table.leaves,
            partitions_ahead: ahead(table, parts),
            premake: policy.map(|policy| policy.premake),
            bytes: parts.iter().map(|part| part.bytes).sum(),
            bytes_source: overview.source,
            estimated_rows: table.estimate,
            default_rows: in_default.rows,
            default_rows_to_move: policy.map(|_| in_default.to_move),
            maintenance_failed: policy.map(|policy| policy.last_error.is_some()),
            maintenance_last_run: policy.and_then(|policy| policy.last_run_epoch),
            archives_unfinished: unfinished().map(|a| a.number).sum(),
            archive_lag: unfinished().map(|a| a.age).fold(0.0, f64::max),
        }
    };
    overview.tables.iter().map(metrics).collect()
}

/// Partitions ahead of the clock; of a plain number, those above the last one with rows.
fn ahead(table: &TableFacts, parts: &[Part]) -> Option<i64> {
    if let Some(ahead) = table.ahead() {
        return i64::try_from(ahead).ok();
    }
    if table.strategy != "r" || table.policy.is_none() {
        return None;
    }
    let placed: Vec<(f64, i64)> = parts
        .iter()
        .filter_map(|part| Some((timeline::range(&part.bounds)?.0, part.rows)))
        .collect();
    let newest = placed
        .iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|(start, _)| *start);
    let newest = newest.fold(f64::NEG_INFINITY, f64::max);
    i64::try_from(placed.iter().filter(|(start, _)| *start > newest).count()).ok()
}

/// The figures of every pair, in the order of creation.
pub fn pairs() -> Result<Vec<PairMetrics>> {
    pairs_of(&facts::pairs()?, &facts::tables(Bounds::None)?)
}

/// The same, of what has been read.
pub fn pairs_of(pairs: &[PairFacts], tables: &[TableFacts]) -> Result<Vec<PairMetrics>> {
    let errors = sync_errors::by_relation()?;
    let estimates: HashMap<u32, i64> = tables.iter().map(|table| (table.root, table.estimate)).collect();
    let metrics = |pair: &PairFacts| PairMetrics {
        relation: pair.name(),
        estimated_legacy_rows: pair.legacy_estimate.unwrap_or(0),
        estimated_twin_rows: estimates.get(&pair.twin).copied().unwrap_or(0),
        proven_rows: pair.proven_rows,
        proven_at: pair.proven_epoch,
        is_proven: pair.verified_at.is_some(),
        rollout_percent: pair.percent,
        backfill_ratio: pair.copy.as_ref().map(|copy| copy.ratio),
        backfill_rows: pair.copy.as_ref().map(|copy| copy.rows),
        backfill_rows_total: pair.copy.as_ref().map(|copy| copy.total),
        backfill_seconds_left: pair.copy.as_ref().and_then(|copy| copy.seconds_left),
        sync_errors: errors.get(&pair.legacy).map_or(0, |errors| errors.number as i64),
        twin: pair.twin_name.clone(),
        phase: pair.phase.clone(),
        strategy: pair.strategy.clone(),
    };
    Ok(pairs.iter().map(metrics).collect())
}

/// Rows of both sides of a pair.
#[derive(Clone, Copy)]
struct Counts {
    legacy: i64,
    twin: i64,
    exact: bool,
}

/// `metrics()`.
pub fn metrics(counting: Counting) -> Result<Value> {
    let pairs = facts::pairs()?;
    let triggers = facts::triggers(&pairs)?;
    let tables: HashMap<u32, TableFacts> = facts::tables(Bounds::None)?
        .into_iter()
        .map(|table| (table.root, table))
        .collect();
    let counts = counts(&pairs, &tables, counting)?;
    let one = |pair: &PairFacts| {
        if !pair.is_whole() {
            return json!({ "name": pair.base_name.as_str(), "error": "a table of the pair is gone" });
        }
        let counts = counts[&pair.id];
        let is_done = pair.phase == "done";
        let name = if is_done {
            &pair.twin_relname
        } else {
            &pair.legacy_relname
        };
        let events = triggers.get(&pair.id).filter(|_| !is_done);
        json!({
            "name": name,
            "schema": pair.schema,
            "twin": pair.twin_relname,
            "phase": pair.phase,
            "strategy": pair.strategy,
            "partitionCount": tables.get(&pair.twin).map_or(0, |table| table.leaves),
            "legacyCount": if is_done { 0 } else { counts.legacy },
            "partitionedCount": counts.twin,
            "rowCountDelta": if is_done { 0 } else { counts.legacy - counts.twin },
            "countsExact": counts.exact,
            "verifiedAt": pair.verified_at,
            "provenCount": pair.proven_rows,
            "provenAt": pair.proven_at,
            "triggers": events.map_or(&[][..], |triggers| triggers.events.as_slice()),
        })
    };
    let now: Option<String> = spi::row(
        "SELECT to_jsonb(to_char(timezone('UTC', clock_timestamp()), 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'))",
        &[],
    )?;
    Ok(json!({
        "partitionedTablesEnabled": crate::settings::use_partitioned_tables() && crate::settings::enable_partition_routing(),
        "tables": pairs.iter().map(one).collect::<Vec<_>>(),
        "replication": replication(&server::server()?),
        "timestamp": now,
    }))
}

/// Who follows this server, whom it keeps log for, and how far it is behind itself where it is a standby.
fn replication(server: &server::Server) -> Value {
    let replicas = server.replicas.iter().map(|replica| {
        json!({
            "name": replica.name, "kind": replica.kind, "lagSeconds": replica.seconds, "lagBytes": replica.bytes as i64,
        })
    });
    let slots = server.slots.iter().map(|slot| {
        json!({
            "name": slot.name, "kind": slot.kind, "active": slot.is_active, "walStatus": slot.wal_status,
            "keptBytes": slot.kept as i64, "lagBytes": slot.lag as i64,
        })
    });
    let standby = server.standby.is_standby.then(|| {
        json!({
            "paused": server.standby.is_paused, "receiving": server.standby.is_receiving,
            "lagSeconds": server.standby.seconds, "primary": server.standby.primary,
        })
    });
    json!({
        "replicas": replicas.collect::<Vec<_>>(), "slots": slots.collect::<Vec<_>>(), "standby": standby,
    })
}

/// The rows of each pair, by its number.
fn counts(
    pairs: &[PairFacts],
    tables: &HashMap<u32, TableFacts>,
    counting: Counting,
) -> Result<HashMap<i32, Counts>> {
    let leaves = |pair: &PairFacts| tables.get(&pair.twin).map_or(0, |table| table.leaves);
    let mut found: HashMap<i32, Counts> = HashMap::new();
    for pair in pairs {
        let twin = tables.get(&pair.twin).map_or(0, |table| table.estimate);
        let estimate = Counts {
            legacy: pair.legacy_estimate.unwrap_or(0),
            twin,
            exact: false,
        };
        found.insert(pair.id, estimate);
    }
    // Only what could be counted is measured.
    let mut few: Vec<&PairFacts> = pairs.iter().filter(|pair| pair.is_whole()).collect();
    few.sort_by_key(|pair| leaves(pair));
    let mut opened = 0;
    few.retain(|pair| {
        opened += leaves(pair) + 1;
        counting == Counting::All || opened <= COUNTED_TABLES
    });
    let mut sizes = sizes_of(&few)?;
    sizes.sort_by_key(|size| size.bytes);
    let mut total = 0;
    // Rows on another server are not ours to count.
    for size in sizes.into_iter().filter(|size| !size.is_far) {
        total += size.bytes;
        if counting == Counting::Small && total > COUNTED_BYTES {
            break;
        }
        let counted = Counts {
            legacy: parity::count_rows(&size.legacy)?,
            twin: parity::count_rows(&size.twin)?,
            exact: true,
        };
        found.insert(few[size.place].id, counted);
    }
    Ok(found)
}

/// What there is to count of a pair.
#[derive(Deserialize)]
struct Size {
    place: usize,
    /// Of both sides, without indexes.
    bytes: i64,
    /// The tables that hold the rows of each side.
    legacy: Vec<u32>,
    twin: Vec<u32>,
    is_far: bool,
}

/// The trees are read from pg_inherits, which locks none of the partitions.
fn sizes_of(pairs: &[&PairFacts]) -> Result<Vec<Size>> {
    let legacies: Vec<Oid> = pairs.iter().map(|pair| pair.legacy.into()).collect();
    let twins: Vec<Oid> = pairs.iter().map(|pair| pair.twin.into()).collect();
    with_own_tables(|| {
        spi::rows(
            "WITH RECURSIVE wanted AS (
                 SELECT * FROM unnest($1, $2) WITH ORDINALITY AS w(legacy, twin, place)
             ), tree AS (
                 SELECT w.place, s.side, s.oid
                 FROM wanted w CROSS JOIN LATERAL (VALUES ('legacy', w.legacy), ('twin', w.twin)) AS s(side, oid)
                 UNION ALL
                 SELECT t.place, t.side, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
             )
             SELECT jsonb_build_object('place', t.place - 1, 'bytes', COALESCE(sum(pg_relation_size(c.oid)), 0)::bigint,
                 'legacy', COALESCE(jsonb_agg(c.oid::bigint) FILTER (WHERE t.side = 'legacy' AND c.relkind = 'r'), '[]'),
                 'twin', COALESCE(jsonb_agg(c.oid::bigint) FILTER (WHERE t.side = 'twin' AND c.relkind = 'r'), '[]'),
                 'is_far', bool_or(c.relkind = 'f'))
             FROM tree t JOIN pg_class c ON c.oid = t.oid GROUP BY t.place",
            &[legacies.into(), twins.into()],
        )
    })
}
