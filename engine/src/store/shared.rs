//! What all stores of a process share.

use std::path::PathBuf;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Env, Options, WriteBufferManager};

use super::Error;
use crate::memory::Pool;

/// The largest memtable of a store; all together are bounded by [`Shared`].
const MEMTABLE_BYTES: usize = 16 << 20;
/// Memory is given to a memtable in pieces of this size, and counted by them: RocksDB's own choice, a
/// MiB, would fill a budget with the first row of each store.
const ARENA_BYTES: usize = 128 << 10;
/// A memtable of positions and such.
const META_MEMTABLE_BYTES: usize = 512 << 10;

/// What all stores of a process share.
#[derive(Clone)]
pub struct Shared {
    cache: Cache,
    memtables: WriteBufferManager,
    pub(super) overlays: Pool,
    env: Option<Env>,
    /// Otherwise stores live in memory only: for tests without a disk.
    pub(super) on_disk: bool,
}

impl Shared {
    /// `bytes` for all stores: half for rows that are not in RocksDB yet, half for its block cache and
    /// memtables.
    #[must_use]
    pub fn on_disk(bytes: usize) -> Self {
        Self::new(bytes, None)
    }

    /// Stores that vanish with this value.
    ///
    /// # Errors
    /// When RocksDB cannot make such an environment.
    pub fn in_memory() -> Result<Self, Error> {
        let env = Env::mem_env().map_err(|source| Error::RocksDb {
            path: PathBuf::from("(memory)"),
            source,
        })?;
        Ok(Self::new(64 << 20, Some(env)))
    }

    fn new(bytes: usize, env: Option<Env>) -> Self {
        let half = bytes / 2;
        let cache = Cache::new_lru_cache(half);
        // Memtables are paid for with blocks. Writers are not stalled: a flush follows soon enough.
        let memtables =
            WriteBufferManager::new_write_buffer_manager_with_cache(half / 2, false, cache.clone());
        Self {
            cache,
            memtables,
            overlays: Pool::of(half),
            on_disk: env.is_none(),
            env,
        }
    }

    pub(super) fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        // The first two levels are written again and again, and hold all of a store that is not large.
        let mut compression = [DBCompressionType::Lz4; 7];
        compression[..2].fill(DBCompressionType::None);
        options.set_compression_per_level(&compression);
        options.set_write_buffer_manager(&self.memtables);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_arena_block_size(ARENA_BYTES);
        // Most reads of rows that are not there, of new objects, end here.
        options.set_memtable_prefix_bloom_ratio(0.05);
        options.set_memtable_whole_key_filtering(true);
        options.set_keep_log_file_num(2);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // Rows and position must reach the disk together, though they are in two column families.
        options.set_atomic_flush(true);
        if let Some(env) = &self.env {
            options.set_env(env);
        }
        options
    }

    /// For the column family of positions and such.
    pub(super) fn meta_options(&self) -> Options {
        let mut options = self.options();
        options.set_write_buffer_size(META_MEMTABLE_BYTES);
        options.set_arena_block_size(META_MEMTABLE_BYTES / 16);
        options
    }
}
