//! Settings of the Kafka clients. Whatever librdkafka understands can be passed through untouched.

mod lost;
mod writer;

pub use lost::reaches_a_broker;
pub use writer::Writer;

use std::{str::FromStr, sync::Arc, time::Instant};

use rdkafka::{
    ClientConfig, ClientContext,
    client::Client,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, ProducerContext},
};

use crate::topics::LARGEST_RECORD_BYTES;

/// How to reach Kafka.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kafka")]
// Several structs are called `Args`, and clap would take that for one group.
#[group(skip)]
pub struct Args {
    /// Brokers to start from, as host:port, separated by commas
    #[arg(
        long,
        env = "KAFKA_BOOTSTRAP",
        value_name = "HOST:PORT",
        default_value = "localhost:9092"
    )]
    pub bootstrap_servers: String,
    /// A setting of librdkafka, passed through untouched; repeatable. In the environment,
    /// separated by `;`; in the file, a table: `kafka.security.protocol = "SASL_SSL"`
    #[arg(
        long,
        env = "KAFKA_SETTINGS",
        value_name = "KEY=VALUE",
        value_delimiter = ';',
        hide_env_values = true
    )]
    pub kafka: Vec<Setting>,
}

/// What clients log: trouble once, in a sentence; what is not trouble, not at all. And what helps a
/// client that has lost all its brokers: see [`Self::reconnect`].
#[derive(Debug, Clone)]
pub struct Context {
    servers: Arc<str>,
    look: Arc<lost::Look>,
}

/// Makes a client with a [`Context`].
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn create<T: FromClientConfigAndContext<Context>>(config: &ClientConfig) -> KafkaResult<T> {
    let mut config = config.clone();
    if config.get("debug").is_some() {
        // rdkafka asks for less than that otherwise, whatever the setting says.
        config.set_log_level(RDKafkaLogLevel::Debug);
    }
    config.create_with_context(Context::of(&config))
}

impl Context {
    /// The context of a client with these settings.
    #[must_use]
    pub fn of(config: &ClientConfig) -> Self {
        Self {
            servers: config.get("bootstrap.servers").unwrap_or_default().into(),
            look: Arc::default(),
        }
    }

    /// To be called now and then by whoever polls the client of this context: every few seconds the brokers
    /// are asked about its topics, and a client that has lost all brokers is told of them again.
    pub fn reconnect<C: ClientContext>(&self, client: &Client<C>) {
        if self.look.is_due(Instant::now()) {
            lost::look(client, &self.servers);
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // librdkafka tries again by itself; what it cannot mend comes back as an error of a
            // call, and is logged where that is handled. To be fenced, for one, is no error here.
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "librdkafka"),
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            // Told by the log as well, and handled where the call fails.
            _ => tracing::debug!(%error, reason, "librdkafka"),
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A consumer that is polled by hand.
pub type Consumer = BaseConsumer<Context>;

/// A producer that is polled by hand and needs no delivery reports.
pub type Producer = BaseProducer<Context>;

/// One `key=value` for librdkafka. `Debug` hides the value of anything that sounds secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// librdkafka's name, such as `security.protocol`.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Setting {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("write key=value, for example security.protocol=SSL")?;
        if RESERVED.contains(&key) {
            return Err(format!("{key} belongs to the service and cannot be set"));
        }
        Ok(Self {
            key: key.trim().to_owned(),
            value: value.to_owned(),
        })
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = ["password", "secret", "key.pem", "jaas"];
        let hidden = secret.iter().any(|word| self.key.contains(word));
        write!(
            f,
            "{}={}",
            self.key,
            if hidden { "***" } else { &self.value }
        )
    }
}

/// What exactly-once and the design itself decide.
const RESERVED: [&str; 10] = [
    "group.id",
    "transactional.id",
    "isolation.level",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "auto.offset.reset",
    "partitioner",
    "message.max.bytes",
    "bootstrap.servers",
];

impl Args {
    /// Settings of a client named `client_id`, with the user's own on top.
    #[must_use]
    pub fn client(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", client_id)
            // A broker that comes back is found at once, not after the default 10 s.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.fast.interval.ms", "100");
        for Setting { key, value } in &self.kafka {
            config.set(key, value);
        }
        config
    }

    /// Settings of a consumer that reads committed records only and never commits by itself.
    #[must_use]
    pub fn consumer(&self, client_id: &str, group_id: &str) -> ClientConfig {
        let mut config = self.client(client_id);
        config
            .set("group.id", group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            // The default of 1000 stalls a consumer for a second whenever its queue has been full; and a batch is
            // processed in a few ms.
            .set("fetch.queue.backoff.ms", "1");
        config
    }

    /// Settings of an idempotent producer that chooses partitions as Java's does. What it may write
    /// is bounded by the topics.
    #[must_use]
    pub fn producer(&self, client_id: &str) -> ClientConfig {
        let mut config = self.client(client_id);
        config
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", LARGEST_RECORD_BYTES.to_string());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_settings_through_and_keeps_its_own() {
        let args = Args {
            bootstrap_servers: "broker:9092".into(),
            kafka: vec!["security.protocol=SASL_SSL".parse().unwrap()],
        };
        let consumer = args.consumer("c", "g");
        assert_eq!(consumer.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        assert!("group.id=mine".parse::<Setting>().is_err());
        assert!("no-value".parse::<Setting>().is_err());
    }

    #[test]
    fn shows_no_secret() {
        let setting: Setting = "sasl.password=hunter2".parse().unwrap();
        assert_eq!(format!("{setting:?}"), "sasl.password=***");
    }
}
