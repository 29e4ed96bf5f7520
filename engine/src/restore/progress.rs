//! How fast a store comes forward, and how long it will take.

use std::time::Duration;

/// A measurement is at least so long: shorter ones say little.
const MEASURE: Duration = Duration::from_millis(500);
/// Weight of the latest measurement. Speeds change, when other partitions are done for one.
const LATEST: f64 = 0.4;

/// Measures one store. It knows no clock: it is told how long the work has been going on.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    /// The last measurement: when, at which offset, after how many records.
    last: (Duration, i64, u64),
    offsets_per_second: Option<f64>,
    records_per_second: Option<f64>,
}

impl Meter {
    /// A meter that starts at `position`.
    pub(super) fn at(position: i64) -> Self {
        Self {
            last: (Duration::ZERO, position, 0),
            ..Self::default()
        }
    }

    /// After `elapsed` the store is at `position`, and has had so many records since the start.
    pub(super) fn measure(&mut self, elapsed: Duration, position: i64, records: u64) {
        let (at, from, had) = self.last;
        let took = elapsed.saturating_sub(at);
        if took < MEASURE {
            return;
        }
        let mix = |before: Option<f64>, count: f64| {
            let now = count / took.as_secs_f64();
            Some(before.map_or(now, |before| before + LATEST * (now - before)))
        };
        let offsets = to_f64(position.saturating_sub(from).max(0));
        let fresh = to_f64(records.saturating_sub(had).try_into().unwrap_or(i64::MAX));
        self.offsets_per_second = mix(self.offsets_per_second, offsets);
        self.records_per_second = mix(self.records_per_second, fresh);
        self.last = (elapsed, position, records);
    }

    /// Records per second; 0 before the first measurement.
    pub(super) fn rate(&self) -> u64 {
        whole(self.records_per_second.unwrap_or(0.0))
    }

    /// Seconds until `remaining` more offsets are done, rounded up; `None` if nobody can tell. Offsets,
    /// because nobody knows how many of them compaction has left empty.
    pub(super) fn seconds_left(&self, remaining: i64) -> Option<u64> {
        if remaining <= 0 {
            return Some(0);
        }
        let speed = self.offsets_per_second.filter(|speed| *speed >= 1.0)?;
        Some(whole((to_f64(remaining) / speed).ceil()))
    }
}

/// Exact up to 2^53, which is more than any changelog has.
#[allow(clippy::cast_precision_loss)]
fn to_f64(count: i64) -> f64 {
    count as f64
}

/// Of a number that is not negative. Casts of floats stop at the limits of the type.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn knows_rate_and_time_left_after_the_first_measurement() {
        let mut meter = Meter::at(1000);
        assert_eq!((meter.rate(), meter.seconds_left(10)), (0, None));
        assert_eq!(meter.seconds_left(0), Some(0));
        // Too short to say anything.
        meter.measure(Duration::from_millis(100), 90_000, 1);
        assert_eq!(meter.seconds_left(10), None);
        // Every second offset is empty.
        meter.measure(seconds(2), 5000, 2000);
        assert_eq!((meter.rate(), meter.seconds_left(4001)), (1000, Some(3)));
        // It stands still: the time left grows, and is never wrong by more than is known.
        meter.measure(seconds(4), 5000, 2000);
        assert_eq!((meter.rate(), meter.seconds_left(4001)), (600, Some(4)));
        for at in 5..100 {
            meter.measure(seconds(at), 5000, 2000);
        }
        assert_eq!((meter.rate(), meter.seconds_left(4001)), (0, None));
    }

    proptest! {
        #[test]
        fn a_steady_pace_is_told_exactly(pace in 1_u32..1_000_000, times in 1_u64..50, remaining in 1_i64..1 << 40) {
            let mut meter = Meter::at(0);
            for at in 1..=times {
                let done = at * u64::from(pace);
                meter.measure(seconds(at), i64::try_from(done).unwrap(), done);
            }
            prop_assert_eq!(meter.rate(), u64::from(pace));
            let left = u64::try_from(remaining).unwrap().div_ceil(pace.into());
            let told = meter.seconds_left(remaining).unwrap();
            prop_assert!(told.abs_diff(left) <= 1, "{} instead of {}", told, left);
        }
    }
}
