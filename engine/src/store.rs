//! The store of one task: RocksDB, always a committed prefix of the changelog.
//!
//! Rows and the changelog position they reach are written in one batch, after the transaction that
//! holds them has committed. The write-ahead log is off: Kafka is the log. After a crash the store
//! is an older prefix, and the rest comes from the changelog. One block cache serves all stores of
//! a process.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Direction, Env,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::epoch::{Row, TaskEpoch};

/// Prefix of the rows that hold a processor's values.
pub const OBJECT: u8 = b'o';
/// Prefix of the rows that hold timers.
pub const TIMER: u8 = b't';
/// Key of the row that holds a digest of all others; sorts behind them.
pub const DIGEST: u8 = b'z';

const META: &str = "meta";
const POSITION: &[u8] = b"position";
const ROWS_DIGEST: &[u8] = b"digest";
const IDENTITY: &[u8] = b"identity";
const LAYOUT: u32 = 1;
/// A store that changed is flushed this often, so that a crash replays a bounded delta.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RocksDB said so.
    #[error("store {path}: {source}")]
    RocksDb {
        /// The directory.
        path: PathBuf,
        /// RocksDB's own words.
        source: rocksdb::Error,
    },
    /// The directory holds the state of something else.
    #[error(
        "store {path} belongs to {found}, not to {expected}: choose another --state-dir, or move this directory away"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Written inside.
        found: String,
        /// Expected inside.
        expected: String,
    },
    /// A row that cannot be read.
    #[error("store {path}: row {key:?}: {what}")]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// The row's key.
        key: String,
        /// What is wrong.
        what: String,
    },
}

/// What all stores of a process share.
#[derive(Clone)]
pub struct Shared {
    cache: Cache,
    /// Stores live in memory only; for tests without a disk.
    memory: Option<Env>,
}

impl Shared {
    /// A block cache of `cache_bytes` for all stores.
    #[must_use]
    pub fn on_disk(cache_bytes: usize) -> Self {
        Self {
            cache: Cache::new_lru_cache(cache_bytes),
            memory: None,
        }
    }

    /// Stores that vanish with this value.
    ///
    /// # Errors
    /// When RocksDB cannot make such an environment.
    pub fn in_memory() -> Result<Self, Error> {
        let memory = Env::mem_env().map_err(|source| Error::RocksDb {
            path: PathBuf::from("(memory)"),
            source,
        })?;
        Ok(Self {
            cache: Cache::new_lru_cache(1 << 20),
            memory: Some(memory),
        })
    }

    fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        options.set_write_buffer_size(16 << 20);
        options.set_keep_log_file_num(2);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // Rows and position must reach the disk together, though they are in two column families.
        options.set_atomic_flush(true);
        if let Some(env) = &self.memory {
            options.set_env(env);
        }
        options
    }
}

/// The store of one task.
pub struct Store {
    db: DB,
    path: PathBuf,
    dirty: AtomicBool,
    flushed: Mutex<Instant>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.path.display())
    }
}

impl Store {
    /// Opens or creates the store of `partition` of the application, in `directory`.
    ///
    /// # Errors
    /// [`Error::Foreign`] for the directory of another application or partition, otherwise what
    /// RocksDB says: locked by another process, corrupt, no space.
    pub fn open(
        shared: &Shared,
        directory: &Path,
        application_id: &str,
        partition: u32,
    ) -> Result<Self, Error> {
        let path = directory.join(partition.to_string());
        if shared.memory.is_none() {
            // RocksDB creates only the last directory of a path; its own error is good enough.
            drop(std::fs::create_dir_all(&path));
        }
        let options = shared.options();
        let families = ["default", META].map(|n| ColumnFamilyDescriptor::new(n, options.clone()));
        let db = DB::open_cf_descriptors(&options, &path, families).map_err(|source| {
            Error::RocksDb {
                path: path.clone(),
                source,
            }
        })?;
        let store = Self {
            db,
            path,
            dirty: AtomicBool::new(false),
            flushed: Mutex::new(Instant::now()),
        };
        store.check_identity(&format!("{application_id}/{partition} layout {LAYOUT}"))?;
        Ok(store)
    }

