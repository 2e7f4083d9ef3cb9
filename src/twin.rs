//! Designs the twin of a table: asks the server which values the partition key has, and turns them into the list of
//! partitions that [`crate::plan::create_twin`] makes.

use crate::bounds::{
    self, Bound, EpochUnit, IntegerSize, Interval, KeyKind, LetterCase, RangePartition, RawBound, Scheme,
};
use crate::catalog::{Column, TableDef};
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::pair::Strategy;
use crate::plan::create_twin::{Bounds, NewPartition, TwinSpec};
use crate::plan::sync_triggers;
use crate::session::PinnedSettings;
use crate::{catalog::load, session, spi};
use pgrx::pg_sys::Oid;
use serde::Deserialize;

/// What the caller of `migrate()` or `create_twin()` asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub partition_key: Ident,
    pub strategy: String,
    pub partition_interval: String,
    pub partitions: i32,
    pub premake: i32,
    pub twin: Option<Ident>,
    /// Where some partition begins, when that is not the usual place.
    pub origin: Option<String>,
    /// Unique columns without the partition key stay unique when the legacy goes.
    pub keep_unique: bool,
}

impl Request {
    /// What `migrate()` and `create_twin()` take where they are given a table, a key and a strategy alone. The key is still to be named.
    pub fn with_defaults(strategy: &str) -> Self {
        Request {
            partition_key: Ident::default(),
            strategy: strategy.into(),
            partition_interval: "1 month".into(),
            partitions: 16,
            premake: 3,
            twin: None,
            origin: None,
            keep_unique: false,
        }
    }
}

/// The strategy of a request.
pub fn strategy(text: &str) -> Result<Strategy> {
    text.parse().map_err(|_| Error::BadStrategy {
        strategy: text.into(),
    })
}

/// The twin that `request` wants for `legacy`.
pub fn design(legacy: &TableDef, request: &Request) -> Result<TwinSpec> {
    let strategy = strategy(&request.strategy)?;
    let column = legacy
        .column(request.partition_key.as_str())
        .ok_or_else(|| Error::UnknownColumn {
            relation: legacy.name.to_string(),
            column: request.partition_key.as_str().into(),
        })?;
    let base = &legacy.name.name;
    let partitions = match strategy {
        Strategy::Range => range(legacy, column, request)?,
        Strategy::Hash => hash(base, request.partitions)?,
        Strategy::List => list(legacy, column, request)?,
    };
    let twin = twin_name(base, request);
    let names = partitions.iter().map(|p| &p.name).chain([&twin]);
    if let Some(long) = names
        .chain([&sync_triggers::longest_name(base)])
        .find(|name| name.is_too_long())
    {
        return Err(Error::NameTooLong {
            name: long.as_str().into(),
        });
    }
    Ok(TwinSpec {
        twin: legacy.name.sibling(twin),
        strategy,
        partition_key: request.partition_key.clone(),
        partitions,
        given_by_default: load::given_by_default(&legacy.name.schema, None)?,
    })
}

fn twin_name(base: &Ident, request: &Request) -> Ident {
    let given = request.twin.clone();
    given.unwrap_or_else(|| base.with_suffix("_partitioned"))
}

fn hash(base: &Ident, modulus: i32) -> Result<Vec<NewPartition>> {
    if !(1..=bounds::MAX_PARTITIONS as i32).contains(&modulus) {
        return Err(Error::BadArgument {
            argument: "partitions".into(),
            reason: format!("{modulus} hash partitions were asked for"),
            hint: format!("Ask for 1 to {} partitions.", bounds::MAX_PARTITIONS),
        });
    }
    Ok((0..modulus)
        .map(|remainder| NewPartition {
            name: base.with_suffix(&format!("_{remainder}")),
            bounds: Bounds::Hash { modulus, remainder },
        })
        .collect())
}

