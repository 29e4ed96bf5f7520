//! The values of a task's store as its processor sees them: decoded, cached, written back once per
//! commit.
//!
//! A read looks in the cache, then in the epoch that is being committed, then in the committed
//! store. Ten changes of one object in an epoch cost one row. The cache is bounded by bytes, which it
//! shares with those of other tasks; what was not used of late goes first, and never anything that is not
//! in an epoch yet.

use std::{hint::black_box, sync::Arc};

use smallvec::SmallVec;

use entries::Entries;
use gone::Gone;

use crate::{
    digest,
    epoch::{ROW_BYTES, Rows, TaskEpoch},
    keys::{head, in_common},
    memory::{Account, Pool},
    places::{Hash, Places, hash, short},
    processor::Value,
    store::{self, OBJECT, Store},
};

mod entries;
mod gone;

/// Keys that are looked at together.
pub const LOOK_AHEAD: usize = 32;
/// What an entry costs beside itself and its value: the slot in the table.
const ENTRY_BYTES: usize = 16;

/// The key of a row: nearly always too short for an allocation, which would be a wait for memory more.
type Key = SmallVec<[u8; 32]>;

/// One key of the store: its value, if it has one.
#[derive(Debug)]
pub struct Entry<V> {
    value: Option<V>,
    /// What the row adds to the digest, as of the last cut; `None` if there was no row.
    digest: Option<u64>,
    /// What it adds to `touched_bytes`; 0 if it was not asked for since the last cut.
    row_bytes: u32,
    /// Memory it takes, as of the last cut.
    bytes: u32,
    /// Key of the row, and the hash of what is behind its prefix.
    key: Key,
    hash: Hash,
    dirty: bool,
    /// Was it asked for since the last search for something to let go?
    used: bool,
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
    /// Places in `entries`, by key.
    places: Places,
    entries: Entries<Entry<V>>,
    /// Asked for since the last cut, with the order of their keys.
    touched: Vec<(u64, u32)>,
    bytes: usize,
    /// Rows of the values asked for since the last cut: about what the epoch will hold of them.
    touched_bytes: usize,
    /// Memory of the entries that came in since the last cut: they stay until the next. For so much of it, there was
    /// room.
    admitted_bytes: usize,
    room: usize,
    /// The one asked for last: it may have grown since.
    last: Option<u32>,
    account: Account,
    /// Where the search for something to let go stands.
    hand: u32,
    /// What has been let go since the last cut: only that can be in the epoch that is being committed, and not
    /// here.
    gone: Gone,
}

impl<V: Value> Objects<V> {
    pub(crate) fn new(store: Arc<Store>, pool: &Pool) -> Self {
        Self {
            store,
            staged: None,
            places: Places::default(),
            entries: Entries::new(),
            touched: Vec::new(),
            bytes: 0,
            touched_bytes: 0,
            admitted_bytes: 0,
            room: 0,
            last: None,
            account: pool.open(),
            hand: 0,
            gone: Gone::default(),
        }
    }

    /// The entry of `key`, with or without a value.
    ///
    /// # Errors
    /// When the store fails or holds bytes that are no value.
    pub fn entry(&mut self, key: &[u8]) -> Result<&mut Entry<V>, store::Error> {
        let hash = hash(key);
        let entries = &self.entries;
        let place = match self.places.find(hash, |at| &entries[at].key[1..] == key) {
            Some(place) => place,
            None => self.admit(hash, key)?,
        };
        if let Some(last) = self.last.replace(place) {
            self.count_row(last);
        }
        if self.entries[place].row_bytes == 0 {
            self.touched.push((0, place));
            self.count_row(place);
        }
        let entry = &mut self.entries[place];
        entry.used = true;
        Ok(entry)
    }

    /// Brings `touched_bytes` up to date with what an entry may have become.
    fn count_row(&mut self, place: u32) {
        let entry = &mut self.entries[place];
        let stored = entry.value.as_ref().map_or(0, Value::stored_bytes);
        let bytes = ROW_BYTES + entry.key.len() + stored;
        self.touched_bytes = self.touched_bytes - entry.row_bytes as usize + bytes;
        entry.row_bytes = short(bytes);
    }

