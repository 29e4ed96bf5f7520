//! What an instance takes when there is nothing to do.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lab::Lab;
use crate::results::Values;
use crate::run::Run;
use crate::systems::Variant;
use crate::topic;

/// How long an instance that is ready is left alone before anything counts.
const SETTLE: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(10);

/// Partitions, and how the cases are called.
pub const CASES: [(u32, &str); 3] = [
    (1, "1 partition"),
    (8, "8 partitions"),
    (64, "64 partitions"),
];

/// Seconds that a round is expected to take.
pub(crate) const SECONDS: f64 = 150.0;

/// Measures both systems.
///
/// # Errors
/// Results cannot be written.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 1..=run.rounds {
        for (partitions, case) in CASES {
            for variant in [Variant::ours(), Variant::streams()] {
                let measuring = measure(run.lab, &variant, partitions);
                run.step(("idle", case, round), &variant, SECONDS / 6.0, measuring)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn measure(lab: &Lab, variant: &Variant, partitions: u32) -> Result<Values> {
    let app = lab.application("idle")?;
    lab.source_topic_of(&app, partitions).await?;
    let mut instance = variant.start(lab, &app, "a")?;
    instance.ready().await?;
    tokio::time::sleep(SETTLE).await;
    let (began, usage, broker) = (Instant::now(), instance.usage()?, lab.broker().await?);
    tokio::time::sleep(MEASURED).await;
    let (took, after) = (began.elapsed(), instance.usage()?);
    let broker = broker.zip(lab.broker().await?);
    instance.terminate().await?;
    topic::delete_all(&app).await?;
    let mut values = vec![
        ("core_percent", after.cores_since(&usage, took)),
        ("steady_rss_mib", after.rss_mib as f64),
        ("peak_rss_mib", after.peak_rss_mib as f64),
    ];
    if let Some((before, after)) = broker {
        values.push(("broker_core_percent", after.cores_since(&before, took)));
    }
    Ok(values
        .into_iter()
        .map(|(id, v)| (id.to_owned(), v))
        .collect())
}
