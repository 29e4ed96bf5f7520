//! Finds threads that are stuck: a worker whose processor never returns, a committer whose disk does
//! not answer. A broker that is away makes no thread stuck: calls to it end, and are made again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A thread's sign of life.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Tells that the thread goes on.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Watches pulses by name.
#[derive(Debug, Default)]
pub struct Watchdog {
    watched: BTreeMap<String, Watched>,
}

#[derive(Debug)]
struct Watched {
    pulse: Pulse,
    count: u64,
    still_for: Duration,
}

impl Watchdog {
    /// Watches a thread, instead of any former one of this name.
    pub fn watch(&mut self, name: String, pulse: Pulse) {
        let watched = Watched {
            count: pulse.count(),
            pulse,
            still_for: Duration::ZERO,
        };
        self.watched.insert(name, watched);
    }

    /// Forgets a thread that has ended.
    pub fn forget(&mut self, name: &str) {
        self.watched.remove(name);
    }

    /// `passed` is how long ago the last look was. Returns the name of a thread that has shown no
    /// sign of life for `limit`.
    ///
    /// A look after a long pause counts little: the whole process may have stood still.
    pub fn look(&mut self, passed: Duration, limit: Duration) -> Option<&str> {
        let passed = passed.min(Duration::from_secs(1));
        for watched in self.watched.values_mut() {
            let count = watched.pulse.count();
            if count == watched.count {
                watched.still_for += passed;
            } else {
                watched.still_for = Duration::ZERO;
                watched.count = count;
            }
        }
        let mut watched = self.watched.iter();
        watched
            .find(|(_, watched)| watched.still_for >= limit)
            .map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);
    const STEP: Duration = Duration::from_millis(500);

    #[test]
    fn who_shows_no_sign_of_life_is_stuck() {
        let (alive, stuck) = (Pulse::default(), Pulse::default());
        let mut watchdog = Watchdog::default();
        watchdog.watch("alive".into(), alive.clone());
        watchdog.watch("stuck".into(), stuck.clone());
        for _ in 0..5 {
            alive.beat();
            assert_eq!(watchdog.look(STEP, LIMIT), None);
        }
        alive.beat();
        assert_eq!(watchdog.look(STEP, LIMIT), Some("stuck"));
        stuck.beat();
        assert_eq!(watchdog.look(STEP, LIMIT), None, "it goes on after all");
    }

    #[test]
    fn a_process_that_stood_still_is_not_stuck() {
        let mut watchdog = Watchdog::default();
        watchdog.watch("worker".into(), Pulse::default());
        assert_eq!(watchdog.look(Duration::from_secs(600), LIMIT), None);
    }

    #[test]
    fn who_has_ended_is_not_stuck() {
        let mut watchdog = Watchdog::default();
        watchdog.watch("worker".into(), Pulse::default());
        watchdog.forget("worker");
        for _ in 0..10 {
            assert_eq!(watchdog.look(STEP, LIMIT), None);
        }
    }
}
