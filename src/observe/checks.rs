//! The checks behind the view `health`: one row each, with the call that mends what is wrong.

mod feed;
mod pair;
mod replication;
mod settings;

pub use feed::{Feed, feeds};

use super::default_rows::{self, InDefault, in_default};
use super::facts::{self, Bounds, PairFacts, TableFacts};
use super::overview::Overview;
use super::server::{self, Server};
use crate::error::Result;
use crate::ident::Literal;
use crate::{session, spi};
use serde_json::{Value, json};
use std::collections::HashMap;

/// A run may be this many times later than `partition_router.maintenance_interval`.
const LATE_RUN: f64 = 3.0;
/// An archive that was begun is finished by the next run: a day, in seconds.
const LATE_ARCHIVE: f64 = 86_400.0;
/// Rows go to another server in one call: a day, in seconds.
const LATE_PLACEMENT: f64 = 86_400.0;
/// The share of an integer column's numbers that a sequence may have used up.
const SEQUENCE_WARNS: f64 = 0.75;
const SEQUENCE_FAILS: f64 = 0.90;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    pub const ALL: [Status; 3] = [Status::Ok, Status::Warn, Status::Fail];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        }
    }
}

/// One row of `health`.
#[derive(Debug, Clone)]
pub struct Check {
    /// The legacy, or the table under maintenance; the database for what is about no table.
    pub relation: String,
    pub check: &'static str,
    pub status: Status,
    pub message: String,
    /// SQL that can be run as it is.
    pub mend: Option<String>,
}

/// The checks of one relation, as they are made.
struct Checks<'a> {
    relation: &'a str,
    found: &'a mut Vec<Check>,
}

impl Checks<'_> {
    fn add(&mut self, check: &'static str, status: Status, message: impl Into<String>, mend: Option<String>) {
        self.found.push(Check {
            relation: self.relation.to_string(),
            check,
            status,
            message: message.into(),
            mend,
        });
    }

    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, Status::Ok, message, None);
    }

    /// A call of the extension that takes the relation.
    fn call(&self, what: &str) -> Option<String> {
        Some(format!("{what}({})", Literal(self.relation)))
    }
}

/// What the checks look at.
pub struct Seen<'a> {
    pub pairs: &'a [PairFacts],
    pub tables: &'a [TableFacts],
    /// Rows of default partitions, by their oids.
    pub defaults: &'a HashMap<u32, i64>,
    pub feeds: &'a [Feed],
    pub server: &'a Server,
}

impl<'a> Seen<'a> {
    pub fn new(overview: &'a Overview, pairs: &'a [PairFacts], feeds: &'a [Feed]) -> Self {
        Seen {
            pairs,
            tables: &overview.tables,
            defaults: &overview.defaults,
            feeds,
            server: &overview.server,
        }
    }
}

/// Every check of every pair, of every table under maintenance, and of the server.
pub fn checks() -> Result<Vec<Check>> {
    let mut tables = facts::tables(Bounds::Newest)?;
    with_all_bounds(&mut tables)?;
    checks_of(&Seen {
        pairs: &facts::pairs()?,
        defaults: &default_rows::counted(&tables)?,
        feeds: &feeds()?,
        server: &server::server()?,
        tables: &tables,
    })
}

/// The same, of what has been read.
pub fn checks_of(seen: &Seen<'_>) -> Result<Vec<Check>> {
    let mut found = vec![];
    pair::checks(seen.pairs, &mut found)?;
    table_checks(seen, &mut found);
    sequence_checks(&mut found)?;
    unpartitioning_checks(&mut found)?;
    placement_checks(&mut found)?;
    feed::checks(seen.feeds, &mut found);
    settings::checks(seen.tables, seen.pairs, seen.server, &mut found);
    replication::checks(seen.server, &mut found);
    Ok(found)
}

