//! The checker is checked: whatever the real task publishes must be explained, and no history that was tampered with
//! may be.

use std::collections::BTreeMap;
use std::time::Duration;

use common::schema::{SetState, SiteAttackReport, SiteAttackVerdict};
use engine::scenario::{Scenario as _, majority};
use engine::testing::TestDriver;
use proptest::prelude::*;
use site_attack::SiteAttack;

use super::super::clock::Anchor;
use super::*;
use crate::random::Random;

const FRESHNESS_MS: i64 = 1_000;
const START_MS: i64 = 1_000_000;

fn rules() -> Rules {
    Rules {
        scenario: SiteAttack::NAME.to_owned(),
        freshness_ms: FRESHNESS_MS,
        quorum: 2,
        weights: BTreeMap::from([("a0".to_owned(), 2)]),
    }
}

fn driver() -> TestDriver<SiteAttack> {
    let rules = majority::Rules {
        freshness: Duration::from_millis(1_000),
        quorum: 2,
        weight: vec![("a0".to_owned(), 2)],
    };
    TestDriver::new(SiteAttack::new(rules), START_MS)
}

/// What happened to some objects of one partition.
struct History {
    inputs: BTreeMap<String, Vec<Input>>,
    outputs: BTreeMap<String, Vec<Output>>,
    /// When each record was processed.
    times: Vec<i64>,
    end_ms: i64,
}

/// Lets the real task process `records` random records.
fn history(seed: u64, records: usize) -> History {
    let mut random = Random::new(seed);
    let mut driver = driver();
    let (mut inputs, mut times) = (BTreeMap::<String, Vec<Input>>::new(), Vec::new());
    let mut outputs = BTreeMap::<String, Vec<Output>>::new();
    let mut published = 0;
    let mut collect = |driver: &mut TestDriver<SiteAttack>| {
        for (id, state) in driver.transitions() {
            let offset = published;
            published += 1;
            outputs
                .entry(id)
                .or_default()
                .push(Output { offset, state });
        }
    };
    for offset in 0..records {
        let at_ms = driver.now_ms() + random.between(0, 5) * random.between(0, 120);
        // Sometimes nobody looked for a while: several expiries are due at once.
        driver.advance_to(at_ms);
        if random.percent(30) {
            collect(&mut driver);
        }
        let id = format!("site-{}", random.below(2));
        let change = match random.below(20) {
            0 => Change::Delete,
            1 | 2 => Change::Clear,
            3..=5 => Change::Set(SetState {
                object_id: id.clone(),
                verdict: "UNDER_ATTACK".to_owned(),
                operator: None,
                note: Some(offset.to_string()),
                expires_at_ms: random
                    .percent(70)
                    .then(|| at_ms + random.between(-100, 900)),
                issued_at_ms: at_ms,
            }),
            _ => Change::Report(report(&mut random, &id, at_ms), Vec::new().into()),
        };
        feed(&mut driver, &id, &change);
        times.push(at_ms);
        inputs.entry(id).or_default().push(Input {
            offset: i64::try_from(offset).unwrap(),
            change,
            from_ms: 0,
            to_ms: 0,
        });
    }
    let end_ms = driver.now_ms() + 200;
    driver.advance_to(end_ms);
    collect(&mut driver);
    History {
        inputs,
        outputs,
        times,
        end_ms,
    }
}

fn report(random: &mut Random, id: &str, at_ms: i64) -> SiteAttackReport {
    SiteAttackReport {
        object_id: id.to_owned(),
        agent_id: format!("a{}", random.below(3)),
        verdict: match random.below(2) {
            0 => SiteAttackVerdict::Clear,
            _ => SiteAttackVerdict::UnderAttack,
        },
        observed_at_ms: at_ms + random.between(-1_200, 300),
        sequence: random.between(0, 3),
        attack_kind: None,
        requests_per_second: None,
        detail: None,
    }
}

fn feed(driver: &mut TestDriver<SiteAttack>, id: &str, change: &Change) {
    match change {
        Change::Report(report, _) => driver.report(id, report),
        Change::Set(command) => driver.set_state(command),
        Change::Clear => driver.clear_override(id),
        Change::Delete => driver.delete(id),
    }
}

