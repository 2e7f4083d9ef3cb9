//! The pairs of the page: how far each migration is, its proof and its rollout.

use super::{grouped, scrolling};
use crate::observe::checks::duration;
use crate::observe::facts::PairFacts;
use maud::{Markup, html};

const PHASES: [&str; 5] = ["prepared", "copying", "live", "switched", "done"];

pub fn section(pairs: &[PairFacts]) -> Markup {
    html! {
        section aria-labelledby="migrations" {
            h2 id="migrations" { "Migrations" }
            @if pairs.is_empty() {
                p { "There is no pair." }
            } @else {
                (scrolling("Pairs and how far they are", html! {
                    table {
                        caption { "Pairs and how far they are" }
                        thead { tr {
                            th scope="col" { "Pair" } th scope="col" { "Phase" } th scope="col" { "Backfill" }
                            th scope="col" { "Parity" } th scope="col" { "Rollout" }
                        } }
                        tbody { @for pair in pairs { (row(pair)) } }
                    }
                }))
            }
        }
    }
}

fn row(pair: &PairFacts) -> Markup {
    html! {
        tr {
            th scope="row" {
                (pair.name())
                @if pair.phase != "done" {
                    @if let Some(twin) = &pair.twin_name { small { " and " (twin) } }
                }
            }
            td { (phases(&pair.phase)) }
            td { (backfill(pair)) }
            td { (parity(pair)) }
            td { (rollout(pair)) }
        }
    }
}

fn phases(phase: &str) -> Markup {
    let now = PHASES.iter().position(|p| *p == phase);
    html! {
        ol class="phases" {
            @for (place, name) in PHASES.iter().enumerate() {
                @if now == Some(place) {
                    li aria-current="step" { (name) }
                } @else if now.is_some_and(|now| place < now) {
                    li class="past" { (name) }
                } @else {
                    li { (name) }
                }
            }
        }
    }
}

fn backfill(pair: &PairFacts) -> Markup {
    let Some(copy) = &pair.copy else {
        return html! { "–" };
    };
    if copy.stage == "done" {
        return html! { "done, " (grouped(copy.rows)) " rows" };
    }
    let percent = format!("{:.0}", copy.ratio * 100.0);
    html! {
        progress max="100" value=(percent) aria-label={ "Backfill of " (pair.name()) } {}
        " " (copy.stage) ", " (percent) " %: " (grouped(copy.rows)) " of about " (grouped(copy.total)) " rows"
        @if let Some(left) = copy.seconds_left { ", " (duration(left)) " left" }
    }
}

fn parity(pair: &PairFacts) -> Markup {
    let by_partition = pair.last_partitions.as_deref().unwrap_or_default();
    let equal = by_partition.iter().filter(|partition| partition.3).count();
    html! {
        @match (&pair.verified_at, pair.failure()) {
            (Some(at), _) => { span class="badge ok" { "equal" } " proven at " (at) }
            (None, Some(failure)) => { span class="badge fail" { "not equal" } " " (failure) }
            (None, None) if pair.phase == "live" || pair.phase == "switched" => { span class="badge fail" { "not proven" } }
            _ => { "–" }
        }
        @if let Some(level) = &pair.verified_level { " by " (level) }
        @if !by_partition.is_empty() {
            ", " (equal) " of " (by_partition.len()) " partitions equal"
        }
    }
}

fn rollout(pair: &PairFacts) -> Markup {
    if pair.phase != "live" && pair.phase != "copying" && pair.phase != "prepared" {
        return html! { "all read the new table" };
    }
    html! {
        span class="whole" {
            meter min="0" max="100" value=(pair.percent) aria-label={ "Rollout of " (pair.name()) } {}
            " " (pair.percent) " %"
        }
        @if pair.pilots > 0 { ", " (pair.pilots) " pilots" }
        @if pair.excluded > 0 { ", " (pair.excluded) " excluded" }
    }
}
