//! A configuration that is not usable: all mistakes at once, exit code 2, nothing started.

use std::process::Command;

use anyhow::{Result, ensure};
use e2e::binary;

#[test]
fn every_mistake_is_told_before_anything_starts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("service.toml");
    std::fs::write(&file, "quorum = \"many\"\nquorumm = 3\n")?;
    let output = Command::new(binary("state-service")?)
        .current_dir(&folder)
        .env("COMMIT_INTERVAL", "soon")
        .arg("--config")
        .arg(&file)
        .args(["--listen", "nowhere", "--kafka", "group.id=mine"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2),
        "{:?}\n{said}",
        output.status
    );
    for expected in [
        "quorum:",
        "quorumm",
        "COMMIT_INTERVAL",
        "--listen",
        "--kafka",
    ] {
        ensure!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    ensure!(!said.contains("listening"), "{said}");
    let started = std::fs::read_dir(&folder)?.count();
    ensure!(
        started == 1,
        "nothing but the configuration is in the folder"
    );
    Ok(())
}
