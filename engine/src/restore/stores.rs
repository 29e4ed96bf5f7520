//! Which stores this instance has, and how far they are: written by the restorer, read by all.

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

/// What is done with a store that no task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is on disk, and nothing is done with it.
    Idle,
    /// It is being completed for a task.
    Restoring,
    /// It keeps up with the changelog: a standby.
    Following,
}

/// How far a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// What is done with it.
    pub phase: Phase,
    /// The next changelog offset to be read: everything before is in the store, or about to be.
    pub position: i64,
    /// The end of the changelog, as far as it is known.
    pub end: Option<i64>,
    /// Records read in this phase.
    pub restored: u64,
    /// Records per second at the moment.
    pub rate: u64,
    /// Seconds until the end is reached; `None` if nobody can tell.
    pub seconds_left: Option<u64>,
}

impl Standing {
    pub(super) fn idle(position: i64) -> Self {
        Self {
            phase: Phase::Idle,
            position,
            end: None,
            restored: 0,
            rate: 0,
            seconds_left: None,
        }
    }

    /// How many offsets the store is behind; `None` while the end is not known.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        self.end.map(|end| (end - self.position).max(0))
    }
}

/// The stores of an instance that no task has: a task's store is not among them.
#[derive(Debug, Default)]
pub struct Stores {
    standings: RwLock<BTreeMap<u32, Standing>>,
    surveyed: AtomicBool,
}

impl Stores {
    /// Has the state directory been looked through? Before that, stores may be missing here.
    #[must_use]
    pub fn surveyed(&self) -> bool {
        self.surveyed.load(Ordering::Acquire)
    }

    /// The store of a partition, if there is one and no task has it.
    #[must_use]
    pub fn get(&self, partition: u32) -> Option<Standing> {
        self.read().get(&partition).copied()
    }

    /// All of them, by partition.
    #[must_use]
    pub fn all(&self) -> BTreeMap<u32, Standing> {
        self.read().clone()
    }

    pub(super) fn set_surveyed(&self) {
        self.surveyed.store(true, Ordering::Release);
    }

    pub(super) fn put(&self, partition: u32, standing: Standing) {
        self.write().insert(partition, standing);
    }

    pub(super) fn remove(&self, partition: u32) {
        self.write().remove(&partition);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, Standing>> {
        self.standings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u32, Standing>> {
        self.standings
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
