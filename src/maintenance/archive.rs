//! Archives partitions to files, or through a function: written, flushed, read back, compared, and only then is anything taken
//! away. Each step is a transaction with its state in `partition_router.archives`:
//!
//! writing → (written, read back, equal) verified → (partition detached) detached → (nothing has changed since) archived.
//!
//! While it is written the partition stays attached and takes writes. Once it is detached nobody reaches it by its parent; what it
//! holds then is compared with what was archived, under lock, and it is dropped in the same transaction, or archived anew.

use super::log::{self, Event};
use super::table::{Managed, Partition, PolicyRow, display};
use crate::archive::place::{self, Place};
use crate::archive::{Format, read, write};
use crate::calls::{self, Call};
use crate::catalog::load;
use crate::error::{Error, Result};
use crate::execute::{self, Mode};
use crate::ident::{Ident, RelName};
use crate::locks::{self, LockMode, budget};
use crate::pair::store;
use crate::parity::digest::Tally;
use crate::plan::retire::{self, Fate, Kind};
use crate::session::{as_user, with_own_tables};
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::fmt;
use std::time::Instant;

/// Where archives go that are no tables of an archive schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    File(Format),
    /// By its signature.
    Function(String),
}

impl Destination {
    /// That of a policy that archives; none where it does not, or to a schema.
    pub fn of(policy: &PolicyRow) -> Option<Destination> {
        if policy.retention_action != "archive" {
            return None;
        }
        match (&policy.archive_format, &policy.archive_function) {
            (Some(format), _) => Format::parse(format).map(Destination::File),
            (None, Some(function)) => Some(Destination::Function(function.clone())),
            (None, None) => None,
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Destination::File(format) => format.as_str(),
            Destination::Function(_) => "function",
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::File(format) => write!(f, "a {} file", format.as_str()),
            Destination::Function(function) => f.write_str(function),
        }
    }
}

/// A row of `partition_router.archives`.
#[derive(Debug, Clone, Deserialize)]
pub struct Archive {
    pub id: i64,
    pub parent: u32,
    pub table_schema: Ident,
    pub partition: Ident,
    pub relation: Option<u32>,
    pub bounds: String,
    pub columns: Vec<Ident>,
    pub destination: String,
    pub location: String,
    pub state: String,
    pub row_count: Option<i64>,
    pub checksum: Option<String>,
    pub bytes: Option<u64>,
}

impl Archive {
    /// A file's format; none for what is no file.
    pub fn format(&self) -> Option<Format> {
        Format::parse(&self.destination)
    }

    pub fn name(&self) -> RelName {
        RelName {
            schema: self.table_schema.clone(),
            name: self.partition.clone(),
        }
    }

    /// Whether a table holds what was archived.
    pub fn holds(&self, tally: Tally) -> bool {
        (self.row_count, self.checksum.as_deref()) == (Some(tally.rows), Some(&tally.checksum()))
    }
}

/// The archives for which a condition on `a`, with `$1`, holds.
fn select(condition: &str, argument: spi::Arg) -> Result<Vec<Archive>> {
    let query = format!(
        "SELECT pg_catalog.to_jsonb(a) || pg_catalog.jsonb_build_object('parent', a.parent::oid::bigint,
             'relation', (SELECT c.oid::bigint FROM pg_catalog.pg_class c WHERE c.oid = a.relation::oid))
         FROM partition_router.archives a WHERE {condition} ORDER BY a.id"
    );
    with_own_tables(|| spi::rows(&query, &[argument]))
}

/// # Errors
/// `BadArgument` where there is no such archive.
pub fn get(id: i64) -> Result<Archive> {
    select("a.id = $1", id.into())?
        .pop()
        .ok_or_else(|| Error::BadArgument {
            argument: "archive".into(),
            reason: format!("there is no archive {id}"),
            hint: "See the column id of partition_router.archives.".into(),
        })
}

/// The archives of a table whose partition is detached and not dropped yet.
pub fn unfinished(parent: Oid) -> Result<Vec<RelName>> {
    let archives = select("a.parent::oid = $1 AND a.state = 'detached'", parent.into())?;
    Ok(archives.iter().map(Archive::name).collect())
}

/// Notes a new archive; gives its id.
pub fn note(
    managed: &Managed,
    partition: &Partition,
    destination: &str,
    location: &str,
    state: &str,
    relation: Oid,
) -> Result<()> {
    let columns: Vec<String> = managed
        .table
        .columns
        .iter()
        .map(|c| c.as_str().to_owned())
        .collect();
    with_own_tables(|| {
        spi::execute(
            "INSERT INTO partition_router.archives
                 (parent, table_schema, partition, relation, bounds, columns, destination, location, state)
             VALUES ($1::regclass, $2, $3, $4::regclass, $5, $6, $7, $8, $9)",
            &[
                managed.table.oid().into(),
                partition.name.schema.as_str().into(),
                partition.name.name.as_str().into(),
                relation.into(),
                partition.bounds.as_str().into(),
                columns.into(),
                destination.into(),
                location.into(),
                state.into(),
            ],
        )
    })?;
    Ok(())
}

