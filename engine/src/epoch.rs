//! An epoch: everything that one transaction commits, held in memory until then.

use std::sync::{Arc, Weak};

use crate::store::Store;

mod outputs;
mod rows;

pub use outputs::{Destination, Output, Outputs};
pub use rows::{ROW_BYTES, Row, Rows};

/// What one task adds to an epoch. Immutable once cut.
#[derive(Debug)]
pub struct TaskEpoch {
    /// The task.
    pub partition: u32,
    /// Its store, which takes the rows after the commit. The task holds it: a committer whose call does not end
    /// shall not keep a store open that others need closed.
    pub store: Weak<Store>,
    /// Changed rows, sorted by key, each key once; a digest comes last.
    pub rows: Arc<Rows>,
    /// Changed rows of the index of timers, sorted: for the store, not for the changelog.
    pub timers: Rows,
    /// Other records, in order.
    pub outputs: Arc<Outputs>,
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
        self.rows.row(key)
    }
}

/// What one transaction of one worker commits.
#[derive(Debug, Default)]
pub struct Epoch {
    /// The tasks that changed.
    pub tasks: Vec<Arc<TaskEpoch>>,
}
