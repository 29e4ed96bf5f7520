//! The schema registry: registers our schemas, looks up those of others, remembers both.
//!
//! Any registry with Confluent's REST API. Subjects follow TopicRecordNameStrategy
//! (`<topic>-<full record name>`), because one topic carries several record types.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_schema_by_id_and_type, post_schema},
    error::SRCError,
    schema_registry_common::{RawError, SchemaType, SuppliedSchema},
};
use serde::Serialize;

use crate::{
    avro::{Encoder, Schema},
    config::secret,
};

/// How to reach the schema registry.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Schema registry")]
// Several structs are called `Args`, and clap would take that for one group.
#[group(skip)]
pub struct Args {
    /// URL of a registry with Confluent's API, for example http://localhost:8081
    #[arg(
        long,
        env = "SCHEMA_REGISTRY_URL",
        value_name = "URL",
        default_value = "http://localhost:8081"
    )]
    pub schema_registry_url: String,
    /// User for HTTP basic authentication
    #[arg(long, env = "SCHEMA_REGISTRY_USER", value_name = "NAME")]
    pub schema_registry_user: Option<String>,
    /// Password for HTTP basic authentication (better: the file)
    #[arg(
        long,
        env = "SCHEMA_REGISTRY_PASSWORD",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub schema_registry_password: Option<secret::Text>,
    /// File that holds the password
    #[arg(long, env = "SCHEMA_REGISTRY_PASSWORD_FILE", value_name = "FILE")]
    pub schema_registry_password_file: Option<PathBuf>,
    /// PEM file with the certificate authority to trust, besides the system's
    #[arg(long, env = "SCHEMA_REGISTRY_CA_FILE", value_name = "FILE")]
    pub schema_registry_ca_file: Option<PathBuf>,
}

/// Why a schema could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The registry answered: there is no Avro schema with this id, or it is not usable.
    #[error("schema {id}: {reason}")]
    Unknown {
        /// The id asked for.
        id: u32,
        /// What the registry or the parser said.
        reason: String,
    },
    /// The registry could not be asked; the same question may be answered later.
    #[error("the schema registry cannot be asked: {0}")]
    Unavailable(String),
}

/// A client of the registry that remembers every schema it has seen. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    settings: Arc<SrSettings>,
    url: Arc<str>,
    known: Arc<RwLock<HashMap<u32, Arc<Schema>>>>,
}

impl Registry {
    /// A client for `args`. Nothing is asked yet.
    ///
    /// # Errors
    /// When a file named in `args` cannot be read or is not a certificate.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        let url = args.schema_registry_url.trim_end_matches('/').to_owned();
        let mut settings = SrSettings::new_builder(url.clone());
        settings.set_timeout(Duration::from_secs(10));
        if let Some(user) = &args.schema_registry_user {
            let password = secret::read(
                args.schema_registry_password.as_ref(),
                args.schema_registry_password_file.as_deref(),
            )?;
            settings.set_basic_authorization(user, password.as_ref().map(secret::Text::expose));
        }
        let mut client = reqwest::Client::builder();
        if let Some(path) = &args.schema_registry_ca_file {
            let pem = std::fs::read(path)
                .with_context(|| format!("schema-registry-ca-file {}", path.display()))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("schema-registry-ca-file {}", path.display()))?
            {
                client = client.add_root_certificate(certificate);
            }
        }
        let settings = settings
            .build_with(client)
            .context("client of the schema registry")?;
        Ok(Self {
            settings: Arc::new(settings),
            url: url.into(),
            known: Arc::default(),
        })
    }

    /// Registers `text` for `topic` and returns it under its id. Registering again is harmless.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the registry cannot be reached or refuses the schema; the
    /// message says which.
    pub async fn register(&self, topic: &str, text: &str) -> Result<Arc<Schema>, Error> {
        let name = Schema::parse(0, text)
            .map_err(|e| Error::Unavailable(e.to_string()))?
            .name;
        let subject = format!("{topic}-{name}");
        let supplied = SuppliedSchema::new(Some(name), SchemaType::Avro, text.to_owned());
        let registered = post_schema(&self.settings, subject.clone(), supplied)
            .await
            .map_err(|e| Error::Unavailable(self.explain(&format!("register {subject}"), &e)))?;
        self.remember(registered.id, text)
    }

    /// Registers `text` for `topic`, waiting with growing pauses for as long as the registry is away.
    pub async fn register_patiently(&self, topic: &str, text: &str) -> Arc<Schema> {
        let mut pause = Duration::from_millis(200);
        loop {
            match self.register(topic, text).await {
                Ok(schema) => return schema,
                Err(error) => {
                    tracing::warn!(%error, topic, "schema not registered yet, trying again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// [`Self::register_patiently`], as an encoder for `T`.
    pub async fn encoder<T: Serialize>(&self, topic: &str, text: &str) -> Encoder<T> {
        Encoder::new(self.register_patiently(topic, text).await)
    }

    /// The schema `id` if it has been seen before; never waits.
    #[must_use]
    pub fn known(&self, id: u32) -> Option<Arc<Schema>> {
        self.known
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// The schema `id`, from memory or from the registry.
    ///
    /// # Errors
    /// [`Error::Unknown`] is final; [`Error::Unavailable`] is worth another try.
    pub async fn resolve(&self, id: u32) -> Result<Arc<Schema>, Error> {
        if let Some(schema) = self.known(id) {
            return Ok(schema);
        }
        match get_schema_by_id_and_type(id, &self.settings, SchemaType::Avro).await {
            Ok(registered) => self.remember(id, &registered.schema),
            Err(error) if is_final(&error) => Err(Error::Unknown {
                id,
                reason: self.explain("look up", &error),
            }),
            Err(error) => Err(Error::Unavailable(self.explain("look up", &error))),
        }
    }

    /// Adds a schema that did not come from the registry; for tests that run without one.
    ///
    /// # Errors
    /// [`Error::Unknown`] when the text is not a record schema.
    pub fn remember(&self, id: u32, text: &str) -> Result<Arc<Schema>, Error> {
        let schema = Arc::new(Schema::parse(id, text).map_err(|e| Error::Unknown {
            id,
            reason: e.to_string(),
        })?);
        self.known
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(id, Arc::clone(&schema));
        Ok(schema)
    }

    fn explain(&self, doing: &str, error: &SRCError) -> String {
        let cause = error.cause.as_deref().unwrap_or("");
        format!("{doing} at {}: {} {cause}", self.url, error.error)
    }
}

/// Did the registry itself say that this schema does not exist or is of another kind?
fn is_final(error: &SRCError) -> bool {
    // Confluent's codes: 40401 subject, 40402 version, 40403 schema not found.
    let not_found = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<RawError>())
        .is_some_and(|raw| raw.error_code / 100 == 404 || raw.error_code == 404);
    not_found || error.error.ends_with("is not correct")
}
