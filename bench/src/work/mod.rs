//! What both systems are given to do.

pub mod agents;
pub mod check;
pub mod drain;
pub mod growth;
pub mod idle;
pub mod latency;
pub mod limit;
pub mod restore;
pub mod takeover;
pub mod tune;
pub(crate) mod waiting;

use anyhow::Result;
use serde::Serialize;

use crate::run::Run;

/// The works of `bench run`, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum Work {
    /// A backlog of reports is worked off
    Drain,
    /// Nothing to do
    Idle,
    /// From a report written to its state read
    Latency,
    /// An instance starts with nothing, with an older store, with its own
    Restore,
    /// An owner is killed
    Takeover,
    /// More agents, more objects, more partitions
    Growth,
    /// Reports are produced
    Agents,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Drain,
        Self::Idle,
        Self::Latency,
        Self::Restore,
        Self::Takeover,
        Self::Growth,
        Self::Agents,
    ];

    /// Its name in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Idle => "idle",
            Self::Latency => "latency",
            Self::Restore => "restore",
            Self::Takeover => "takeover",
            Self::Growth => "growth",
            Self::Agents => "agents",
        }
    }

    /// Seconds that it is expected to take at full size, on two slow cores.
    #[must_use]
    pub fn expected_s(self, rounds: usize) -> f64 {
        let (once, round) = match self {
            Self::Drain => drain::SECONDS,
            Self::Idle => (0.0, idle::SECONDS),
            Self::Latency => latency::SECONDS,
            Self::Restore => restore::SECONDS,
            Self::Takeover => (0.0, takeover::ROUND_SECONDS),
            Self::Growth => (0.0, growth::SECONDS),
            Self::Agents => (0.0, agents::SECONDS),
        };
        once + round * rounds as f64
    }

    /// Does it.
    ///
    /// # Errors
    /// It cannot be prepared, or its results not be written.
    pub async fn run(self, run: &mut Run<'_>) -> Result<()> {
        match self {
            Self::Drain => drain::run(run).await,
            Self::Idle => idle::run(run).await,
            Self::Latency => latency::run(run).await,
            Self::Restore => restore::run(run).await,
            Self::Takeover => takeover::suite(run).await,
            Self::Growth => growth::run(run).await,
            Self::Agents => agents::run(run).await,
        }
    }
}
