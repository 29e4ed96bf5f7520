//! Many rows, in a few pieces of memory: an allocation a row would cost more than the row.

use std::ops::{Bound, Range};

use crate::places::short;

/// What a row costs beside its key and value.
pub const ROW_BYTES: usize = size_of::<Span>();

/// Rows lie in pieces of this size: one that grew would be copied, and be there twice meanwhile.
const PIECE: usize = 256 << 10;
/// With less room than this, no row is begun. Hardly any is longer.
const LEAST_ROOM: usize = 4 << 10;
/// The length of a value that is none.
const NONE: u32 = u32::MAX;

/// A row of a task's store and of the changelog: key with its prefix, value or deletion.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

/// Many rows, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Rows {
    /// Each key, and its value behind it.
    pieces: Vec<Vec<u8>>,
    /// The piece that is being filled: those behind it are empty.
    filling: usize,
    spans: Vec<Span>,
    bytes: usize,
}

/// Where a row is.
#[derive(Debug, Clone, Copy)]
struct Span {
    piece: u32,
    at: u32,
    key_len: u32,
    value_len: u32,
}

impl Span {
    fn is_deleted(self) -> bool {
        self.value_len == NONE
    }

    fn bytes(self) -> usize {
        let value_len = if self.is_deleted() { 0 } else { self.value_len };
        self.key_len as usize + value_len as usize
    }
}

impl Rows {
    /// Adds a row; `None` deletes it.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => drop(self.push_with(key, |out| out.extend_from_slice(value))),
            None => {
                self.add(key, |_| NONE);
            }
        }
    }

    /// Adds a row whose value `write` appends, and returns that value.
    pub fn push_with(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.add(key, |out| {
            let before = out.len();
            write(out);
            short(out.len() - before)
        })
    }

    /// Adds a row, and returns its value; `write` appends that, and says how long it is.
    fn add(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>) -> u32) -> &[u8] {
        if self.spans.len() == self.spans.capacity() {
            self.spans.reserve_exact(64.max(self.spans.len() / 4));
        }
        self.make_room();
        let piece = &mut self.pieces[self.filling];
        let at = short(piece.len());
        piece.extend_from_slice(key);
        let span = Span {
            piece: short(self.filling),
            at,
            key_len: short(key.len()),
            value_len: write(piece),
        };
        self.bytes += span.bytes();
        self.spans.push(span);
        &self.pieces[self.filling][at as usize + key.len()..]
    }

    /// Few rows take a small piece, which grows.
    fn make_room(&mut self) {
        match self.pieces.get_mut(self.filling) {
            Some(piece) if piece.capacity() - piece.len() >= LEAST_ROOM => return,
            Some(piece) if piece.capacity() < PIECE => return piece.reserve(LEAST_ROOM),
            Some(_) => self.filling += 1,
            None => {}
        }
        if self.filling == self.pieces.len() {
            let room = if self.filling == 0 { LEAST_ROOM } else { PIECE };
            self.pieces.push(Vec::with_capacity(room));
        }
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many bytes, in keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The place behind those rows from `from` on that make up to `bytes`: one at least, if there is one.
    #[must_use]
    pub fn up_to(&self, from: usize, bytes: usize) -> usize {
        let mut left = bytes;
        let fits = |span: &Span| {
            let rest = left.checked_sub(span.bytes());
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let fitting = self.spans[from..].iter().copied();
        let fitting = fitting.take_while(fits).count();
        self.len().min(from + fitting.max(1))
    }

    /// The rows at these places.
    pub fn range(
        &self,
        places: Range<usize>,
    ) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        self.spans[places].iter().map(|span| self.at(span))
    }

    /// The rows, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        self.spans.iter().map(|span| self.at(span))
    }

    /// The rows from `key` on, if they are sorted.
    pub fn from(&self, key: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.between((Bound::Included(key), Bound::Unbounded))
    }

    /// The rows of a range of keys, if they are sorted.
    pub(crate) fn between(
        &self,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let place = |is_before: &dyn Fn(&[u8]) -> bool| {
            let spans = &self.spans;
            spans.partition_point(|span| is_before(self.key(span)))
        };
        let start = match from {
            Bound::Included(from) => place(&|key| key < from),
            Bound::Excluded(from) => place(&|key| key <= from),
            Bound::Unbounded => 0,
        };
        let end = match to {
            Bound::Included(to) => place(&|key| key <= to),
            Bound::Excluded(to) => place(&|key| key < to),
            Bound::Unbounded => self.len(),
        };
        self.range(start..end.max(start))
    }

    /// The row under `key`, if they are sorted: outer `None` = not here, inner = deleted.
    pub(crate) fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let found = self.spans.binary_search_by(|span| self.key(span).cmp(key));
        Some(self.at(&self.spans[found.ok()?]).1)
    }

    /// The key of the row that was added last.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        self.spans.last().map(|span| self.key(span))
    }

    /// Sorts the rows. Of several with the same key, the one that was added last stays.
    pub(crate) fn sort(&mut self) {
        let mut spans = std::mem::take(&mut self.spans);
        let key = |span: &Span| self.key(span);
        spans.sort_by(|a, b| key(a).cmp(key(b)));
        spans.dedup_by(|later, span| {
            let same = key(later) == key(span);
            if same {
                *span = *later;
            }
            same
        });
        self.spans = spans;
    }

    fn at(&self, span: &Span) -> (&[u8], Option<&[u8]>) {
        let row = &self.pieces[span.piece as usize][span.at as usize..];
        let (key, value) = row.split_at(span.key_len as usize);
        let value = (!span.is_deleted()).then(|| &value[..span.value_len as usize]);
        (key, value)
    }

    fn key(&self, span: &Span) -> &[u8] {
        self.at(span).0
    }

    /// Memory that they take.
    pub(crate) fn memory(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(Vec::capacity).sum();
        pieces + self.spans.capacity() * ROW_BYTES
    }

    /// Gives memory back that is not used. The next epoch may be as small: each is full of the records of a few partitions,
    /// now of these and now of those.
    pub(crate) fn trim(&mut self) {
        self.pieces.truncate(self.filling + 1);
        if let Some(last) = self.pieces.last_mut() {
            trim(last);
        }
        trim(&mut self.spans);
    }

    /// No rows, in the memory of these.
    #[must_use]
    pub fn emptied(mut self) -> Self {
        self.pieces.iter_mut().for_each(Vec::clear);
        self.spans.clear();
        Self {
            filling: 0,
            bytes: 0,
            ..self
        }
    }
}

