//! What the documents show runs as they show it: the `sql` blocks of a page are run in order in one session, and where
//! a statement ends with `-- → value`, that is what the first column of its first row must be.

mod catalog;
#[path = "../common/mod.rs"]
mod common;
mod links;
mod lock_page;
mod locks;

use common::{Database, one, run};
use postgres::{Client, SimpleQueryMessage};
use std::path::Path;

struct Statement {
    line: usize,
    text: String,
    expected: Option<String>,
}

/// The statements of the page's `sql` blocks. A statement ends with a semicolon at the end of a line, a comment aside.
fn statements(page: &str) -> Vec<Statement> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
    let mut found = vec![];
    let mut inside = false;
    let mut statement = String::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            assert_eq!(statement.trim(), "", "{page}:{number}: a statement has no end");
            inside = line == "```sql";
            continue;
        }
        assert!(
            !line.contains("```sql"),
            "{page}:{number}: a block begins at the margin"
        );
        if !inside {
            continue;
        }
        let (code, comment) = line.split_once(" -- ").unwrap_or((line, ""));
        statement.push_str(code);
        statement.push('\n');
        if code.trim_end().ends_with(';') {
            found.push(Statement {
                line: number + 1,
                text: std::mem::take(&mut statement),
                expected: comment.strip_prefix("→ ").map(str::to_string),
            });
        }
    }
    assert!(!found.is_empty(), "{page} has no sql blocks");
    found
}

/// Each statement is a query of its own, as psql sends it: procedures may commit.
fn run_page(client: &mut Client, page: &str) {
    for statement in statements(page) {
        let place = format!("{page}:{}: {}", statement.line, statement.text.trim());
        let messages = client
            .simple_query(&statement.text)
            .unwrap_or_else(|error| panic!("{place}\n{error:?}"));
        let Some(expected) = statement.expected else {
            continue;
        };
        let first = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
            _ => None,
        });
        assert_eq!(first.as_deref(), Some(expected.as_str()), "{place}");
    }
}

/// A database without the extension: the pages create it.
fn empty_database(test: &str) -> (Database, Client) {
    let database = Database::new(test);
    let mut client = database.connect();
    client
        .batch_execute("DROP EXTENSION partition_router; SET client_min_messages = warning")
        .expect("the extension can be dropped");
    (database, client)
}

/// Runs a page that takes a table there and back.
fn run_tour(test: &str, page: &str) {
    let (_database, mut client) = empty_database(test);
    run_page(&mut client, page);
    let left: i64 = one(
        &mut client,
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'bookings\\_p%'",
    );
    assert_eq!(
        left, 1,
        "of the twin nothing is left, of the legacy its primary key"
    );
}

#[test]
fn the_tour_of_the_readme_works_when_pasted() {
    run_tour("readme", "README.md");
}

#[test]
fn the_five_minute_start_works_when_pasted() {
    run_tour("start", "docs/start.md");
}

#[test]
fn the_concepts_work_when_pasted() {
    let (_database, mut client) = empty_database("concepts");
    run_page(&mut client, "docs/concepts.md");
}

#[test]
fn the_limits_are_as_the_page_says() {
    let (_database, mut client) = empty_database("limits");
    run_page(&mut client, "docs/limits.md");
}

#[test]
fn the_answers_to_questions_are_true() {
    let (_database, mut client) = empty_database("questions");
    run_page(&mut client, "docs/questions.md");
}

#[test]
fn tables_come_from_elsewhere_as_the_page_says() {
    let (_database, mut client) = empty_database("coming_from");
    run(
        &mut client,
        &[
            "CREATE SCHEMA partman",
            "CREATE EXTENSION pg_partman SCHEMA partman",
            "CREATE TABLE events (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at)",
        ],
    );
    let version: String = one(
        &mut client,
        "SELECT extversion FROM pg_extension WHERE extname = 'pg_partman'",
    );
    let interval = if version.starts_with('4') {
        "'native', 'monthly'"
    } else {
        "'1 month'"
    };
    let create = format!("SELECT partman.create_parent('public.events', 'at', {interval}, p_premake := 2)");
    run(&mut client, &[&create]);
    run_page(&mut client, "docs/coming-from.md");
}

#[test]
fn every_page_with_sql_is_run_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = ["tests/docs/main.rs", "tests/far.rs"]
        .map(|file| std::fs::read_to_string(root.join(file)).expect(file));
    let mut with_sql = 0;
    for place in ["", "docs"] {
        for entry in std::fs::read_dir(root.join(place)).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|e| e != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a page");
            if text.lines().any(|line| line.trim_start().starts_with("```sql")) {
                with_sql += 1;
                let page = path.strip_prefix(root).expect("within").display().to_string();
                assert!(
                    tests.iter().any(|t| t.contains(&format!("\"{page}\""))),
                    "no test runs {page}"
                );
            }
        }
    }
    assert!(with_sql > 10, "{with_sql}");
}

#[test]
fn the_examples_of_the_reference_work_when_pasted() {
    let (_database, mut client) = empty_database("reference");
    run_page(&mut client, "docs/reference.md");
}

