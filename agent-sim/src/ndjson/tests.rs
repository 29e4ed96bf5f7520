use proptest::prelude::*;

use super::*;

fn report(observed_at_ms: i64) -> SiteAttackReport {
    SiteAttackReport {
        object_id: "shop.example.com".into(),
        agent_id: "agent-01".into(),
        verdict: SiteAttackVerdict::Clear,
        observed_at_ms,
        sequence: 1,
        attack_kind: None,
        requests_per_second: None,
        detail: None,
    }
}

#[test]
fn reads_a_line_with_or_without_what_is_optional() {
    let short = r#"{"object_id":"a","agent_id":"b","verdict":"UNDER_ATTACK","observed_at_ms":5,"sequence":6}"#;
    let read = parse(short).unwrap().unwrap();
    assert_eq!(read.verdict, SiteAttackVerdict::UnderAttack);
    assert_eq!(parse("  \r"), Ok(None));
}

#[test]
fn says_what_is_wrong_with_a_line() {
    let cases = [
        ("{", "EOF while parsing an object at column 1"),
        (
            r#"{"object_id":"a","agent_id":"b","verdict":"CLEAR","observed_at_ms":5}"#,
            "missing field `sequence` at column 69",
        ),
        (
            r#"{"object_id":"a","atack_kind":"x"}"#,
            "unknown field `atack_kind`, expected one of",
        ),
        (
            r#"{"object_id":"a","agent_id":"b","verdict":"BAD","observed_at_ms":5,"sequence":1}"#,
            "unknown variant `BAD`, expected `CLEAR` or `UNDER_ATTACK`",
        ),
        (r#"{"object_id":7}"#, "invalid type: integer `7`"),
    ];
    for (line, expected) in cases {
        let error = parse(line).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

/// Due and observed, both in ms since the start at 1 000 000, for reports observed at these times.
fn replayed(speed: Speed, shift: bool, observed: &[i64], now_ms: i64) -> Vec<(i64, i64)> {
    let mut replay = Replay::new(speed, shift);
    let all = observed.iter().map(|ms| {
        let mut report = report(*ms);
        let due = replay.due_ms(&report);
        replay.retime(&mut report, 1_000_000, now_ms);
        (due, report.observed_at_ms - 1_000_000)
    });
    all.collect()
}

#[test]
fn replays_at_the_pace_and_the_times_asked_for() {
    let recorded = [5_000, 7_000, 6_000, 15_000];
    let cases = [
        (
            Speed::Times(1.0),
            [(0, 0), (2_000, 2_000), (2_000, 1_000), (10_000, 10_000)],
        ),
        (
            Speed::Times(10.0),
            [(0, 0), (200, 200), (200, 100), (1_000, 1_000)],
        ),
        (
            Speed::Times(0.5),
            [(0, 0), (4_000, 4_000), (4_000, 2_000), (20_000, 20_000)],
        ),
        (Speed::Max, [(0, 42), (0, 42), (0, 42 - 1_000), (0, 42)]),
    ];
    for (speed, expected) in cases {
        assert_eq!(
            replayed(speed, true, &recorded, 1_000_042),
            expected,
            "{speed:?}"
        );
    }
    let kept = replayed(Speed::Times(10.0), false, &recorded, 1_000_042);
    let times: Vec<i64> = kept
        .iter()
        .map(|(_, observed)| observed + 1_000_000)
        .collect();
    assert_eq!(times, recorded);
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        object_id: String, agent_id: String, observed_at_ms: i64, sequence: i64,
        attack_kind: Option<String>, rate in proptest::option::of(-1e9..1e9_f64),
    ) {
        let report = SiteAttackReport {
            object_id, agent_id, observed_at_ms, sequence, attack_kind,
            requests_per_second: rate.map(f64::round),
            ..report(0)
        };
        let line = write(&report).unwrap();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(parse(&line), Ok(Some(report)));
    }

    #[test]
    fn no_report_is_from_the_future(recorded in proptest::collection::vec(0..100_000_i64, 1..50), speed in 0.1..100.0) {
        for (due, observed) in replayed(Speed::Times(speed), true, &recorded, 0) {
            prop_assert!(observed <= due);
        }
    }
}
