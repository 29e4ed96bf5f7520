//! What the last epoch of each partition published, until the next one is committed.
//!
//! A commit that Kafka has reported may miss its marker on one partition and not on another
//! (`docs/adr/0010-what-was-committed-is-looked-for.md`): the changelog has the rows then, and an abort takes
//! the outputs away. So they are looked for after an abort, and when a task is opened again, and are published
//! again if they are gone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::epoch::{Outputs, TaskEpoch};

/// Outputs of an epoch, and where they are.
#[derive(Debug, Clone)]
pub struct Last {
    /// The offset of the last of them on the task's partition of the output topic.
    pub(super) offset: i64,
    /// All that the epoch sent to any topic but the changelog.
    pub(super) outputs: Arc<Outputs>,
    /// Digest of the store that belongs to them: that of this epoch, or of a later one without outputs.
    digest: u64,
}

impl Last {
    /// The same, published to this offset.
    pub(super) fn at(self, offset: i64) -> Self {
        Self { offset, ..self }
    }
}

/// The last outputs of all partitions of an instance: they outlive the workers.
#[derive(Debug, Default)]
pub struct Published(Mutex<BTreeMap<u32, Epochs>>);

/// The last epoch that is committed, and the one under way: nobody may ever hear what became of that.
#[derive(Debug, Default)]
struct Epochs {
    committed: Option<Last>,
    under_way: Option<Last>,
}

impl Published {
    /// An epoch is delivered, its last output to `offset`, and is about to be committed.
    pub(super) fn delivered(&self, task: &TaskEpoch, offset: Option<i64>) {
        let mut all = self.lock();
        let epochs = all.entry(task.partition).or_default();
        epochs.under_way = match offset {
            Some(offset) => Some(Last {
                offset,
                outputs: Arc::clone(&task.outputs),
                digest: task.digest,
            }),
            None => epochs.committed.clone().map(|last| Last {
                digest: task.digest,
                ..last
            }),
        };
    }

    /// The epoch under way is committed.
    pub(super) fn committed(&self, partition: u32) {
        if let Some(epochs) = self.lock().get_mut(&partition) {
            epochs.committed = epochs.under_way.take();
        }
    }

    /// The epoch under way is aborted; where the last output before it is.
    pub(super) fn aborted(&self, partition: u32) -> Option<i64> {
        let mut all = self.lock();
        let epochs = all.get_mut(&partition)?;
        epochs.under_way = None;
        Some(epochs.committed.as_ref()?.offset)
    }

    /// What was published last, if the store that belongs to it has this digest.
    #[must_use]
    pub fn last(&self, partition: u32, digest: u64) -> Option<Last> {
        let all = self.lock();
        let epochs = all.get(&partition)?;
        let mut both = epochs.under_way.iter().chain(&epochs.committed);
        both.find(|last| last.digest == digest).cloned()
    }

    /// Memory of what is kept of a partition.
    #[must_use]
    pub fn bytes(&self, partition: u32) -> usize {
        let all = self.lock();
        let kept = all.get(&partition).into_iter();
        let kept = kept.flat_map(|epochs| epochs.under_way.iter().chain(&epochs.committed));
        kept.map(|last| last.outputs.bytes()).sum()
    }

    /// This, and no other, is the last one.
    pub(super) fn put(&self, partition: u32, last: Last) {
        let epochs = Epochs {
            committed: Some(last),
            under_way: None,
        };
        self.lock().insert(partition, epochs);
    }

    /// The partition is given up in order.
    pub fn forget(&self, partition: u32) {
        self.lock().remove(&partition);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Epochs>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::epoch::Rows;

    const PARTITION: u32 = 3;

    fn epoch(digest: u64) -> TaskEpoch {
        TaskEpoch {
            partition: PARTITION,
            store: Weak::new(),
            rows: Rows::default().into(),
            timers: Rows::default(),
            outputs: Outputs::default().into(),
            next_offset: None,
            records: 0,
            digest,
        }
    }

    /// Which outputs belong to a store with the digest 1, 2, 3?
    fn offsets(published: &Published) -> [Option<i64>; 3] {
        [1, 2, 3].map(|digest| Some(published.last(PARTITION, digest)?.offset))
    }

    #[test]
    fn a_store_says_which_outputs_belong_to_it() {
        let published = Published::default();
        published.delivered(&epoch(1), Some(10));
        assert_eq!(offsets(&published), [Some(10), None, None], "who knows");
        published.committed(PARTITION);
        // One without outputs.
        published.delivered(&epoch(2), None);
        assert_eq!(offsets(&published), [Some(10), Some(10), None]);
        published.committed(PARTITION);
        assert_eq!(offsets(&published), [None, Some(10), None]);
        published.delivered(&epoch(3), Some(30));
        assert_eq!(offsets(&published), [None, Some(10), Some(30)]);
        assert_eq!(published.aborted(PARTITION), Some(10));
        assert_eq!(offsets(&published), [None, Some(10), None]);
        published.forget(PARTITION);
        assert_eq!(offsets(&published), [None; 3]);
        assert_eq!(published.aborted(PARTITION), None);
    }
}
