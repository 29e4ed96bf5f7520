//! The stores of one instance, side by side in its folder, and what is done with one that cannot be
//! trusted: it is set aside, and a fresh one takes its place.

use std::{
    fs, io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::{self, ScopedJoinHandle},
};

use super::{BROKEN, Error, Shared, Store, Trouble, too_old};

/// Where stores go that are not trusted.
const ASIDE: &str = "aside";
/// How many of them are kept, for whoever wants to know what happened.
const KEPT_ASIDE: usize = 2;
/// Held while a store is set aside: whoever makes room for it counts the others.
static SETTING_ASIDE: Mutex<()> = Mutex::new(());
/// So many stores are opened at once.
const OPENED_AT_ONCE: usize = 4;

/// Why a store is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its files are damaged.
    Broken,
    /// It was out of use for longer than the changelog keeps deletions.
    TooOld,
    /// Its position is beyond the end of the changelog.
    BeyondEnd,
    /// Its position is before the start of the changelog: rows in between were deleted.
    BeforeStart,
    /// The application was reset since.
    OtherGeneration,
    /// Its rows are not those of its active.
    Different,
    /// Its last rows were never committed.
    Uncommitted,
}

impl Reason {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::TooOld => "too_old",
            Self::BeyondEnd => "beyond_end",
            Self::BeforeStart => "before_start",
            Self::OtherGeneration => "other_generation",
            Self::Different => "different",
            Self::Uncommitted => "uncommitted",
        }
    }
}

/// The folder of an instance's stores. One process at a time may use it: see [`crate::identity`].
#[derive(Clone)]
pub struct Folder {
    path: PathBuf,
    shared: Shared,
    application_id: String,
    /// The generation of the application, once it is known.
    pub(crate) generation: Option<String>,
}

impl Folder {
    /// The stores of `application_id` in `path`.
    #[must_use]
    pub fn new(shared: Shared, path: PathBuf, application_id: String) -> Self {
        Self {
            path,
            shared,
            application_id,
            generation: None,
        }
    }

    /// The partitions that have a store here, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn partitions(&self) -> Result<Vec<u32>, Error> {
        let mut found: Vec<u32> = names(&self.path)
            .map_err(|e| Error::io(&self.path, "cannot read the folder", e))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Opens or creates the store of a partition. One that is broken, or too old at `now_ms` (in ms
    /// since 1970), is set aside, and an empty one takes its place.
    ///
    /// # Errors
    /// Everything but damage: see [`Error::trouble`].
    pub fn open(&self, partition: u32, now_ms: i64) -> Result<Store, Error> {
        if let Some(what) = self.known_damage(partition)? {
            self.set_aside(partition, Reason::Broken, &what)?;
        }
        let store = match self.open_as_it_is(partition) {
            Err(error) if error.trouble() == Trouble::Broken => {
                self.set_aside(partition, Reason::Broken, &error.to_string())?;
                self.open_as_it_is(partition)?
            }
            opened => opened?,
        };
        let store = if !store.is_empty()? && too_old(store.complete_ms(), now_ms) {
            drop(store);
            let why = "it was not complete for too long: it may lack deletions";
            self.set_aside(partition, Reason::TooOld, why)?;
            self.open_as_it_is(partition)?
        } else {
            store
        };
        let store = self.of_this_generation(partition, store)?;
        if store.is_empty()? {
            // Whoever reads the changelog from its beginning hears of every deletion.
            store.complete_at(now_ms);
            store.flush()?;
        }
        Ok(store)
    }

    /// [`Self::open`] for several partitions, in their order. They are opened beside each other: most of the time that takes
    /// is waiting for the disk.
    #[must_use]
    pub fn open_all(&self, partitions: &[u32], now_ms: i64) -> Vec<Result<Store, Error>> {
        let each = partitions.len().div_ceil(OPENED_AT_ONCE).max(1);
        let open = |some: &[u32]| -> Vec<_> {
            let stores = some.iter().map(|partition| self.open(*partition, now_ms));
            stores.collect()
        };
        thread::scope(|scope| {
            let threads: Vec<_> = partitions
                .chunks(each)
                .map(|some| scope.spawn(move || open(some)))
                .collect();
            let opened = threads.into_iter().map(ScopedJoinHandle::join);
            let opened = opened.map(|stores| stores.unwrap_or_else(|panic| resume_unwind(panic)));
            opened.flatten().collect()
        })
    }

    /// The store, if it is of the folder's generation or none is known; otherwise an empty one in its place.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn of_this_generation(&self, partition: u32, store: Store) -> Result<Store, Error> {
        let Some(generation) = &self.generation else {
            return Ok(store);
        };
        let found = store.generation()?;
        if found.as_ref() == Some(generation) {
            return Ok(store);
        }
        let store = if found.is_some() && !store.is_empty()? {
            drop(store);
            let why = "the application was reset since it was written";
            self.set_aside(partition, Reason::OtherGeneration, why)?;
            self.open_as_it_is(partition)?
        } else {
            store
        };
        store.set_generation(generation)?;
        Ok(store)
    }

