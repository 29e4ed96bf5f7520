//! Rows on their way into a store.

use rocksdb::WriteBatch;

/// Rows on their way into a store.
#[derive(Default)]
pub struct Batch(pub(super) WriteBatch);

impl Batch {
    /// Adds a row; `None` deletes it.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.0.put(key, value),
            None => self.0.delete(key),
        }
    }

    /// How many rows it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Does it hold none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.size_in_bytes()
    }
}
