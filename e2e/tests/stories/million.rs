//! A crash of an instance with a million objects costs what was written since the last flush, no more; and they
//! need not fit into its memory.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::schema::SiteAttackVerdict::Clear;
use e2e::{PATIENCE, Service, story, until};

use crate::report;

const OBJECTS: &str = "1000000";
/// Less than these objects take.
const MEMORY_MIB: u64 = 160;
/// What a debug build of the process may take with that.
const PROCESS_MIB: u64 = 320;
const CHANGED: usize = 200;
/// For a debug build, on a machine that does other things too.
const LOADING: Duration = Duration::from_mins(5);

async fn processed(service: &Service, at_least: f64, patience: Duration) -> Result<()> {
    let look = async || {
        let metrics = service.metrics().await?;
        Ok(metrics.sum("records_processed_total", &[]))
    };
    until("the reports are processed", patience, look, |n| {
        *n >= at_least
    })
    .await?;
    Ok(())
}

/// Was it always?
fn within_its_memory(service: &Service) -> Result<()> {
    let pid = service.pid().context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let digits = line
        .context("VmHWM")?
        .replace(|c: char| !c.is_ascii_digit(), "");
    let most_mib = digits.parse::<u64>()? / 1024;
    ensure!(most_mib <= PROCESS_MIB, "{most_mib} MiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_with_a_million_objects_replays_the_delta_only() -> Result<()> {
    story("million", async |app| {
        let memory = MEMORY_MIB.to_string();
        let flags = [
            ("quorum", "1"),
            ("freshness", "24h"),
            ("memory-mb", &memory[..]),
        ];
        let mut service = app.state_service("a", &flags)?;
        service.ready().await?;
        let load = [
            "simulate",
            "--agents",
            "1",
            "--objects",
            OBJECTS,
            "--count",
            OBJECTS,
            "--rate",
            "max",
            "--attacked",
            "0",
            "--false-positives",
            "0",
            "--reordered",
            "0",
            "--repeated",
            "0",
        ];
        app.agents("load", &load)?.finished().await?;
        processed(&service, 1e6, LOADING).await?;
        within_its_memory(&service)?;
        // A stop in order flushes. What comes after the restart is not flushed for thirty seconds.
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        service.restart().await?;
        service.ready().await?;
        let restored = service.metrics().await?.changelog_records_read();
        ensure!(
            restored < 0.5,
            "{restored} records restored after a stop in order"
        );

        let topics = app.topics()?;
        for number in 1..=CHANGED {
            let id = format!("site-{number:04}.example.com");
            topics.report(&report(&id, "waf-2", Clear, 1)).await?;
        }
        processed(&service, 200.0, PATIENCE).await?;
        service.kill().await?;
        service.restart().await?;
        service.ready().await?;
        let restored = service.metrics().await?.changelog_records_read();
        // Fewer if a slow machine took longer than the thirty seconds.
        ensure!(
            restored < 200.5,
            "{restored} records restored, not the {CHANGED} written since the flush"
        );
        let last = format!("site-{CHANGED:04}.example.com");
        let reports = service.api().await?.reports(&last).await?;
        ensure!(reports.len() == 2, "{reports:?}");

        // From nothing, all of it.
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        let other = app.state_service("b", &flags)?;
        // The first one is waited for, since nobody else has what it has.
        let look = async || Ok(other.metrics().await?.changelog_records_read());
        until("all is restored", LOADING, look, |n| *n >= 1e6).await?;
        within_its_memory(&other)
    })
    .await
}
