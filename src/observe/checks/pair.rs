//! The checks of a pair: its phase, its triggers, its proof, and what differs between its sides.

use super::{Check, Checks, Status, duration};
use crate::error::Result;
use crate::ident::RelName;
use crate::observe::drift::{self, Drift};
use crate::observe::facts::{self, PairFacts, TriggerFacts};
use crate::observe::sync_errors::{self, SyncErrors};
use crate::pair::Phase;
use crate::plan::sync_triggers::{self, Part, Place, Purpose};
use std::collections::HashMap;

/// A proof may be this many times older than `partition_router.verify_interval`, which maintenance keeps when it runs.
const LATE_PROOF: f64 = 2.0;
/// A proof may be this old, in seconds, where maintenance renews none: a week.
const OLD_PROOF: f64 = 604_800.0;

/// What was read of all pairs at once.
struct Known {
    triggers: HashMap<i32, TriggerFacts>,
    columns: HashMap<i32, Vec<Drift>>,
    indexes: HashMap<i32, Vec<Drift>>,
    errors: HashMap<u32, SyncErrors>,
}

/// The checks of every pair.
pub fn checks(pairs: &[PairFacts], found: &mut Vec<Check>) -> Result<()> {
    let known = Known {
        triggers: facts::triggers(pairs)?,
        columns: drift::columns()?,
        indexes: drift::indexes()?,
        errors: sync_errors::by_relation()?,
    };
    for pair in pairs {
        of_one(pair, &known, found)?;
    }
    Ok(())
}

fn of_one(pair: &PairFacts, known: &Known, found: &mut Vec<Check>) -> Result<()> {
    let (phase, name) = (pair.phase()?, pair.name());
    let mut checks = Checks {
        relation: &name,
        found,
    };
    let Some(triggers) = known.triggers.get(&pair.id) else {
        // The table is gone: the number finds the pair.
        let left = if pair.twin_name.is_some() {
            pair.twin
        } else {
            pair.legacy
        };
        let mend = format!("SELECT partition_router.abandon({left})");
        checks.add("tables", Status::Fail, "a table of the pair is gone", Some(mend));
        return Ok(());
    };
    phase_check(phase, &mut checks);
    if phase == Phase::Done {
        if pair.has_guard {
            guard_check(triggers, &mut checks);
        }
        return Ok(());
    }
    if phase != Phase::Prepared {
        sync_check(pair, phase, triggers, &mut checks);
    }
    if phase.is_in_step() {
        partition_sync_check(triggers, &mut checks);
        parity_check(pair, &mut checks);
    }
    drift_check("columns", known.columns.get(&pair.id), &mut checks);
    if phase.is_in_step() {
        drift_check("indexes", known.indexes.get(&pair.id), &mut checks);
        let errors = known.errors.get(&pair.legacy);
        sync_error_check(pair, errors, &mut checks);
    }
    Ok(())
}

fn phase_check(phase: Phase, checks: &mut Checks<'_>) {
    let (message, call) = match phase {
        Phase::Prepared => ("the twin is empty", "SELECT partition_router.start_sync"),
        Phase::Copying => ("the copy is under way", "CALL partition_router.backfill"),
        _ => return checks.ok("phase", format!("the pair is {phase}")),
    };
    let mend = checks.call(call);
    checks.add("phase", Status::Warn, message, mend);
}

/// Puts the triggers of the extension on a table, and on its partitions, in force again: statements are made for those that are not. What fires
/// where changes are replicated alone has a condition.
const ENABLE: &str = "DO $mend$ DECLARE s text; BEGIN SET LOCAL partition_router.carry_ddl = off; \
     FOR s IN SELECT pg_catalog.format('ALTER TABLE %s ENABLE %s TRIGGER %I', t.tgrelid::regclass, \
     CASE WHEN t.tgqual IS NULL THEN 'ALWAYS' ELSE 'REPLICA' END, t.tgname) FROM pg_catalog.pg_trigger t WHERE t.tgfoid = 'partition_router.sync()'::pg_catalog.regprocedure \
     AND t.tgparentid = 0 AND t.tgenabled <> CASE WHEN t.tgqual IS NULL THEN 'A' ELSE 'R' END LOOP EXECUTE s; END LOOP; END $mend$";

/// A guard follows by the triggers of the table and of each partition.
fn guard_check(triggers: &TriggerFacts, checks: &mut Checks<'_>) {
    match &triggers.first_bare {
        None => checks.ok("guard", "what is unique without the partition key is kept so"),
        Some(first) => checks.add(
            "guard",
            Status::Fail,
            format!(
                "partitions whose rows the guard does not follow: {}, the first is {first}",
                triggers.bare
            ),
            Some(ENABLE.into()),
        ),
    }
}

