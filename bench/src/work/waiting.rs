//! Waiting until a system has done everything.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::Application;

/// Waits until the application has committed the whole source topic. Works for both: the group is the
/// application id.
pub(crate) async fn all_committed(app: &Application, patience: Duration) -> Result<()> {
    let topics = app.topics()?;
    let reports = topics.names().reports.clone();
    let ends = topics.ends(&reports).await?;
    let what = format!("{} has committed all of {reports}", app.id());
    e2e::eventually(&what, patience, async || {
        let committed = topics.committed(app.id(), &reports).await?;
        let behind: i64 = ends
            .iter()
            .map(|(partition, end)| end - committed.get(partition).copied().unwrap_or(0))
            .sum();
        ensure!(behind == 0, "{behind} records are not committed");
        Ok(())
    })
    .await
}
