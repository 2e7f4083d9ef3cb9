//! One table under maintenance, as the server has it now: its policy, its pair, its partitions.

use crate::bounds::{
    EpochUnit, Interval, KeyKind, LetterCase, RangePartition, RawBound, Scheme, range_bounds,
};
use crate::catalog::{Column, TableDef, load, subpartitions};
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::pair::{self, Pair};
use crate::plan::maintain::Parent;
use crate::plan::retire::{Kind, Referenced};
use crate::session::{PinnedSettings, as_user, with_own_tables};
use crate::{spi, twin};
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// The row of `partition_router.policy`.
#[derive(Debug, Clone, Deserialize)]
pub struct PolicyRow {
    pub base_name: Ident,
    pub partition_interval: String,
    pub premake: i32,
    pub retention: Option<String>,
    pub retention_count: Option<i32>,
    pub min_partitions: i32,
    pub retention_action: String,
    pub archive_schema: Option<Ident>,
    pub archive_format: Option<String>,
    /// Its signature: `schema.name(regclass)`.
    pub archive_function: Option<String>,
    pub timezone: String,
    /// Where some partition begins, when that is not the usual place.
    pub origin: Option<String>,
    /// The table that new partitions take after, by choice.
    pub template: Option<Template>,
}

/// A table that is named as template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Template {
    pub oid: u32,
    /// None when it is gone.
    pub name: Option<RelName>,
    /// `pg_class.relkind`
    pub kind: Option<String>,
}

impl PolicyRow {
    /// Whether anything is ever retired.
    pub fn retires(&self) -> bool {
        self.retention.is_some() || self.retention_count.is_some()
    }

    pub fn count(&self) -> Option<usize> {
        self.retention_count.and_then(|n| usize::try_from(n).ok())
    }

    pub fn at_least(&self) -> usize {
        usize::try_from(self.min_partitions).unwrap_or(1)
    }
}

/// A partitioned table and the partitions directly below it.
#[derive(Debug, Clone, Deserialize)]
pub struct Partitioned {
    pub oid: u32,
    pub name: RelName,
    /// As `regclass` prints it: qualified, quoted where needed.
    pub display: String,
    pub owner: u32,
    pub owner_name: Ident,
    pub strategy: String,
    /// None for keys of several columns or of expressions.
    pub key: Option<Ident>,
    pub key_type: Option<String>,
    /// Of text: the column's and that by which partitions are chosen.
    pub collations: [u32; 2],
    pub columns: Vec<Ident>,
    /// Columns whose default draws from a sequence.
    pub sequence_defaults: Vec<Ident>,
    pub replica_identity: String,
    pub tablespace: Option<Ident>,
    pub referenced: bool,
    /// Partitions whose DETACH CONCURRENTLY did not come to its end.
    pub half_detached: Vec<RelName>,
    /// A partition that has more than LIKE and ATTACH bring to the next one, or the table that the policy names.
    pub template: Option<u32>,
    /// Whether an index or a statistics object has a statistics target.
    pub has_targets: bool,
    /// Whether the newest partition has a unique index that the table above has none of.
    pub is_keyed: bool,
    /// Whether partitions of partitions are to be made: the newest has some, or the policy's template.
    pub is_deep: bool,
    pub default: Option<RelName>,
    pub default_oid: Option<u32>,
    /// In the order of creation.
    pub partitions: Vec<Partition>,
    /// Whether the policy names the template.
    #[serde(default)]
    pub is_chosen: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Partition {
    pub oid: u32,
    pub name: RelName,
    pub display: String,
    pub bounds: String,
    /// Storage parameters: `name=value`.
    pub options: Vec<String>,
    /// Its rows are on another server.
    pub is_foreign: bool,
}

impl Partition {
    pub fn kind(&self) -> Kind {
        if self.is_foreign {
            Kind::Foreign
        } else {
            Kind::Local
        }
    }

    /// The ends of its range, as the server prints them.
    pub fn range(&self) -> Result<(RawBound, RawBound)> {
        range_bounds(&self.bounds)
            .ok_or_else(|| Error::Internal(format!("unexpected bounds of {}: {}", self.display, self.bounds)))
    }
}

impl Partitioned {
    pub fn oid(&self) -> Oid {
        self.oid.into()
    }

    pub fn owner(&self) -> Oid {
        self.owner.into()
    }

    pub fn referenced(&self) -> Referenced {
        if self.referenced {
            Referenced::Yes
        } else {
            Referenced::No
        }
    }

