//! What both systems stand on: one Kafka, one registry, and where the peer is.

use anyhow::Result;
use common::topics::{self, Names, Spec};
use devkit::{KafkaOptions, Servers};
use e2e::Application;
use std::time::Duration;

use crate::systems::streams;

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
        let kafka = common::kafka::Args {
            bootstrap_servers: app.bootstrap().to_owned(),
            kafka: Vec::new(),
        };
        let spec = Spec {
            name: Names::of(app.id()).reports,
            partitions: PARTITIONS,
            exact: true,
            compact: false,
            config: Vec::new(),
        };
        topics::ensure(&kafka.client("bench"), &[spec], -1, Duration::from_secs(30)).await?;
        Ok(())
    }

    /// Stops what was started.
    ///
    /// # Errors
    /// A server cannot be stopped.
    pub async fn close(self) -> Result<()> {
        self.servers.stop().await
    }
}
