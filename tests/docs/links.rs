//! Every relative link of every page leads somewhere: the file is there, and so is the heading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The anchor that GitHub gives a heading: small letters, digits, `_` and `-` stay, spaces become `-`, the rest goes.
pub fn anchor(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading;
    // Of a link in a heading its text counts.
    while let Some((before, link)) = rest.split_once('[') {
        let Some((label, after)) = link.split_once("](") else {
            break;
        };
        text.push_str(before);
        text.push_str(label);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c),
            _ => None,
        })
        .collect()
}

/// The lines of a page that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter(move |(_, line)| {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            return false;
        }
        !inside
    })
}

/// The headings of a page.
pub fn headings(text: &str) -> impl Iterator<Item = &str> {
    prose(text).filter_map(|(_, line)| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len() && heading.starts_with(' ')).then(|| heading.trim())
    })
}

/// Headings of the same text are told apart by a number, as GitHub does.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    headings(text)
        .map(|heading| {
            let anchor = anchor(heading);
            let times = seen.entry(anchor.clone()).or_insert(0);
            *times += 1;
            if *times == 1 {
                anchor
            } else {
                format!("{anchor}-{}", *times - 1)
            }
        })
        .collect()
}

/// The targets of the links and pictures of a line; what stands in `code` is none.
fn targets(line: &str) -> Vec<&str> {
    let mut found = vec![];
    for (at, _) in line.match_indices("](") {
        let is_code = line[..at].matches('`').count() % 2 == 1;
        // A target may hold pairs of parentheses.
        let mut depth = 1;
        let end = line[at + 2..].find(|c| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        if let (false, Some(end)) = (is_code, end) {
            found.push(line[at + 2..at + 2 + end].split(' ').next().unwrap_or_default());
        }
    }
    found
}

/// All pages of the repository, but for what was built or fetched.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![];
    let mut places = vec![root.to_path_buf()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(&place).expect("a directory can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                places.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_link_of_every_page_leads_somewhere() {
    let mut broken = vec![];
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        for (number, line) in prose(&text) {
            for target in targets(line) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                followed += 1;
                let (file, wanted) = target
                    .split_once('#')
                    .map_or((target, None), |(f, a)| (f, Some(a)));
                let path = match file {
                    "" => page.clone(),
                    file => page.parent().expect("a directory").join(file),
                };
                let is_there = match wanted {
                    _ if !path.exists() => false,
                    Some(wanted) => path.is_file() && anchors(&read(&path)).contains(wanted),
                    None => true,
                };
                if !is_there {
                    broken.push(format!("{}:{}: {target}", page.display(), number + 1));
                }
            }
        }
    }
    assert!(followed > 50, "{followed} links were found");
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

#[test]
fn every_page_of_docs_is_in_the_index() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let index = read(&docs.join("README.md"));
    let linked: BTreeSet<&str> = prose(&index).flat_map(|(_, line)| targets(line)).collect();
    let mut pages: Vec<String> = std::fs::read_dir(&docs)
        .expect("docs")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.ends_with(".md") && name != "README.md")
        .collect();
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    let missing: Vec<_> = pages
        .iter()
        .filter(|page| !linked.contains(page.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/README.md does not name {missing:?}");
}

#[test]
fn anchors_are_those_that_github_gives() {
    for (heading, expected) in [
        ("What it costs", "what-it-costs"),
        (
            "`CALL migrate(legacy, twin DEFAULT NULL)`",
            "call-migratelegacy-twin-default-null",
        ),
        ("10, 25, 50, 100 %", "10-25-50-100-"),
        ("1. Set up", "1-set-up"),
        ("[Unreleased](x.md) now", "unreleased-now"),
        ("`is_held`, größer", "is_held-größer"),
    ] {
        assert_eq!(anchor(heading), expected);
    }
    assert_eq!(anchors("# A\n```\n# no\n```\n## A\n").len(), 2);
    assert_eq!(
        targets("see [a](b.md#c(d)) and `[x](y)` and ![p](q.svg \"title\")"),
        ["b.md#c(d)", "q.svg"]
    );
}
