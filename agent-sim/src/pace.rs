//! How fast reports are sent, and waiting for a report's turn.

use std::{
    str::FromStr,
    time::{Duration, Instant, SystemTime},
};

use common::shutdown::Shutdown;

use crate::waves::millis;

/// Reports a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// As many as can be produced.
    Max,
    /// So many.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        positive_or_max(text, "reports a second").map(|n| n.map_or(Self::Max, Self::PerSecond))
    }
}

/// How many times faster than recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// Without pauses.
    Max,
    /// So many times.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        positive_or_max(text, "times the recorded pace").map(|n| n.map_or(Self::Max, Self::Times))
    }
}

fn positive_or_max(text: &str, unit: &str) -> Result<Option<f64>, String> {
    if text == "max" {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n >= 0.001 => Ok(Some(n)),
        _ => Err(format!(
            "{text:?} is neither `max` nor a number of {unit} above 0.001"
        )),
    }
}

/// Waits for times counted from its creation.
#[derive(Debug)]
pub struct Pacer {
    started: Instant,
    shutdown: Shutdown,
}

impl Pacer {
    /// Starts counting.
    #[must_use]
    pub fn start(shutdown: Shutdown) -> Self {
        Self {
            started: Instant::now(),
            shutdown,
        }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Blocks until `due` after the start; at once if that has passed. `false`: told to stop.
    #[must_use]
    pub fn wait_until(&self, due: Duration) -> bool {
        // Short naps, so that a signal is noticed soon.
        const NAP: Duration = Duration::from_millis(50);
        while !self.shutdown.is_cancelled() {
            let left = due.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(NAP));
        }
        false
    }
}

/// The time of day, in ms since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rates_and_speeds() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        assert_eq!("10".parse(), Ok(Speed::Times(10.0)));
        for bad in ["", "0", "-1", "inf", "NaN", "fast", "MAX"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn does_not_wait_when_told_to_stop() {
        let shutdown = Shutdown::new();
        let pacer = Pacer::start(shutdown.clone());
        assert!(pacer.wait_until(Duration::ZERO));
        shutdown.cancel();
        assert!(!pacer.wait_until(Duration::from_secs(3_600)));
    }
}
