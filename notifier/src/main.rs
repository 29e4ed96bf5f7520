//! `notifier`: see the library.

use common::{config, shutdown, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: notifier::Config = config::parse();
    telemetry::init(&config.telemetry);
    notifier::run(config, shutdown::on_signal()?).await
}
