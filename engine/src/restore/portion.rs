//! The last value of each key of a part of the changelog: what becomes a table.

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::{
    epoch::Rows,
    store::{self, OBJECT, Store, TIMER},
    timers::{self, TimerOf},
};

/// Keys and values lie in pieces of this size: one that grew would be copied, and be there twice meanwhile.
const PIECE: usize = 256 << 10;
/// About what the timer of a row takes while the table is made.
const TIMER_BYTES: usize = 96;

/// The last value of each key, of a part of the changelog.
#[derive(Default)]
pub(super) struct Portion {
    pieces: Vec<Vec<u8>>,
    rows: Vec<Row>,
    /// Places in `rows`, by key.
    places: HashTable<usize>,
    hasher: RandomState,
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
            Some(old) if value.len() <= old.len as usize => {
                let at = old.at as usize;
                self.pieces[old.piece as usize][at..at + value.len()].copy_from_slice(value);
                Span {
                    len: short(value.len()),
                    ..old
                }
            }
            _ => self.keep(value),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
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
        let rows = self.rows.capacity() * (size_of::<Row>() + TIMER_BYTES);
        self.bytes + places + rows
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
        let (pieces, rows) = (&self.pieces, &mut self.rows);
        rows.sort_unstable_by(|a, b| of(pieces, a.key).cmp(of(pieces, b.key)));
        let rows = rows.iter().map(|row| {
            let value = row.value.map(|value| of(pieces, value));
            (of(pieces, row.key), value)
        });
        let timers = timers(rows.clone(), timer_of);
        let objects = rows
            .clone()
            .take_while(|(key, _)| *key < [TIMER].as_slice());
        let others = rows.skip(objects.clone().count());
        store.ingest(objects.chain(timers.iter()).chain(others), position)
    }
}

/// The rows of the timers that values name, sorted.
fn timers<'r>(rows: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>, timer_of: TimerOf) -> Rows {
    let objects = rows.filter(|(key, _)| key.first() == Some(&OBJECT));
    let mut timers: Vec<(i64, &[u8])> = objects
        .filter_map(|(key, value)| Some((timer_of(value?)?, &key[1..])))
        .collect();
    timers.sort_unstable();
    let mut rows = Rows::default();
    for (due_ms, key) in timers {
        rows.push(&timers::row_key(due_ms, key), Some(&[]));
    }
    rows
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

    proptest! {
        /// What is in the store afterwards is what a map holds.
        #[test]
        fn keeps_the_last_value_of_each_key(
            writes in proptest::collection::vec((0..30_u8, proptest::option::of(0..40_usize)), 1..200),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(&Shared::on_disk(1 << 20), directory.path(), "app", 0).unwrap();
            let mut portion = Portion::default();
            let mut map = BTreeMap::new();
            for (i, (key, length)) in writes.iter().enumerate() {
                let value = length.map(|length| vec![u8::try_from(i).unwrap(); length]);
                portion.put(&[b'o', *key], value.as_deref());
                map.insert(vec![b'o', *key], value);
            }
            prop_assert!(portion.bytes() >= PIECE);
            portion.ingest(&store, 7, |_| None).unwrap();
            prop_assert_eq!(store.position().unwrap(), 7);
            for (key, value) in map {
                prop_assert_eq!(store.get(&key).unwrap(), value);
            }
        }
    }
}
