//! What people and machines see: metrics, and the checks behind `health`.

use crate::catalog::load;
use crate::error::Result;
use crate::ident::Literal;
use crate::pair::{Pair, Phase, store};
use crate::plan::sync_triggers;
use crate::sync::triggers;
use crate::{parity, session, spi};
use pgrx::pg_sys::Oid;
use serde_json::{Value, json};

/// Tables up to this size (bytes, both sides together) are counted, larger ones estimated.
const COUNTED_BYTES: i64 = 1 << 30;

/// Rows of a default partition are counted up to here: whoever looks at `health` every few seconds must not scan them all.
const COUNTED_ROWS: i64 = 100_000;

/// One row of `health`.
#[derive(Debug, Clone)]
pub struct Check {
    pub relation: String,
    pub check: &'static str,
    pub status: &'static str,
    pub message: String,
    pub mend: Option<String>,
}

/// `metrics()`.
pub fn metrics() -> Result<Value> {
    let mut tables = vec![];
    for pair in store::all()? {
        tables.push(pair_metrics(&pair)?);
    }
    let now: Option<String> = spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.to_char(
            pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()), 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'))",
        &[],
    )?;
    Ok(json!({
        "partitionedTablesEnabled": crate::settings::use_partitioned_tables() && crate::settings::enable_partition_routing(),
        "tables": tables,
        "timestamp": now,
    }))
}

/// Of a pair that is done: the table alone.
fn done_metrics(pair: &Pair) -> Result<Value> {
    let Some(name) = load::rel_name(pair.twin)? else {
        return Ok(json!({ "name": pair.base_name.as_str(), "error": "the table is gone" }));
    };
    let exact = size(pair.twin)? <= COUNTED_BYTES;
    let count = if exact {
        parity::count_rows(pair.twin)?
    } else {
        estimate(pair.twin)?
    };
    Ok(json!({
        "name": name.name.as_str(),
        "schema": name.schema.as_str(),
        "twin": name.name.as_str(),
        "phase": pair.phase.as_str(),
        "strategy": pair.strategy.as_str(),
        "partitionCount": load::partitions(pair.twin)?.iter().filter(|p| p.is_leaf).count(),
        "legacyCount": 0,
        "partitionedCount": count,
        "rowCountDelta": 0,
        "countsExact": exact,
        "verifiedAt": pair.verified_at,
        "triggers": [],
    }))
}

fn pair_metrics(pair: &Pair) -> Result<Value> {
    if pair.phase == Phase::Done {
        return done_metrics(pair);
    }
    let name = load::rel_name(pair.legacy)?;
    let twin = load::rel_name(pair.twin)?;
    let (Some(name), Some(twin)) = (name, twin) else {
        return Ok(json!({ "name": pair.base_name.as_str(), "error": "a table of the pair is gone" }));
    };
    let partitions = load::partitions(pair.twin)?;
    let exact = size(pair.legacy)? + size(pair.twin)? <= COUNTED_BYTES;
    let count = |oid| {
        if exact {
            parity::count_rows(oid)
        } else {
            estimate(oid)
        }
    };
    let (legacy_count, twin_count) = (count(pair.legacy)?, count(pair.twin)?);
    Ok(json!({
        "name": name.name.as_str(),
        "schema": name.schema.as_str(),
        "twin": twin.name.as_str(),
        "phase": pair.phase.as_str(),
        "strategy": pair.strategy.as_str(),
        "partitionCount": partitions.iter().filter(|p| p.is_leaf).count(),
        "legacyCount": legacy_count,
        "partitionedCount": twin_count,
        "rowCountDelta": legacy_count - twin_count,
        "countsExact": exact,
        "verifiedAt": pair.verified_at,
        "triggers": trigger_events(pair)?,
    }))
}

fn size(table: Oid) -> Result<i64> {
    Ok(spi::row(
        "SELECT pg_catalog.to_jsonb(COALESCE(pg_catalog.sum(pg_catalog.pg_relation_size(x.oid)), 0)::bigint)
         FROM (SELECT t.relid::oid AS oid FROM pg_catalog.pg_partition_tree($1) t
               UNION SELECT $1::oid) x",
        &[table.into()],
    )?
    .unwrap_or(0))
}