/// Statements for one side that are not carried to the other, and the repair of what was written without what they bring.
fn on_one_side(statements: &[impl AsRef<str>], is_repaired: bool, checks: &Checks<'_>) -> String {
    let statements: Vec<&str> = statements.iter().map(AsRef::as_ref).collect();
    let mend = format!(
        "SET partition_router.carry_ddl = off; {}; RESET partition_router.carry_ddl",
        statements.join("; ")
    );
    match checks.call("SELECT * FROM partition_router.repair") {
        Some(repair) if is_repaired => format!("{mend}; {repair}"),
        _ => mend,
    }
}

/// The triggers of the legacy, made anew: what was written without them is brought over by `repair`.
fn sync_check(pair: &PairFacts, phase: Phase, triggers: &TriggerFacts, checks: &mut Checks<'_>) {
    if triggers.events.len() == 3 {
        return checks.ok("sync", "changes of the legacy are carried over");
    }
    let legacy = RelName::new(
        pair.schema.clone().unwrap_or_default(),
        pair.legacy_relname.clone().unwrap_or_default(),
    );
    let purpose = if phase == Phase::Copying {
        Purpose::Capture
    } else {
        Purpose::Live
    };
    let name = sync_triggers::name_on_legacy(&pair.base_name);
    let plan = sync_triggers::install(pair.id, &legacy, &name, purpose, Place::Side, Part::All);
    let statements: Vec<String> = plan
        .rows()
        .into_iter()
        .map(|(_, _, statement)| statement)
        .collect();
    let mend = on_one_side(&statements, phase.is_in_step(), checks);
    checks.add(
        "sync",
        Status::Fail,
        format!(
            "sync triggers are missing or disabled; in force: {}",
            triggers.events.join(", ")
        ),
        Some(mend),
    );
}

fn partition_sync_check(triggers: &TriggerFacts, checks: &mut Checks<'_>) {
    match &triggers.first_bare {
        None => checks.ok("partition_sync", "every partition has its sync triggers"),
        Some(first) => {
            let repair = checks.call("SELECT * FROM partition_router.repair");
            checks.add(
                "partition_sync",
                Status::Fail,
                format!(
                    "tables of the twin without their sync triggers: {}, the first is {first}",
                    triggers.bare
                ),
                repair.map(|repair| format!("{ENABLE}; {repair}")),
            );
        }
    }
}

fn parity_check(pair: &PairFacts, checks: &mut Checks<'_>) {
    let verify = checks.call("SELECT * FROM partition_router.verify");
    let Some(at) = &pair.verified_at else {
        return match pair.failure() {
            None => checks.add("parity", Status::Fail, "not proven equal", verify),
            Some(failure) => {
                let repair = checks.call("SELECT * FROM partition_router.repair");
                // Only a proof opens routing again.
                let both = repair
                    .zip(verify)
                    .map(|(repair, verify)| format!("{repair}; {verify}"));
                checks.add(
                    "parity",
                    Status::Fail,
                    format!("not proven equal: {failure}"),
                    both,
                );
            }
        };
    };
    let most = crate::settings::verify_interval().map_or(OLD_PROOF, |interval| {
        LATE_PROOF * interval.as_secs_f64().max(OLD_PROOF / 7.0)
    });
    match pair.verified_age {
        Some(age) if age > most => checks.add(
            "parity",
            Status::Warn,
            format!("proven equal at {at}, {} ago", duration(age)),
            verify,
        ),
        _ => checks.ok("parity", format!("proven equal at {at}")),
    }
}

fn drift_check(check: &'static str, drifts: Option<&Vec<Drift>>, checks: &mut Checks<'_>) {
    let Some(drifts) = drifts.filter(|drifts| !drifts.is_empty()) else {
        return checks.ok(check, format!("both sides have the same {check}"));
    };
    let names: Vec<&str> = drifts.iter().map(|drift| drift.what.as_str()).collect();
    let statements: Vec<&str> = drifts.iter().map(|drift| drift.mend.as_str()).collect();
    // What was written meanwhile has no value in a column that was missing.
    let (status, is_repaired) = match check {
        "columns" => (Status::Fail, true),
        _ => (Status::Warn, false),
    };
    let mend = on_one_side(&statements, is_repaired, checks);
    checks.add(
        check,
        status,
        format!("{check} that differ between both sides: {}", names.join(", ")),
        Some(mend),
    );
}

fn sync_error_check(pair: &PairFacts, errors: Option<&SyncErrors>, checks: &mut Checks<'_>) {
    let proven = pair.verified_epoch.unwrap_or(0.0);
    match errors.filter(|errors| errors.last > proven) {
        None => checks.ok(
            "sync_errors",
            "no change failed to reach the other side since the last proof",
        ),
        Some(errors) => {
            let mend = checks.call("SELECT * FROM partition_router.verify");
            checks.add(
                "sync_errors",
                Status::Warn,
                format!(
                    "statements failed because a change could not reach the other side: {}, the last with {} {} ago",
                    errors.number,
                    errors.sqlstate,
                    duration(errors.age())
                ),
                mend,
            );
        }
    }
}
