//! What is known of pairs and tables, each kind read by one query (`sql/observe/`).

use super::timeline;
use crate::error::Result;
use crate::ident::Ident;
use crate::maintenance::table::pin;
use crate::pair::Phase;
use crate::plan::sync_triggers;
use crate::policy::Skip;
use crate::session::with_own_tables;
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::collections::HashMap;

/// A pair, as `sql/observe/pairs.sql` gives it. Times are seconds.
#[derive(Debug, Clone, Deserialize)]
pub struct PairFacts {
    pub id: i32,
    /// 0 when the pair is done.
    pub legacy: u32,
    pub twin: u32,
    /// As `regclass` prints it; none when the table is gone.
    pub legacy_name: Option<String>,
    pub legacy_relname: Option<String>,
    pub twin_name: Option<String>,
    pub twin_relname: Option<String>,
    pub schema: Option<String>,
    pub base_name: Ident,
    pub phase: String,
    pub strategy: String,
    pub has_guard: bool,
    pub verified_at: Option<String>,
    pub verified_epoch: Option<f64>,
    pub verified_age: Option<f64>,
    pub verified_level: Option<String>,
    pub percent: i32,
    pub pilots: i32,
    pub excluded: i32,
    pub legacy_estimate: Option<i64>,
    /// What the last verify ended with: `PASSED` or `FAILED`.
    pub last_stage: Option<String>,
    pub last_at: Option<String>,
    pub last_differ: Option<i64>,
    /// Of the last verify, each partition: its name, the rows of both sides, whether they match.
    pub last_partitions: Option<Vec<(String, i64, i64, bool)>>,
    /// Of the last verify that passed.
    pub proven_epoch: Option<f64>,
    pub proven_at: Option<String>,
    pub proven_rows: Option<i64>,
    pub copy: Option<CopyFacts>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct CopyFacts {
    pub stage: String,
    pub rows: i64,
    pub total: i64,
    /// Of the stage `copy`: 0 to 1.
    pub ratio: f64,
    pub seconds_left: Option<f64>,
}

impl PairFacts {
    pub fn phase(&self) -> Result<Phase> {
        self.phase.parse::<Phase>().map_err(crate::error::Error::Internal)
    }

    /// Whether both tables that the phase asks for are there.
    pub fn is_whole(&self) -> bool {
        self.twin_name.is_some() && (self.phase == "done" || self.legacy_name.is_some())
    }

    /// What the pair is called: its legacy, and the table alone when it is done.
    pub fn name(&self) -> String {
        let name = if self.phase == "done" {
            &self.twin_name
        } else {
            &self.legacy_name
        };
        name.clone()
            .unwrap_or_else(|| self.base_name.as_str().to_string())
    }

    /// What the last verify said, if it failed.
    pub fn failure(&self) -> Option<String> {
        (self.last_stage.as_deref() == Some("FAILED")).then(|| {
            format!(
                "{} both sides differed in {} partitions",
                self.last_at.as_deref().unwrap_or_default(),
                self.last_differ.unwrap_or_default()
            )
        })
    }
}

/// A partitioned table, as `sql/observe/tables.sql` gives it.
#[derive(Debug, Clone, Deserialize)]
pub struct TableFacts {
    pub root: u32,
    pub name: String,
    /// As `pg_partitioned_table` has it: `r`, `h` or `l`.
    pub strategy: String,
    pub key_type: Option<String>,
    pub single_key: bool,
    /// Whether a partition is partitioned itself.
    pub is_deep: bool,
    pub leaves: i64,
    pub estimate: i64,
    pub default: Option<u32>,
    /// Whether it is a twin that a backfill fills: maintenance leaves it alone until that has ended.
    pub is_copied: bool,
    pub policy: Option<PolicyFacts>,
    /// Of partitions directly below, newest first.
    pub bounds: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct PolicyFacts {
    pub interval: String,
    pub premake: i64,
    pub retention: Option<String>,
    pub archive_format: Option<String>,
    pub last_run_epoch: Option<f64>,
    pub last_run_age: Option<f64>,
    pub last_error: Option<String>,
    /// What the last run saw and left alone.
    pub left_alone: Vec<Skip>,
    /// What the clock says in the policy's zone.
    pub local_now: String,
}

/// One partition; read from a list of these.
#[derive(Debug, Clone, Deserialize)]
pub struct Part {
    pub name: String,
    pub bounds: String,
    /// As the last ANALYZE saw them.
    pub rows: i64,
    /// With indexes and TOAST.
    pub bytes: i64,
}

/// The sync triggers of a pair.
#[derive(Debug, Clone, Deserialize)]
pub struct TriggerFacts {
    id: i32,
    /// The events of the legacy whose sync is in force.
    pub events: Vec<String>,
    /// Partitions of the twin without their own trigger.
    pub bare: i64,
    pub first_bare: Option<String>,
}

/// Every pair, in the order of creation.
pub fn pairs() -> Result<Vec<PairFacts>> {
    with_own_tables(|| spi::rows(include_str!("../../sql/observe/pairs.sql"), &[]))
}

/// The partitions whose bounds come along with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    None,
    /// Of the newest two: they are mostly ahead, and to read bounds takes time.
    Newest,
    All,
}

/// Every twin and table under maintenance, by name.
pub fn tables(bounds: Bounds) -> Result<Vec<TableFacts>> {
    let limit: Option<i64> = match bounds {
        Bounds::None => Some(0),
        Bounds::Newest => Some(2),
        Bounds::All => None,
    };
    let _pinned = pin("UTC");
    with_own_tables(|| spi::rows(include_str!("../../sql/observe/tables.sql"), &[limit.into()]))
}

/// The most partitions whose files are measured: of more, sizes are what the last VACUUM or ANALYZE saw.
const MEASURED: i64 = 2_000;

/// Whether sizes are measured or estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Measured,
    Estimated,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Measured => "measured",
            Source::Estimated => "estimated",
        }
    }

    pub fn of(leaves: i64) -> Source {
        if leaves <= MEASURED {
            Source::Measured
        } else {
            Source::Estimated
        }
    }
}

