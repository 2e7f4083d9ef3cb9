//! The page of `report()`, in a real browser.

use super::browser::Browser;
use super::common::{Database, one, plant, run};
use super::processes::Place;
use super::{live, report, thousand};

/// What a browser makes of a page: its document as text.
fn in_browser(name: &str, html: &str) -> String {
    let place = Place::new(name);
    let dom = Browser::open(&place, html).evaluate("document.documentElement.outerHTML");
    dom.as_str().expect("a document").to_string()
}

fn occurrences(text: &str, of: &str) -> usize {
    text.matches(of).count()
}

#[test]
fn hostile_names_stay_text_in_the_browser() {
    let database = Database::new("hostile");
    let mut client = database.connect();
    let c = &mut client;
    let hostile = "<script>document.title=1</script><img src=x onerror=document.title=2>";
    let attribute = "\"\"onload=document.title=3 x='</style><b>";
    run(
        c,
        &[
            &format!(
                "CREATE TABLE \"{}\" (at date NOT NULL, id int) PARTITION BY RANGE (at)",
                &hostile[..33]
            ),
            &format!(
                "ALTER TABLE \"{}\" RENAME TO \"{}\"",
                &hostile[..33],
                &hostile[33..]
            ),
            &format!(
                "CREATE TABLE \"{attribute}\" PARTITION OF \"{}\" FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
                &hostile[33..]
            ),
            &format!(
                "SELECT partition_router.manage('\"{}\"', '1 month')",
                &hostile[33..]
            ),
            &format!(
                "CREATE TABLE \"{}\" (id int PRIMARY KEY, at date NOT NULL)",
                &hostile[..33]
            ),
            &format!(
                "SELECT partition_router.create_twin('\"{}\"', 'at', twin => 'twin')",
                &hostile[..33]
            ),
            "UPDATE partition_router.policy SET last_error = '</code><script>document.title=4</script>'",
        ],
    );
    let html = report(c);
    let dom = in_browser("hostile", &html);
    for text in [&html, &dom] {
        for tag in ["<script", "<img", "<b>", "onload=document.title=3 x='</style>"] {
            let inside_style = text.find("</style>").expect("a style");
            assert!(!text[inside_style..].contains(tag), "{tag}");
        }
        assert_eq!(occurrences(text, "</style>"), 1);
        assert!(text.contains("&lt;img src=x onerror"), "the name is shown");
    }
    assert!(dom.contains(&format!("<title>Partitions of {}</title>", database.name)));
    assert!(html.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';"));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let (_database, mut client) = live("selfcontained");
    let html = report(&mut client);
    for elsewhere in [
        "http://", "https://", "src=", "@import", "url(", "<link", "<script",
    ] {
        assert!(!html.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn a_thousand_partitions_with_a_gap_stay_one_drawing_and_rows() {
    let (_database, mut client) = thousand("thousand");
    let c = &mut client;
    let html = report(c);
    assert!(html.len() < 400_000, "{}", html.len());
    let dom = in_browser("thousand", &html);
    let bars = dom.split("class=\"bar\" d=\"").nth(1).expect("a drawing");
    let bars = bars.split('"').next().expect("a path");
    assert_eq!(occurrences(bars, "z"), 1000);
    assert_eq!(occurrences(&dom, "<th scope=\"row\">days_"), 1000);
    let gap: String = one(
        c,
        "SELECT (current_date - 400)::text || ' to ' || (current_date - 399)::text",
    );
    assert!(dom.contains(&gap), "{gap}");
    assert_eq!(occurrences(&dom, "class=\"gap\""), 1);
    assert_eq!(occurrences(&dom, "class=\"now\""), 1);
}

#[test]
fn migrations_parity_by_partition_rollout_and_mends_are_shown() {
    let (_database, mut client) = live("shown");
    let c = &mut client;
    run(
        c,
        &[
            "SELECT partition_router.set_rollout('revenues', percent => 25, pilots => '{7}')",
            "CREATE TABLE orgs (id int PRIMARY KEY, org_id int NOT NULL)",
            "INSERT INTO orgs SELECT g, g % 7 FROM generate_series(1, 2000) g",
            "CALL partition_router.migrate('orgs', 'org_id', 'hash', partitions => 4)",
        ],
    );
    plant(c, "revenues", &["DELETE FROM revenues WHERE id = 1"]);
    run(c, &["SELECT * FROM partition_router.verify('revenues')"]);
    let dom = in_browser("shown", &report(c));
    for expected in [
        "<li aria-current=\"step\">live</li>",
        "25 %</span>, 1 pilots",
        "<span class=\"badge fail\">differs</span>",
        "<span class=\"badge ok\">equal</span>",
        "SELECT * FROM partition_router.repair('public.revenues'); SELECT * FROM partition_router.verify('public.revenues')",
        "times the average",
        "Sizes of 4 partitions side by side",
        "In the default",
    ] {
        assert!(dom.contains(expected), "{expected}");
    }
}

#[test]
fn whoever_cannot_see_or_point_gets_the_same() {
    let (_database, mut client) = live("access");
    let html = report(&mut client);
    assert!(html.contains("<html lang=\"en\">"));
    for landmark in [
        "<main id=\"main\"",
        "<nav aria-label=",
        "<header>",
        "<footer>",
        "href=\"#main\"",
    ] {
        assert_eq!(occurrences(&html, landmark), 1, "{landmark}");
    }
    // Each table says what it is, each drawing too, and each drawing has its rows.
    assert_eq!(occurrences(&html, "<table>"), occurrences(&html, "<caption>"));
    assert_eq!(
        occurrences(&html, "<svg"),
        occurrences(&html, "role=\"img\" aria-label=")
    );
    assert_eq!(
        occurrences(&html, "<svg"),
        occurrences(&html, "The partitions as rows")
    );
    assert_eq!(
        occurrences(&html, "<th"),
        occurrences(&html, "<th scope=") + occurrences(&html, "<thead")
    );
    // What scrolls can be reached with the keyboard.
    assert_eq!(
        occurrences(&html, "class=\"scrolling\""),
        occurrences(&html, "role=\"region\" aria-label=")
    );
    let (mut last, mut ids) = (0, vec![]);
    for heading in html
        .split("<h")
        .skip(1)
        .filter(|h| h.as_bytes()[0].is_ascii_digit())
    {
        let level = i32::from(heading.as_bytes()[0] - b'0');
        assert!(level <= last + 1, "{heading}");
        last = level;
    }
    for id in html.split(" id=\"").skip(1) {
        ids.push(id.split('"').next().expect("an id"));
    }
    for reference in ["aria-labelledby=\"", "href=\"#"] {
        for target in html.split(reference).skip(1) {
            let target = target.split('"').next().expect("a target");
            assert!(ids.contains(&target), "{reference}{target}");
        }
    }
}

/// WCAG's relative luminance of `#rrggbb`.
fn luminance(color: &str) -> f64 {
    let part = |from: usize| {
        let value = f64::from(u8::from_str_radix(&color[from..from + 2], 16).expect("hex")) / 255.0;
        match value <= 0.04045 {
            true => value / 12.92,
            false => ((value + 0.055) / 1.055).powf(2.4),
        }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

#[test]
fn text_stands_out_in_light_and_in_dark() {
    let style = include_str!("../../src/observe/page/style.css");
    let themes: Vec<&str> = style.split(":root {").skip(1).take(2).collect();
    assert_eq!(themes.len(), 2);
    for theme in themes {
        let color = |name: &str| {
            let value = theme.split(&format!("--{name}: ")).nth(1).expect(name);
            luminance(&value[..7])
        };
        for ink in ["ink", "soft", "ok", "warn", "fail", "link"] {
            for ground in ["paper", "panel"] {
                let (a, b) = (color(ink), color(ground));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= 4.5, "{ink} on {ground}: {contrast:.2}");
            }
        }
        for drawn in ["bar", "gap", "now"] {
            let (a, b) = (color(drawn), color("panel"));
            let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
            assert!(drawn == "gap" || contrast >= 3.0, "{drawn}: {contrast:.2}");
        }
    }
}