    /// Looks at what is in the cache of these keys, so that whoever asks for them next need not wait for
    /// memory. What one entry is found by comes from several places, each known from the one before; step
    /// by step for many keys, the waiting is done for all of them at once.
    pub(crate) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let found = keys.filter_map(|key| self.places.glance(hash(key)));
        let places: SmallVec<[u32; LOOK_AHEAD]> = found.collect();
        glance(&self.entries, places.iter().copied());
    }

    /// Brings an entry in from the store.
    fn admit(&mut self, hash: Hash, key: &[u8]) -> Result<u32, store::Error> {
        let mut row = Key::from_slice(&[OBJECT]);
        row.extend_from_slice(key);
        let (value, digest) = self.load(hash, &row)?.unzip();
        let place = self.entries.len();
        let mut entry = Entry {
            value,
            digest,
            row_bytes: 0,
            bytes: 0,
            key: row,
            hash,
            dirty: false,
            used: true,
        };
        entry.bytes = entry.memory();
        self.bytes += entry.bytes as usize;
        self.admitted_bytes += entry.bytes as usize;
        self.entries.push(entry);
        self.places.insert(hash, place);
        Ok(place)
    }

    /// The value and its row's hash; `hash` is that of the key.
    fn load(&self, hash: Hash, row: &[u8]) -> Result<Option<(V, u64)>, store::Error> {
        let decode = |bytes: &[u8]| {
            let value = V::decode(bytes).map_err(|e| self.store.corrupt(row, e))?;
            Ok((value, digest::of_row(row, bytes)))
        };
        let staged = self.staged.as_ref().filter(|_| self.gone.may_have(hash));
        if let Some(staged) = staged.and_then(|epoch| epoch.row(row)) {
            return staged.map(decode).transpose();
        }
        let stored = self.store.object(hash, row)?;
        stored.as_deref().map(decode).transpose()
    }

    /// Adds the changed rows since the last cut to `rows`, sorted, and the change of the digest to
    /// `digest`.
    pub(crate) fn cut(&mut self, digest: &mut u64, rows: &mut Rows) {
        self.sort_touched();
        for touched in self.touched.chunks(LOOK_AHEAD) {
            glance(&self.entries, touched.iter().map(|(_, place)| *place));
            for (_, place) in touched {
                let entry = &mut self.entries[*place];
                entry.row_bytes = 0;
                if std::mem::take(&mut entry.dirty) {
                    entry.write(digest, rows);
                }
                let bytes = entry.memory();
                self.bytes = self.bytes - entry.bytes as usize + bytes as usize;
                entry.bytes = bytes;
            }
        }
        self.account.set_busy(!self.touched.is_empty());
        self.touched.clear();
        (self.touched_bytes, self.admitted_bytes) = (0, 0);
        self.last = None;
        self.account.set(self.bytes);
        self.gone.clear();
        self.shrink();
        self.account.set(self.bytes);
        self.room = self.account.room();
    }

    /// About how many bytes the values asked for since the last cut make: their rows, and themselves so far
    /// as they were not here before and the cache had no room for them.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.touched_bytes + self.admitted_bytes.saturating_sub(self.room)
    }

    /// Sorts by key. Eight bytes behind what all keys have in common decide nearly always, so the keys
    /// themselves, each in a place of its own, are hardly looked at.
    fn sort_touched(&mut self) {
        let entries = &self.entries;
        let keys = self.touched.iter().map(|(_, at)| &*entries[*at].key);
        let common = in_common(keys);
        for (order, at) in &mut self.touched {
            *order = head(&entries[*at].key[common..]);
        }
        self.touched.sort_unstable_by(|(a, x), (b, y)| {
            a.cmp(b).then_with(|| entries[*x].key.cmp(&entries[*y].key))
        });
    }

    /// Lets go of what was not used of late until the cache is within its bound (the CLOCK algorithm:
    /// F. J. Corbató, "A paging experiment with the Multics system", 1968). Right after a cut nothing
    /// is lost by it: every value is in the epoch or in the store.
    fn shrink(&mut self) {
        let most = self.account.most();
        while self.bytes > most && !self.entries.is_empty() {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            if std::mem::take(&mut entry.used) {
                self.hand += 1;
            } else {
                self.let_go(self.hand);
            }
        }
        if self.places.capacity() > 4 * self.places.len().max(LOOK_AHEAD) {
            self.places.shrink_to(2 * self.places.len());
        }
    }

    /// Removes an entry; the last one takes its place.
    fn let_go(&mut self, place: u32) {
        let last = self.entries.len() - 1;
        let hash = self.entries[place].hash;
        self.gone.add(hash);
        self.places.remove(hash, place);
        if place != last {
            self.places.moved(self.entries[last].hash, last, place);
        }
        let entry = self.entries.swap_remove(place);
        self.bytes -= entry.map_or(0, |entry| entry.bytes as usize);
    }

    /// `epoch` is being committed: its rows come before the store's.
    pub(crate) fn stage(&mut self, epoch: Option<Arc<TaskEpoch>>) {
        self.staged = epoch;
    }

    /// Forgets everything that is not committed.
    pub(crate) fn abandon(&mut self) {
        self.staged = None;
        self.places.clear();
        self.entries.clear();
        self.gone.clear();
        self.touched.clear();
        (self.touched_bytes, self.admitted_bytes) = (0, 0);
        self.last = None;
        self.bytes = 0;
        self.account.set(0);
        self.hand = 0;
    }
}

/// Brings these near, step by step for all of them.
fn glance<V: Value>(entries: &Entries<Entry<V>>, places: impl Iterator<Item = u32> + Clone) {
    for place in places.clone() {
        let entry = &entries[place];
        black_box((entry.used, entry.value.is_some()));
    }
    for place in places {
        let entry = &entries[place];
        black_box(entry.key.last().copied());
        black_box(entry.value.as_ref().map(Value::glance));
    }
}

impl<V: Value> Entry<V> {
    /// Adds the row, unless what came and went within the epoch was never there.
    fn write(&mut self, digest: &mut u64, rows: &mut Rows) {
        let now = match &self.value {
            Some(value) => {
                let row = rows.push_with(&self.key, |out| value.encode(out));
                Some(digest::of_row(&self.key, row))
            }
            None if self.digest.is_some() => {
                rows.push(&self.key, None);
                None
            }
            None => return,
        };
        *digest = digest
            .wrapping_sub(self.digest.unwrap_or(0))
            .wrapping_add(now.unwrap_or(0));
        self.digest = now;
    }

    fn memory(&self) -> u32 {
        let value = self.value.as_ref().map_or(0, Value::heap_bytes);
        let key = if self.key.spilled() {
            self.key.len()
        } else {
            0
        };
        short(size_of::<Self>() + ENTRY_BYTES + key + value)
    }
}

#[cfg(test)]
mod tests;
