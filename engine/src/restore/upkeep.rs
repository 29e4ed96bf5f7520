//! What has to be done from time to time: tell how far stores are, flush the quiet ones, know that
//! they are complete.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    restorer::{Restorer, Tracked},
    stores::{Phase, Standing},
};
use crate::{
    store::{self, Store},
    worker::now_ms,
};

const PUBLISH_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(2);
/// A standby on a quiet changelog asks so often whether it still has everything.
const CONFIRM_EVERY_MS: i64 = 10 * 60 * 1000;

/// A store that was surveyed is kept open for so long, for the task or the standby that it may be wanted for.
const WANTED_WITHIN: Duration = Duration::from_secs(10);

/// When what was done last.
pub(super) struct Upkeep {
    began: Instant,
    published: Instant,
    looked: Instant,
    looked_ms: i64,
    told: Instant,
}

impl Upkeep {
    pub(super) fn new(now: Instant, now_ms: i64) -> Self {
        Self {
            began: now,
            published: now,
            looked: now,
            looked_ms: now_ms,
            told: now,
        }
    }
}

/// A store that was handed over or given up. Somebody may still have it, a task or a query: RocksDB
/// opens a directory only once.
pub(super) struct Lent {
    store: Weak<Store>,
    position: i64,
    seen_ms: i64,
}

impl Lent {
    pub(super) fn new(store: &Arc<Store>, position: i64, now_ms: i64) -> Self {
        Self {
            store: Arc::downgrade(store),
            position,
            seen_ms: now_ms,
        }
    }

    pub(super) fn store(&self) -> Option<Arc<Store>> {
        self.store.upgrade()
    }

    /// A look at the store, if somebody has it.
    pub(super) fn look(&mut self, store: &Store, now_ms: i64) -> Result<(), store::Error> {
        let position = store.position()?;
        if position > self.position {
            // Only the owner commits: at the look before, it had everything.
            store.complete_at(self.seen_ms);
        }
        (self.position, self.seen_ms) = (position, now_ms);
        store.flush_if_due()
    }
}

/// Tells how many records of the changelog a store lacks.
pub(super) fn tell_lag(phase: Phase, partition: u32, lag: i64) {
    let name = match phase {
        Phase::Restoring => "restore_remaining_records",
        Phase::Following => "standby_lag_records",
        Phase::Idle => return,
    };
    let lag = u32::try_from(lag.max(0)).unwrap_or(u32::MAX);
    metrics::gauge!(name, "partition" => partition.to_string()).set(f64::from(lag));
    if lag == 0 {
        tell_pace(partition, 0, Some(0));
    }
}

/// Tells how fast a store comes forward, and how long it will take: not a number if nobody can tell.
fn tell_pace(partition: u32, rate: u64, seconds_left: Option<u64>) {
    let number = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let gauge = |name| metrics::gauge!(name, "partition" => partition.to_string());
    gauge("restore_records_per_second").set(number(rate));
    gauge("restore_left_seconds").set(seconds_left.map_or(f64::NAN, number));
}

impl Restorer {
    /// Does whatever is due.
    pub(super) fn keep_up(&mut self) {
        let now = Instant::now();
        let due = |last: Instant, every| now.saturating_duration_since(last) >= every;
        if due(self.upkeep.published, PUBLISH_EVERY) {
            self.upkeep.published = now;
            self.publish(now);
        }
        if due(self.upkeep.told, TELL_EVERY) {
            self.upkeep.told = now;
            self.tell(now);
        }
        if due(self.upkeep.looked, LOOK_EVERY) {
            self.upkeep.looked = now;
            self.upkeep.looked_ms = now_ms();
            if now.saturating_duration_since(self.upkeep.began) >= WANTED_WITHIN {
                self.surveyed.clear();
            }
            let mut reading = self.tracked.values().map(|tracked| &tracked.work);
            if !reading.any(|work| work.is_sorted(now)) {
                drop(self.spare.take());
            }
            self.look_at_lent();
            self.look_at_tracked();
        }
    }

    fn publish(&mut self, now: Instant) {
        for (partition, Tracked { work, .. }) in &mut self.tracked {
            if work.reading
                && let Some(end) = self.changelog.last_known_end(*partition)
            {
                work.heard_of_end(end);
            }
            work.measure(now);
            let standing = work.standing();
            tell_lag(standing.phase, *partition, standing.lag().unwrap_or(0));
            if standing.lag() != Some(0) {
                tell_pace(*partition, standing.rate, standing.seconds_left);
            }
            self.stores.put(*partition, standing);
        }
    }

    /// Tells of work that takes a while.
    fn tell(&self, now: Instant) {
        for (partition, Tracked { work, .. }) in &self.tracked {
            let standing = work.standing();
            let catches_up = standing.phase == Phase::Restoring || work.portion_bytes() > 0;
            if !catches_up || work.at_end() || work.elapsed(now) < TELL_EVERY {
                continue;
            }
            tracing::info!(
                partition,
                standby = standing.phase == Phase::Following,
                done = standing.restored,
                remaining = standing.lag(),
                rate = standing.rate,
                seconds_left = standing.seconds_left,
                "restoring"
            );
        }
    }

    /// The stores that were handed over: their tasks flush only when they commit.
    fn look_at_lent(&mut self) {
        let now_ms = self.upkeep.looked_ms;
        let mut failed = Vec::new();
        self.lent.retain(|partition, lent| {
            let Some(store) = lent.store() else {
                if !self.tracked.contains_key(partition) && !self.opening.contains_key(partition) {
                    self.stores.put(*partition, Standing::idle(lent.position));
                }
                return false;
            };
            if let Err(error) = lent.look(&store, now_ms) {
                failed.push((*partition, error));
            }
            true
        });
        for (partition, error) in failed {
            self.report(partition, error);
        }
    }

    fn look_at_tracked(&mut self) {
        let now_ms = self.upkeep.looked_ms;
        let mut failed = Vec::new();
        let mut quiet = None;
        for (partition, Tracked { work, .. }) in &self.tracked {
            if let Err(error) = work.store.flush_if_due() {
                failed.push((*partition, error));
            }
            let complete_ms = work.store.complete_ms().unwrap_or(now_ms);
            if work.at_end() && now_ms.saturating_sub(complete_ms) >= CONFIRM_EVERY_MS {
                quiet = Some(*partition);
            }
        }
        for (partition, error) in failed {
            self.failed(partition, error);
        }
        // One at a time: the question may take a second.
        if let Some(partition) = quiet {
            self.confirm(partition, now_ms);
        }
    }

    /// A standby that hears nothing asks whether there is nothing to hear.
    fn confirm(&mut self, partition: u32, now_ms: i64) {
        match self.changelog.ends(&[partition]).map(|ends| ends[0]) {
            Ok(ends) => {
                if let Some(Tracked { work, .. }) = self.tracked.get_mut(&partition)
                    && ends.stable <= work.position()
                {
                    work.reached_end(work.position());
                    work.confirm(now_ms);
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::debug!(partition, error, "the end of the changelog is not known");
            }
        }
    }
}
