//! Where the reports go.

use std::time::Duration;

use anyhow::Context as _;
use common::{
    avro::Encoder,
    kafka,
    registry::{self, Registry},
    schema::{SITE_ATTACK_REPORT, SiteAttackReport},
    topics,
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, Producer as _},
};

/// Which application, which Kafka, which registry.
#[derive(Debug, Clone, clap::Args)]
// Several of these are called `Args`, which clap would take as the name of a group, twice.
#[group(skip)]
pub struct Args {
    /// Application the reports are for; they go to the topic `<application id>.reports`
    #[arg(
        long,
        env = "APPLICATION_ID",
        value_name = "ID",
        default_value = "site-attack",
        value_parser = topics::check_application_id
    )]
    pub application_id: String,
    /// Kafka.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// Schema registry.
    #[command(flatten)]
    pub registry: registry::Args,
}

impl Args {
    /// The topic the reports go to.
    #[must_use]
    pub fn topic(&self) -> String {
        topics::Names::of(&self.application_id).reports
    }

    /// Settings of the producer: librdkafka's own queue and batches do the work, so let them be
    /// large; whatever the user sets stands.
    #[must_use]
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.kafka.producer("agent-sim");
        let defaults = [
            ("linger.ms", "5"),
            ("compression.type", "lz4"),
            ("batch.size", "1000000"),
            ("queue.buffering.max.messages", "500000"),
        ];
        for (key, value) in defaults {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        config
    }

    /// Waits until the topic exists and the schema is registered, for as long as that takes: in a
    /// demo everything starts at once.
    ///
    /// # Errors
    /// When the settings make no client.
    pub async fn ready(&self) -> anyhow::Result<Encoder<SiteAttackReport>> {
        let registry = Registry::new(&self.registry)?;
        let topic = self.topic();
        let probe: BaseProducer = self
            .kafka
            .client("agent-sim-probe")
            .create()
            .context("the Kafka settings make no producer")?;
        let wanted = topic.clone();
        let mut pause = Duration::from_millis(100);
        let mut probe = Some(probe);
        loop {
            let Some(client) = probe.take() else { break };
            let name = wanted.clone();
            let asked = tokio::task::spawn_blocking(move || {
                let answer = exists(&client, &name);
                (client, answer)
            });
            let (client, answer) = asked.await.context("the question for the topic")?;
            match answer {
                Ok(true) => break,
                Ok(false) => tracing::warn!(
                    topic,
                    "the topic does not exist yet; the state service creates it; trying again"
                ),
                Err(error) => tracing::warn!(%error, "Kafka does not answer yet, trying again"),
            }
            probe = Some(client);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        Ok(registry.encoder(&topic, SITE_ATTACK_REPORT).await)
    }
}

/// Asks for all topics: asking for one by name makes some brokers create it, with their defaults.
fn exists(client: &BaseProducer, topic: &str) -> anyhow::Result<bool> {
    let metadata = client
        .client()
        .fetch_metadata(None, Duration::from_secs(5))?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    Ok(found.is_some_and(|t| !t.partitions().is_empty()))
}