/// One partition for each value that there is, and the default for those to come.
fn list(legacy: &TableDef, column: &Column, request: &Request) -> Result<Vec<NewPartition>> {
    // As the owner: comparing values may run code of the type's author.
    let owner = load::owner(legacy.oid.into())?;
    let values: Vec<String> = session::as_user(owner, || {
        let _all_rows = PinnedSettings::new(&[(c"row_security", "off")]);
        spi::rows(
            &format!(
                "SELECT pg_catalog.to_jsonb(v::text) FROM (SELECT DISTINCT {0} AS v FROM {1} WHERE {0} IS NOT NULL
                 ORDER BY 1 LIMIT {2}) d",
                column.name,
                legacy.name,
                bounds::MAX_PARTITIONS + 1
            ),
            &[],
        )
    })?;
    if values.len() > bounds::MAX_PARTITIONS {
        return Err(Error::TooManyPartitions {
            wanted: format!("more than {}", bounds::MAX_PARTITIONS),
            limit: bounds::MAX_PARTITIONS,
            value: values.last().cloned().unwrap_or_default(),
        });
    }
    let base = &legacy.name.name;
    let default = default_partition(base);
    let partitions = values.into_iter().enumerate().map(|(number, value)| {
        let mut name = base.with_suffix(&format!("_{value}"));
        // Nobody can choose another value: one that makes no name of its own is counted instead.
        if name.is_too_long() || name == default.name || name == twin_name(base, request) {
            name = base.with_suffix(&format!("_value_{}", number + 1));
        }
        NewPartition {
            name,
            bounds: Bounds::List { value },
        }
    });
    let mut partitions: Vec<_> = partitions.collect();
    partitions.push(default);
    Ok(partitions)
}

fn default_partition(base: &Ident) -> NewPartition {
    NewPartition {
        name: base.with_suffix("_default"),
        bounds: Bounds::Default,
    }
}

#[derive(Deserialize)]
struct Extremes {
    min: Option<String>,
    max: Option<String>,
    now: String,
}

/// The aligned ranges that the data needs, now, and those ahead.
fn range(legacy: &TableDef, column: &Column, request: &Request) -> Result<Vec<NewPartition>> {
    if !(0..=1000).contains(&request.premake) {
        return Err(Error::BadArgument {
            argument: "premake".into(),
            reason: format!("{} partitions ahead were asked for", request.premake),
            hint: "Ask for 0 to 1000 partitions ahead.".into(),
        });
    }
    let key = &column.name;
    // Infinities have no partition of their own: the default takes them.
    let finite = match column.base_type.as_str() {
        "date" | "timestamp without time zone" | "timestamp with time zone" => {
            format!(" WHERE pg_catalog.isfinite({key})")
        }
        _ => String::new(),
    };
    let text = |value: &str| match column.base_type.as_str() {
        "timestamp with time zone" => {
            format!("pg_catalog.timezone('UTC', {value})::text")
        }
        _ => format!("{value}::text"),
    };
    let extreme = |order: &str| {
        text(&format!(
            "(SELECT {key} FROM {} {}{} {key} IS NOT NULL ORDER BY {key} {order} LIMIT 1)",
            legacy.name,
            finite,
            if finite.is_empty() { "WHERE" } else { "AND" }
        ))
    };
    let found: Option<Extremes> = read_legacy(
        &format!(
            "SELECT pg_catalog.jsonb_build_object('min', {}, 'max', {},
                'now', pg_catalog.timezone('UTC', pg_catalog.now())::text)",
            extreme("ASC"),
            extreme("DESC")
        ),
        legacy,
    )?
    .pop();
    let extremes = found.ok_or_else(|| Error::Internal("no row of extremes".into()))?;
    if is_text(&column.base_type) {
        require_byte_order(legacy.oid.into(), column)?;
    }
    let origin = normal_origin(request.origin.as_deref(), &request.partition_interval)?;
    let (interval, newest) = (&request.partition_interval, extremes.max.as_deref());
    let scheme = scheme(column, interval, origin.as_deref(), newest)?;
    let point = |text: Option<&String>| match text {
        Some(text) => match scheme.edge(text).map_err(bounds_error)? {
            bounds::Edge::At(point) => Ok(Some(point)),
            _ => Err(Error::TooManyPartitions {
                wanted: "a value is outside of the years 1 to 9999".into(),
                limit: bounds::MAX_PARTITIONS,
                value: text.clone(),
            }),
        },
        None => Ok(None),
    };
    let data = point(extremes.min.as_ref())?.zip(point(extremes.max.as_ref())?);
    let now = if scheme.key().is_time() {
        now_point(&scheme, &extremes.now)?
    } else {
        None
    };
    let ranges = scheme
        .range_covering(data, now, request.premake as u32, bounds::MAX_PARTITIONS)
        .map_err(bounds_error)?;
    let base = &legacy.name.name;
    let mut partitions: Vec<_> = ranges.into_iter().map(|range| new_range(base, range)).collect();
    partitions.push(default_partition(base));
    Ok(partitions)
}

