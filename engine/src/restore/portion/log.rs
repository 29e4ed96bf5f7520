//! Rows as they come, one behind the other, sorted once when all are there: to look each key up as it comes would be
//! several waits for memory for each row.

use std::{hint::black_box, mem};

use crate::{keys::both_begin_with, objects::LOOK_AHEAD, places::hash};

use records::{At, Records};

mod records;

/// A key, and its value; `None` deletes it.
pub(super) type Row<'r> = (&'r [u8], Option<&'r [u8]>);

/// So few bytes are not worth a look.
const SLACK: usize = 4 << 20;
/// So many slots for each row when it is looked for keys that come again: two keys are hardly ever in the same.
const SLOTS: usize = 8;
/// Of so many rows, one key in a few says as much as all of them.
const MANY: usize = 50_000;
const FEW: usize = 8;
/// In them is how many of so many bytes a row takes. One that is larger than 512 KiB counts as that.
const UNIT: usize = 8;

/// Rows whose keys all have the same prefix, in the order in which they come. Of those with the same key, the last one
/// counts.
#[derive(Debug)]
pub(super) struct Log {
    records: Records,
    rows: Vec<Place>,
    /// What all keys begin with.
    common: Vec<u8>,
    /// When the records take so many bytes, it is looked how many of them were replaced.
    look_at: usize,
    slack: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self::with_slack(SLACK)
    }
}

impl Log {
    pub(super) fn with_slack(slack: usize) -> Self {
        Self {
            records: Records::default(),
            rows: Vec::new(),
            common: Vec::new(),
            look_at: slack,
            slack,
        }
    }

