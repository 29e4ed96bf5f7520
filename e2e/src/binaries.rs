//! The workspace's programs: next to the one that runs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The path of a program of this workspace, such as `state-service`, in the folder of the running program: tests
/// run in `deps` below it.
///
/// # Errors
/// It has not been built: the message names the command.
pub fn binary(name: &str) -> Result<PathBuf> {
    let me = env::current_exe().context("the path of the running program")?;
    let folder = folder_of(&me).context("the running program is in no folder")?;
    let path = folder.join(name);
    if !path.is_file() {
        let release = if folder.ends_with("release") {
            " --release"
        } else {
            ""
        };
        bail!(
            "{} is missing: build it with `cargo build --workspace --bins{release}`",
            path.display()
        );
    }
    Ok(path)
}

fn folder_of(program: &Path) -> Option<&Path> {
    let folder = program.parent()?;
    if folder.ends_with("deps") {
        return folder.parent();
    }
    Some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_find_the_programs_one_folder_up() {
        for (program, folder) in [
            ("/w/target/debug/demo", "/w/target/debug"),
            ("/w/target/debug/deps/demo-0123", "/w/target/debug"),
            ("/usr/bin/demo", "/usr/bin"),
        ] {
            assert_eq!(folder_of(Path::new(program)), Some(Path::new(folder)));
        }
        let error = binary("no-such-program").unwrap_err().to_string();
        assert!(error.contains("cargo build --workspace --bins"), "{error}");
    }
}