/// Notes that the rows of a partition are in a table of their own by now, which has its name: nothing is written yet.
pub fn note_detached(managed: &Managed, partition: &Partition, destination: &Destination) -> Result<()> {
    let table = load::latest_oid_of(&partition.name)?
        .ok_or_else(|| Error::Internal(format!("{} is gone", partition.name)))?;
    let location = location(partition, destination)?;
    note(
        managed,
        partition,
        destination.as_str(),
        &location,
        "detached",
        table,
    )
}

/// A name for an archive before there is one: the file, or nothing.
fn location(partition: &Partition, destination: &Destination) -> Result<String> {
    let Destination::File(format) = destination else {
        return Ok(String::new());
    };
    let names: Option<(String, String)> = spi::row(
        "SELECT pg_catalog.jsonb_build_array(pg_catalog.current_database(), pg_catalog.gen_random_uuid()::text)",
        &[],
    )?;
    let (database, token) = names.ok_or_else(|| Error::Internal("no name for an archive".into()))?;
    let (schema, name) = (partition.name.schema.as_str(), partition.name.name.as_str());
    Ok(place::file_name(&database, schema, name, &token, *format))
}

fn set(archive: &Archive, assignments: &str, args: &[spi::Arg]) -> Result<()> {
    let statement = format!(
        "UPDATE partition_router.archives SET changed_at = pg_catalog.clock_timestamp(), {assignments} WHERE id = {}",
        archive.id
    );
    with_own_tables(|| spi::execute(&statement, args))?;
    Ok(())
}

/// Marks an archive as restored to a table.
pub fn set_restored(archive: &Archive, table: Oid) -> Result<()> {
    set(
        archive,
        "state = 'restored', relation = $1::regclass",
        &[table.into()],
    )
}

/// One step for a partition that is attached; there is always another.
pub fn step(managed: &Managed, partition: &Partition, destination: &Destination) -> Result<()> {
    let oid = Oid::from(partition.oid);
    let under_way = select(
        "a.relation::oid = $1 AND a.state IN ('writing', 'verified', 'detached')",
        oid.into(),
    )?
    .pop();
    let Some(archive) = under_way else {
        if let Destination::File(_) = destination {
            Place::configured()?;
        }
        let location = location(partition, destination)?;
        return note(
            managed,
            partition,
            destination.as_str(),
            &location,
            "writing",
            oid,
        );
    };
    let columns_changed = archive.columns != managed.table.columns;
    if archive.destination != destination.as_str() || columns_changed || archive.bounds != partition.bounds {
        // The policy or the table has changed: begin anew.
        return forget(&archive);
    }
    match archive.state.as_str() {
        "verified" => detach(managed, partition, &archive),
        "writing" => make(managed, &archive, oid, destination),
        // Attached again by hand.
        _ => set(&archive, "state = 'writing'", &[]),
    }
}

fn forget(archive: &Archive) -> Result<()> {
    if archive.format().is_some() {
        Place::configured()?.remove(&archive.location)?;
    }
    with_own_tables(|| {
        spi::execute(
            "DELETE FROM partition_router.archives WHERE id = $1",
            &[archive.id.into()],
        )
    })?;
    Ok(())
}

/// Writes the archive, reads it back, and notes what is in it.
fn make(managed: &Managed, archive: &Archive, table: Oid, destination: &Destination) -> Result<()> {
    let source = load::rel_name(table)?.ok_or_else(|| Error::Internal("a partition is gone".into()))?;
    let (owner, columns) = (managed.table.owner(), &archive.columns);
    let _during = calls::during(Call::Archive, table);
    calls::expect(load::estimated_rows(table)?);
    let started = Instant::now();
    let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
    let (write_ms, reading);
    let (location, written, bytes, found) = match destination {
        Destination::File(format) => {
            let (place, name) = (Place::configured()?, &archive.location);
            let written = as_user(owner, || {
                write::write(&source, columns, place.create(name)?, name, *format)
            })?;
            place.publish(name)?;
            calls::expect(written.tally.rows as u64);
            (write_ms, reading) = (milliseconds(started), Instant::now());
            let (file, bytes) = place.open(name)?;
            if bytes != written.bytes {
                return Err(Error::ArchiveDiffers {
                    archive: name.clone(),
                    reason: format!("{} bytes were written, and it has {bytes}", written.bytes),
                });
            }
            let found = as_user(owner, || read::tally(table, columns, file, name, *format))?;
            (name.clone(), written.tally, Some(bytes as i64), found)
        }
        Destination::Function(function) => {
            let place = by_function(owner, function, table)?;
            (write_ms, reading) = (milliseconds(started), Instant::now());
            let written = as_user(owner, || write::tally(&source, columns))?;
            let found = as_user(owner, || write::tally(&place, columns))?;
            (place.to_string(), written, None, found)
        }
    };
    if written != found {
        return Err(Error::ArchiveDiffers {
            archive: location,
            reason: format!("{} rows were written and {} read back", written.rows, found.rows),
        });
    }
    set(
        archive,
        "state = CASE state WHEN 'detached' THEN state ELSE 'verified' END,
         location = $1, row_count = $2, checksum = $3, bytes = $4, write_ms = $5, read_ms = $6",
        &[
            location.as_str().into(),
            found.rows.into(),
            found.checksum().into(),
            bytes.into(),
            write_ms.into(),
            milliseconds(reading).into(),
        ],
    )
}

