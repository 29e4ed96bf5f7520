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
    error::KafkaError,
};

use super::{Committer, kafka_partition};
use crate::epoch::Epoch;

/// How long one look may take.
const WITHIN: Duration = Duration::from_secs(3);

impl Committer {
    /// Does the changelog still have what the stores of these tasks have?
    pub(super) fn look_for_committed(&self, epoch: &Epoch) -> Result<(), String> {
        let mut unseen = BTreeMap::new();
        for task in &epoch.tasks {
            if let Some(offset) = task.store.unseen().map_err(|e| e.to_string())? {
                unseen.insert(kafka_partition(task.partition), offset);
            }
        }
        if unseen.is_empty() {
            return Ok(());
        }
        let consumer = self.settings.consumer.clone();
        all_there(consumer, &self.settings.names.changelog, &unseen)
    }
}

/// Looks for a committed record at or behind each of these offsets of `topic`.
///
/// # Errors
/// The first of them that is not there, or why nobody can tell.
pub fn all_there(
    mut config: ClientConfig,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
) -> Result<(), String> {
    config
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .set("auto.offset.reset", "error");
    let unknown = |error: KafkaError| format!("the changelog does not tell what it has: {error}");
    let consumer: kafka::Consumer = kafka::create(&config).map_err(unknown)?;
    let mut from = TopicPartitionList::new();
    for (partition, offset) in offsets {
        from.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .map_err(unknown)?;
    }
    consumer.assign(&from).map_err(unknown)?;
    let mut left = offsets.clone();
    let deadline = Instant::now() + WITHIN;
    while !left.is_empty() {
        if Instant::now() > deadline {
            return Err("the changelog does not tell in time what it has".into());
        }
        match consumer.poll(Duration::from_millis(100)) {
            None | Some(Err(KafkaError::MessageConsumption(_))) => {}
            Some(Ok(message)) => drop(left.remove(&message.partition())),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(offset) = left.get(&partition) {
                    return Err(format!(
                        "what was written before, up to offset {offset} of partition {partition} of \
                         the changelog, has been aborted with it"
                    ));
                }
            }
            Some(Err(error)) => return Err(unknown(error)),
        }
    }
    Ok(())
}
