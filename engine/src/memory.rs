//! How memory is divided: one budget, a share for each part that grows with the work.
//!
//! Shares are bounds, not reservations: a part that has little to do takes little, and what it leaves a restore may have. What RocksDB, the
//! cache of objects and restores hold is counted by the byte; what an epoch or librdkafka holds is
//! bounded by what comes in, times what that was seen to cost.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The least that an instance can work with, in MiB.
pub const LEAST_MIB: usize = 160;

/// Code, stacks, clients, metrics; blocks that RocksDB holds while tables are written, read and merged.
const FIXED: usize = 104 << 20;
/// What is counted takes so many percent of it: allocators keep room between, and what was freed a while.
const TAKES_PERCENT: usize = 115;
/// A short message in librdkafka's queue takes so many times the bytes that librdkafka counts for it, what
/// an answer adds to a queue that was not quite full included.
const MESSAGE_OVERHEAD: usize = 12;
/// As does a row of a changelog, which is some times as long.
const ROW_OVERHEAD: usize = 6;
/// A consumer whose queue is smaller than this starves.
const LEAST_QUEUE: usize = 1 << 20;

/// The shares of a budget, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// All stores: rows that are not in RocksDB yet, its block cache and memtables.
    pub stores: usize,
    /// Objects in the caches of all tasks.
    pub objects: usize,
    /// One epoch of one worker: outputs, and the rows that it changes.
    pub epoch: usize,
    /// The queue of one worker's consumer, as librdkafka counts it.
    pub queue: usize,
    /// The queue of the restorer's consumer, as librdkafka counts it.
    pub restore_queue: usize,
}

impl Shares {
    /// Divides `mib` MiB among the parts of an instance with `workers` workers. Less than
    /// [`LEAST_MIB`] counts as that.
    #[must_use]
    pub fn of(mib: usize, workers: u32) -> Self {
        let workers = usize::try_from(workers).unwrap_or(usize::MAX).max(1);
        let budget = ((mib.max(LEAST_MIB) << 20) - FIXED) / TAKES_PERCENT * 100;
        let percent = |percent: usize| budget / 100 * percent;
        let queue = |bytes: usize, overhead: usize| (bytes / overhead).max(LEAST_QUEUE);
        Self {
            stores: percent(25),
            objects: percent(38),
            epoch: percent(24) / workers,
            queue: queue(percent(6) / workers, MESSAGE_OVERHEAD),
            restore_queue: queue(percent(6), ROW_OVERHEAD),
        }
    }

    /// All of it, with what is not shared out.
    #[must_use]
    pub fn total(&self, workers: usize) -> usize {
        let epochs = self.epoch * workers;
        let queues = self.queue * workers * MESSAGE_OVERHEAD + self.restore_queue * ROW_OVERHEAD;
        FIXED + (self.stores + self.objects + epochs + queues) / 100 * TAKES_PERCENT
    }
}

/// Memory that many share, of the caches of all tasks for one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    most: usize,
    /// In the caches.
    cached: AtomicUsize,
    /// Caches that are busy.
    busy: AtomicUsize,
}

impl Pool {
    /// A pool of `most` bytes.
    #[must_use]
    pub fn of(most: usize) -> Self {
        Self(Arc::new(Counts {
            most,
            cached: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
        }))
    }

    /// Opens a cache. It is busy.
    #[must_use]
    pub fn open(&self) -> Account {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        Account {
            pool: self.clone(),
            bytes: 0,
            busy: true,
        }
    }

    /// What caches leave: rows on their way into stores that are restored have it meanwhile. Never less than an eighth,
    /// so that a restore beside a busy task goes on.
    #[must_use]
    pub fn left(&self) -> usize {
        let cached = self.0.cached.load(Ordering::Relaxed);
        self.0.most.saturating_sub(cached).max(self.0.most / 8)
    }
}

/// One cache's part of a [`Pool`]; given back when dropped.
#[derive(Debug)]
pub struct Account {
    pool: Pool,
    bytes: usize,
    busy: bool,
}