    pub fn key(&self) -> Result<&Ident> {
        self.key.as_ref().ok_or_else(|| Error::Unsupported {
            what: format!(
                "{} is partitioned by several columns or by an expression",
                self.display
            ),
            hint: "Maintenance knows tables that are partitioned by the range of one column.".into(),
        })
    }

    /// Lets new partitions take after the table that the policy names, if it names any.
    ///
    /// # Errors
    /// `BadArgument` when that is gone: partitions without its grants and policies would show what they should not.
    pub fn take_after(&mut self, policy: &PolicyRow) -> Result<()> {
        let Some(template) = &policy.template else {
            return Ok(());
        };
        if template.name.is_none() {
            return Err(Error::BadArgument {
                argument: "template".into(),
                reason: format!("the template of {} is gone", self.display),
                hint: format!(
                    "Name another with partition_router.set_policy(), or {} itself for none.",
                    self.display
                ),
            });
        }
        (self.template, self.is_chosen) = (Some(template.oid), true);
        self.is_deep = template.kind.as_deref() == Some("p");
        Ok(())
    }

    /// The tables whose indexes and statistics objects have what LIKE does not copy.
    fn models(&self, template: Option<&TableDef>) -> Vec<u32> {
        let by_index = |identity: &str| identity == "i";
        let model = template.filter(|t| self.is_chosen || self.is_keyed || by_index(&t.replica_identity));
        let mut models: Vec<u32> = model.map(|template| template.oid).into_iter().collect();
        let has_identity = model.is_some_and(|template| template.replica_identity != "d");
        if self.has_targets || by_index(&self.replica_identity) && !has_identity {
            models.push(self.oid);
        }
        models
    }

    pub fn as_parent(&self) -> Result<Parent> {
        let template = self.template.map(|oid| load::table_def(oid.into())).transpose()?;
        let newest = self.partitions.iter().rev().find(|p| !p.is_foreign);
        let options = match (&template, newest) {
            (Some(template), _) => template.options.clone(),
            (None, last) => last.map(|p| p.options.clone()).unwrap_or_default(),
        };
        let chosen = template.as_ref().filter(|_| self.is_chosen);
        let depth = match (self.is_deep, self.template) {
            (true, Some(oid)) => Some(subpartitions::load(oid.into(), self.key()?)?),
            _ => None,
        };
        Ok(Parent {
            name: self.name.clone(),
            key: self.key()?.clone(),
            columns: self.columns.clone(),
            sequence_defaults: self.sequence_defaults.clone(),
            default: self.default.clone(),
            replica_identity: chosen
                .map(|template| &template.replica_identity)
                .filter(|identity| *identity != "d")
                .unwrap_or(&self.replica_identity)
                .clone(),
            tablespace: chosen
                .and_then(|template| template.tablespace.clone())
                .or_else(|| self.tablespace.clone()),
            publications: chosen
                .map_or(Ok(Vec::new()), |template| load::publications(template.oid.into()))?,
            depth,
            completed_like: self.models(template.as_ref()),
            given_by_default: load::given_by_default(&self.name.schema, Some(self.owner()))?,
            template,
            options,
        })
    }

    pub fn find(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.name.name.as_str() == name)
    }

    /// How the table is cut at an interval, from an origin.
    fn scheme(&self, interval: &str, origin: Option<&str>) -> Result<Scheme> {
        let type_name = self.key_type.clone().unwrap_or_default();
        let column = Column {
            name: self.key()?.clone(),
            type_name: type_name.clone(),
            base_type: type_name,
            ..Column::default()
        };
        let is_integer = matches!(column.base_type.as_str(), "smallint" | "integer" | "bigint");
        let is_epoch = is_integer && Interval::from_step(interval).is_err();
        let is_text = twin::is_text(&column.base_type);
        if is_text {
            for collation in self.collations {
                twin::byte_order(column.name.as_str(), collation.into())?;
            }
        }
        let newest = match (is_epoch, is_text) {
            (true, _) => self.newest_number()?,
            (_, true) => self.newest_text()?,
            _ => None,
        };
        twin::scheme(&column, interval, origin, newest.as_deref())
    }

    /// A text by which the case of ULIDs can be told: a bound that has a letter, else the highest value.
    fn newest_text(&self) -> Result<Option<String>> {
        let bounds = self.partitions.iter().filter_map(|p| range_bounds(&p.bounds));
        let known = bounds
            .flat_map(|(lower, upper)| [lower, upper])
            .filter_map(|b| b.value().map(str::to_owned))
            .find(|text| LetterCase::guess(text).is_some());
        if known.is_some() {
            return Ok(known);
        }
        let (key, table) = (self.key()?, &self.name);
        let query = format!(
            "SELECT pg_catalog.to_jsonb({key}::text) FROM {table} WHERE {key}::text ~* '{}' ORDER BY {key} DESC LIMIT 1",
            LetterCase::Upper.pattern()
        );
        as_user(self.owner(), || spi::row(&query, &[]))
    }

