//! How long objects cannot be read or written when their owner is killed, paused or restarted.

mod client;
pub mod phases;
mod round;
pub mod timeline;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::Serialize;

pub use round::{Fault, Outcome};

use crate::lab::Lab;
use crate::progress::Progress;
use crate::report::{Report, Spread, Table, show};
use crate::systems::{System, Variant};

/// What to measure.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub struct Args {
    /// Objects in the application; repeatable
    #[arg(long, value_delimiter = ',', default_value = "20000")]
    objects: Vec<usize>,
    /// How often each is measured; variants take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What to do to the owner
    #[arg(long, value_delimiter = ',', default_value = "kill,zombie,restart")]
    faults: Vec<Fault>,
    /// Only variants whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// File to write every round into, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Both systems as they come and as they are best at this, with a standby and without.
fn variants() -> Vec<Variant> {
    let ours = |name, standbys| {
        let settings = [("freshness", "24h"), ("num-standby-replicas", standbys)];
        Variant::new(name, System::Ours, &settings)
    };
    let streams = |name, standbys, more: &[(&str, &str)]| {
        let mut settings = vec![("freshness.ms", "86400000"), ("standby.replicas", standbys)];
        settings.extend(more);
        Variant::new(name, System::Streams, &settings)
    };
    let best = [("session.timeout.ms", "6000"), ("on.close", "leave")];
    vec![
        ours("ours + standby", "1"),
        ours("ours alone", "0"),
        streams("streams best + standby", "1", &best),
        streams("streams best alone", "0", &best),
        streams("streams defaults + standby", "1", &[]),
        streams("streams defaults alone", "0", &[]),
    ]
}

/// Measures and prints the table.
///
/// # Errors
/// A round failed.
pub async fn run(lab: &Lab, args: &Args) -> Result<()> {
    let asked = |variant: &Variant| {
        args.only.is_empty() || args.only.iter().any(|part| variant.name.contains(part))
    };
    let variants: Vec<_> = variants().into_iter().filter(asked).collect();
    ensure!(!variants.is_empty(), "no variant is called so");
    let total = args.rounds * variants.len() * args.faults.len() * args.objects.len();
    let progress = Progress::of(total);
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..args.rounds {
        for objects in &args.objects {
            for fault in &args.faults {
                for variant in &variants {
                    match round::round(lab, variant, *fault, *objects, &progress).await {
                        Ok(outcome) => {
                            progress.done(&line(&outcome));
                            outcomes.push(outcome);
                        }
                        Err(error) => {
                            progress.done(&format!("failed: {error:#}"));
                            failures.push(format!("{error:#}"));
                        }
                    }
                }
            }
        }
    }
    println!("{}", table(&variants, args, &outcomes).text());
    if let Some(path) = &args.out {
        Report::new("takeover", serde_json::to_value(args)?, &outcomes).write(path)?;
    }
    ensure!(
        failures.is_empty(),
        "{} of {total} rounds failed",
        failures.len()
    );
    Ok(())
}

fn line(outcome: &Outcome) -> String {
    format!(
        "{}, {:?}, {} objects: no answer for {:.0} ms, reports not shown for {:.0} ms, {} stale",
        outcome.variant,
        outcome.fault,
        outcome.objects,
        outcome.reads_ms,
        outcome.writes_ms,
        outcome.stale
    )
}

fn table(variants: &[Variant], args: &Args, outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(&[
        "fault",
        "objects",
        "variant",
        "no answer, ms",
        "report not shown, ms",
        "detected",
        "planned",
        "fenced",
        "caught up",
        "restarted is ready",
        "stale answers",
        "rounds",
    ]);
    for fault in &args.faults {
        for objects in &args.objects {
            for variant in variants {
                let same = |outcome: &&Outcome| {
                    outcome.fault == *fault
                        && outcome.objects == *objects
                        && outcome.variant == variant.name
                };
                let own: Vec<_> = outcomes.iter().filter(same).collect();
                let spread = |value: fn(&Outcome) -> Option<f64>| {
                    show(
                        Spread::of(own.iter().filter_map(|outcome| value(outcome))),
                        0,
                    )
                };
                table.row(vec![
                    format!("{fault:?}").to_lowercase(),
                    objects.to_string(),
                    variant.name.clone(),
                    spread(|o| Some(o.reads_ms)),
                    spread(|o| Some(o.writes_ms)),
                    spread(|o| o.phases.detected_ms),
                    spread(|o| o.phases.planned_ms),
                    spread(|o| o.phases.fenced_ms),
                    spread(|o| o.phases.caught_up_ms),
                    spread(|o| o.ready_ms),
                    spread(|o| Some(o.stale as f64)),
                    own.len().to_string(),
                ]);
            }
        }
    }
    table
}
