//! `agent-sim`: see the library.

use agent_sim::Command;
use common::{shutdown, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let command = Command::parse(std::env::args_os().collect());
    telemetry::init(command.telemetry());
    agent_sim::run(command, shutdown::on_signal()?).await
}
