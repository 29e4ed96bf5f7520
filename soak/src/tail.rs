//! Reads a topic again and again, each time what has been added since, committed records only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use common::kafka;
use e2e::topics::Record;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

/// How long one question to the brokers may take.
const CALL: Duration = Duration::from_secs(10);
/// How long it may take until no transaction is open, and to read what was added.
const PATIENCE: Duration = Duration::from_mins(1);

/// A reader of one topic from its beginning on.
pub struct Tail {
    topic: String,
    consumer: kafka::Consumer,
    uncommitted: kafka::Consumer,
    /// Where each partition goes on.
    next: BTreeMap<i32, i64>,
}

impl Tail {
    /// A reader of `topic`, which has so many partitions.
    ///
    /// # Errors
    /// The settings make no consumer.
    pub fn new(kafka: &kafka::Args, topic: &str, partitions: i32) -> Result<Self> {
        let mut config = kafka.consumer("soak", "soak");
        config.set("enable.partition.eof", "true");
        config.set("fetch.wait.max.ms", "20");
        let consumer = kafka::create(&config)?;
        config.set("isolation.level", "read_uncommitted");
        Ok(Self {
            topic: topic.to_owned(),
            consumer,
            uncommitted: kafka::create(&config)?,
            next: (0..partitions).map(|partition| (partition, 0)).collect(),
        })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Everything that was added, up to what is there now, by partition and offset. Waits until every transaction
    /// that has written until now has ended.
    ///
    /// # Errors
    /// A transaction stays open, or the brokers do not answer.
    pub fn advance(&mut self) -> Result<Vec<Record>> {
        let deadline = Instant::now() + PATIENCE;
        let mut goals = BTreeMap::new();
        for partition in self.next.keys() {
            let high = self.end(&self.uncommitted, *partition, deadline)?;
            goals.insert(*partition, high);
        }
        self.stable(&goals, deadline)?;
        let mut assignment = TopicPartitionList::new();
        for (partition, next) in &self.next {
            assignment.add_partition_offset(&self.topic, *partition, Offset::Offset(*next))?;
        }
        self.consumer.assign(&assignment)?;
        let mut records = Vec::new();
        let mut open: Vec<i32> = self.next.keys().copied().collect();
        while !open.is_empty() {
            if Instant::now() > deadline {
                bail!(
                    "topic {} was not read within {PATIENCE:?}; partitions left: {open:?}",
                    self.topic
                );
            }
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    timestamp_ms: message.timestamp().to_millis(),
                }),
                Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|p| *p != partition),
                // A broker that went or came; librdkafka finds it again.
                Some(Err(KafkaError::MessageConsumption(_))) => {}
                Some(Err(error)) => {
                    return Err(error).context(format!("reading topic {}", self.topic));
                }
            }
        }
        self.consumer.unassign()?;
        for record in &records {
            if let Some(next) = self.next.get_mut(&record.partition) {
                *next = (*next).max(record.offset + 1);
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        Ok(records)
    }

    /// Where a partition ends for this consumer: for one that reads committed records only, the last stable offset.
    fn end(&self, consumer: &kafka::Consumer, partition: i32, deadline: Instant) -> Result<i64> {
        loop {
            // Nothing is assigned: this only hears what is wrong with it.
            consumer.poll(Duration::ZERO);
            consumer.context().reconnect(consumer.client());
            match consumer.fetch_watermarks(&self.topic, partition, CALL) {
                Ok((_, end)) => return Ok(end),
                // Leaders change while brokers come back; it is found out by trying again.
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(format!("the end of topic {}", self.topic));
                }
                Err(_) => {
                    // A client that reads nothing does not notice that a leader has left.
                    drop(consumer.fetch_metadata(Some(&self.topic), CALL));
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    /// Waits until the last stable offsets have reached these.
    fn stable(&self, goals: &BTreeMap<i32, i64>, deadline: Instant) -> Result<()> {
        for (partition, goal) in goals {
            loop {
                let stable = self.end(&self.consumer, *partition, deadline)?;
                if stable >= *goal {
                    break;
                }
                if Instant::now() > deadline {
                    bail!(
                        "a transaction stays open on partition {partition} of {}: everything before offset {stable} \
                         can be read, and there is more up to {goal}",
                        self.topic
                    );
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}
