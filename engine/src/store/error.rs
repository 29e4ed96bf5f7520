//! What is wrong with a store, and what follows from it.

use std::{
    io,
    path::{Path, PathBuf},
};

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
    /// The file system said so.
    #[error("store {path}: {what}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's own words.
        source: io::Error,
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
    /// The store is open already.
    #[error("store {path} is in use by {}: a store has one process at a time; stop that one, or choose another --state-dir", if *here { "this process" } else { "another process" })]
    Locked {
        /// The directory.
        path: PathBuf,
        /// By this very process: it is being closed, or a query still reads it.
        here: bool,
    },
    /// What the store says of itself makes no sense.
    #[error("store {path}: {what}")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A row that cannot be read, though the files are as they were written.
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

/// What an [`Error`] means for whoever handles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The files are damaged. The next opening sets the directory aside, and the changelog has it all.
    Broken,
    /// The disk is full. Whatever is committed is in the changelog.
    NoSpace,
    /// An operator must act: in use, of something else, not permitted.
    Refused,
    /// Anything else: to try again may help, or not.
    Other,
}

impl Error {
    /// What it means.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::RocksDb { source, .. } => of_rocksdb(source.as_ref()),
            Self::Io { source, .. } => of_io(source),
            Self::Foreign { .. } | Self::Locked { .. } => Trouble::Refused,
            Self::Damaged { .. } => Trouble::Broken,
            // Its bytes came from the changelog: restoring would bring the same again.
            Self::Corrupt { .. } => Trouble::Other,
        }
    }

    /// Must the instance stop and leave its tasks to others? A full disk or a directory that is
    /// refused does not mend by opening the store once more; damaged files do.
    #[must_use]
    pub fn ends_the_instance(&self) -> bool {
        matches!(self.trouble(), Trouble::NoSpace | Trouble::Refused)
    }

    /// Is the store still open in this process? Then it can be opened a moment later.
    #[must_use]
    pub fn is_still_open_here(&self) -> bool {
        matches!(self, Self::Locked { here: true, .. })
    }

    /// An error of RocksDB while the store at `path` was being opened.
    pub(super) fn opening(path: &Path, source: rocksdb::Error) -> Self {
        let path = path.to_owned();
        match locked(source.as_ref()) {
            Some(here) => Self::Locked { path, here },
            None => Self::RocksDb { path, source },
        }
    }

    pub(super) fn io(path: &Path, what: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            what,
            source,
        }
    }
}

/// RocksDB hands out nothing but text: its status, then what it tried, then the system's words. The
/// status may be "Corruption" for a file that could not be opened for any reason, so the system's
/// words come first.
fn of_rocksdb(text: &str) -> Trouble {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&[
        "No space left on device",
        "Disk quota exceeded",
        "Space limit reached",
        "File too large",
    ]) {
        return Trouble::NoSpace;
    }
    if locked(text).is_some() || says(&["Permission denied", "Read-only file system"]) {
        return Trouble::Refused;
    }
    if says(&["Too many open files", "Cannot allocate memory"]) {
        return Trouble::Other;
    }
    if text.starts_with("Corruption") {
        return Trouble::Broken;
    }
    if text.starts_with("IO error")
        && says(&[
            "No such file or directory",
            "Input/output error",
            "Structure needs cleaning",
        ])
    {
        return Trouble::Broken;
    }
    // Written by another version, or with other settings: not ours to move away.
    if text.starts_with("Invalid argument") || text.starts_with("Not implemented") {
        return Trouble::Refused;
    }
    Trouble::Other
}

/// Is it the lock of the directory? Then: is it this process that holds it?
fn locked(text: &str) -> Option<bool> {
    if text.starts_with("IO error: lock hold by current process") {
        return Some(true);
    }
    text.starts_with("IO error: While lock file")
        .then_some(false)
}

fn of_io(error: &io::Error) -> Trouble {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Trouble::NoSpace,
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::NotADirectory => Trouble::Refused,
        _ => Trouble::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rocksdb_in_its_own_words() {
        // As RocksDB 11.8 said them when files were damaged, missing, locked, or the disk was full.
        let cases = [
            (
                "Corruption: Sst file size mismatch between expected 1479 and file system 739 sstable: /s/0/000008.sst  The file /s/0/MANIFEST-000005 may be corrupted.",
                Trouble::Broken,
            ),
            (
                "Corruption: block checksum mismatch: stored(context removed) = 1, computed = 2, type = 4  in /s/0/000008.sst offset 0 size 68, block_type = Data",
                Trouble::Broken,
            ),
            (
                "Corruption: Corruption: IO error: No such file or directory: While open a file for random read: /s/0/000008.sst: No such file or directory  The file /s/0/MANIFEST-000005 may be corrupted.",
                Trouble::Broken,
            ),
            (
                "IO error: No such file or directory: While opening a file for sequentially reading: /s/0/MANIFEST-000005: No such file or directory",
                Trouble::Broken,
            ),
            (
                "Corruption: CURRENT file does not end with newline",
                Trouble::Broken,
            ),
            (
                "IO error: While pread offset 0 len 4096: /s/0/000008.sst: Input/output error",
                Trouble::Broken,
            ),
            (
                "IO error: No space left on device: While appending to file: /s/0/000009.sst: No space left on device",
                Trouble::NoSpace,
            ),
            (
                "IO error: While lock file: /s/0/LOCK: Resource temporarily unavailable",
                Trouble::Refused,
            ),
            (
                "IO error: lock hold by current process, acquire time 1 acquiring thread 2: /s/0/LOCK: No locks available",
                Trouble::Refused,
            ),
            (
                "Corruption: Corruption: IO error: While open a file for random read: /s/0/000008.sst: Too many open files",
                Trouble::Other,
            ),
            (
                "Invalid argument: Column families not opened: other",
                Trouble::Refused,
            ),
            ("Busy: ", Trouble::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(of_rocksdb(text), expected, "{text}");
        }
    }

    #[test]
    fn the_system_in_its_own_words() {
        // Numbers of Linux: ENOSPC, EDQUOT, EACCES, EROFS, EINTR.
        let cases = [
            (28, Trouble::NoSpace),
            (122, Trouble::NoSpace),
            (13, Trouble::Refused),
            (30, Trouble::Refused),
            (4, Trouble::Other),
        ];
        for (number, expected) in cases {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(of_io(&error), expected, "{error}");
        }
    }
}
