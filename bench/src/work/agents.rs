//! How fast `agent-sim` produces reports, for one core of its own time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use devkit::process::{Process, Program, tail};

use crate::lab::Lab;
use crate::machine::Usage;
use crate::results::Values;
use crate::run::Run;
use crate::systems::{System, Variant};
use crate::topic;

const REPORTS: u64 = 3_000_000;
const PATIENCE: Duration = Duration::from_mins(5);
/// How often it is looked at: what it has taken is known only while it runs.
const LOOK: Duration = Duration::from_millis(10);

/// The case, and who does it.
pub const CASE: &str = "as fast as it can";
/// Its name in results.
pub const NAME: &str = "agent-sim";

/// Seconds that a round is expected to take.
pub(crate) const SECONDS: f64 = 10.0;

/// Measures it.
///
/// # Errors
/// Results cannot be written.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    let reports = run.scaled(REPORTS);
    for round in 1..=run.rounds {
        let variant = Variant::new(NAME, System::Ours, &[]);
        let measuring = measure(run.lab, reports);
        run.step(("agents", CASE, round), &variant, SECONDS, measuring)
            .await?;
    }
    Ok(())
}

async fn measure(lab: &Lab, reports: u64) -> Result<Values> {
    let app = lab.application("agents")?;
    lab.source_topic(&app).await?;
    let count = reports.to_string();
    let arguments = [
        "simulate",
        "--rate",
        "max",
        "--agents",
        "10",
        "--objects",
        "100000",
        "--count",
        &count,
        "--application-id",
        app.id(),
        "--bootstrap-servers",
        app.bootstrap(),
        "--schema-registry-url",
        app.registry_url(),
    ];
    let log = app.folder().join("agents.log");
    let (began, broker) = (Instant::now(), lab.broker().await?);
    let mut process = Process::start(Program {
        name: "agent-sim".into(),
        executable: e2e::binary("agent-sim")?,
        arguments: arguments.map(str::to_owned).to_vec(),
        environment: Vec::new(),
        folder: app.folder().to_owned(),
        log: log.clone(),
        leftover: Some(app.folder().to_owned()),
    })?;
    let mut usage = Usage::default();
    let status = loop {
        // Gone between two looks: the last look stands.
        if let Ok(now) = Usage::of(process.pid())
            && now.cpu_s >= usage.cpu_s
        {
            usage = now;
        }
        if let Some(status) = process.ended()? {
            break status;
        }
        ensure!(began.elapsed() < PATIENCE, "it still runs:\n{}", tail(&log));
        tokio::time::sleep(LOOK).await;
    };
    let seconds = began.elapsed().as_secs_f64();
    let broker = broker.zip(lab.broker().await?);
    if !status.success() {
        bail!("it ended with {status}:\n{}", tail(&log));
    }
    let sent: i64 = app
        .topics()?
        .ends(&app.names().reports)
        .await?
        .values()
        .sum();
    ensure!(
        sent >= i64::try_from(reports)?,
        "only {sent} reports are there"
    );
    topic::delete_all(&app).await?;
    let million = reports as f64 / 1e6;
    let mut values = vec![
        ("seconds", seconds),
        ("reports_per_s", reports as f64 / seconds),
        ("cpu_s", usage.cpu_s),
        ("cpu_s_per_million", usage.cpu_s / million),
        ("reports_per_cpu_s", reports as f64 / usage.cpu_s),
        ("peak_rss_mib", usage.peak_rss_mib as f64),
    ];
    if let Some((before, after)) = broker {
        values.push((
            "broker_cpu_s_per_million",
            (after.cpu_s - before.cpu_s) / million,
        ));
    }
    Ok(values
        .into_iter()
        .map(|(id, v)| (id.to_owned(), v))
        .collect())
}
