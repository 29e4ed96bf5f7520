//! Ends what Kafka has left open.
//!
//! A transaction that was reported as committed may stay open on a partition for good
//! (`docs/adr/0010-what-was-committed-is-looked-for.md`): the next marker of the same producer ends it. Where
//! nobody would write one, a transaction is made for that, and aborted. What was left open is aborted with
//! it; it is processed again, since the source goes on where the changelog ends.

use std::time::{Duration, Instant};

use common::{kafka, topics::Names};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::KafkaResult,
    producer::{BaseRecord, Producer as _},
};

/// How long one call to the broker may take.
const CALL: Duration = Duration::from_secs(5);

/// Ends what the producer with this transactional id, or one that had it before, has left open on this
/// partition of the application's topics and on the group's offset of it. `producer` is initialised, and
/// has nothing else under way.
///
/// # Errors
/// What librdkafka says: the producer is of no use then.
pub fn sweep(
    producer: &kafka::Producer,
    names: &Names,
    group: &ConsumerGroupMetadata,
    partition: u32,
) -> KafkaResult<()> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    producer.begin_transaction()?;
    for topic in [&names.changelog, &names.states, &names.reports] {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(number).key(b"");
        producer.send(record).map_err(|(error, _)| error)?;
    }
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&names.reports, number, Offset::Offset(0))?;
    producer.send_offsets_to_transaction(&offsets, group, CALL)?;
    // A marker is written to a partition that has been written to: it must have happened.
    let deadline = Instant::now() + CALL;
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        producer.poll(Duration::from_millis(10));
    }
    producer.abort_transaction(CALL)
}