impl Account {
    /// The cache holds so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        let cached = &self.pool.0.cached;
        if bytes >= self.bytes {
            cached.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            cached.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Is the cache busy, that is, is it asked for anything? If not, it makes room for those that are.
    pub fn set_busy(&mut self, busy: bool) {
        let count = &self.pool.0.busy;
        match (self.busy, busy) {
            (false, true) => count.fetch_add(1, Ordering::Relaxed),
            (true, false) => count.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.busy = busy;
    }

    /// What the cache may hold. While there is room, what it has; if there is none, its even part of the pool, among
    /// those that are busy. One that is not gives up so much that a quarter of the pool becomes room.
    #[must_use]
    pub fn most(&self) -> usize {
        let most = self.pool.0.most;
        let cached = self.pool.0.cached.load(Ordering::Relaxed);
        match (cached.checked_sub(most), self.busy) {
            (None, _) => self.part().max(self.bytes),
            (Some(_), true) => self.part(),
            (Some(lack), false) => self.bytes.saturating_sub(lack + most / 4),
        }
    }

    /// Is more than half of the pool taken?
    #[must_use]
    pub fn is_short(&self) -> bool {
        let cached = self.pool.0.cached.load(Ordering::Relaxed);
        cached > self.pool.0.most / 2
    }

    /// What may come into the cache before it is asked what it may hold: its even part of the room that there is.
    #[must_use]
    pub fn room(&self) -> usize {
        let cached = self.pool.0.cached.load(Ordering::Relaxed);
        self.even_part(self.pool.0.most.saturating_sub(cached))
    }

    /// Its even part of the pool, among those that are busy.
    #[must_use]
    pub fn part(&self) -> usize {
        self.even_part(self.pool.0.most)
    }

    fn even_part(&self, bytes: usize) -> usize {
        bytes / self.pool.0.busy.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
        self.set_busy(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_within_the_budget() {
        for mib in [LEAST_MIB, 200, 256, 1024, 65_536] {
            for workers in [1_u32, 2, 8] {
                let shares = Shares::of(mib, workers);
                let total = shares.total(workers as usize);
                // On a small budget with many workers, their queues are no smaller than they must be.
                let queues = LEAST_QUEUE * MESSAGE_OVERHEAD * (workers as usize + 1);
                let floor = queues / 100 * TAKES_PERCENT;
                assert!(
                    total <= (mib << 20) + floor,
                    "{mib} MiB, {workers}: {shares:?}"
                );
                assert!(
                    total >= (mib << 20) / 10 * 9,
                    "{mib} MiB, {workers}: {shares:?}"
                );
            }
        }
        assert_eq!(Shares::of(0, 0), Shares::of(LEAST_MIB, 1));
    }

    #[test]
    fn caches_share_a_pool() {
        let pool = Pool::of(800);
        let mut a = pool.open();
        let mut b = pool.open();
        assert_eq!((a.most(), b.most(), pool.left()), (400, 400, 800));
        // Room that the other leaves may be kept.
        a.set(600);
        assert_eq!((a.most(), b.most(), pool.left()), (600, 400, 200));
        // Until the other needs it.
        b.set(300);
        assert_eq!((a.most(), b.most(), pool.left()), (400, 400, 100));
        drop(a);
        assert_eq!((b.most(), pool.left()), (800, 500));
    }

    #[test]
    fn one_that_is_not_busy_makes_room() {
        let pool = Pool::of(800);
        let [mut a, mut b] = [pool.open(), pool.open()];
        a.set(700);
        a.set_busy(false);
        // Not before it is needed.
        assert_eq!((a.most(), b.most(), b.room()), (800, 800, 100));
        b.set(150);
        assert_eq!((a.most(), b.most(), b.room()), (450, 800, 0));
        a.set(450);
        assert_eq!((a.most(), b.most(), b.room()), (800, 800, 200));
        // Busy again: both have the same right.
        a.set_busy(true);
        b.set(400);
        assert_eq!((a.most(), b.most(), b.room()), (400, 400, 0));
    }
}
