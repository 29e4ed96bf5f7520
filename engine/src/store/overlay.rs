//! What is committed and not in RocksDB yet.
//!
//! An object that changes all the time costs RocksDB one row in half a minute, not one in each epoch. A
//! crash loses what is here, as it loses what RocksDB itself has not flushed: the changelog has it.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use itertools::Itertools as _;

use crate::memory::Account;

/// What a row costs beside its key and value: their allocations, and its place among the others.
const ROW_BYTES: usize = 96;

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

/// Rows that are not in RocksDB, and how far they bring the store.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    rows: BTreeMap<Box<[u8]>, Option<Vec<u8>>>,
    standing: Option<Standing>,
    bytes: usize,
}

impl Overlay {
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(old) = self.rows.get_mut(key) else {
            let value = value.map(<[u8]>::to_vec);
            self.bytes += ROW_BYTES + key.len() + memory(value.as_ref());
            self.rows.insert(key.into(), value);
            return;
        };
        self.bytes -= memory(old.as_ref());
        match (&mut *old, value) {
            (Some(old), Some(value)) => {
                old.clear();
                old.reserve_exact(value.len());
                old.extend_from_slice(value);
            }
            (old, value) => *old = value.map(<[u8]>::to_vec),
        }
        self.bytes += memory(old.as_ref());
    }

    fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.rows.get(key).map(Option::as_deref)
    }

    fn rows_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let prefix = from.first().copied();
        let range = (Bound::Included(from), Bound::Unbounded);
        let rows = self.rows.range::<[u8], _>(range);
        let rows = rows.map(|(key, value)| (&**key, value.as_deref()));
        rows.take_while(move |(key, _)| key.first().copied() == prefix)
    }

    /// All rows, in order.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        let rows = self.rows.iter();
        rows.map(|(key, value)| (&**key, value.as_deref()))
    }

    /// How far they bring the store.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.standing
    }
}

fn memory(value: Option<&Vec<u8>>) -> usize {
    value.map_or(0, Vec::capacity)
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
        self.fresh.bytes > self.account.most()
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
        let leaving = self.leaving.as_ref().map_or(0, |rows| rows.bytes);
        self.account.set(self.fresh.bytes + leaving);
    }
}
