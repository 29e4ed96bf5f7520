//! The values of a task's store as its processor sees them: decoded, cached, written back once per
//! commit.
//!
//! A read looks in the cache, then in the epoch that is being committed, then in the committed
//! store. Ten changes of one object in an epoch cost one row.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::{
    digest,
    epoch::{Row, TaskEpoch},
    processor::Value,
    store::{self, OBJECT, Store, row_key},
};

/// Entries kept across a commit; beyond that the cache starts afresh.
const CACHED: usize = 100_000;

/// One key of the store: its value, if it has one.
#[derive(Debug)]
pub struct Entry<V> {
    value: Option<V>,
    /// What the row adds to the digest, as of the last cut; `None` if there was no row.
    hash: Option<u64>,
    dirty: bool,
    listed: bool,
}

impl<V> Entry<V> {
    /// The value.
    #[must_use]
    pub fn get(&self) -> Option<&V> {
        self.value.as_ref()
    }

    /// The value, to be changed: it will be written at the commit.
    pub fn get_mut(&mut self) -> Option<&mut V> {
        self.dirty |= self.value.is_some();
        self.value.as_mut()
    }

    /// The value, to be changed, made by `make` if there is none.
    pub fn get_mut_or(&mut self, make: impl FnOnce() -> V) -> &mut V {
        self.dirty = true;
        self.value.get_or_insert_with(make)
    }

    /// Removes the value and returns it.
    pub fn remove(&mut self) -> Option<V> {
        self.dirty |= self.value.is_some();
        self.value.take()
    }
}

/// The values of a task's store.
#[derive(Debug)]
pub struct Objects<V> {
    store: Arc<Store>,
    staged: Option<Arc<TaskEpoch>>,
    cache: IndexMap<Vec<u8>, Entry<V>>,
    touched: Vec<usize>,
}

impl<V: Value> Objects<V> {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            staged: None,
            cache: IndexMap::new(),
            touched: Vec::new(),
        }
    }

    /// The entry of `key`, with or without a value.
    ///
    /// # Errors
    /// When the store fails or holds bytes that are no value.
    pub fn entry(&mut self, key: &[u8]) -> Result<&mut Entry<V>, store::Error> {
        let index = match self.cache.get_index_of(key) {
            Some(index) => index,
            None => {
                let (value, hash) = self.load(key)?.unzip();
                let entry = Entry {
                    value,
                    hash,
                    dirty: false,
                    listed: false,
                };
                self.cache.insert_full(key.to_vec(), entry).0
            }
        };
        let entry = &mut self.cache[index];
        if !entry.listed {
            entry.listed = true;
            self.touched.push(index);
        }
        Ok(entry)
    }

    /// The value and its row's hash.
    fn load(&self, key: &[u8]) -> Result<Option<(V, u64)>, store::Error> {
        let row = row_key(OBJECT, key);
        let decode = |bytes: &[u8]| {
            let value = V::decode(bytes).map_err(|e| self.store.corrupt(&row, e))?;
            Ok((value, digest::of_row(&row, bytes)))
        };
        if let Some(staged) = self.staged.as_ref().and_then(|epoch| epoch.row(&row)) {
            return staged.map(decode).transpose();
        }
        self.store.get(&row)?.as_deref().map(decode).transpose()
    }

    /// The changed rows since the last cut; adds the change of the digest to `digest`.
    pub(crate) fn cut(&mut self, digest: &mut u64) -> Vec<Row> {
        let mut rows = Vec::new();
        for index in self.touched.drain(..) {
            let Some((key, entry)) = self.cache.get_index_mut(index) else {
                continue;
            };
            entry.listed = false;
            if !std::mem::take(&mut entry.dirty) {
                continue;
            }
            let key = row_key(OBJECT, key);
            let value = entry.value.as_ref().map(|value| {
                let mut bytes = Vec::new();
                value.encode(&mut bytes);
                bytes
            });
            let hash = value.as_ref().map(|value| digest::of_row(&key, value));
            // What came and went within the epoch was never there.
            if hash.is_some() || entry.hash.is_some() {
                *digest = digest
                    .wrapping_sub(entry.hash.unwrap_or(0))
                    .wrapping_add(hash.unwrap_or(0));
                rows.push((key, value));
            }
            entry.hash = hash;
        }
        if self.cache.len() > CACHED {
            self.cache.clear();
        }
        rows
    }

    /// `epoch` is being committed: its rows come before the store's.
    pub(crate) fn stage(&mut self, epoch: Option<Arc<TaskEpoch>>) {
        self.staged = epoch;
    }

    /// Forgets everything that is not committed.
    pub(crate) fn abandon(&mut self) {
        self.staged = None;
        self.cache.clear();
        self.touched.clear();
    }
}
