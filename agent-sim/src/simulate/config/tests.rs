use common::config::{self, Error};

use super::*;

fn config(args: &[&str]) -> Result<Config, Vec<String>> {
    let program = std::iter::once("agent-sim simulate");
    let args = program
        .chain(args.iter().copied())
        .map(Into::into)
        .collect();
    config::try_parse(args).map_err(|error| match error {
        Error::Invalid(mistakes) => mistakes,
        Error::Clap(error) => vec![error.to_string()],
    })
}

#[test]
fn objects_are_numbered_named_or_only_the_attacked() {
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--objects", "2"],
            &["site-0001.example.com", "site-0002.example.com"],
        ),
        (&["--object", "a", "--object", "b"], &["a", "b"]),
        (
            &["--object", "a", "--attack", "b", "--attack", "a@5s"],
            &["a", "b"],
        ),
        (
            &["--attack", "b", "--attack", "b@5s", "--only-attack"],
            &["b"],
        ),
    ];
    for (args, expected) in cases {
        let settings = config(args).unwrap().settings(0);
        assert_eq!(settings.objects, expected, "{args:?}");
        for (index, attack) in settings.attacks {
            assert_eq!(settings.objects[index], attack.object_id);
        }
    }
}

#[test]
fn tells_all_mistakes_at_once() {
    let mistakes = config(&[
        "--agents",
        "0",
        "--objects",
        "0",
        "--wave",
        "0s",
        "--to",
        "-",
    ])
    .unwrap_err();
    assert_eq!(mistakes.len(), 4, "{mistakes:#?}");
    let mistakes = config(&["--rate", "fast", "--silent", "half", "--attack", "@"]).unwrap_err();
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
    let mistakes = config(&["--agents", "3", "--silent", "2", "--lying", "2"]).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    let mistakes = config(&["--rate", "max", "--to", "-", "--count", "1"]).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
}

#[test]
fn reads_times() {
    assert_eq!(parse_time("1700000000000"), Ok(1_700_000_000_000));
    assert_eq!(parse_time("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
    assert!(parse_time("yesterday").is_err());
}
