//! A worker's turn: news of the commit, timers, records, perhaps the next epoch.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{Ended, Worker, now_ms};
use crate::{
    commit::{CALL_ENDS_WITHIN, Outcome, Todo},
    epoch::Epoch,
    processor::{Failure, Processor},
    task::Load,
};

/// An epoch with so many records is ended, whatever they weigh.
const MOST_RECORDS: u64 = 1_000_000;
/// While records wait, epochs last so many times as long: an object that changes again within one costs no
/// further row. What comes of these records is late already.
pub(super) const LONGER_WHILE_BEHIND: u32 = 10;
/// A partition that publishes nothing for so long is quiet.
const QUIET: Duration = Duration::from_secs(2);
/// What it has published takes memory.
const KEPT_OUTPUTS: usize = 256 << 10;

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
            if now.duration_since(running.quiet_since) < QUIET {
                continue;
            }
            // Not again at once, if nobody can tell.
            running.quiet_since = now;
            if self.settings.published.bytes(*partition) >= KEPT_OUTPUTS {
                let (partition, digest) = (*partition, running.task.committed_digest());
                return self.hand_over(Todo::Confirm { partition, digest });
            }
        }
        Ok(())
    }

    pub(super) fn pending(&self) -> Load {
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
            self.turn_ended,
            self.commits.take(),
        )
    }

    /// How long to wait for something to do.
    pub(super) fn patience(&self) -> Duration {
        let interval = self.commit_interval();
        let left = interval.saturating_sub(self.last_cut.elapsed());
        left.clamp(Duration::from_millis(1), Duration::from_millis(10))
    }

    /// Ends the epoch and hands it to the committer, if anything happened.
    fn cut(&mut self) -> Result<(), Ended> {
        self.last_cut = Instant::now();
        self.turn_ended = false;
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
                        running.quiet_since = now;
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
/// the commit takes as long as they did of late. Half of the interval at least. While records wait, longer; but of a
/// partition that has had its turn, nothing more comes soon.
fn cut_after(
    interval: Duration,
    behind: bool,
    turn_ended: bool,
    commit_takes: Duration,
) -> Duration {
    match (behind, turn_ended) {
        (true, false) => interval * LONGER_WHILE_BEHIND,
        (true, true) => interval,
        (false, _) => interval - commit_takes.min(interval / 2),
    }
}

pub(super) fn fatal(failure: Failure) -> Ended {
    match failure {
        Failure::Store(error) => error.into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (100, false, false, 0, 100),
            (100, false, false, 13, 87),
            (100, false, false, 80, 50),
            (10, false, false, 30, 5),
            (100, false, true, 13, 87),
            (100, true, false, 13, 1_000),
            (100, true, true, 13, 100),
        ];
        for (interval, behind, turn_ended, takes, expected) in cases {
            let [interval, takes, expected] =
                [interval, takes, expected].map(Duration::from_millis);
            assert_eq!(cut_after(interval, behind, turn_ended, takes), expected);
        }
    }
}