fn estimate(table: Oid) -> Result<i64> {
    Ok(spi::row(
        "SELECT pg_catalog.to_jsonb(COALESCE(pg_catalog.sum(GREATEST(c.reltuples, 0)), 0)::bigint)
         FROM (SELECT t.relid::oid AS oid FROM pg_catalog.pg_partition_tree($1) t WHERE t.isleaf
               UNION SELECT $1::oid) x
         JOIN pg_catalog.pg_class c ON c.oid = x.oid AND c.relkind = 'r'",
        &[table.into()],
    )?
    .unwrap_or(0))
}

/// The events of the legacy whose sync is in force.
fn trigger_events(pair: &Pair) -> Result<Vec<String>> {
    let name = sync_triggers::name_on_legacy(&pair.base_name);
    let suffixed = |suffix: &str| name.with_suffix(suffix).as_str().to_string();
    spi::rows(
        "SELECT pg_catalog.to_jsonb(e.event)
         FROM (VALUES ('INSERT', $2, 1), ('UPDATE', $3, 2), ('DELETE', $4, 3)) AS e(event, trigger, ord)
         JOIN pg_catalog.pg_trigger t ON t.tgrelid = $1 AND t.tgname = e.trigger AND t.tgenabled = 'A'
         ORDER BY e.ord",
        &[
            pair.legacy.into(),
            suffixed("_i").into(),
            suffixed("_u").into(),
            suffixed("_d").into(),
        ],
    )
}

/// Every check of every pair and of every table under maintenance.
pub fn checks() -> Result<Vec<Check>> {
    let mut checks = vec![];
    for pair in store::all()? {
        pair_checks(&pair, &mut checks)?;
    }
    policy_checks(&mut checks)?;
    unpartitioning_checks(&mut checks)?;
    Ok(checks)
}

/// Triggers that were laid for an unpartition which nobody went on with.
fn unpartitioning_checks(checks: &mut Vec<Check>) -> Result<()> {
    let begun: Vec<(String, String)> = session::with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_array(u.parent::text, pg_catalog.date_trunc('second', u.begun_at)::text)
             FROM partition_router.unpartitioning u
             JOIN pg_catalog.pg_class c ON c.oid = u.parent::oid ORDER BY 1",
            &[],
        )
    })?;
    for (relation, at) in begun {
        checks.push(Check {
            check: "unpartition",
            status: "warn",
            message: format!("it was begun at {at}: its triggers are being laid, and do nothing yet"),
            mend: Some(format!(
                "CALL partition_router.unpartition({})",
                Literal(&relation)
            )),
            relation,
        });
    }
    Ok(())
}

/// A guard follows by the triggers of the table and of each partition.
fn guard_check(pair: &Pair, relation: String) -> Result<Check> {
    let bare = triggers::bare_partitions(pair)?;
    let (status, message, mend) = match bare.first() {
        None => (
            "ok",
            "what is unique without the partition key is kept so".into(),
            None,
        ),
        Some(first) => (
            "fail",
            format!(
                "partitions whose rows the guard does not follow: {}, the first is {}",
                bare.len(),
                store::display_name(*first)?
            ),
            Some("ALTER TABLE … ENABLE ALWAYS TRIGGER, for each of its partition_router triggers".into()),
        ),
    };
    Ok(Check {
        relation,
        check: "guard",
        status,
        message,
        mend,
    })
}

