//! The last row of each key, of rows that come in any order: found by key, and sorted when that is asked for.

use std::hint::black_box;

use smallvec::SmallVec;

use crate::{
    keys::{both_begin_with, head},
    objects::LOOK_AHEAD,
    places::{Hash, Places, hash_of_row, short},
};

use records::{At, Records};

mod records;

/// Bytes of memory that come together, and how many of them are looked at ahead.
const LINE: usize = 64;
const LINES: usize = 8;
/// What it takes a row to be sorted.
const SORTED_BYTES: usize = size_of::<(u64, u32)>() + size_of::<u32>();

/// The last row of each key, of rows whose keys all have the same prefix.
#[derive(Debug, Default)]
pub(crate) struct LastRows {
    records: Records,
    /// In the order in which their keys came first.
    rows: Vec<At>,
    /// Places of records, by key.
    places: Places,
    /// How many bytes all keys begin with alike.
    common: usize,
}

impl LastRows {
    /// Brings what is known of these keys near. A row is found by way of several places, each known from the one before;
    /// step by step for many keys, their waits for memory overlap.
    pub(crate) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let found = keys.filter_map(|key| self.places.glance(hash_of_row(key)));
        let rows: SmallVec<[At; LOOK_AHEAD]> = found.map(At).collect();
        self.glance(&rows);
    }

    fn glance(&self, rows: &[At]) {
        for at in rows {
            black_box(self.records.row(*at));
        }
        for at in rows {
            let (key, value) = self.records.get(*at);
            black_box(value.map_or(key.len(), glance));
        }
    }

    /// Takes a row; `None` deletes it.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let hash = hash_of_row(key);
        match self.find(hash, key) {
            None => self.add(hash, key, value),
            Some(at) if self.records.replace(at, value) => {}
            Some(at) => {
                let row = self.records.row(at);
                let now = self.records.add(row, key, value);
                self.records.remove(at);
                self.rows[row as usize] = now;
                self.places.moved(hash, at.0, now.0);
            }
        }
    }

    fn add(&mut self, hash: Hash, key: &[u8], value: Option<&[u8]>) {
        self.common = match self.rows.first() {
            Some(first) => both_begin_with(&self.records.key(*first)[..self.common], key),
            None => key.len(),
        };
        let at = self.records.add(short(self.rows.len()), key, value);
        self.rows.push(at);
        self.places.insert(hash, at.0);
    }

    /// The row under `key`: outer `None` = not here, inner = deleted. `hash` is that of the row.
    pub(crate) fn row(&self, hash: Hash, key: &[u8]) -> Option<Option<&[u8]>> {
        let at = self.find(hash, key)?;
        Some(self.records.get(at).1)
    }

    fn find(&self, hash: Hash, key: &[u8]) -> Option<At> {
        let is_it = |at: u32| self.records.key(At(at)) == key;
        self.places.find(hash, is_it).map(At)
    }

    /// The hashes of all rows.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = Hash> {
        self.places.hashes()
    }

    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row at this place, of those in the order in which their keys came first.
    pub(crate) fn get(&self, place: u32) -> (&[u8], Option<&[u8]>) {
        self.records.get(self.rows[place as usize])
    }

    /// No rows, in the memory of these.
    pub(crate) fn emptied(mut self) -> Self {
        self.rows.clear();
        self.places.clear();
        Self {
            records: self.records.emptied(),
            common: 0,
            ..self
        }
    }

    /// Memory that it takes, with what it takes to sort.
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.rows.capacity() * (size_of::<At>() + SORTED_BYTES);
        self.records.bytes() + self.places.bytes() + rows
    }

    /// The places from `from` on, sorted by key. Keys lie all over memory: most comparisons do without them.
    pub(crate) fn sorted(&self, from: usize) -> Vec<u32> {
        let places = short(from)..short(self.rows.len());
        let heads = places.map(|place| (head(&self.get(place).0[self.common..]), place));
        let mut heads: Vec<_> = heads.collect();
        heads.sort_unstable_by(|(a, x), (b, y)| {
            let keys = || self.get(*x).0.cmp(self.get(*y).0);
            a.cmp(b).then_with(keys)
        });
        heads.into_iter().map(|(_, place)| place).collect()
    }

    /// The rows at these places, some looked at together: they lie all over memory, and so their waits for it overlap.
    pub(crate) fn at_places<'s>(
        &'s self,
        places: &'s [u32],
    ) -> impl Iterator<Item = (&'s [u8], Option<&'s [u8]>)> + Clone {
        places.chunks(LOOK_AHEAD).flat_map(|places| {
            let at = places.iter().map(|place| self.rows[*place as usize]);
            let rows: SmallVec<[At; LOOK_AHEAD]> = at.collect();
            self.glance(&rows);
            rows.into_iter().map(|at| self.records.get(at))
        })
    }
}

/// Looks at the first bytes of some lines of memory: they are near then.
pub(crate) fn glance(bytes: &[u8]) -> usize {
    let lines = bytes.chunks(LINE).take(LINES);
    lines.map(|line| usize::from(line[0])).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Keys that begin alike, or are the beginning of others; values that come and go, grow, and are larger than a piece.
    fn write() -> impl Strategy<Value = (Vec<u8>, Option<usize>)> {
        let key = proptest::collection::vec(0..3_u8, 0..4);
        let key = key.prop_map(|end| [&b"site-01234567"[..], &end].concat());
        let len = prop_oneof![20 => 0..100_usize, 1 => 200_000..600_000_usize];
        (key, proptest::option::weighted(0.9, len))
    }

    proptest! {
        #[test]
        fn holds_what_a_map_holds(
            before in proptest::collection::vec(write(), 0..60),
            writes in proptest::collection::vec(write(), 1..120),
        ) {
            let mut rows = LastRows::default();
            for (key, len) in before {
                rows.put(&key, len.map(|len| vec![1; len]).as_deref());
            }
            let mut rows = rows.emptied();
            prop_assert_eq!((rows.len(), rows.sorted(0).len()), (0, 0));
            let (mut map, mut half) = (BTreeMap::new(), Vec::new());
            for (number, (key, len)) in (0_u8..).zip(&writes) {
                let value = len.map(|len| vec![number; len]);
                rows.put(key, value.as_deref());
                map.insert(key.clone(), value);
                if usize::from(number) == writes.len() / 2 {
                    half = rows.sorted(0);
                }
            }
            let expected = || map.iter().map(|(key, value)| (&key[..], value.as_deref()));
            let sorted = rows.sorted(0);
            prop_assert!(rows.at_places(&sorted).eq(expected()));
            for (key, value) in expected() {
                prop_assert_eq!(rows.row(hash_of_row(key), key), Some(value));
            }
            prop_assert_eq!(rows.row(hash_of_row(b"site"), b"site"), None);
            // Places stay what they were, wherever their rows are by now.
            let keys = |places: &[u32]| -> Vec<Vec<u8>> {
                places.iter().map(|place| rows.get(*place).0.to_vec()).collect()
            };
            let mut both = keys(&half);
            prop_assert!(both.is_sorted());
            both.extend(keys(&rows.sorted(half.len())));
            both.sort_unstable();
            prop_assert_eq!(both, keys(&sorted));
            // Nothing lies upon anything else.
            let taken: usize = expected().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum();
            prop_assert!(rows.bytes() >= taken);
        }
    }
}
