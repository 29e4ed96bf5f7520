//! Pinned downloads in one folder outside the project.
//!
//! A file is in the cache under its final name only after its checksum has been verified, so its presence is
//! enough the next time. Processes that want the same file at the same time wait for one of them to fetch it.

mod download;
mod progress;

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use reqwest::Client;

use self::progress::Progress;

/// How many files are fetched at once.
const PARALLEL: usize = 4;

/// A file to have in the cache: where it comes from and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Where to fetch it.
    pub source: Source,
    /// Its place below the cache folder.
    pub file: PathBuf,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Its size in bytes, for the progress bar.
    pub size: u64,
}

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path below the Maven repository: `MAVEN_REPOSITORY`, or Maven Central.
    Maven(String),
    /// A file of a project in the Python package index: `PYPI_INDEX` (a "simple" index), or pypi.org.
    PyPi {
        /// The project's normalised name.
        project: String,
        /// The file's name.
        file: String,
    },
    /// A URL.
    Url(String),
}

/// The folder that downloads are kept in, and the client that fetches them.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    client: Client,
}

impl Cache {
    /// Opens the user's cache: `$SHARED_STATE_CACHE`, or `$XDG_CACHE_HOME/shared-state/downloads`, or
    /// `~/.cache/shared-state/downloads`.
    ///
    /// # Errors
    /// None of the three variables is set, or the folder cannot be made.
    pub fn open() -> Result<Self> {
        let set = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let below = "shared-state/downloads";
        let dir = set("SHARED_STATE_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join(below)))
            .or_else(|| set("HOME").map(|dir| dir.join(".cache").join(below)))
            .context(
                "no folder for downloads: set SHARED_STATE_CACHE to one (HOME is not set either)",
            )?;
        Self::at(dir)
    }

    /// Opens a cache in this folder, and makes the folder if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made, or TLS cannot be initialised.
    pub fn at(dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).with_context(|| {
            format!(
                "cannot make the cache folder {}: set SHARED_STATE_CACHE to another one",
                dir.display()
            )
        })?;
        let client = Client::builder()
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_mins(1))
            .user_agent("shared-state-devkit")
            .build()
            .context("cannot set up an HTTPS client")?;
        Ok(Self { dir, client })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes sure that these files are in the cache and returns their paths in the same order. `what` names
    /// them to a person who watches ("Apache Kafka 4.3.1").
    ///
    /// # Errors
    /// A file could not be fetched after several attempts, or is not what its checksum says. The message names
    /// the URL, the place in the cache, and what can be done.
    pub async fn fetch(&self, what: &str, files: &[Download]) -> Result<Vec<PathBuf>> {
        let missing: Vec<_> = files
            .iter()
            .filter(|file| !self.dir.join(&file.file).exists())
            .cloned()
            .collect();
        if !missing.is_empty() {
            let progress =
                Progress::start(what, missing.iter().map(|file| file.size).sum(), &self.dir);
            self.fetch_missing(what, missing, &progress).await?;
            progress.finish();
        }
        Ok(files.iter().map(|file| self.dir.join(&file.file)).collect())
    }

    async fn fetch_missing(
        &self,
        what: &str,
        missing: Vec<Download>,
        progress: &Progress,
    ) -> Result<()> {
        let mut running = tokio::task::JoinSet::new();
        let mut waiting = missing.into_iter();
        loop {
            while running.len() < PARALLEL {
                let Some(file) = waiting.next() else { break };
                let (cache, progress, what) = (self.clone(), progress.clone(), what.to_owned());
                running.spawn(async move { cache.fetch_one(&what, &file, &progress).await });
            }
            match running.join_next().await {
                Some(done) => done.context("a download was cancelled")??,
                None => return Ok(()),
            }
        }
    }

    async fn fetch_one(&self, what: &str, file: &Download, progress: &Progress) -> Result<()> {
        let target = self.dir.join(&file.file);
        let _lock = self.lock(&file.file, what).await?;
        if target.exists() {
            // Another process fetched it while this one waited for the lock.
            progress.advance(file.size);
            return Ok(());
        }
        download::fetch(&self.client, file, &target, progress).await
    }

    /// Makes sure that the folder `name` below the cache has been made by `make`, which is given an empty
    /// folder to fill. It runs once: what it made is kept, all of it or nothing.
    ///
    /// # Errors
    /// `make` failed, or the folder cannot be written.
    pub async fn folder<F>(&self, name: &str, make: F) -> Result<PathBuf>
    where
        F: FnOnce(&Path) -> Result<()> + Send + 'static,
    {
        let target = self.dir.join(name);
        if target.exists() {
            return Ok(target);
        }
        let _lock = self.lock(Path::new(name), name).await?;
        if target.exists() {
            return Ok(target);
        }
        let (cache, made) = (self.dir.clone(), target.clone());
        tokio::task::spawn_blocking(move || {
            let temporary = tempfile::Builder::new()
                .prefix(".unpack-")
                .tempdir_in(&cache)?;
            let full = temporary.path().join("full");
            fs::create_dir(&full)?;
            make(&full)?;
            fs::rename(&full, &made)?;
            anyhow::Ok(target)
        })
        .await?
        .with_context(|| format!("cannot unpack {name} into {}", self.dir.display()))
    }

    /// Waits until no other process (or task) makes this entry. The lock is free again when the file is dropped.
    async fn lock(&self, entry: &Path, what: &str) -> Result<File> {
        let path = self.dir.join(format!("{}.lock", entry.display()));
        let what = what.to_owned();
        tokio::task::spawn_blocking(move || {
            let context = || anyhow!("cannot lock {}", path.display());
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(context)?;
            }
            let file = File::create(&path).with_context(context)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    eprintln!("{what}: another process is fetching it; waiting");
                    file.lock().with_context(context)?;
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(context),
            }
            Ok(file)
        })
        .await?
    }
}

#[cfg(test)]
mod tests;
