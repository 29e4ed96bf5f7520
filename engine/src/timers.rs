//! Durable timers: each is named by a value of the store (see [`crate::processor::Value::timer_ms`]), so
//! that it survives crashes and moves. An index of them is kept beside the values.
//!
//! A row of the index has the due time (big-endian, so that rows sort by it) and the key it was set for; its
//! value is empty. It is no part of the changelog: whoever restores a store makes it of the values, one row for
//! many objects where many are written at once (see [`ranges`]). A timer that was replaced may then still be
//! there, and comes due as if it had been set: its key's value says whether it was. Memory holds only what is
//! not committed yet and when the next one is due.

use std::sync::Arc;

use itertools::Itertools as _;
use smallvec::SmallVec;

use changes::Changes;
use ranges::Range;

use crate::{
    epoch::{Rows, TaskEpoch},
    store::{self, OBJECT, Store, TIMER},
};

mod changes;
pub(crate) mod ranges;

/// A timer: when it is due, in ms since 1970, and for which key.
pub type Timer = (i64, Vec<u8>);

/// The key of a timer's row: nearly always too short for an allocation.
pub(crate) type RowKey = SmallVec<[u8; SHORT]>;
const SHORT: usize = 56;

/// Reads the timer that a value names, in ms since 1970, from its stored form.
pub type TimerOf = fn(&[u8]) -> Option<i64>;

/// The timers of a task.
#[derive(Debug)]
pub struct Timers {
    store: Arc<Store>,
    timer_of: TimerOf,
    staged: Option<Arc<TaskEpoch>>,
    /// Changes since the last cut.
    changes: Changes,
    /// No timer is due before this.
    next_due_ms: i64,
}

impl Timers {
    pub(crate) fn new(store: Arc<Store>, timer_of: TimerOf) -> Self {
        Self {
            store,
            timer_of,
            staged: None,
            changes: Changes::default(),
            next_due_ms: i64::MIN,
        }
    }

    /// Arms a timer. The value of `key`, which is UTF-8, must name it when the event has been handled: of any
    /// other, nobody knows who restores the store.
    pub fn set(&mut self, key: &[u8], due_ms: i64) {
        let due_ms = sortable(due_ms);
        self.next_due_ms = self.next_due_ms.min(due_ms);
        self.changes.put(due_ms, key, true);
    }

    /// Disarms a timer set for exactly this key and time.
    pub fn cancel(&mut self, key: &[u8], due_ms: i64) {
        self.changes.put(sortable(due_ms), key, false);
    }

    /// Memory of the changes since the last cut, and about what they take as rows.
    pub(crate) fn changed_bytes(&self) -> usize {
        self.changes.memory()
    }

    /// Up to `limit` timers that are due at `now_ms`, earliest first, disarmed by this call. There may be more if it
    /// still [`is_due`](Self::is_due).
    pub(crate) fn take_due(
        &mut self,
        now_ms: i64,
        limit: usize,
    ) -> Result<Vec<Timer>, store::Error> {
        if !self.is_due(now_ms) {
            return Ok(Vec::new());
        }
        self.changes.sort_until(now_ms);
        let (mut due, next_ms) = self.look(now_ms, limit)?;
        self.next_due_ms = next_ms;
        let range = due.iter().position(|(_, key)| Range::of(key).is_some());
        // What comes of a range may be due before what is behind it: that is for the next call.
        let behind = due.split_off(range.unwrap_or(due.len()));
        let mut left = limit;
        for (due_ms, key) in &behind {
            self.next_due_ms = self.next_due_ms.min(*due_ms);
            if let Some(range) = Range::of(key).filter(|_| left > 0) {
                self.cancel(key, *due_ms);
                left -= self.dissolve(range, *due_ms, left)?;
            }
        }
        for (due_ms, key) in &due {
            self.cancel(key, *due_ms);
        }
        Ok(due)
    }

