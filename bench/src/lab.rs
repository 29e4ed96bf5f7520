//! What both systems stand on: one Kafka, one registry, and where the peer is.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::topics::{self, Names, Spec};
use devkit::{KafkaOptions, Servers};
use e2e::Application;

use crate::machine::Usage;
use crate::systems::streams;
use crate::topic;

/// Partitions of every source topic.
pub const PARTITIONS: u32 = 8;

/// Kafka's JVM as its own start script has it.
const KAFKA_JVM: [&str; 7] = [
    "-Xms1g",
    "-Xmx1g",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// The servers, and the peer's files.
#[derive(Debug)]
pub struct Lab {
    /// Kafka and the registry.
    pub servers: Servers,
    /// How to start the peer.
    pub peer: streams::Peer,
}

impl Lab {
    /// Starts the servers, or takes those that the environment names.
    ///
    /// # Errors
    /// The peer is not built, or a server does not start.
    pub async fn open(peer: &streams::Args) -> Result<Self> {
        let peer = streams::Peer::find(peer).await?;
        eprintln!("starting Kafka and the schema registry");
        let servers = Servers::acquire_with(KafkaOptions {
            jvm: Some(KAFKA_JVM.map(str::to_owned).to_vec()),
            ..KafkaOptions::default()
        })
        .await?;
        Ok(Self { servers, peer })
    }

    /// A new application, that is new topics and a new folder.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn application(&self, name: &str) -> Result<Application> {
        Application::on(name, &self.servers)
    }

    /// Creates the source topic of an application, to be filled before anything is started.
    ///
    /// # Errors
    /// Kafka does not create it.
    pub async fn source_topic(&self, app: &Application) -> Result<()> {
        self.source_topic_of(app, PARTITIONS).await
    }

    /// [`Self::source_topic`] with so many partitions.
    ///
    /// # Errors
    /// Kafka does not create it.
    pub async fn source_topic_of(&self, app: &Application, partitions: u32) -> Result<()> {
        self.topic(&Names::of(app.id()).reports, partitions).await
    }

    /// Creates a topic that keeps everything.
    ///
    /// # Errors
    /// Kafka does not create it.
    pub async fn topic(&self, name: &str, partitions: u32) -> Result<()> {
        let spec = Spec {
            name: name.to_owned(),
            partitions,
            exact: true,
            compact: false,
            config: Vec::new(),
        };
        let client = topic::clients(self.servers.bootstrap()).client("bench");
        topics::ensure(&client, &[spec], -1, Duration::from_secs(30)).await?;
        Ok(())
    }

    /// Says whether the broker is to ask a transaction's coordinator, before it takes the first records of one on a partition,
    /// if the partition belongs to it; by default it does (KIP-890). Returns `false` for a broker that is not ours: that is left
    /// as it is.
    ///
    /// # Errors
    /// It refuses.
    pub async fn verify_partitions(&self, verify: bool) -> Result<bool> {
        let Some(kafka) = self.servers.kafka() else {
            return Ok(false);
        };
        let mut tool = kafka.tool("kafka.admin.ConfigCommand");
        tool.args(["--bootstrap-server", kafka.bootstrap(), "--alter"])
            .args(["--entity-type", "brokers", "--entity-default"])
            .arg("--add-config")
            .arg(format!(
                "transaction.partition.verification.enable={verify}"
            ));
        let output = tokio::process::Command::from(tool).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the broker's setting: {said}");
        Ok(true)
    }

    /// What the broker has taken so far, if it is ours to look at.
    ///
    /// # Errors
    /// It does not run.
    pub async fn broker(&self) -> Result<Option<Usage>> {
        let Some(kafka) = self.servers.kafka() else {
            return Ok(None);
        };
        let pid = kafka.pid(0).await.context("the broker is not running")?;
        Usage::of(pid).map(Some)
    }

    /// The versions of what is measured and of what it stands on.
    #[must_use]
    pub fn software(&self) -> BTreeMap<String, String> {
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        let versions = [
            ("shared-state", env!("CARGO_PKG_VERSION").to_owned()),
            ("Kafka Streams", streams::VERSION.to_owned()),
            ("Kafka", devkit::kafka::jars::VERSION.to_owned()),
            ("Java", self.peer.java().major.to_string()),
            ("librdkafka", librdkafka),
        ];
        let versions = versions.into_iter();
        versions
            .map(|(name, version)| (name.to_owned(), version))
            .collect()
    }

    /// Stops what was started.
    ///
    /// # Errors
    /// A server cannot be stopped.
    pub async fn close(self) -> Result<()> {
        self.servers.stop().await
    }
}