    /// Takes a row.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        if self.rows.is_empty() {
            self.common = key.to_vec();
        } else if !key.starts_with(&self.common) {
            self.have_less_in_common(key);
        }
        let at = self.records.add(key, value);
        self.rows.push(Place::of(&key[self.common.len()..], at));
    }

    /// That happens as often as keys have bytes, at most.
    fn have_less_in_common(&mut self, key: &[u8]) {
        self.common.truncate(both_begin_with(&self.common, key));
        for row in &mut self.rows {
            let (key, _) = self.records.get(row.at());
            *row = Place::of(&key[self.common.len()..], row.at());
        }
    }

    /// Is nearly half of it replaced by later rows? Looks at all rows, and so not often: after a no, not before it may have
    /// become half of it, which is when the log has grown by a seventh at least.
    pub(super) fn repeats(&mut self) -> bool {
        if self.records.used() <= self.look_at {
            return false;
        }
        let (live, replaced) = self.live_and_replaced();
        self.look_at = 2 * live + self.slack;
        replaced > live / 4 * 3
    }

    /// How many bytes are those of the last row of each key, and how many are not, nearly: keys that begin alike are taken
    /// for one. Where they lie is not looked at.
    pub(super) fn live_and_replaced(&self) -> (usize, usize) {
        let slots = self.rows.len() * SLOTS;
        let of = if self.rows.len() < MANY { 1 } else { FEW };
        let mut sizes = vec![0_u16; slots / of];
        let mut replaced = 0;
        let next = self.rows.iter().skip(1).map(|row| Some(row.at()));
        for (row, next) in self.rows.iter().zip(next.chain([None])) {
            let Some(slot) = sizes.get_mut(hash(&row.head()).below(slots)) else {
                continue;
            };
            // To the nearest: rounded up, all together would be a tenth too much.
            let size = (self.records.size(row.at(), next) + UNIT / 2) / UNIT;
            let before = mem::replace(slot, u16::try_from(size).unwrap_or(u16::MAX));
            replaced += usize::from(before) * UNIT * of;
        }
        let used = self.records.used();
        let replaced = replaced.min(used);
        (used - replaced, replaced)
    }

    /// How many rows, replaced ones too.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Memory that it takes. Sorting takes none.
    pub(super) fn bytes(&self) -> usize {
        self.records.bytes() + self.rows.capacity() * size_of::<Place>()
    }

    /// Gives back the memory that holds nothing.
    pub(super) fn shrink(&mut self) {
        self.records.shrink();
    }

    /// No rows, in the memory of these.
    pub(super) fn emptied(mut self) -> Self {
        self.records.clear();
        self.rows.clear();
        Self {
            look_at: self.slack,
            ..self
        }
    }

    /// Gives all rows, in the order in which they came, and their memory back meanwhile.
    pub(super) fn into_each(self, each: impl FnMut(&[u8], Option<&[u8]>)) {
        drop(self.rows);
        self.records.into_each(each);
    }

    /// Sorts the rows by key, and forgets those that others have replaced.
    pub(super) fn sort(&mut self) {
        // Keys lie all over memory: most comparisons do without them.
        self.rows.sort_unstable();
        let (mut from, mut kept) = (0, 0);
        while from < self.rows.len() {
            let to = self.end_of_some(from);
            self.sort_alike(from, to);
            for row in from..to {
                let is_last = row + 1 == to || !self.have_same_key(row, row + 1);
                if is_last {
                    self.rows[kept] = self.rows[row];
                    kept += 1;
                }
            }
            from = to;
        }
        self.rows.truncate(kept);
    }

    /// The end of some rows from a place on, such that no key is before it and behind it.
    fn end_of_some(&self, from: usize) -> usize {
        let rows = &self.rows;
        let mut to = rows.len().min(from + LOOK_AHEAD);
        while to < rows.len() && rows[to - 1].is_like(rows[to]) {
            to += 1;
        }
        to
    }

    /// Sorts rows whose keys begin alike by the whole of it, looked at together: so their waits for memory overlap.
    fn sort_alike(&mut self, from: usize, to: usize) {
        let (rows, records) = (&mut self.rows[from..to], &self.records);
        for pair in rows.windows(2).filter(|pair| pair[0].is_like(pair[1])) {
            black_box(
                pair.iter()
                    .map(|row| records.glance(row.at()))
                    .sum::<usize>(),
            );
        }
        let key = |row: &Place| records.get(row.at()).0;
        for alike in rows.chunk_by_mut(|a, b| a.is_like(*b)) {
            // Mostly they are the same.
            if alike.windows(2).any(|pair| key(&pair[0]) != key(&pair[1])) {
                alike.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.cmp(b)));
            }
        }
    }

    fn have_same_key(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.rows[a], self.rows[b]);
        a.is_like(b) && self.records.get(a.at()).0 == self.records.get(b.at()).0
    }

    /// The row at this place, of those that are sorted.
    pub(super) fn get(&self, place: u32) -> Row<'_> {
        self.records.get(self.rows[place as usize].at())
    }

    /// The rows, some looked at together: they lie all over memory, and so their waits for it overlap.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.chunks(LOOK_AHEAD).flat_map(|rows| {
            for row in rows {
                black_box(self.records.glance(row.at()));
            }
            for row in rows {
                let (key, value) = self.records.get(row.at());
                black_box(value.map_or(key.len(), crate::last_rows::glance));
            }
            rows.iter().map(|row| self.records.get(row.at()))
        })
    }
}

/// Where a row lies, with the first bytes of its key behind what all have in common: a number that sorts like them, and
/// where they are the same, like the order in which the rows came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u128);

impl Place {
    const HEAD: usize = size_of::<u128>() - size_of::<At>();

    fn of(key: &[u8], at: At) -> Self {
        let mut bytes = [0; size_of::<u128>()];
        let (head, place) = bytes.split_at_mut(Self::HEAD);
        match key.get(..Self::HEAD) {
            // How long it is, is known to the compiler.
            Some(key) => head.copy_from_slice(key),
            None => head[..key.len()].copy_from_slice(key),
        }
        place.copy_from_slice(&at.0.to_be_bytes());
        Self(u128::from_be_bytes(bytes))
    }

    fn head(self) -> [u8; Self::HEAD] {
        let bytes = self.0.to_be_bytes();
        *bytes.first_chunk().expect("as long as a number")
    }

    fn is_like(self, other: Self) -> bool {
        (self.0 ^ other.0) >> u32::BITS == 0
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is cut off is the head"
    )]
    fn at(self) -> At {
        At(self.0 as u32)
    }
}

#[cfg(test)]
mod tests;
