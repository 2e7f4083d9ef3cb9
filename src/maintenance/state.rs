//! What the rows of a table say to maintenance: where the newest are, and which lie in the default partition. Tables
//! are read as their owner, and a partition only as far as its first row where that is enough.

use super::hold;
use super::table::{Managed, Partition};
use crate::bounds::{Edge, Interval, KeyKind, LetterCase, Point, RawBound, civil};
use crate::error::{Error, Result};
use crate::ident::{Ident, RelName};
use crate::pair::Phase;
use crate::policy::{self, Existing, Policy, State, Stray};
use crate::session::as_user;
use crate::spi;
use crate::twin::bounds_error;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::collections::HashMap;

/// The rules and the state of a table, read under [`super::table::pin`].
pub fn read(managed: &Managed) -> Result<(Policy, State)> {
    let Clock { now, cutoff } = clock_of(managed)?;
    let partitions = existing(managed)?;
    let (newest, (strays, unplaceable)) = as_user(managed.table.owner(), || {
        Ok::<_, Error>((newest(managed, &partitions, now)?, strays(managed)?))
    })?;
    let policy = Policy {
        scheme: managed.scheme,
        premake: managed.policy.premake.max(0) as u32,
        cutoff,
        count: managed.policy.count(),
        at_least: managed.policy.at_least(),
    };
    let frozen = frozen(managed);
    Ok((
        policy,
        State {
            partitions,
            strays,
            unplaceable,
            now,
            newest,
            frozen,
        },
    ))
}

/// Whether the policy wants a partition retired now. Reads no rows, but of integer keys the newest.
pub fn is_due(managed: &Managed, partition: &str) -> Result<bool> {
    let Clock { now, cutoff } = clock_of(managed)?;
    let policy = Policy {
        scheme: managed.scheme,
        premake: 0,
        cutoff,
        count: managed.policy.count(),
        at_least: managed.policy.at_least(),
    };
    let partitions = existing(managed)?;
    let newest = match now {
        Some(_) => None,
        None => as_user(managed.table.owner(), || newest(managed, &partitions, now))?,
    };
    let state = State {
        partitions,
        now,
        newest,
        frozen: frozen(managed),
        ..State::default()
    };
    let is_it = |due: &&Existing| due.name == partition && due.held.is_none();
    Ok(state.frozen.is_none() && policy::due(&policy, &state).iter().any(is_it))
}

/// Whether the newest partition begins and ends where one of the interval would. Call it under [`super::table::pin`].
pub fn newest_is_aligned(managed: &Managed) -> Result<bool> {
    let is_on_grid = |edge: Edge| match edge {
        Edge::At(point) => managed.scheme.floor(point) == edge,
        Edge::Min | Edge::Max => true,
    };
    let newest = existing(managed)?
        .into_iter()
        .max_by_key(|partition| partition.end);
    Ok(newest.is_none_or(|partition| is_on_grid(partition.start) && is_on_grid(partition.end)))
}

/// Why retention waits: until both sides are live, the backfill needs the rows.
fn frozen(managed: &Managed) -> Option<String> {
    let pair = managed.pair.as_ref()?;
    matches!(pair.phase, Phase::Prepared | Phase::Copying)
        .then(|| format!("the pair is in phase \"{}\"", pair.phase))
}

/// Now and the end of retention, in the zone that partitions are cut in; nothing where keys are no times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    pub now: Option<Point>,
    pub cutoff: Option<Point>,
}

fn clock_of(managed: &Managed) -> Result<Clock> {
    match managed.scheme.key().is_time() {
        true => clock(managed.clock_zone(), managed.policy.retention.as_deref()),
        false => Ok(Clock::default()),
    }
}

/// The time in a zone.
pub fn clock(zone: &str, retention: Option<&str>) -> Result<Clock> {
    #[derive(Deserialize)]
    struct Text {
        now: String,
        cutoff: Option<String>,
    }
    let clock: Option<Text> = spi::kept_row(
        "SELECT pg_catalog.jsonb_build_object('now', t::text, 'cutoff', (t - $2::interval)::text)
         FROM (SELECT pg_catalog.timezone($1, pg_catalog.now()) AS t) x",
        &[zone.into(), retention.into()],
    )?;
    let point = |text: &str| match civil(text) {
        Some(Edge::At(point)) => Some(point),
        _ => None,
    };
    let clock = clock.ok_or_else(|| Error::Internal("the server has no time".into()))?;
    Ok(Clock {
        now: point(&clock.now),
        cutoff: clock.cutoff.as_deref().and_then(point),
    })
}

