use super::*;
use crate::faults::Kind;
use crate::plan::Plan;

#[test]
fn quantiles_are_values_that_were_measured() {
    let values: Vec<i64> = (1..=100).rev().collect();
    assert_eq!(quantile(&values, 50), Some(50));
    assert_eq!(quantile(&values, 99), Some(99));
    assert_eq!(quantile(&values, 100), Some(100));
    assert_eq!(quantile(&[7], 50), Some(7));
    assert_eq!(quantile(&[], 50), None);
}

#[test]
fn what_hit_nothing_is_no_fault() {
    let step = Plan::new(7, &[Kind::DropEndTxn]).next().expect("a step");
    let mut done = Done {
        step,
        from_ms: 0,
        to_ms: 5_000,
        victim: Some("i0".to_owned()),
        note: "no such request came".to_owned(),
        missed: true,
        takeover_ms: None,
        pause_ms: Some(100),
        untouched_ms: None,
        unhealed: None,
    };
    let mut report = Report::default();
    report.fault(&done);
    assert_eq!(report.faults(), 0);
    assert!(line(&done, 0).contains("hit nothing"));
    done.missed = false;
    report.fault(&done);
    assert_eq!(report.faults(), 1);
}

#[test]
fn runs_add_up() {
    let row = Row {
        count: 2,
        takeovers_ms: vec![1500, 1700],
        ..Row::default()
    };
    let run = Report {
        kinds: [("kill".to_owned(), row)].into(),
        ..Report::default()
    };
    let mut both = run.clone();
    both.add(&run);
    assert_eq!(both.faults(), 4);
    let table = both.table();
    assert!(table.contains("| kill  |     4 |"), "{table}");
    assert!(table.contains("1.70 s"), "{table}");
}