/// Calls the policy's function; gives the relation by which the archive is read.
fn by_function(owner: Oid, function: &str, table: Oid) -> Result<RelName> {
    let name: Option<String> = spi::row(
        "SELECT pg_catalog.to_jsonb(pg_catalog.format('%I.%I', n.nspname, p.proname))
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         WHERE p.oid = pg_catalog.to_regprocedure($1)::oid",
        &[function.into()],
    )?;
    let name = name.ok_or_else(|| Error::BadArgument {
        argument: "archive_function".into(),
        reason: format!("{function} does not exist"),
        hint: "Name another with partition_router.set_policy().".into(),
    })?;
    let call = format!("SELECT pg_catalog.to_jsonb({name}($1::regclass)::oid::bigint)");
    let relation: Option<u32> = as_user(owner, || spi::returning(&call, &[table.into()]))?;
    let relation = relation.map(Oid::from).filter(|relation| *relation != table);
    match relation.map(load::rel_name).transpose()?.flatten() {
        Some(name) => Ok(name),
        None => Err(Error::ArchiveDiffers {
            archive: function.to_owned(),
            reason: "the function gave no relation to read the archive by".into(),
        }),
    }
}

fn detach(managed: &Managed, partition: &Partition, archive: &Archive) -> Result<()> {
    let table = &managed.table;
    let plan = retire::at_once(
        &table.name,
        &partition.name,
        partition.kind(),
        &Fate::Detach,
        table.referenced(),
        &table.sequence_defaults,
    );
    budget::within_budget(partition.oid.into(), || {
        store::change_layout(table.oid())?;
        as_user(table.owner(), || execute::run(&plan, Mode::Run))?;
        set(archive, "state = 'detached'", &[])
    })
}

/// What a table is by now.
pub fn kind_of(table: Oid) -> Result<Kind> {
    let is_foreign: Option<bool> = spi::row(
        "SELECT pg_catalog.to_jsonb(c.relkind = 'f') FROM pg_catalog.pg_class c WHERE c.oid = $1",
        &[table.into()],
    )?;
    Ok(match is_foreign {
        Some(true) => Kind::Foreign,
        _ => Kind::Local,
    })
}

/// One step for a partition that is detached: drops it when it holds what was archived, else archives it anew. False when
/// nothing is left to do.
pub fn finish(managed: &Managed, name: &RelName) -> Result<bool> {
    let of_table = select(
        "a.parent::oid = $1 AND a.state = 'detached'",
        managed.table.oid().into(),
    )?;
    let Some(archive) = of_table.into_iter().find(|archive| archive.name() == *name) else {
        return Ok(false);
    };
    let Some(table) = archive.relation.map(Oid::from) else {
        // Somebody has dropped it.
        set(&archive, "state = 'archived', relation = NULL", &[])?;
        return Ok(false);
    };
    let destination = match archive.format() {
        Some(format) => Destination::File(format),
        None => Destination::Function(managed.policy.archive_function.clone().unwrap_or_default()),
    };
    let kind = kind_of(table)?;
    let is_archived = budget::within_budget(table, || {
        let source = load::rel_name(table)?.ok_or_else(|| Error::Internal("a partition is gone".into()))?;
        match kind {
            Kind::Local => as_user(managed.table.owner(), || {
                spi::execute(&format!("LOCK TABLE {source} IN ACCESS EXCLUSIVE MODE"), &[]).map(|_| ())
            })?,
            // LOCK TABLE takes none.
            Kind::Foreign => locks::acquire(&[(table, LockMode::AccessExclusive)])?,
        }
        if archive.checksum.is_none()
            || !archive.holds(as_user(managed.table.owner(), || {
                write::tally(&source, &archive.columns)
            })?)
        {
            return Ok(false);
        }
        if let (Some(_), Some(bytes)) = (archive.format(), archive.bytes) {
            let (_, found) = Place::configured()?.open(&archive.location)?;
            if found != bytes {
                return Err(Error::ArchiveDiffers {
                    archive: archive.location.clone(),
                    reason: format!("the file has {found} bytes, and had {bytes}"),
                });
            }
        }
        as_user(managed.table.owner(), || spi::execute(&kind.drop(&source), &[]))?;
        set(&archive, "state = 'archived', relation = NULL", &[])?;
        Ok(true)
    })?;
    if !is_archived {
        make(managed, &archive, table, &destination)?;
        return Ok(true);
    }
    let message = format!("verified, and kept in {}", archive.location);
    let mut event = Event::done(&display(managed.table.oid())?, "archive", &message);
    (event.partition, event.row_count) = (Some(archive.partition.as_str().into()), archive.row_count);
    log::write(&event)?;
    Ok(false)
}
