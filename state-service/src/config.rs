//! Settings of a state service.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use common::{config::Validate, kafka, registry, telemetry};
use engine::scenario::Scenario;

/// A shared-state service: turns the reports of agents into one trusted state per object, and
/// answers a REST API for it on any instance.
///
/// Start as many as you like with the same application id: they share the partitions, and one takes
/// over when another is gone. Every flag can also be set by its environment variable, or in a TOML
/// file under its own name (`quorum = 3`); a flag wins over the environment, the environment over
/// the file.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    after_help = "Example: state-service --bootstrap-servers localhost:9092 --schema-registry-url http://localhost:8081\n\n\
        state-service reset takes an application back to its beginning; see state-service reset --help."
)]
pub struct Config<S: Scenario> {
    /// TOML file with settings
    #[arg(long, env = "CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to answer HTTP on; port 0 takes a free one
    #[arg(
        long,
        env = "LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// URL by which the other instances reach this one; default: made of the host's name (or the
    /// address, when listening on just one) and the port
    #[arg(long, env = "ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// How far an agent's clock may be ahead; later reports become dead letters
    #[arg(long, env = "MAX_SKEW", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub max_skew: Duration,
    /// The application and its engine
    #[command(flatten)]
    pub application: engine::config::Args,
    /// Kafka
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// The schema registry
    #[command(flatten)]
    pub registry: registry::Args,
    /// The scenario's rules
    #[command(flatten)]
    pub rules: S::Rules,
    /// Logs
    #[command(flatten)]
    pub telemetry: telemetry::Args,
}

impl<S: Scenario> Config<S> {
    /// The application id: given, or the scenario's name.
    #[must_use]
    pub fn application_id(&self) -> &str {
        self.application
            .application_id
            .as_deref()
            .unwrap_or(S::NAME)
    }

    /// The URL for the other instances, when this one listens on `bound`.
    #[must_use]
    pub fn endpoint(&self, bound: SocketAddr) -> String {
        if let Some(url) = &self.advertise {
            return url.trim_end_matches('/').to_owned();
        }
        if !bound.ip().is_unspecified() {
            return format!("http://{bound}");
        }
        let host = hostname::get()
            .ok()
            .and_then(|name| name.into_string().ok());
        let host = host.unwrap_or_else(|| "localhost".to_owned());
        format!("http://{host}:{}", bound.port())
    }
}

impl<S: Scenario> Validate for Config<S> {
    fn validate(&self) -> Vec<String> {
        let mut mistakes = self.application.check();
        mistakes.extend(S::check(&self.rules));
        for (name, url) in [
            (
                "schema-registry-url",
                Some(&self.registry.schema_registry_url),
            ),
            ("advertise", self.advertise.as_ref()),
        ] {
            if let Some(Err(why)) = url.map(|url| reqwest::Url::parse(url)) {
                mistakes.push(format!("{name}: not a URL: {why}"));
            }
        }
        mistakes
    }
}