fn existing(managed: &Managed) -> Result<Vec<Existing>> {
    let mut ranges = Vec::with_capacity(managed.table.partitions.len());
    for partition in &managed.table.partitions {
        ranges.push(partition.range()?);
    }
    if managed.scheme.is_local() {
        local_midnights(&mut ranges)?;
    }
    let edges = |(lower, upper): &(RawBound, RawBound)| -> Result<(Edge, Edge)> {
        Ok((
            managed.scheme.raw_edge(lower).map_err(bounds_error)?,
            managed.scheme.raw_edge(upper).map_err(bounds_error)?,
        ))
    };
    let mut held = match managed.policy.retires() {
        true => hold::held(managed.table.oid())?,
        false => HashMap::new(),
    };
    let name = |partition: &Partition| partition.name.name.as_str().to_owned();
    ranges
        .iter()
        .zip(&managed.table.partitions)
        .map(|(range, partition)| {
            edges(range).map(|(start, end)| Existing {
                name: name(partition),
                start,
                end,
                held: held.remove(&partition.oid),
            })
        })
        .collect()
}

/// Where clocks go forward at midnight, the day begins at one o'clock: such a bound is the day's, written as midnight.
fn local_midnights(ranges: &mut [(RawBound, RawBound)]) -> Result<()> {
    let mut odd: Vec<&mut String> = ranges
        .iter_mut()
        .flat_map(|(lower, upper)| [lower, upper])
        .filter(|bound| is_odd(bound))
        .filter_map(|bound| match bound {
            RawBound::Value(text) => Some(text),
            _ => None,
        })
        .collect();
    if odd.is_empty() {
        return Ok(());
    }
    let instants: Vec<String> = odd.iter().map(|text| text.to_string()).collect();
    let days: Vec<String> = spi::rows(
        "SELECT pg_catalog.to_jsonb(CASE WHEN pg_catalog.date_trunc('day', l)::timestamptz = t
                                         THEN pg_catalog.date_trunc('day', l)::text ELSE t::text END)
         FROM ROWS FROM (pg_catalog.unnest($1::timestamptz[])) WITH ORDINALITY AS u(t, n)
         CROSS JOIN LATERAL (SELECT t::timestamp AS l) x ORDER BY n",
        &[instants.into()],
    )?;
    for (text, day) in odd.iter_mut().zip(days) {
        **text = day;
    }
    Ok(())
}

/// Whether a local time is none of midnight.
fn is_odd(bound: &RawBound) -> bool {
    bound
        .value()
        .is_some_and(|text| !text.contains(" 00:00:00") && text.contains(':'))
}

/// A value in the newest partition that has rows: its start will do when it is one slot long. Partitions before now are
/// not looked at, since premake is ahead of now anyway; nor are those too far away to be premade from.
fn newest(managed: &Managed, partitions: &[Existing], now: Option<Point>) -> Result<Option<Point>> {
    let scheme = managed.scheme;
    let matters = |existing: &Existing| {
        let Some(now) = now else { return true };
        let is_near = match existing.start {
            Edge::At(start) => scheme.slot(start) - scheme.slot(now) <= policy::MAX_GAP,
            Edge::Min | Edge::Max => true,
        };
        existing.end > Edge::At(now) && is_near
    };
    let mut order: Vec<_> = partitions
        .iter()
        .zip(&managed.table.partitions)
        .filter(|(existing, _)| matters(existing))
        .collect();
    let filled = filled(order.iter().map(|(_, partition)| partition.oid))?;
    order.retain(|(_, partition)| filled.contains(&partition.oid));
    order.sort_by_key(|(existing, _)| std::cmp::Reverse(existing.end));
    for (existing, partition) in order {
        if !has_rows(&partition.name, "true")? {
            continue;
        }
        return match existing.start {
            Edge::At(start) if scheme.next(start) >= existing.end => Ok(Some(start)),
            _ => newest_value(managed, &partition.name),
        };
    }
    Ok(None)
}

fn newest_value(managed: &Managed, partition: &RelName) -> Result<Option<Point>> {
    let key = managed.table.key()?;
    // Text that is no ULID says nothing about time.
    let condition = match managed.scheme.key() {
        KeyKind::Ulid(case) => format!("WHERE {key}::text ~ '{}'", case.pattern()),
        _ => String::new(),
    };
    let text: Option<String> = spi::row(
        &format!(
            "SELECT pg_catalog.to_jsonb({key}::text) FROM {partition} {condition} ORDER BY {key} DESC LIMIT 1"
        ),
        &[],
    )?;
    match text
        .map(|text| managed.scheme.edge(&text))
        .transpose()
        .map_err(bounds_error)?
    {
        Some(Edge::At(point)) => Ok(Some(point)),
        _ => Ok(None),
    }
}

/// Those of the tables that have pages: others have no rows. A table that is partitioned itself has none of its own.
pub fn filled(tables: impl Iterator<Item = u32>) -> Result<Vec<u32>> {
    let tables: Vec<Oid> = tables.map(Oid::from).collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    spi::kept_rows(
        "SELECT pg_catalog.to_jsonb(c.oid::bigint) FROM pg_catalog.pg_class c
         WHERE c.oid = ANY ($1) AND (c.relkind <> 'r' OR pg_catalog.pg_relation_size(c.oid) > 0)",
        &[tables.into()],
    )
}