/// Now, as a value that the key could have.
fn now_point(scheme: &Scheme, now: &str) -> Result<Option<bounds::Point>> {
    let clock = Scheme::new(KeyKind::Timestamp, scheme.interval()).map_err(bounds_error)?;
    Ok(match clock.edge(now).map_err(bounds_error)? {
        bounds::Edge::At(point) => Some(point),
        _ => None,
    })
}

/// Bounds of a new twin are in UTC until its policy gets another zone.
fn new_range(base: &Ident, range: RangePartition) -> NewPartition {
    let raw = |bound: Bound| match bound {
        Bound::MinValue => RawBound::MinValue,
        Bound::MaxValue => RawBound::MaxValue,
        Bound::Literal(text) => RawBound::Value(text),
        Bound::LocalTime(text) => RawBound::Value(format!("{text}+00")),
    };
    NewPartition {
        name: base.with_suffix(&range.suffix),
        bounds: Bounds::Range {
            lower: raw(range.lower),
            upper: raw(range.upper),
        },
    }
}

/// Types that can hold ULIDs.
pub fn is_text(type_name: &str) -> bool {
    ["text", "character varying", "character"].contains(&type_name)
}

/// Whether a collation, `$1`, compares byte by byte; code points in UTF-8, which the server's own provider compares, have the same
/// order.
const IN_BYTE_ORDER: &str = "EXISTS (
    SELECT FROM pg_catalog.pg_collation o
    LEFT JOIN pg_catalog.pg_database d ON o.collprovider = 'd' AND d.datname = pg_catalog.current_database()
    CROSS JOIN LATERAL (SELECT COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocprovider',
                                        NULLIF(o.collprovider::text, 'd'), 'c') AS name) provider
    WHERE o.oid = $1 AND (provider.name = 'b' OR provider.name = 'c'
        AND COALESCE(d.datcollate::text, o.collcollate::text) IN ('C', 'POSIX')))";

/// # Errors
/// `UnsuitableCollation` for a column of text whose order is another than that of its bytes.
fn require_byte_order(table: Oid, column: &Column) -> Result<()> {
    let collation: Option<u32> = spi::row(
        "SELECT pg_catalog.to_jsonb(a.attcollation::bigint) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = $1 AND a.attname = $2",
        &[table.into(), column.name.as_str().into()],
    )?;
    byte_order(column.name.as_str(), collation.unwrap_or_default().into())
}

/// Refuses a collation that compares text in another way than byte by byte.
pub fn byte_order(column: &str, collation: Oid) -> Result<()> {
    let found: Option<(bool, Option<String>)> = spi::row(
        &format!(
            "SELECT pg_catalog.jsonb_build_array({IN_BYTE_ORDER},
                 (SELECT pg_catalog.quote_ident(c.collname) FROM pg_catalog.pg_collation c WHERE c.oid = $1))"
        ),
        &[collation.into()],
    )?;
    match found {
        Some((true, _)) => Ok(()),
        found => Err(Error::UnsuitableCollation {
            column: column.into(),
            collation: found
                .and_then(|(_, name)| name)
                .unwrap_or_else(|| "unknown".into()),
        }),
    }
}