#[test]
fn the_rehearsal_works_when_pasted() {
    let (_database, mut client) = empty_database("rehearsal");
    run_page(&mut client, "docs/rehearsal.md");
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rehearsal.md"))
        .expect("docs/rehearsal.md");
    assert_eq!(text.lines().filter(|line| line.starts_with("## ")).count(), 10);
}

/// The shell's blocks of a page.
fn shell_blocks(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{page}: {e}"));
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap_or_default().to_string())
        .collect()
}

#[test]
fn the_log_file_of_the_rehearsal_has_each_stage_as_run_log_has_it() {
    let (database, mut client) = common::migrated_revenues(
        "log_file",
        &[
            "CREATE TABLE revenues (id int PRIMARY KEY, at date NOT NULL)",
            "INSERT INTO revenues SELECT g, date '2025-01-01' + g FROM generate_series(1, 100) g",
        ],
    );
    let blocks = shell_blocks("docs/rehearsal.md");
    let [command] = blocks.as_slice() else {
        panic!("one block of the shell: {blocks:?}")
    };
    let config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
    let directory = std::env::temp_dir().join(&database.name);
    std::fs::create_dir_all(&directory).expect("a directory");
    let script = format!("set -o pipefail; PATH=$('{config}' --bindir):$PATH; {command}");
    let ran = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(&directory)
        .env("PGHOST", database.cluster.socket())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", &database.name)
        .output()
        .expect("bash runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let log = std::fs::read_to_string(directory.join("switchover.log")).expect("the log file");
    std::fs::remove_dir_all(&directory).expect("the directory goes");
    let stages = client
        .query(
            "SELECT stage, coalesce(format('legacy %s rows, checksum %s; twin %s rows, checksum %s', detail ->> 'legacy_rows',
                        detail ->> 'legacy_checksum', detail ->> 'twin_rows', detail ->> 'twin_checksum'), '')
             FROM partition_router.run_log WHERE operation = 'switchover' ORDER BY id",
            &[],
        )
        .expect("the stages");
    assert_eq!(stages.len(), 5);
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("NOTICE:  switchover "))
        .collect();
    assert_eq!(lines.len(), 5, "{log}");
    for (line, row) in lines.iter().zip(&stages) {
        let (stage, sums): (String, String) = (row.get(0), row.get(1));
        let expected = match stage.as_str() {
            "SWAPPED" => "switchover SWAPPED: locks held for ".to_string(),
            _ => format!("switchover {stage}: {sums}"),
        };
        assert!(line.contains(&expected), "{expected}\n{log}");
    }
}

#[test]
fn the_security_model_works_when_pasted() {
    let (database, mut client) = empty_database("security_model");
    run_page(&mut client, "docs/security.md");
    // Roles are the cluster's.
    drop(client);
    let mut client = database.connect();
    client
        .batch_execute("DROP OWNED BY shop, migrator CASCADE; DROP ROLE shop, migrator")
        .expect("the roles go");
}

#[test]
fn the_rollout_runbook_works_when_pasted() {
    let (_database, mut client) = empty_database("runbook");
    run_page(&mut client, "docs/runbook.md");
}

#[test]
fn the_page_about_caches_works_when_pasted() {
    let (_database, mut client) = empty_database("caches");
    run_page(&mut client, "docs/caches.md");
    client
        .batch_execute("DROP OWNED BY cache_consumer; DROP ROLE cache_consumer")
        .expect("the role goes");
}

#[test]
fn the_reference_shows_every_call_and_view() {
    let database = Database::new("reference_is_whole");
    let mut client = database.connect();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md"))
        .expect("docs/reference.md");
    let names: Vec<String> = client
        .query(
            "SELECT proname::text FROM pg_proc
             WHERE pronamespace = 'partition_router'::regnamespace
               AND obj_description(oid, 'pg_proc') !~ '^(internal|trigger function|whether this backend)'
             UNION SELECT relname FROM pg_class
             WHERE relnamespace = 'partition_router'::regnamespace AND relkind = 'v'",
            &[],
        )
        .expect("the catalog can be read")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(
            text.contains(&format!("`{name}")) || text.contains(&format!(" {name}(")),
            "{name} is missing"
        );
    }
}

#[test]
fn what_pgxn_is_told_is_what_cargo_says() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(place.join("META.json")).expect("META.json");
    let meta: serde_json::Value = serde_json::from_str(&text).expect("META.json is JSON");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(meta["version"], version);
    assert_eq!(meta["provides"]["partition_router"]["version"], version);
    assert_eq!(meta["name"], env!("CARGO_PKG_NAME"));
    assert_eq!(meta["license"], env!("CARGO_PKG_LICENSE").to_lowercase());
    // The oldest that the code is compiled for.
    let cargo = std::fs::read_to_string(place.join("Cargo.toml")).expect("Cargo.toml");
    let majors = cargo
        .lines()
        .filter_map(|line| line.strip_prefix("pg")?.split_once(' '));
    let oldest: i32 = majors
        .filter_map(|(major, _)| major.parse().ok())
        .min()
        .expect("features");
    assert_eq!(
        meta["prereqs"]["runtime"]["requires"]["PostgreSQL"],
        format!("{oldest}.0.0")
    );
    for file in ["file", "docfile"] {
        let path = meta["provides"]["partition_router"][file]
            .as_str()
            .expect("a path");
        assert!(place.join(path).is_file(), "{path}");
    }
}
