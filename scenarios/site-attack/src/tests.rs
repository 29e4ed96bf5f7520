//! The rules as tables, and the incremental tally against a recomputation from scratch.

use std::collections::BTreeMap;

use common::schema::{
    Basis, Cause, SetState, SiteAttackReport, SiteAttackVerdict, UNDETERMINED, Verdict as _,
};
use engine::testing::TestDriver;
use proptest::prelude::*;

use super::*;

const T0: i64 = 1_700_000_000_000;
const SITE: &str = "shop.example.com";
const FRESHNESS_MS: i64 = 60_000;

fn driver(rules: majority::Rules) -> TestDriver<SiteAttack> {
    TestDriver::new(SiteAttack::new(rules), T0)
}

fn report(agent: &str, verdict: SiteAttackVerdict, at_ms: i64, sequence: i64) -> SiteAttackReport {
    SiteAttackReport {
        object_id: SITE.into(),
        agent_id: agent.into(),
        verdict,
        observed_at_ms: at_ms,
        sequence,
        attack_kind: None,
        requests_per_second: None,
        detail: None,
    }
}

use SiteAttackVerdict::{Clear, UnderAttack};

/// Verdict and basis after these votes, all observed now.
fn decided(rules: majority::Rules, votes: &[(&str, SiteAttackVerdict)]) -> (String, Basis) {
    let mut driver = driver(rules);
    for (agent, verdict) in votes {
        driver.report(SITE, &report(agent, *verdict, T0, 1));
    }
    let state = driver.state(SITE).unwrap();
    (state.verdict, state.basis)
}

