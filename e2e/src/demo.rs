//! The demo: everything runs, sites come under attack, an instance dies, and every claim is checked while it is
//! told.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use clap::builder::FalseyValueParser;
use common::shutdown;
use devkit::{Cache, Servers};

use crate::Application;

mod afterwards;
mod cast;
mod narrator;
mod scenes;
mod takeover;

use cast::Cast;
use narrator::Narrator;

/// Show the main job on this machine, from the reports of agents to the mail
///
/// Starts Apache Kafka, a schema registry, a mail server that keeps what it gets, two state-services, a notifier
/// and agents. Nothing has to be installed: the first run downloads the servers. Then it tells a story and checks
/// each step of it: reports are counted; a site comes under attack, the vote turns and a mail comes; any instance
/// answers for any site; an operator overrides a vote; the owner of the site is killed with SIGKILL and the other
/// instance goes on with the very same state; the attack ends, and a second mail comes. Afterwards everything
/// keeps running, with commands to try, until Ctrl-C.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "demo",
    version,
    after_help = "\
Examples:
  The story, then try it yourself until Ctrl-C:
    cargo build --workspace --bins && cargo run -p e2e --bin demo

  The story only; the exit code is 0 if every step was seen:
    ONCE=1 cargo run -p e2e --bin demo

  On servers that are running already:
    KAFKA_BOOTSTRAP=localhost:9092 SCHEMA_REGISTRY_URL=http://localhost:8081 demo

  If a step is not seen, the demo says which, shows the end of each log, leaves the folder with all
  logs and ends with exit code 1. KEEP=1 leaves the folder in any case. NO_COLOR=1 for plain text."
)]
pub struct Args {
    /// End after the story
    #[arg(long, env = "ONCE", value_parser = FalseyValueParser::new())]
    pub once: bool,
}

/// Runs the demo and explains itself to a terminal.
pub async fn run(args: Args) -> ExitCode {
    let mut narrator = Narrator::new();
    match play(&args, &mut narrator).await {
        Ok(code) => code,
        Err(error) => {
            narrator.failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn play(args: &Args, narrator: &mut Narrator) -> Result<ExitCode> {
    let shutdown = shutdown::on_signal().context("signal handlers")?;
    narrator.chapter("The servers start");
    let acquired = tokio::select! {
        acquired = acquire(narrator) => acquired?,
        () = shutdown.cancelled() => return Ok(interrupted(narrator)),
    };
    let mut app = Application::on("demo", &acquired)?;
    let mut cast = Cast::new(app.folder()).await?;
    let story = scenes::tell(&app, &mut cast, narrator);
    let told = tokio::select! {
        told = story => Some(told),
        () = shutdown.cancelled() => None,
    };
    let code = match told {
        None => interrupted(narrator),
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            narrator.failure(&format!("{error:#}"));
            app.keep();
            eprintln!("\n{}", app.tails());
            ExitCode::FAILURE
        }
    };
    let seen = code == ExitCode::SUCCESS;
    if seen {
        narrator.the_end();
    }
    if seen && !args.once {
        afterwards::invite(&app, &cast, narrator).await?;
        shutdown.cancelled().await;
        println!();
    }
    let stopped = stop(cast, acquired, narrator).await;
    if stopped.is_err() {
        app.keep();
        eprintln!("\n{}", app.tails());
    }
    stopped.map(|()| code)
}

/// Kafka and the registry. Downloads first: a spinner and a progress bar do not share a line.
async fn acquire(narrator: &Narrator) -> Result<Servers> {
    let named = |name| std::env::var(name).is_ok_and(|value| !value.is_empty());
    if !(named("KAFKA_BOOTSTRAP") && named("SCHEMA_REGISTRY_URL")) {
        devkit::fetch(&Cache::open()?).await?;
    }
    let servers = narrator.step("Kafka and the schema registry answer", Servers::acquire());
    let servers = servers.await?;
    narrator.note(&format!("Kafka     {}", servers.bootstrap()));
    narrator.note(&format!("registry  {}", servers.registry_url()));
    Ok(servers)
}

async fn stop(cast: Cast, servers: Servers, narrator: &mut Narrator) -> Result<()> {
    narrator.chapter("Everything stops");
    narrator
        .step(
            "SIGTERM to each of our programs: all have left in order",
            cast.stop(),
        )
        .await?;
    narrator.step("the servers are gone", servers.stop()).await
}

fn interrupted(narrator: &Narrator) -> ExitCode {
    narrator.failure("interrupted before the end of the story");
    ExitCode::from(130)
}
