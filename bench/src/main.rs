//! `bench`: measures shared-state beside Kafka Streams.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bench::lab::Lab;
use bench::results::Results;
use bench::run::Run;
use bench::systems::streams;
use bench::work::{Work, check, limit, takeover, tune};
use bench::{document, flame, targets};
use clap::{Parser, Subcommand};

/// Measures shared-state beside Kafka Streams: the same work on the same machine and broker
///
/// Kafka and the schema registry are started for it, unless KAFKA_BOOTSTRAP and SCHEMA_REGISTRY_URL name
/// some. The peer has to be built once: mvn package in bench/kafka-streams.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    peer: streams::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures everything, or the works that are named, and writes results, plots and the document
    Run(RunArgs),
    /// Writes the document and the plots anew from results
    Document(DocumentArgs),
    /// Both get the same reports and must come to the same states by the same transitions
    Check(check::Args),
    /// Drains with settings of your choice, to find the best ones
    Tune(tune::Args),
    /// How long objects cannot be read or written when their owner is killed, paused or restarted
    Takeover(takeover::Args),
    /// Draws where a drain spends its processor time
    Flame(flame::Args),
    /// What `run` starts to see what librdkafka alone can do
    #[command(hide = true)]
    PassThrough(limit::Args),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Only these works
    #[arg(long, value_delimiter = ',', value_name = "WORK")]
    only: Vec<Work>,
    /// How often everything is measured; the systems take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Part of the full sizes, for a trial
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Folder for the document, with a folder `performance` for the rest; by default docs if all is measured at
    /// full size in at least three rounds, otherwise target/bench
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct DocumentArgs {
    /// Results of a run
    #[arg(
        long,
        value_name = "FILE",
        default_value = "docs/performance/results.json"
    )]
    from: PathBuf,
    /// Folder for the document
    #[arg(long, value_name = "DIR", default_value = "docs")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    // To reach the end of a partition is no error, but librdkafka's wrapper logs it as one.
    let filter = std::env::var("LOG").unwrap_or_else(|_| "error,rdkafka=off".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
    match &cli.command {
        // Measured as a process: no runtime beside it.
        Command::PassThrough(args) => limit::run(args),
        Command::Document(args) => document::write(&Results::read(&args.from)?, &args.out),
        _ => tokio::runtime::Runtime::new()?.block_on(with_servers(&cli)),
    }
}

async fn with_servers(cli: &Cli) -> Result<()> {
    let lab = Lab::open(&cli.peer).await?;
    let done = match &cli.command {
        Command::Run(args) => run(&lab, args).await,
        Command::Check(args) => check::run(&lab, args).await,
        Command::Tune(args) => tune::run(&lab, args).await,
        Command::Takeover(args) => takeover::run(&lab, args).await,
        Command::Flame(args) => flame::run(&lab, args).await,
        Command::PassThrough(_) | Command::Document(_) => Ok(()),
    };
    lab.close().await?;
    done
}

async fn run(lab: &Lab, args: &RunArgs) -> Result<()> {
    let works: &[Work] = if args.only.is_empty() {
        &Work::ALL
    } else {
        &args.only
    };
    let folder = folder(args)?;
    let plots = folder.join("performance");
    std::fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let expected_s: f64 = works.iter().map(|work| work.expected_s(args.rounds)).sum();
    let names = works.iter().map(|work| work.name().to_owned()).collect();
    let file = plots.join("results.json");
    let mut run = Run::new(lab, names, args.rounds, args.scale, expected_s, file);
    for work in works {
        work.run(&mut run).await?;
    }
    let results = run.results();
    document::write(&results, &folder)?;
    tell(&results, &folder);
    ensure!(
        results.failures.is_empty(),
        "{} runs failed",
        results.failures.len()
    );
    Ok(())
}

fn folder(args: &RunArgs) -> Result<PathBuf> {
    if let Some(folder) = &args.out {
        return Ok(folder.clone());
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate is in no folder")?;
    // Of what this project tells the world, nothing is a trial.
    let complete = args.only.is_empty() && args.rounds >= 3 && (args.scale - 1.0).abs() < 1e-9;
    Ok(project.join(if complete { "docs" } else { "target/bench" }))
}

/// The tables, and at the end a line for each target.
fn tell(results: &Results, folder: &Path) {
    for work in &results.works {
        println!("\n{work}\n{}", results.table(work).text());
    }
    println!("\n{}", targets::table(results).text());
    for failure in &results.failures {
        println!("{failure}");
    }
    println!(
        "{} has the document, performance/results.json beside it every run",
        folder.display()
    );
    for line in targets::lines(results) {
        println!("{line}");
    }
}
