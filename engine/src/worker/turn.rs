//! A worker's turn: news of the commit, timers, records, perhaps the next epoch.

use std::{
    collections::BTreeMap,
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{BATCH, Ended, Running, Worker, now_ms};
use crate::{
    commit::{CALL_ENDS_WITHIN, Outcome, Todo},
    epoch::Epoch,
    fetch::Fetched,
    intake::SourceRecord,
    lookup::Lookup,
    objects::LOOK_AHEAD,
    processor::{Failure, Processor},
    task::{Load, Progress},
};

/// An epoch with so many records is ended, whatever they weigh.
const MOST_RECORDS: u64 = 1_000_000;
/// A partition whose waiting records weigh so much is not fetched any further.
const KEPT_BYTES: usize = 4 << 20;
/// Records wait when there are so many: more than are read in some ten ms.
const BEHIND_BY: i64 = 10_000;
/// While records wait, epochs last so many times as long: an object that changes again within one costs no
/// further row. What comes of these records is late already.
const LONGER_WHILE_BEHIND: u32 = 10;
/// A partition that publishes nothing for so long is quiet.
const QUIET: Duration = Duration::from_secs(2);
/// What it has published takes memory.
const KEPT_OUTPUTS: usize = 256 << 10;
/// Objects may be large: fewer messages are taken at a time then, but so many at least.
const LEAST_BATCH: usize = 20;

/// A record kept back until its schema is known.
pub(super) struct Kept {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Kept {
    fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.value)
    }
}

/// How long commits take, as TCP reckons the time of a round trip (RFC 6298).
#[derive(Default)]
pub(super) struct Commits {
    mean: Duration,
    /// The mean distance from it.
    varies: Duration,
}

impl Commits {
    fn heard(&mut self, took: Duration) {
        self.varies = (self.varies * 7 + self.mean.abs_diff(took)) / 8;
        self.mean = (self.mean * 7 + took) / 8;
    }

    /// Hardly ever longer than this.
    fn take(&self) -> Duration {
        self.mean + self.varies * 2
    }
}

impl<P: Processor> Running<P> {
    /// Processes a record, or keeps it behind those that wait.
    fn take(
        &mut self,
        record: &SourceRecord<'_>,
        lookup: &mut Lookup,
        now_ms: i64,
    ) -> Result<(), Failure> {
        if !self.kept.is_empty() {
            self.kept.push_back(keep(record));
        } else if let Progress::NeedsSchema(id) = self.task.process(record, lookup, now_ms)? {
            tracing::debug!(id, "records wait for a schema");
            self.kept.push_back(keep(record));
        }
        Ok(())
    }
}

impl<P: Processor> Worker<P> {
    /// One round: news of the commit, timers, records, perhaps a cut.
    pub(super) fn turn(&mut self) -> Result<(), Ended> {
        if self.committing
            && let Ok(outcome) = self.outcomes.try_recv()
        {
            self.hear(outcome)?;
        }
        self.watch_committer()?;
        if self.committing && self.is_full() {
            // Back-pressure: the broker is slower than we are.
            return self.hear_within(self.patience());
        }
        let before = self.pending().records;
        let now_ms = now_ms();
        for running in self.tasks.values_mut() {
            running.task.fire_timers(now_ms).map_err(fatal)?;
        }
        self.offer_kept(now_ms)?;
        self.read(now_ms)?;
        let pending = self.pending();
        self.consumed.increment(pending.records - before);
        self.account
            .set(usize::try_from(pending.bytes).unwrap_or(usize::MAX));
        if !self.committing {
            self.confirm_quiet()?;
        }
        let due = self.last_cut.elapsed() >= self.commit_interval();
        if !self.committing && (due || self.is_full()) {
            self.cut()?;
        }
        Ok(())
    }

    /// What was published is kept until more is, in case that Kafka forgets it. Of a partition that publishes nothing for a
    /// while, that takes memory: the committer looks whether it is there for good.
    fn confirm_quiet(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        for (partition, running) in &mut self.tasks {
            if now.duration_since(running.published) < QUIET {
                continue;
            }
            // Not again at once, if nobody can tell.
            running.published = now;
            if self.settings.published.bytes(*partition) >= KEPT_OUTPUTS {
                let (partition, digest) = (*partition, running.task.committed_digest());
                return self.hand_over(Todo::Confirm { partition, digest });
            }
        }
        Ok(())
    }

    fn pending(&self) -> Load {
        self.tasks.values().map(|r| r.task.pending()).sum()
    }

    /// Has the epoch taken in as much as it may?
    fn is_full(&self) -> bool {
        !self.pending().is_within(Load {
            records: MOST_RECORDS,
            bytes: self.settings.epoch_bytes as u64,
        })
    }

    fn commit_interval(&self) -> Duration {
        cut_after(
            self.settings.commit_interval,
            self.behind,
            self.commits.take(),
        )
    }

