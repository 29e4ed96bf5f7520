//! `soak`: see the library.

use std::process::ExitCode;

use clap::Parser as _;
use common::telemetry;
use soak::Options;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // What the soak has to say goes to standard output; this is what its clients say.
    telemetry::init(&telemetry::Args {
        log: std::env::var("SOAK_LOG").unwrap_or_else(|_| "warn".to_owned()),
        log_format: telemetry::Format::Text,
    });
    match soak::run(options).await {
        Ok(code) => code,
        Err(error) => {
            // For people at a terminal: the causes on one line, no backtrace.
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}