    fn open_as_it_is(&self, partition: u32) -> Result<Store, Error> {
        Store::open(&self.shared, &self.path, &self.application_id, partition)
    }

    /// Damage that RocksDB would not find, or not at once.
    pub(crate) fn known_damage(&self, partition: u32) -> Result<Option<String>, Error> {
        let path = self.path.join(partition.to_string());
        let failed = |e| Error::io(&path, "cannot read the directory", e);
        if !self.shared.on_disk {
            return Ok(None);
        }
        let files = names(&path).map_err(failed)?;
        if files.iter().any(|name| name == BROKEN) {
            let text = fs::read(path.join(BROKEN)).map_err(failed)?;
            return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
        }
        // RocksDB would take it for an empty directory, and delete the rows.
        let has_rows = files.iter().any(|name| name.ends_with(".sst"));
        let is_database = files.iter().any(|name| name == "CURRENT");
        Ok((has_rows && !is_database).then(|| "the file CURRENT is missing".to_owned()))
    }

    /// Moves the directory of a partition's store out of the way, and says so. The store must be
    /// closed. Of all that were set aside, the last few are kept.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&self, partition: u32, reason: Reason, why: &str) -> Result<(), Error> {
        let from = self.path.join(partition.to_string());
        let failed = |what| {
            let from = from.clone();
            move |e| Error::io(&from, what, e)
        };
        let aside = self.path.join(ASIDE);
        let _alone = SETTING_ASIDE.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(&aside).map_err(failed("cannot create the folder for broken stores"))?;
        let number = make_room(&aside).map_err(failed("cannot remove an older broken store"))?;
        let to = aside.join(format!("{partition}-{number}"));
        fs::rename(&from, &to).map_err(failed("cannot move it aside"))?;
        metrics::counter!("stores_set_aside_total", "reason" => reason.name()).increment(1);
        tracing::warn!(
            partition,
            reason = reason.name(),
            why,
            to = %to.display(),
            "the store is set aside; its partition is restored from the changelog"
        );
        Ok(())
    }
}

/// Removes the oldest, so that one more may come, and returns its number: they count up.
fn make_room(aside: &Path) -> io::Result<u64> {
    let mut numbered: Vec<(u64, String)> = names(aside)?
        .into_iter()
        .filter_map(|name| Some((name.rsplit_once('-')?.1.parse().ok()?, name)))
        .collect();
    numbered.sort_unstable();
    let next = numbered.last().map_or(1, |(number, _)| number + 1);
    let too_many = (numbered.len() + 1).saturating_sub(KEPT_ASIDE);
    for (_, name) in &numbered[..too_many] {
        fs::remove_dir_all(aside.join(name))?;
    }
    Ok(next)
}

/// The names in a directory; none if there is no such directory.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
