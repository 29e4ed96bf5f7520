//! An epoch: everything that one transaction commits, held in memory until then.

use std::sync::Arc;

use crate::{processor::Reason, store::Store};

/// A row of a task's store and of the changelog: key with its prefix, value or deletion.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

/// A record for a topic other than the changelog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where to.
    pub to: Destination,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Where an output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The output topic, on the task's own partition.
    States,
    /// The dead letters.
    DeadLetters(Reason),
    /// The source topic, on the partition where the key belongs.
    Source {
        /// That partition.
        partition: u32,
    },
}

/// What one task adds to an epoch. Immutable once cut.
#[derive(Debug)]
pub struct TaskEpoch {
    /// The task.
    pub partition: u32,
    /// Its store, which takes the rows after the commit.
    pub store: Arc<Store>,
    /// Changed rows, sorted by key, each key once; a digest comes last.
    pub rows: Vec<Row>,
    /// Other records, in order.
    pub outputs: Vec<Output>,
    /// The offset after the last processed source record; `None` if there was none (timers only).
    pub next_offset: Option<i64>,
    /// Source records in it.
    pub records: u64,
    /// Digest of all rows of the store once these are in it.
    pub digest: u64,
}

impl TaskEpoch {
    /// The row under `key`, if this epoch changes it: outer `None` = unchanged, inner = deleted.
    #[must_use]
    pub fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let i = self
            .rows
            .binary_search_by(|(k, _)| k.as_slice().cmp(key))
            .ok()?;
        Some(self.rows[i].1.as_deref())
    }

    /// The rows whose key starts with `prefix`.
    #[must_use]
    pub fn rows_under(&self, prefix: u8) -> &[Row] {
        let from = self
            .rows
            .partition_point(|(k, _)| k.first().is_some_and(|p| *p < prefix));
        let to = self
            .rows
            .partition_point(|(k, _)| k.first().is_some_and(|p| *p <= prefix));
        &self.rows[from..to]
    }
}

/// What one transaction of one worker commits.
#[derive(Debug, Default)]
pub struct Epoch {
    /// The tasks that changed.
    pub tasks: Vec<Arc<TaskEpoch>>,
}
