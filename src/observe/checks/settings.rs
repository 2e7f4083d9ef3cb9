//! Settings that contradict one another, as this session has them, and the worker that they ask for.

use super::{Check, Checks, Status};
use crate::ident::{Ident, Literal};
use crate::observe::facts::{PairFacts, TableFacts};
use crate::observe::server::Server;
use crate::settings;

/// One thing that is wrong: what, and what mends it.
type Finding = (Status, String, String);

pub fn checks(tables: &[TableFacts], pairs: &[PairFacts], server: &Server, found: &mut Vec<Check>) {
    let mut checks = Checks {
        relation: &server.database,
        found,
    };
    worker_check(server, &mut checks);
    let findings: Vec<Finding> = maintenance(tables, server)
        .into_iter()
        .chain(routing(pairs, server))
        .chain(workers(server))
        .collect();
    if findings.is_empty() {
        return checks.ok("settings", "no setting contradicts another");
    }
    for (status, message, mend) in findings {
        checks.add("settings", status, message, Some(mend));
    }
}

fn worker_check(server: &Server, checks: &mut Checks<'_>) {
    if settings::maintenance_interval().is_zero() {
        return checks.ok(
            "worker",
            "no worker is asked for (partition_router.maintenance_interval)",
        );
    }
    if server.workers.contains_key("partition_router launcher") || server.standby.is_standby {
        return checks.ok("worker", "the launcher of maintenance runs");
    }
    checks.add(
        "worker",
        Status::Fail,
        "maintenance is asked for by the clock, and its launcher does not run: the library has to be preloaded, with a restart",
        Some(format!(
            "ALTER SYSTEM SET shared_preload_libraries = {}",
            with_ours(&server.shared_preload)
        )),
    );
}

/// A list of libraries, as a setting has it, with this one at its end: each name as a literal of its own, which the server quotes.
fn with_ours(list: &str) -> String {
    let names = names(list);
    let ours = ["partition_router".to_string()];
    let all: Vec<String> = names
        .iter()
        .chain(&ours)
        .map(|name| Literal(name).to_string())
        .collect();
    all.join(", ")
}

/// The names in a list of libraries: commas between them, with or without quotes.
fn names(list: &str) -> Vec<String> {
    let (mut names, mut name, mut is_quoted) = (vec![], String::new(), false);
    let mut letters = list.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                name.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => names.push(std::mem::take(&mut name)),
            _ => name.push(letter),
        }
    }
    names.push(name);
    let trimmed = names.iter().map(|name| name.trim().to_string());
    trimmed.filter(|name| !name.is_empty()).collect()
}

fn set(server: &Server, setting: &str, value: &str) -> String {
    format!(
        "ALTER DATABASE {} SET partition_router.{setting} = {value}",
        Ident::new(server.database.clone())
    )
}

fn reset(server: &Server, setting: &str) -> String {
    format!(
        "ALTER DATABASE {} RESET partition_router.{setting}",
        Ident::new(server.database.clone())
    )
}

fn maintenance(tables: &[TableFacts], server: &Server) -> Vec<Finding> {
    let mut found = vec![];
    let (by_clock, on) = (
        !settings::maintenance_interval().is_zero(),
        settings::enable_partition_maintenance(),
    );
    if !on && (by_clock || tables.iter().any(|table| table.policy.is_some())) {
        found.push((
            Status::Warn,
            "tables are under maintenance, and enable_partition_maintenance is off".into(),
            set(server, "enable_partition_maintenance", "on"),
        ));
    }
    let role = settings::maintenance_role();
    if by_clock && (!server.role.exists || server.role.is_super) {
        let message = match (role.as_str(), server.role.is_super) {
            ("", _) => "maintenance_interval is set, and maintenance_role names no role".to_string(),
            (role, true) => {
                format!("maintenance_role {role} is a superuser, as which maintenance does not run")
            }
            (role, false) => format!("maintenance_role {role} does not exist"),
        };
        found.push((Status::Fail, message, reset(server, "maintenance_interval")));
    }
    if settings::archive_directory().is_empty() {
        let to_files =
            |table: &&TableFacts| table.policy.as_ref().is_some_and(|p| p.archive_format.is_some());
        if let Some(table) = tables.iter().find(to_files) {
            found.push((
                Status::Fail,
                format!(
                    "{} is archived to files, and archive_directory is empty",
                    table.name
                ),
                format!(
                    "SELECT partition_router.set_policy({}, retention_action => 'detach')",
                    Literal(&table.name)
                ),
            ));
        }
    }
    found
}

fn routing(pairs: &[PairFacts], server: &Server) -> Vec<Finding> {
    let mut found = vec![];
    let rolled_out = pairs
        .iter()
        .find(|pair| pair.phase == "live" && (pair.percent > 0 || pair.pilots > 0));
    if let (Some(pair), false) = (rolled_out, settings::enable_partition_routing()) {
        found.push((
            Status::Warn,
            format!(
                "{} is rolled out, and enable_partition_routing is off: the legacy is read",
                pair.name()
            ),
            set(server, "enable_partition_routing", "on"),
        ));
    }
    let is_loaded = [&server.shared_preload, &server.session_preload.value]
        .into_iter()
        .flat_map(|list| names(list))
        .any(|library| library.ends_with("partition_router"));
    if settings::transparent() && !is_loaded {
        found.push((
            Status::Warn,
            "transparent is on, and sessions do not preload the library: plain SQL is not routed".into(),
            preload(server),
        ));
    }
    if settings::shadow_sample() > 0.0 && !settings::transparent() {
        found.push((
            Status::Warn,
            "shadow_sample is set, and transparent is off: no read is compared".into(),
            reset(server, "shadow_sample"),
        ));
    }
    found
}

/// Lets sessions preload the library, after what they preload already. What is set for the role counts for more than what is set for
/// the database, and takes the place of it.
fn preload(server: &Server) -> String {
    let (database, role) = (
        Ident::new(server.database.clone()),
        Ident::new(server.session_user.clone()),
    );
    let set = &server.session_preload;
    let (whom, others) = match set.source.as_str() {
        "user" => (format!("ROLE {role}"), &set.value),
        "database user" => (format!("ROLE {role} IN DATABASE {database}"), &set.value),
        // The session may have been told otherwise when it began.
        _ => (
            format!("DATABASE {database}"),
            set.of_database.as_ref().unwrap_or(&set.value),
        ),
    };
    format!(
        "ALTER {whom} SET session_preload_libraries = {}",
        with_ours(others)
    )
}

fn workers(server: &Server) -> Vec<Finding> {
    let asked = settings::backfill_workers().max(settings::verify_workers());
    let room = usize::try_from(server.max_workers).unwrap_or(0);
    // The session itself is one of them.
    if asked <= room + 1 {
        return vec![];
    }
    vec![(
        Status::Warn,
        format!("{asked} workers are asked for, and max_worker_processes is {room}"),
        format!(
            "{}; {}",
            set(server, "backfill_workers", "1"),
            set(server, "verify_workers", "1")
        ),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_libraries_keeps_its_names() {
        assert_eq!(names(""), [""; 0]);
        assert_eq!(
            names(" auto_explain ,\t\"$libdir/plugins/a, b\",\"q\"\"t\","),
            ["auto_explain", "$libdir/plugins/a, b", "q\"t"]
        );
        assert_eq!(with_ours(""), "'partition_router'");
        assert_eq!(with_ours("\"it's\", b"), "'it''s', 'b', 'partition_router'");
    }
}
