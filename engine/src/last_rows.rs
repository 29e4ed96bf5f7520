//! The last row of each key, of rows that come in any order: found by key, and sorted when that is asked for.

use std::hint::black_box;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use crate::{
    keys::{hash, head, in_common},
    objects::LOOK_AHEAD,
};

/// Keys and values lie in pieces of this size: one that grew would be copied, and be there twice meanwhile.
pub(crate) const PIECE: usize = 256 << 10;

/// Values have room in multiples of this: where one was that has become longer, others will fit.
const GRAIN: usize = 32;
/// Bytes of memory that come together, and how many of them are looked at ahead.
const LINE: usize = 64;
const LINES: usize = 8;
/// What it takes a row to be sorted.
const SORTED_BYTES: usize = size_of::<(u64, u32)>() + size_of::<u32>();

/// The last row of each key.
#[derive(Debug, Default)]
pub(crate) struct LastRows {
    pieces: Vec<Vec<u8>>,
    rows: Vec<Row>,
    /// Places in `rows`, by key.
    places: HashTable<u32>,
    hasher: RandomState,
    /// Where values were that have become longer, by the room that is there.
    free: HashMap<usize, Vec<Span>, RandomState>,
    /// How many of them.
    freed: usize,
    /// Memory of all pieces.
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    key: Span,
    /// `None` deletes it.
    value: Option<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    piece: u32,
    at: u32,
    len: u32,
}

