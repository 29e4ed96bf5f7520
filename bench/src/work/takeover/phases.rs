//! Where the time of a takeover goes, as the survivor's log tells.

use jiff::Timestamp;
use serde::Serialize;

use crate::systems::System;

/// Times since the fault in ms at which each step was done; none where the log says nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Phases {
    /// The survivor knows that the other is gone.
    pub detected_ms: Option<f64>,
    /// It is decided who takes over what.
    pub planned_ms: Option<f64>,
    /// The other cannot write any more. (Streams does that when its producer starts: not in the log.)
    pub fenced_ms: Option<f64>,
    /// The stores are at the end of the changelog.
    pub caught_up_ms: Option<f64>,
}

impl Phases {
    /// Reads them from the log of the survivor, up to `until_ms` after the fault.
    #[must_use]
    pub fn of(system: System, log: &str, fault: Timestamp, until_ms: f64) -> Self {
        let first = |words: &[&str]| times(log, fault, until_ms, words).next();
        let last = |words: &[&str]| times(log, fault, until_ms, words).last();
        match system {
            System::Ours => Self {
                detected_ms: first(&["this instance leads", "writing a plan"]),
                planned_ms: first(&["writing a plan"]),
                fenced_ms: last(&[": fenced"]),
                caught_up_ms: last(&[": restored"]),
            },
            System::Streams => Self {
                detected_ms: first(&["group is rebalancing", "joining group"]),
                planned_ms: first(&["Adding newly assigned partitions", "synced group"]),
                fenced_ms: None,
                caught_up_ms: last(&["state=RUNNING"]),
            },
        }
    }
}

/// When lines with one of these words were written, in ms since the fault, and only those from it to `until_ms`.
fn times<'l>(
    log: &'l str,
    fault: Timestamp,
    until_ms: f64,
    words: &'l [&str],
) -> impl Iterator<Item = f64> + 'l {
    log.lines().filter_map(move |line| {
        if !words.iter().any(|word| line.contains(word)) {
            return None;
        }
        let time: Timestamp = line.split_whitespace().next()?.parse().ok()?;
        let since_ms = (time.as_microsecond() - fault.as_microsecond()) as f64 / 1e3;
        (0.0..=until_ms).contains(&since_ms).then_some(since_ms)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_logs_are_read() {
        let fault: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let ours = "\
2025-12-31T23:59:59.000000Z  INFO engine: this instance leads
2026-01-01T00:00:01.500000Z  INFO engine: this instance leads
2026-01-01T00:00:01.600000Z  INFO engine: writing a plan number=3
2026-01-01T00:00:02.000000Z  INFO engine: fenced transactional_id=a-0
2026-01-01T00:00:02.100000Z  INFO engine: fenced transactional_id=a-1
2026-01-01T00:00:02.500000Z  INFO engine: restored partition=1
2026-01-01T00:00:09.500000Z  INFO engine: restored partition=2
";
        let phases = Phases::of(System::Ours, ours, fault, 2_600.0);
        assert_eq!(phases.detected_ms, Some(1_500.0));
        assert_eq!(phases.planned_ms, Some(1_600.0));
        assert_eq!(phases.fenced_ms, Some(2_100.0));
        assert_eq!(phases.caught_up_ms, Some(2_500.0));

        let streams = "\
2026-01-01T01:00:45.000+01:00 INFO ConsumerCoordinator - (Re-)joining group
2026-01-01T01:00:45.100+01:00 INFO Main - state=RUNNING before=REBALANCING
";
        let phases = Phases::of(System::Streams, streams, fault, 60_000.0);
        assert_eq!(phases.detected_ms, Some(45_000.0));
        assert_eq!(phases.planned_ms, None);
        assert_eq!(phases.caught_up_ms, Some(45_100.0));
    }
}
