//! `report()`: one HTML page that needs nothing else: no script, no network, no font. What comes from the database goes through the
//! template, which escapes it; a policy in the page lets nothing run that would get by.

mod figure;
mod pairs;
mod table;

use super::chart;
use super::checks::{self, Check, Seen, Status};
use super::default_rows::in_default;
use super::facts::{self, PairFacts};
use super::overview::Overview;
use crate::error::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Lets nothing be loaded, run or sent.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Rows of partitions that the page lists at most: it is to be read and sent.
const LISTED_PARTITIONS: usize = 6_000;
/// Checks that are not ok that it lists at most.
const LISTED_CHECKS: usize = 1_000;
/// More tables than these are not linked one by one.
const LINKED_TABLES: usize = 60;

/// All that the page shows.
struct Facts {
    at: String,
    checks: Vec<Check>,
    pairs: Vec<PairFacts>,
    overview: Overview,
}

/// `report()`.
///
/// # Errors
/// Those of the queries.
pub fn report() -> Result<String> {
    let mut overview = Overview::read()?;
    overview.parts.values_mut().for_each(|parts| chart::order(parts));
    let pairs = facts::pairs()?;
    let facts = Facts {
        at: chart::clock()?,
        checks: checks::checks_of(&Seen::new(&overview, &pairs, &checks::feeds()?))?,
        pairs,
        overview,
    };
    Ok(page(&facts).into_string())
}

fn page(facts: &Facts) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Partitions of " (facts.overview.server.database) }
                style { (PreEscaped(include_str!("page/style.css"))) }
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                header {
                    h1 { "Partitions of " span class="name" { (facts.overview.server.database) } }
                    p { "As of " (facts.at) " UTC" }
                }
                (contents(facts))
                main id="main" tabindex="-1" {
                    (summary(facts))
                    (health(&facts.checks))
                    (pairs::section(&facts.pairs))
                    (tables(facts))
                }
                footer {
                    p {
                        "Made by partition_router.report(). Sizes are with indexes and TOAST, "
                        (facts.overview.source.as_str())
                        "; rows are estimates of the last ANALYZE."
                    }
                }
            }
        }
    }
}

fn contents(facts: &Facts) -> Markup {
    html! {
        nav aria-label="Contents" {
            ul {
                li { a href="#health" { "Health" } }
                li { a href="#migrations" { "Migrations" } }
                li { a href="#tables" { "Tables" } }
                @if facts.overview.tables.len() <= LINKED_TABLES {
                    @for table in &facts.overview.tables {
                        li { a href={ "#t" (table.root) } { (table.name) } }
                    }
                }
            }
        }
    }
}

fn summary(facts: &Facts) -> Markup {
    let bytes: i64 = facts
        .overview
        .parts
        .values()
        .flatten()
        .map(|part| part.bytes)
        .sum();
    let partitions: i64 = facts.overview.tables.iter().map(|table| table.leaves).sum();
    let count = |status| facts.checks.iter().filter(|check| check.status == status).count();
    html! {
        section aria-labelledby="summary" {
            h2 id="summary" class="hidden" { "Summary" }
            dl class="tiles" {
                div { dt { "Pairs" } dd { (facts.pairs.len()) } }
                div { dt { "Tables" } dd { (facts.overview.tables.len()) } }
                div { dt { "Partitions" } dd { (partitions) } }
                div { dt { "Size" } dd { (chart::size(bytes)) } }
                div class="fail" { dt { "Checks that fail" } dd { (count(Status::Fail)) } }
                div class="warn" { dt { "Checks that warn" } dd { (count(Status::Warn)) } }
                div class="ok" { dt { "Checks ok" } dd { (count(Status::Ok)) } }
            }
        }
    }
}

fn health(checks: &[Check]) -> Markup {
    let mut wrong: Vec<&Check> = checks.iter().filter(|check| check.status != Status::Ok).collect();
    wrong.sort_by_key(|check| std::cmp::Reverse(check.status));
    let left = wrong.len().saturating_sub(LISTED_CHECKS);
    html! {
        section aria-labelledby="health" {
            h2 id="health" { "Health" }
            @if wrong.is_empty() {
                p { "All " (checks.len()) " checks are ok." }
            } @else {
                (scrolling("What is wrong, and what mends it", html! {
                    table {
                        caption { "What is wrong, and what mends it" }
                        thead { tr {
                            th scope="col" { "Status" } th scope="col" { "Relation" } th scope="col" { "Check" }
                            th scope="col" { "Message" } th scope="col" { "Mend" }
                        } }
                        tbody { @for check in wrong.iter().take(LISTED_CHECKS) {
                            tr {
                                td { span class={ "badge " (check.status.as_str()) } { (check.status.as_str()) } }
                                th scope="row" { (check.relation) }
                                td { (check.check) }
                                td { (check.message) }
                                td class="mend" { @if let Some(mend) = &check.mend { code { (mend) } } }
                            }
                        } }
                    }
                }))
                @if left > 0 { p { "And " (left) " more in the view partition_router.health." } }
            }
        }
    }
}

fn tables(facts: &Facts) -> Markup {
    let each = LISTED_PARTITIONS / facts.overview.tables.len().max(1);
    html! {
        section aria-labelledby="tables" {
            h2 id="tables" { "Tables" }
            @if facts.overview.tables.is_empty() {
                p { "No table is partitioned by partition_router, or under its maintenance." }
            }
            @for table in &facts.overview.tables {
                (table::article(&table::Shown {
                    table,
                    parts: facts.overview.parts.get(&table.root).map_or(&[][..], Vec::as_slice),
                    pair: facts.pairs.iter().find(|pair| pair.twin == table.root),
                    in_default: in_default(table, &facts.overview.defaults),
                    listed: each.max(6),
                }))
            }
        }
    }
}

/// What is wider than the window scrolls by itself, with the keyboard as well.
fn scrolling(name: &str, inner: Markup) -> Markup {
    html! { div class="scrolling" role="region" aria-label=(name) tabindex="0" { (inner) } }
}

/// A number with its thousands apart, by a space that does not break.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('−');
    }
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}
