//! What reads and writes records, under the ids that the registry gives to their schemas.

use std::sync::Arc;

use anyhow::Context as _;
use common::{avro::Encoder, registry::Registry, schema, topics::Names};
use engine::scenario::{Codecs, Scenario};

use crate::{commands::Commands, config::Config};

pub(crate) struct Schemas<S: Scenario> {
    pub(crate) registry: Registry,
    pub(crate) codecs: Arc<Codecs<S>>,
    pub(crate) dead_letters: Encoder<schema::DeadLetter>,
    pub(crate) commands: Commands,
}

impl<S: Scenario> Schemas<S> {
    /// Registers all of them, for as long as the registry is away.
    ///
    /// # Errors
    /// When the settings make no client of a registry, or the scenario's schema is not usable.
    pub(crate) async fn register(config: &Config<S>, names: &Names) -> anyhow::Result<Self> {
        let args = config.registry.clone();
        // Reads the system's certificates, a tenth of a second of work, while the topics are looked at.
        let registry = tokio::task::spawn_blocking(move || Registry::new(&args));
        let registry = registry.await.context("client of the schema registry")??;
        let dead_letters = async {
            let topic = &names.dead_letters;
            Ok(registry.encoder(topic, schema::DEAD_LETTER).await)
        };
        let commands = async { Ok(Commands::new(&config.kafka, &registry, names).await) };
        let (codecs, dead_letters, commands) =
            tokio::try_join!(Codecs::register(&registry, names), dead_letters, commands)?;
        tracing::debug!("the schemas are registered");
        Ok(Self {
            registry,
            codecs: Arc::new(codecs),
            dead_letters,
            commands,
        })
    }
}
