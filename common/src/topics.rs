//! The topics of an application: their names, and that they exist as they must be.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
    producer::{BaseProducer, Producer as _},
};

/// What a record that a service writes may have at most, with all that is around it. Brokers take about
/// 1 MiB by default, which a dead letter of a record of that size, or the row of an object that very
/// many report on, does not fit into. Managed clusters may not allow more than this.
pub const LARGEST_RECORD_BYTES: usize = 8 << 20;

/// The setting of a topic that takes [`LARGEST_RECORD_BYTES`].
pub const LARGE_RECORDS: (&str, &str) = (MAX_MESSAGE_BYTES, "8388608");

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// The topics of one application, named after its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Source: reports and commands, `<id>.reports`.
    pub reports: String,
    /// Output: transitions, `<id>.states`.
    pub states: String,
    /// Internal: every row of every task's store, `<id>.changelog`.
    pub changelog: String,
    /// Internal: what each instance says of itself, `<id>.instances`.
    pub instances: String,
    /// Internal: the assignment in force, `<id>.plans`.
    pub plans: String,
    /// Source records that could not be processed, `<id>.dead-letters`.
    pub dead_letters: String,
}

impl Names {
    /// The topics of the application `application_id`.
    #[must_use]
    pub fn of(application_id: &str) -> Self {
        let name = |what: &str| format!("{application_id}.{what}");
        Self {
            reports: name("reports"),
            states: name("states"),
            changelog: name("changelog"),
            instances: name("instances"),
            plans: name("plans"),
            dead_letters: name("dead-letters"),
        }
    }
}

/// Is `id` usable as an application id, that is as the first part of topic names?
///
/// # Errors
/// One sentence with the rule.
pub fn check_application_id(id: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if id.is_empty() || id.len() > 200 || !id.chars().all(legal) {
        return Err(
            "an application id is 1 to 200 of a-z, A-Z, 0-9, '.', '_' and '-' (it starts topic names)"
                .into(),
        );
    }
    Ok(id.to_owned())
}

/// What a topic must be.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Partitions to create it with; an existing topic must have as many if `exact`.
    pub partitions: u32,
    /// Must an existing topic have exactly `partitions`? Otherwise its own count is taken.
    pub exact: bool,
    /// `cleanup.policy`: keep the last value per key, or everything for the retention time.
    pub compact: bool,
    /// Further settings used when the topic is created. An existing topic that takes smaller records
    /// only than `max.message.bytes` says here is warned of.
    pub config: Vec<(&'static str, &'static str)>,
}

/// Creates what is missing, checks what is there, and returns the partitions of each topic.
///
/// # Errors
/// As for [`Topics::look`] and [`Topics::ensure`].
pub async fn ensure(
    kafka: &ClientConfig,
    topics: &[Spec],
    replication: i32,
    timeout: Duration,
) -> anyhow::Result<Vec<u32>> {
    let look = Topics::look(kafka, timeout)?;
    let counts = look.ensure(topics, replication).await?;
    look.close();
    Ok(counts)
}

/// The topics of a cluster.
pub struct Topics {
    admin: AdminClient<DefaultClientContext>,
    timeout: Duration,
    /// The partitions of those that were there.
    known: HashMap<String, u32>,
}

