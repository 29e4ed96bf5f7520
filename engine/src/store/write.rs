//! Rows on their way into a store: into memory, from there into RocksDB, and from there to disk.

use std::{
    sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard, atomic::Ordering},
    time::{Duration, Instant},
};

use rocksdb::{WriteBatch, WriteOptions};

use super::{
    Error, Store,
    meta::{as_rows, meta_rows},
    overlay::{Layers, Overlay, Standing},
};
#[cfg(test)]
use crate::epoch::Row;
use crate::epoch::TaskEpoch;

/// So many rows are written as a table of their own: that costs a part of what it costs to give them to
/// RocksDB one by one.
const TABLE_ROWS: usize = 1_000;
/// A store that changed is flushed this often, so that a crash replays a bounded delta.
const FLUSH_EVERY: Duration = Duration::from_secs(30);
/// RocksDB's memory is full: pause before the next try.
const WRITE_AGAIN_AFTER: Duration = Duration::from_millis(2);
/// A store that does not change says this often that it is still complete.
const SAY_COMPLETE_EVERY_MS: i64 = 60 * 60 * 1000;

impl Store {
    /// Takes the rows of a committed epoch together with the changelog position they reach.
    ///
    /// # Errors
    /// What RocksDB says, if memory is full and older rows must be written; these rows are in the store
    /// all the same.
    pub fn apply_epoch(&self, epoch: &TaskEpoch, position: i64) -> Result<(), Error> {
        let standing = Standing {
            position,
            written: Some(position),
            digest: Some(epoch.digest),
        };
        self.put(epoch.rows.iter().chain(epoch.timers.iter()), standing)
    }

    /// Takes committed rows, `None` to delete, together with the changelog position they reach, and the
    /// digest that all rows have then, if it is known. Of several rows with the same key, the last counts.
    ///
    /// # Errors
    /// As for [`Self::apply_epoch`].
    pub fn apply<'r>(
        &self,
        rows: impl IntoIterator<Item = (&'r [u8], Option<&'r [u8]>)>,
        position: i64,
        digest: Option<u64>,
    ) -> Result<(), Error> {
        let standing = Standing {
            position,
            written: None,
            digest,
        };
        self.put(rows.into_iter(), standing)
    }

    #[cfg(test)]
    pub(crate) fn apply_rows(&self, rows: &[Row], position: i64) -> Result<(), Error> {
        let rows = rows.iter().map(|(key, value)| (&key[..], value.as_deref()));
        self.apply(rows, position, None)
    }

    pub(super) fn put<'r>(
        &self,
        rows: impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
        standing: Standing,
    ) -> Result<(), Error> {
        let is_full = {
            let mut layers = self.layers_mut();
            layers.put(rows, standing);
            layers.is_full()
        };
        if is_full { self.push() } else { Ok(()) }
    }

    /// Writes all that is in memory to RocksDB.
    pub(super) fn push(&self) -> Result<(), Error> {
        let _alone = self.pushing.lock().unwrap_or_else(PoisonError::into_inner);
        // What an earlier attempt could not write, and what came since.
        for _ in 0..2 {
            // Of rows that leave now, or have left.
            let complete_ms = self.complete_ms.load(Ordering::Acquire);
            let Some(leaving) = self.layers_mut().leave() else {
                break;
            };
            self.write_overlay(&leaving, complete_ms)?;
            self.layers_mut().has_left();
        }
        Ok(())
    }

    fn write_overlay(&self, overlay: &Overlay, complete_ms: i64) -> Result<(), Error> {
        let Some(standing) = overlay.standing() else {
            return Ok(());
        };
        let (meta, order) = (meta_rows(standing, complete_ms), overlay.order());
        let rows = overlay.rows(&order);
        if overlay.len() >= TABLE_ROWS && self.takes_tables() {
            return self.take_table(standing, complete_ms, rows);
        }
        let mut batch = WriteBatch::default();
        for (key, value) in as_rows(&meta).chain(rows) {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.write(|| WriteBatch::from_data(batch.data()))
    }

    /// Writes a batch, and makes it again if RocksDB cannot take it yet because its memory is full.
    /// RocksDB itself must not wait for that: in 11.8, a writer that waits and RocksDB's own recovery
    /// from a full disk wait for each other for ever.
    pub(super) fn write(&self, make: impl Fn() -> WriteBatch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        options.set_no_slowdown(true);
        loop {
            match self.db.write_opt(make(), &options) {
                Ok(()) => break,
                Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete => {
                    std::thread::sleep(WRITE_AGAIN_AFTER);
                }
                Err(error) => return Err(self.error(error)),
            }
        }
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Brings everything to disk, so that a restart replays nothing of it.
    ///
    /// # Errors
    /// What RocksDB says; then nothing is lost, and the next call tries again.
    pub fn flush(&self) -> Result<(), Error> {
        // Of rows that are in memory or in RocksDB by now.
        let complete_ms = self.complete_ms.load(Ordering::Acquire);
        self.push()?;
        let said_ms = self.complete_on_disk_ms.load(Ordering::Acquire);
        let say = complete_ms.saturating_sub(said_ms) >= SAY_COMPLETE_EVERY_MS;
        if !say && !self.dirty.load(Ordering::Acquire) {
            return Ok(());
        }
        self.say_complete(complete_ms)?;
        // What is written from here on may or may not be part of it: it makes the store dirty again.
        self.dirty.store(false, Ordering::Release);
        match self.db.flush() {
            Ok(()) => {
                self.complete_on_disk_ms
                    .store(complete_ms, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                self.dirty.store(true, Ordering::Release);
                Err(self.error(error))
            }
        }
    }

    /// Flushes if the store has changed and its last flush is a while ago, or nothing has come in since this was last
    /// called and others need the memory.
    ///
    /// # Errors
    /// As for [`Self::flush`].
    pub fn flush_if_due(&self) -> Result<(), Error> {
        let makes_room = self.layers_mut().had_better_leave();
        {
            let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
            if !makes_room && flushed.elapsed() < FLUSH_EVERY {
                return Ok(());
            }
            *flushed = Instant::now();
        }
        self.flush()
    }

    pub(super) fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn layers_mut(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    /// A store that is closed need not read its last rows again. If they cannot be written, the next one
    /// does.
    fn drop(&mut self) {
        if let Err(error) = self.push() {
            tracing::debug!(store = %self.path.display(), %error, "closed without its last rows");
        }
    }
}
