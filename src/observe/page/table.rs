//! A partitioned table of the page: its figures, a drawing, and the same as rows.

use super::figure::{self, Drawn};
use super::{grouped, scrolling};
use crate::bounds::range_bounds;
use crate::observe::chart::size;
use crate::observe::default_rows::{COUNTED_ROWS, InDefault};
use crate::observe::facts::{PairFacts, Part, TableFacts};
use crate::observe::timeline;
use maud::{Markup, html};
use std::collections::HashMap;

pub struct Shown<'a> {
    pub table: &'a TableFacts,
    /// In the order of their bounds.
    pub parts: &'a [Part],
    pub pair: Option<&'a PairFacts>,
    pub in_default: InDefault,
    /// How many partitions are listed.
    pub listed: usize,
}

pub fn article(shown: &Shown<'_>) -> Markup {
    let table = shown.table;
    let drawn = figure::drawn(shown.parts, table.now());
    html! {
        article aria-labelledby={ "t" (table.root) } {
            h3 id={ "t" (table.root) } { (table.name) }
            (figures(shown, &drawn))
            @if !shown.parts.is_empty() {
                (figure::draw(table, &drawn))
                (list(shown))
            }
        }
    }
}

fn figures(shown: &Shown<'_>, drawn: &Drawn) -> Markup {
    let table = shown.table;
    let bytes: i64 = shown.parts.iter().map(|part| part.bytes).sum();
    html! {
        dl class="line" {
            div { dt { "Partitions" } dd { (grouped(table.leaves)) } }
            div { dt { "Size" } dd { (size(bytes)) } }
            div { dt { "Rows" } dd { "about " (grouped(table.estimate)) } }
            @if let Some(policy) = &table.policy {
                div { dt { "Every" } dd { (policy.interval) } }
                div { dt { "Kept" } dd { (policy.retention.as_deref().unwrap_or("for ever")) } }
            }
            @if let Some(ahead) = table.ahead() { div { dt { "Ahead" } dd { (ahead) } } }
            @if let Some(growth) = drawn.growth {
                div { dt { "Growth" } dd { (format!("{growth:+.0} %")) small { " last three whole partitions against the three before" } } }
            }
            @if let Some(spread) = drawn.spread {
                div { dt { "Largest" } dd { (format!("{spread:.1}")) " times the average" } }
            }
            @if table.default.is_some() {
                @let InDefault { rows, to_move, .. } = shown.in_default;
                div class=(if to_move > 0 { "warn" } else { "" }) {
                    dt { "In the default" }
                    dd {
                        @if rows > COUNTED_ROWS { "more than " (grouped(COUNTED_ROWS)) } @else { (grouped(rows)) } " rows"
                        @if rows > 0 && to_move == 0 { small { " which maintenance leaves there" } }
                    }
                }
            }
            @if !drawn.gaps.is_empty() {
                div class="warn" {
                    dt { "Gaps" }
                    dd {
                        @for (place, (from, to)) in drawn.gaps.iter().take(5).enumerate() {
                            @if place > 0 { ", " }
                            (from) " to " (to)
                        }
                        @if drawn.gaps.len() > 5 { " and " (drawn.gaps.len() - 5) " more" }
                    }
                }
            }
        }
    }
}

/// The partitions as rows, the newest ones when there are too many.
fn list(shown: &Shown<'_>) -> Markup {
    let parity: HashMap<&str, &(String, i64, i64, bool)> = shown
        .pair
        .and_then(|pair| pair.last_partitions.as_ref())
        .into_iter()
        .flatten()
        .map(|partition| (partition.0.as_str(), partition))
        .collect();
    let left = shown.parts.len().saturating_sub(shown.listed);
    let name = format!("Partitions of {}", shown.table.name);
    html! {
        details {
            summary { "The partitions as rows" }
            @if left > 0 {
                p { "The last " (shown.listed) "; the other " (left) " are in the view partition_router.partitions." }
            }
            (scrolling(&name, html! {
                table {
                    caption { (name) }
                    thead { tr {
                        th scope="col" { "Partition" } th scope="col" { "From" } th scope="col" { "To" }
                        th scope="col" class="number" { "Rows" } th scope="col" class="number" { "Size" }
                        @if !parity.is_empty() { th scope="col" { "Parity" } }
                    } }
                    tbody { @for part in &shown.parts[left..] {
                        tr {
                            th scope="row" { (part.name) }
                            (ends(&part.bounds))
                            td class="number" { (grouped(part.rows)) }
                            td class="number" { (size(part.bytes)) }
                            @if !parity.is_empty() { td { (proof(parity.get(part.name.as_str()).copied())) } }
                        }
                    } }
                }
            }))
        }
    }
}

fn ends(bounds: &str) -> Markup {
    match range_bounds(bounds) {
        Some((from, to)) => html! { td { (timeline::shown(&from)) } td { (timeline::shown(&to)) } },
        None => html! { td colspan="2" { (bounds.strip_prefix("FOR VALUES ").unwrap_or(bounds)) } },
    }
}

fn proof(found: Option<&(String, i64, i64, bool)>) -> Markup {
    match found {
        None => html! { "–" },
        Some((_, rows, _, true)) => html! { span class="badge ok" { "equal" } " " (grouped(*rows)) " rows" },
        Some((_, legacy, twin, false)) => html! {
            span class="badge fail" { "differs" } " " (grouped(*legacy)) " and " (grouped(*twin)) " rows"
        },
    }
}