impl Topics {
    /// Asks what is there. `timeout` is for each question, also for those that follow.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub fn look(kafka: &ClientConfig, timeout: Duration) -> anyhow::Result<Self> {
        let admin: AdminClient<DefaultClientContext> =
            kafka.create().context("Kafka admin client")?;
        // All of them: a question for one that is not there might create it.
        let metadata = tokio::task::block_in_place(|| admin.inner().fetch_metadata(None, timeout));
        let metadata = metadata.context("the brokers do not tell their topics")?;
        let there = metadata.topics().iter().filter(|t| t.error().is_none());
        let known = there.filter_map(|topic| {
            let partitions = u32::try_from(topic.partitions().len()).ok()?;
            (partitions > 0).then(|| (topic.name().to_owned(), partitions))
        });
        let known = known.collect();
        Ok(Self {
            admin,
            timeout,
            known,
        })
    }

    /// Creates what is missing, checks what is there, and returns the partitions of each topic.
    ///
    /// # Errors
    /// When the brokers do not answer, or an existing topic has another partition count or clean-up policy: the message
    /// names the topic, what it is and what it must be.
    pub async fn ensure(&self, topics: &[Spec], replication: i32) -> anyhow::Result<Vec<u32>> {
        // All at once: each takes up to three questions to the brokers.
        try_join_all(topics.iter().map(|spec| self.ensure_one(spec, replication))).await
    }

    /// Lets the client go without waiting for it: its thread looks only ten times a second whether it is to end. To be
    /// called in a runtime.
    pub fn close(self) {
        tokio::task::spawn_blocking(move || drop(self));
    }

    async fn ensure_one(&self, spec: &Spec, replication: i32) -> anyhow::Result<u32> {
        let (admin, timeout) = (&self.admin, self.timeout);
        let options = AdminOptions::new()
            .request_timeout(Some(timeout))
            .operation_timeout(Some(timeout));
        let known = self.known.get(&spec.name).copied();
        let existed = known.is_some() || !create(admin, spec, replication, &options).await?;
        let count = match known {
            Some(count) => count,
            None => partition_count(admin, &spec.name, timeout).await?,
        };
        if spec.exact && count != spec.partitions {
            bail!(
                "topic {} has {count} partitions and must have {}: keys would be looked for on \
                 the wrong partition; recreate it, or choose another application id",
                spec.name,
                spec.partitions
            );
        }
        if existed {
            check_settings(admin, spec, &options, timeout).await?;
        }
        Ok(count)
    }
}

/// Creates the topic; `false` if it is there already.
async fn create(
    admin: &AdminClient<DefaultClientContext>,
    spec: &Spec,
    replication: i32,
    options: &AdminOptions,
) -> anyhow::Result<bool> {
    let partitions = i32::try_from(spec.partitions).context("partitions")?;
    let mut topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replication))
        .set("cleanup.policy", policy(spec.compact));
    for (key, value) in &spec.config {
        topic = topic.set(key, value);
    }
    let results = admin
        .create_topics([&topic], options)
        .await
        .with_context(|| format!("cannot create topic {}", spec.name))?;
    for result in results {
        match result {
            Ok(_) => tracing::info!(topic = spec.name, partitions, "topic created"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
            Err((name, code)) => bail!("cannot create topic {name}: {code}"),
        }
    }
    Ok(true)
}

/// The partitions of a topic, waiting until the brokers know it.
async fn partition_count(
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    timeout: Duration,
) -> anyhow::Result<u32> {
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        // One blocking round trip at start-up; nothing else runs on this client.
        let metadata = tokio::task::block_in_place(|| {
            admin
                .inner()
                .fetch_metadata(Some(name), Duration::from_secs(5))
        });
        let found = match &metadata {
            Ok(metadata) => metadata.topics().iter().find(|t| t.name() == name),
            Err(_) => None,
        };
        if let Some(topic) = found
            && topic.error().is_none()
            && !topic.partitions().is_empty()
        {
            return u32::try_from(topic.partitions().len()).context("partitions");
        }
        if tokio::time::Instant::now() > deadline {
            bail!("the brokers say nothing of topic {name}; is the cluster healthy?");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check_settings(
    admin: &AdminClient<DefaultClientContext>,
    spec: &Spec,
    options: &AdminOptions,
    timeout: Duration,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + timeout;
    // The broker that is asked may not have heard yet of a topic that somebody creates at this moment.
    let found = loop {
        let found = settings(admin, spec, options).await?;
        if !found.policy.is_empty() || tokio::time::Instant::now() > deadline {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let fits = found.policy.split(',').any(|p| p == "compact") == spec.compact;
    if !fits {
        bail!(
            "topic {} has cleanup.policy={} and must have {}: set it with kafka-configs, \
             or choose another application id",
            spec.name,
            found.policy,
            policy(spec.compact)
        );
    }
    if let Some(wanted) = too_small(&spec.config, found.max_message_bytes) {
        tracing::warn!(
            topic = spec.name,
            "{MAX_MESSAGE_BYTES}={} is less than what may be written here: set it to {wanted} with \
             kafka-configs; a larger record would end the service",
            found.max_message_bytes.unwrap_or_default(),
        );
    }
    Ok(())
}

/// What `max.message.bytes` should be, if an existing topic has less.
fn too_small<'a>(config: &[(&str, &'a str)], found: Option<u64>) -> Option<&'a str> {
    let mut config = config.iter();
    let (_, wanted) = config.find(|(key, _)| *key == MAX_MESSAGE_BYTES)?;
    let less = found? < wanted.parse().ok()?;
    less.then_some(*wanted)
}

