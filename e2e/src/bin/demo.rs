//! `demo`: the whole system on this machine, and a story that shows what it is for.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    e2e::demo::run(e2e::demo::Args::parse()).await
}
