//! Finds where something lies by the hash of its key.
//!
//! The hash stays beside the place: a table that grows, and a search that comes upon another key, need not look at keys,
//! each of which is a wait for memory.

use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// The hash of a key: the same everywhere in this process.
pub(crate) fn hash(key: &[u8]) -> Hash {
    use std::hash::{BuildHasher as _, Hasher as _};
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    let mut hasher = SEED.build_hasher();
    hasher.write(key);
    Hash((hasher.finish() >> 32) as u32)
}

/// The hash of the key that a row's key has behind its prefix.
pub(crate) fn hash_of_row(row: &[u8]) -> Hash {
    hash(row.get(1..).unwrap_or_default())
}

/// The hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash(u32);

impl Hash {
    /// In as many bits as a table asks for, the upper ones different, too.
    pub(crate) fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `count`, each as likely.
    pub(crate) fn below(self, count: usize) -> usize {
        let number = (self.spread() >> u32::BITS) as u32;
        (number as usize * count) >> u32::BITS
    }
}

/// A place or a length in 32 bits: nothing that is held is larger than 4 GiB, and no memory has so many of it.
pub(crate) fn short(number: usize) -> u32 {
    u32::try_from(number).expect("less than 4 GiB")
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: Hash,
    place: u32,
}

fn spread(slot: &Slot) -> u64 {
    slot.hash.spread()
}

/// Places by hash.
#[derive(Debug, Default)]
pub(crate) struct Places(HashTable<Slot>);

impl Places {
    /// The place for which `is_it` says so, of those with this hash.
    pub(crate) fn find(&self, hash: Hash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let found = self
            .0
            .find(hash.spread(), |slot| slot.hash == hash && is_it(slot.place));
        found.map(|slot| slot.place)
    }

    /// One with this hash: nearly always the only one.
    pub(crate) fn glance(&self, hash: Hash) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Adds a place that is not there.
    pub(crate) fn insert(&mut self, hash: Hash, place: u32) {
        let slot = Slot { hash, place };
        self.0.insert_unique(hash.spread(), slot, spread);
    }

    /// Removes a place.
    pub(crate) fn remove(&mut self, hash: Hash, place: u32) {
        if let Ok(found) = self.0.find_entry(hash.spread(), |slot| slot.place == place) {
            found.remove();
        }
    }

    /// What was at one place is at another.
    pub(crate) fn moved(&mut self, hash: Hash, from: u32, to: u32) {
        if let Some(slot) = self.0.find_mut(hash.spread(), |slot| slot.place == from) {
            slot.place = to;
        }
    }

    /// The hashes of all keys.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = Hash> {
        self.0.iter().map(|slot| slot.hash)
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// For so many there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Gives memory back, but for room for so many.
    pub(crate) fn shrink_to(&mut self, room: usize) {
        self.0.shrink_to(room, spread);
    }

    /// Forgets all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.capacity() * (size_of::<Slot>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With hashes that are often the same.
        #[test]
        fn finds_what_a_map_finds(steps in proptest::collection::vec((0..40_u32, 0..4_u8), 1..300)) {
            let hash = |key: u32| Hash(key % 7);
            let (mut places, mut map) = (Places::default(), BTreeMap::<u32, u32>::new());
            // Each key lies at a place that is ten times as large, moved by one now and then.
            for (key, step) in steps {
                match (map.get(&key).copied(), step) {
                    (None, _) => {
                        places.insert(hash(key), key * 10);
                        map.insert(key, key * 10);
                    }
                    (Some(at), 0) => {
                        places.remove(hash(key), at);
                        map.remove(&key);
                    }
                    (Some(at), 1) if at % 10 < 9 => {
                        places.moved(hash(key), at, at + 1);
                        map.insert(key, at + 1);
                    }
                    (Some(_), 2) => places.shrink_to(0),
                    _ => {}
                }
                prop_assert_eq!(places.len(), map.len());
                for key in 0..40 {
                    let found = places.find(hash(key), |place| place / 10 == key);
                    prop_assert_eq!(found, map.get(&key).copied());
                    let any = map.keys().any(|other| hash(*other) == hash(key));
                    prop_assert_eq!(places.glance(hash(key)).is_some(), any);
                }
            }
            places.clear();
            prop_assert_eq!(places.len(), 0);
        }
    }
}
