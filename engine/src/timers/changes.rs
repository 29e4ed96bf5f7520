//! What has become of timers since the last cut. Most are not due for long, and only wait to become rows: those lie in a
//! list, in the order in which they came.

use std::collections::BTreeMap;

use super::{Timer, parse, row_key};
use crate::epoch::{ROW_BYTES, Rows};

/// Timers that are due so soon after now are sorted, too: then the list is looked through once in this time.
const SOON_MS: i64 = 1_000;

/// Timers that were armed or disarmed, the last change of each.
#[derive(Debug)]
pub(super) struct Changes {
    /// Those that are due until then: is it armed now?
    sorted: BTreeMap<Timer, bool>,
    sorted_until_ms: i64,
    /// Rows of all others.
    unsorted: Rows,
    /// None of them is due before.
    unsorted_ms: i64,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            sorted: BTreeMap::new(),
            sorted_until_ms: i64::MIN,
            unsorted: Rows::default(),
            unsorted_ms: i64::MAX,
        }
    }
}

impl Changes {
    pub(super) fn put(&mut self, due_ms: i64, key: &[u8], armed: bool) {
        if due_ms <= self.sorted_until_ms {
            self.sorted.insert((due_ms, key.to_vec()), armed);
        } else {
            self.unsorted_ms = self.unsorted_ms.min(due_ms);
            push(&mut self.unsorted, (due_ms, key), armed);
        }
    }

    /// Sorts all that are due at `now_ms`.
    pub(super) fn sort_until(&mut self, now_ms: i64) {
        if now_ms < self.unsorted_ms {
            return;
        }
        self.sorted_until_ms = now_ms.saturating_add(SOON_MS);
        self.unsorted_ms = i64::MAX;
        for (row, value) in std::mem::take(&mut self.unsorted).iter() {
            if let Some((due_ms, key)) = parse(row) {
                self.put(due_ms, key, value.is_some());
            }
        }
    }

    /// Those that are sorted, from `from_ms` on: is it armed?
    pub(super) fn sorted(&self, from_ms: i64) -> impl Iterator<Item = ((i64, &[u8]), bool)> {
        let timers = self.sorted.range((from_ms, Vec::new())..);
        timers.map(|((due_ms, key), armed)| ((*due_ms, &key[..]), *armed))
    }

    /// None of the others is due before.
    pub(super) fn unsorted_ms(&self) -> i64 {
        self.unsorted_ms
    }

    /// Memory that they take.
    pub(super) fn memory(&self) -> usize {
        /// About what a timer takes in a tree.
        const SORTED_BYTES: usize = 160;
        let unsorted = self.unsorted.bytes() + self.unsorted.len() * ROW_BYTES;
        self.sorted.len() * SORTED_BYTES + unsorted
    }

    /// The rows of all, sorted. None is left.
    pub(super) fn cut(&mut self) -> Rows {
        let mut rows = std::mem::take(&mut self.unsorted);
        self.unsorted_ms = i64::MAX;
        for ((due_ms, key), armed) in std::mem::take(&mut self.sorted) {
            push(&mut rows, (due_ms, &key), armed);
        }
        rows.sort();
        rows
    }
}

fn push(rows: &mut Rows, (due_ms, key): (i64, &[u8]), armed: bool) {
    rows.push(&row_key(due_ms, key), armed.then_some(&[]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_a_map_holds(
            steps in proptest::collection::vec((0..5_000_i64, 0..3_u8, any::<bool>(), any::<bool>()), 0..100),
        ) {
            let (mut changes, mut map) = (Changes::default(), BTreeMap::new());
            for (ms, key, armed, look) in steps {
                if !look {
                    changes.put(ms, &[key], armed);
                    map.insert((ms, vec![key]), armed);
                    continue;
                }
                changes.sort_until(ms);
                prop_assert!(changes.unsorted_ms() > ms);
                let due = map.iter().take_while(|((due_ms, _), _)| *due_ms <= ms);
                let due = due.map(|((due_ms, key), armed)| ((*due_ms, &key[..]), *armed));
                let sorted = changes.sorted(0).take_while(|((due_ms, _), _)| *due_ms <= ms);
                prop_assert!(sorted.eq(due));
                let next = map.keys().find(|(due_ms, _)| *due_ms > ms).map(|(due_ms, _)| *due_ms);
                let sorted = changes.sorted(ms + 1).next().map_or(i64::MAX, |((due_ms, _), _)| due_ms);
                prop_assert!(sorted.min(changes.unsorted_ms()) <= next.unwrap_or(i64::MAX));
            }
            let rows = changes.cut();
            let expected = map.iter().map(|((due_ms, key), armed)| (row_key(*due_ms, key), *armed));
            prop_assert!(rows.iter().map(|(key, value)| (key.into(), value.is_some())).eq(expected));
            prop_assert_eq!((changes.memory(), changes.cut().len()), (0, 0));
        }
    }
}
