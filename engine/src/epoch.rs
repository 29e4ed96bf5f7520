//! An epoch: everything that one transaction commits, held in memory until then.

use std::{
    ops::Range,
    sync::{Arc, Weak},
};

use crate::store::Store;

mod outputs;

pub use outputs::{Destination, Output, Outputs};

/// What a row of an epoch costs beside its key and value.
pub const ROW_BYTES: usize = size_of::<Span>();

/// Less room than this is made more.
const LEAST_ROOM: usize = 4 << 10;

/// A row of a task's store and of the changelog: key with its prefix, value or deletion.
pub type Row = (Vec<u8>, Option<Vec<u8>>);

/// Many rows, in one piece of memory: an allocation a row would cost more than the row.
#[derive(Debug, Default)]
pub struct Rows {
    /// Each key, and its value behind it.
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a row is.
#[derive(Debug, Clone, Copy)]
struct Span {
    at: usize,
    value_at: usize,
    end: usize,
    deleted: bool,
}

impl Rows {
    /// Adds a row; `None` deletes it.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => drop(self.push_with(key, |out| out.extend_from_slice(value))),
            None => self.push_deleted(key),
        }
    }

    /// Adds a row whose value `write` appends, and returns that value.
    pub fn push_with(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.make_room();
        let at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let value_at = self.bytes.len();
        write(&mut self.bytes);
        self.spans.push(Span {
            at,
            value_at,
            end: self.bytes.len(),
            deleted: false,
        });
        &self.bytes[value_at..]
    }

    /// Grows by a quarter: half of an epoch's memory must not be room for more. Hardly any row is longer than the room that
    /// is left.
    fn make_room(&mut self) {
        if self.bytes.capacity() - self.bytes.len() < LEAST_ROOM {
            self.bytes
                .reserve_exact(LEAST_ROOM.max(self.bytes.len() / 4));
        }
        if self.spans.len() == self.spans.capacity() {
            self.spans.reserve_exact(64.max(self.spans.len() / 4));
        }
    }

    fn push_deleted(&mut self, key: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let end = self.bytes.len();
        self.spans.push(Span {
            at,
            value_at: end,
            end,
            deleted: true,
        });
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
        self.bytes.len()
    }

    /// The place behind those rows from `from` on that make up to `bytes`: one at least, if there is one.
    #[must_use]
    pub fn up_to(&self, from: usize, bytes: usize) -> usize {
        let Some(first) = self.spans.get(from) else {
            return from;
        };
        let fits = |span: &Span| span.end - first.at <= bytes;
        from + self.spans[from..].partition_point(fits).max(1)
    }

    /// The rows at these places.
    pub fn range(
        &self,
        places: Range<usize>,
    ) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        self.spans[places].iter().map(|span| self.row(span))
    }

    /// The rows, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        self.spans.iter().map(|span| self.row(span))
    }

    /// The rows from `key` on, if they are sorted.
    pub fn from(&self, key: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let start = self.spans.partition_point(|span| self.key(span) < key);
        self.range(start..self.len())
    }

    fn row(&self, span: &Span) -> (&[u8], Option<&[u8]>) {
        let value = &self.bytes[span.value_at..span.end];
        (self.key(span), (!span.deleted).then_some(value))
    }

    fn key(&self, span: &Span) -> &[u8] {
        &self.bytes[span.at..span.value_at]
    }

    /// Gives memory back if they take less than half of what they have. The next epoch may be as small: each is full of the
    /// records of a few partitions, now of these and now of those.
    pub(crate) fn trim(&mut self) {
        trim(&mut self.bytes);
        trim(&mut self.spans);
    }

    /// No rows, in the memory of these.
    #[must_use]
    pub fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.spans.clear();
        self
    }
}

/// Gives memory back if more than half of it is not used.
fn trim<T>(list: &mut Vec<T>) {
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

/// What one task adds to an epoch. Immutable once cut.
#[derive(Debug)]
pub struct TaskEpoch {
    /// The task.
    pub partition: u32,
    /// Its store, which takes the rows after the commit. The task holds it: a committer whose call does not end
    /// shall not keep a store open that others need closed.
    pub store: Weak<Store>,
    /// Changed rows, sorted by key, each key once; a digest comes last.
    pub rows: Arc<Rows>,
    /// Changed rows of the index of timers, sorted: for the store, not for the changelog.
    pub timers: Rows,
    /// Other records, in order.
    pub outputs: Arc<Outputs>,
    /// The offset after the last processed source record; `None` if there was none (timers only).
    pub next_offset: Option<i64>,
    /// Source records in it.
    pub records: u64,
    /// Digest of all rows of the store once these are in it.
    pub digest: u64,
}

impl TaskEpoch {
    /// The row under `key`, if this epoch changes it: outer `None` = unchanged, inner = deleted.
    #[must_use]
    pub fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let spans = &self.rows.spans;
        let i = spans.binary_search_by(|span| self.rows.key(span).cmp(key));
        Some(self.rows.row(&spans[i.ok()?]).1)
    }
}

/// What one transaction of one worker commits.
#[derive(Debug, Default)]
pub struct Epoch {
    /// The tasks that changed.
    pub tasks: Vec<Arc<TaskEpoch>>,
}
