//! Reading the changelog: where to begin, and what comes.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::{
    Done,
    begin::{Begin, by_tables, where_to_begin},
    changelog::Ends,
    restorer::{Restorer, Tracked},
    work::Aim,
};
use crate::{fetch::Fetched, objects::LOOK_AHEAD};

/// An open transaction is looked at this often.
const OPEN_TRANSACTION: Duration = Duration::from_millis(20);
/// Whoever had it open is fenced, or has given the partition up in order: after so long, nobody ends it.
const LEFT_OPEN: Duration = Duration::from_secs(5);

impl Restorer {
    /// Asks for the ends of the partitions that need them, and begins to read.
    pub(super) fn begin_waiting(&mut self) {
        let now = Instant::now();
        let needs = |tracked: &Tracked| {
            let work = &tracked.work;
            let unresolved = work.aim() == Aim::RESTORE;
            let unread = !(work.reading || work.is_complete());
            unresolved || (unread && !(tracked.waits && self.others_are_read(work.aim(), now)))
        };
        let due = self.tracked.iter().filter(|(_, t)| t.again.at <= now);
        let needing = due.filter(|(_, tracked)| needs(tracked));
        let mut waiting: Vec<_> = needing
            .map(|(partition, tracked)| (tracked.work.aim() == Aim::Follow, *partition))
            .collect();
        // Tasks before standbys.
        waiting.sort_unstable();
        let waiting: Vec<u32> = waiting
            .into_iter()
            .map(|(_, partition)| partition)
            .collect();
        if waiting.is_empty() {
            return;
        }
        // All with one question; if there is no answer for one of them, those of the others shall not wait for that.
        let together = self.changelog.ends(&waiting);
        let together = together.map_err(|error| {
            tracing::debug!(error = format!("{error:#}"), "asking for each end alone");
        });
        for (place, partition) in waiting.into_iter().enumerate() {
            let ends = match &together {
                Ok(ends) => Ok(ends[place]),
                Err(()) => self.changelog.ends(&[partition]).map(|ends| ends[0]),
            };
            if let Err(error) = ends.and_then(|ends| self.begin(partition, ends)) {
                if let Some(tracked) = self.tracked.get_mut(&partition) {
                    tracked.again.failed(Instant::now());
                }
                let error = format!("{error:#}");
                tracing::warn!(partition, error, "restore waits for the brokers");
                // What the brokers do answer for shall not wait for what they do not.
                return;
            }
        }
    }

    /// Is there much to read for another store, so that one for this aim must wait? Each is read at once, as far as
    /// memory goes: all rows in one table need no merging, and their digest is known.
    fn others_are_read(&self, aim: Aim, now: Instant) -> bool {
        let mut read = self.tracked.values().filter(|t| t.work.is_sorted(now));
        read.any(|tracked| aim == Aim::Follow || tracked.work.aim() != Aim::Follow)
    }

