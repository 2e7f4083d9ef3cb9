//! What follows this server, what it keeps log for, and what it follows itself. None of it at all is fine.

use super::{Check, Checks, Status, duration};
use crate::ident::Literal;
use crate::observe::server::{Server, Slot};
use crate::settings;

pub fn checks(server: &Server, found: &mut Vec<Check>) {
    let mut checks = Checks {
        relation: &server.database,
        found,
    };
    lag_check(server, &mut checks);
    slot_check(server, &mut checks);
    if server.standby.is_standby {
        standby_check(server, &mut checks);
    }
}

fn resume() -> Option<String> {
    Some("SELECT pg_catalog.pg_wal_replay_resume()".to_string())
}

fn lag_check(server: &Server, checks: &mut Checks<'_>) {
    let most = settings::max_replica_lag().as_secs_f64();
    if server.standby.seconds > most {
        let message = format!("this standby is {} behind", duration(server.standby.seconds));
        let mend = resume().filter(|_| server.standby.is_paused);
        return checks.add("replica_lag", Status::Warn, message, mend);
    }
    match server
        .replicas
        .iter()
        .max_by(|a, b| a.seconds.total_cmp(&b.seconds))
    {
        None => checks.ok("replica_lag", "no replica is connected"),
        Some(last) if last.seconds > most => {
            let behind = duration(last.seconds);
            let (message, mend) = match last.kind.as_str() {
                "logical" => (
                    format!(
                        "subscriber {} is {behind} behind: see pg_stat_subscription there",
                        last.name
                    ),
                    None,
                ),
                _ => (
                    format!(
                        "replica {} is {behind} behind: if its replay is paused, the call is for there",
                        last.name
                    ),
                    resume(),
                ),
            };
            checks.add("replica_lag", Status::Warn, message, mend);
        }
        Some(last) => checks.ok(
            "replica_lag",
            format!(
                "replicas: {}, at most {} behind",
                server.replicas.len(),
                duration(last.seconds)
            ),
        ),
    }
}

/// A slot whose reader is gone keeps log until the disk is full, or has lost what its reader needs.
fn slot_check(server: &Server, checks: &mut Checks<'_>) {
    let most = settings::max_slot_wal() as f64;
    let mut is_fine = true;
    for slot in &server.slots {
        let Some((status, message, mend)) = slot_fault(slot, most) else {
            continue;
        };
        is_fine = false;
        checks.add("replication_slots", status, message, mend);
    }
    if is_fine {
        let message = match server.slots.len() {
            0 => "there is no replication slot".to_string(),
            number => format!("replication slots: {number}, none keeps too much log"),
        };
        checks.ok("replication_slots", message);
    }
}

fn slot_fault(slot: &Slot, most: f64) -> Option<(Status, String, Option<String>)> {
    let name = &slot.name;
    if slot.is_lost {
        let message = format!(
            "slot {name} is {}: who reads it has to begin anew, from a new slot",
            slot.wal_status
        );
        // Of no use any more to anybody, unless its reader is just catching up.
        let drop = || format!("SELECT pg_catalog.pg_drop_replication_slot({})", Literal(name));
        let is_gone = slot.wal_status == "lost" && !slot.is_active;
        return Some((Status::Fail, message, is_gone.then(drop)));
    }
    if slot.kept <= most {
        return None;
    }
    let reader = match slot.is_active {
        true => "its reader is behind",
        false => "nobody reads it: start its reader, or drop it",
    };
    let message = format!("slot {name} keeps {} of log, and {reader}", bytes(slot.kept));
    Some((Status::Warn, message, None))
}

fn standby_check(server: &Server, checks: &mut Checks<'_>) {
    let standby = &server.standby;
    if standby.is_paused {
        let message = "the replay of this standby is paused";
        checks.add("standby", Status::Warn, message, resume());
    } else if standby.wants_primary && !standby.is_receiving {
        let message = format!(
            "nothing comes from the primary; what is read here is {} old: see the server's log",
            duration(standby.seconds)
        );
        checks.add("standby", Status::Warn, message, None);
    } else {
        checks.ok("standby", "this standby replays what it gets");
    }
}

/// A number of bytes in the largest unit that leaves a whole number.
fn bytes(number: f64) -> String {
    let units = [("GB", 30), ("MB", 20), ("kB", 10)];
    let fits = units
        .into_iter()
        .find(|(_, power)| number >= f64::from(1 << power));
    match fits {
        Some((unit, power)) => format!("{:.0} {unit}", (number / f64::from(1 << power)).floor()),
        None => format!("{number:.0} bytes"),
    }
}