/// Gives memory back if more than half of it is not used.
pub(super) fn trim<T>(list: &mut Vec<T>) {
    if list.capacity() / 2 > list.len() {
        list.shrink_to_fit();
    }
}

impl Extend<Row> for Rows {
    fn extend<I: IntoIterator<Item = Row>>(&mut self, rows: I) {
        for (key, value) in rows {
            self.push(&key, value.as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = (u8, Option<usize>)> {
        let len = prop_oneof![20 => 0..100_usize, 2 => 1_000..10_000_usize, 1 => PIECE..2 * PIECE];
        (any::<u8>(), proptest::option::weighted(0.9, len))
    }

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in(
            before in proptest::collection::vec(row(), 0..40),
            rows in proptest::collection::vec(row(), 0..80),
        ) {
            let all = |rows: &[(u8, Option<usize>)]| -> Vec<Row> {
                let rows = rows.iter().zip(0..);
                rows.map(|((key, len), number)| (vec![*key], len.map(|len| vec![number; len]))).collect()
            };
            let mut held = Rows::default();
            held.extend(all(&before));
            let mut held = held.emptied();
            prop_assert_eq!((held.len(), held.bytes()), (0, 0));
            let mut rows = all(&rows);
            held.extend(rows.clone());
            held.trim();
            let bytes = |rows: &[Row]| -> usize {
                rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
            };
            prop_assert_eq!(held.bytes(), bytes(&rows));
            // Whatever was there before, half of it is used.
            let used = held.bytes() + held.len() * ROW_BYTES;
            prop_assert!((used..=2 * used + 64).contains(&held.memory()), "{} of {}", used, held.memory());
            for from in [0, rows.len() / 2, rows.len()] {
                let until = held.up_to(from, PIECE);
                prop_assert!(until - from <= 1 || bytes(&rows[from..until]) <= PIECE);
                prop_assert!(until == rows.len() || bytes(&rows[from..=until]) > PIECE);
            }
            let got = |held: &Rows| -> Vec<Row> {
                held.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
            };
            prop_assert_eq!(got(&held), rows.clone());
            // The last of each key.
            held.sort();
            rows.reverse();
            rows.sort_by(|(a, _), (b, _)| a.cmp(b));
            rows.dedup_by(|(later, _), (key, _)| later == key);
            prop_assert_eq!(got(&held), rows.clone());
        }
    }
}
