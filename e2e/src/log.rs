//! A program's log file: where it tells what it does.

use std::fs;
use std::path::{Path, PathBuf};

/// The log of a program, of all its runs.
#[derive(Clone, Debug)]
pub struct Log {
    path: PathBuf,
    /// Where the latest run begins, in bytes.
    latest: u64,
}

impl Log {
    /// The log in this file; what is in there already is of earlier runs.
    pub(crate) fn at(path: PathBuf) -> Self {
        let latest = fs::metadata(&path).map_or(0, |file| file.len());
        Self { path, latest }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the latest run has written so far.
    pub fn text(&self) -> String {
        let bytes = fs::read(&self.path).unwrap_or_default();
        let from = usize::try_from(self.latest).unwrap_or(usize::MAX);
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }

    /// The lines of the latest run that contain this text.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        let log = self.text();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// The value of a field (`field=value`) in the first whole line of the latest run that contains `sentence`.
    pub fn field(&self, sentence: &str, field: &str) -> Option<String> {
        field_of(&self.text(), sentence, field)
    }
}

fn field_of(log: &str, sentence: &str, field: &str) -> Option<String> {
    let whole = log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let line = whole.into_iter().find(|line| line.contains(sentence))?;
    let mut words = line.split_whitespace();
    words
        .find_map(|word| word.strip_prefix(field)?.strip_prefix('='))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_of_whole_lines_of_the_latest_run() {
        let line = "2026-01-01T00:00:00Z  INFO state_service: listening address=127.0.0.1:81\n";
        let half = line.trim_end_matches("1\n");
        assert_eq!(
            field_of(line, "listening", "address").as_deref(),
            Some("127.0.0.1:81")
        );
        assert_eq!(field_of(half, "listening", "address"), None);

        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "listening address=1\n").unwrap();
        let log = Log::at(file.path().to_owned());
        assert_eq!(log.field("listening", "address"), None);
        fs::write(file.path(), "listening address=1\nlistening address=2\n").unwrap();
        assert_eq!(log.field("listening", "address").as_deref(), Some("2"));
        assert_eq!(log.lines_with("listening").len(), 1);
    }
}
