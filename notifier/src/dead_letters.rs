//! The topic of what could not be mailed for good, with the original bytes.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use common::{
    avro::Encoder,
    kafka,
    registry::Registry,
    schema::{DEAD_LETTER, DeadLetter},
    topics,
};
use rdkafka::{ClientConfig, producer::FutureRecord};
use tokio::sync::OnceCell;

use crate::{config::Config, record::Record};

/// Writes dead letters.
pub struct DeadLetters {
    topic: String,
    writer: kafka::Writer,
    registry: Registry,
    /// Made for the first dead letter: a notifier without any starts without the registry.
    encoder: OnceCell<Encoder<DeadLetter>>,
}

impl DeadLetters {
    /// Makes sure that the topic exists.
    ///
    /// # Errors
    /// When it cannot be created, or exists with another clean-up policy.
    pub async fn open(config: &Config, registry: Registry) -> anyhow::Result<Self> {
        let topic = config.dead_letters();
        let kafka: ClientConfig = config.kafka.client("notifier-admin");
        let spec = topics::Spec {
            name: topic.clone(),
            partitions: 1,
            exact: false,
            compact: false,
            config: vec![topics::LARGE_RECORDS],
        };
        let timeout = Duration::from_secs(30);
        topics::ensure(&kafka, &[spec], config.replication_factor, timeout).await?;
        let settings = config.kafka.producer("notifier");
        let writer =
            kafka::Writer::new(&settings).context("the Kafka settings make no producer")?;
        Ok(Self {
            topic,
            writer,
            registry,
            encoder: OnceCell::new(),
        })
    }

    /// Writes `record` with the reason it is dead; comes back when the brokers have it. Tries for
    /// as long as that takes: give it up by dropping the future.
    ///
    /// # Errors
    /// When the letter cannot be encoded, which no input should bring about.
    pub async fn write(&self, record: &Record, reason: &str, detail: &str) -> anyhow::Result<()> {
        let encoder = self
            .encoder
            .get_or_init(|| self.registry.encoder(&self.topic, DEAD_LETTER))
            .await;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_ms = since_1970.unwrap_or_default().as_millis();
        let letter = DeadLetter {
            topic: record.topic.clone(),
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            key: record.key.clone(),
            value: record.value.clone(),
            failed_at_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
        };
        let value = encoder.encode(&letter)?;
        let mut pause = Duration::from_millis(200);
        loop {
            let mut to = FutureRecord::to(&self.topic).payload(&value);
            if let Some(key) = &record.key {
                to = to.key(key);
            }
            match self.writer.write(to).await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, topic = self.topic, "dead letter not written yet, trying again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}
