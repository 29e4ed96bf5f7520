//! The committer: one thread and one transactional producer for each worker.
//!
//! It takes an epoch, writes its changelog rows, outputs and source offsets in one transaction, and
//! then the rows to the stores. Meanwhile the worker processes the next epoch.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{kafka, topics::Names};
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::ConsumerGroupMetadata,
    error::KafkaError,
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig},
};

use crate::{
    epoch::{Destination, Epoch, Output, TaskEpoch},
    watchdog::Pulse,
};

mod way;

pub use way::{Way, classify, way};

/// How long one call to the broker may take before it is made again.
const CALL: Duration = Duration::from_secs(3);
/// A call that has not returned by then is not waited for. librdkafka's calls end in time but for
/// one: `send_offsets_to_transaction` may never return when the group's coordinator is a broker that
/// has left the cluster (librdkafka issues 5456 and 5511, open as of 2.12).
pub const CALL_ENDS_WITHIN: Duration = Duration::from_secs(6);

/// Separates a committer whose call does not end from the stores. Its producer will be fenced by the
/// next one with its id; but should the call return after all, what it knows is of the past.
#[derive(Debug, Clone, Default)]
pub struct Tie(Arc<Mutex<bool>>);

impl Tie {
    /// Cuts the tie; `false` if the committer is writing to the stores at this moment.
    #[must_use]
    pub fn cut(&self) -> bool {
        match self.0.try_lock() {
            Ok(mut is_cut) => {
                *is_cut = true;
                true
            }
            Err(_) => false,
        }
    }
}

/// What became of an epoch.
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
    /// It is committed, but a store cannot take it, and trying again would not help.
    Failed(String),
}

/// What delivery reports say of the transaction under way.
#[derive(Default)]
struct Deliveries {
    changelog: String,
    /// The offset after the last delivered row of each changelog partition.
    positions: Mutex<HashMap<i32, i64>>,
    failed: AtomicBool,
}

impl Deliveries {
    fn take_positions(&self) -> HashMap<i32, i64> {
        let positions = self.positions.lock();
        std::mem::take(&mut *positions.unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::Context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::Context.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) if message.topic() == self.changelog => {
                let mut positions = self
                    .positions
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let position = positions.entry(message.partition()).or_default();
                *position = (*position).max(message.offset() + 1);
            }
            Ok(_) => {}
            Err(_) => self.failed.store(true, Ordering::Release),
        }
    }
}

/// Writes epochs.
pub struct Committer {
    producer: BaseProducer<Deliveries>,
    names: Arc<Names>,
    group: Arc<ConsumerGroupMetadata>,
    committed: Arc<dyn Fn(&TaskEpoch) + Send + Sync>,
    stop: Arc<AtomicBool>,
    pulse: Pulse,
    tie: Tie,
}

