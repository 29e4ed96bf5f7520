//! The faults in force, as the connections see them.

use std::time::Duration;

use tokio::sync::watch;

use super::Direction;

#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Connections are closed and refused.
    pub(super) cut: bool,
    /// Connections opened before the last one of these are closed.
    pub(super) resets: u64,
    /// Connections are open and nothing moves.
    pub(super) frozen: bool,
    pub(super) delay_to_broker: Duration,
    pub(super) delay_to_client: Duration,
    /// The proxy has been dropped.
    pub(super) over: bool,
}

impl Faults {
    pub(super) fn delay(&self, direction: Direction) -> Duration {
        match direction {
            Direction::ToBroker => self.delay_to_broker,
            Direction::ToClient => self.delay_to_client,
        }
    }
}

/// Waits while the proxy is frozen.
pub(super) async fn thawed(faults: &mut watch::Receiver<Faults>) {
    // An error says that the proxy is gone; the connection is about to be closed then.
    let _ = faults.wait_for(|faults| !faults.frozen).await;
}

/// Waits until a connection that was opened at `resets` must be closed.
pub(super) async fn broken(mut faults: watch::Receiver<Faults>, resets: u64) {
    let _ = faults
        .wait_for(|faults| faults.cut || faults.over || faults.resets != resets)
        .await;
}
