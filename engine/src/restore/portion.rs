//! A part of a changelog: the last row of each key becomes a table.

use std::{
    cell::{Cell, RefCell},
    iter,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use itertools::Either;

use crate::{
    digest,
    pending::{PendingRows, is_object},
    store::{self, Store, TIMER},
    timers::{TimerOf, ranges::Ranges},
};

use objects::Objects;

mod log;
mod objects;

/// The last row of each key, of a part of the changelog.
#[derive(Debug, Default)]
pub(super) struct Portion {
    objects: Objects,
    /// There are a few.
    others: PendingRows,
}

impl Portion {
    /// As for [`LastRows::look_ahead`](crate::last_rows::LastRows::look_ahead).
    pub(super) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        self.objects.look_ahead(keys);
    }

    /// Takes a row; `None` deletes it.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        if is_object(key) {
            self.objects.put(key, value);
        } else {
            self.others.put(key, value);
        }
    }

    /// Memory that its rows take.
    pub(super) fn bytes(&self) -> usize {
        match self.objects.len() + self.others.len() {
            0 => 0,
            _ => self.objects.bytes() + self.others.bytes(),
        }
    }

    /// Takes less memory, if that can be.
    pub(super) fn make_room(&mut self) {
        self.objects.make_room();
    }

    /// Takes the rows into the store, with the timers that they name, and brings it to `position`. Returns an empty
    /// portion in the same memory.
    ///
    /// # Errors
    /// As for [`Store::ingest`].
    pub(super) fn ingest(
        self,
        store: &Store,
        position: i64,
        timer_of: TimerOf,
    ) -> Result<Self, store::Error> {
        let was_empty = store.is_empty()?;
        let Self { objects, others } = self;
        let objects = objects.sorted();
        // Each look at a row costs a wait for memory: what is to be known of it is found out as it is written.
        let (digest, ranges) = (Cell::new(0_u64), RefCell::new(Ranges::default()));
        let look = |(key, value): (&[u8], Option<&[u8]>), place| {
            let Some(value) = value else { return };
            digest.set(digest.get().wrapping_add(digest::of_row(key, value)));
            if let Some(due_ms) = timer_of(value) {
                ranges.borrow_mut().add(place, due_ms);
            }
        };
        let rows = objects.rows().zip(0..);
        let rows = rows.inspect(|(row, place)| look(*row, *place));
        let timer = [TIMER].as_slice();
        let before = others.before_objects();
        let before = before.chain(rows.map(|(row, _)| row));
        let before = before.chain(others.behind_objects(Bound::Excluded(timer)));
        let key = |place: u32| &objects.key(place)[1..];
        let timers = iter::once_with(|| ranges.take().rows(key)).flatten();
        let timers = timers.map(|key| (Either::Right(key), Some(&[][..])));
        let behind = others.others((Bound::Excluded(timer), Bound::Unbounded));
        let borrowed = |(key, value)| (Either::Left(key), value);
        let rows = before.map(borrowed).chain(timers);
        store.ingest(rows.chain(behind.map(borrowed)), position)?;
        if was_empty {
            store.apply(iter::empty(), position, Some(digest.get()))?;
        }
        Ok(Self {
            objects: objects.emptied(),
            others: PendingRows::default(),
        })
    }
}

/// Memory of a portion that is written, for the next one: what goes back to the kernel is given out again page by page,
/// and a table that has grown need not grow again.
#[derive(Debug, Clone, Default)]
pub(super) struct Spare(Arc<Mutex<Option<Portion>>>);

impl Spare {
    /// An empty portion.
    pub(super) fn take(&self) -> Portion {
        self.lock().take().unwrap_or_default()
    }

    /// Keeps an empty portion.
    pub(super) fn put(&self, portion: Portion) {
        *self.lock() = Some(portion);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Portion>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{log::Log, *};
    use crate::{
        store::{Shared, tests::crash},
        timers::{self, ranges::Range},
    };

    /// Keys that begin alike, differ early, differ late, or are the beginning of others; and keys before, between and
    /// behind those of objects and timers.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let common = prop_oneof![
            Just(&b"a"[..]),
            Just(&b"p"[..]),
            Just(&b"z"[..]),
            Just(&b"o"[..]),
            Just(&b"osite-"[..]),
            Just(&b"osite-0123456789"[..])
        ];
        (common, proptest::collection::vec(0..3_u8, 0..3)).prop_map(|(a, b)| [a, &b].concat())
    }

    /// Some rows name one.
    fn timer_of(row: &[u8]) -> Option<i64> {
        row.first()
            .filter(|first| **first % 3 == 0)
            .map(|first| i64::from(first % 5))
    }

    proptest! {
        /// What is in the store afterwards is what a map holds.
        #[test]
        fn keeps_the_last_value_of_each_key(
            writes in proptest::collection::vec((key(), proptest::option::of(0..40_usize)), 1..200),
            slack in prop_oneof![0..4_000_usize, Just(1 << 20)],
        ) {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&Shared::on_disk(1 << 20), directory.path(), "app", 0).unwrap();
            // In memory that was used before.
            let other = tempfile::tempdir().unwrap();
            let other = Store::open(&Shared::on_disk(1 << 20), other.path(), "app", 1).unwrap();
            let mut portion = Portion { objects: Objects::Log(Log::with_slack(slack)), ..Portion::default() };
            for (key, _) in writes.iter().take(8) {
                portion.put(key, Some(&vec![9; key.len() * 20_000]));
            }
            let mut portion = portion.ingest(&other, 1, timer_of).unwrap();
            prop_assert_eq!(portion.bytes(), 0);
            let mut map = BTreeMap::new();
            for (i, (key, length)) in writes.iter().enumerate() {
                let value = length.map(|length| vec![u8::try_from(i).unwrap(); length]);
                portion.put(key, value.as_deref());
                map.insert(key.clone(), value);
            }
            prop_assert!(portion.bytes() > 0);
            portion.ingest(&store, 7, timer_of).unwrap();
            prop_assert_eq!(store.position().unwrap(), 7);
            let (mut digest, mut timers) = (0_u64, BTreeMap::new());
            for (key, value) in map {
                prop_assert_eq!(&store.get(&key).unwrap(), &value);
                let Some(value) = value.filter(|_| is_object(&key)) else { continue };
                digest = digest.wrapping_add(digest::of_row(&key, &value));
                timers.extend(timer_of(&value).map(|due_ms| (key[1..].to_vec(), due_ms)));
            }
            // So few are in one range.
            let keys = timers.keys().next().zip(timers.keys().next_back());
            let times = timers.values().min().zip(timers.values().max());
            let expected = keys.zip(times).map(|((first, last), (due_ms, until_ms))| {
                let range = Range { first, last, until_ms: *until_ms };
                timers::row_key(*due_ms, &range.key()).to_vec()
            });
            let mut found = Vec::new();
            let visit = |key: &[u8], _: &[u8]| {
                found.push(key.to_vec());
                true
            };
            store.scan(&[TIMER], visit).unwrap();
            prop_assert_eq!(found, Vec::from_iter(expected));
            prop_assert_eq!(store.known_digest().unwrap(), Some(digest));
            // It is told after the rows: a crash in between loses it, and it is made again.
            let crashed = crash(&store);
            let store = Store::open(&Shared::on_disk(1 << 20), crashed.path(), "app", 0).unwrap();
            prop_assert_eq!(store.known_digest().unwrap(), None);
            prop_assert_eq!(store.digest().unwrap(), digest);
        }
    }
}