impl Committer {
    /// A committer with its own producer. Nothing is asked of the broker yet. `committed` hears of
    /// every committed epoch once it is in its store; `stop` ends endless retries; `pulse` shows that
    /// it goes on.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(
        kafka: &kafka::Args,
        transactional_id: &str,
        names: Arc<Names>,
        group: Arc<ConsumerGroupMetadata>,
        committed: Arc<dyn Fn(&TaskEpoch) + Send + Sync>,
        stop: Arc<AtomicBool>,
        pulse: Pulse,
    ) -> anyhow::Result<Self> {
        let context = Deliveries {
            changelog: names.changelog.clone(),
            ..Deliveries::default()
        };
        let producer = transactional(kafka, transactional_id).create_with_context(context)?;
        Ok(Self {
            producer,
            names,
            group,
            committed,
            stop,
            pulse,
            tie: Tie::default(),
        })
    }

    /// Fences every former producer with this id, aborts what it left open, and waits for as long
    /// as that takes.
    ///
    /// # Errors
    /// When the id cannot be initialised at all.
    pub fn initialise(&self) -> anyhow::Result<()> {
        loop {
            self.pulse.beat();
            match self.producer.init_transactions(CALL) {
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

    /// Takes epochs until the channel closes.
    pub fn run(self, epochs: &mpsc::Receiver<Epoch>, outcomes: &mpsc::Sender<Outcome>) {
        loop {
            self.pulse.beat();
            match epochs.recv_timeout(Duration::from_millis(500)) {
                Ok(epoch) => {
                    let outcome = self.commit(&epoch);
                    if outcomes.send(outcome).is_err() {
                        return;
                    }
                }
                // Idle: errors and statistics want to be heard.
                Err(mpsc::RecvTimeoutError::Timeout) => self.producer.poll(Duration::ZERO),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit(&self, epoch: &Epoch) -> Outcome {
        let started = Instant::now();
        let outcome = match self.transaction(epoch) {
            Ok(()) => self.store(epoch),
            Err((Way::Abort, why)) => self.abort(why),
            Err((_, why)) => Outcome::Lost(why),
        };
        metrics::histogram!("commit_seconds").record(started.elapsed());
        let result = match &outcome {
            Outcome::Committed => "committed",
            Outcome::Aborted(_) => "aborted",
            Outcome::Lost(_) => "lost",
            Outcome::Failed(_) => "failed",
        };
        metrics::counter!("commits_total", "outcome" => result).increment(1);
        outcome
    }

    fn transaction(&self, epoch: &Epoch) -> Result<(), (Way, String)> {
        let deliveries = self.producer.context();
        deliveries.failed.store(false, Ordering::Release);
        deliveries.take_positions();
        self.call("begin", false, || self.producer.begin_transaction())?;
        let mut offsets = TopicPartitionList::new();
        for task in &epoch.tasks {
            let partition = kafka_partition(task.partition);
            for (key, value) in task.rows.iter() {
                self.send(&self.names.changelog, Some(partition), Some(key), value)?;
            }
            for output in &task.outputs {
                self.send_output(partition, output)?;
            }
            if let Some(offset) = task.next_offset {
                let added = offsets.add_partition_offset(
                    &self.names.reports,
                    partition,
                    Offset::Offset(offset),
                );
                added.map_err(|e| (Way::Abort, e.to_string()))?;
            }
        }
        self.deliver()?;
        if offsets.count() > 0 {
            self.call("send offsets", false, || {
                self.producer
                    .send_offsets_to_transaction(&offsets, &self.group, CALL)
            })?;
        }
        self.call("commit", true, || self.producer.commit_transaction(CALL))
    }

    fn send_output(&self, partition: i32, output: &Output) -> Result<(), (Way, String)> {
        let (topic, partition) = match output.to {
            Destination::States => (&self.names.states, Some(partition)),
            Destination::DeadLetters(_) => (&self.names.dead_letters, None),
            Destination::Source { partition } => {
                (&self.names.reports, Some(kafka_partition(partition)))
            }
        };
        self.send(
            topic,
            partition,
            output.key.as_deref(),
            output.value.as_deref(),
        )
    }

    fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), (Way, String)> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        if let Some(partition) = partition {
            record = record.partition(partition);
        }
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, returned)) if way(&error, false) == Way::Again => {
                    self.producer.poll(Duration::from_millis(5));
                    record = returned;
                }
                Err((error, _)) => {
                    return Err((way(&error, false), format!("produce to {topic}: {error}")));
                }
            }
        }
    }

    /// Waits until every record has been delivered or has failed.
    fn deliver(&self) -> Result<(), (Way, String)> {
        while self.producer.in_flight_count() > 0 {
            if self.stopping() {
                return Err((Way::Abort, "stopped while the broker was away".into()));
            }
            self.pulse.beat();
            self.producer.poll(Duration::from_millis(1));
        }
        if self.producer.context().failed.load(Ordering::Acquire) {
            return Err((Way::Abort, "a record was not delivered".into()));
        }
        Ok(())
    }

    /// Makes a call until it succeeds or fails for good.
    fn call(
        &self,
        name: &str,
        during_commit: bool,
        call: impl Fn() -> Result<(), KafkaError>,
    ) -> Result<(), (Way, String)> {
        loop {
            self.pulse.beat();
            let Err(error) = call() else { return Ok(()) };
            match way(&error, during_commit) {
                Way::Again if !self.stopping() => {
                    tracing::warn!(%error, "{name} not answered yet, asking again");
                    self.producer.poll(Duration::from_millis(20));
                }
                // An interrupted commit may have happened: never guess.
                Way::Again => return Err((Way::Close, format!("{name}: {error}"))),
                way => return Err((way, format!("{name}: {error}"))),
            }
        }
    }

    fn abort(&self, why: String) -> Outcome {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
        loop {
            self.pulse.beat();
            self.producer.poll(Duration::from_millis(1));
            let Err(error) = self.producer.abort_transaction(CALL) else {
                return Outcome::Aborted(why);
            };
            if way(&error, false) != Way::Again || self.stopping() {
                return Outcome::Lost(format!("{why}; abort: {error}"));
            }
        }
    }

    /// After the commit: rows and positions go to the stores.
    fn store(&self, epoch: &Epoch) -> Outcome {
        let is_cut = self.tie.0.lock();
        if *is_cut.unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Outcome::Lost("given up before the call returned".into());
        }
        let positions = self.producer.context().take_positions();
        for task in &epoch.tasks {
            if let Some(position) = positions.get(&kafka_partition(task.partition)) {
                let applied = task
                    .store
                    .apply_epoch(task, *position)
                    .and_then(|()| task.store.flush_if_due());
                if let Err(error) = applied {
                    // Committed, but not here: the changelog has it.
                    return match error.ends_the_instance() {
                        true => Outcome::Failed(error.to_string()),
                        false => Outcome::Lost(error.to_string()),
                    };
                }
            }
            (self.committed)(task);
        }
        Outcome::Committed
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Settings of a transactional producer.
#[must_use]
pub fn transactional(kafka: &kafka::Args, transactional_id: &str) -> rdkafka::ClientConfig {
    let mut config = kafka.producer(transactional_id);
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", "60000")
        // Offset calls are refused while the last transaction's markers are written; the
        // default pause of 100 ms before the next try would be the latency of every commit.
        .set("retry.backoff.ms", "5")
        .set("queue.buffering.max.messages", "1000000");
    config
}

fn kafka_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}
