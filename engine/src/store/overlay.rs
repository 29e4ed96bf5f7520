//! What is committed and not in RocksDB yet.
//!
//! An object that changes all the time costs RocksDB one row in half a minute, not one in each epoch. A
//! crash loses what is here, as it loses what RocksDB itself has not flushed: the changelog has it.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use itertools::{Either, Itertools as _};

use super::OBJECT;
use crate::{last_rows::LastRows, memory::Account};

/// What a row that is no object's costs beside its key and value: their allocations, and its place among the others.
const ROW_BYTES: usize = 96;

type Others = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

/// Sorts before all objects.
const OBJECTS: &[u8] = &[OBJECT];

/// How far a store is, and how it got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The changelog offset that the rows reach.
    pub(super) position: i64,
    /// The last position that was reached by writing to the changelog, not by reading it; `None` if it is
    /// the one that RocksDB has.
    pub(super) written: Option<i64>,
    /// The digest of all rows, if it is known.
    pub(super) digest: Option<u64>,
}

/// Rows that are not in RocksDB, and how far they bring the store. Objects are looked up all the time and listed
/// hardly ever; the others, timers nearly all of them, are read in order.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    objects: LastRows,
    others: Others,
    /// Places of the first so many objects, sorted by key.
    order: Mutex<Arc<Vec<u32>>>,
    standing: Option<Standing>,
    /// Memory of the others.
    other_bytes: usize,
}

impl Overlay {
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        if is_object(key) {
            self.objects.put(key, value);
            return;
        }
        let memory = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
        let new = ROW_BYTES + key.len() + memory(value);
        let value = value.map(Box::from);
        let old = self.others.insert(key.into(), value);
        let old = old.map_or(0, |old| ROW_BYTES + key.len() + memory(old.as_deref()));
        self.other_bytes = self.other_bytes - old + new;
    }

    fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        if is_object(key) {
            self.objects.row(key)
        } else {
            self.others.get(key).map(Option::as_deref)
        }
    }

    fn bytes(&self) -> usize {
        self.objects.bytes() + self.other_bytes
    }

    fn rows_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        if is_object(from) {
            let order = self.order();
            let start = order.partition_point(|place| self.objects.get(*place).0 < from);
            let places = (start..order.len()).map(move |at| order[at]);
            return Either::Left(places.map(|place| self.objects.get(place)));
        }
        let prefix = from.first().copied();
        let range = (Bound::Included(from), Bound::Unbounded);
        Either::Right(
            self.others(range)
                .take_while(move |(key, _)| key.first().copied() == prefix),
        )
    }

    fn others(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let rows = self.others.range::<[u8], _>(range);
        rows.map(|(key, value)| (&**key, value.as_deref()))
    }

    /// The places of all objects, sorted by key. What came since somebody last asked is sorted in.
    pub(super) fn order(&self) -> Arc<Vec<u32>> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.len() < self.objects.len() {
            let came = self.objects.sorted(order.len());
            let before = order.iter().copied();
            let key = |place: &u32| self.objects.get(*place).0;
            let all = before.merge_by(came, |a, b| key(a) < key(b));
            *order = Arc::new(all.collect());
        }
        Arc::clone(&order)
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        self.objects.len() + self.others.len()
    }

    /// All rows, in order; `order` is that of the objects.
    pub(super) fn rows<'s>(
        &'s self,
        order: &'s [u32],
    ) -> impl Iterator<Item = (&'s [u8], Option<&'s [u8]>)> {
        let before = self.others((Bound::Unbounded, Bound::Excluded(OBJECTS)));
        let behind = self.others((Bound::Included(OBJECTS), Bound::Unbounded));
        before.chain(self.objects.at_places(order)).chain(behind)
    }

    /// How far they bring the store.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.standing
    }
}

fn is_object(key: &[u8]) -> bool {
    key.first() == Some(&OBJECT)
}

/// The rows of one store that are not in RocksDB: those that come in, and those on their way there.
#[derive(Debug)]
pub(super) struct Layers {
    fresh: Overlay,
    leaving: Option<Arc<Overlay>>,
    account: Account,
}

impl Layers {
    pub(super) fn new(account: Account) -> Self {
        Self {
            fresh: Overlay::default(),
            leaving: None,
            account,
        }
    }

    /// Adds rows; `None` deletes one.
    pub(super) fn put<'r>(
        &mut self,
        rows: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
        standing: Standing,
    ) {
        for (key, value) in rows {
            self.fresh.put(key, value);
        }
        let before = self.fresh.standing.and_then(|before| before.written);
        self.fresh.standing = Some(Standing {
            written: standing.written.or(before),
            ..standing
        });
        self.count();
    }

    /// The row under `key`: outer `None` = not here, inner = deleted.
    pub(super) fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let leaving = || self.leaving.as_ref()?.row(key);
        self.fresh.row(key).or_else(leaving)
    }

    /// The rows from `from` on whose key has the same first byte, in order.
    pub(super) fn rows_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let leaving = self.leaving.iter().flat_map(|rows| rows.rows_from(from));
        let fresh = self.fresh.rows_from(from);
        let both = fresh.merge_join_by(leaving, |(a, _), (b, _)| a.cmp(b));
        both.map(|row| row.reduce(|fresh, _| fresh))
    }

    /// How far they bring the store; `None` if it is as RocksDB says.
    pub(super) fn standing(&self) -> Option<Standing> {
        let leaving = self.leaving.as_ref().and_then(|rows| rows.standing);
        let fresh = self.fresh.standing.or(leaving)?;
        let written = fresh.written.or(leaving.and_then(|before| before.written));
        Some(Standing { written, ..fresh })
    }

    /// Must some of it go to RocksDB, for others to have room?
    pub(super) fn is_full(&self) -> bool {
        self.fresh.bytes() > self.account.most()
    }

    /// What is to be written next; it is still to be found here, until it [`has_left`](Self::has_left).
    pub(super) fn leave(&mut self) -> Option<Arc<Overlay>> {
        if self.leaving.is_none() && self.fresh.standing.is_some() {
            self.leaving = Some(Arc::new(std::mem::take(&mut self.fresh)));
        }
        self.leaving.clone()
    }

    /// What was leaving is in RocksDB.
    pub(super) fn has_left(&mut self) {
        self.leaving = None;
        self.count();
    }

    fn count(&mut self) {
        let leaving = self.leaving.as_ref().map_or(0, |rows| rows.bytes());
        self.account.set(self.fresh.bytes() + leaving);
    }
}
