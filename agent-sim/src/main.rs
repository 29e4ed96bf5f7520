//! `agent-sim`: see the library.

use std::process::ExitCode;

use agent_sim::Command;
use common::{shutdown, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let command = Command::parse(std::env::args_os().collect());
    telemetry::init(command.telemetry());
    if let Err(error) = agent_sim::run(command, shutdown::on_signal()?).await {
        // For people at a terminal: the causes on one line, no backtrace.
        eprintln!("agent-sim: {error:#}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
