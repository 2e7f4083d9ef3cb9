//! Looks over many tables at once for those with nothing to do: most of them, at most runs. A table that is not plainly at rest
//! is left to [`super::tasks`], which looks closer; what is decided here is decided by the same [`policy::decide`].

mod files;
mod zone;

use super::state::{self, Clock};
use super::table::{self, PolicyRow};
use crate::bounds::{Edge, KeyKind, Point, Scheme, StoredBound, stored_range};
use crate::error::Result;
use crate::ident::Ident;
use crate::locks::budget;
use crate::policy::{self, Existing, Policy, State};
use crate::session::{PinnedSettings, with_own_tables};
use crate::spi;
use pgrx::pg_sys::Oid;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Tables that one statement reads.
const AT_ONCE: usize = 100;

#[derive(Deserialize)]
struct Ruled {
    parent: u32,
    policy: PolicyRow,
}

/// What [`SURVEY`] says of a table.
struct Seen {
    parent: u32,
    key: Ident,
    key_type: String,
    default: Option<u32>,
    is_half_detached: bool,
    oids: Vec<u32>,
    /// As many as oids, each as it is stored.
    bounds: Vec<(StoredBound, StoredBound)>,
}

const SURVEY: &str = include_str!("../../sql/catalog/survey.sql");

impl Seen {
    /// None when a bound is none that we know.
    fn parse([parent, key, key_type, default, half, oids, bounds]: [Option<String>; 7]) -> Option<Seen> {
        let (oids, bounds) = (oids.unwrap_or_default(), bounds.unwrap_or_default());
        let seen = Seen {
            parent: parent?.parse().ok()?,
            key: Ident::new(&key?),
            key_type: key_type?,
            default: default.map(|oid| oid.parse()).transpose().ok()?,
            is_half_detached: half.as_deref() == Some("t"),
            oids: oids
                .lines()
                .map(|oid| oid.parse().ok())
                .collect::<Option<Vec<u32>>>()?,
            bounds: bounds.lines().map(stored_range).collect::<Option<Vec<_>>>()?,
        };
        (seen.oids.len() == seen.bounds.len()).then_some(seen)
    }
}

/// Those of the tables that have nothing to do; that they were looked at is noted with their policies. A table that another session
/// is at is not among them.
pub fn at_rest(parents: &[Oid]) -> Result<HashSet<u32>> {
    // What one table has wrong must not keep the others from being maintained: with each by itself the error is met again, and told.
    match budget::subtransaction(|| look(parents)) {
        Ok(Ok(resting)) => note(&resting),
        Ok(Err(_)) => Ok(HashSet::new()),
        Err(caught) if budget::is_cancel(&caught) => caught.rethrow(),
        Err(_) => Ok(HashSet::new()),
    }
}

/// What many tables of one zone have in common, asked of the server once.
#[derive(Default)]
struct Known {
    /// By type of the key, interval and origin.
    schemes: HashMap<(String, String, Option<String>), Option<Scheme>>,
    /// By zone and retention.
    clocks: HashMap<(String, Option<String>), Clock>,
}

fn look(parents: &[Oid]) -> Result<Vec<u32>> {
    let mut zones: BTreeMap<String, HashMap<u32, PolicyRow>> = BTreeMap::new();
    let mut cut_in = HashMap::new();
    for Ruled { parent, policy } in ruled(parents)? {
        let zone = cut_in
            .entry((policy.partition_interval.clone(), policy.timezone.clone()))
            .or_insert_with(|| table::zone_of(&policy).ok().map(str::to_owned));
        if let Some(zone) = zone {
            zones.entry(zone.clone()).or_default().insert(parent, policy);
        }
    }
    let mut resting = Vec::new();
    for (zone, mut policies) in zones {
        let _settings = table::pin(&zone);
        // In their order neighbours in the catalog are read together.
        let mut parents: Vec<u32> = policies.keys().copied().collect();
        parents.sort_unstable();
        let mut known = Known::default();
        for some in parents.chunks(AT_ONCE) {
            let rows = spi::texts_in_snapshot(SURVEY, &[oids(some).into()])?;
            let mut quiet = Vec::with_capacity(rows.len());
            for table in rows.into_iter().filter_map(Seen::parse) {
                if let Some(policy) = policies.remove(&table.parent)
                    && let Some(must_be_empty) = table.must_be_empty(&policy, &mut known)?
                {
                    quiet.push((table.parent, must_be_empty));
                }
            }
            let all = quiet.iter().flat_map(|(_, tables)| tables.iter().copied());
            let filled = files::filled(all)?;
            resting.extend(
                quiet
                    .into_iter()
                    .filter(|(_, tables)| !tables.iter().any(|table| filled.contains(table)))
                    .map(|(parent, _)| parent),
            );
        }
    }
    Ok(resting)
}