/// The partitions of tables, by the table's oid, in the order of creation.
pub fn parts(roots: &[u32], source: Source) -> Result<HashMap<u32, Vec<Part>>> {
    #[derive(Deserialize)]
    struct Row {
        root: u32,
        parts: Vec<Part>,
    }
    let roots: Vec<Oid> = roots.iter().map(|root| Oid::from(*root)).collect();
    let _pinned = pin("UTC");
    let rows: Vec<Row> = with_own_tables(|| {
        spi::rows(
            include_str!("../../sql/observe/parts.sql"),
            &[roots.into(), (source == Source::Measured).into()],
        )
    })?;
    Ok(rows.into_iter().map(|row| (row.root, row.parts)).collect())
}

/// The sync triggers of pairs, by the pair's number. Pairs that have lost a table have none.
pub fn triggers(pairs: &[PairFacts]) -> Result<HashMap<i32, TriggerFacts>> {
    let wanted: Vec<&PairFacts> = pairs.iter().filter(|pair| pair.is_whole()).collect();
    let ids: Vec<i32> = wanted.iter().map(|pair| pair.id).collect();
    let oids = |side: fn(&PairFacts) -> u32| -> Vec<Oid> {
        wanted.iter().map(|pair| Oid::from(side(pair))).collect()
    };
    let names = |name: fn(&Ident) -> Ident, suffix: &str| -> Vec<String> {
        wanted
            .iter()
            .map(|pair| name(&pair.base_name).with_suffix(suffix).as_str().to_string())
            .collect()
    };
    let rows: Vec<TriggerFacts> = with_own_tables(|| {
        spi::rows(
            include_str!("../../sql/observe/triggers.sql"),
            &[
                ids.into(),
                oids(|pair| pair.legacy).into(),
                oids(|pair| pair.twin).into(),
                names(sync_triggers::name_on_legacy, "").into(),
                names(sync_triggers::name_on_twin, "_i").into(),
            ],
        )
    })?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

impl TableFacts {
    /// Where a clock or the newest row stands on the scale of the table's key; none when there is no such scale, or for a
    /// plain number, which has no clock.
    pub fn now(&self) -> Option<f64> {
        let policy = self.policy.as_ref()?;
        timeline::now(
            self.key_type.as_deref()?,
            &policy.interval,
            &policy.local_now,
            self.bounds.iter(),
        )
    }

    /// Partitions that begin in the future; none where that cannot be said.
    pub fn ahead(&self) -> Option<usize> {
        if self.strategy != "r" || !self.single_key {
            return None;
        }
        let now = self.now()?;
        let is_ahead = |bound: &&String| timeline::range(bound).is_some_and(|(start, _)| start > now);
        Some(self.bounds.iter().filter(is_ahead).count())
    }

    /// Takes the bounds of all partitions from what is known of them: of a table whose partitions are not partitioned.
    pub fn take_bounds(&mut self, parts: &HashMap<u32, Vec<Part>>) {
        if self.strategy == "r" && self.policy.is_some() {
            let parts = parts.get(&self.root).into_iter().flatten();
            self.bounds = parts
                .map(|part| part.bounds.clone())
                .filter(|bounds| bounds != "DEFAULT")
                .collect();
        }
    }

    /// Whether the bounds of all partitions are known.
    pub fn is_whole(&self) -> bool {
        self.bounds.len() as i64 >= self.leaves - i64::from(self.default.is_some())
    }
}