/// What the brokers say of a topic.
#[derive(Default)]
struct Settings {
    /// `cleanup.policy`; empty if they say nothing.
    policy: String,
    max_message_bytes: Option<u64>,
}

async fn settings(
    admin: &AdminClient<DefaultClientContext>,
    spec: &Spec,
    options: &AdminOptions,
) -> anyhow::Result<Settings> {
    let described = admin
        .describe_configs(&[ResourceSpecifier::Topic(&spec.name)], options)
        .await
        .with_context(|| format!("cannot read the settings of topic {}", spec.name))?;
    let mut found = Settings::default();
    for resource in described {
        let resource =
            resource.map_err(|code| anyhow::anyhow!("settings of topic {}: {code}", spec.name))?;
        let value = |key| resource.get(key).and_then(|entry| entry.value.clone());
        found.policy = value("cleanup.policy").unwrap_or_default();
        found.max_message_bytes = value(MAX_MESSAGE_BYTES).and_then(|bytes| bytes.parse().ok());
    }
    Ok(found)
}

/// Waits until topic `name` exists, for as long as that takes: for programs that use a topic and
/// leave it to another to create it, with the partitions that one wants.
///
/// # Errors
/// When the settings make no client.
pub async fn wait_for(kafka: &ClientConfig, name: &str) -> anyhow::Result<()> {
    let mut client: BaseProducer = kafka
        .create()
        .context("the Kafka settings make no client")?;
    let mut pause = Duration::from_millis(100);
    loop {
        let asked = tokio::task::spawn_blocking(move || {
            // All topics: asking for one by name makes some brokers create it, with their defaults.
            let answer = client.client().fetch_metadata(None, Duration::from_secs(5));
            (client, answer)
        });
        let (back, answer) = asked.await.context("asking for the topics")?;
        client = back;
        match answer {
            Ok(metadata) => {
                let mut topics = metadata.topics().iter();
                if topics.any(|t| t.name() == name && !t.partitions().is_empty()) {
                    return Ok(());
                }
                tracing::warn!(topic = name, "the topic does not exist yet, waiting for it");
            }
            Err(error) => tracing::warn!(%error, "Kafka does not answer yet, trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

fn policy(compact: bool) -> &'static str {
    if compact { "compact" } else { "delete" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_takes_less_than_may_be_written_is_found() {
        let other = ("retention.ms", "1");
        let bytes = LARGEST_RECORD_BYTES as u64;
        let cases = [
            (vec![], Some(1), None),
            (vec![other], Some(1), None),
            (vec![other, LARGE_RECORDS], Some(bytes), None),
            (vec![LARGE_RECORDS], Some(bytes - 1), Some(LARGE_RECORDS.1)),
            (vec![LARGE_RECORDS], None, None),
        ];
        for (config, found, expected) in cases {
            assert_eq!(too_small(&config, found), expected, "{config:?} {found:?}");
        }
    }
}
