//! The state service of the site-attack scenario.

use site_attack::SiteAttack;

fn main() -> std::process::ExitCode {
    state_service::main::<SiteAttack>()
}
