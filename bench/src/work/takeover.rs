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
use crate::results::Values;
use crate::run::Run;
use crate::systems::Variant;

/// The case of `bench run`: an owner is killed, and another instance has a standby.
pub const CASE: &str = "kill -9, with a standby";
/// Ours as it comes.
pub const OURS: &str = "shared-state, defaults";
/// Kafka Streams with what it has for this.
pub const STREAMS_BEST: &str = "Kafka Streams, best settings";
/// Kafka Streams as it comes.
pub const STREAMS_DEFAULTS: &str = "Kafka Streams, defaults";

/// Seconds that one takeover is expected to take, all around it included.
const SECONDS: f64 = 45.0;

/// Measures what is compared: an owner is killed that has a standby elsewhere.
///
/// # Errors
/// Results cannot be written.
pub async fn suite(run: &mut Run<'_>) -> Result<()> {
    let objects = run.objects(20_000);
    let variants: Vec<_> = variants()
        .into_iter()
        .filter(|variant| variant.standbys() > 0)
        .collect();
    for round in 1..=run.rounds {
        for variant in &variants {
            let lab = run.lab;
            let measuring = async {
                Ok(values(
                    &round::round(lab, variant, Fault::Kill, objects).await?,
                ))
            };
            run.step(("takeover", CASE, round), variant, SECONDS, measuring)
                .await?;
        }
    }
    Ok(())
}

/// Seconds that a round of [`suite`] is expected to take.
pub(crate) const ROUND_SECONDS: f64 = 3.0 * SECONDS;

fn values(outcome: &Outcome) -> Values {
    let phases = outcome.phases;
    let values = [
        ("no_answer_ms", Some(outcome.reads_ms)),
        ("not_shown_ms", Some(outcome.writes_ms)),
        ("stale_answers", Some(outcome.stale as f64)),
        ("detected_ms", phases.detected_ms),
        ("planned_ms", phases.planned_ms),
        ("fenced_ms", phases.fenced_ms),
        ("caught_up_ms", phases.caught_up_ms),
    ];
    let known = values
        .into_iter()
        .filter_map(|(id, value)| Some((id, value?)));
    known.map(|(id, value)| (id.to_owned(), value)).collect()
}

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
    let ours = |name: &str, standbys| Variant {
        name: name.to_owned(),
        ..Variant::ours().with("num-standby-replicas", standbys)
    };
    let streams = |name: &str, standbys, best: bool| {
        let variant = Variant::streams().with("standby.replicas", standbys);
        let variant = if best {
            variant
                .with("session.timeout.ms", "6000")
                .with("on.close", "leave")
        } else {
            variant
        };
        Variant {
            name: name.to_owned(),
            ..variant
        }
    };
    vec![
        ours(OURS, "1"),
        ours("shared-state, no standby", "0"),
        streams(STREAMS_BEST, "1", true),
        streams("Kafka Streams, best settings, no standby", "0", true),
        streams(STREAMS_DEFAULTS, "1", false),
        streams("Kafka Streams, defaults, no standby", "0", false),
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
    let progress = Progress::of(total as f64 * SECONDS);
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..args.rounds {
        for objects in &args.objects {
            for fault in &args.faults {
                for variant in &variants {
                    progress.now(&format!("{}, {fault:?}, {objects} objects", variant.name));
                    match round::round(lab, variant, *fault, *objects).await {
                        Ok(outcome) => {
                            progress.done(&line(&outcome), SECONDS);
                            outcomes.push(outcome);
                        }
                        Err(error) => {
                            progress.done(&format!("failed: {error:#}"), SECONDS);
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
