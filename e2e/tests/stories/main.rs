//! User stories against real servers: one Kafka and one registry for all, an application id for each.
//!
//! `make test` runs them. By hand: `cargo run -p devkit -- exec -- cargo test -p e2e`.

mod bad_input;
mod changelog;
mod clocks;
mod cluster;
mod config;
mod connections;
mod disk;
mod fetching;
mod mail;
mod million;
mod mistakes;
mod outages;
mod python;
mod registry;
mod rest;
mod restorer;
mod rounds;
mod sample;
mod standbys;
mod stores;
mod timers;
mod workers;
mod zombies;

use common::schema::{SiteAttackReport, SiteAttackVerdict};

/// A report observed now.
fn report(
    object_id: &str,
    agent_id: &str,
    verdict: SiteAttackVerdict,
    sequence: i64,
) -> SiteAttackReport {
    SiteAttackReport {
        object_id: object_id.to_owned(),
        agent_id: agent_id.to_owned(),
        verdict,
        observed_at_ms: engine::worker::now_ms(),
        sequence,
        attack_kind: Some("http-flood".to_owned()),
        requests_per_second: Some(900.0),
        detail: None,
    }
}
