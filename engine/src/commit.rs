//! The committer: one thread and one transactional producer for each worker.
//!
//! It takes an epoch, writes its changelog rows, outputs and source offsets in one transaction, and
//! then the rows to the stores. Meanwhile the worker processes the next epoch.

use std::{
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{kafka, topics::Names};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList, consumer::ConsumerGroupMetadata, error::KafkaError,
    producer::Producer as _,
};

use crate::{
    epoch::{Epoch, TaskEpoch},
    offsets::kafka_partition,
    produce::{Producer, Topic},
    sweep::sweep,
    watchdog::Pulse,
};

mod client;
mod published;
mod rounds;
mod seen;
mod stall;
mod tie;
mod way;

pub use client::{claim_id, transactional};
pub use published::{Last, Published};
use rounds::Rounds;
pub use seen::{Missing, missing};
use stall::Stall;
pub use tie::Tie;
use way::{Refusals, words};
pub use way::{Way, classify, undelivered, way};

/// How long one call to the broker may take before it is made again.
const CALL: Duration = Duration::from_secs(3);
/// How long to wait for news of the broker before looking up.
const LOOK_UP: Duration = Duration::from_millis(100);
/// A call that has not returned by then is not waited for. librdkafka's calls end in time but for
/// one: `send_offsets_to_transaction` may never return when the group's coordinator is a broker that
/// has left the cluster (librdkafka issues 5456 and 5511, open as of 2.12).
pub const CALL_ENDS_WITHIN: Duration = Duration::from_secs(6);

/// What a committer is asked to do.
#[derive(Debug)]
pub enum Todo {
    /// Commit it.
    Commit(Epoch),
    /// End what is left open on this partition (see [`crate::sweep`]).
    Sweep(u32),
    /// Publish again what was published last, if it belongs to a store with this digest and is gone.
    PublishAgain {
        /// The partition.
        partition: u32,
        /// The digest of its store.
        digest: u64,
    },
    /// Forget what was published last, if it belongs to a store with this digest and is there for good.
    Confirm {
        /// The partition.
        partition: u32,
        /// The digest of its store.
        digest: u64,
    },
}

/// What became of it.
#[derive(Debug)]
pub enum Outcome {
    /// It is committed and in the stores.
    Committed,
    /// It is not committed, and nothing of it ever will be. The worker must read again from the
    /// last committed offsets.
    Aborted(String),
    /// Fenced, or nobody knows what became of it: the worker's tasks must be closed, and the
    /// producer made anew before anything else is done.
    Lost(String),
    /// What was asked for is done: it was no commit.
    Done,
    /// Trying again would not help: it is committed, but a store cannot take it; or it is not, because
    /// Kafka has refused it again and again.
    Failed(String),
}

/// What is written to.
#[derive(Clone, Copy)]
struct Topics {
    changelog: Topic,
    states: Topic,
    dead_letters: Topic,
    reports: Topic,
}

/// What a committer needs to know.
pub struct Settings {
    /// Settings of a consumer that can look at the changelog: reading committed records only.
    pub consumer: ClientConfig,
    /// The application's topics.
    pub names: Arc<Names>,
    /// The group whose offsets are committed.
    pub group: ConsumerGroupMetadata,
    /// What was published last.
    pub published: Arc<Published>,
    /// Hears of every committed epoch of a task once it is in its store.
    pub committed: Arc<dyn Fn(&TaskEpoch) + Send + Sync>,
    /// Ends endless retries.
    pub stop: Arc<AtomicBool>,
    /// Shows that the committer goes on.
    pub pulse: Pulse,
    /// Beats when brokers answer others of this instance.
    pub answers: Pulse,
}

/// Writes epochs.
pub struct Committer {
    producer: Producer,
    topics: Topics,
    settings: Settings,
    tie: Tie,
    refusals: Refusals,
}

