//! Transactional producers: their settings, and how they get their id.

use std::time::Duration;

use common::kafka;
use rdkafka::{ClientConfig, error::KafkaResult, producer::Producer as _};

/// Makes this the only producer with its transactional id: fences every former one, and aborts what it left
/// open.
///
/// librdkafka looks for the coordinator at once; without a connection, as a client has none at first, only
/// half a second later again. So a connection is waited for, but no longer than that; and then for the next one,
/// because the first, to an address that has no broker's name yet, may be closed once the names are known.
///
/// # Errors
/// What librdkafka says.
pub fn claim_id(producer: &kafka::Producer, within: Duration) -> KafkaResult<()> {
    for _ in 0..2 {
        kafka::reaches_a_broker(producer.client(), Duration::from_millis(500));
    }
    producer.init_transactions(within)
}

/// Settings of a transactional producer.
#[must_use]
pub fn transactional(kafka: &kafka::Args, transactional_id: &str) -> ClientConfig {
    let mut config = kafka.producer(transactional_id);
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", "60000")
        // Offset calls are refused while the last transaction's markers are written; the
        // default pause of 100 ms before the next try would be the latency of every commit.
        .set("retry.backoff.ms", "2")
        // Records come in large batches as it is (see `rounds`).
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", "1000000");
    config
}