    /// May a timer be due at `now_ms`?
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        self.next_due_ms <= now_ms
    }

    /// Gives up to `limit` objects of a range their own timers, and the others one together; returns how many it has
    /// looked at.
    fn dissolve(
        &mut self,
        range: Range<'_>,
        due_ms: i64,
        limit: usize,
    ) -> Result<usize, store::Error> {
        let store = Arc::clone(&self.store);
        let mut looked_at = 0;
        store.scan(&store::row_key(OBJECT, range.first), |row, value| {
            let first = &row[1..];
            if first > range.last {
                return false;
            }
            if looked_at == limit {
                self.set(&Range { first, ..range }.key(), due_ms);
                return false;
            }
            looked_at += 1;
            let timer_ms = (self.timer_of)(value).map(sortable);
            if let Some(due_ms) = timer_ms.filter(|due_ms| *due_ms <= range.until_ms) {
                self.set(first, due_ms);
            }
            true
        })?;
        Ok(looked_at)
    }

    /// The first `limit` due timers, in order, and a time before which no other is due.
    fn look(&self, now_ms: i64, limit: usize) -> Result<(Vec<Timer>, i64), store::Error> {
        // Whatever was due before has been taken: its deletions need not be stepped over again.
        let from_ms = self.next_due_ms.max(0);
        let from = row_key(from_ms, &[]);
        // What memory says comes before what the store says, and the newer before the older.
        let staged = self.staged.iter();
        let staged = staged.flat_map(|epoch| epoch.timers.from(&from));
        let staged = staged.filter_map(|(row, value)| Some((parse(row)?, value.is_some())));
        let changes = self.changes.sorted(from_ms);
        let known = changes.merge_join_by(staged, |(a, _), (b, _)| a.cmp(b));
        let known = known.map(|either| either.reduce(|newer, _| newer));
        let mut known = known.peekable();
        let (mut due, mut next_ms) = (Vec::new(), self.changes.unsorted_ms());
        // Whether there may be more.
        let mut take = |(due_ms, key): (i64, &[u8]), armed: bool| {
            let goes_on = due_ms <= now_ms && due.len() < limit;
            if !goes_on {
                next_ms = next_ms.min(due_ms);
            } else if armed {
                due.push((due_ms, key.to_vec()));
            }
            goes_on
        };
        let mut goes_on = true;
        self.store.scan(&from, |row, _| {
            let Some(stored) = parse(row) else {
                return true;
            };
            let mut before = known.peeking_take_while(|(timer, _)| *timer < stored);
            goes_on = before.all(|(timer, armed)| take(timer, armed));
            let same = known.next_if(|(timer, _)| *timer == stored);
            goes_on = goes_on && take(stored, same.is_none_or(|(_, armed)| armed));
            goes_on
        })?;
        if goes_on {
            known.all(|(timer, armed)| take(timer, armed));
        }
        Ok((due, next_ms))
    }

    /// The changed rows since the last cut, sorted.
    pub(crate) fn cut(&mut self) -> Rows {
        self.changes.cut()
    }

    pub(crate) fn stage(&mut self, epoch: Option<Arc<TaskEpoch>>) {
        self.staged = epoch;
    }

    pub(crate) fn abandon(&mut self) {
        self.staged = None;
        self.changes = Changes::default();
        self.next_due_ms = i64::MIN;
    }
}

/// Times before 1970 would not sort; they are due at once anyway.
fn sortable(due_ms: i64) -> i64 {
    due_ms.max(0)
}

/// Key of the row of a timer.
pub(crate) fn row_key(due_ms: i64, key: &[u8]) -> RowKey {
    let due = sortable(due_ms).to_be_bytes();
    let mut row = [0; SHORT];
    let len = 1 + due.len() + key.len();
    let Some(short) = row.get_mut(..len) else {
        return [&[TIMER], &due[..], key].concat().into();
    };
    short[0] = TIMER;
    short[1..9].copy_from_slice(&due);
    short[9..].copy_from_slice(key);
    RowKey::from_buf_and_len(row, len)
}

/// Due time and key of a row.
pub(crate) fn parse(row: &[u8]) -> Option<(i64, &[u8])> {
    let (due, key) = row.get(1..)?.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*due), key))
}

#[cfg(test)]
mod tests;