/// Checks a history of which the times of `known` in a hundred records are known.
fn check(history: &History, seed: u64, known: u64) -> Result<(), Unexplained> {
    let mut random = Random::of(seed, "anchors");
    let mut anchors = Vec::new();
    for (offset, at_ms) in (0i64..).zip(&history.times) {
        if random.percent(known) {
            let at_ms = *at_ms;
            anchors.push(Anchor { offset, at_ms });
        }
    }
    let mut clock = Clock::default();
    clock.add(anchors).expect("times grow");
    let rules = rules();
    let world = World {
        rules: &rules,
        clock: &clock,
    };
    let nothing = Vec::new();
    let ids = history.inputs.keys().chain(history.outputs.keys());
    for id in ids {
        let mut inputs = history.inputs.get(id).cloned().unwrap_or_default();
        for input in &mut inputs {
            (input.from_ms, input.to_ms) = clock.window(input.offset, history.end_ms);
        }
        let mut timeline = Timeline::new(id);
        timeline.advance(&world, &inputs, history.outputs.get(id).unwrap_or(&nothing))?;
        if let Some(overdue) = timeline.overdue(&world, history.end_ms, 0) {
            return Err(overdue);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However little is known of the times, what the task did is possible.
    #[test]
    fn whatever_the_task_publishes_is_explained(seed: u64, known in 0u64..=100) {
        let history = history(seed, 60);
        if let Err(unexplained) = check(&history, seed, known) {
            panic!("{unexplained:?}");
        }
    }

    /// With the times known, a history that lacks a transition, has one twice, or has another in its place is not
    /// explained, and the difference gets its right name.
    #[test]
    fn a_history_that_was_tampered_with_is_not_explained(seed: u64, place: prop::sample::Index, kind in 0u8..6) {
        let mut history = history(seed, 60);
        let ids: Vec<String> = history.outputs.keys().cloned().collect();
        prop_assume!(!ids.is_empty());
        let outputs = history.outputs.get_mut(&ids[place.index(ids.len())]).unwrap();
        let at = place.index(outputs.len());
        let expected = match tamper(outputs, at, kind) {
            Some(expected) => expected,
            None => return Ok(()),
        };
        let found = check(&history, seed, 100);
        let found = found.expect_err("it must not be explained");
        if let Some(expected) = expected {
            prop_assert_eq!(found.class, expected, "{}", found.what);
        }
    }
}

/// Changes an output; returns the class that must be found, if it must be this one, or nothing if nothing was changed.
fn tamper(outputs: &mut Vec<Output>, at: usize, kind: u8) -> Option<Option<Class>> {
    match kind {
        0 => {
            outputs.remove(at);
            Some(Some(Class::Lost))
        }
        1 => {
            outputs.insert(at, outputs[at].clone());
            Some(Some(Class::Doubled))
        }
        2 => {
            let again = outputs[at].clone();
            outputs.push(again);
            Some(None)
        }
        3 => {
            let state = outputs[at].state.as_mut()?;
            // A later moment may be as good an explanation of an expiry; an earlier one never is.
            state.since_ms -= 2 * FRESHNESS_MS;
            Some(None)
        }
        4 => {
            let state = outputs[at].state.as_mut()?;
            state.votes.pop()?;
            Some(Some(Class::Wrong))
        }
        _ => {
            if at + 1 >= outputs.len() {
                return None;
            }
            let same = outputs[at].state == outputs[at + 1].state;
            outputs.swap(at, at + 1);
            (!same).then_some(None)
        }
    }
}

#[test]
fn histories_hold_every_kind_of_event() {
    let mut causes = BTreeMap::new();
    let mut tombstones = 0;
    for seed in 0..20 {
        for output in history(seed, 60).outputs.into_values().flatten() {
            match output.state {
                None => tombstones += 1,
                Some(state) => {
                    let kind = format!("{:?} {:?}", state.cause, state.basis);
                    *causes.entry(kind).or_insert(0) += 1;
                }
            }
        }
    }
    assert!(tombstones > 10, "{tombstones}");
    for kind in [
        "Vote Votes",
        "Vote Tie",
        "Vote NoQuorum",
        "Override Override",
        "Override Votes",
        "Expiry NoQuorum",
        "Expiry Votes",
    ] {
        assert!(
            causes.get(kind).copied().unwrap_or(0) > 3,
            "{kind}: {causes:?}"
        );
    }
}
