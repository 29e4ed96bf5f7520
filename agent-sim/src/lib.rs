//! Agents to try a shared-state service with.
//!
//! `simulate` invents what a fleet of agents sees while sites come under attack, `replay` sends a
//! recording, `report` sends one report by hand. All three produce to the application's source
//! topic exactly as a real agent would: the same schema, key and partitioner.

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use common::{config, shutdown::Shutdown, telemetry};

pub mod connection;
pub mod delivery;
pub mod generator;
pub mod ndjson;
pub mod pace;
pub mod progress;
pub mod replay;
pub mod report;
pub mod share;
pub mod simulate;
pub mod summary;
pub mod waves;

/// Agents to try a shared-state service with
#[derive(Debug, Parser)]
#[command(
    name = "agent-sim",
    version,
    after_help = "\
Examples:
  agent-sim simulate --agents 5 --objects 20 --duration 2m
  agent-sim replay agent-sim/samples/wave.ndjson
  agent-sim report shop.example.com UNDER_ATTACK --agent me

`agent-sim simulate --help` and so on explain every setting."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Invent the reports of many agents while sites come under attack
    Simulate(Box<simulate::Config>),
    /// Send a recording: one report per line, as JSON
    Replay(replay::Config),
    /// Send one report by hand
    Report(report::Config),
}

impl Command {
    /// Reads the command line (the first argument is the program's name), the environment and the
    /// file, or explains and exits as [`config::parse`] does.
    ///
    /// Each subcommand is parsed as a program of its own, so that its mistakes come all at once.
    #[must_use]
    pub fn parse(args: Vec<OsString>) -> Self {
        let name = args.get(1).and_then(|name| name.to_str());
        let rest = |name: &str| {
            let mut own = vec![OsString::from(format!("agent-sim {name}"))];
            own.extend(args.iter().skip(2).cloned());
            own
        };
        match name {
            Some("simulate") => Self::Simulate(Box::new(config::parse_from(rest("simulate")))),
            Some("replay") => Self::Replay(config::parse_from(rest("replay"))),
            Some("report") => Self::Report(config::parse_from(rest("report"))),
            // `--help`, `--version`, `help …`, or a mistake: clap says it best.
            _ => Cli::parse_from(args).command,
        }
    }

    /// How to log.
    #[must_use]
    pub fn telemetry(&self) -> &telemetry::Args {
        match self {
            Self::Simulate(config) => &config.telemetry,
            Self::Replay(config) => &config.telemetry,
            Self::Report(config) => &config.telemetry,
        }
    }
}

/// Does what `command` says until it is done or `shutdown` is cancelled; the latter is a success.
///
/// # Errors
/// When it could not be done, or a report was not delivered.
pub async fn run(command: Command, shutdown: Shutdown) -> anyhow::Result<()> {
    match command {
        Command::Simulate(config) => simulate::run(*config, shutdown).await,
        Command::Replay(config) => replay::run(config, shutdown).await,
        Command::Report(config) => report::run(config, shutdown).await,
    }
}
