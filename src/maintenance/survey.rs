//! Looks over many tables at once for those with nothing to do: most of them, at most runs. A table that is not plainly at rest
//! is left to [`super::tasks`], which looks closer; what is decided here is decided by the same [`policy::decide`].

use super::state::{self, Clock};
use super::table::{self, PolicyRow};
use crate::bounds::{Edge, Point, Scheme, range_bounds};
use crate::error::{Error, Result};
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

#[derive(Deserialize)]
struct Seen {
    parent: u32,
    key: Ident,
    key_type: String,
    default: Option<u32>,
    is_half_detached: bool,
    oids: Vec<u32>,
    bounds: Vec<String>,
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

fn look(parents: &[Oid]) -> Result<Vec<u32>> {
    let mut zones: BTreeMap<String, HashMap<u32, PolicyRow>> = BTreeMap::new();
    for Ruled { parent, policy } in ruled(parents)? {
        if let Ok(zone) = table::zone_of(&policy) {
            zones.entry(zone.to_owned()).or_default().insert(parent, policy);
        }
    }
    let mut resting = Vec::new();
    for (zone, mut policies) in zones {
        let _settings = table::pin(&zone);
        let parents: Vec<Oid> = policies.keys().map(|parent| Oid::from(*parent)).collect();
        let mut clocks = HashMap::new();
        for some in parents.chunks(AT_ONCE) {
            let seen: Vec<Seen> = spi::rows_in_snapshot(
                include_str!("../../sql/catalog/survey.sql"),
                &[some.to_vec().into()],
            )?;
            let mut quiet = Vec::with_capacity(seen.len());
            for table in seen {
                if let Some(policy) = policies.remove(&table.parent)
                    && let Some(must_be_empty) = table.must_be_empty(&policy, &mut clocks)?
                {
                    quiet.push((table.parent, must_be_empty));
                }
            }
            let all = quiet.iter().flat_map(|(_, tables)| tables.iter().copied());
            let filled: HashSet<u32> = state::filled(all)?.into_iter().collect();
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

/// Notes that they were looked at. A policy that another session is changing is left out: nobody waits here.
fn note(resting: &[u32]) -> Result<HashSet<u32>> {
    let parents: Vec<Oid> = resting.iter().map(|parent| Oid::from(*parent)).collect();
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

impl Seen {
    /// None when there is something to do, or may be; else the tables that must have no rows for there to be nothing.
    fn must_be_empty(
        &self,
        policy: &PolicyRow,
        clocks: &mut HashMap<(String, Option<String>), Clock>,
    ) -> Result<Option<Vec<u32>>> {
        let Some(scheme) = table::time_scheme(&self.key, &self.key_type, policy) else {
            return Ok(None);
        };
        let zone = table::clock_zone(&scheme, policy);
        let key = (zone.to_owned(), policy.retention.clone());
        let clock = match clocks.get(&key) {
            Some(clock) => *clock,
            None => *clocks
                .entry(key)
                .or_insert(state::clock(zone, policy.retention.as_deref())?),
        };
        let (Some(now), false) = (clock.now, self.is_half_detached) else {
            return Ok(None);
        };
        let mut partitions = Vec::with_capacity(self.oids.len());
        for (oid, bounds) in self.oids.iter().zip(&self.bounds) {
            let edge = |bound: &_| scheme.raw_edge(bound).ok();
            let Some((lower, upper)) = range_bounds(bounds) else {
                return Err(Error::Internal(format!("unexpected bounds: {bounds}")));
            };
            // A day of a zone that begins after midnight is for a closer look.
            if scheme.is_local() && (state::is_odd(&lower) || state::is_odd(&upper)) {
                return Ok(None);
            }
            let (Some(start), Some(end)) = (edge(&lower), edge(&upper)) else {
                return Ok(None);
            };
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
