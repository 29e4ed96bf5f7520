//! What all stores of a process share.

use std::path::PathBuf;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, Env, LruCacheOptions,
    Options, WriteBufferManager,
};

use super::Error;
use crate::memory::Pool;

/// The largest memtable of a store; all together are bounded by [`Shared`].
const MEMTABLE_BYTES: usize = 16 << 20;
/// Memory is given to a memtable in pieces of this size, and counted by them: RocksDB's own choice, a
/// MiB, would fill a budget with the first row of each store.
const ARENA_BYTES: usize = 128 << 10;
/// With less for all stores, filters are read in parts: whole ones, of some MiB, would push each other out of the
/// cache. With 9 MiB and 3,000,000 objects that takes 8.6 s of processor time a million reports, not 14; with more memory it
/// costs a twelfth.
const SMALL: usize = 32 << 20;

/// What all stores of a process share.
#[derive(Clone)]
pub struct Shared {
    cache: Cache,
    memtables: WriteBufferManager,
    pub(super) overlays: Pool,
    /// Would whole filters push each other out of the cache?
    is_small: bool,
    env: Option<Env>,
    /// Otherwise stores live in memory only: for tests without a disk.
    pub(super) on_disk: bool,
}

impl Shared {
    /// `bytes` for all stores: most for rows that are not in RocksDB yet, the rest for its block cache and
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
        let rows = bytes / 3 * 2;
        let mut cache = LruCacheOptions::default();
        cache.set_capacity(bytes - rows);
        // Few shards, so that the largest filter fits into one.
        cache.set_num_shard_bits(2);
        let cache = Cache::new_lru_cache_opts(&cache);
        // Few rows come by memtables, and those are paid for with blocks. Writers are not stalled: a flush
        // follows soon enough.
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
            (bytes - rows) / 2,
            false,
            cache.clone(),
        );
        Self {
            cache,
            memtables,
            overlays: Pool::of(rows),
            is_small: bytes < SMALL,
            on_disk: env.is_none(),
            env,
        }
    }

    /// Memory for rows that are not in RocksDB yet.
    #[must_use]
    pub fn rows(&self) -> &Pool {
        &self.overlays
    }

    pub(super) fn options(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(10.0, false);
        // Index and filters count as memory, too. Most rows that are asked for are in none of the first level's
        // files: their filters stay at hand.
        table.set_cache_index_and_filter_blocks(true);
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(self.is_small);
        table.set_pin_top_level_index_and_filter(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        // The first two levels are written again and again, and hold all of a store that is not large.
        let mut compression = [DBCompressionType::Lz4; 7];
        compression[..2].fill(DBCompressionType::None);
        options.set_compression_per_level(&compression);
        options.set_write_buffer_manager(&self.memtables);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_arena_block_size(ARENA_BYTES);
        // Their filters are at hand, and each time they are merged costs as much as all of the level below.
        options.set_level_zero_file_num_compaction_trigger(8);
        options.set_keep_log_file_num(2);
        options.create_if_missing(true);
        if let Some(env) = &self.env {
            options.set_env(env);
        }
        options
    }

    /// For a table that is taken in: it goes to the first levels.
    pub(super) fn table_options(&self) -> Options {
        let mut options = self.options();
        options.set_compression_per_level(&[]);
        options.set_compression_type(DBCompressionType::None);
        options
    }
}
