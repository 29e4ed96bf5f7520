//! What all stores of a process share.

use std::path::PathBuf;

use rocksdb::{BlockBasedOptions, Cache, Env, Options};

use super::Error;

/// What all stores of a process share.
#[derive(Clone)]
pub struct Shared {
    cache: Cache,
    env: Option<Env>,
    /// Otherwise stores live in memory only: for tests without a disk.
    pub(super) on_disk: bool,
}

impl Shared {
    /// A block cache of `cache_bytes` for all stores.
    #[must_use]
    pub fn on_disk(cache_bytes: usize) -> Self {
        Self {
            cache: Cache::new_lru_cache(cache_bytes),
            env: None,
            on_disk: true,
        }
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
        Ok(Self {
            cache: Cache::new_lru_cache(1 << 20),
            env: Some(env),
            on_disk: false,
        })
    }

    pub(super) fn options(&self) -> Options {
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
        if let Some(env) = &self.env {
            options.set_env(env);
        }
        options
    }
}