/// Triggers that were laid for an unpartition which nobody went on with.
fn unpartitioning_checks(found: &mut Vec<Check>) -> Result<()> {
    let begun: Vec<(String, String)> = session::with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_array(u.parent::text, pg_catalog.date_trunc('second', u.begun_at)::text)
             FROM partition_router.unpartitioning u
             JOIN pg_catalog.pg_class c ON c.oid = u.parent::oid ORDER BY 1",
            &[],
        )
    })?;
    for (relation, at) in begun {
        let mut checks = Checks {
            relation: &relation,
            found,
        };
        let mend = checks.call("CALL partition_router.unpartition");
        let message = format!("it was begun at {at}: its triggers are being laid, and do nothing yet");
        checks.add("unpartition", Status::Warn, message, mend);
    }
    Ok(())
}

/// Partitions on their way to another server, or back, that nobody has gone on with for a day.
fn placement_checks(found: &mut Vec<Check>) -> Result<()> {
    let begun: Vec<(String, Option<String>, f64)> = session::with_own_tables(|| {
        spi::rows(
            "SELECT pg_catalog.jsonb_build_array(p.partition::text, p.server,
                 EXTRACT(epoch FROM pg_catalog.clock_timestamp() - p.begun_at)::float8)
             FROM partition_router.placement p JOIN pg_catalog.pg_class c ON c.oid = p.partition::oid ORDER BY 1",
            &[],
        )
    })?;
    for (relation, server, age) in begun {
        let mut checks = Checks {
            relation: &relation,
            found,
        };
        let (whither, argument) = match &server {
            Some(server) => (format!("to server {server}"), Literal(server).to_string()),
            None => ("back from another server".to_string(), "NULL".to_string()),
        };
        let message = format!("its way {whither} was begun {} ago", duration(age));
        if age > LATE_PLACEMENT {
            let mend = format!("CALL partition_router.place({}, {argument})", Literal(&relation));
            checks.add("placement", Status::Warn, message, Some(mend));
        } else {
            checks.ok("placement", message);
        }
    }
    Ok(())
}

fn table_checks(seen: &Seen<'_>, found: &mut Vec<Check>) {
    for table in seen.tables {
        let Some(policy) = &table.policy else {
            continue;
        };
        let mut checks = Checks {
            relation: &table.name,
            found,
        };
        let mend = checks.call("CALL partition_router.run_maintenance");
        let late = LATE_RUN * crate::settings::maintenance_interval().as_secs_f64();
        match (&policy.last_error, policy.last_run_age) {
            (Some(error), _) => checks.add("maintenance", Status::Fail, error, mend.clone()),
            (None, Some(age)) if late > 0.0 && age > late => checks.add(
                "maintenance",
                Status::Warn,
                format!("the last run was {} ago", duration(age)),
                mend.clone(),
            ),
            (None, _) => checks.ok("maintenance", "the last run had no error"),
        }
        if !table.is_copied {
            ahead_check(table, policy.premake, mend.clone(), &mut checks);
        }
        if table.default.is_some() {
            default_check(
                table,
                &in_default(table, seen.defaults),
                mend.clone(),
                &mut checks,
            );
        }
        archive_check(seen.server, mend, &mut checks);
    }
}

/// Rows that stay are no warning: no call ends it, and one that never ends teaches to overlook the others.
fn default_check(table: &TableFacts, found: &InDefault, mend: Option<String>, checks: &mut Checks<'_>) {
    let stays: Vec<String> = found
        .stays
        .iter()
        .map(|(rows, reason)| format!("{rows} {reason}"))
        .collect();
    let stays = stays.join("; ");
    match (found.rows, found.to_move) {
        (0, _) => checks.ok("default_partition", "the default partition is empty"),
        (rows, _) if table.is_copied => checks.ok(
            "default_partition",
            format!(
                "{} rows are in the default partition: maintenance looks at them when the copy has ended",
                default_rows::told(rows)
            ),
        ),
        (rows, 0) => checks.ok(
            "default_partition",
            format!(
                "{} rows are in the default partition, and maintenance leaves them there: {stays}. Correct or delete them, or make \
                 their partition with create_range_partition(); they may as well stay",
                default_rows::told(rows)
            ),
        ),
        (_, to_move) => {
            let more = if stays.is_empty() { "" } else { ", and others stay: " };
            let message = format!(
                "{} rows are in the default partition{more}{stays}",
                default_rows::told(to_move)
            );
            checks.add("default_partition", Status::Warn, message, mend);
        }
    }
}

