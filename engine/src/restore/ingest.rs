//! Rows that were read and are not in the store yet: a batch in the order of the changelog, or, when
//! there are many to come, the last value of each key, to be sorted and taken in as a table.

use std::time::{Duration, Instant};

use super::portion::Portion;
use crate::{
    epoch,
    store::{self, Store},
    timers::TimerOf,
};

/// A batch is written when it has so many rows,
const BATCH_ROWS: usize = 5_000;
/// or so many bytes,
const BATCH_BYTES: usize = 4 << 20;
/// or its first row is so old.
const BATCH_AGE: Duration = Duration::from_millis(100);

/// Rows on their way into one store.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each store, and none is copied for each row"
)]
pub(super) enum Rows {
    /// Few: written soon.
    Batch(epoch::Rows, Option<Instant>),
    /// Many: kept until memory is short or the end is reached.
    Portion(Portion),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Batch(epoch::Rows::default(), None)
    }
}

impl Rows {
    /// Adds a row; `None` deletes it.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>, now: Instant) {
        match self {
            Self::Batch(batch, since) => {
                since.get_or_insert(now);
                batch.push(key, value);
            }
            Self::Portion(portion) => portion.put(key, value),
        }
    }

    /// Must they be written by now?
    pub(super) fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::Batch(batch, since) => {
                let age = since.map(|since| now.saturating_duration_since(since));
                batch.len() >= BATCH_ROWS
                    || batch.bytes() >= BATCH_BYTES
                    || age.is_some_and(|age| age >= BATCH_AGE)
            }
            Self::Portion(_) => false,
        }
    }

    /// Memory that waits to become a table.
    pub(super) fn portion_bytes(&self) -> usize {
        match self {
            Self::Batch(..) => 0,
            Self::Portion(portion) => portion.bytes(),
        }
    }

    /// As for [`Portion::make_room`].
    pub(super) fn make_room(&mut self) {
        match self {
            Self::Batch(..) => {}
            Self::Portion(portion) => portion.make_room(),
        }
    }

    /// The portion, if there are rows in one. An empty one takes its place.
    pub(super) fn take_portion(&mut self) -> Option<Portion> {
        match self {
            Self::Portion(portion) if portion.bytes() > 0 => Some(std::mem::take(portion)),
            _ => None,
        }
    }

    /// Writes them, with the position that they bring the store to, and the digest if it is known. A
    /// portion goes on as an empty one.
    ///
    /// # Errors
    /// What the store says. This store cannot be worked on then: whoever opens it again reads on from the
    /// position that it has.
    pub(super) fn write(
        &mut self,
        store: &Store,
        position: i64,
        digest: Option<u64>,
        timer_of: TimerOf,
    ) -> Result<(), store::Error> {
        match self {
            Self::Batch(batch, since) => {
                *since = None;
                let written = store.apply(batch.iter(), position, digest);
                *batch = std::mem::take(batch).emptied();
                written
            }
            Self::Portion(portion) => {
                *portion = std::mem::take(portion).ingest(store, position, timer_of)?;
                Ok(())
            }
        }
    }
}
