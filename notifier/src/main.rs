//! `notifier`: see the library.

use std::process::ExitCode;

use common::{config, shutdown, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let config: notifier::Config = config::parse();
    telemetry::init(&config.telemetry);
    if let Err(error) = notifier::run(config, shutdown::on_signal()?).await {
        tracing::error!("the notifier ends: {error:#}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
