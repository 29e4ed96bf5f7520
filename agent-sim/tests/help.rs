//! The help texts are a contract with the people who read them: `golden/`. `UPDATE_GOLDEN=1 cargo
//! test -p agent-sim --test help` writes them anew.

use std::path::Path;

use agent_sim::{Cli, replay, report, simulate};
use clap::{Command, CommandFactory};

/// What a terminal of 100 columns shows, whatever the environment of the test holds.
fn help(command: Command) -> String {
    let mut command = command
        .term_width(100)
        .mut_args(|arg| arg.hide_env_values(true));
    command.render_long_help().to_string()
}

#[test]
fn help_is_as_checked_in() {
    let commands = [
        ("agent-sim", Cli::command()),
        ("simulate", simulate::Config::command()),
        ("replay", replay::Config::command()),
        ("report", report::Config::command()),
    ];
    for (name, command) in commands {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.help.txt"));
        let shown = help(command);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(shown, golden, "{name}: see the head of this test");
    }
}

#[test]
fn clap_finds_no_contradiction() {
    Cli::command().debug_assert();
}
