//! What is compared: ours and Kafka Streams, each as a process that can be read, stopped, killed and paused.

pub mod ours;
pub mod streams;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use common::schema::State;
use e2e::{Application, Service};
use reqwest::StatusCode;

use crate::lab::Lab;
use crate::machine::Usage;

/// How long a healthy instance may take to start or stop.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// Our name in results.
pub const OURS: &str = "shared-state";
/// The peer's.
pub const STREAMS: &str = "Kafka Streams";

/// Which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// shared-state.
    Ours,
    /// Kafka Streams.
    Streams,
}

/// A system with settings.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its name in results.
    pub name: String,
    /// Which system.
    pub system: System,
    /// Its flags (without dashes) or settings.
    pub settings: BTreeMap<String, String>,
    /// What the JVM is told; none: the peer's own choice.
    pub jvm: Option<Vec<String>>,
}

impl Variant {
    /// A variant with these settings.
    #[must_use]
    pub fn new(name: &str, system: System, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter();
        Self {
            name: name.to_owned(),
            system,
            settings: settings
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            jvm: None,
        }
    }

    /// Ours with its defaults; no vote expires while it is measured, and a single instance has no standby anyway.
    #[must_use]
    pub fn ours() -> Self {
        Self::new(OURS, System::Ours, &[("freshness", "24h")])
    }

    /// The peer with the settings that were best when it was tuned, as its README tells; no vote expires.
    #[must_use]
    pub fn streams() -> Self {
        Self::new(STREAMS, System::Streams, &[("freshness.ms", "86400000")])
    }

    /// The peer without its record cache: best where almost every report is about another object.
    #[must_use]
    pub fn uncached(self) -> Self {
        self.with("cache.mb", "0")
    }

    /// The same with this setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same with this commit interval.
    #[must_use]
    pub fn committing_every_ms(self, ms: u32) -> Self {
        match self.system {
            System::Ours => self.with("commit-interval", &format!("{ms}ms")),
            System::Streams => self.with("commit.interval.ms", &ms.to_string()),
        }
    }

