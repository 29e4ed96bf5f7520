//! Rows that are not in RocksDB yet, the last of each key.

use std::{collections::BTreeMap, ops::Bound};

use itertools::Itertools as _;

use runs::Runs;

use crate::{
    last_rows::LastRows,
    places::hash_of_row,
    store::{OBJECT, TIMER},
};

mod runs;

/// What a row that is no object's costs beside its key and value: their allocations, and its place among the others.
const ROW_BYTES: usize = 96;

/// Sorts before all objects.
const OBJECTS: &[u8] = &[OBJECT];

/// The last row of each key. Objects are many, looked up all the time and sorted hardly ever. Timers are as many, come
/// nearly in order, and are looked at in order. Of the others there are a few.
#[derive(Debug, Default)]
pub(crate) struct PendingRows {
    objects: LastRows,
    timers: Runs,
    others: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
    /// Memory of the others.
    other_bytes: usize,
}

impl PendingRows {
    /// Takes a row; `None` deletes it.
    pub(crate) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        if is_object(key) {
            self.objects.put(key, value);
            return;
        }
        if is_timer(key) {
            self.timers.put(key, value);
            return;
        }
        let memory = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
        let new = ROW_BYTES + key.len() + memory(value);
        let value = value.map(Box::from);
        let old = self.others.insert(key.into(), value);
        let old = old.map_or(0, |old| ROW_BYTES + key.len() + memory(old.as_deref()));
        self.other_bytes = self.other_bytes - old + new;
    }

    /// The row under `key`: outer `None` = not here, inner = deleted.
    pub(crate) fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        if is_object(key) {
            self.objects.row(hash_of_row(key), key)
        } else if is_timer(key) {
            self.timers.row(key)
        } else {
            self.others.get(key).map(Option::as_deref)
        }
    }

    /// The objects among them.
    pub(crate) fn objects(&self) -> &LastRows {
        &self.objects
    }

    /// Those that are no objects', of a range of keys, in order.
    pub(crate) fn others(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let rows = self.others.range::<[u8], _>(range);
        let rows = rows.map(|(key, value)| (&**key, value.as_deref()));
        rows.merge_by(self.timers.range(range), |(a, _), (b, _)| a < b)
    }

    /// Those that sort before all objects, in order.
    pub(crate) fn before_objects(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.others((Bound::Unbounded, Bound::Excluded(OBJECTS)))
    }

    /// Those that sort behind all objects and before `end`, in order.
    pub(crate) fn behind_objects<'s>(
        &'s self,
        end: Bound<&'s [u8]>,
    ) -> impl Iterator<Item = (&'s [u8], Option<&'s [u8]>)> {
        self.others((Bound::Excluded(OBJECTS), end))
    }

    /// How many, a timer that was put twice perhaps counted twice.
    pub(crate) fn len(&self) -> usize {
        self.objects.len() + self.timers.len() + self.others.len()
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.objects.bytes() + self.timers.bytes() + self.other_bytes
    }
}

/// Is it the key of an object's row?
pub(crate) fn is_object(key: &[u8]) -> bool {
    key.first() == Some(&OBJECT)
}

fn is_timer(key: &[u8]) -> bool {
    key.first() == Some(&TIMER)
}
