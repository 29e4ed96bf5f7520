//! What is in a topic, counted as fast as librdkafka hands it over; and the end of an application's topics.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use common::kafka;
use e2e::Application;
use engine::fetch::{Fetched, Fetcher};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;

const CALL: Duration = Duration::from_secs(30);
/// Longest time to read a topic.
const READ: Duration = Duration::from_mins(3);

/// The clients' settings for an application.
#[must_use]
pub fn clients(bootstrap: &str) -> kafka::Args {
    kafka::Args {
        bootstrap_servers: bootstrap.to_owned(),
        kafka: Vec::new(),
    }
}

/// The committed records of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// How many there are.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl Content {
    /// Bytes of a record, on average.
    #[must_use]
    pub fn mean_bytes(&self) -> f64 {
        self.bytes as f64 / self.records.max(1) as f64
    }
}

/// All topics whose names begin like this, with their partitions.
///
/// # Errors
/// The broker does not answer.
pub fn named(bootstrap: &str, prefix: &str) -> Result<Vec<(String, u32)>> {
    let consumer: kafka::Consumer = kafka::create(&clients(bootstrap).client("bench"))?;
    let metadata = consumer.fetch_metadata(None, CALL)?;
    let topics = metadata.topics().iter();
    let own = topics.filter(|topic| topic.name().starts_with(prefix));
    own.map(|topic| {
        let partitions = u32::try_from(topic.partitions().len())?;
        Ok((topic.name().to_owned(), partitions))
    })
    .collect()
}

/// Reads a topic from its beginning to its end.
///
/// # Errors
/// The broker does not answer, or not in time.
pub fn content(bootstrap: &str, topic: &str, partitions: u32) -> Result<Content> {
    let mut config = clients(bootstrap).consumer("bench", "bench-content");
    config.set("enable.partition.eof", "true");
    let mut fetcher = Fetcher::new(&config, 5_000)?;
    for partition in 0..partitions {
        fetcher.assign(topic, partition, 0)?;
    }
    let (started, mut ended, mut found) = (Instant::now(), 0, Content::default());
    while ended < partitions {
        ensure!(started.elapsed() < READ, "{topic} is not read in {READ:?}");
        for fetched in fetcher.next(Duration::from_millis(20)).iter() {
            match fetched {
                Fetched::Record(_, record) => {
                    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
                    found.records += 1;
                    found.bytes += length(record.key) + length(record.value);
                }
                Fetched::End(_) => ended += 1,
                Fetched::Trouble(code, why) => tracing::debug!(%code, why, "reading {topic}"),
            }
        }
    }
    Ok(found)
}

/// The changelog and the states of an application, of either system.
///
/// # Errors
/// There are none, or they cannot be read.
pub async fn produced(app: &Application) -> Result<(Content, Content)> {
    let (bootstrap, id) = (app.bootstrap().to_owned(), app.id().to_owned());
    let read = move || {
        let topics = named(&bootstrap, &id)?;
        let of = |end: &str| {
            let found = topics.iter().find(|(name, _)| name.ends_with(end));
            let (name, partitions) = found.with_context(|| format!("{id} has no {end}"))?;
            content(&bootstrap, name, *partitions)
        };
        Ok((of("changelog")?, of(".states")?))
    };
    tokio::task::spawn_blocking(read).await?
}

/// Deletes the topics of an application: a broker that keeps everything slows down.
///
/// # Errors
/// The broker refuses.
pub async fn delete_all(app: &Application) -> Result<()> {
    let topics = named(app.bootstrap(), app.id())?;
    let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let client = clients(app.bootstrap()).client("bench");
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let options = AdminOptions::new().operation_timeout(Some(CALL));
    for result in admin.delete_topics(&names, &options).await? {
        result.map_err(|(name, code)| anyhow::anyhow!("cannot delete {name}: {code}"))?;
    }
    Ok(())
}
