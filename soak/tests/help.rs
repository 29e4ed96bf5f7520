//! The help text is a contract with the people who read it: `golden/`. `UPDATE_GOLDEN=1 cargo test -p soak --test help`
//! writes it anew.

use std::path::Path;

use clap::CommandFactory as _;
use soak::Options;

#[test]
fn help_is_as_checked_in() {
    // What a terminal of 100 columns shows, whatever the environment of the test holds.
    let mut command = Options::command()
        .term_width(100)
        .mut_args(|arg| arg.hide_env_values(true));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/soak.help.txt");
    let shown = command.render_long_help().to_string();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, golden, "see the head of this test");
}

#[test]
fn clap_finds_no_contradiction() {
    Options::command().debug_assert();
}