    /// A number by which the unit of an epoch can be told: the highest bound that could be a time of our age, else the
    /// highest value.
    fn newest_number(&self) -> Result<Option<String>> {
        let bounds = self.partitions.iter().filter_map(|p| range_bounds(&p.bounds));
        let numbers = bounds
            .flat_map(|(lower, upper)| [lower, upper])
            .filter_map(|b| b.value()?.parse::<i128>().ok());
        if let Some(newest) = numbers.filter(|n| EpochUnit::guess(*n).is_some()).max() {
            return Ok(Some(newest.to_string()));
        }
        let (key, table) = (self.key()?, &self.name);
        let query = format!(
            "SELECT pg_catalog.to_jsonb({key}::text) FROM {table}
             WHERE {key}::bigint BETWEEN 100000000 AND 99999999999999999 ORDER BY {key} DESC LIMIT 1"
        );
        as_user(self.owner(), || spi::row(&query, &[]))
    }
}

/// A table whose partitions are ranges, with its policy.
pub struct Managed {
    pub table: Partitioned,
    pub policy: PolicyRow,
    pub pair: Option<Pair>,
    pub scheme: Scheme,
}

/// What a relation stands for: a partitioned table, the pair that it is the twin of, and its policy. A pair of hash or
/// list partitions has no policy, a table without a pair has no pair.
pub struct Target {
    pub parent: Oid,
    pub pair: Option<Pair>,
    pub policy: Option<PolicyRow>,
}

/// The twin for either side of a pair, else the relation itself.
///
/// # Errors
/// `NotManaged` when there is neither pair nor policy.
pub fn resolve(relation: Oid) -> Result<Target> {
    let pair = pair::store::find(relation)?;
    let parent = pair.as_ref().map_or(relation, |pair| pair.twin);
    // When the legacy has gone and no guard is left of it, the table is one like any other.
    let pair = pair.filter(pair::Pair::is_in_force);
    let policy =
        with_own_tables(|| spi::kept_row(include_str!("../../sql/catalog/policy.sql"), &[parent.into()]))?;
    if pair.is_none() && policy.is_none() {
        return Err(Error::NotManaged {
            relation: display(relation)?,
        });
    }
    Ok(Target { parent, pair, policy })
}

/// The partitions of a table by hash or list, when all of them are partitioned by range: they are what is maintained. None for any
/// other table.
pub fn ranges_below(table: Oid) -> Result<Vec<Oid>> {
    let tables: Vec<(u32, Option<String>)> = spi::rows(
        "SELECT pg_catalog.jsonb_build_array(i.inhrelid::bigint, b.partstrat)
         FROM pg_catalog.pg_partitioned_table t
         JOIN pg_catalog.pg_inherits i ON i.inhparent = t.partrelid AND NOT i.inhdetachpending
         LEFT JOIN pg_catalog.pg_partitioned_table b ON b.partrelid = i.inhrelid
         WHERE t.partrelid = $1 AND t.partstrat <> 'r' ORDER BY i.inhrelid",
        &[table.into()],
    )?;
    let have_ranges = tables
        .iter()
        .all(|(_, strategy)| strategy.as_deref() == Some("r"));
    Ok(match have_ranges {
        true => tables.into_iter().map(|(oid, _)| oid.into()).collect(),
        false => Vec::new(),
    })
}

/// The tables below one by hash or list that are under maintenance, when it has no policy itself.
pub fn managed_below(table: Oid) -> Result<Vec<Oid>> {
    let tables: Vec<u32> = with_own_tables(|| {
        spi::kept_rows(
            "SELECT pg_catalog.to_jsonb(i.inhrelid::bigint)
             FROM pg_catalog.pg_partitioned_table t
             JOIN pg_catalog.pg_inherits i ON i.inhparent = t.partrelid
             JOIN partition_router.policy p ON p.parent::oid = i.inhrelid
             WHERE t.partrelid = $1 AND t.partstrat <> 'r' ORDER BY i.inhrelid",
            &[table.into()],
        )
    })?;
    Ok(tables.into_iter().map(Oid::from).collect())
}

