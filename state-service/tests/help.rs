//! The help text is a contract with the people who read it: `golden/`. `UPDATE_GOLDEN=1 cargo test
//! -p state-service --test help` writes it anew.

use std::path::Path;

use clap::CommandFactory as _;
use site_attack::SiteAttack;

#[test]
fn help_is_as_checked_in() {
    // What a terminal of 100 columns shows, whatever the environment of the test holds.
    let mut command = state_service::Config::<SiteAttack>::command()
        .term_width(100)
        .mut_args(|arg| arg.hide_env_values(true));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/state-service.help.txt");
    let shown = command.render_long_help().to_string();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, golden, "see the head of this test");
}

#[test]
fn help_of_reset_is_as_checked_in() {
    // Not a terminal and no environment: always as wide, with no values of the moment.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_state-service"))
        .args(["reset", "--help"])
        .env_clear()
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/state-service-reset.help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, golden, "see the head of this test");
}
