//! `soak`: see the library.

use std::process::ExitCode;

use clap::Parser as _;
use soak::Options;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match soak::run(options).await {
        Ok(code) => code,
        Err(error) => {
            // For people at a terminal: the causes on one line, no backtrace.
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}
