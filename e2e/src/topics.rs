//! What is in an application's topics, read and written without any of the services.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use common::avro::Decoder;
use common::registry::{self, Registry};
use common::schema::{self, DeadLetter, SiteAttackReport, State};
use common::topics::Names;
use common::{kafka, wire};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::FutureRecord;
use rdkafka::{Offset, TopicPartitionList};
use serde::de::DeserializeOwned;

use crate::story::until;

const CALL: Duration = Duration::from_secs(10);
/// Longest time to read a whole topic.
const READ: Duration = Duration::from_mins(1);

/// A record as it is in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its timestamp, in ms since 1970.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// The key as text.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }
}

/// The topics of one application.
pub struct Topics {
    names: Names,
    kafka: kafka::Args,
    registry: Registry,
    writer: kafka::Writer,
}

impl Topics {
    pub(crate) fn new(id: &str, bootstrap: &str, registry_url: &str) -> Result<Self> {
        let kafka = kafka::Args {
            bootstrap_servers: bootstrap.to_owned(),
            kafka: Vec::new(),
        };
        let registry = Registry::new(&registry::Args {
            schema_registry_url: registry_url.to_owned(),
            schema_registry_user: None,
            schema_registry_password: None,
            schema_registry_password_file: None,
            schema_registry_ca_file: None,
        })?;
        Ok(Self {
            names: Names::of(id),
            writer: writer(&kafka)?,
            kafka,
            registry,
        })
    }

