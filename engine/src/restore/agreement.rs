//! Are the rows of a store those of its active? Their digest is kept as they come in, and compared with those in the
//! changelog.

use std::collections::HashMap;

use crate::{
    digest::{self, Comparison, Digest, Verdict},
    store::{self, Store},
    timers::TimerOf,
};

/// What is known of a store's rows, and how they compare.
pub(super) struct Agreement {
    /// Of all rows up to the position; `None` while rows are sorted into tables.
    digest: Option<u64>,
    /// The rows that wait.
    known: HashMap<Vec<u8>, Option<Known>>,
    timer_of: TimerOf,
    comparison: Comparison,
    /// The last record, if that was a digest.
    last_digest: Option<Digest>,
    /// How these rows differ from the active's.
    pub(super) difference: Option<String>,
    /// Were they the same when they were last compared?
    pub(super) same: bool,
}

/// What must be known of a row when another takes its place.
#[derive(Clone, Copy, Default)]
struct Known {
    /// What it adds to the digest.
    hash: u64,
    timer_ms: Option<i64>,
}

impl Agreement {
    pub(super) fn new(digest: Option<u64>, timer_of: TimerOf) -> Self {
        Self {
            digest,
            known: HashMap::new(),
            timer_of,
            comparison: Comparison::default(),
            last_digest: None,
            difference: None,
            same: false,
        }
    }

    pub(super) fn digest(&self) -> Option<u64> {
        self.digest
    }

    /// Rows are sorted first: what they add is known when they are in the store.
    pub(super) fn forget(&mut self) {
        self.digest = None;
    }

    /// A row of an object has come.
    pub(super) fn on_row(&mut self) {
        self.comparison.on_row();
        self.last_digest = None;
    }

    /// Brings the digest up to date with a row; returns the timers of the one before, if that is known, and of
    /// this one.
    pub(super) fn count(
        &mut self,
        store: &Store,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<[Option<i64>; 2], store::Error> {
        let timer_of = self.timer_of;
        let Some(digest) = self.digest else {
            return Ok([None, value.and_then(timer_of)]);
        };
        let know = |row: &[u8]| Known {
            hash: digest::of_row(key, row),
            timer_ms: timer_of(row),
        };
        let before = match self.known.get(key) {
            Some(known) => *known,
            None => store.get(key)?.as_deref().map(know),
        };
        let after = value.map(know);
        self.known.insert(key.to_vec(), after);
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        self.digest = Some(digest.wrapping_sub(before.hash).wrapping_add(after.hash));
        Ok([before.timer_ms, after.timer_ms])
    }

    /// The rows that waited are in the store.
    pub(super) fn on_write(&mut self) {
        self.known.clear();
    }

    /// The record before `position` is a digest; `None` for one that cannot be read.
    pub(super) fn compare(&mut self, theirs: Option<Digest>, position: i64) {
        self.last_digest = theirs;
        let Some(theirs) = theirs else { return };
        let mine = self.digest.unwrap_or(theirs.rows);
        match self.comparison.on_digest(theirs, mine) {
            Verdict::Different => self.differ(theirs, mine, position),
            Verdict::Same => self.same = self.digest.is_some(),
            Verdict::Unknown => {}
        }
    }

    /// The end of the changelog was reached.
    pub(super) fn on_end(&mut self, position: i64) {
        self.comparison.on_end();
        self.compare_at_end(position);
    }

    /// All rows are in the store, and have this digest.
    pub(super) fn on_digest(&mut self, digest: u64, position: i64) {
        self.digest = Some(digest);
        self.compare_at_end(position);
    }

    /// At the end nothing is missing: if a digest came last, it is that of these very rows.
    fn compare_at_end(&mut self, position: i64) {
        if let (Some(theirs), Some(mine)) = (self.last_digest, self.digest)
            && theirs.rows != mine
        {
            self.differ(theirs, mine, position);
        }
    }

    fn differ(&mut self, theirs: Digest, mine: u64, position: i64) {
        self.same = false;
        let theirs = theirs.rows;
        let what = format!(
            "at changelog offset {position} the digest is {mine:016x}, and should be {theirs:016x}"
        );
        self.difference = Some(what);
    }
}