fn pair_checks(pair: &Pair, checks: &mut Vec<Check>) -> Result<()> {
    if let (Phase::Done, Some(table)) = (pair.phase, load::rel_name(pair.twin)?) {
        checks.push(Check {
            relation: table.to_string(),
            check: "phase",
            status: "ok",
            message: "the pair is done".into(),
            mend: None,
        });
        if pair.guard.is_some() {
            checks.push(guard_check(pair, table.to_string())?);
        }
        return Ok(());
    }
    let (Some(legacy), Some(_)) = (load::rel_name(pair.legacy)?, load::rel_name(pair.twin)?) else {
        checks.push(Check {
            relation: pair.base_name.to_string(),
            check: "tables",
            status: "fail",
            message: "a table of the pair is gone".into(),
            mend: Some("restore it, or delete the pair".into()),
        });
        return Ok(());
    };
    let relation = legacy.to_string();
    let call = |what: &str| Some(format!("{what}({})", Literal(&relation)));
    let mut add = |check, status, message: String, mend| {
        checks.push(Check {
            relation: relation.clone(),
            check,
            status,
            message,
            mend,
        });
    };
    match pair.phase {
        Phase::Prepared => add(
            "phase",
            "warn",
            "the twin is empty".into(),
            call("SELECT partition_router.start_sync"),
        ),
        Phase::Copying => add(
            "phase",
            "warn",
            "the copy is under way".into(),
            call("CALL partition_router.backfill"),
        ),
        _ => add("phase", "ok", format!("the pair is {}", pair.phase), None),
    }
    if matches!(pair.phase, Phase::Copying | Phase::Live | Phase::Switched) {
        let events = trigger_events(pair)?;
        if events.len() == 3 {
            add(
                "sync",
                "ok",
                "changes of the legacy are carried over".into(),
                None,
            );
        } else {
            add(
                "sync",
                "fail",
                format!(
                    "sync triggers are missing or disabled; in force: {}",
                    events.join(", ")
                ),
                call("SELECT partition_router.repair"),
            );
        }
    }
    if pair.phase.is_in_step() {
        let bare = triggers::bare_partitions(pair)?;
        match bare.first() {
            None => add(
                "partition_sync",
                "ok",
                "every partition has its sync triggers".into(),
                None,
            ),
            Some(first) => add(
                "partition_sync",
                "fail",
                format!(
                    "partitions without their sync triggers: {}, the first is {}",
                    bare.len(),
                    store::display_name(*first)?
                ),
                call("SELECT * FROM partition_router.repair"),
            ),
        }
        match &pair.verified_at {
            Some(at) => add("parity", "ok", format!("proven equal at {at}"), None),
            None => match parity::last_failure(pair)? {
                None => add(
                    "parity",
                    "fail",
                    "not proven equal".into(),
                    call("SELECT * FROM partition_router.verify"),
                ),
                Some(failure) => add(
                    "parity",
                    "fail",
                    format!("not proven equal: {failure}"),
                    call("SELECT * FROM partition_router.repair"),
                ),
            },
        }
    }
    Ok(())
}

/// The number of rows of a table; one more than [`COUNTED_ROWS`] stands for any more.
fn count_some(table: Oid) -> Result<i64> {
    let Some(name) = load::rel_name(table)? else {
        return Ok(0);
    };
    // Reads no column, so it runs nothing that a user can define.
    let query = format!(
        "SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM (SELECT FROM {name} LIMIT {}) x",
        COUNTED_ROWS + 1
    );
    Ok(session::with_own_tables(|| spi::row(&query, &[]))?.unwrap_or(0))
}

fn policy_checks(checks: &mut Vec<Check>) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Row {
        name: String,
        last_error: Option<String>,
        default: Option<u32>,
    }
    let rows: Vec<Row> = session::with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_object('name', p.parent::text,
                'last_error', p.last_error, 'default', NULLIF(t.partdefid, 0)::bigint)
             FROM partition_router.policy p
             JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = p.parent ORDER BY p.parent::text",
            &[],
        )
    })?;
    for row in rows {
        let mend = Some("CALL partition_router.run_maintenance()".to_string());
        let mut add = |check, status, message: String, mend| {
            checks.push(Check {
                relation: row.name.clone(),
                check,
                status,
                message,
                mend,
            });
        };
        match &row.last_error {
            Some(error) => add("maintenance", "fail", error.clone(), mend.clone()),
            None => add("maintenance", "ok", "the last run had no error".into(), None),
        }
        if let Some(default) = row.default {
            let stray = count_some(default.into())?;
            if stray > 0 {
                let rows = match stray > COUNTED_ROWS {
                    true => format!("more than {COUNTED_ROWS}"),
                    false => stray.to_string(),
                };
                add(
                    "default_partition",
                    "warn",
                    format!("{rows} rows are in the default partition"),
                    mend,
                );
            } else {
                add(
                    "default_partition",
                    "ok",
                    "the default partition is empty".into(),
                    None,
                );
            }
        }
    }
    Ok(())
}

/// `verify_partitions()`: the checks for machines.
pub fn verify_partitions() -> Result<Value> {
    let checks = checks()?;
    let worst = ["fail", "warn"]
        .into_iter()
        .find(|s| checks.iter().any(|c| c.status == *s))
        .unwrap_or("ok");
    Ok(json!({
        "status": worst,
        "valid": worst != "fail",
        "checks": checks.iter().map(|c| json!({
            "relation": c.relation, "check": c.check, "status": c.status,
            "message": c.message, "mend": c.mend,
        })).collect::<Vec<_>>(),
    }))
}