    /// How long to wait for something to do.
    fn patience(&self) -> Duration {
        let interval = self.commit_interval();
        let left = interval.saturating_sub(self.last_cut.elapsed());
        left.clamp(Duration::from_millis(1), Duration::from_millis(10))
    }

    fn read(&mut self, now_ms: i64) -> Result<(), Ended> {
        let before = self.pending();
        let batch = self.fetcher.next_few(self.patience(), self.batch);
        let now = Instant::now();
        for messages in batch.chunks(LOOK_AHEAD) {
            messages.for_each_run(|partition, keys| {
                if let Some(running) = self.tasks.get(&partition) {
                    running.task.look_ahead(keys);
                }
            });
            for fetched in messages.iter() {
                let (partition, record) = match fetched {
                    Fetched::Record(partition, record) => (partition, record),
                    Fetched::End(_) => continue,
                    Fetched::Trouble(code, text) => {
                        tracing::debug!(?code, text, "source");
                        continue;
                    }
                };
                if let Some(running) = self.tasks.get_mut(&partition) {
                    running.read = Some((record.offset + 1, now));
                    let lookup = &mut self.settings.lookup;
                    running.take(&record, lookup, now_ms).map_err(fatal)?;
                }
            }
        }
        drop(batch);
        let lags = self.lags(now);
        self.behind = lags.values().sum::<i64>() >= BEHIND_BY;
        self.turns.choose(&lags, now);
        let after = self.pending();
        self.choose_batch(before, after);
        self.pace(now)
    }

    /// How many records of each partition wait.
    fn lags(&self, now: Instant) -> BTreeMap<u32, i64> {
        let topic = &self.settings.names.reports;
        let gives_within = self.settings.commit_interval * LONGER_WHILE_BEHIND;
        let lags = self.tasks.iter().filter_map(|(partition, running)| {
            let (offset, at) = running.read?;
            let end = self.fetcher.last_known_end(topic, *partition)?;
            // One that is halted is not asked to give any; one that waits for a schema has enough.
            let gave = match running.paused && !running.keeps_enough {
                true => Duration::ZERO,
                false => now.duration_since(at),
            };
            Some((*partition, waiting(end - offset, gave, gives_within)))
        });
        lags.collect()
    }

    /// A batch adds little to an epoch, also when each record asks for a large object.
    fn choose_batch(&mut self, before: Load, after: Load) {
        let records = after.records.saturating_sub(before.records);
        let bytes = after.bytes.saturating_sub(before.bytes);
        if let Some(each) = bytes.checked_div(records) {
            let fits = self.settings.epoch_bytes as u64 / 8 / each.max(1);
            let fits = usize::try_from(fits).unwrap_or(BATCH);
            self.batch = fits.clamp(LEAST_BATCH, BATCH);
        }
    }

    /// What has to wait is not fetched meanwhile: for a schema, or for other partitions.
    fn pace(&mut self, now: Instant) -> Result<(), Ended> {
        let topic = &self.settings.names.reports;
        for (partition, running) in &mut self.tasks {
            let bytes: usize = running.kept.iter().map(Kept::bytes).sum();
            if running.kept.len() >= BATCH || bytes >= KEPT_BYTES {
                running.keeps_enough = true;
            } else if running.kept.is_empty() {
                running.keeps_enough = false;
            }
            let pause = running.keeps_enough || self.turns.halts(*partition);
            if pause == running.paused {
                continue;
            }
            self.fetcher
                .set_paused(topic, *partition, pause)
                .map_err(|e| format!("pause or resume partition {partition}: {e}"))?;
            running.paused = pause;
            if let Some((_, at)) = &mut running.read {
                // What it gives comes from now on.
                *at = now;
            }
        }
        Ok(())
    }

    /// Offers records again that waited for a schema.
    fn offer_kept(&mut self, now_ms: i64) -> Result<(), Ended> {
        for running in self.tasks.values_mut() {
            while let Some(kept) = running.kept.front() {
                let record = SourceRecord {
                    offset: kept.offset,
                    timestamp_ms: kept.timestamp_ms,
                    key: kept.key.as_deref(),
                    value: kept.value.as_deref(),
                };
                let progress = running
                    .task
                    .process(&record, &mut self.settings.lookup, now_ms)
                    .map_err(fatal)?;
                if progress != Progress::Done {
                    break;
                }
                running.kept.pop_front();
            }
        }
        Ok(())
    }

    /// Ends the epoch and hands it to the committer, if anything happened.
    fn cut(&mut self) -> Result<(), Ended> {
        self.last_cut = Instant::now();
        let tasks = self.tasks.values_mut().map(|running| running.task.cut());
        let tasks: Vec<_> = tasks.flatten().collect();
        if tasks.is_empty() {
            return Ok(());
        }
        self.hand_over(Todo::Commit(Epoch { tasks }))
    }

