//! Many rows at once: sorted, written as a table of RocksDB's own, and taken in as it is. That skips
//! the memtable and costs a seventh of the CPU of writing batches.

use std::{
    fs::{self, File},
    io,
    sync::atomic::Ordering,
};

use rocksdb::{IngestExternalFileOptions, SstFileWriter};
use rustix::fs::Advice;

use super::{
    Error, Store,
    meta::{as_rows, meta_rows},
    overlay::Standing,
};
use crate::{pending::is_object, places::hash_of_row};

/// The table before it is taken in. Not a name that RocksDB gives.
const TABLE: &str = "rows.ingest";

impl Store {
    /// Takes in rows, sorted by key and each key once, `None` to delete, that bring the store to
    /// `position`. They count as newer than what is there, and are on disk when this returns. The digest of all rows
    /// is not known then.
    ///
    /// # Errors
    /// What RocksDB says. Nothing of it is there then.
    pub fn ingest<'r>(
        &self,
        rows: impl IntoIterator<Item = (impl AsRef<[u8]>, Option<&'r [u8]>)>,
        position: i64,
    ) -> Result<(), Error> {
        // What is in memory is older.
        self.push()?;
        let standing = Standing {
            position,
            written: None,
            digest: None,
        };
        let complete_ms = self.complete_ms.load(Ordering::Acquire);
        let (knows_all, mut objects) = (self.layers().knows_all(), Vec::new());
        let rows = rows.into_iter().inspect(|(key, _)| {
            if knows_all && is_object(key.as_ref()) {
                objects.push(hash_of_row(key.as_ref()));
            }
        });
        self.take_table(standing, complete_ms, rows)?;
        // Until now, nobody finds what is new: as before it came.
        self.layers_mut().know(objects.into_iter());
        Ok(())
    }

    /// Writes a table of rows, sorted by key, and of what is to be kept of a standing, and has RocksDB take it in.
    pub(super) fn take_table<'r>(
        &self,
        standing: Standing,
        complete_ms: i64,
        rows: impl IntoIterator<Item = (impl AsRef<[u8]>, Option<&'r [u8]>)>,
    ) -> Result<(), Error> {
        let path = self.path.join(TABLE);
        let options = self.shared.table_options();
        let mut table = SstFileWriter::create(&options);
        let written = table.open(&path).and_then(|()| {
            put(&mut table, as_rows(&meta_rows(standing, complete_ms)))?;
            put(&mut table, rows)?;
            table.finish()
        });
        // Under this name, it will not be there any more.
        let file = File::open(&path);
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        let ingested = written.and_then(|()| {
            self.db
                .ingest_external_file_opts(&how, vec![path.as_path()])
        });
        ingested.map_err(|e| self.error(e))?;
        let at_hand = file.and_then(|file| keep_at_hand(&file));
        if let Err(error) = at_hand {
            tracing::debug!(%error, "the kernel does not read a table ahead");
        }
        self.complete_on_disk_ms
            .store(complete_ms, Ordering::Release);
        Ok(())
    }

    /// A crash or a full disk may have left a table that was not taken in.
    pub(super) fn remove_leftovers(&self) -> Result<(), Error> {
        match fs::remove_file(self.path.join(TABLE)) {
            Err(error) if self.shared.on_disk && error.kind() != io::ErrorKind::NotFound => Err(
                Error::io(&self.path, "cannot remove an unfinished table", error),
            ),
            _ => Ok(()),
        }
    }

    /// Can it [`ingest`](Self::ingest)? A store in memory has no files to take in.
    #[must_use]
    pub fn takes_tables(&self) -> bool {
        self.shared.on_disk
    }
}

/// RocksDB tells the kernel to forget a table once it is written. Most of what is looked up is in the newest tables, and
/// each of their blocks would be fetched from the disk by itself: with 2,000,000 objects, that costs the worker a sixth.
fn keep_at_hand(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, Advice::WillNeed)?)
}

fn put<'r>(
    table: &mut SstFileWriter<'_>,
    rows: impl IntoIterator<Item = (impl AsRef<[u8]>, Option<&'r [u8]>)>,
) -> Result<(), rocksdb::Error> {
    for (key, value) in rows {
        match value {
            Some(value) => table.put(key, value)?,
            None => table.delete(key)?,
        }
    }
    Ok(())
}