/// An origin as it is kept: a time as the server prints it, whatever way it was written. Empty text is none.
pub fn normal_origin(origin: Option<&str>, interval: &str) -> Result<Option<String>> {
    let Some(text) = origin.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if Interval::from_step(interval).is_ok() {
        return Ok(Some(text.to_owned()));
    }
    let _dates = PinnedSettings::new(&[(c"DateStyle", "ISO, YMD")]);
    spi::row("SELECT pg_catalog.to_jsonb($1::timestamp::text)", &[text.into()])
}

/// How a key of this type is cut at this interval, from this origin. An integer key with a length of time is an epoch, whose unit
/// shows in its newest value, as does the case of letters in ULIDs.
pub fn scheme(column: &Column, interval: &str, origin: Option<&str>, newest: Option<&str>) -> Result<Scheme> {
    let size = match column.base_type.as_str() {
        "smallint" => Some(IntegerSize::Small),
        "integer" => Some(IntegerSize::Normal),
        "bigint" => Some(IntegerSize::Big),
        _ => None,
    };
    let step = Interval::from_step(interval);
    let (key, interval) = match (column.base_type.as_str(), size) {
        ("date", _) => (KeyKind::Date, parse_interval(interval)?),
        ("timestamp without time zone", _) => (KeyKind::Timestamp, parse_interval(interval)?),
        ("timestamp with time zone", _) => (KeyKind::TimestampTz, parse_interval(interval)?),
        ("uuid", _) => (KeyKind::UuidV7, parse_interval(interval)?),
        (text, _) if is_text(text) => {
            let case = newest.and_then(LetterCase::guess).unwrap_or(LetterCase::Upper);
            (KeyKind::Ulid(case), parse_interval(interval)?)
        }
        (_, Some(size)) => match step {
            Ok(step) => (KeyKind::Integer(size), step),
            Err(_) => {
                let length = parse_interval(interval)?;
                let unit = newest
                    .and_then(|n| n.parse::<i128>().ok())
                    .and_then(EpochUnit::guess);
                let unit = unit.ok_or_else(|| Error::BadInterval {
                    interval: interval.into(),
                    reason: format!(
                        "\"{}\" holds no epoch times that a length of time could cut",
                        column.name.as_str()
                    ),
                })?;
                (KeyKind::Epoch(unit, size), length)
            }
        },
        _ => {
            return Err(Error::UnsuitableKey {
                column: column.name.as_str().into(),
                type_name: column.type_name.clone(),
                strategy: "range".into(),
            });
        }
    };
    let scheme = Scheme::new(key, interval).map_err(bounds_error)?;
    match origin {
        Some(origin) => scheme.with_origin(origin).map_err(bounds_error),
        None => Ok(scheme),
    }
}

#[derive(Deserialize)]
struct Parts {
    months: i32,
    days: i32,
    micros: i64,
}

/// The server reads the text; what no server can read is a bad interval as well.
pub fn parse_interval(text: &str) -> Result<Interval> {
    let bad = |reason: &str| Error::BadInterval {
        interval: text.into(),
        reason: reason.into(),
    };
    // From PostgreSQL 17 on an interval may be infinite, and has no parts.
    let parts: Option<Option<Parts>> = pgrx::PgTryBuilder::new(|| {
        spi::kept_row(
            "SELECT CASE WHEN NOT pg_catalog.isfinite(i) THEN 'null' ELSE pg_catalog.jsonb_build_object(
                'months', (EXTRACT(year FROM i) * 12 + EXTRACT(month FROM i))::int,
                'days', EXTRACT(day FROM i)::int,
                'micros', (EXTRACT(hour FROM i) * 3600000000 + EXTRACT(minute FROM i) * 60000000
                           + EXTRACT(microsecond FROM i))::bigint) END
             FROM (SELECT $1::pg_catalog.interval AS i) x",
            &[text.into()],
        )
    })
    .catch_when(pgrx::PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT, |_| {
        Err(bad("it is no length of time"))
    })
    .catch_when(pgrx::PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, |_| {
        Err(bad("it is too long"))
    })
    .catch_when(pgrx::PgSqlErrorCode::ERRCODE_INTERVAL_FIELD_OVERFLOW, |_| {
        Err(bad("it is too long"))
    })
    .catch_when(pgrx::PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, |_| {
        Err(bad("it is too long"))
    })
    .execute()?;
    let parts = parts
        .ok_or_else(|| bad("it is no length of time"))?
        .ok_or_else(|| bad("it is infinite"))?;
    Interval::from_parts(text, parts.months, parts.days, parts.micros).map_err(bounds_error)
}

