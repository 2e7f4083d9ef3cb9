//! What the documents show runs as they show it: the `sql` blocks of a page are run in order in one session, and where
//! a statement ends with `-- → value`, that is what the first column of its first row must be.

mod catalog;
#[path = "../common/mod.rs"]
mod common;
mod far;
mod links;
mod lock_page;
mod locks;

use common::{Database, one, run};
use postgres::{Client, SimpleQueryMessage};
use std::collections::BTreeSet;
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

fn run_page(client: &mut Client, page: &str) {
    run_statements(client, page, statements(page));
}

/// Each statement is a query of its own, as psql sends it: procedures may commit.
fn run_statements(client: &mut Client, page: &str, statements: impl IntoIterator<Item = Statement>) {
    for statement in statements {
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

/// A test for each page with `sql` blocks.
macro_rules! pages {
    ($($test:ident: $page:literal => $run:expr;)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                let run: fn(&str) = $run;
                run($page);
            }
        )*
    };
}

pages! {
    the_tour_of_the_readme_works_when_pasted: "README.md" => run_tour;
    the_five_minute_start_works_when_pasted: "docs/start.md" => run_tour;
    the_concepts_work_when_pasted: "docs/concepts.md" => run_alone;
    the_limits_are_as_the_page_says: "docs/limits.md" => run_alone;
    the_answers_to_questions_are_true: "docs/questions.md" => run_alone;
    tables_come_from_elsewhere_as_the_page_says: "docs/coming-from.md" => run_after_partman;
    the_examples_of_the_reference_work_when_pasted: "docs/reference.md" => run_reference;
    the_rehearsal_works_when_pasted: "docs/rehearsal.md" => run_rehearsal;
    the_security_model_works_when_pasted: "docs/security.md" => |page| run_with_roles(page, "shop, migrator");
    the_rollout_runbook_works_when_pasted: "docs/runbook.md" => run_runbook;
    the_page_about_caches_works_when_pasted: "docs/caches.md" => |page| run_with_roles(page, "cache_consumer");
    a_cold_partition_goes_to_another_server_as_the_page_says: "docs/scaling.md" => |_| far::run_page();
}

fn run_alone(page: &str) {
    let (_database, mut client) = empty_database("page");
    run_page(&mut client, page);
}

/// Runs a page that takes a table there and back.
fn run_tour(page: &str) {
    let (_database, mut client) = empty_database("tour");
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

/// Roles are the cluster's: those that a page makes go with it.
fn run_with_roles(page: &str, roles: &str) {
    let (database, mut client) = empty_database("roles");
    run_page(&mut client, page);
    drop(client);
    run(
        &mut database.connect(),
        &[
            &format!("DROP OWNED BY {roles} CASCADE"),
            &format!("DROP ROLE {roles}"),
        ],
    );
}

fn run_after_partman(page: &str) {
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
    run_page(&mut client, page);
}

/// The page names a database and a role that a server of its own has.
fn run_reference(page: &str) {
    let (database, mut client) = empty_database("reference");
    let role = format!("keeper_{}", database.name);
    run(&mut client, &[&format!("CREATE ROLE {role} LOGIN")]);
    let own = statements(page).into_iter().map(|mut statement| {
        statement.text = statement
            .text
            .replace(
                "ALTER DATABASE shop",
                &format!("ALTER DATABASE \"{}\"", database.name),
            )
            .replace("'keeper'", &format!("'{role}'"));
        statement
    });
    run_statements(&mut client, page, own);
    let set: i64 = one(
        &mut client,
        &format!(
            "SELECT count(*) FROM pg_db_role_setting s, unnest(setconfig) c WHERE c = 'partition_router.maintenance_role={role}'"
        ),
    );
    assert_eq!(set, 1);
    run(&mut client, &[&format!("DROP ROLE {role}")]);
}

/// What the page sets for the server it takes back; others are to see none of it.
fn run_runbook(page: &str) {
    let server = std::sync::Arc::new(common::Cluster::start(&["shared_buffers=16MB"]));
    let database = Database::on(server, "runbook");
    let mut client = database.connect();
    run(
        &mut client,
        &[
            "DROP EXTENSION partition_router",
            "SET client_min_messages = warning",
        ],
    );
    let own = statements(page).into_iter().map(|mut statement| {
        let named = format!("ALTER DATABASE \"{}\"", database.name);
        statement.text = statement.text.replace("ALTER DATABASE shop", &named);
        statement
    });
    run_statements(&mut client, page, own);
    let left: i64 = one(
        &mut database.connect(),
        "SELECT count(*) FROM pg_settings WHERE name = 'partition_router.enable_partition_routing' AND setting = 'off'",
    );
    assert_eq!(left, 0);
}

fn run_rehearsal(page: &str) {
    run_alone(page);
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect(page);
    assert_eq!(text.lines().filter(|line| line.starts_with("## ")).count(), 10);
}

/// The blocks of a page: where each begins, its language, and its lines without what they are indented by.
fn blocks(text: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let mut found = vec![];
    let mut inside = None;
    for (number, line) in text.lines().map(str::trim).enumerate() {
        match (line.strip_prefix("```"), &mut inside) {
            (Some(language), None) => inside = Some((number + 1, language, vec![])),
            (Some(_), Some(_)) => found.extend(inside.take()),
            (None, Some((_, _, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    found
}

/// Words that a statement begins with.
const SQL: [&str; 16] = [
    "ALTER", "ANALYZE", "BEGIN", "CALL", "COMMENT", "COPY", "CREATE", "DELETE", "DROP", "GRANT", "INSERT",
    "RESET", "REVOKE", "SELECT", "SET", "UPDATE",
];

#[test]
fn every_statement_of_a_page_is_in_a_block_that_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut with_sql = BTreeSet::new();
    for place in ["", "docs"] {
        for entry in std::fs::read_dir(root.join(place)).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|e| e != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a page");
            let page = path.strip_prefix(root).expect("within").display().to_string();
            for (line, language, block) in blocks(&text) {
                if language == "sql" {
                    with_sql.insert(page.clone());
                    continue;
                }
                let begins = |line: &str| SQL.contains(&line.split(' ').next().unwrap_or_default());
                assert!(
                    !block.iter().any(|line| begins(line)) || !block.iter().any(|line| line.ends_with(';')),
                    "{page}:{line}: no test runs a block of {language:?}"
                );
            }
        }
    }
    let pages: BTreeSet<String> = PAGES.iter().map(|page| page.to_string()).collect();
    assert_eq!(pages, with_sql);
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
