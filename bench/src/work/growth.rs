//! What a report costs as things grow: agents of an object, objects, partitions.
//!
//! Agents grow while the number of votes stays a million: a report is one of ten votes or one of a thousand, and the
//! data are as many. Objects grow on the smallest `--memory-mb` that there is, until their store is more than
//! ten times as large; each exists before anything is measured. Where Kafka Streams would need most of an hour, only ours
//! is measured.

use anyhow::Result;
use engine::memory::LEAST_MIB;

use super::drain::Plan;
use crate::load::{Load, Order};
use crate::run::Run;
use crate::systems::{OURS, Variant};

const VOTES: u64 = 1_000_000;
const REPORTS: u64 = 1_000_000;

/// Agents of an object, and how the cases are called.
pub const AGENTS: [(usize, &str); 3] = [
    (10, "10 agents"),
    (100, "100 agents"),
    (1_000, "1,000 agents"),
];
/// Objects, and how the cases are called.
pub const OBJECTS: [(u64, &str); 4] = [
    (100_000, "100,000 objects"),
    (1_000_000, "1,000,000 objects"),
    (10_000_000, "10,000,000 objects"),
    (20_000_000, "20,000,000 objects"),
];
/// Partitions, and how the cases are called.
pub const PARTITIONS: [(u32, &str); 3] = [
    (1, "1 partition"),
    (8, "8 partitions"),
    (64, "64 partitions"),
];

/// Seconds that a round is expected to take.
pub(crate) const SECONDS: f64 = 300.0;

/// Measures ours at all sizes, the peer where it is done in reasonable time.
///
/// # Errors
/// Results cannot be written.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    let (ours, streams) = (Variant::ours(), Variant::streams());
    let small = Variant {
        name: format!("{OURS}, {LEAST_MIB} MiB"),
        ..Variant::ours().with("memory-mb", &LEAST_MIB.to_string())
    };
    for round in 1..=run.rounds {
        for (agents, case) in AGENTS {
            let votes = run.scaled(VOTES);
            let objects = usize::try_from(votes)? / agents;
            let load = Load::uniform(run.scaled(REPORTS), objects.max(1), agents);
            // Every vote exists before anything is measured.
            let before = Load {
                order: Order::Sweep,
                reports: votes,
                ..load.clone()
            };
            let variants: &[_] = if agents == 1_000 {
                &[&ours]
            } else {
                &[&ours, &streams]
            };
            for &variant in variants {
                let plan = Plan::new(variant, &load).after(before.clone());
                let measuring = plan.drain(run.lab);
                run.step(("growth", case, round), variant, 25.0, measuring)
                    .await?;
            }
        }
        for (objects, case) in OBJECTS {
            // That takes minutes: once is enough to know the rate.
            if objects > REPORTS && round > 1 {
                continue;
            }
            let before = Load::sweep(run.objects(objects));
            let load = Load::uniform(run.scaled(REPORTS), run.objects(objects), 10);
            let measuring = Plan::new(&small, &load).after(before).drain(run.lab);
            run.step(("growth", case, round), &small, 30.0, measuring)
                .await?;
        }
        for (partitions, case) in PARTITIONS {
            let load = Load::uniform(run.scaled(REPORTS), run.objects(100_000), 10);
            for variant in [&ours, &streams] {
                let plan = Plan::new(variant, &load).partitions(partitions);
                run.step(("growth", case, round), variant, 15.0, plan.drain(run.lab))
                    .await?;
            }
        }
    }
    Ok(())
}