    /// Their names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The registry, to encode and decode with.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The index of the broker that leads a partition, in a cluster of [`devkit::Kafka`].
    ///
    /// # Errors
    /// The brokers do not tell, or the partition has no leader.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<usize> {
        let client = self.writer.client();
        let metadata = client.fetch_metadata(Some(topic), crate::PATIENCE)?;
        let topics = metadata.topics().iter();
        let partitions = topics.flat_map(MetadataTopic::partitions);
        let leader = partitions
            .into_iter()
            .find(|found| found.id() == partition)
            .map(MetadataPartition::leader)
            .with_context(|| format!("{topic} has no partition {partition}"))?;
        // Brokers are numbered from 1.
        usize::try_from(leader - 1).with_context(|| format!("{topic}/{partition} has no leader"))
    }

    /// Gives a topic these settings, as an operator can; all others get the brokers' defaults.
    ///
    /// # Errors
    /// The brokers refuse it.
    pub async fn configure(&self, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.kafka.client("e2e").create()?;
        let wanted = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let wanted = settings
            .iter()
            .fold(wanted, |all, (key, value)| all.set(key, value));
        for result in admin.alter_configs([&wanted], &AdminOptions::new()).await? {
            result.map_err(|(_, code)| anyhow::anyhow!("settings of {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes a topic and makes it anew, empty and compacted, with as many partitions.
    ///
    /// # Errors
    /// The brokers refuse it.
    pub async fn recreate(&self, topic: &str) -> Result<()> {
        let partitions = self.ends(topic).await?.len();
        let admin: AdminClient<DefaultClientContext> = self.kafka.client("e2e").create()?;
        for result in admin.delete_topics(&[topic], &AdminOptions::new()).await? {
            result.map_err(|(_, code)| anyhow::anyhow!("deleting {topic}: {code}"))?;
        }
        self.create(topic, i32::try_from(partitions)?).await
    }

    /// Makes an empty, compacted topic, once the last one of that name is gone.
    ///
    /// # Errors
    /// The brokers refuse it.
    pub async fn create(&self, topic: &str, partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.kafka.client("e2e").create()?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = new.set("cleanup.policy", "compact");
        let created = async || {
            let created = admin.create_topics([&new], &AdminOptions::new()).await?;
            Ok(created.into_iter().all(|result| result.is_ok()))
        };
        // Deleting takes a moment.
        until("the topic is there", CALL, created, |done| *done).await?;
        Ok(())
    }

    /// Writes a record of any bytes, to this partition or the one of the key. Returns partition and offset.
    ///
    /// # Errors
    /// The brokers do not take it.
    pub async fn produce(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(i32, i64)> {
        let record = FutureRecord::<'_, [u8], [u8]> {
            topic,
            partition,
            payload: value,
            key,
            timestamp: None,
            headers: None,
        };
        let at = self.writer.write(record).await;
        let at = at.with_context(|| format!("a record for {topic}"))?;
        Ok((at.partition, at.offset))
    }

    /// Writes a report as an agent does. Returns partition and offset.
    ///
    /// # Errors
    /// The brokers or the registry do not take it.
    pub async fn report(&self, report: &SiteAttackReport) -> Result<(i32, i64)> {
        let topic = &self.names.reports;
        let encoder = self.registry.encoder(topic, schema::SITE_ATTACK_REPORT);
        let value = encoder.await.encode(report)?;
        let key = report.object_id.as_bytes();
        self.produce(topic, None, Some(key), Some(&value)).await
    }

    /// All committed records of a topic up to its end, by partition and offset.
    ///
    /// # Errors
    /// The topic does not exist, or cannot be read within a minute.
    pub async fn read(&self, topic: &str) -> Result<Vec<Record>> {
        let (kafka, topic) = (self.kafka.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || read(&kafka, &topic)).await?
    }

    /// The published states, by partition and offset; no state is a tombstone.
    ///
    /// # Errors
    /// The topic cannot be read, or a record of it not be decoded.
    pub async fn states(&self) -> Result<Vec<(Record, Option<State>)>> {
        self.decoded(&self.names.states, schema::STATE).await
    }

    /// The published states of one object, in their order.
    ///
    /// # Errors
    /// As for [`Self::states`].
    pub async fn states_of(&self, id: &str) -> Result<Vec<Option<State>>> {
        let all = self.states().await?.into_iter();
        let own = all.filter(|(record, _)| record.key.as_deref() == Some(id.as_bytes()));
        Ok(own.map(|(_, state)| state).collect())
    }

    /// The records that could not be processed.
    ///
    /// # Errors
    /// The topic cannot be read, or a record of it not be decoded.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let all = self.decoded(&self.names.dead_letters, schema::DEAD_LETTER);
        Ok(all
            .await?
            .into_iter()
            .filter_map(|(_, dead)| dead)
            .collect())
    }

    /// A topic's records with their values decoded.
    ///
    /// # Errors
    /// The topic cannot be read, or a record of it not be decoded.
    pub async fn decoded<T: DeserializeOwned>(
        &self,
        topic: &str,
        schema: &str,
    ) -> Result<Vec<(Record, Option<T>)>> {
        let decoder = Decoder::new(schema)?;
        let mut all = Vec::new();
        for record in self.read(topic).await? {
            let value = match &record.value {
                None => None,
                Some(value) => {
                    let (id, datum) = wire::split(value)?;
                    let writer = self.registry.resolve(id).await?;
                    Some(decoder.decode(&writer, datum)?)
                }
            };
            all.push((record, value));
        }
        Ok(all)
    }

    /// The offset after the last record of each partition, transactions' markers included.
    ///
    /// # Errors
    /// The topic does not exist, or the brokers do not answer.
    pub async fn ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let (kafka, topic) = (self.kafka.clone(), topic.to_owned());
        let look = move || {
            let consumer: BaseConsumer = kafka.consumer("e2e", "e2e").create()?;
            let ends = partitions(&consumer, &topic)?.into_iter().map(|partition| {
                let (_, end) = consumer.fetch_watermarks(&topic, partition, CALL)?;
                Ok((partition, end))
            });
            ends.collect()
        };
        tokio::task::spawn_blocking(look).await?
    }

    /// What a consumer group has committed of a topic; partitions without an offset are left out. The services'
    /// groups are the application id, and `<application id>.notifier`.
    ///
    /// # Errors
    /// The topic does not exist, or the brokers do not answer.
    pub async fn committed(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let config = self.kafka.consumer("e2e", group);
        let topic = topic.to_owned();
        let look = move || {
            let consumer: BaseConsumer = config.create()?;
            let mut wanted = TopicPartitionList::new();
            for partition in partitions(&consumer, &topic)? {
                wanted.add_partition(&topic, partition);
            }
            let found = consumer.committed_offsets(wanted, CALL)?;
            let mut offsets = BTreeMap::new();
            for element in found.elements() {
                if let Offset::Offset(offset) = element.offset() {
                    offsets.insert(element.partition(), offset);
                }
            }
            anyhow::Ok(offsets)
        };
        tokio::task::spawn_blocking(look).await?
    }

    /// Commits this offset of every partition of a topic, as a member of the group could.
    ///
    /// # Errors
    /// The topic does not exist, or the brokers refuse it.
    pub async fn commit(&self, group: &str, topic: &str, offset: i64) -> Result<()> {
        let config = self.kafka.consumer("e2e", group);
        let topic = topic.to_owned();
        let commit = move || {
            let consumer: BaseConsumer = config.create()?;
            let mut list = TopicPartitionList::new();
            for partition in partitions(&consumer, &topic)? {
                list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
            }
            anyhow::Ok(consumer.commit(&list, CommitMode::Sync)?)
        };
        tokio::task::spawn_blocking(commit).await?
    }
}

fn writer(kafka: &kafka::Args) -> Result<kafka::Writer> {
    let mut config = kafka.producer("e2e");
    config
        .set("linger.ms", "0")
        .set("message.timeout.ms", "30000");
    Ok(kafka::Writer::new(&config)?)
}

/// The partitions of a topic. All topics are asked for: asking for one by name may create it.
fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(None, CALL)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    let found = found.with_context(|| format!("there is no topic {topic}"))?;
    Ok(found
        .partitions()
        .iter()
        .map(MetadataPartition::id)
        .collect())
}

fn read(kafka: &kafka::Args, topic: &str) -> Result<Vec<Record>> {
    let mut config = kafka.consumer("e2e", "e2e");
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create()?;
    let mut assignment = TopicPartitionList::new();
    let mut open = partitions(&consumer, topic)?;
    ensure!(!open.is_empty(), "topic {topic} has no partitions");
    for partition in &open {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + READ;
    let mut records = Vec::new();
    while !open.is_empty() {
        if Instant::now() > deadline {
            bail!("topic {topic} was not read within {READ:?}; partitions left: {open:?}");
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => records.push(Record {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                timestamp_ms: message.timestamp().to_millis(),
            }),
            Some(Err(KafkaError::PartitionEOF(partition))) => open.retain(|p| *p != partition),
            Some(Err(error)) => return Err(error).context(format!("reading topic {topic}")),
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}
