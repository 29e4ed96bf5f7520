//! `state-service reset`: shows what taking the application back to its beginning would do, and
//! does it when told to.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Parser;
use common::{
    config::Validate,
    kafka, telemetry,
    topics::{Names, check_application_id},
};
use engine::reset::{Survey, Target, execute, survey};

/// Takes an application back to its beginning, to process again what its source topic holds.
///
/// Forgets the committed offsets, the changelog, the membership and this machine's stores. The
/// source, output and dead-letter topics stay as they are, so consumers of the output topic will see
/// transitions again. Every instance must be stopped. Stores on other machines are recognised as
/// outdated when their instances start. Without --execute nothing is changed.
#[derive(Debug, Parser)]
#[command(
    name = "state-service reset",
    override_usage = "state-service reset [OPTIONS]",
    after_help = "Example: state-service reset --bootstrap-servers localhost:9092 --application-id site-attack --execute"
)]
pub(crate) struct Config {
    /// Do it, instead of showing what would be done
    #[arg(long)]
    execute: bool,
    /// Names the application; default: the scenario's name
    #[arg(long, env = "APPLICATION_ID", value_name = "NAME", value_parser = check_application_id)]
    application_id: Option<String>,
    /// Where stores are kept
    #[arg(
        long,
        env = "STATE_DIR",
        value_name = "DIR",
        default_value = "shared-state-data"
    )]
    state_dir: PathBuf,
    /// Kafka
    #[command(flatten)]
    kafka: kafka::Args,
    /// Logs
    #[command(flatten)]
    telemetry: telemetry::Args,
}

impl Validate for Config {}

/// Runs the command; `scenario` is the application's name when none is given.
pub(crate) fn main(scenario: &str, args: Vec<OsString>) -> ExitCode {
    let config: Config = common::config::parse_from(args);
    telemetry::init(&config.telemetry);
    let result = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(scenario, config)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nothing more was changed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(scenario: &str, config: Config) -> anyhow::Result<()> {
    let target = Target {
        application_id: config.application_id.unwrap_or_else(|| scenario.to_owned()),
        kafka: config.kafka,
        state_dir: config.state_dir,
    };
    println!("looking at {} ...", target.application_id);
    let looked_at = target.clone();
    let found = tokio::task::spawn_blocking(move || survey(&looked_at)).await??;
    show(&target, &found);
    if found.is_empty() {
        println!("there is nothing to reset");
        return Ok(());
    }
    if !config.execute {
        println!("nothing was changed; --execute does it");
        return Ok(());
    }
    execute(&target, &found).await?;
    println!("done: the next instance starts from the beginning of the source topic");
    Ok(())
}

fn show(target: &Target, survey: &Survey) {
    for id in &survey.active {
        println!("  instance {id} runs: it must be stopped first");
    }
    for id in &survey.silent {
        println!("  instance {id} never said goodbye: it is fenced");
    }
    let source = Names::of(&target.application_id).reports;
    for (partition, (offset, end)) in survey.offsets.iter().enumerate() {
        if let Some(offset) = offset {
            println!("  {source}/{partition}: offset {offset} of {end} is forgotten");
        }
    }
    for (topic, records) in &survey.internal {
        println!("  {topic}: deleted, with {records} records");
    }
    for slot in &survey.slots {
        let folder = slot.folder.display();
        match slot.in_use {
            true => println!("  {folder}: in use, its instance must be stopped first"),
            false => println!("  {folder}: its stores are removed"),
        }
    }
}
