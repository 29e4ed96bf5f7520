//! The store of one task: RocksDB, always a committed prefix of the changelog.
//!
//! Rows and the changelog position they reach come in together, after the transaction that holds them
//! has committed. They are kept in memory first, and go to RocksDB at once when memory is short or half a
//! minute has passed. The write-ahead log is off: Kafka is the log. After a crash the store is
//! an older prefix, and the rest comes from the changelog. One block cache serves all stores of a process.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Instant,
};

use rocksdb::{DB, ReadOptions};

use meta::{COMPLETE, NEVER};
use overlay::{Found, Layers};

use crate::{
    pending::is_object,
    places::{Hash, hash_of_row},
};

mod age;
mod error;
mod folder;
mod ingest;
mod known;
mod meta;
mod overlay;
mod shared;
#[cfg(test)]
pub(crate) mod tests;
mod write;

pub use age::{MAX_OFFLINE_MS, too_old};
pub use error::{Error, Trouble};
pub use folder::{Folder, Reason};
pub(crate) use meta::is_row;
pub use shared::Shared;

/// Prefix of the rows that hold a processor's values.
pub const OBJECT: u8 = b'o';
/// Prefix of the rows that hold timers: of the store alone, made of the values (see [`crate::timers`]).
pub const TIMER: u8 = b't';
/// Key of the row that holds where the source goes on (see [`Store::source_offset`]).
pub const SOURCE: u8 = b'y';
/// Key of the row that holds a digest of all objects; sorts behind all others.
pub const DIGEST: u8 = b'z';

/// So many rows are scanned before commits get their turn.
const SCANNED_AT_ONCE: usize = 1_000;
/// The file that says why a store must not be opened again.
const BROKEN: &str = "BROKEN";

/// The store of one task.
pub struct Store {
    db: DB,
    path: PathBuf,
    shared: Shared,
    layers: RwLock<Layers>,
    /// Held while rows go from memory to RocksDB: one thread at a time.
    pushing: Mutex<()>,
    /// Does RocksDB have what is not on disk?
    dirty: AtomicBool,
    flushed: Mutex<Instant>,
    /// When it last lacked nothing of the changelog, in ms since 1970; and what the disk says of that.
    complete_ms: AtomicI64,
    complete_on_disk_ms: AtomicI64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.path.display())
    }
}

impl Store {
    /// Opens or creates the store of `partition` of the application, in `directory`. Whoever wants
    /// damaged stores replaced opens them with [`Folder::open`].
    ///
    /// # Errors
    /// [`Error::Foreign`] for the directory of another application or partition, [`Error::Locked`]
    /// if it is open already, otherwise what RocksDB says: corrupt, no space.
    pub fn open(
        shared: &Shared,
        directory: &Path,
        application_id: &str,
        partition: u32,
    ) -> Result<Self, Error> {
        let path = directory.join(partition.to_string());
        if shared.on_disk {
            // RocksDB creates only the last directory of a path.
            std::fs::create_dir_all(&path).map_err(|e| Error::io(&path, "cannot create it", e))?;
        }
        let options = shared.options();
        let db = DB::open(&options, &path).map_err(|source| Error::opening(&path, source))?;
        let layers = Layers::new(shared.overlays.open());
        let store = Self {
            db,
            path,
            shared: shared.clone(),
            layers: RwLock::new(layers),
            pushing: Mutex::new(()),
            dirty: AtomicBool::new(false),
            flushed: Mutex::new(Instant::now()),
            complete_ms: AtomicI64::new(NEVER),
            complete_on_disk_ms: AtomicI64::new(NEVER),
        };
        store.check_identity(application_id, partition)?;
        store.remove_leftovers()?;
        if !store.has_objects()? {
            store.layers_mut().know_all();
        }
        // Read now, so that damage is found now.
        store.position()?;
        let complete_ms = store.number(COMPLETE)?.unwrap_or(NEVER);
        store.complete_ms.store(complete_ms, Ordering::Release);
        store
            .complete_on_disk_ms
            .store(complete_ms, Ordering::Release);
        Ok(store)
    }