impl LastRows {
    /// Brings what is known of these keys near. A key is found by way of several places, each known from the one before;
    /// step by step for many keys, their waits for memory overlap.
    pub(crate) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let hashes = keys.map(|key| hash(&self.hasher, key));
        // The first that may be it: nearly always it is.
        let found = hashes.filter_map(|hash| self.places.find(hash, |_| true));
        let rows: SmallVec<[u32; LOOK_AHEAD]> = found.copied().collect();
        for row in &rows {
            black_box(self.at(*row).key.len);
        }
        for row in &rows {
            let (key, value) = self.get(*row);
            black_box(glance(key) + value.map_or(0, glance));
        }
    }

    /// Takes a row; `None` deletes it.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let hash = hash(&self.hasher, key);
        if let Some(row) = self.find(hash, key) {
            let old = self.rows[row as usize].value;
            self.rows[row as usize].value = self.replace(old, value);
            return;
        }
        let place = short(self.rows.len());
        let row = Row {
            key: self.keep(key, key.len()),
            value: value.map(|value| self.keep_value(value)),
        };
        self.rows.push(row);
        let (pieces, rows, hasher) = (&self.pieces, &self.rows, &self.hasher);
        let again = |row: &u32| self::hash(hasher, of(pieces, rows[*row as usize].key));
        self.places.insert_unique(hash, place, again);
    }

    /// The row under `key`: outer `None` = not here, inner = deleted.
    pub(crate) fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let row = self.find(hash(&self.hasher, key), key)?;
        Some(self.get(row).1)
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is_it = |row: &u32| self.bytes_of(self.at(*row).key) == key;
        self.places.find(hash, is_it).copied()
    }

    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row at this place, of those in the order in which their keys came first.
    pub(crate) fn get(&self, place: u32) -> (&[u8], Option<&[u8]>) {
        let row = self.at(place);
        let value = row.value.map(|value| self.bytes_of(value));
        (self.bytes_of(row.key), value)
    }

    fn at(&self, place: u32) -> Row {
        self.rows[place as usize]
    }

    fn bytes_of(&self, span: Span) -> &[u8] {
        of(&self.pieces, span)
    }

    /// Writes a value where the last one was, if it fits.
    fn replace(&mut self, old: Option<Span>, value: Option<&[u8]>) -> Option<Span> {
        match (old, value) {
            (Some(old), Some(value)) if value.len() <= room(old.len as usize) => {
                Some(self.put_at(old, value))
            }
            (old, value) => {
                let new = value.map(|value| self.keep_value(value));
                if let Some(old) = old {
                    self.free
                        .entry(room(old.len as usize))
                        .or_default()
                        .push(old);
                    self.freed += 1;
                }
                new
            }
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

    fn keep_value(&mut self, value: &[u8]) -> Span {
        let room = room(value.len());
        match self.free.get_mut(&room).and_then(Vec::pop) {
            Some(span) => {
                self.freed -= 1;
                self.put_at(span, value)
            }
            None => self.keep(value, room),
        }
    }

    /// Writes bytes where nothing was, with so much room.
    fn keep(&mut self, bytes: &[u8], room: usize) -> Span {
        let has_room = |piece: &Vec<u8>| piece.capacity() - piece.len() >= room;
        if !self.pieces.last().is_some_and(has_room) {
            let piece = Vec::with_capacity(PIECE.max(room));
            self.bytes += piece.capacity();
            self.pieces.push(piece);
        }
        let number = self.pieces.len() - 1;
        let piece = &mut self.pieces[number];
        let at = short(piece.len());
        piece.extend_from_slice(bytes);
        piece.resize(piece.len() + room - bytes.len(), 0);
        Span {
            piece: short(number),
            at,
            len: short(bytes.len()),
        }
    }

    /// Memory that it takes, with what it takes to sort.
    pub(crate) fn bytes(&self) -> usize {
        let places = self.places.capacity() * (size_of::<u32>() + 1);
        let rows = self.rows.capacity() * (size_of::<Row>() + SORTED_BYTES);
        let free = self.freed * size_of::<Span>();
        self.bytes + places + rows + free
    }

    /// The places from `from` on, sorted by key. Keys lie all over memory: most comparisons do without them.
    pub(crate) fn sorted(&self, from: usize) -> Vec<u32> {
        let places = short(from)..short(self.rows.len());
        let common = in_common(places.clone().map(|place| self.get(place).0));
        let heads = places.map(|place| (head(&self.get(place).0[common..]), place));
        let mut heads: Vec<_> = heads.collect();
        heads.sort_unstable_by(|(a, x), (b, y)| {
            let keys = || self.get(*x).0.cmp(self.get(*y).0);
            a.cmp(b).then_with(keys)
        });
        heads.into_iter().map(|(_, place)| place).collect()
    }

    /// The rows at these places, some looked at together: rows and values lie all over memory, and so their waits for
    /// it overlap.
    pub(crate) fn at_places<'s>(
        &'s self,
        places: &'s [u32],
    ) -> impl Iterator<Item = (&'s [u8], Option<&'s [u8]>)> + Clone {
        places.chunks(LOOK_AHEAD).flat_map(|places| {
            let rows: SmallVec<[Row; LOOK_AHEAD]> =
                places.iter().map(|place| self.at(*place)).collect();
            for row in &rows {
                let value = row.value.map_or(0, |value| glance(self.bytes_of(value)));
                black_box(glance(self.bytes_of(row.key)) + value);
            }
            rows.into_iter().map(|row| {
                let value = row.value.map(|value| self.bytes_of(value));
                (self.bytes_of(row.key), value)
            })
        })
    }
}

/// Looks at the first bytes of some lines of memory: they are near then.
fn glance(bytes: &[u8]) -> usize {
    let lines = bytes.chunks(LINE).take(LINES);
    lines.map(|line| usize::from(line[0])).sum()
}

/// The room that a value of so many bytes gets.
fn room(len: usize) -> usize {
    len.next_multiple_of(GRAIN)
}

fn of(pieces: &[Vec<u8>], span: Span) -> &[u8] {
    let at = span.at as usize;
    &pieces[span.piece as usize][at..at + span.len as usize]
}

/// No record and no piece is larger than 4 GiB, and no memory holds so many rows.
fn short(number: usize) -> u32 {
    u32::try_from(number).expect("less than 4 GiB")
}
