//! Where settings come from, who wins, and that every mistake is told.

use std::{io::Write as _, path::PathBuf};

use super::*;
use crate::kafka;

/// A service's settings, as the real ones are made.
#[derive(Debug, Parser)]
struct Sample {
    #[arg(long, env = "COMMON_TEST_CONFIG")]
    config: Option<PathBuf>,
    #[arg(long, env = "COMMON_TEST_QUORUM", default_value_t = 2)]
    quorum: u32,
    #[arg(long, default_value_t = 10)]
    limit: u32,
    #[arg(long)]
    name: Vec<String>,
    #[command(flatten)]
    kafka: kafka::Args,
}

impl Validate for Sample {
    fn validate(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.quorum == 0 {
            mistakes.push("quorum: must be at least 1".into());
        }
        if self.limit == 0 {
            mistakes.push("limit: must be at least 1".into());
        }
        mistakes
    }
}

fn parsed(args: &[&str]) -> Result<Sample, Vec<String>> {
    let all = ["sample"].iter().chain(args).map(|a| a.into()).collect();
    try_parse(all).map_err(|e| match e {
        Error::Invalid(mistakes) => mistakes,
        Error::Clap(error) => vec![error.to_string()],
    })
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = file("quorum = 5\nname = ['a', 'b']\nkafka.security.protocol = 'SSL'\n");
    let path = file.path().to_str().unwrap();
    let sample = parsed(&["--config", path]).unwrap();
    assert_eq!((sample.quorum, sample.limit), (5, 10));
    assert_eq!(sample.name, ["a", "b"]);
    assert_eq!(sample.kafka.kafka[0].key, "security.protocol");
    let sample = parsed(&["--config", path, "--quorum=7"]).unwrap();
    assert_eq!(sample.quorum, 7);
    assert!(sample.config.is_some());
}

#[test]
fn every_mistake_is_told_at_once() {
    let file = file("quorum = 'many'\nquorumm = 3\nkafka.group.id = 'mine'\n");
    let path = file.path().to_str().unwrap();
    let mistakes = parsed(&["--config", path, "--limit", "x"]).unwrap_err();
    let all = mistakes.join("\n");
    for expected in [
        "quorum: ",
        "no setting \"quorumm\"",
        "group.id",
        "--limit: ",
    ] {
        assert!(all.contains(expected), "{expected:?} is missing in:\n{all}");
    }
    assert_eq!(mistakes.len(), 4, "{all}");
}

#[test]
fn rules_over_values_are_told_at_once_too() {
    let mistakes = parsed(&["--quorum", "0", "--limit", "0"]).unwrap_err();
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
}

#[test]
fn a_missing_file_is_named() {
    let mistakes = parsed(&["--config", "/does/not/exist.toml"]).unwrap_err();
    assert!(mistakes[0].contains("/does/not/exist.toml"), "{mistakes:?}");
}