    /// Removes the store of `partition` in `directory`, if there is one.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn destroy(directory: &Path, partition: u32) -> Result<(), Error> {
        let path = directory.join(partition.to_string());
        DB::destroy(&Options::default(), &path).map_err(|source| Error::RocksDb { path, source })
    }

    fn check_identity(&self, expected: &str) -> Result<(), Error> {
        let meta = self.meta();
        match self.db.get_cf(meta, IDENTITY).map_err(|e| self.error(e))? {
            Some(found) if found == expected.as_bytes() => Ok(()),
            Some(found) => Err(Error::Foreign {
                path: self.path.clone(),
                found: String::from_utf8_lossy(&found).into_owned(),
                expected: expected.to_owned(),
            }),
            None => {
                let mut batch = WriteBatch::default();
                batch.put_cf(meta, IDENTITY, expected.as_bytes());
                self.write(batch)
            }
        }
    }

    /// The changelog offset that the store is complete up to (exclusive); 0 for an empty store.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn position(&self) -> Result<i64, Error> {
        let bytes = self
            .db
            .get_cf(self.meta(), POSITION)
            .map_err(|e| self.error(e))?;
        Ok(bytes
            .and_then(|b| b.try_into().ok())
            .map_or(0, i64::from_be_bytes))
    }

    /// The committed row under `key` (with its prefix).
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.db.get(key).map_err(|e| self.error(e))
    }

    /// The digest of all rows, as of the last epoch applied; see [`crate::digest`].
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn digest(&self) -> Result<u64, Error> {
        let bytes = self
            .db
            .get_cf(self.meta(), ROWS_DIGEST)
            .map_err(|e| self.error(e))?;
        Ok(bytes
            .and_then(|b| b.try_into().ok())
            .map_or(0, u64::from_be_bytes))
    }

    /// Writes an epoch's rows together with the changelog position they reach.
    ///
    /// # Errors
    /// What RocksDB says; then nothing of it is written.
    pub fn apply_epoch(&self, epoch: &TaskEpoch, position: i64) -> Result<(), Error> {
        self.apply_with(&epoch.rows, position, epoch.digest)
    }

    /// Writes committed rows together with the changelog position they reach.
    ///
    /// # Errors
    /// What RocksDB says; then nothing of it is written.
    pub fn apply(&self, rows: &[Row], position: i64) -> Result<(), Error> {
        let digest = self.digest()?;
        self.apply_with(rows, position, digest)
    }

    fn apply_with(&self, rows: &[Row], position: i64, digest: u64) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch.put_cf(self.meta(), POSITION, position.to_be_bytes());
        batch.put_cf(self.meta(), ROWS_DIGEST, digest.to_be_bytes());
        self.write(batch)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db
            .write_opt(batch, &options)
            .map_err(|e| self.error(e))?;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Calls `visit` for each row from `from` on whose key has the same first byte, in order, until
    /// it returns `false`. A consistent view of one moment.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn scan(
        &self,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let Some(&prefix) = from.first() else {
            return Ok(());
        };
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(vec![prefix + 1]);
        let rows = self
            .db
            .iterator_opt(IteratorMode::From(from, Direction::Forward), options);
        for row in rows {
            let (key, value) = row.map_err(|e| self.error(e))?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    /// Brings everything to disk, so that a restart replays nothing of it.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn flush(&self) -> Result<(), Error> {
        if self.dirty.swap(false, Ordering::AcqRel) {
            let default = self.family("default");
            self.db
                .flush_cfs_opt(&[default, self.meta()], &rocksdb::FlushOptions::default())
                .map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    /// Flushes if the store has changed and its last flush is a while ago.
    ///
    /// # Errors
    /// What RocksDB says.
    pub fn flush_if_due(&self) -> Result<(), Error> {
        let mut flushed = self
            .flushed
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if flushed.elapsed() < FLUSH_EVERY {
            return Ok(());
        }
        *flushed = Instant::now();
        self.flush()
    }

    pub(crate) fn corrupt(&self, key: &[u8], what: String) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            key: String::from_utf8_lossy(key).into_owned(),
            what,
        }
    }

    fn meta(&self) -> &ColumnFamily {
        self.family(META)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        // Both families are opened with the database; RocksDB has no way to lose one.
        self.db
            .cf_handle(name)
            .unwrap_or_else(|| unreachable!("column family {name} was opened"))
    }

    fn error(&self, source: rocksdb::Error) -> Error {
        Error::RocksDb {
            path: self.path.clone(),
            source,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: Option<&str>) -> Row {
        (
            row_key(OBJECT, key.as_bytes()),
            value.map(|v| v.as_bytes().to_vec()),
        )
    }

    #[test]
    fn rows_and_position_survive_a_flush_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::on_disk(1 << 20);
        let store = Store::open(&shared, dir.path(), "app", 3).unwrap();
        assert_eq!(store.position().unwrap(), 0);
        store.apply(&[row("a", Some("1"))], 7).unwrap();
        store.flush().unwrap();
        store
            .apply(&[row("a", None), row("b", Some("2"))], 9)
            .unwrap();
        assert_eq!(store.position().unwrap(), 9);
        // Dropped without a flush: what a crash leaves.
        drop(store);
        let store = Store::open(&shared, dir.path(), "app", 3).unwrap();
        let position = store.position().unwrap();
        let a = store.get(&row_key(OBJECT, b"a")).unwrap();
        assert!(
            (position == 7 && a.is_some()) || (position == 9 && a.is_none()),
            "rows and position belong together: position {position}, a {a:?}"
        );
    }

    #[test]
    fn refuses_the_directory_of_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Shared::on_disk(1 << 20);
        drop(Store::open(&shared, dir.path(), "app", 3).unwrap());
        let error = Store::open(&shared, dir.path(), "other", 3).unwrap_err();
        assert!(error.to_string().contains("belongs to app/3"), "{error}");
    }

    #[test]
    fn scans_one_prefix_in_order() {
        let store = Store::open(&Shared::in_memory().unwrap(), Path::new("/m"), "app", 0).unwrap();
        let timer = (row_key(TIMER, b"x"), Some(vec![]));
        store
            .apply(&[row("b", Some("2")), row("a", Some("1")), timer], 1)
            .unwrap();
        let mut seen = Vec::new();
        store
            .scan(&[OBJECT], |key, _| {
                seen.push(key.to_vec());
                true
            })
            .unwrap();
        assert_eq!(seen, [b"oa".to_vec(), b"ob".to_vec()]);
    }
}
