use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const START: i64 = 1_700_000_000_000;

fn settings() -> Settings {
    Settings {
        agents: 5,
        objects: (1..=4).map(|i| format!("site-{i}")).collect(),
        waves: Waves {
            attacked: 1,
            wave: Duration::from_secs(20),
            pause: Duration::from_secs(10),
        },
        attacks: Vec::new(),
        ramp_up: Duration::from_secs(2),
        false_positives: 0.0,
        silent: 0,
        silent_after: Duration::from_secs(10),
        lying: 0,
        reordered: 0.0,
        repeated: 0.0,
        count: None,
        duration: Some(Duration::from_secs(60)),
        first_sequence: 1,
    }
}

fn stream(settings: Settings, seed: u64) -> Vec<Timed> {
    Paced::new(Generator::new(settings, seed, START), 20.0).collect()
}

/// Agent and sequence number name a report.
fn key(report: &SiteAttackReport) -> (String, i64) {
    (report.agent_id.clone(), report.sequence)
}

#[test]
fn every_pair_comes_once_before_any_comes_again() {
    let all = stream(settings(), 3);
    assert_eq!(all.len(), 60 * 20);
    for round in all.chunks(20) {
        let pairs: HashSet<_> = round
            .iter()
            .map(|t| (&t.report.agent_id, &t.report.object_id))
            .collect();
        assert_eq!(pairs.len(), 20);
    }
}

#[test]
fn agents_notice_one_after_another() {
    let mut settings = settings();
    settings.waves.attacked = 0;
    settings.attacks = vec![(1, "site-2@20s..40s".parse().unwrap())];
    let mut first: BTreeMap<String, i64> = BTreeMap::new();
    for Timed { report, .. } in stream(settings, 3) {
        if report.verdict == SiteAttackVerdict::UnderAttack {
            assert_eq!(report.object_id, "site-2");
            first
                .entry(report.agent_id)
                .or_insert(report.observed_at_ms - START);
        }
    }
    let lags = [0, 500, 1_000, 1_500, 2_000];
    assert_eq!(first.len(), lags.len());
    for ((agent, noticed), lag) in first.iter().zip(lags) {
        // Each pair's turn comes once a second.
        let expected = 20_000 + lag..20_000 + lag + 1_000;
        assert!(expected.contains(noticed), "{agent} noticed at {noticed}");
    }
}

#[test]
fn silent_agents_stop_and_the_others_go_on() {
    let settings = Settings {
        silent: 2,
        ..settings()
    };
    let mut last: HashMap<String, i64> = HashMap::new();
    for Timed { report, .. } in stream(settings, 3) {
        last.insert(report.agent_id, report.observed_at_ms - START);
    }
    for agent in ["agent-01", "agent-02", "agent-03"] {
        assert!(last[agent] > 58_000, "{agent}: {}", last[agent]);
    }
    for agent in ["agent-04", "agent-05"] {
        assert!(
            (8_000..10_000).contains(&last[agent]),
            "{agent}: {}",
            last[agent]
        );
    }
}

#[test]
fn a_run_in_which_everybody_falls_silent_ends() {
    let settings = Settings {
        silent: 5,
        duration: None,
        ..settings()
    };
    assert_eq!(stream(settings, 3).len(), 10 * 20);
}

#[test]
fn lying_agents_report_the_opposite() {
    let honest = stream(settings(), 3);
    let lying = stream(
        Settings {
            lying: 1,
            ..settings()
        },
        3,
    );
    assert_eq!(honest.len(), lying.len());
    for (honest, lying) in honest.iter().zip(&lying) {
        assert_eq!(key(&honest.report), key(&lying.report));
        let same = honest.report.verdict == lying.report.verdict;
        assert_eq!(same, honest.report.agent_id != "agent-05");
    }
}

#[test]
fn false_positives_come_about_as_often_as_asked() {
    let mut settings = settings();
    settings.waves.attacked = 0;
    settings.false_positives = 0.1;
    settings.duration = Some(Duration::from_secs(500));
    let all = stream(settings, 3);
    let wrong = all
        .iter()
        .filter(|t| t.report.verdict == SiteAttackVerdict::UnderAttack)
        .count();
    assert!((800..1_200).contains(&wrong), "{wrong} of {}", all.len());
}

