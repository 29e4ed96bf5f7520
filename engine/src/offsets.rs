//! Partitions as Kafka's protocol has them, and where they begin and end.

use std::time::Duration;

use anyhow::{Context as _, bail};
use common::kafka;
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _};

/// Asks for `which` offset, [`Offset::Beginning`] or [`Offset::End`], of these partitions of a topic; answers in
/// their order. A client that reads committed records is told the last stable offset for the end: that of the
/// first record whose transaction is open.
///
/// It is one question to each broker, for all partitions that it leads; each answer may have to wait for that to a
/// fetch of this client.
///
/// # Errors
/// When a partition is not answered for within the time.
pub(crate) fn ask(
    client: &kafka::Consumer,
    topic: &str,
    partitions: &[i32],
    which: Offset,
    within: Duration,
) -> anyhow::Result<Vec<i64>> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, *partition, which)?;
    }
    let answer = client.offsets_for_times(list, within);
    let answer = answer.with_context(|| format!("asking for offsets of {topic}"))?;
    let offset = |partition: &i32| {
        let found = answer.find_partition(topic, *partition);
        let found = found.context("the broker does not name the partition")?;
        found.error()?;
        match found.offset() {
            Offset::Offset(offset) => Ok(offset),
            other => bail!("the broker says that a partition ends at {other:?}"),
        }
    };
    partitions.iter().map(offset).collect()
}

/// The number of a partition in Kafka's protocol.
pub(crate) fn kafka_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}