fn ahead_check(table: &TableFacts, premake: i64, mend: Option<String>, checks: &mut Checks<'_>) {
    match table.ahead() {
        None => {}
        Some(0) if premake > 0 => checks.add(
            "partitions_ahead",
            Status::Fail,
            "no partition is ahead of now",
            mend,
        ),
        Some(_) => checks.ok("partitions_ahead", "there are partitions ahead"),
    }
}

/// Tables with none ahead among their newest get the bounds of all: somebody may have filled gaps last.
fn with_all_bounds(tables: &mut Vec<TableFacts>) -> Result<()> {
    let unsure = |table: &&TableFacts| table.ahead() == Some(0) && !table.is_whole();
    let roots: Vec<u32> = tables.iter().filter(unsure).map(|table| table.root).collect();
    if roots.is_empty() {
        return Ok(());
    }
    if tables.iter().filter(unsure).any(|table| table.is_deep) {
        *tables = facts::tables(Bounds::All)?;
        return Ok(());
    }
    let parts = facts::parts(&roots, facts::Source::Estimated)?;
    let unsure = tables.iter_mut().filter(|table| roots.contains(&table.root));
    unsure.for_each(|table| table.take_bounds(&parts));
    Ok(())
}

fn archive_check(server: &Server, mend: Option<String>, checks: &mut Checks<'_>) {
    let relation = checks.relation;
    let of_table = || server.archives.iter().filter(|a| a.relation == relation);
    if of_table().next().is_none() {
        return;
    }
    let late: Vec<_> = of_table()
        .filter(|a| a.is_unfinished() && a.age > LATE_ARCHIVE)
        .collect();
    if late.is_empty() {
        return checks.ok("archives", "no archive is left unfinished");
    }
    let number: i64 = late.iter().map(|a| a.number).sum();
    let oldest = late.iter().map(|a| a.age).fold(0.0, f64::max);
    checks.add(
        "archives",
        Status::Warn,
        format!(
            "archives that were begun and not finished: {number}, the oldest {} ago",
            duration(oldest)
        ),
        mend,
    );
}

fn sequence_checks(found: &mut Vec<Check>) -> Result<()> {
    for sequence in server::sequences()? {
        let status = match sequence.used {
            used if used >= SEQUENCE_FAILS => Status::Fail,
            used if used >= SEQUENCE_WARNS => Status::Warn,
            _ => Status::Ok,
        };
        let message = format!(
            "{} has used {:.0} % of what column {} can hold",
            sequence.sequence,
            (sequence.used * 100.0).floor(),
            sequence.column
        );
        let mut checks = Checks {
            relation: &sequence.relation,
            found,
        };
        let mend = (status != Status::Ok).then(|| sequence.mend.clone());
        checks.add("sequence", status, message, mend);
    }
    Ok(())
}

/// A length of time in the largest unit that leaves a whole number.
pub fn duration(seconds: f64) -> String {
    let units = [("d", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)];
    match units.into_iter().find(|(_, length)| seconds >= *length) {
        Some((unit, length)) => format!("{:.0} {unit}", (seconds / length).floor()),
        None => format!("{:.0} ms", seconds * 1000.0),
    }
}

/// `verify_partitions()`: the checks for machines.
pub fn verify_partitions() -> Result<Value> {
    let checks = checks()?;
    let worst = checks.iter().map(|c| c.status).max().unwrap_or(Status::Ok);
    Ok(json!({
        "status": worst.as_str(),
        "valid": worst != Status::Fail,
        "checks": checks.iter().map(|c| json!({
            "relation": c.relation, "check": c.check, "status": c.status.as_str(),
            "message": c.message, "mend": c.mend,
        })).collect::<Vec<_>>(),
    }))
}
