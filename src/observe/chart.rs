//! `chart()`: the sizes of a table's partitions as bars of text, for psql.

use super::facts::{self, Part, Source};
use super::timeline;
use crate::error::{Error, Result};
use crate::maintenance::table::display;
use crate::pair::store;
use crate::spi;
use pgrx::pg_sys::Oid;

/// Columns of the longest bar.
const WIDTH: usize = 40;

/// One row of `chart()`.
#[derive(Debug, Clone)]
pub struct Bar {
    pub partition: String,
    pub bounds: String,
    pub estimated_rows: i64,
    pub size: String,
    pub bar: String,
}

/// The partitions of a table, or of the twin of a pair, in the order of their bounds, the default last.
///
/// # Errors
/// `0A000` for a table that is not partitioned and in no pair.
pub fn chart(relation: Oid) -> Result<Vec<Bar>> {
    let root = store::find(relation)?.map_or(relation, |pair| pair.twin);
    let source = Source::Measured;
    let Some(mut parts) = facts::parts(&[root.to_u32()], source)?.remove(&root.to_u32()) else {
        return Err(Error::Unsupported {
            what: format!("{} has no partitions to draw", display(relation)?),
            hint: "Name a partitioned table, or either side of a pair.".into(),
        });
    };
    order(&mut parts);
    let most = parts.iter().map(|part| part.bytes).max().unwrap_or(0);
    parts
        .into_iter()
        .map(|part| {
            Ok(Bar {
                bar: bar(part.bytes, most),
                size: size(part.bytes),
                estimated_rows: part.rows,
                bounds: part.bounds,
                partition: part.name,
            })
        })
        .collect()
}

/// By the beginning of their ranges, else as they were made; the default last.
pub fn order(parts: &mut [Part]) {
    let place = |part: &Part| {
        let start = timeline::range(&part.bounds).map_or(f64::INFINITY, |(start, _)| start);
        (part.bounds == "DEFAULT", start)
    };
    parts.sort_by(|a, b| {
        let (a, b) = (place(a), place(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
}

/// A bar in eighths of a column: what is not empty shows.
fn bar(bytes: i64, most: i64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if bytes <= 0 || most <= 0 {
        return String::new();
    }
    let eighths = (bytes as f64 / most as f64 * (8 * WIDTH) as f64).round().max(1.0) as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// Bytes as `pg_size_pretty` prints them.
pub fn size(bytes: i64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // As the server does: the next unit from 10 of it on.
    while value.abs() >= 10.0 * 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.0} {}", units[unit])
}

/// The time of the server's clock, in UTC.
pub fn clock() -> Result<String> {
    let now: Option<String> = spi::row(
        "SELECT to_jsonb(to_char(timezone('UTC', clock_timestamp()), 'YYYY-MM-DD HH24:MI'))",
        &[],
    )?;
    Ok(now.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_fills_the_width_and_the_smallest_still_shows() {
        assert_eq!(bar(100, 100).chars().count(), WIDTH);
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(50, 100), "█".repeat(WIDTH / 2));
    }

    #[test]
    fn sizes_read_as_the_server_prints_them() {
        assert_eq!(size(8192), "8192 bytes");
        assert_eq!(size(10_240), "10 kB");
        assert_eq!(size(123 << 20), "123 MB");
    }
}
