//! Drawings of partitions as SVG: ranges on their scale, with gaps and now; hash and list partitions side by side. One path holds all
//! bars, so that a thousand partitions are a few kilobytes.

use crate::bounds::range_bounds;
use crate::observe::chart::size;
use crate::observe::facts::{Part, TableFacts};
use crate::observe::timeline;
use maud::{Markup, html};
use std::fmt::Write;

/// The drawing's own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 120.0;
/// Bars nearer than this leave no room between them.
const AIR: f64 = 4.0;

/// What is drawn.
#[derive(Debug, Default)]
pub struct Drawn {
    /// Left edge, width, height.
    bars: Vec<(f64, f64, f64)>,
    /// Left edge, width.
    missing: Vec<(f64, f64)>,
    now: Option<f64>,
    /// The heights are shares of this.
    most: i64,
    /// Ends of the scale.
    from: String,
    to: String,
    /// Ranges that no partition takes, between the first and the last.
    pub gaps: Vec<(String, String)>,
    /// How much larger the last three partitions that are over are than the three before, in percent.
    pub growth: Option<f64>,
    /// The largest hash or list partition in averages.
    pub spread: Option<f64>,
}

/// A range with its part.
struct Span<'a> {
    start: f64,
    end: f64,
    part: &'a Part,
}

/// Partitions in the order of their bounds.
pub fn drawn(parts: &[Part], now: Option<f64>) -> Drawn {
    let spans: Vec<Span<'_>> = parts
        .iter()
        .filter_map(|part| {
            let (start, end) = timeline::range(&part.bounds)?;
            Some(Span { start, end, part })
        })
        .collect();
    let has_end = |span: &Span<'_>| span.start.is_finite() || span.end.is_finite();
    if !spans.iter().any(has_end) {
        // One partition that takes all has no scale.
        side_by_side(parts)
    } else {
        on_a_scale(&spans, now)
    }
}

fn side_by_side(parts: &[Part]) -> Drawn {
    let most = parts.iter().map(|part| part.bytes).max().unwrap_or(0);
    let average = parts.iter().map(|part| part.bytes as f64).sum::<f64>() / parts.len().max(1) as f64;
    let step = WIDTH / parts.len().max(1) as f64;
    let bars = parts.iter().enumerate();
    Drawn {
        bars: bars
            .map(|(place, part)| (place as f64 * step, step, height(part.bytes, most)))
            .collect(),
        most,
        from: parts.first().map(|part| part.name.clone()).unwrap_or_default(),
        to: parts.last().map(|part| part.name.clone()).unwrap_or_default(),
        spread: (average > 0.0).then(|| most as f64 / average),
        ..Drawn::default()
    }
}

fn height(bytes: i64, most: i64) -> f64 {
    if bytes <= 0 || most <= 0 {
        return 1.0;
    }
    (bytes as f64 / most as f64 * HEIGHT).max(2.0)
}

fn on_a_scale(spans: &[Span<'_>], now: Option<f64>) -> Drawn {
    let finite = |value: &f64| value.is_finite();
    let ends: Vec<f64> = spans
        .iter()
        .flat_map(|s| [s.start, s.end])
        .filter(finite)
        .collect();
    let (least, last) = ends
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), end| {
            (a.min(*end), b.max(*end))
        });
    // What is open on one side gets some room there.
    let room = ((last - least) / 20.0).max(1.0);
    let open = |side: fn(&Span<'_>) -> f64| spans.iter().any(|s| side(s).is_infinite());
    let from = least - if open(|s| s.start) { room } else { 0.0 };
    let to = last + if open(|s| s.end) { room } else { 0.0 };
    let place = |value: f64| (value.clamp(from, to) - from) / (to - from).max(f64::MIN_POSITIVE) * WIDTH;
    let most = spans.iter().map(|span| span.part.bytes).max().unwrap_or(0);
    let mut drawn = Drawn {
        most,
        now: now.filter(|now| (from..=to).contains(now)).map(place),
        growth: growth(spans, now),
        ..Drawn::default()
    };
    for span in spans {
        let left = place(span.start);
        drawn
            .bars
            .push((left, place(span.end) - left, height(span.part.bytes, most)));
    }
    for pair in spans.windows(2) {
        if pair[1].start > pair[0].end {
            let left = place(pair[0].end);
            drawn.missing.push((left, place(pair[1].start) - left));
            drawn.gaps.push((shown(pair[0].part).1, shown(pair[1].part).0));
        }
    }
    if let (Some(first), Some(last)) = (spans.first(), spans.last()) {
        drawn.from = shown(first.part).0;
        drawn.to = shown(last.part).1;
    }
    drawn
}

