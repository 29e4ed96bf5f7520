//! Breaks a running cluster on purpose and checks that nothing was lost, doubled or wrong.
//!
//! - [`plan`]: what is broken when, a pure function of the seed; [`faults`]: how.
//! - [`generator`] and [`writer`]: a history full of traps, written while things break.
//! - [`model`]: the rules a second time, sharing nothing with the engine; [`checker`]: compares.
//! - [`world`] and [`instance`]: what runs; [`probes`]: how long partitions stand still.
//! - [`soak`]: a run from beginning to end; [`report`]: what it tells.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

pub mod checker;
mod dump;
pub mod faults;
pub mod generator;
pub mod instance;
pub mod model;
pub mod options;
pub mod plan;
pub mod probes;
pub mod random;
pub mod report;
pub mod soak;
pub mod tail;
pub mod world;
pub mod writer;

pub use options::Options;

/// Does what the options say; the exit code is 0 if nothing was found.
///
/// # Errors
/// The soak itself cannot go on.
pub async fn run(options: Options) -> Result<ExitCode> {
    if !options.sum.is_empty() {
        print!("{}", report::sum(&options.sum)?);
        return Ok(ExitCode::SUCCESS);
    }
    let seed = options.seed.unwrap_or_else(|| now_ms().unsigned_abs());
    let kinds = options.kinds();
    ensure!(
        !kinds.is_empty(),
        "no fault is possible: leader-kill needs three brokers"
    );
    ensure!(
        options.overlap < options.instances,
        "overlap: somebody must survive, so less than the instances"
    );
    if let Some(count) = options.plan {
        for step in plan::Plan::new(seed, &kinds).take(count) {
            println!("{step}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let report = soak::run(&options, seed).await?;
    println!("\n{}\n{}", report.table(), report.summary());
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if report.findings.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("repeat it with: {}", report.command);
    Ok(ExitCode::FAILURE)
}

/// The wall clock, in ms since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
