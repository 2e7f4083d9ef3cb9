//! `docs/catalog.md` is what the catalog says about every call, view, setting and SQLSTATE: a test writes it anew and compares.
//! With `PARTITION_ROUTER_WRITE=docs` (`make reference`) the page is written instead.

use crate::common::{Database, one, texts};
use crate::links::{anchor, headings};
use std::path::{Path, PathBuf};

#[path = "../../src/error/sqlstates.rs"]
mod sqlstates;

const TOP: &str = "# Catalog

<!-- Written by `make reference` from the comments in sql/, src/settings.rs and src/error/sqlstates.rs: change those, not this page. -->

Every call, view, setting and SQLSTATE, as the server's catalog has them. How to use them, with examples, is in the
[reference](reference.md); which locks a call takes in [locks](locks.md).

";

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(page(name)).unwrap_or_else(|e| panic!("docs/{name}: {e}"))
}

/// The anchor of the heading of the reference that shows how a call is called.
fn guide(reference: &str, call: &str) -> Option<String> {
    headings(reference)
        .find(|heading| heading.contains(&format!("`{call}(")) || heading.contains(&format!("`CALL {call}(")))
        .map(anchor)
}

/// The page that belongs to the extension that is installed.
fn written() -> String {
    let database = Database::new("catalog");
    let mut client = database.connect();
    // The settings are there once the library is loaded.
    one::<i32>(&mut client, "SELECT count(*)::int FROM partition_router.health");
    let (codes, conditions): (Vec<&str>, Vec<&str>) = sqlstates::SQLSTATES.iter().copied().unzip();
    let body: Vec<String> = client
        .query(include_str!("catalog.sql"), &[&codes, &conditions])
        .unwrap_or_else(|e| panic!("catalog.sql: {e:?}"))
        .iter()
        .map(|row| row.get(0))
        .collect();
    let mut text = format!("{TOP}{}\n", body.join("\n"));
    let reference = read("reference.md");
    while let Some(start) = text.find("{guide:") {
        let end = start + text[start..].find('}').expect("the mark is closed");
        let link = guide(&reference, &text[start + 7..end])
            .map(|anchor| format!(" · [how](reference.md#{anchor})"))
            .unwrap_or_default();
        text.replace_range(start..=end, &link);
    }
    text
}

/// The lines by which two pages differ.
fn difference(is: &str, should_be: &str) -> String {
    let (is, should_be): (Vec<&str>, Vec<&str>) = (is.lines().collect(), should_be.lines().collect());
    let gone = is
        .iter()
        .filter(|line| !should_be.contains(line))
        .map(|line| format!("- {line}\n"));
    let new = should_be
        .iter()
        .filter(|line| !is.contains(line))
        .map(|line| format!("+ {line}\n"));
    let lines: String = gone.chain(new).collect();
    if lines.is_empty() {
        "the same lines in another order\n".into()
    } else {
        lines
    }
}

#[test]
fn the_catalog_page_says_what_the_catalog_says() {
    let expected = written();
    if std::env::var("PARTITION_ROUTER_WRITE").is_ok_and(|what| what == "docs") {
        std::fs::write(page("catalog.md"), &expected).expect("the page can be written");
    }
    let found = read("catalog.md");
    assert!(
        found == expected,
        "docs/catalog.md is stale, run `make reference`:\n{}",
        difference(&found, &expected)
    );
}

#[test]
fn every_column_that_is_shown_has_a_comment() {
    let database = Database::new("columns_comments");
    let mut client = database.connect();
    let shown =
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'partition_router'::regnamespace
           AND EXISTS (SELECT FROM aclexplode(c.relacl) x WHERE x.grantee = 'pg_monitor'::regrole)";
    assert!(one::<i64>(&mut client, &format!("SELECT count(*) {shown}")) > 100);
    let bare = texts(
        &mut client,
        &format!("SELECT c.relname || '.' || a.attname {shown} AND col_description(c.oid, a.attnum) IS NULL"),
    );
    assert!(bare.is_empty(), "{bare:?}");
}
