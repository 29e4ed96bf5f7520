//! shared-state's own service.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::{Application, Service};

/// Starts an instance with these flags.
///
/// # Errors
/// It is not built, or no process can be made.
pub(super) fn start(
    app: &Application,
    name: &str,
    settings: &BTreeMap<String, String>,
) -> Result<Service> {
    let flags: Vec<_> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    app.state_service(name, &flags)
}

/// Records processed so far, be they committed or not.
pub(super) async fn processed(service: &Service) -> Result<u64> {
    let metrics = service.metrics().await?;
    // A counter: whole and not negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(metrics.sum("records_consumed_total", &[]) as u64)
}

/// Changelog records read by its restorer, ahead of a task as a follower or for one.
pub(super) async fn restored(service: &Service) -> Result<u64> {
    let read = service.metrics().await?.changelog_records_read();
    // Counters: whole and not negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(read as u64)
}
