//! `bench`: measures shared-state beside Kafka Streams.

use anyhow::Result;
use bench::lab::Lab;
use bench::systems::streams;
use bench::work::{check, drain, takeover};
use clap::{Parser, Subcommand};

/// Measures shared-state beside Kafka Streams: the same work on the same machine and broker
///
/// Kafka and the schema registry are started for it, unless KAFKA_BOOTSTRAP and SCHEMA_REGISTRY_URL name
/// some. The peer has to be built once: mvn package in bench/kafka-streams.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    work: Work,
    #[command(flatten)]
    peer: streams::Args,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Both get the same reports and must come to the same states by the same transitions
    Check(check::Args),
    /// How fast, and at what cost, a backlog of reports is worked off
    Drain(drain::Args),
    /// How long objects cannot be read or written when their owner is killed, paused or restarted
    Takeover(takeover::Args),
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    // To reach the end of a partition is no error, but librdkafka's wrapper logs it as one.
    let filter = std::env::var("LOG").unwrap_or_else(|_| "warn,rdkafka=off".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
    let lab = Lab::open(&cli.peer).await?;
    let done = match cli.work {
        Work::Check(args) => check::run(&lab, &args).await,
        Work::Drain(args) => drain::run(&lab, &args).await,
        Work::Takeover(args) => takeover::run(&lab, &args).await,
    };
    lab.close().await?;
    done
}
