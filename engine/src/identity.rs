//! Who an instance is across restarts, and the folder that is its own.
//!
//! `<state-dir>/<application>/<slot>/` holds a lock, the instance's id and its stores. A named
//! instance has the slot of its name; others take the first slot that nobody has locked, so that
//! several may share a state directory, and a restart finds its id and its stores again.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

const STORES: &str = "stores";

/// A claimed folder. Dropping it gives it up.
#[derive(Debug)]
pub struct Identity {
    /// The instance's id.
    pub instance_id: String,
    /// Its stores' folder.
    pub stores: PathBuf,
    _lock: File,
}

/// The folder of an instance on this machine.
#[derive(Debug)]
pub struct Slot {
    /// The folder.
    pub folder: PathBuf,
    /// Has an instance locked it?
    pub in_use: bool,
}

impl Slot {
    /// Removes its stores. The instance keeps its name.
    ///
    /// # Errors
    /// When an instance has started meanwhile, or files cannot be removed.
    pub fn remove_stores(&self) -> anyhow::Result<()> {
        let folder = self.folder.display();
        let Some(_lock) = try_lock(&self.folder)? else {
            bail!("{folder} is in use: stop the instance first");
        };
        match fs::remove_dir_all(self.folder.join(STORES)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove the stores in {folder}"))
            }
            _ => Ok(()),
        }
    }
}

/// The folders of all instances of `application_id` under `state_dir`.
///
/// # Errors
/// When the directory cannot be read.
pub fn slots(state_dir: &Path, application_id: &str) -> anyhow::Result<Vec<Slot>> {
    let application = state_dir.join(application_id);
    let entries = match fs::read_dir(&application) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", application.display()));
        }
    };
    let mut slots = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        if folder.is_dir() {
            let in_use = try_lock(&folder)?.is_none();
            slots.push(Slot { folder, in_use });
        }
    }
    Ok(slots)
}

/// Claims a folder for an instance of `application_id`, named or not.
///
/// # Errors
/// When the directory cannot be written, or the named instance runs already.
pub fn claim(
    state_dir: &Path,
    application_id: &str,
    instance_id: Option<&str>,
) -> anyhow::Result<Identity> {
    let application = state_dir.join(application_id);
    if let Some(id) = instance_id {
        let slot = application.join(id);
        let Some(lock) = try_lock(&slot)? else {
            bail!(
                "instance {id} runs already: {} is locked; choose another --instance-id or --state-dir",
                slot.display()
            );
        };
        return identity(&slot, lock, Some(id));
    }
    for number in 0.. {
        let slot = application.join(format!("slot-{number}"));
        if let Some(lock) = try_lock(&slot)? {
            return identity(&slot, lock, None);
        }
    }
    unreachable!("the loop ends at the first free slot")
}

fn try_lock(slot: &Path) -> anyhow::Result<Option<File>> {
    fs::create_dir_all(slot)
        .with_context(|| format!("cannot create {}: choose a --state-dir", slot.display()))?;
    let path = slot.join("lock");
    let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn identity(slot: &Path, lock: File, name: Option<&str>) -> anyhow::Result<Identity> {
    let path = slot.join("instance-id");
    let instance_id = match (name, fs::read_to_string(&path)) {
        (Some(name), _) => name.to_owned(),
        (None, Ok(kept)) if !kept.trim().is_empty() => kept.trim().to_owned(),
        (None, _) => {
            // Short enough to be read in a log, long enough to be unique in a cluster.
            let id = uuid::Uuid::new_v4().simple().to_string();
            format!("i-{}", &id[..10])
        }
    };
    fs::write(&path, &instance_id).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Identity {
        instance_id,
        stores: slot.join(STORES),
        _lock: lock,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_id_and_shares_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path(), "app", None).unwrap();
        let second = claim(dir.path(), "app", None).unwrap();
        assert_ne!(first.instance_id, second.instance_id);
        let id = first.instance_id.clone();
        drop(first);
        assert_eq!(claim(dir.path(), "app", None).unwrap().instance_id, id);
    }

    #[test]
    fn refuses_a_name_that_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path(), "app", Some("one")).unwrap();
        assert_eq!(first.instance_id, "one");
        let error = claim(dir.path(), "app", Some("one")).unwrap_err();
        assert!(error.to_string().contains("runs already"), "{error}");
    }
}
