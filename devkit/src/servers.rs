//! Kafka and a schema registry together: those that are running already, or own ones.

use std::env;

use anyhow::Result;

use crate::cache::Cache;
use crate::java::Java;
use crate::kafka::{self, Kafka, KafkaOptions};
use crate::registry::{self, Registry};

/// A Kafka and a schema registry to work with. Dropping it ends those that were started for it.
#[derive(Debug)]
pub struct Servers {
    bootstrap: String,
    registry_url: String,
    kafka: Option<Kafka>,
    registry: Option<Registry>,
}

impl Servers {
    /// Takes the servers that `KAFKA_BOOTSTRAP` and `SCHEMA_REGISTRY_URL` name, and starts those that are not
    /// named: one broker and a registry, both at the same time.
    ///
    /// # Errors
    /// A server that has to be started cannot be downloaded or does not start.
    pub async fn acquire() -> Result<Self> {
        Self::acquire_with(KafkaOptions::default()).await
    }

    /// The same with a Kafka of your own shape, should one have to be started.
    ///
    /// # Errors
    /// A server that has to be started cannot be downloaded or does not start.
    pub async fn acquire_with(options: KafkaOptions) -> Result<Self> {
        let named = |variable| {
            env::var(variable)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let (named_kafka, named_registry) =
            (named("KAFKA_BOOTSTRAP"), named("SCHEMA_REGISTRY_URL"));
        if named_kafka.is_none() || named_registry.is_none() {
            // Not both at once: two progress bars would write over each other.
            fetch_parts(
                &Cache::open()?,
                named_kafka.is_none(),
                named_registry.is_none(),
            )
            .await?;
        }
        let kafka = async {
            Ok::<_, anyhow::Error>(match &named_kafka {
                Some(_) => None,
                None => Some(Kafka::start(options).await?),
            })
        };
        let registry = async {
            Ok::<_, anyhow::Error>(match &named_registry {
                Some(_) => None,
                None => Some(Registry::start().await?),
            })
        };
        let (kafka, registry) = tokio::try_join!(kafka, registry)?;
        let started_kafka = kafka.as_ref().map(|kafka| kafka.bootstrap().to_owned());
        let started_registry = registry.as_ref().map(|registry| registry.url().to_owned());
        Ok(Self {
            bootstrap: named_kafka.or(started_kafka).unwrap_or_default(),
            registry_url: named_registry.or(started_registry).unwrap_or_default(),
            kafka,
            registry,
        })
    }

    /// Kafka's `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The schema registry's address.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// The Kafka that was started; none if the environment named one.
    pub fn kafka(&self) -> Option<&Kafka> {
        self.kafka.as_ref()
    }

    /// The registry that was started; none if the environment named one.
    pub fn registry(&self) -> Option<&Registry> {
        self.registry.as_ref()
    }

    /// What a program must have in its environment to use these servers.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [
            ("KAFKA_BOOTSTRAP", &self.bootstrap),
            ("SCHEMA_REGISTRY_URL", &self.registry_url),
        ]
    }

    /// Stops in order what was started.
    ///
    /// # Errors
    /// A server cannot be stopped.
    pub async fn stop(self) -> Result<()> {
        let kafka = async {
            match self.kafka {
                Some(kafka) => kafka.stop().await,
                None => Ok(()),
            }
        };
        let registry = async {
            match &self.registry {
                Some(registry) => registry.stop().await,
                None => Ok(()),
            }
        };
        tokio::try_join!(kafka, registry).map(|_| ())
    }
}

/// Downloads and unpacks everything that the servers need, so that they start without a network later. Returns
/// the Java that they will run on.
///
/// # Errors
/// Something cannot be downloaded.
pub async fn fetch(cache: &Cache) -> Result<Java> {
    fetch_parts(cache, true, true).await
}

async fn fetch_parts(cache: &Cache, kafka: bool, registry: bool) -> Result<Java> {
    let java = Java::find(cache).await?;
    if kafka {
        cache
            .fetch(
                &format!("Apache Kafka {}", kafka::jars::VERSION),
                &kafka::jars::downloads()?,
            )
            .await?;
    }
    if registry {
        registry::unpacked(cache).await?;
    }
    Ok(java)
}