    /// Hands the committer something to do; it has nothing under way.
    pub(super) fn hand_over(&mut self, todo: Todo) -> Result<(), Ended> {
        self.committing = true;
        self.epochs
            .send(todo)
            .map_err(|_| "the committer has ended".into())
    }

    /// Commits until nothing is left to commit.
    pub(super) fn settle(&mut self) -> Result<(), Ended> {
        loop {
            while self.committing {
                self.settings.pulse.beat();
                self.hear_within(Duration::from_secs(1))?;
            }
            self.cut()?;
            if !self.committing {
                return Ok(());
            }
        }
    }

    fn hear_within(&mut self, timeout: Duration) -> Result<(), Ended> {
        match self.outcomes.recv_timeout(timeout) {
            Ok(outcome) => self.hear(outcome),
            Err(mpsc::RecvTimeoutError::Timeout) => self.watch_committer(),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err("the committer has ended".into()),
        }
    }

    /// A call to the broker that does not end is given up: the next producer fences this one.
    fn watch_committer(&mut self) -> Result<(), Ended> {
        let passed = self.watched.elapsed();
        self.watched = Instant::now();
        let stuck = self.watchdog.look(passed, CALL_ENDS_WITHIN).is_some();
        if stuck && self.committing && self.tie.cut() {
            self.gave_up = true;
            return Err(
                format!("a call to the broker has not ended within {CALL_ENDS_WITHIN:?}").into(),
            );
        }
        Ok(())
    }

    fn hear(&mut self, outcome: Outcome) -> Result<(), Ended> {
        self.committing = false;
        match outcome {
            Outcome::Committed => {
                self.commits.heard(self.last_cut.elapsed());
                let now = Instant::now();
                for running in self.tasks.values_mut() {
                    if running.task.committed() {
                        running.published = now;
                    }
                }
                Ok(())
            }
            Outcome::Aborted(why) => {
                tracing::warn!(
                    why,
                    "transaction aborted: reading again from the last commit"
                );
                self.rewind()
            }
            Outcome::Done => Ok(()),
            Outcome::Lost(why) => Err(why.into()),
            Outcome::Failed(why) => Err(Ended {
                why,
                for_good: true,
            }),
        }
    }

    fn rewind(&mut self) -> Result<(), Ended> {
        let topic = self.settings.names.reports.clone();
        for (partition, running) in &mut self.tasks {
            running.task.abandon();
            running.kept.clear();
            (running.keeps_enough, running.paused) = (false, false);
            running.read = None;
            let offset = running.task.committed_offset();
            self.fetcher
                .unassign(&topic, *partition)
                .and_then(|()| self.fetcher.assign(&topic, *partition, offset))
                .and_then(|()| self.fetcher.set_paused(&topic, *partition, false))
                .map_err(|e| format!("rewind partition {partition}: {e}"))?;
        }
        Ok(())
    }
}

/// How long an epoch takes in records: so long that what comes of the first is committed after the interval, if
/// the commit takes as long as they did of late. Half of the interval at least.
fn cut_after(interval: Duration, behind: bool, commit_takes: Duration) -> Duration {
    match behind {
        true => interval * LONGER_WHILE_BEHIND,
        false => interval - commit_takes.min(interval / 2),
    }
}

/// How many of the records before a partition's end wait. Of a partition that gave none for long, none do: behind
/// an open transaction they cannot be read.
fn waiting(before_end: i64, last_gave: Duration, gives_within: Duration) -> i64 {
    match last_gave <= gives_within {
        true => before_end.max(0),
        false => 0,
    }
}

fn keep(record: &SourceRecord<'_>) -> Kept {
    Kept {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
    }
}

fn fatal(failure: Failure) -> Ended {
    match failure {
        Failure::Store(error) => error.into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_behind_an_open_transaction_are_not_waited_for() {
        let within = Duration::from_secs(1);
        assert_eq!(waiting(7, within, within), 7);
        assert_eq!(waiting(7, within * 2, within), 0);
        // The end is that of the broker's last answer.
        assert_eq!(waiting(-7, within, within), 0);
    }

    #[test]
    fn commits_take_what_they_took_and_more_if_they_vary() {
        let taken = |times: [u64; 2]| {
            let mut commits = Commits::default();
            for took in times.into_iter().cycle().take(200) {
                commits.heard(Duration::from_millis(took));
            }
            commits.take().as_millis()
        };
        assert_eq!(taken([10, 10]), 10);
        assert!((19..25).contains(&taken([5, 15])), "{}", taken([5, 15]));
    }

    #[test]
    fn what_was_heard_is_committed_within_the_interval() {
        let cases = [
            (100, false, 0, 100),
            (100, false, 13, 87),
            (100, false, 80, 50),
            (10, false, 30, 5),
            (100, true, 13, 1_000),
        ];
        for (interval, behind, takes, expected) in cases {
            let [interval, takes, expected] =
                [interval, takes, expected].map(Duration::from_millis);
            assert_eq!(cut_after(interval, behind, takes), expected);
        }
    }
}
