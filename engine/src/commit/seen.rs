//! Is what Kafka said it has committed really there?
//!
//! Normally nobody needs to ask. But what a transaction wrote to a partition without a leader may have been
//! left open although the commit was reported (`docs/adr/0010-what-was-committed-is-looked-for.md`); the
//! end of the next transaction on that partition decides about it then, and an abort takes it away.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use common::kafka;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList, consumer::Consumer as _,
    error::KafkaError, producer::Producer as _,
};

use super::{CALL, Committer, Way, rounds::goes_on};
use crate::{
    epoch::{Destination, Epoch},
    offsets::{self, kafka_partition},
    produce::Message,
};

/// How long one look may take.
const WITHIN: Duration = Duration::from_secs(3);

/// Offsets, by partition.
type Offsets = BTreeMap<i32, i64>;

/// A record that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Its offset.
    pub offset: i64,
    /// Has nobody ended its transaction, or one before it? Then it may come yet.
    pub open: bool,
}

impl Committer {
    /// After an abort: do the topics still have what was committed before it?
    pub(super) fn look_for_committed(&self, epoch: &Epoch) -> Result<(), String> {
        let (rows, outputs) = self.committed_before(epoch)?;
        let names = &self.settings.names;
        for (topic, offsets) in [(&names.changelog, &rows), (&names.states, &outputs)] {
            let consumer = self.settings.consumer.clone();
            let missing = missing(consumer, topic, offsets)?;
            if let Some((partition, missing)) = missing.first_key_value() {
                return Err(format!(
                    "what was written before, up to offset {} of partition {partition} of {topic}, has been \
                     aborted with it",
                    missing.offset
                ));
            }
        }
        Ok(())
    }

    /// The offsets of the last records in the changelog and of the last outputs, by partition.
    fn committed_before(&self, epoch: &Epoch) -> Result<(Offsets, Offsets), String> {
        let _held = self.hold_tie()?;
        let (mut rows, mut outputs) = (Offsets::new(), Offsets::new());
        for task in &epoch.tasks {
            let partition = kafka_partition(task.partition);
            if let Some(offset) = self.settings.published.aborted(task.partition) {
                outputs.insert(partition, offset);
            }
            let store = task.store.upgrade().ok_or("its store is closed")?;
            if let Some(offset) = store.unseen().map_err(|e| e.to_string())? {
                rows.insert(partition, offset);
            }
        }
        Ok((rows, outputs))
    }

    /// Publishes again what the last epoch of a partition published, if its store has this digest, and the
    /// output topic does not have it.
    pub(super) fn publish_again(&mut self, partition: u32, digest: u64) -> Result<(), String> {
        let Some(last) = self.settings.published.last(partition, digest) else {
            return Ok(());
        };
        let number = kafka_partition(partition);
        let offsets = Offsets::from([(number, last.offset)]);
        let look = |committer: &Self| {
            let consumer = committer.settings.consumer.clone();
            let found = missing(consumer, &committer.settings.names.states, &offsets);
            found.map(|missing| missing.into_values().next())
        };
        let mut found = look(self)?;
        if found.is_some_and(|missing| missing.open) {
            self.sweep(partition)?;
            found = look(self)?;
        }
        if found.is_none() {
            return Ok(());
        }
        let outputs = last.outputs.iter();
        let outputs = outputs.filter(|output| output.to == Destination::States);
        let outputs = outputs.map(|output| (output.key, output.value));
        let sent = self.send_alone(number, outputs);
        let offset = sent.map_err(|(_, why)| format!("publish again: {why}"))?;
        tracing::error!(
            partition,
            offset = last.offset,
            again = offset,
            "the last outputs were never committed, though Kafka had said so: they are published again"
        );
        self.settings.published.put(partition, last.at(offset));
        Ok(())
    }

    /// Forgets what the last epoch of a partition published, if the output topic has it for good.
    pub(super) fn confirm(&self, partition: u32, digest: u64) {
        let published = &self.settings.published;
        let Some(last) = published.last(partition, digest) else {
            return;
        };
        let offsets = Offsets::from([(kafka_partition(partition), last.offset)]);
        let consumer = self.settings.consumer.clone();
        match missing(consumer, &self.settings.names.states, &offsets) {
            Ok(missing) if missing.is_empty() => published.forget(partition),
            // Whoever needs them looks for them again.
            Ok(_) => tracing::warn!(partition, "the last outputs are not there yet"),
            Err(why) => tracing::debug!(partition, why, "are the last outputs there?"),
        }
    }

    /// Commits outputs in a transaction of their own; returns the offset of the last.
    fn send_alone<'o>(
        &mut self,
        partition: i32,
        outputs: impl Iterator<Item = Message<'o>>,
    ) -> Result<i64, (Way, String)> {
        self.producer.forget_deliveries();
        self.call("begin", false, |producer, _| producer.begin_transaction())?;
        let goes_on = || goes_on(&self.settings);
        let states = self.topics.states;
        let produced = self
            .producer
            .produce(states, Some(partition), outputs, goes_on);
        produced.map_err(|e| (Way::Close, e.to_string()))?;
        self.deliver()?;
        self.call("commit", true, |producer, _| {
            producer.commit_transaction(CALL)
        })?;
        let position = self.producer.position(states, partition);
        position
            .map(|position| position - 1)
            .ok_or_else(|| (Way::Close, "nothing was delivered".into()))
    }
}

/// Looks for a committed record at or behind each of these offsets of `topic`; returns what is missing, by
/// partition.
///
/// # Errors
/// Why nobody can tell.
pub fn missing(
    mut config: ClientConfig,
    topic: &str,
    offsets: &Offsets,
) -> Result<BTreeMap<i32, Missing>, String> {
    let mut found = BTreeMap::new();
    if offsets.is_empty() {
        return Ok(found);
    }
    config
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .set("auto.offset.reset", "error");
    let unknown = |error: KafkaError| format!("{topic} does not tell what it has: {error}");
    let consumer: kafka::Consumer = kafka::create(&config).map_err(unknown)?;
    let partitions: Vec<i32> = offsets.keys().copied().collect();
    let stable = offsets::ask(&consumer, topic, &partitions, Offset::End, CALL);
    let stable = stable.map_err(|why| format!("{topic} does not tell where it ends: {why:#}"))?;
    let mut from = TopicPartitionList::new();
    let mut left = Offsets::new();
    for ((partition, offset), stable) in offsets.iter().zip(stable) {
        let (partition, offset) = (*partition, *offset);
        if stable <= offset {
            // Not to be read: librdkafka tells the end of a partition to who reads up to it, and not to who
            // begins behind it.
            found.insert(partition, Missing { offset, open: true });
            continue;
        }
        left.insert(partition, offset);
        from.add_partition_offset(topic, partition, Offset::Offset(offset))
            .map_err(unknown)?;
    }
    consumer.assign(&from).map_err(unknown)?;
    let deadline = Instant::now() + WITHIN;
    let mut heard = "nothing".to_owned();
    while !left.is_empty() {
        if Instant::now() > deadline {
            return Err(format!(
                "{topic} does not tell in time what it has from {left:?} on; heard last: {heard}"
            ));
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => drop(left.remove(&message.partition())),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(offset) = left.remove(&partition) {
                    let open = false;
                    found.insert(partition, Missing { offset, open });
                }
            }
            Some(Err(error @ KafkaError::MessageConsumption(_))) => heard = error.to_string(),
            Some(Err(error)) => return Err(unknown(error)),
        }
    }
    Ok(found)
}
