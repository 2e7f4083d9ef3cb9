//! The test vectors of docs/parity.md are what the specification gives, and what `verify` gives.

use crate::common::{one, run};
use crate::database_with_types;
use crate::spec::{Types, digest, rows};
use std::path::Path;

struct Vector {
    line: usize,
    columns: String,
    /// The values of each row.
    rows: Vec<String>,
    written: Vec<String>,
    digest: String,
}

/// The table between `<!-- vectors -->` and `<!-- end -->`: columns, values, bytes, digest, each in backquotes.
fn vectors() -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/parity.md");
    let text = std::fs::read_to_string(path).expect("docs/parity.md");
    let lines = text.lines().enumerate();
    let inside = lines
        .skip_while(|(_, line)| *line != "<!-- vectors -->")
        .take_while(|(_, line)| *line != "<!-- end -->");
    inside
        .filter(|(_, line)| line.starts_with("| `"))
        .map(|(number, line)| {
            let cells: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
            let [columns, values, written, digest] = cells[..] else {
                panic!("docs/parity.md:{}: four cells in backquotes", number + 1);
            };
            let several = |text: &str| text.split("; ").map(str::to_string).collect();
            Vector {
                line: number + 1,
                columns: columns.to_string(),
                rows: several(values),
                written: several(written),
                digest: digest.to_string(),
            }
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_vectors_of_the_specification_are_right() {
    let vectors = vectors();
    assert!(vectors.len() >= 20, "{} vectors", vectors.len());
    let (_database, mut client) = database_with_types("vectors");
    let c = &mut client;
    let mut wrong = vec![];
    for vector in &vectors {
        let table = format!("v{}", vector.line);
        run(
            c,
            &[&format!(
                "CREATE TABLE {table} (id int PRIMARY KEY{})",
                vector.columns.trim_start_matches("id int")
            )],
        );
        for row in &vector.rows {
            run(c, &[&format!("INSERT INTO {table} VALUES ({row})")]);
        }
        let types = Types::load(c);
        let written = rows(c, &types, &table);
        let sum = written
            .iter()
            .fold(0u128, |sum, row| sum.wrapping_add(digest(row)));
        let (bytes, sum) = (
            written.iter().map(|r| hex(r)).collect::<Vec<_>>().join("; "),
            format!("{sum:032x}"),
        );
        run(
            c,
            &[&format!(
                "CALL partition_router.migrate('{table}', 'id', 'hash', partitions => 1)"
            )],
        );
        let by_verify: String = one(
            c,
            &format!("SELECT twin_checksum FROM partition_router.verify('{table}')"),
        );
        let blanks: String = vector.written.join("; ").replace(' ', "").replace(';', "; ");
        if blanks != bytes || vector.digest != sum || by_verify != sum {
            wrong.push(format!(
                "docs/parity.md:{}: written down {bytes}, digest {sum}, verify says {by_verify}",
                vector.line
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
