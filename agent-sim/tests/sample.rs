//! The shipped recording is good, small, and ends as its README says.

use std::collections::{BTreeMap, HashMap};

use agent_sim::ndjson;
use common::schema::{SiteAttackReport, SiteAttackVerdict};

const WAVE: &str = include_str!("../samples/wave.ndjson");

fn reports() -> Vec<SiteAttackReport> {
    WAVE.lines()
        .map(|line| match ndjson::parse(line) {
            Ok(Some(report)) => report,
            other => panic!("{line}: {other:?}"),
        })
        .collect()
}

/// Fresh votes for CLEAR and for UNDER_ATTACK by object, after all reports observed up to `until`.
fn votes(until: i64) -> BTreeMap<String, (usize, usize)> {
    let mut latest: HashMap<(String, String), SiteAttackReport> = HashMap::new();
    for report in reports().into_iter().filter(|r| r.observed_at_ms <= until) {
        latest.insert((report.object_id.clone(), report.agent_id.clone()), report);
    }
    let mut votes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for report in latest.into_values() {
        let (clear, attack) = votes.entry(report.object_id).or_default();
        match report.verdict {
            SiteAttackVerdict::Clear => *clear += 1,
            SiteAttackVerdict::UnderAttack => *attack += 1,
        }
    }
    votes
}

#[test]
fn is_small_ordered_and_lasts_twenty_seconds() {
    let reports = reports();
    assert!((150..=250).contains(&reports.len()), "{}", reports.len());
    assert!(WAVE.len() < 40_000, "{} bytes", WAVE.len());
    assert!(reports.is_sorted_by_key(|r| r.observed_at_ms));
    let first = reports.first().unwrap().observed_at_ms;
    let last = reports.last().unwrap().observed_at_ms;
    assert!(
        (15_000..=20_000).contains(&(last - first)),
        "{}",
        last - first
    );
    let mut sequences: HashMap<String, i64> = HashMap::new();
    for report in reports {
        let before = sequences.insert(report.agent_id, report.sequence);
        assert!(before < Some(report.sequence));
    }
}

#[test]
fn ends_as_its_readme_says() {
    let votes_at_end = votes(i64::MAX);
    let expected = [
        ("blog.example.com", (1, 0)),
        ("news.example.com", (0, 5)),
        ("pay.example.com", (4, 1)),
        ("shop.example.com", (5, 0)),
    ];
    let expected: BTreeMap<String, (usize, usize)> =
        expected.map(|(o, v)| (o.to_owned(), v)).into();
    assert_eq!(votes_at_end, expected);
}

#[test]
fn shop_was_under_attack_in_between() {
    let start = reports().first().unwrap().observed_at_ms;
    assert_eq!(votes(start + 4_000)["shop.example.com"], (5, 0));
    assert_eq!(votes(start + 10_000)["shop.example.com"], (0, 5));
}
