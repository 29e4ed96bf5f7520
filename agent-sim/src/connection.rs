//! Where the reports go.

use common::{
    avro::Encoder,
    kafka,
    registry::{self, Registry},
    schema::{SITE_ATTACK_REPORT, SiteAttackReport},
    topics,
};
use rdkafka::ClientConfig;

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
        topics::wait_for(&self.kafka.client("agent-sim"), &topic).await?;
        Ok(registry.encoder(&topic, SITE_ATTACK_REPORT).await)
    }
}