    fn begin(&mut self, partition: u32, ends: Ends) -> anyhow::Result<()> {
        let aim = self.tracked.get(&partition).map(|t| t.work.aim());
        let now = Instant::now();
        let others_are_read = aim.is_some_and(|aim| self.others_are_read(aim, now));
        let Some(tracked) = self.tracked.get_mut(&partition) else {
            return Ok(());
        };
        let work = &mut tracked.work;
        let restoring = work.aim() == Aim::RESTORE;
        if !work.reading {
            let position = match work.store.is_empty() {
                Ok(empty) => (!empty || work.position() > 0).then_some(work.position()),
                Err(error) => {
                    self.failed(partition, error);
                    return Ok(());
                }
            };
            match where_to_begin(position, ends.low, ends.high) {
                Begin::Anew(reason) => {
                    let why = format!(
                        "its position is {}, the changelog has {} to {}",
                        work.position(),
                        ends.low,
                        ends.high
                    );
                    self.start_anew(partition, reason, why);
                    return Ok(());
                }
                Begin::At(offset) => {
                    let unseen = match work.store.unseen() {
                        Ok(unseen) => unseen.filter(|unseen| *unseen >= ends.low),
                        Err(error) => {
                            self.failed(partition, error);
                            return Ok(());
                        }
                    };
                    let resolved = restoring && ends.is_resolved();
                    let there = resolved && offset >= ends.stable && unseen.is_none();
                    let tables = by_tables(offset, ends.stable) && work.store.takes_tables();
                    tracked.waits = tables && others_are_read;
                    if !tracked.waits {
                        if !there {
                            let from = unseen.unwrap_or(offset);
                            self.changelog.read_from(partition, from)?;
                        }
                        work.begin(offset, unseen, ends.stable, tables, now);
                        work.reading = !there;
                    }
                }
            }
        }
        if restoring {
            if ends.is_resolved() {
                work.resolved(ends.stable);
            } else {
                tracked.again.at = now + OPEN_TRANSACTION;
                let (stable, high) = (ends.stable, ends.high);
                let Some((at, after)) = tracked.again.left_open else {
                    tracing::info!(
                        partition,
                        stable,
                        high,
                        "a transaction is still open on the changelog"
                    );
                    tracked.again.left_open = Some((now + LEFT_OPEN, LEFT_OPEN));
                    return Ok(());
                };
                if now >= at {
                    tracing::warn!(partition, stable, high, "nobody ends this transaction");
                    // To end it may disturb others: less and less often, if that does not help.
                    tracked.again.left_open = Some((now + after * 2, after * 2));
                    (self.done)(Done::LeftOpen(partition));
                }
            }
        }
        Ok(())
    }

    pub(super) fn read(&mut self) {
        let mut phases = self.tracked.values().filter(|tracked| tracked.work.reading);
        let Some(first) = phases.next() else { return };
        let hurry = |tracked: &Tracked| tracked.work.aim() != Aim::Follow;
        // A standby may wait for a whole batch; a task must not.
        let wait = if hurry(first) || phases.any(hurry) {
            Duration::from_millis(10)
        } else {
            Duration::from_millis(50)
        };
        let mut lost = false;
        let mut failed = Vec::new();
        let Some(batch) = self.changelog.next(wait) else {
            return;
        };
        let now = Instant::now();
        for messages in batch.chunks(LOOK_AHEAD) {
            messages.for_each_run(|partition, keys| {
                if let Some(tracked) = self.tracked.get(&partition) {
                    tracked.work.look_ahead(keys);
                }
            });
            for fetched in messages.iter() {
                match fetched {
                    Fetched::Record(partition, record) => {
                        if let Some(tracked) = self.tracked.get_mut(&partition) {
                            let work = &mut tracked.work;
                            let taken = work.take(record.offset, record.key, record.value, now);
                            if let Err(error) = taken {
                                failed.push((partition, error));
                            }
                        }
                    }
                    Fetched::End(end) => {
                        if let Some(tracked) = self.tracked.get_mut(&end.partition) {
                            tracked.work.reached_end(end.offset);
                        }
                    }
                    Fetched::Trouble(RDKafkaErrorCode::AutoOffsetReset, text) => {
                        tracing::warn!(text, "the changelog lacks an offset: looking at its ends");
                        lost = true;
                    }
                    Fetched::Trouble(code, text) => tracing::debug!(?code, text, "restore"),
                }
            }
        }
        drop(batch);
        for (partition, error) in failed {
            if self.tracked.contains_key(&partition) {
                self.failed(partition, error);
            }
        }
        if lost {
            self.begin_again(now);
        }
    }

    /// It is not said which partition lacks an offset: each is looked at.
    fn begin_again(&mut self, now: Instant) {
        for (partition, tracked) in &mut self.tracked {
            if std::mem::take(&mut tracked.work.reading) {
                self.changelog.stop_reading(*partition);
                // If it is read from the same place again, it is lost again.
                tracked.again.failed(now);
            }
        }
    }
}
