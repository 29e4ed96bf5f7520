//! The last value of each key of a part of the changelog: what becomes a table.

use std::{borrow::Cow, hint::black_box};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::{
    digest,
    objects::LOOK_AHEAD,
    store::{self, OBJECT, Store, TIMER},
    timers::{self, TimerOf},
};

/// Keys and values lie in pieces of this size: one that grew would be copied, and be there twice meanwhile.
const PIECE: usize = 256 << 10;
/// What the timer of a row takes while the table is made.
const TIMER_BYTES: usize = size_of::<(i64, u32)>();
/// What the key of a row takes while rows are sorted.
const SORTED_BYTES: usize = size_of::<((u64, &[u8]), usize)>();

/// The last value of each key, of a part of the changelog.
#[derive(Default)]
pub(super) struct Portion {
    pieces: Vec<Vec<u8>>,
    rows: Vec<Row>,
    /// Places in `rows`, by key.
    places: HashTable<usize>,
    hasher: RandomState,
    /// Where values were that have become longer: room for others.
    free: Vec<Span>,
    /// Memory of all pieces.
    bytes: usize,
}

#[derive(Clone, Copy)]
struct Row {
    key: Span,
    /// `None` deletes it.
    value: Option<Span>,
}

#[derive(Clone, Copy)]
struct Span {
    piece: u32,
    at: u32,
    len: u32,
}

impl Portion {
    /// Brings what is known of these keys near. A key is found by way of several places, each known from the one before;
    /// step by step for many keys, their waits for memory overlap.
    pub(super) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let hashes = keys.map(|key| hash(&self.hasher, key));
        // The first that may be it: nearly always it is.
        let found = hashes.filter_map(|hash| self.places.find(hash, |_| true));
        let rows: SmallVec<[usize; LOOK_AHEAD]> = found.copied().collect();
        for row in &rows {
            black_box(self.rows[*row].key.len);
        }
        for row in &rows {
            black_box(of(&self.pieces, self.rows[*row].key).last());
        }
    }

    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let hash = hash(&self.hasher, key);
        let (pieces, rows) = (&self.pieces, &self.rows);
        let is_it = |row: &usize| of(pieces, rows[*row].key) == key;
        if let Some(&row) = self.places.find(hash, is_it) {
            let old = self.rows[row].value;
            self.rows[row].value = value.map(|value| self.replace(old, value));
            return;
        }
        let row = Row {
            key: self.keep(key),
            value: value.map(|value| self.keep(value)),
        };
        self.rows.push(row);
        let (pieces, rows, hasher) = (&self.pieces, &self.rows, &self.hasher);
        let again = |row: &usize| self::hash(hasher, of(pieces, rows[*row].key));
        self.places.insert_unique(hash, rows.len() - 1, again);
    }

    /// Writes a value where the last one was, if it fits.
    fn replace(&mut self, old: Option<Span>, value: &[u8]) -> Span {
        match old {
            Some(old) if value.len() <= old.len as usize => self.put_at(old, value),
            Some(old) => {
                let span = self.keep(value);
                self.free.push(old);
                span
            }
            None => self.keep(value),
        }
    }

    fn put_at(&mut self, span: Span, bytes: &[u8]) -> Span {
        let at = span.at as usize;
        self.pieces[span.piece as usize][at..at + bytes.len()].copy_from_slice(bytes);
        Span {
            len: short(bytes.len()),
            ..span
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        // Not for what would waste most of it, as a key would.
        let fits = |span: &mut Span| (bytes.len()..2 * bytes.len()).contains(&(span.len as usize));
        if let Some(span) = self.free.pop_if(fits) {
            return self.put_at(span, bytes);
        }
        let has_room = |piece: &Vec<u8>| piece.capacity() - piece.len() >= bytes.len();
        if !self.pieces.last().is_some_and(has_room) {
            let piece = Vec::with_capacity(PIECE.max(bytes.len()));
            self.bytes += piece.capacity();
            self.pieces.push(piece);
        }
        let number = self.pieces.len() - 1;
        let piece = &mut self.pieces[number];
        let at = short(piece.len());
        piece.extend_from_slice(bytes);
        Span {
            piece: short(number),
            at,
            len: short(bytes.len()),
        }
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let places = self.places.capacity() * (size_of::<usize>() + 1);
        let rows = self.rows.capacity() * (size_of::<Row>() + TIMER_BYTES.max(SORTED_BYTES));
        let free = self.free.capacity() * size_of::<Span>();
        self.bytes + places + rows + free
    }

    /// Takes the rows into the store, with the timers that they name, and brings it to `position`.
    ///
    /// # Errors
    /// As for [`Store::ingest`].
    pub(super) fn ingest(
        mut self,
        store: &Store,
        position: i64,
        timer_of: TimerOf,
    ) -> Result<(), store::Error> {
        self.sort();
        let pieces = &self.pieces;
        let rows = self.rows.iter().map(|row| {
            let value = row.value.map(|value| of(pieces, value));
            (of(pieces, row.key), value)
        });
        let is_before = |row: &Row| of(pieces, row.key) < [TIMER].as_slice();
        let before_timers = self.rows.partition_point(is_before);
        let (digest, timers) = digest_and_timers(rows.clone(), timer_of);
        let digest = store.is_empty()?.then_some(digest);
        let timers = timers.iter().map(|(due_ms, place)| {
            let key = of(pieces, self.rows[*place as usize].key);
            let key = timers::row_key(*due_ms, &key[1..]);
            (Cow::Owned(key), Some(&[][..]))
        });
        let borrowed = |(key, value)| (Cow::Borrowed(key), value);
        let objects = rows.clone().take(before_timers).map(borrowed);
        let others = rows.skip(before_timers).map(borrowed);
        store.ingest(objects.chain(timers).chain(others), position, digest)
    }

    /// Sorts the rows by key. Keys lie all over memory: most comparisons do without them.
    fn sort(&mut self) {
        let pieces = &self.pieces;
        let mut keys = self.rows.iter().map(|row| of(pieces, row.key));
        let first = keys.next().unwrap_or_default();
        let common = keys.fold(first.len(), |common, key| {
            let both = first[..common].iter().zip(key);
            both.take_while(|(a, b)| a == b).count()
        });
        self.rows.sort_by_cached_key(|row| {
            let key = of(pieces, row.key);
            (head(&key[common..]), key)
        });
    }
}

/// The first bytes of a key, as a number that sorts like them.
fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(head.len());
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
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

fn of(pieces: &[Vec<u8>], span: Span) -> &[u8] {
    let at = span.at as usize;
    &pieces[span.piece as usize][at..at + span.len as usize]
}

/// No record and no piece is larger than 4 GiB, and no portion has so many pieces.
fn short(number: usize) -> u32 {
    u32::try_from(number).expect("less than 4 GiB")
}

fn hash(hasher: &RandomState, key: &[u8]) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::Shared;

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
            prop_assert!(portion.bytes() >= PIECE);
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
