//! Leaving in order, or as much in order as the brokers and disks allow.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    Happening,
    conductor::{Conductor, write},
};
use crate::{
    membership::{PlanNumber, Status},
    processor::Processor,
    worker::Report,
};

/// How long a graceful stop may take before the process goes anyway; nothing is lost by that.
const STOP_WITHIN: Duration = Duration::from_secs(10);

impl<P: Processor> Conductor<P> {
    /// Commits and closes everything, then says goodbye.
    pub(super) fn leave(mut self, heard: &mpsc::Receiver<Happening>) -> anyhow::Result<()> {
        let deadline = Instant::now() + STOP_WITHIN;
        write(&self.tasks).clear();
        if self.holdings.none_ready() {
            // They wait for Kafka, and for nothing that would be lost.
            self.stop_now.store(true, Ordering::Release);
        }
        let mut left = self.workers.len();
        self.workers.clear();
        while left > 0 {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match heard.recv_timeout(remaining) {
                Ok(Happening::Worker(_, Report::Failed(why))) => {
                    tracing::warn!(why, "a worker did not end in order");
                    left -= 1;
                }
                Ok(Happening::Worker(_, Report::Ended(why))) => {
                    if let Some(why) = why {
                        tracing::warn!(why, "a worker did not end in order");
                    }
                    left -= 1;
                }
                Ok(_) => {}
                Err(_) => {
                    self.stop_now.store(true, Ordering::Release);
                    if let Some(beats) = self.beats.take() {
                        // Not closed in order: the row must not say so.
                        std::mem::forget(beats);
                    }
                    anyhow::bail!(
                        "the last commit did not end in time; the next owner resolves it"
                    );
                }
            }
        }
        if let Some(beats) = self.beats.take() {
            beats.update(|row| {
                row.status = Status::Left;
                row.tasks.clear();
                row.closed_for = PlanNumber::MAX;
            });
        }
        // The restorer brings its stores to disk, and lets go of the table of stores.
        drop(self.restorer);
        while Arc::strong_count(&self.stores) > 1 && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(5));
        }
        tracing::info!("left the application");
        Ok(())
    }
}