#[test]
fn a_majority_of_a_quorum_decides() {
    type Votes<'a> = &'a [(&'a str, SiteAttackVerdict)];
    let cases: [(Votes<'_>, &str, Basis); 5] = [
        (&[("a", UnderAttack)], UNDETERMINED, Basis::NoQuorum),
        (
            &[("a", UnderAttack), ("b", UnderAttack)],
            "UNDER_ATTACK",
            Basis::Votes,
        ),
        (
            &[("a", UnderAttack), ("b", Clear)],
            UNDETERMINED,
            Basis::Tie,
        ),
        (
            &[("a", UnderAttack), ("b", Clear), ("c", Clear)],
            "CLEAR",
            Basis::Votes,
        ),
        (
            &[("a", Clear), ("a", UnderAttack), ("b", Clear)],
            "CLEAR",
            Basis::Votes,
        ),
    ];
    for (votes, verdict, basis) in cases {
        let expected = (verdict.to_owned(), basis);
        assert_eq!(
            decided(majority::Rules::default(), votes),
            expected,
            "{votes:?}"
        );
    }
}

#[test]
fn weights_count() {
    let rules = majority::Rules {
        weight: vec![("waf".into(), 3), ("muted".into(), 0)],
        ..majority::Rules::default()
    };
    let votes = [("waf", UnderAttack), ("a", Clear), ("b", Clear)];
    assert_eq!(
        decided(rules.clone(), &votes),
        ("UNDER_ATTACK".into(), Basis::Votes)
    );
    let votes = [
        ("waf", UnderAttack),
        ("a", Clear),
        ("b", Clear),
        ("c", Clear),
    ];
    assert_eq!(
        decided(rules.clone(), &votes),
        (UNDETERMINED.into(), Basis::Tie)
    );
    let votes = [("muted", UnderAttack), ("a", Clear)];
    assert_eq!(decided(rules, &votes), ("CLEAR".into(), Basis::Votes));
}

#[test]
fn a_silent_agent_stops_voting() {
    let mut driver = driver(majority::Rules::default());
    driver.report(SITE, &report("a", UnderAttack, T0, 1));
    driver.report(SITE, &report("b", UnderAttack, T0 + 10, 1));
    assert_eq!(driver.state(SITE).unwrap().verdict, "UNDER_ATTACK");
    driver.advance_to(T0 + FRESHNESS_MS - 1);
    assert_eq!(driver.state(SITE).unwrap().verdict, "UNDER_ATTACK");
    driver.advance_to(T0 + FRESHNESS_MS);
    let state = driver.state(SITE).unwrap();
    assert_eq!(
        (state.verdict.as_str(), state.basis),
        (UNDETERMINED, Basis::NoQuorum)
    );
    assert_eq!((state.cause, state.votes.len()), (Cause::Expiry, 1));
    assert_eq!(state.previous_verdict.as_deref(), Some("UNDER_ATTACK"));
}

#[test]
fn only_changes_are_published_with_their_evidence() {
    let mut driver = driver(majority::Rules::default());
    for (i, agent) in ["a", "b", "c"].into_iter().enumerate() {
        driver.report(SITE, &report(agent, Clear, T0, i64::try_from(i).unwrap()));
    }
    let transitions = driver.transitions();
    let seen: Vec<_> = transitions
        .iter()
        .map(|(_, s)| {
            s.as_ref()
                .map(|s| (s.verdict.as_str(), s.version, s.votes.len()))
        })
        .collect();
    // No quorum, then clear; the third vote changes nothing.
    assert_eq!(seen, [Some((UNDETERMINED, 1, 1)), Some(("CLEAR", 2, 2))]);
}

#[test]
fn an_override_wins_until_it_is_cleared_or_expires() {
    let mut driver = driver(majority::Rules::default());
    driver.report(SITE, &report("a", Clear, T0, 1));
    driver.report(SITE, &report("b", Clear, T0, 1));
    let mut command = SetState {
        object_id: SITE.into(),
        verdict: "UNDER_ATTACK".into(),
        operator: Some("ops".into()),
        note: None,
        expires_at_ms: None,
        issued_at_ms: T0,
    };
    driver.set_state(&command);
    let state = driver.state(SITE).unwrap();
    assert_eq!(
        (state.verdict.as_str(), state.basis),
        ("UNDER_ATTACK", Basis::Override)
    );
    driver.clear_override(SITE);
    assert_eq!(driver.state(SITE).unwrap().verdict, "CLEAR");

    command.expires_at_ms = Some(T0 + 500);
    driver.set_state(&command);
    driver.advance_to(T0 + 499);
    assert_eq!(driver.state(SITE).unwrap().verdict, "UNDER_ATTACK");
    driver.advance_to(T0 + 500);
    let state = driver.state(SITE).unwrap();
    assert_eq!(
        (state.verdict.as_str(), state.cause),
        ("CLEAR", Cause::Expiry)
    );

    command.verdict = "ON_FIRE".into();
    driver.set_state(&command);
    assert_eq!(driver.dead_letters()[0].reason, "unknown-verdict");
}

#[test]
fn a_deleted_object_is_forgotten_and_its_timer_with_it() {
    let mut driver = driver(majority::Rules::default());
    driver.report(SITE, &report("a", Clear, T0, 1));
    driver.delete(SITE);
    driver.delete(SITE);
    let transitions = driver.transitions();
    assert_eq!(transitions.len(), 2, "a state and one tombstone");
    assert_eq!(transitions[1], (SITE.to_owned(), None));
    assert_eq!(driver.state(SITE), None);
    driver.advance_to(T0 + 10 * FRESHNESS_MS);
    assert!(driver.transitions().is_empty());
}

#[test]
fn bad_reports_become_dead_letters_and_change_nothing() {
    let mut driver = driver(majority::Rules::default());
    let good = report("a", Clear, T0, 1);
    let framed = driver.encode(1, &good);
    let future = report("a", Clear, T0 + engine::testing::MAX_SKEW_MS + 1, 1);
    driver.raw(Some(b"other.example.com"), Some(&framed));
    driver.raw(Some(SITE.as_bytes()), Some(&framed[..framed.len() - 1]));
    driver.raw(Some(SITE.as_bytes()), Some(&[&framed[..], b"x"].concat()));
    driver.raw(Some(SITE.as_bytes()), Some(&[0, 0, 0, 0, 99, 1]));
    driver.report(SITE, &future);
    let reasons: Vec<String> = driver
        .dead_letters()
        .into_iter()
        .map(|d| d.reason)
        .collect();
    assert_eq!(
        reasons,
        [
            "key-mismatch",
            "malformed",
            "malformed",
            "unknown-schema",
            "from-the-future"
        ]
    );
    assert_eq!(driver.state(SITE), None);
}

#[test]
fn an_object_has_room_for_so_many_reports_and_for_an_order() {
    const LARGE: usize = 200_000;
    let mut driver = driver(majority::Rules::default());
    let large = |agent: usize, sequence| SiteAttackReport {
        detail: Some("x".repeat(LARGE)),
        ..report(&format!("{agent:03}"), Clear, T0, sequence)
    };
    for agent in 0..30 {
        driver.report(SITE, &large(agent, 1));
    }
    let letters = driver.dead_letters();
    assert!(letters.iter().all(|l| l.reason == "object-too-large"));
    let kept = driver.stored(SITE).unwrap().slots.len();
    assert_eq!(kept + letters.len(), 30);
    assert!(kept * LARGE > 3 << 20, "{kept} reports are kept");
    // Whoever is in may go on, and an operator may order what he likes.
    driver.report(SITE, &large(0, 2));
    driver.set_state(&SetState {
        object_id: SITE.into(),
        verdict: "UNDER_ATTACK".into(),
        operator: None,
        note: Some("n".repeat(100_000)),
        expires_at_ms: None,
        issued_at_ms: T0,
    });
    assert!(driver.dead_letters().is_empty());
    assert_eq!(driver.stored(SITE).unwrap().slots[0].sequence, 2);
    assert_eq!(driver.state(SITE).unwrap().verdict, "UNDER_ATTACK");
}

/// One thing that happens to an object.
#[derive(Debug, Clone)]
enum Step {
    Report {
        agent: usize,
        verdict: SiteAttackVerdict,
        lag_ms: i64,
        sequence: i64,
    },
    Repeat,
    Set {
        verdict: SiteAttackVerdict,
        lasts_ms: Option<i64>,
    },
    Clear,
    Delete,
    Wait {
        ms: i64,
    },
    Commit,
    Crash,
}

fn verdict() -> impl Strategy<Value = SiteAttackVerdict> {
    prop_oneof![Just(Clear), Just(UnderAttack)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4usize, verdict(), -4_000..FRESHNESS_MS + 5_000, 0..3i64).prop_map(
            |(agent, verdict, lag_ms, sequence)| Step::Report { agent, verdict, lag_ms, sequence }
        ),
        2 => Just(Step::Repeat),
        1 => (verdict(), proptest::option::of(1..90_000i64))
            .prop_map(|(verdict, lasts_ms)| Step::Set { verdict, lasts_ms }),
        1 => Just(Step::Clear),
        1 => Just(Step::Delete),
        4 => (1..50_000i64).prop_map(|ms| Step::Wait { ms }),
        3 => Just(Step::Commit),
        1 => Just(Step::Crash),
    ]
}

/// The same rules, written down without any cleverness.
#[derive(Debug, Clone, Default)]
struct Model {
    exists: bool,
    latest: BTreeMap<String, SiteAttackReport>,
    override_: Option<(SiteAttackVerdict, Option<i64>)>,
}

impl Model {
    fn report(&mut self, report: &SiteAttackReport) {
        let newer = self.latest.get(&report.agent_id).is_none_or(|held| {
            (report.observed_at_ms, report.sequence) > (held.observed_at_ms, held.sequence)
        });
        if newer {
            self.exists = true;
            self.latest.insert(report.agent_id.clone(), report.clone());
        }
    }

    fn verdict(&mut self, rules: &majority::Rules, now_ms: i64) -> Option<(String, Basis)> {
        if self
            .override_
            .is_some_and(|(_, end)| end.is_some_and(|end| end <= now_ms))
        {
            self.override_ = None;
        }
        if !self.exists {
            return None;
        }
        if let Some((verdict, _)) = self.override_ {
            return Some((verdict.name().to_owned(), Basis::Override));
        }
        let fresh = |r: &&SiteAttackReport| r.observed_at_ms + FRESHNESS_MS > now_ms;
        let votes: Vec<_> = self.latest.values().filter(fresh).collect();
        let weight = |v| -> u32 {
            let side = votes.iter().filter(|r| r.verdict == v);
            side.map(|r| rules.weight_of(&r.agent_id)).sum()
        };
        Some(if votes.len() < rules.quorum as usize {
            (UNDETERMINED.into(), Basis::NoQuorum)
        } else if weight(Clear) > weight(UnderAttack) {
            ("CLEAR".into(), Basis::Votes)
        } else if weight(UnderAttack) > weight(Clear) {
            ("UNDER_ATTACK".into(), Basis::Votes)
        } else {
            (UNDETERMINED.into(), Basis::Tie)
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens, in whatever order, with commits and crashes in between: the state is what
    /// a recomputation from all reports gives, and published transitions end at that state.
    #[test]
    fn incremental_equals_recomputed(steps in proptest::collection::vec(step(), 1..60)) {
        let rules = majority::Rules { weight: vec![("agent-0".into(), 2)], ..majority::Rules::default() };
        let mut driver = driver(rules.clone());
        let mut model = Model::default();
        let mut committed = model.clone();
        let mut last: Option<SiteAttackReport> = None;
        let mut published: Option<String> = None;
        for step in steps {
            let now_ms = driver.now_ms();
            match step {
                Step::Report { agent, verdict, lag_ms, sequence } => {
                    let report = report(&format!("agent-{agent}"), verdict, now_ms - lag_ms, sequence);
                    driver.report(SITE, &report);
                    model.report(&report);
                    last = Some(report);
                }
                Step::Repeat => if let Some(report) = &last {
                    driver.report(SITE, report);
                    model.report(report);
                }
                Step::Set { verdict, lasts_ms } => {
                    let expires_at_ms = lasts_ms.map(|ms| now_ms + ms);
                    driver.set_state(&SetState {
                        object_id: SITE.into(),
                        verdict: verdict.name().into(),
                        operator: None,
                        note: None,
                        expires_at_ms,
                        issued_at_ms: now_ms,
                    });
                    model.exists = true;
                    model.override_ = Some((verdict, expires_at_ms));
                }
                Step::Clear => {
                    driver.clear_override(SITE);
                    model.override_ = None;
                }
                Step::Delete => {
                    driver.delete(SITE);
                    model = Model::default();
                }
                Step::Wait { ms } => driver.advance_to(now_ms + ms),
                Step::Commit => {
                    for (_, state) in driver.transitions() {
                        published = state.map(|s| s.verdict);
                    }
                    committed = model.clone();
                }
                Step::Crash => {
                    driver.crash();
                    model = committed.clone();
                    let now_ms = driver.now_ms();
                    driver.advance_to(now_ms);
                }
            }
        }
        for (_, state) in driver.transitions() {
            published = state.map(|s| s.verdict);
        }
        let state = driver.state(SITE);
        driver.assert_derived();
        let expected = model.verdict(&rules, driver.now_ms());
        prop_assert_eq!(state.as_ref().map(|s| (s.verdict.clone(), s.basis)), expected);
        prop_assert_eq!(published, state.map(|s| s.verdict));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A published state says what a query says right after it: also of many votes, of which some have expired.
    #[test]
    fn what_is_published_is_what_a_query_says(
        agents in 1..150_usize,
        votes in proptest::collection::vec((any::<prop::sample::Index>(), verdict(), 0..FRESHNESS_MS, any::<i64>()), 1..300),
        texts in proptest::collection::vec((0..300_usize, proptest::option::of(".{0,20}"), proptest::option::of(1..i64::from(u32::MAX))), 0..5),
    ) {
        let mut driver = driver(majority::Rules::default());
        let mut compared = 0;
        for (number, (agent, verdict, lag_ms, sequence)) in votes.into_iter().enumerate() {
            let now_ms = driver.now_ms() + 500;
            driver.advance_to(now_ms);
            if let Some((_, expired)) = driver.transitions().pop() {
                prop_assert_eq!(expired, driver.state(SITE));
            }
            let agent = format!("agent-{}", agent.index(agents));
            driver.report(SITE, &report(&agent, verdict, now_ms - lag_ms, sequence));
            for (_, text, lasts_ms) in texts.iter().filter(|(at, ..)| *at == number) {
                driver.set_state(&SetState {
                    object_id: SITE.into(),
                    verdict: verdict.name().into(),
                    operator: text.clone(),
                    note: text.as_ref().map(|text| text.repeat(10)),
                    expires_at_ms: lasts_ms.map(|ms| now_ms + ms),
                    issued_at_ms: now_ms,
                });
            }
            if let Some((_, published)) = driver.transitions().pop() {
                prop_assert_eq!(published, driver.state(SITE));
                compared += 1;
            }
        }
        prop_assert!(compared > 0);
    }
}
