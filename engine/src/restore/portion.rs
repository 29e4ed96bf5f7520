//! A part of a changelog: the last row of each key becomes a table.

use std::borrow::Cow;

use crate::{
    digest,
    last_rows::LastRows,
    store::{self, OBJECT, Store, TIMER},
    timers::{self, TimerOf},
};

/// The last row of each key, of a part of the changelog.
#[derive(Default)]
pub(super) struct Portion {
    rows: LastRows,
}

impl Portion {
    /// As for [`LastRows::look_ahead`].
    pub(super) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        self.rows.look_ahead(keys);
    }

    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.rows.put(key, value);
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Takes the rows into the store, with the timers that they name, and brings it to `position`.
    ///
    /// # Errors
    /// As for [`Store::ingest`].
    pub(super) fn ingest(
        self,
        store: &Store,
        position: i64,
        timer_of: TimerOf,
    ) -> Result<(), store::Error> {
        let places = self.rows.sorted(0);
        let is_before = |place: &u32| self.rows.get(*place).0 < [TIMER].as_slice();
        let (objects, others) = places.split_at(places.partition_point(is_before));
        let (digest, timers) = digest_and_timers(self.rows.at_places(objects), timer_of);
        let digest = store.is_empty()?.then_some(digest);
        let timers = timers.iter().map(|(due_ms, place)| {
            let (key, _) = self.rows.get(objects[*place as usize]);
            let key = timers::row_key(*due_ms, &key[1..]);
            (Cow::Owned(key), Some(&[][..]))
        });
        let borrowed = |(key, value)| (Cow::Borrowed(key), value);
        let objects = self.rows.at_places(objects).map(borrowed);
        let others = self.rows.at_places(others).map(borrowed);
        store.ingest(objects.chain(timers).chain(others), position, digest)
    }
}

/// The digest of a store that has these sorted rows and no others, and the timers that they name, sorted: when each is
/// due, and the place of the row. In one go: each look at a row costs a wait for memory.
fn digest_and_timers<'r>(
    rows: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    timer_of: TimerOf,
) -> (u64, Vec<(i64, u32)>) {
    let (mut digest, mut timers) = (0_u64, Vec::new());
    for ((key, value), place) in rows.zip(0..) {
        if let (Some(&OBJECT), Some(value)) = (key.first(), value) {
            digest = digest.wrapping_add(digest::of_row(key, value));
            timers.extend(timer_of(value).map(|due_ms| (due_ms, place)));
        }
    }
    timers.sort_unstable();
    (digest, timers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{last_rows, store::Shared};

    /// Keys that begin alike, differ early, differ late, or are the beginning of others.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let common = prop_oneof![
            Just(&b"o"[..]),
            Just(&b"osite-"[..]),
            Just(&b"osite-0123456789"[..])
        ];
        (common, proptest::collection::vec(0..3_u8, 0..3)).prop_map(|(a, b)| [a, &b].concat())
    }

    proptest! {
        /// What is in the store afterwards is what a map holds.
        #[test]
        fn keeps_the_last_value_of_each_key(
            writes in proptest::collection::vec((key(), proptest::option::of(0..40_usize)), 1..200),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&Shared::on_disk(1 << 20), directory.path(), "app", 0).unwrap();
            let mut portion = Portion::default();
            let mut map = BTreeMap::new();
            for (i, (key, length)) in writes.iter().enumerate() {
                let value = length.map(|length| vec![u8::try_from(i).unwrap(); length]);
                portion.put(key, value.as_deref());
                map.insert(key.clone(), value);
            }
            prop_assert!(portion.bytes() >= last_rows::PIECE);
            portion.ingest(&store, 7, |_| None).unwrap();
            prop_assert_eq!(store.position().unwrap(), 7);
            let mut digest = 0_u64;
            for (key, value) in map {
                prop_assert_eq!(&store.get(&key).unwrap(), &value);
                let row = value.map_or(0, |value| digest::of_row(&key, &value));
                digest = digest.wrapping_add(row);
            }
            prop_assert_eq!(store.known_digest().unwrap(), Some(digest));
        }
    }
}