pub fn bounds_error(error: bounds::BoundsError) -> Error {
    use bounds::BoundsError::*;
    match &error {
        BadInterval { interval, reason } => Error::BadInterval {
            interval: interval.clone(),
            reason: (*reason).into(),
        },
        WrongKey { interval, key } => Error::BadInterval {
            interval: interval.clone(),
            reason: format!("it does not fit a partition key of type {key}"),
        },
        TooMany { needed, limit, value } => Error::TooManyPartitions {
            wanted: needed.to_string(),
            limit: *limit,
            value: value.clone(),
        },
        BadOrigin { .. } => Error::BadArgument {
            argument: "origin".into(),
            reason: error.to_string(),
            hint: error.hint().into(),
        },
        BadValue { .. } | OutOfRange { .. } => Error::BadArgument {
            argument: "partition_key".into(),
            reason: error.to_string(),
            hint: error.hint().into(),
        },
    }
}

/// Runs a query on the legacy past row security, for its owner: a twin must have room for every row. The query uses
/// nothing but operators of built-in types, so that no code of a user runs with more rights.
fn read_legacy<T: serde::de::DeserializeOwned>(query: &str, legacy: &TableDef) -> Result<Vec<T>> {
    crate::pair::store::require_owner(legacy.oid.into())?;
    session::with_all_rows_of(load::owner(legacy.oid.into())?, || spi::rows(query, &[]))
}

/// Rows whose partition key is null. A column that cannot be null is not looked at.
pub fn null_keys(legacy: &TableDef, column: &Column) -> Result<i64> {
    if column.not_null {
        return Ok(0);
    }
    let counted: Vec<i64> = read_legacy(
        &format!(
            "SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM {} WHERE {} IS NULL",
            legacy.name, column.name
        ),
        legacy,
    )?;
    Ok(counted.first().copied().unwrap_or(0))
}

/// Rows whose partition key is infinite, of a column of times; 0 for others.
pub fn infinite_keys(legacy: &TableDef, column: &Column) -> Result<i64> {
    let base = column.base_type.as_str();
    if !["date", "timestamp without time zone", "timestamp with time zone"].contains(&base) {
        return Ok(0);
    }
    let counted: Vec<i64> = read_legacy(
        &format!(
            "SELECT pg_catalog.to_jsonb(pg_catalog.count(*)) FROM {} WHERE {} IN ('infinity'::{base}, '-infinity'::{base})",
            legacy.name, column.name
        ),
        legacy,
    )?;
    Ok(counted.first().copied().unwrap_or(0))
}

/// A name that is taken already, of the twin or one of its partitions.
pub fn taken_name(spec: &TwinSpec) -> Result<Option<RelName>> {
    if spec.partitions.iter().any(|p| p.name == spec.twin.name) {
        return Ok(Some(spec.twin.clone()));
    }
    let names: Vec<String> = spec
        .partitions
        .iter()
        .map(|p| p.name.as_str().to_string())
        .chain([spec.twin.name.as_str().to_string()])
        .collect();
    spi::row(
        "SELECT pg_catalog.jsonb_build_object('schema', n.nspname, 'name', c.relname)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = ANY ($2::pg_catalog.text[]::pg_catalog.name[]) ORDER BY c.relname LIMIT 1",
        &[spec.twin.schema.as_str().into(), names.into()],
    )
}