/// A relation as `regclass` prints it, qualified; its oid when it is gone.
pub fn display(relation: Oid) -> Result<String> {
    // As an argument it would be NULL.
    if relation == Oid::INVALID {
        return Ok("0".into());
    }
    let _path = PinnedSettings::search_path();
    let name: Option<String> = spi::kept_row(
        "SELECT pg_catalog.to_jsonb($1::regclass::text)",
        &[relation.into()],
    )?;
    Ok(name.unwrap_or_else(|| relation.to_u32().to_string()))
}

/// Settings under which bounds and values print the same in every session. For `timestamptz` the zone makes the printed
/// text the local time that partitions are cut by.
pub fn pin(zone: &str) -> PinnedSettings {
    PinnedSettings::new(&[
        (c"search_path", "pg_catalog, pg_temp"),
        (c"DateStyle", "ISO, YMD"),
        (c"IntervalStyle", "postgres"),
        (c"TimeZone", zone),
        (c"row_security", "off"),
        // What is asked of table after table has one plan for all.
        (c"plan_cache_mode", "force_generic_plan"),
    ])
}

/// The zone that partitions are cut in: hours in UTC, anything longer in the policy's.
pub fn zone_of(policy: &PolicyRow) -> Result<&str> {
    if Interval::from_step(&policy.partition_interval).is_ok() {
        return Ok("UTC");
    }
    Ok(match twin::parse_interval(&policy.partition_interval)? {
        Interval::Hours(_) => "UTC",
        _ => &policy.timezone,
    })
}

/// Reads a partitioned table. Call it under [`pin`].
pub fn find_partitioned(oid: Oid) -> Result<Option<Partitioned>> {
    spi::kept_row(include_str!("../../sql/catalog/partitioned.sql"), &[oid.into()])
}

/// As [`find_partitioned`]; none is an error.
pub fn partitioned(oid: Oid) -> Result<Partitioned> {
    match find_partitioned(oid)? {
        Some(table) => Ok(table),
        None => Err(Error::NotRangePartitioned {
            relation: display(oid)?,
        }),
    }
}

impl Managed {
    /// Reads a table under [`pin`] for the zone of the policy.
    pub fn read(parent: Oid, policy: PolicyRow, pair: Option<Pair>) -> Result<Self> {
        let mut table = partitioned(parent)?;
        table.take_after(&policy)?;
        let scheme = table.scheme(&policy.partition_interval, policy.origin.as_deref())?;
        Ok(Managed {
            table,
            policy,
            pair,
            scheme,
        })
    }

    /// The full name of a partition by its suffix.
    pub fn name_of(&self, partition: &RangePartition) -> Result<RelName> {
        let name = self.policy.base_name.with_suffix(&partition.suffix);
        if name.is_too_long() {
            return Err(Error::NameTooLong {
                name: name.as_str().into(),
            });
        }
        Ok(self.table.name.sibling(name))
    }

    /// What the longest name of a partition of a partition has behind that of the partition.
    pub fn longest_below(&self) -> Result<usize> {
        fn longest(depth: &subpartitions::Depth) -> usize {
            let below = depth.parts.iter();
            below
                .map(|part| part.suffix.len() + part.depth.as_ref().map_or(0, longest))
                .max()
                .unwrap_or(0)
        }
        match (self.table.is_deep, self.table.template) {
            (true, Some(oid)) => Ok(longest(&subpartitions::load(oid.into(), self.table.key()?)?)),
            _ => Ok(0),
        }
    }

    /// The zone of times that are not `timestamptz` in the policy's zone.
    pub fn clock_zone(&self) -> &str {
        clock_zone(&self.scheme, &self.policy)
    }
}

/// As [`Managed::clock_zone`].
pub fn clock_zone<'a>(scheme: &Scheme, policy: &'a PolicyRow) -> &'a str {
    match scheme.key() {
        KeyKind::Epoch(..) | KeyKind::UuidV7 | KeyKind::Ulid(_) => "UTC",
        _ => match scheme.interval() {
            Interval::Hours(_) => "UTC",
            _ => &policy.timezone,
        },
    }
}

/// How a table is cut whose key is a time as the server has it; none for other keys, and where the policy is no good.
pub fn time_scheme(key: &Ident, key_type: &str, policy: &PolicyRow) -> Option<Scheme> {
    let column = Column {
        name: key.clone(),
        type_name: key_type.to_owned(),
        base_type: key_type.to_owned(),
        ..Column::default()
    };
    let scheme = twin::scheme(
        &column,
        &policy.partition_interval,
        policy.origin.as_deref(),
        None,
    )
    .ok()?;
    matches!(
        scheme.key(),
        KeyKind::Date | KeyKind::Timestamp | KeyKind::TimestampTz
    )
    .then_some(scheme)
}