    /// Standbys of each partition.
    #[must_use]
    pub fn standbys(&self) -> u32 {
        let name = match self.system {
            System::Ours => "num-standby-replicas",
            System::Streams => "standby.replicas",
        };
        let value = self.settings.get(name);
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Starts an instance; it is not ready yet.
    ///
    /// # Errors
    /// It is not built, or no process can be made.
    pub fn start(&self, lab: &Lab, app: &Application, name: &str) -> Result<Instance> {
        Ok(match self.system {
            System::Ours => Instance::Ours(ours::start(app, name, &self.settings)?),
            System::Streams => Instance::Streams(lab.peer.start(app, name, self)?),
        })
    }
}

/// An instance of either system.
#[derive(Debug)]
pub enum Instance {
    /// shared-state.
    Ours(Service),
    /// Kafka Streams.
    Streams(streams::Running),
}

impl Instance {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Ours(service) => service.name(),
            Self::Streams(peer) => peer.name(),
        }
    }

    /// Where it answers, as soon as it tells.
    ///
    /// # Errors
    /// It does not tell.
    pub async fn url(&self) -> Result<String> {
        match self {
            Self::Ours(service) => service.url().await,
            Self::Streams(peer) => peer.url().await,
        }
    }

    /// The URL of an object's state.
    ///
    /// # Errors
    /// As for [`Self::url`].
    pub async fn state_url(&self, object: &str) -> Result<String> {
        let object: String = form_urlencoded::byte_serialize(object.as_bytes()).collect();
        let path = match self {
            Self::Ours(_) => "v1/objects",
            Self::Streams(_) => "state",
        };
        Ok(format!("{}/{path}/{object}", self.url().await?))
    }

    /// What it has taken so far.
    ///
    /// # Errors
    /// It does not run.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.process_id()?)
    }

    /// The id of its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn process_id(&self) -> Result<u32> {
        let pid = match self {
            Self::Ours(service) => service.pid(),
            Self::Streams(peer) => peer.pid(),
        };
        pid.with_context(|| format!("{} is not running", self.name()))
    }

    /// Does it own the object's partition, and process it?
    ///
    /// # Errors
    /// It does not answer.
    pub async fn owns(&self, object: &str) -> Result<bool> {
        match self {
            Self::Ours(service) => {
                let cluster = service.api().await?.cluster().await?;
                Ok(cluster.owner_of(object) == Some(service.name()))
            }
            Self::Streams(_) => {
                let client = client(Duration::from_secs(5))?;
                Ok(read(&client, &self.state_url(object).await?)
                    .await?
                    .is_some())
            }
        }
    }

    /// Where it tells whether it processes everything that it should.
    ///
    /// # Errors
    /// As for [`Self::url`].
    pub async fn ready_url(&self) -> Result<String> {
        let path = match self {
            Self::Ours(_) => "readyz",
            Self::Streams(_) => "ready",
        };
        Ok(format!("{}/{path}", self.url().await?))
    }

    /// Waits until it processes everything that it should.
    ///
    /// # Errors
    /// It does not, with the end of its log.
    pub async fn ready(&self) -> Result<()> {
        let url = self.ready_url().await?;
        let client = client(Duration::from_secs(5))?;
        let what = format!("{} is ready", self.name());
        e2e::eventually(&what, PATIENCE, async || {
            let answer = client.get(&url).send().await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            Ok(())
        })
        .await
        .with_context(|| devkit::process::tail(self.log()))
    }

    /// Records processed so far, by this process.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn processed(&self) -> Result<u64> {
        match self {
            Self::Ours(service) => ours::processed(service).await,
            Self::Streams(peer) => Ok(peer.stats().await?.records),
        }
    }

    /// Changelog records that it has read to complete its stores, by this process.
    ///
    /// # Errors
    /// It does not answer, or its log does not tell.
    pub async fn restored(&self) -> Result<u64> {
        match self {
            Self::Ours(service) => ours::restored(service).await,
            Self::Streams(peer) => peer.restored(),
        }
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        match self {
            Self::Ours(service) => service.log().path(),
            Self::Streams(peer) => peer.log(),
        }
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self) -> Result<()> {
        match self {
            Self::Ours(service) => service.kill().await,
            Self::Streams(peer) => peer.kill().await,
        }
    }

    /// SIGTERM; waits for the end.
    ///
    /// # Errors
    /// It is not running, or does not end in order.
    pub async fn terminate(&mut self) -> Result<()> {
        match self {
            Self::Ours(service) => match service.terminate().await? {
                0 => Ok(()),
                code => bail!("exit code {code}"),
            },
            Self::Streams(peer) => peer.terminate().await,
        }
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&mut self) -> Result<()> {
        match self {
            Self::Ours(service) => service.pause(),
            Self::Streams(peer) => peer.pause(),
        }
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&mut self) -> Result<()> {
        match self {
            Self::Ours(service) => service.resume(),
            Self::Streams(peer) => peer.resume(),
        }
    }

    /// Starts it again with its state folder.
    ///
    /// # Errors
    /// No process can be made.
    pub async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Ours(service) => service.restart().await,
            Self::Streams(peer) => peer.restart().await,
        }
    }
}

/// An HTTP client that keeps connections.
///
/// # Errors
/// It cannot be made.
pub fn client(timeout: Duration) -> Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(1))
        .timeout(timeout);
    client.build().context("an HTTP client")
}

/// The state at this URL; `None` if the instance does not have it.
///
/// # Errors
/// It does not answer, or with something else.
pub async fn read(client: &reqwest::Client, url: &str) -> Result<Option<State>> {
    let answer = client.get(url).send().await?;
    match answer.status() {
        StatusCode::OK => Ok(Some(answer.json().await?)),
        StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => Ok(None),
        status => bail!("{url} answered {status}"),
    }
}
