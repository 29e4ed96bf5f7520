//! What is committed and not in RocksDB yet.
//!
//! An object that changes all the time costs RocksDB one row in half a minute, not one in each epoch. A
//! crash loses what is here, as it loses what RocksDB itself has not flushed: the changelog has it.

use std::{
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use itertools::{Either, Itertools as _};

use super::known::Known;
use crate::{
    memory::Account,
    pending::{PendingRows, is_object},
    places::Hash,
};

/// The part of a store's memory for rows that knowing which objects RocksDB may have is worth.
const KNOWN_PART: usize = 8;

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
    rows: PendingRows,
    /// Places of the first so many objects, sorted by key.
    order: Mutex<Arc<Vec<u32>>>,
    standing: Option<Standing>,
}

impl Overlay {
    fn rows_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        if is_object(from) {
            let (objects, order) = (self.rows.objects(), self.order());
            let start = order.partition_point(|place| objects.get(*place).0 < from);
            let places = (start..order.len()).map(move |at| order[at]);
            return Either::Left(places.map(|place| objects.get(place)));
        }
        let prefix = from.first().copied();
        let range = (Bound::Included(from), Bound::Unbounded);
        let rows = self.rows.others(range);
        Either::Right(rows.take_while(move |(key, _)| key.first().copied() == prefix))
    }

    /// The places of all objects, sorted by key. What came since somebody last asked is sorted in.
    pub(super) fn order(&self) -> Arc<Vec<u32>> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = self.rows.objects();
        if order.len() < objects.len() {
            let came = objects.sorted(order.len());
            let before = order.iter().copied();
            let key = |place: &u32| objects.get(*place).0;
            let all = before.merge_by(came, |a, b| key(a) < key(b));
            *order = Arc::new(all.collect());
        }
        Arc::clone(&order)
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All rows, in order; `order` is that of the objects.
    pub(super) fn rows<'s>(
        &'s self,
        order: &'s [u32],
    ) -> impl Iterator<Item = (&'s [u8], Option<&'s [u8]>)> {
        let before = self.rows.before_objects();
        let objects = self.rows.objects().at_places(order);
        before
            .chain(objects)
            .chain(self.rows.behind_objects(Bound::Unbounded))
    }

    /// How far they bring the store.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.standing
    }
}

/// The rows of one store that are not in RocksDB: those that come in, and those on their way there.
#[derive(Debug)]
pub(super) struct Layers {
    fresh: Overlay,
    leaving: Option<Arc<Overlay>>,
    /// Which objects RocksDB may have; `None` if nobody knows.
    known: Option<Known>,
    /// Did rows come in since somebody last asked?
    busy: bool,
    account: Account,
}

/// Where an object's row is.
pub(super) enum Found<'r> {
    /// In memory; `None` if it is deleted.
    Here(Option<&'r [u8]>),
    /// Only there, if anywhere.
    PerhapsOnDisk,
    Nowhere,
}

impl Layers {
    pub(super) fn new(account: Account) -> Self {
        Self {
            fresh: Overlay::default(),
            leaving: None,
            known: None,
            busy: false,
            account,
        }
    }

    /// RocksDB has no object: what it will have is known.
    pub(super) fn know_all(&mut self) {
        self.known = Some(Known::default());
    }

    /// Must it be told what comes into RocksDB?
    pub(super) fn knows_all(&self) -> bool {
        self.known.is_some()
    }

    /// These have come into RocksDB.
    pub(super) fn know(&mut self, objects: impl Iterator<Item = Hash>) {
        let most = self.account.most() / KNOWN_PART;
        if let Some(known) = &mut self.known {
            known.add(objects);
            if known.bytes() > most {
                self.known = None;
            }
        }
    }

    /// Adds rows; `None` deletes one.
    pub(super) fn put<'r>(
        &mut self,
        rows: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
        standing: Standing,
    ) {
        for (key, value) in rows {
            self.fresh.rows.put(key, value);
        }
        let before = self.fresh.standing.and_then(|before| before.written);
        self.fresh.standing = Some(Standing {
            written: standing.written.or(before),
            ..standing
        });
        self.busy = true;
        self.count();
    }

    /// The row under `key`: outer `None` = not here, inner = deleted.
    pub(super) fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let leaving = || self.leaving.as_ref()?.rows.row(key);
        self.fresh.rows.row(key).or_else(leaving)
    }

    /// The row of an object.
    pub(super) fn object(&self, hash: Hash, key: &[u8]) -> Found<'_> {
        let fresh = self.fresh.rows.objects().row(hash, key);
        let leaving = || self.leaving.as_ref()?.rows.objects().row(hash, key);
        match fresh.or_else(leaving) {
            Some(row) => Found::Here(row),
            None if self
                .known
                .as_ref()
                .is_some_and(|known| !known.may_have(hash)) =>
            {
                Found::Nowhere
            }
            None => Found::PerhapsOnDisk,
        }
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
        self.fresh.rows.bytes() > self.account.most()
    }

    /// Had much of it better go to RocksDB, as others are short of room and nothing has come in since this was last asked?
    pub(super) fn had_better_leave(&mut self) -> bool {
        let busy = std::mem::take(&mut self.busy);
        let is_much = self.fresh.rows.bytes() > self.account.part() / 2;
        !busy && is_much && self.account.is_short()
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
        if let Some(left) = self.leaving.take() {
            self.know(left.rows.objects().hashes());
        }
        self.count();
    }

    fn count(&mut self) {
        let leaving = self
            .leaving
            .as_ref()
            .map_or(0, |leaving| leaving.rows.bytes());
        let known = self.known.as_ref().map_or(0, Known::bytes);
        self.account.set(self.fresh.rows.bytes() + leaving + known);
    }
}
