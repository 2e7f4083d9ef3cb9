//! The page of `report()` as it is seen, printed, and walked through by keyboard.

use super::browser::{Browser, Picture};
use super::common::run;
use super::processes::Place;
use super::{live, report, thousand};
use std::process::Command;

/// The share of pixels near a colour, in thousandths.
fn share(picture: &Picture, colour: [u8; 3]) -> f64 {
    let is_near = |pixel: &[u8; 3]| pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(b) <= 6);
    let near = picture.colours().filter(is_near).count();
    near as f64 * 1000.0 / picture.colours().count() as f64
}

/// A colour of the style sheet, as the page has it just now.
fn colour(browser: &mut Browser, name: &str) -> [u8; 3] {
    let value = browser.evaluate(&format!(
        "getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
    ));
    let hex = value.as_str().expect("a colour").trim_start_matches('#');
    [0, 2, 4].map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a colour"))
}

#[test]
fn bars_gap_and_now_are_seen_by_day_and_by_night() {
    let (_database, mut client) = thousand("pictures");
    let place = Place::new("pictures");
    let mut browser = Browser::open(&place, &report(&mut client));
    browser.evaluate("document.querySelector('article').scrollIntoView()");
    let mut papers = vec![];
    for scheme in ["light", "dark"] {
        let (_, picture) = browser.screenshot(scheme);
        assert_eq!(picture.width(), 1200);
        let paper = colour(&mut browser, "paper");
        // Thousandths of the window: most of it is paper, bars fill much of the drawing, a gap of a day is a line of three pixels, and
        // now is one of two.
        for (name, least, most) in [
            ("paper", 500.0, 950.0),
            ("panel", 1.0, 300.0),
            ("bar", 20.0, 400.0),
            ("gap", 0.2, 5.0),
            ("now", 0.1, 5.0),
            ("ink", 0.5, 100.0),
        ] {
            let colour = colour(&mut browser, name);
            let found = share(&picture, colour);
            assert!(
                (least..most).contains(&found),
                "{scheme} {name} {colour:?}: {found}"
            );
        }
        papers.push(paper);
    }
    assert!(papers[0][0] > 200 && papers[1][0] < 60, "{papers:?}");
}

#[test]
fn what_is_printed_has_the_rows_that_the_window_hides() {
    let (_database, mut client) = thousand("printed");
    let place = Place::new("printed");
    let mut browser = Browser::open(&place, &report(&mut client));
    let hidden =
        "document.querySelector('details tbody th').checkVisibility({ contentVisibilityAuto: true })";
    assert_eq!(browser.evaluate(hidden), false);
    let file = place.0.join("page.pdf");
    std::fs::write(&file, browser.pdf()).expect("a file");
    let output = Command::new("pdftotext")
        .args(["-layout".as_ref(), file.as_os_str(), "-".as_ref()])
        .output()
        .expect("pdftotext: see scripts/setup.sh test");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let rows: Vec<&str> = text
        .split_whitespace()
        .filter(|word| word.starts_with("days_"))
        .collect();
    assert_eq!(rows.len(), 1000, "{text}");
    assert_eq!((rows[0], rows[999]), ("days_1", "days_1001"));
    assert!(
        !text.contains("The partitions as rows"),
        "nobody can open it on paper"
    );
}

#[test]
fn the_keyboard_gets_everywhere_in_the_order_of_the_page() {
    let (_database, mut client) = live("keyboard");
    run(
        &mut client,
        &[
            "SET partition_router.carry_ddl = off",
            "ALTER TABLE revenues DISABLE TRIGGER sync_to_partitioned_revenues_u",
        ],
    );
    let place = Place::new("keyboard");
    let mut browser = Browser::open(&place, &report(&mut client));
    let at = "(() => { const e = document.activeElement;
        return e.tagName + ' ' + (e.getAttribute('aria-label') || e.textContent) })()";
    let walk = |browser: &mut Browser, steps: usize| -> Vec<String> {
        (0..steps)
            .map(|_| {
                browser.press("Tab", 9);
                browser.evaluate(at).as_str().expect("an element").to_string()
            })
            .collect()
    };
    assert_eq!(
        walk(&mut browser, 8),
        [
            "A Skip to the content",
            "A Health",
            "A Migrations",
            "A Tables",
            "A public.revenues_partitioned",
            "DIV What is wrong, and what mends it",
            "DIV Pairs and how far they are",
            "SUMMARY The partitions as rows",
        ]
    );
    // What has the focus is framed.
    let frame = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.evaluate(frame), "solid");
    // Open, its rows are next.
    browser.press(" ", 32);
    assert_eq!(browser.evaluate("document.querySelector('details').open"), true);
    assert_eq!(
        walk(&mut browser, 1),
        ["DIV Partitions of public.revenues_partitioned"]
    );
}