/// The policies of tables that nothing but time can give anything to do: no pair, no drain, no archive under way, nothing held, nothing
/// left alone and no template that is gone.
fn ruled(parents: &[Oid]) -> Result<Vec<Ruled>> {
    let _style = PinnedSettings::new(&[(c"IntervalStyle", "postgres")]);
    with_own_tables(|| {
        spi::rows_in_snapshot(
            "SELECT pg_catalog.jsonb_build_object('parent', p.parent::oid::bigint,
                        'policy', pg_catalog.to_jsonb(p) OPERATOR(pg_catalog.-) 'template')
             FROM partition_router.policy p
             WHERE p.parent::oid = ANY ($1) AND p.left_alone = '[]'
               AND (p.template IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = p.template::oid))
               AND NOT EXISTS (SELECT FROM partition_router.pair r WHERE p.parent::oid IN (r.legacy::oid, r.twin::oid))
               AND NOT EXISTS (SELECT FROM partition_router.drain d WHERE d.parent::oid = p.parent::oid)
               AND NOT EXISTS (SELECT FROM partition_router.archives a
                               WHERE a.parent::oid = p.parent::oid AND a.state = 'detached')
               AND NOT EXISTS (SELECT FROM partition_router.hold h
                               JOIN pg_catalog.pg_inherits i ON i.inhrelid = h.partition::oid
                               WHERE i.inhparent = p.parent::oid)",
            &[parents.to_vec().into()],
        )
    })
}

fn oids(tables: &[u32]) -> Vec<Oid> {
    tables.iter().copied().map(Oid::from).collect()
}

/// Notes that they were looked at. A policy that another session is changing is left out: nobody waits here.
fn note(resting: &[u32]) -> Result<HashSet<u32>> {
    let parents = oids(resting);
    let noted: Vec<u32> = with_own_tables(|| {
        spi::returning_rows(
            "UPDATE partition_router.policy SET last_run_at = pg_catalog.clock_timestamp(), last_error = NULL
             WHERE parent IN (SELECT p.parent FROM partition_router.policy p
                              WHERE p.parent::oid = ANY ($1) FOR UPDATE SKIP LOCKED)
             RETURNING pg_catalog.to_jsonb(parent::oid::bigint)",
            &[parents.into()],
        )
    })?;
    Ok(noted.into_iter().collect())
}

impl Known {
    fn scheme_of(&mut self, table: &Seen, policy: &PolicyRow) -> Option<Scheme> {
        let key = (
            table.key_type.clone(),
            policy.partition_interval.clone(),
            policy.origin.clone(),
        );
        *self
            .schemes
            .entry(key)
            .or_insert_with(|| table::time_scheme(&table.key, &table.key_type, policy))
    }

    fn clock_of(&mut self, scheme: &Scheme, policy: &PolicyRow) -> Result<Clock> {
        let zone = table::clock_zone(scheme, policy);
        let key = (zone.to_owned(), policy.retention.clone());
        if let Some(clock) = self.clocks.get(&key) {
            return Ok(*clock);
        }
        let clock = state::clock(zone, policy.retention.as_deref())?;
        self.clocks.insert(key, clock);
        Ok(clock)
    }
}

impl Seen {
    /// None when there is something to do, or may be; else the tables that must have no rows for there to be nothing.
    fn must_be_empty(&self, policy: &PolicyRow, known: &mut Known) -> Result<Option<Vec<u32>>> {
        let Some(scheme) = known.scheme_of(self, policy) else {
            return Ok(None);
        };
        let clock = known.clock_of(&scheme, policy)?;
        let (Some(now), false) = (clock.now, self.is_half_detached) else {
            return Ok(None);
        };
        let mut partitions = Vec::with_capacity(self.oids.len());
        for (oid, &(lower, upper)) in self.oids.iter().zip(&self.bounds) {
            let ends = match scheme.key() {
                KeyKind::Date => (lower.day(), upper.day()),
                KeyKind::TimestampTz => {
                    let (lower, upper) = (zone::local(lower)?, zone::local(upper)?);
                    // A day of a zone that begins after midnight is for a closer look.
                    if scheme.is_local() && (lower.is_within_a_day() || upper.is_within_a_day()) {
                        return Ok(None);
                    }
                    (lower.time(), upper.time())
                }
                _ => (lower.time(), upper.time()),
            };
            let (start, end) = ends;
            partitions.push(Existing {
                name: oid.to_string(),
                start,
                end,
                held: None,
            });
        }
        let must_be_empty = self.default.into_iter().chain(
            partitions
                .iter()
                .zip(&self.oids)
                .filter(|(partition, _)| {
                    Edge::At(now) < partition.end && !is_slot_of(&scheme, partition, now)
                })
                .map(|(_, oid)| *oid),
        );
        let must_be_empty = must_be_empty.collect();
        let rules = Policy {
            scheme,
            premake: policy.premake.max(0) as u32,
            cutoff: clock.cutoff,
            count: policy.count(),
            at_least: policy.at_least(),
        };
        let state = State {
            partitions,
            now: Some(now),
            ..State::default()
        };
        let nothing = policy::decide(&rules, &state).is_ok_and(|decisions| decisions.is_empty());
        Ok(nothing.then_some(must_be_empty))
    }
}

/// Whether a partition is the slot of `now`: rows in it put nothing off, the newest of them is as new as now.
fn is_slot_of(scheme: &Scheme, partition: &Existing, now: Point) -> bool {
    partition.start == scheme.floor(now) && partition.end <= scheme.next(now)
}
