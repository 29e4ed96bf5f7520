//! Durable timers: rows of the store, so that they survive crashes and moves.
//!
//! A row's key is the due time (big-endian, so that rows sort by it) and the key it was set for;
//! its value is empty. Memory holds only what is not committed yet and when the next one is due.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    digest,
    epoch::{Rows, TaskEpoch},
    store::{self, Store, TIMER},
};

/// A timer: when it is due, in ms since 1970, and for which key.
pub type Timer = (i64, Vec<u8>);

/// The timers of a task.
#[derive(Debug)]
pub struct Timers {
    store: Arc<Store>,
    staged: Option<Arc<TaskEpoch>>,
    /// Changes since the last cut: armed or disarmed.
    changes: BTreeMap<Timer, bool>,
    /// No timer is due before this.
    next_due_ms: i64,
}

impl Timers {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            staged: None,
            changes: BTreeMap::new(),
            next_due_ms: i64::MIN,
        }
    }

    /// Arms a timer. A key may have several, at different times.
    pub fn set(&mut self, key: &[u8], due_ms: i64) {
        // Times before 1970 would not sort; they are due at once anyway.
        let due_ms = due_ms.max(0);
        self.next_due_ms = self.next_due_ms.min(due_ms);
        self.changes.insert((due_ms, key.to_vec()), true);
    }

    /// Disarms a timer set for exactly this key and time.
    pub fn cancel(&mut self, key: &[u8], due_ms: i64) {
        self.changes.insert((due_ms.max(0), key.to_vec()), false);
    }

    /// Up to `limit` timers that are due at `now_ms`, earliest first, disarmed by this call.
    pub(crate) fn take_due(
        &mut self,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<Timer>, store::Error> {
        if now_ms < self.next_due_ms {
            return Ok(Vec::new());
        }
        let (due, next) = self.look(now_ms, limit)?;
        self.next_due_ms = next;
        for timer in &due {
            self.changes.insert(timer.clone(), false);
        }
        Ok(due)
    }

    /// The due timers, and the earliest time at which another may be due.
    fn look(&self, now_ms: i64, limit: usize) -> Result<(Vec<Timer>, i64), store::Error> {
        // What memory says comes before what the store says.
        let mut known: BTreeMap<Timer, bool> = BTreeMap::new();
        for (key, value) in self.staged.iter().flat_map(|e| e.rows_under(TIMER)) {
            if let Some(timer) = parse(key) {
                known.insert(timer, value.is_some());
            }
        }
        known.extend(self.changes.iter().map(|(t, armed)| (t.clone(), *armed)));
        let mut armed: BTreeSet<Timer> = known
            .iter()
            .filter(|(_, armed)| **armed)
            .map(|(timer, _)| timer.clone())
            .collect();
        let mut taken = 0;
        // Where the store may have more that were not looked at.
        let mut beyond_ms = i64::MAX;
        // Whatever was due before has been taken: its deletions need not be stepped over again.
        let from = row_key(self.next_due_ms.max(0), &[]);
        self.store.scan(&from, |key, _| {
            let Some(timer) = parse(key) else { return true };
            if known.contains_key(&timer) {
                return true;
            }
            let due_ms = timer.0;
            armed.insert(timer);
            taken += 1;
            if taken == limit {
                beyond_ms = due_ms;
            }
            // One more than is due tells when to look again.
            due_ms <= now_ms && taken < limit
        })?;
        let mut rest = armed.into_iter();
        let mut due = Vec::new();
        for timer in rest.by_ref() {
            if timer.0 > now_ms || due.len() == limit {
                return Ok((due, timer.0.min(beyond_ms)));
            }
            due.push(timer);
        }
        Ok((due, beyond_ms))
    }

    /// Adds the changed rows since the last cut to `rows`, sorted, and the change of the digest to
    /// `digest`.
    pub(crate) fn cut(&mut self, digest: &mut u64, rows: &mut Rows) -> Result<(), store::Error> {
        for ((due_ms, key), armed) in &self.changes {
            let row = row_key(*due_ms, key);
            // What is armed already, or was never armed, is no change.
            if self.is_armed(&row)? == *armed {
                continue;
            }
            let hash = digest::of_row(&row, &[]);
            *digest = match armed {
                true => digest.wrapping_add(hash),
                false => digest.wrapping_sub(hash),
            };
            rows.push(&row, armed.then_some(&[]));
        }
        self.changes.clear();
        Ok(())
    }

    /// Was it armed at the last cut?
    fn is_armed(&self, row: &[u8]) -> Result<bool, store::Error> {
        let staged = self.staged.as_ref().and_then(|epoch| epoch.row(row));
        match staged {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.store.get(row)?.is_some()),
        }
    }

    pub(crate) fn stage(&mut self, epoch: Option<Arc<TaskEpoch>>) {
        self.staged = epoch;
    }

    pub(crate) fn abandon(&mut self) {
        self.staged = None;
        self.changes.clear();
        self.next_due_ms = i64::MIN;
    }
}

fn row_key(due_ms: i64, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(9 + key.len());
    row.push(TIMER);
    row.extend_from_slice(&due_ms.to_be_bytes());
    row.extend_from_slice(key);
    row
}

fn parse(row: &[u8]) -> Option<Timer> {
    let (due, key) = row.get(1..)?.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*due), key.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Shared;

    /// More are due than are taken at once, and nothing else ever happens.
    #[test]
    fn all_that_is_due_is_taken_though_not_at_once() {
        let shared = Shared::in_memory().unwrap();
        let store = Store::open(&shared, std::path::Path::new("/timers"), "app", 0).unwrap();
        let mut timers = Timers::new(Arc::new(store));
        let keys: BTreeSet<Vec<u8>> = (0..25u8).map(|key| vec![key]).collect();
        for key in &keys {
            timers.set(key, 100);
        }
        // Committed, as an owner finds them after a restart.
        let mut rows = Rows::default();
        timers.cut(&mut 0, &mut rows).unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
            .collect();
        timers.store.apply(&rows, 1).unwrap();
        let mut timers = Timers::new(Arc::clone(&timers.store));
        let mut taken = BTreeSet::new();
        for expected in [10, 10, 5, 0] {
            let due = timers.take_due(100, 10).unwrap();
            assert_eq!(due.len(), expected);
            taken.extend(due.into_iter().map(|(_, key)| key));
        }
        assert_eq!(taken, keys);
    }
}
