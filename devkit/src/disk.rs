//! A disk that becomes slow or full when told to, for one program and one folder, without root.
//!
//! A small library (`disk/shim.c`) is compiled with the machine's C compiler and loaded into the program by
//! `LD_PRELOAD`. It stands before the system's calls that write, and looks into a file that both sides have open. Linux
//! only, and only for programs that link the C library dynamically.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const SHIM: &str = include_str!("disk/shim.c");
/// Mode, delay in microseconds, calls that were hit.
const CONTROL: usize = 16;

/// The disk under a folder, as one program sees it.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    library: PathBuf,
    control: PathBuf,
    file: File,
}

impl Disk {
    /// The disk under `folder`, which is made if it is missing. What is needed to break it is put next to it.
    ///
    /// # Errors
    /// There is no C compiler, or no file can be written.
    pub fn under(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let library = folder.with_added_extension("disk.so");
        let source = folder.with_added_extension("disk.c");
        let control = folder.with_added_extension("disk");
        fs::write(&source, SHIM).with_context(|| format!("cannot write {}", source.display()))?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .context("cannot run the C compiler, cc")?;
        let said = String::from_utf8_lossy(&compiled.stderr);
        ensure!(
            compiled.status.success(),
            "cannot compile {}: {said}",
            source.display()
        );
        fs::write(&control, [0; CONTROL])?;
        let file = OpenOptions::new().read(true).write(true).open(&control)?;
        Ok(Self {
            folder: folder.to_owned(),
            library,
            control,
            file,
        })
    }

    /// What a program must have in its environment to see this disk.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.display().to_string();
        vec![
            ("LD_PRELOAD".to_owned(), path(&self.library)),
            ("DISK_FOLDER".to_owned(), path(&self.folder)),
            ("DISK_CONTROL".to_owned(), path(&self.control)),
        ]
    }

    /// Every call that writes takes so much longer.
    ///
    /// # Errors
    /// The program cannot be told.
    pub fn slow(&self, delay: Duration) -> Result<()> {
        self.tell(1, u32::try_from(delay.as_micros()).unwrap_or(u32::MAX))
    }

    /// Every call that needs space fails: no space left on device.
    ///
    /// # Errors
    /// The program cannot be told.
    pub fn full(&self) -> Result<()> {
        self.tell(2, 0)
    }

    /// The disk is as any other.
    ///
    /// # Errors
    /// The program cannot be told.
    pub fn heal(&self) -> Result<()> {
        self.tell(0, 0)
    }

    /// How many calls have been slow or refused so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hits(&self) -> Result<u64> {
        let mut count = [0; 8];
        self.file.read_exact_at(&mut count, 8)?;
        Ok(u64::from_ne_bytes(count))
    }

    fn tell(&self, mode: u32, delay_us: u32) -> Result<()> {
        // The delay first: the mode is what puts it in force.
        self.file.write_all_at(&delay_us.to_ne_bytes(), 4)?;
        self.file.write_all_at(&mode.to_ne_bytes(), 0)?;
        Ok(())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Runs a shell script with this disk; did it succeed, and what did it say?
    fn run(disk: &Disk, script: &str) -> (bool, String) {
        let output = Command::new("sh")
            .args(["-c", script])
            .envs(disk.environment())
            .current_dir(disk.folder.parent().unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    #[test]
    fn is_full_and_slow_below_its_folder_only() {
        let home = tempfile::tempdir().unwrap();
        let disk = Disk::under(&home.path().join("state")).unwrap();
        assert!(run(&disk, "echo 1 > state/file").0);
        assert_eq!(disk.hits().unwrap(), 0);

        disk.full().unwrap();
        let (written, said) = run(&disk, "echo 2 | cat > state/file");
        assert!(!written && said.contains("No space left"), "{said}");
        assert_eq!(disk.hits().unwrap(), 1);
        assert!(
            run(&disk, "echo 2 > elsewhere && rm state/file").0,
            "needs no space here"
        );

        disk.slow(Duration::from_millis(300)).unwrap();
        let started = Instant::now();
        assert!(run(&disk, "echo 3 > state/file").0);
        assert!(started.elapsed() >= Duration::from_millis(300));
        assert_eq!(disk.hits().unwrap(), 2);

        disk.heal().unwrap();
        assert!(run(&disk, "echo 4 > state/file").0);
        assert_eq!(disk.hits().unwrap(), 2);
    }
}
