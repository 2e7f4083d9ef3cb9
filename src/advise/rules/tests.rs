use super::*;

const MB: i64 = 1 << 20;
const GB: i64 = 1 << 30;

fn leaves(sizes: &[i64]) -> Vec<Leaf> {
    let leaf = |(number, bytes): (usize, &i64)| Leaf {
        name: format!("t_{number}"),
        bytes: *bytes,
        scans: 1,
        is_default: false,
        is_newest: false,
    };
    sizes.iter().enumerate().map(leaf).collect()
}

fn seen(cut: Cut, sizes: &[i64]) -> Seen {
    Seen {
        cut,
        key: Some("at".into()),
        leaves: leaves(sizes),
        planning: 1.0,
        queries: Some(vec![]),
    }
}

fn of(seen: &Seen, topic: &str) -> (Severity, String) {
    let found = advise(seen).into_iter().find(|a| a.topic == topic);
    let found = found.unwrap_or_else(|| panic!("no advice about {topic}"));
    (found.severity, format!("{} {}", found.message, found.hint))
}

#[test]
fn days_of_a_few_megabytes_become_longer_and_months_of_a_terabyte_shorter() {
    let (severity, text) = of(
        &seen(Cut::Range(Some(Interval::Days(1))), &[2 * MB; 400]),
        "interval",
    );
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("Choose 1 year"), "{text}");
    let (severity, text) = of(
        &seen(Cut::Range(Some(Interval::Months(1))), &[30 * GB; 12]),
        "interval",
    );
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("Choose 1 day"), "{text}");
    let (severity, text) = of(
        &seen(Cut::Range(Some(Interval::Step(1000))), &[MB; 400]),
        "interval",
    );
    assert_eq!(severity, Severity::Warning);
    assert!(text.contains("Choose 1000000"), "{text}");
}

#[test]
fn partitions_of_a_good_size_and_a_few_small_ones_stay() {
    for (sizes, interval) in [
        (vec![3 * GB; 30], Interval::Months(1)),
        (vec![MB; 12], Interval::Months(1)),
    ] {
        assert_eq!(
            of(&seen(Cut::Range(Some(interval)), &sizes), "interval").0,
            Severity::Info
        );
    }
    let (severity, text) = of(&seen(Cut::Range(Some(Interval::Days(1))), &[GB; 2]), "interval");
    assert!(severity == Severity::Info && text.contains("too early"), "{text}");
}

#[test]
fn hash_partitions_are_doubled_when_large_and_halved_when_small() {
    let (severity, text) = of(&seen(Cut::Hash(16), &[20 * GB; 16]), "hash partitions");
    assert!(
        severity == Severity::Warning && text.contains("Use 128 partitions: 2.5 GB"),
        "{text}"
    );
    let (severity, text) = of(&seen(Cut::Hash(64), &[8 * MB; 64]), "hash partitions");
    assert!(
        severity == Severity::Warning && text.contains("Use 2 partitions"),
        "{text}"
    );
    let mut skewed = vec![MB; 15];
    skewed.push(GB);
    let (severity, text) = of(&seen(Cut::Hash(16), &skewed), "hash partitions");
    assert!(severity == Severity::Warning && text.contains("t_15"), "{text}");
    assert_eq!(
        of(&seen(Cut::Hash(16), &[GB; 16]), "hash partitions").0,
        Severity::Info
    );
}

#[test]
fn a_query_prunes_only_where_its_conditions_name_the_key() {
    let query = |text: &str| Query {
        text: text.into(),
        calls: 7,
        milliseconds: 10.0,
        planning: 0.0,
    };
    let mut seen = seen(Cut::List, &[MB; 4]);
    for pruned in [
        "SELECT * FROM t WHERE at > $1",
        "DELETE FROM t WHERE \"at\" = $1",
        "select 1 from t join u on t.AT = u.x",
    ] {
        seen.queries = Some(vec![query(pruned)]);
        assert_eq!(of(&seen, "pruning").0, Severity::Info, "{pruned}");
    }
    for blind in [
        "SELECT at FROM t",
        "SELECT at FROM t WHERE id = $1",
        "SELECT * FROM t WHERE created_at = $1",
        "SELECT at, on_hand FROM t",
    ] {
        seen.queries = Some(vec![query(blind), query("SELECT 1 FROM t WHERE at = $1")]);
        let (severity, text) = of(&seen, "pruning");
        assert!(
            severity == Severity::Warning && text.contains("1 of 2") && text.contains("50 %"),
            "{text}"
        );
    }
    seen.queries = None;
    assert_eq!(of(&seen, "pruning").0, Severity::Info);
}

#[test]
fn partitions_that_nobody_reads_and_slow_plans_are_named() {
    let mut seen = seen(Cut::List, &[MB; 4]);
    assert_eq!(of(&seen, "never read").0, Severity::Info);
    seen.leaves[2].scans = 0;
    let (severity, text) = of(&seen, "never read");
    assert!(severity == Severity::Warning && text.contains("t_2"), "{text}");
    assert_eq!(of(&seen, "planning time").0, Severity::Info);
    seen.planning = 50.0;
    assert_eq!(of(&seen, "planning time").0, Severity::Warning);
}
