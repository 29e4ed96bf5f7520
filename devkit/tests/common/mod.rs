//! Kafka clients as the tests need them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

/// More than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set("topic.metadata.refresh.fast.interval.ms", "50");
    config
}

pub(crate) async fn create_topic(bootstrap: &str, name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    admin
        .create_topics(&[topic], &options)
        .await
        .unwrap()
        .remove(0)
        .unwrap();
}

pub(crate) fn producer(bootstrap: &str) -> BaseProducer {
    config(bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create()
        .unwrap()
}

pub(crate) fn transactional(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = config(bootstrap)
        .set("transactional.id", id)
        .set("linger.ms", "0")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

pub(crate) fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &str) {
    producer
        .send(
            BaseRecord::<(), str>::to(topic)
                .partition(partition)
                .payload(value),
        )
        .map_err(|(e, _)| e)
        .unwrap();
}

/// Everything committed in the first `count` records of all partitions, sorted.
pub(crate) fn consume(bootstrap: &str, topic: &str, partitions: i32, count: usize) -> Vec<String> {
    let mut config = config(bootstrap);
    config
        .set("group.id", "unused")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut values = Vec::new();
    while values.len() < count && Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            values.push(String::from_utf8_lossy(message.payload().unwrap()).into_owned());
        }
    }
    values.sort();
    values
}

/// The ports of the brokers that clients are told of.
pub(crate) fn told_ports(bootstrap: &str) -> Vec<i32> {
    let metadata = producer(bootstrap)
        .client()
        .fetch_metadata(None, PATIENCE)
        .unwrap();
    metadata
        .brokers()
        .iter()
        .map(rdkafka::metadata::MetadataBroker::port)
        .collect()
}

/// Waits for something to become true.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