#[test]
fn repeated_reports_are_identical_and_about_as_many_as_asked() {
    let all = stream(
        Settings {
            repeated: 0.2,
            ..settings()
        },
        3,
    );
    let mut seen: HashMap<(String, i64), SiteAttackReport> = HashMap::new();
    let mut repeats = 0;
    for Timed { report, .. } in all {
        if let Some(first) = seen.insert(key(&report), report.clone()) {
            assert_eq!(first, report);
            repeats += 1;
        }
    }
    assert!((120..280).contains(&repeats), "{repeats}");
}

#[test]
fn reordered_reports_arrive_late_and_none_is_lost() {
    let all = stream(
        Settings {
            reordered: 0.2,
            ..settings()
        },
        3,
    );
    let mut late = 0;
    let mut newest: HashMap<(String, String), (i64, i64)> = HashMap::new();
    let mut sequences: HashMap<String, Vec<i64>> = HashMap::new();
    for Timed { due, report } in all {
        let delay = millis(due) - (report.observed_at_ms - START);
        assert!(delay >= 0, "observed before it is sent");
        let pair = (report.agent_id.clone(), report.object_id.clone());
        let this = (report.observed_at_ms, report.sequence);
        if newest.get(&pair).is_some_and(|newest| *newest > this) {
            late += 1;
        } else {
            newest.insert(pair, this);
        }
        sequences
            .entry(report.agent_id)
            .or_default()
            .push(report.sequence);
    }
    assert!(
        late > 20,
        "only {late} were overtaken by one of their own pair"
    );
    for (agent, mut all) in sequences {
        all.sort_unstable();
        let whole: Vec<i64> = (1..=i64::try_from(all.len()).unwrap()).collect();
        assert_eq!(all, whole, "{agent}");
    }
}

#[test]
fn strides_reach_every_pair() {
    for n in 1..200 {
        for from in 0..n {
            let stride = coprime(from, n);
            let reached: HashSet<u64> = (0..n).map(|i| i * stride % n).collect();
            assert_eq!(reached.len() as u64, n, "stride {stride} of {n}");
        }
    }
}

prop_compose! {
    fn any_settings()(
        agents in 1..8_usize,
        objects in 1..10_usize,
        attacked in 0..4_usize,
        silent in 0..3_usize,
        lying in 0..3_usize,
        false_positives in 0.0..=1.0,
        reordered in 0.0..=1.0,
        repeated in 0.0..=1.0,
        count in proptest::option::of(0..500_u64),
    ) -> Settings {
        Settings {
            agents,
            objects: (0..objects).map(|i| format!("site-{i}")).collect(),
            waves: Waves { attacked, ..settings().waves },
            silent: silent.min(agents),
            lying: lying.min(agents - silent.min(agents)),
            false_positives,
            reordered,
            repeated,
            count,
            ..settings()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_seed_makes_the_same_stream(settings in any_settings(), seed: u64) {
        prop_assert_eq!(stream(settings.clone(), seed), stream(settings, seed));
    }

    #[test]
    fn rules_hold_whatever_the_settings(settings in any_settings(), seed: u64) {
        let all = stream(settings.clone(), seed);
        if let Some(count) = settings.count {
            prop_assert!(all.len() as u64 <= count);
            if settings.silent == 0 && count <= 500 {
                prop_assert_eq!(all.len() as u64, count);
            }
        }
        let mut last_due = Duration::ZERO;
        let mut seen: HashMap<(String, i64), SiteAttackReport> = HashMap::new();
        let mut newest: HashMap<String, (i64, i64)> = HashMap::new();
        for Timed { due, report } in all {
            prop_assert!(due >= last_due);
            last_due = due;
            prop_assert!(report.observed_at_ms - START <= millis(due));
            if let Some(first) = seen.insert(key(&report), report.clone()) {
                prop_assert_eq!(first, report);
                continue;
            }
            // Sequence numbers grow with the time of observation, also when reports come late.
            let newest = newest.entry(report.agent_id).or_default();
            let this = (report.observed_at_ms, report.sequence);
            prop_assert!((this.0 >= newest.0) == (this.1 > newest.1) || this.0 == newest.0);
            *newest = (*newest).max(this);
        }
    }
}
