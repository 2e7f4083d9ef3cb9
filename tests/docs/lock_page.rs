//! The table of `docs/locks.md`, read: which modes it names for the rows of a call.

use std::path::Path;

/// A mode each for legacy, twin and the tables at the other end of foreign keys.
pub type Held = [&'static str; 3];

/// From weak to strong; the words of SQL and those of `pg_locks`.
pub const MODES: [(&str, &str); 8] = [
    ("ACCESS SHARE", "AccessShareLock"),
    ("ROW SHARE", "RowShareLock"),
    ("ROW EXCLUSIVE", "RowExclusiveLock"),
    ("SHARE UPDATE EXCLUSIVE", "ShareUpdateExclusiveLock"),
    ("SHARE", "ShareLock"),
    ("SHARE ROW EXCLUSIVE", "ShareRowExclusiveLock"),
    ("EXCLUSIVE", "ExclusiveLock"),
    ("ACCESS EXCLUSIVE", "AccessExclusiveLock"),
];

pub const NOTHING: &str = "–";

/// The strongest mode that a cell names.
pub fn strongest(cell: &str) -> &'static str {
    // Longer names first: "SHARE" is part of most others.
    let mut names: Vec<(usize, &'static str)> = MODES.iter().enumerate().map(|(i, m)| (i, m.0)).collect();
    names.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
    let mut rest = cell.to_string();
    let mut found = None;
    for (strength, name) in names {
        if rest.contains(name) {
            rest = rest.replace(name, "");
            found = found.max(Some(strength));
        }
    }
    found.map_or(NOTHING, |strength| MODES[strength].0)
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/locks.md");
    std::fs::read_to_string(path).expect("docs/locks.md")
}

/// The first cells of the table by call.
pub fn rows() -> Vec<String> {
    let page = page();
    let (_, table) = page
        .split_once("| --- | --- | --- | --- | --- |\n")
        .expect("the table");
    let lines = table.lines().take_while(|line| line.starts_with('|'));
    let rows: Vec<String> = lines
        .filter_map(|line| Some(line.split(" | ").next()?.strip_prefix("| ")?.to_string()))
        .collect();
    assert!(rows.len() > 30, "{rows:?}");
    rows
}

/// What the page says about some rows of its table together: for legacy, twin and referenced tables.
pub fn promised(rows: &[&str]) -> Held {
    let page = page();
    let mut cells = [String::new(), String::new(), String::new()];
    for row in rows {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("| {row} |")))
            .unwrap_or_else(|| panic!("docs/locks.md has no row {row}"));
        let found: Vec<&str> = line.split('|').collect();
        for (cell, text) in cells.iter_mut().zip(&found[2..5]) {
            cell.push_str(text);
        }
    }
    cells.map(|cell| strongest(&cell))
}

#[test]
fn the_strongest_mode_of_a_cell_is_found() {
    assert_eq!(
        strongest(" SHARE on a partition, ACCESS EXCLUSIVE for its key "),
        "ACCESS EXCLUSIVE"
    );
    assert_eq!(
        strongest(" SHARE ROW EXCLUSIVE, and SHARE "),
        "SHARE ROW EXCLUSIVE"
    );
    assert_eq!(strongest(" SHARE UPDATE EXCLUSIVE; SHARE "), "SHARE");
    assert_eq!(strongest(" (new) "), NOTHING);
}