/// Whether a table has a row for which a condition holds.
pub fn has_rows(table: &RelName, condition: &str) -> Result<bool> {
    let query = format!("SELECT pg_catalog.to_jsonb(EXISTS (SELECT FROM {table} WHERE {condition}))");
    Ok(spi::row(&query, &[])?.unwrap_or(false))
}

/// Those that have a slot, and the others: their number and one of their values.
type Strays = (Vec<Stray>, Option<(i64, String)>);

/// The rows of the default partition, counted by the hour, day, month or step that they lie in.
fn strays(managed: &Managed) -> Result<Strays> {
    #[derive(Deserialize)]
    struct Group {
        at: Option<String>,
        rows: i64,
        example: String,
    }
    let Some(default) = &managed.table.default else {
        return Ok((Vec::new(), None));
    };
    if filled(managed.table.default_oid.into_iter())?.is_empty() {
        return Ok((Vec::new(), None));
    }
    let key = managed.table.key()?;
    // Times become text when they are grouped: there may be a million of them.
    let example = match managed.scheme.key() {
        KeyKind::UuidV7 | KeyKind::Ulid(_) => format!("{key}::text COLLATE \"C\""),
        _ => key.to_string(),
    };
    let query = format!(
        "SELECT pg_catalog.jsonb_build_object('at', x.at::text, 'rows', x.rows, 'example', COALESCE(x.example::text, 'NULL'))
         FROM (SELECT {at} AS at, pg_catalog.count(*) AS rows, pg_catalog.min({example}) AS example
               FROM {default} GROUP BY 1) x",
        at = group_of(managed, key),
    );
    let (mut strays, mut unplaceable) = (Vec::new(), None::<(i64, String)>);
    for Group { at, rows, example } in spi::rows(&query, &[])? {
        let edge = match (&at, managed.scheme.interval()) {
            (None, _) => None,
            (Some(text), Interval::Step(_)) => Some(managed.scheme.edge(text).map_err(bounds_error)?),
            (Some(text), _) => civil(text),
        };
        match edge {
            Some(Edge::At(at)) => strays.push(Stray { at, rows, example }),
            _ => unplaceable = Some((rows + unplaceable.map_or(0, |(rows, _)| rows), example)),
        }
    }
    Ok((strays, unplaceable))
}

/// An expression for a value, or its text, that lies in the same slot as the key: NULL where no time has such a value.
fn group_of(managed: &Managed, key: &Ident) -> String {
    let unit = match (managed.scheme.unit(), managed.scheme.interval()) {
        (Some(unit), _) => unit,
        (None, Interval::Step(step)) => {
            let (value, step) = (format!("{key}::numeric"), format!("{step}::numeric"));
            let into = format!("({value} - ({})::numeric)", managed.scheme.first_number());
            return format!("({value} - pg_catalog.mod(pg_catalog.mod({into}, {step}) + {step}, {step}))");
        }
        (None, _) => "hour",
    };
    let seconds = match managed.scheme.key() {
        KeyKind::Epoch(unit, _) => format!("pg_catalog.floor({key}::numeric / {})", unit.per_second()),
        KeyKind::UuidV7 => format!(
            "pg_catalog.floor(('x' || pg_catalog.substr(pg_catalog.replace({key}::text, '-', ''), 1, 12))\
             ::bit(48)::bigint::numeric / 1000)"
        ),
        KeyKind::Ulid(case) => ulid_seconds(key, case),
        // A timestamptz becomes a local time of the zone that is set.
        _ => return format!("pg_catalog.date_trunc('{unit}', {key}::timestamp)"),
    };
    // The years 1 to 9999: others have no partitions, and to_timestamp refuses some.
    format!(
        "CASE WHEN {seconds} BETWEEN -62135596800 AND 253402300799 THEN pg_catalog.date_trunc('{unit}', \
         pg_catalog.timezone('UTC', pg_catalog.to_timestamp({seconds}::float8))) END"
    )
}

/// The seconds of a ULID since 1970; NULL for other text, and for one whose letters are of the other case: that is out of order.
fn ulid_seconds(key: &Ident, case: LetterCase) -> String {
    let digit = |place: u32| {
        format!(
            "(pg_catalog.strpos('{}', pg_catalog.substr({key}::text, {place}, 1)) - 1)::bigint * {}",
            case.digits(),
            1_i64 << (5 * (10 - place))
        )
    };
    let millis = (1..=10).map(digit).collect::<Vec<_>>().join(" + ");
    format!(
        "pg_catalog.floor((CASE WHEN {key}::text ~ '{}' THEN {millis} END)::numeric / 1000)",
        case.pattern()
    )
}