    /// The committed row under `key` (with its prefix).
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if is_object(key) {
            return self.object(hash_of_row(key), key);
        }
        if let Some(row) = self.layers().row(key) {
            return Ok(row.map(<[u8]>::to_vec));
        }
        // What has left memory since is found here.
        self.db.get(key).map_err(|e| self.error(e))
    }

    /// As [`Self::get`], for an object's row, whose hash is known.
    pub(crate) fn object(&self, hash: Hash, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.layers().object(hash, key) {
            Found::Here(row) => Ok(row.map(<[u8]>::to_vec)),
            Found::Nowhere => Ok(None),
            Found::PerhapsOnDisk => self.db.get(key).map_err(|e| self.error(e)),
        }
    }

    /// Calls `visit` for each row from `from` on whose key has the same first byte, in order, until
    /// it returns `false`. Of rows that change meanwhile it sees the old or the new one.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn scan(
        &self,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let mut from = Some(from.to_vec());
        while let Some(start) = from {
            from = self.scan_some(&start, &mut visit)?;
        }
        Ok(())
    }

    /// Visits some rows, and says where to go on. Commits wait meanwhile: so only some.
    fn scan_some(
        &self,
        from: &[u8],
        visit: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(&prefix) = from.first() else {
            return Ok(None);
        };
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(vec![prefix + 1]);
        let layers = self.layers();
        let mut on_disk = self.db.raw_iterator_opt(options);
        on_disk.seek(from);
        let mut in_memory = layers.rows_from(from).peekable();
        for number in 0.. {
            // What is in memory is newer.
            let is_next = |(key, _): &(&[u8], _)| on_disk.key().is_none_or(|other| *key <= other);
            let next = in_memory.next_if(is_next);
            let Some(key) = next.map(|(key, _)| key).or(on_disk.key()) else {
                break;
            };
            if number == SCANNED_AT_ONCE {
                return Ok(Some(key.to_vec()));
            }
            let value = next.map_or(on_disk.value(), |(_, value)| value);
            if value.is_some_and(|value| !visit(key, value)) {
                break;
            }
            if on_disk.key() == Some(key) {
                on_disk.next();
            }
        }
        on_disk.status().map_err(|e| self.error(e))?;
        Ok(None)
    }

    pub(crate) fn corrupt(&self, key: &[u8], what: String) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            key: String::from_utf8_lossy(key).into_owned(),
            what,
        }
    }

    pub(crate) fn cannot(&self, what: &'static str, error: std::io::Error) -> Error {
        Error::io(&self.path, what, error)
    }

    /// What to say if it is needed closed and somebody still has it.
    pub(crate) fn still_open(&self) -> Error {
        Error::Locked {
            path: self.path.clone(),
            here: true,
        }
    }

    fn damaged(&self, what: String) -> Error {
        let error = Error::Damaged {
            path: self.path.clone(),
            what,
        };
        self.remember(&error);
        error
    }

    fn error(&self, source: rocksdb::Error) -> Error {
        let error = Error::RocksDb {
            path: self.path.clone(),
            source,
        };
        self.remember(&error);
        error
    }

    /// Leaves word for the next opening that the files are damaged: RocksDB finds that only when it
    /// reads the place again.
    fn remember(&self, error: &Error) {
        if !self.shared.on_disk || error.trouble() != Trouble::Broken {
            return;
        }
        if let Err(error) = std::fs::write(self.path.join(BROKEN), error.to_string()) {
            // Whoever opens the store finds the damage again, only later.
            tracing::warn!(store = %self.path.display(), %error, "cannot mark the store as broken");
        }
    }
}

/// `key` under `prefix`.
#[must_use]
pub fn row_key(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(prefix);
    row.extend_from_slice(key);
    row
}