impl Committer {
    /// A committer with its own producer. Nothing is asked of the broker yet.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(
        kafka: &kafka::Args,
        transactional_id: &str,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let config = transactional(kafka, transactional_id);
        let names = &settings.names;
        let written = [
            names.changelog.as_str(),
            &names.states,
            &names.dead_letters,
            &names.reports,
        ];
        let (producer, [changelog, states, dead_letters, reports]) =
            Producer::new(&config, written)?;
        Ok(Self {
            producer,
            topics: Topics {
                changelog,
                states,
                dead_letters,
                reports,
            },
            settings,
            tie: Tie::default(),
            refusals: Refusals::default(),
        })
    }

    /// Fences every former producer with this id, aborts what it left open, and waits for as long
    /// as that takes.
    ///
    /// # Errors
    /// When the id cannot be initialised at all.
    pub fn initialise(&self) -> anyhow::Result<()> {
        loop {
            self.settings.pulse.beat();
            match claim_id(self.producer.client(), CALL) {
                Ok(()) => return Ok(()),
                Err(e) if way(&e, false) == Way::Again && !self.stopping() => {
                    tracing::warn!(error = %e, "producer not initialised yet, trying again");
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// What can separate this committer from the stores.
    #[must_use]
    pub fn tie(&self) -> Tie {
        self.tie.clone()
    }

    /// Takes orders until the channel closes.
    pub fn run(mut self, todo: &mpsc::Receiver<Todo>, outcomes: &mpsc::Sender<Outcome>) {
        loop {
            self.settings.pulse.beat();
            match todo.recv_timeout(Duration::from_millis(500)) {
                Ok(todo) => {
                    let outcome = self.carry_out(&todo);
                    // Before the worker hears of it: it may use the memory again then.
                    drop(todo);
                    if outcomes.send(outcome).is_err() {
                        return;
                    }
                }
                // Idle: errors and statistics want to be heard.
                Err(mpsc::RecvTimeoutError::Timeout) => self.producer.serve(Duration::ZERO),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn carry_out(&mut self, todo: &Todo) -> Outcome {
        let done = match todo {
            Todo::Commit(epoch) => return self.commit(epoch),
            Todo::Sweep(partition) => self.sweep(*partition),
            Todo::PublishAgain { partition, digest } => self.publish_again(*partition, *digest),
            Todo::Confirm { partition, digest } => {
                self.confirm(*partition, *digest);
                Ok(())
            }
        };
        match done {
            Ok(()) => Outcome::Done,
            Err(why) => Outcome::Lost(why),
        }
    }

    fn commit(&mut self, epoch: &Epoch) -> Outcome {
        let started = Instant::now();
        let outcome = match self.transaction(epoch) {
            Ok(()) => {
                self.refusals.committed();
                self.store(epoch)
            }
            Err((Way::Abort, why)) => self.abort(epoch, why),
            Err((Way::Refused, why)) => {
                match (self.refusals.refused(&why), self.abort(epoch, why)) {
                    (Some(why), Outcome::Aborted(_)) => Outcome::Failed(why),
                    (_, aborted) => aborted,
                }
            }
            Err((_, why)) => Outcome::Lost(why),
        };
        metrics::histogram!("commit_seconds").record(started.elapsed());
        let result = match &outcome {
            Outcome::Committed => "committed",
            Outcome::Aborted(_) => "aborted",
            Outcome::Lost(_) => "lost",
            Outcome::Done => "done",
            Outcome::Failed(_) => "failed",
        };
        metrics::counter!("commits_total", "outcome" => result).increment(1);
        outcome
    }

    fn transaction(&mut self, epoch: &Epoch) -> Result<(), (Way, String)> {
        self.producer.forget_deliveries();
        self.call("begin", false, |producer, _| producer.begin_transaction())?;
        let mut offsets = TopicPartitionList::new();
        for task in &epoch.tasks {
            if let Some(offset) = task.next_offset {
                let added = offsets.add_partition_offset(
                    &self.settings.names.reports,
                    kafka_partition(task.partition),
                    Offset::Offset(offset),
                );
                added.map_err(|e| (Way::Abort, e.to_string()))?;
            }
        }
        // They may have to wait for the markers of the transaction before, and are asked for again every few ms. Records
        // that are sent meanwhile are refused like them, and librdkafka sends those again after 20 ms.
        if offsets.count() > 0 {
            self.call("send offsets", false, |producer, group| {
                producer.send_offsets_to_transaction(&offsets, group, CALL)
            })?;
        }
        let mut rounds = Rounds::of(epoch);
        while self.send_some(&mut rounds)? {
            self.deliver()?;
        }
        self.deliver()?;
        self.note_published(epoch)
            .map_err(|why| (Way::Close, why))?;
        self.call("commit", true, |producer, _| {
            producer.commit_transaction(CALL)
        })
    }

    fn note_published(&self, epoch: &Epoch) -> Result<(), String> {
        let _held = self.hold_tie()?;
        for task in &epoch.tasks {
            let end = self.position(self.topics.states, task);
            let published = &self.settings.published;
            published.delivered(task, end.map(|end| end - 1));
        }
        Ok(())
    }

    /// Makes sure, while it is held, that no other committer has the place of this one.
    fn hold_tie(&self) -> Result<MutexGuard<'_, bool>, String> {
        let is_cut = self.tie.hold();
        match *is_cut {
            true => Err("given up before the call returned".into()),
            false => Ok(is_cut),
        }
    }

    /// The offset behind the last record that was delivered to the task's partition of a topic.
    fn position(&self, topic: Topic, task: &TaskEpoch) -> Option<i64> {
        let partition = kafka_partition(task.partition);
        self.producer.position(topic, partition)
    }

    /// Waits until every record has been delivered or has failed.
    fn deliver(&mut self) -> Result<(), (Way, String)> {
        let mut stall = Stall::at(self.settings.answers.count(), self.producer.in_flight());
        while self.producer.in_flight() > 0 {
            if self.stopping() {
                return Err((Way::Abort, "stopped while the broker was away".into()));
            }
            if stall.is_stuck(self.settings.answers.count(), self.producer.in_flight()) {
                let why = "brokers answer, but none takes what this producer has to deliver";
                return Err((Way::Close, why.into()));
            }
            self.settings.pulse.beat();
            self.producer.serve(LOOK_UP);
        }
        match self.producer.failed() {
            Some(error) => Err((
                undelivered(error),
                format!("a record was not delivered: {error}"),
            )),
            None => Ok(()),
        }
    }

    /// Makes a call until it succeeds or fails for good.
    fn call(
        &mut self,
        name: &str,
        during_commit: bool,
        call: impl Fn(&kafka::Producer, &ConsumerGroupMetadata) -> Result<(), KafkaError>,
    ) -> Result<(), (Way, String)> {
        loop {
            self.settings.pulse.beat();
            let Err(error) = call(self.producer.client(), &self.settings.group) else {
                return Ok(());
            };
            match way(&error, during_commit) {
                Way::Again if !self.stopping() => {
                    tracing::warn!(%error, "{name} not answered yet, asking again");
                    self.producer.serve(Duration::from_millis(20));
                }
                // An interrupted commit may have happened: never guess.
                Way::Again => return Err((Way::Close, format!("{name}: {}", words(&error)))),
                way => return Err((way, format!("{name}: {}", words(&error)))),
            }
        }
    }

    /// What is on its way is waited for, never purged: the broker may have it, and librdkafka would give the
    /// numbers of those records to the next ones, which the broker then takes for repeats and drops.
    fn abort(&mut self, epoch: &Epoch, why: String) -> Outcome {
        loop {
            self.settings.pulse.beat();
            // The reports of what the call itself purges are heard between two calls.
            let patience = match self.producer.in_flight() {
                0 => CALL,
                _ => LOOK_UP,
            };
            let Err(error) = self.producer.client().abort_transaction(patience) else {
                return match self.look_for_committed(epoch) {
                    Ok(()) => Outcome::Aborted(why),
                    Err(worse) => Outcome::Lost(format!("{why}; {worse}")),
                };
            };
            if way(&error, false) != Way::Again || self.stopping() {
                return Outcome::Lost(format!("{why}; abort: {}", words(&error)));
            }
            self.producer.serve(LOOK_UP);
        }
    }

    fn sweep(&self, partition: u32) -> Result<(), String> {
        let Settings { names, group, .. } = &self.settings;
        sweep(self.producer.client(), names, group, partition)
            .map_err(|error| format!("sweep partition {partition}: {error}"))
    }

    /// After the commit: rows and positions go to the stores.
    fn store(&self, epoch: &Epoch) -> Outcome {
        // Held until the stores are written: meanwhile nobody can cut the tie.
        let _held = match self.hold_tie() {
            Ok(held) => held,
            Err(why) => return Outcome::Lost(why),
        };
        for task in &epoch.tasks {
            self.settings.published.committed(task.partition);
        }
        for task in &epoch.tasks {
            let Some(store) = task.store.upgrade() else {
                return Outcome::Lost("its store is closed".into());
            };
            if let Some(position) = self.position(self.topics.changelog, task)
                && let Err(error) = store.apply_epoch(task, position)
            {
                // Committed, but not on disk: the changelog has it.
                return match error.ends_the_instance() {
                    true => Outcome::Failed(error.to_string()),
                    false => Outcome::Lost(error.to_string()),
                };
            }
            (self.settings.committed)(task);
        }
        Outcome::Committed
    }

    fn stopping(&self) -> bool {
        self.settings.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