fn shown(part: &Part) -> (String, String) {
    range_bounds(&part.bounds).map_or_else(Default::default, |(from, to)| {
        (timeline::shown(&from), timeline::shown(&to))
    })
}

fn growth(spans: &[Span<'_>], now: Option<f64>) -> Option<f64> {
    let now = now?;
    let over: Vec<i64> = spans
        .iter()
        .filter(|s| s.end <= now)
        .map(|s| s.part.bytes)
        .collect();
    let sum = |bytes: &[i64]| bytes.iter().sum::<i64>() as f64;
    let (before, last) = (over.len().checked_sub(6)?, over.len() - 3);
    let (before, last) = (sum(&over[before..last]), sum(&over[last..]));
    (before > 0.0).then(|| (last / before - 1.0) * 100.0)
}

pub fn draw(table: &TableFacts, drawn: &Drawn) -> Markup {
    let what = if table.strategy == "r" {
        format!("Sizes from {} to {}", drawn.from, drawn.to)
    } else {
        format!("Sizes of {} partitions side by side", drawn.bars.len())
    };
    html! {
        figure {
            figcaption { (what) ", the largest " (size(drawn.most)) "." }
            svg role="img" aria-label={ (what) " of " (table.name) "; the rows below say the same" }
                viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" {
                path class="bar" d=(bars(&drawn.bars)) {}
                // Above the bars: a day among years is narrower than a line, and is to be seen.
                @if !drawn.missing.is_empty() { path class="gap" d=(gaps(&drawn.missing)) {} }
                @if let Some(now) = drawn.now {
                    @let line = format!("M{} 0V{HEIGHT}", whole(now));
                    path class="halo" d=(line) {}
                    path class="now" d=(line) {}
                }
            }
            div class="scale" aria-hidden="true" {
                span { (drawn.from) }
                @if drawn.now.is_some() { span { span class="now-mark" { "┃" } " now" } }
                @if !drawn.missing.is_empty() { span { span class="gap-mark" { "■" } " gap" } }
                span { (drawn.to) }
            }
        }
    }
}

/// To a tenth of a unit: more is not seen.
fn whole(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn bars(bars: &[(f64, f64, f64)]) -> String {
    let mut path = String::with_capacity(bars.len() * 24);
    for (left, width, height) in bars {
        let air = if *width > AIR { 1.0 } else { 0.0 };
        let (left, width, height) = (whole(*left), whole((width - air).max(0.5)), whole(*height));
        // Writing to a String does not fail.
        let _ = write!(path, "M{left} {HEIGHT}v-{height}h{width}v{height}z");
    }
    path
}

fn gaps(missing: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (left, width) in missing {
        let (left, width) = (whole(*left), whole(width.max(1.0)));
        let _ = write!(path, "M{left} 0h{width}v{HEIGHT}h-{width}z");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bounds: &str, bytes: i64) -> Part {
        Part {
            name: "p".into(),
            bounds: bounds.into(),
            rows: 0,
            bytes,
        }
    }

    fn months(sizes: &[i64]) -> Vec<Part> {
        let month = |m: usize| format!("2025-{m:02}-01");
        sizes
            .iter()
            .enumerate()
            .map(|(i, bytes)| {
                let bounds = format!("FOR VALUES FROM ('{}') TO ('{}')", month(i + 1), month(i + 2));
                part(&bounds, *bytes)
            })
            .collect()
    }

    #[test]
    fn a_missing_month_is_a_gap() {
        let mut parts = months(&[1, 1, 1]);
        parts.remove(1);
        let drawn = drawn(&parts, None);
        assert_eq!(drawn.gaps, [("2025-02-01".to_string(), "2025-03-01".to_string())]);
        assert!(super::drawn(&months(&[1, 1, 1]), None).gaps.is_empty());
    }

    #[test]
    fn growth_is_of_partitions_that_are_over() {
        let now = timeline::range("FOR VALUES FROM ('2025-07-15') TO ('2025-07-16')").map(|r| r.0);
        let drawn = drawn(&months(&[10, 10, 10, 20, 20, 20, 1]), now);
        assert_eq!(drawn.growth, Some(100.0));
    }

    #[test]
    fn open_ends_and_empty_tables_are_drawn() {
        let open = part("FOR VALUES FROM (MINVALUE) TO (MAXVALUE)", 5);
        for parts in [vec![], vec![open], months(&[0])] {
            let drawn = drawn(&parts, Some(0.0));
            assert!(
                drawn
                    .bars
                    .iter()
                    .all(|bar| bar.0.is_finite() && bar.1.is_finite())
            );
            assert!(!bars(&drawn.bars).contains("NaN"));
        }
    }
}
