//! The settings of `agent-sim simulate`.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use common::{config::Validate, telemetry};

use crate::{
    connection,
    generator::Settings,
    pace::Rate,
    share::{Share, parse_probability},
    waves::{Attack, Waves},
};

/// Invent the reports of many agents while sites come under attack
///
/// A number of agents watch a number of sites and report in turn. Sites come under attack in
/// waves, or when you say so; agents notice one after another. Some agents may lie or fall silent,
/// reports may be repeated or arrive late. The same seed tells the same story.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "agent-sim simulate",
    version,
    after_help = "\
Examples:
  Twenty sites, one of them under attack for half of the time, until Ctrl-C:
    agent-sim simulate --agents 5 --objects 20

  Attack one named site now, for a minute, and nothing else:
    agent-sim simulate --attack shop.example.com --only-attack --duration 1m

  The same site again, quiet:
    agent-sim simulate --object shop.example.com --attacked 0 --duration 30s

  Unreliable agents and an unreliable network:
    agent-sim simulate --agents 10 --lying 20% --silent 1 --reordered 0.05 --repeated 0.05

  A load test:
    agent-sim simulate --agents 10 --objects 100000 --rate max --count 10000000

  A recording instead of Kafka, for `agent-sim replay`:
    agent-sim simulate --seed 7 --duration 20s --to wave.ndjson"
)]
pub struct Config {
    /// TOML file with any of these settings: `agents = 5`
    #[arg(long, env = "AGENT_SIM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How many agents: agent-01, agent-02 and so on
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Fleet")]
    pub agents: usize,
    /// How many objects: site-0001.example.com and so on
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "Fleet")]
    pub objects: usize,
    /// Name of an object; repeatable. The objects are then these, whatever `--objects` says
    #[arg(long = "object", value_name = "NAME", help_heading = "Fleet")]
    pub object_names: Vec<String>,
    /// So many agents (3, or 25%), the last ones, stop reporting
    #[arg(
        long,
        value_name = "N|PART",
        default_value = "0",
        help_heading = "Fleet"
    )]
    pub silent: Share,
    /// When the silent ones stop, since the start
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration, help_heading = "Fleet")]
    pub silent_after: Duration,
    /// So many agents (3, or 25%), the last before the silent ones, report the opposite of what
    /// they see
    #[arg(
        long,
        value_name = "N|PART",
        default_value = "0",
        help_heading = "Fleet"
    )]
    pub lying: Share,
    /// Probability that an honest agent sees an attack where there is none
    #[arg(long, value_name = "P", default_value = "0", value_parser = parse_probability, help_heading = "Fleet")]
    pub false_positives: f64,

    /// Attack this object at this time since the start, waves or not; repeatable. Adds the object
    /// if it is none yet
    #[arg(long, value_name = "NAME[@FROM[..TO]]", help_heading = "Attacks")]
    pub attack: Vec<Attack>,
    /// Report on the objects named by `--attack` only; no waves
    #[arg(long, requires = "attack", help_heading = "Attacks")]
    pub only_attack: bool,
    /// Objects that a wave attacks at once; 0 for no waves
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Attacks")]
    pub attacked: usize,
    /// How long a wave lasts
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, help_heading = "Attacks")]
    pub wave: Duration,
    /// Pause before each wave, the first included
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, help_heading = "Attacks")]
    pub pause: Duration,
    /// From the first agent noticing that something began or ended to the last
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration, help_heading = "Attacks")]
    pub ramp_up: Duration,

    /// Reports a second, of all agents together, or `max`. Votes go stale when a pair of agent and
    /// object reports too seldom: agents × objects / rate seconds
    #[arg(
        long,
        value_name = "R|max",
        default_value = "20",
        help_heading = "Traffic"
    )]
    pub rate: Rate,
    /// Probability that a report is overtaken by later ones
    #[arg(long, value_name = "P", default_value = "0", value_parser = parse_probability, help_heading = "Traffic")]
    pub reordered: f64,
    /// Probability that a report is sent again, byte for byte
    #[arg(long, value_name = "P", default_value = "0", value_parser = parse_probability, help_heading = "Traffic")]
    pub repeated: f64,
    /// Stop after so many reports
    #[arg(long, value_name = "N", help_heading = "Traffic")]
    pub count: Option<u64>,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Traffic")]
    pub duration: Option<Duration>,
    /// What decides everything that is left to chance
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Traffic")]
    pub seed: u64,

    /// Write the reports here as lines of JSON, without waiting, instead of sending them; `-` for
    /// standard output
    #[arg(long, value_name = "FILE", help_heading = "Recording")]
    pub to: Option<PathBuf>,
    /// Time of the recording's start, in ms since 1970 or as 2026-01-31T12:00:00Z; default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "to", help_heading = "Recording")]
    pub start_at: Option<i64>,

    /// Where the reports go.
    #[command(flatten)]
    pub connection: connection::Args,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Args,
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let settings = self.settings(0);
        if self.agents == 0 {
            mistakes.push("--agents: there must be at least one".to_owned());
        }
        if settings.objects.is_empty() {
            mistakes
                .push("--objects: there must be at least one; or name them with --object".into());
        }
        let named = self.object_names.iter();
        if named.clone().any(String::is_empty) {
            mistakes.push("--object: a name must not be empty".into());
        }
        let (silent, lying, all) = (settings.silent, settings.lying, self.agents);
        if silent.saturating_add(lying) > all {
            mistakes.push(format!(
                "--silent {silent} and --lying {lying} are more than the {all} agents there are"
            ));
        }
        if self.attacked > 0 && self.wave.is_zero() {
            mistakes.push("--wave: a wave must last; use --attacked 0 for none".into());
        }
        if self.to.is_some() {
            if self.rate == Rate::Max {
                mistakes.push("--to: a recording needs times, so give --rate a number".into());
            }
            if self.count.is_none() && self.duration.is_none() {
                mistakes.push("--to: a recording must end, so give --count or --duration".into());
            }
        }
        mistakes
    }
}

impl Config {
    /// What the generator is to do when it starts at `start_ms`. Sequence numbers start there too,
    /// so that they grow from one run to the next.
    #[must_use]
    pub fn settings(&self, start_ms: i64) -> Settings {
        let mut objects = match (&self.object_names[..], self.only_attack) {
            (_, true) => Vec::new(),
            ([], false) => (1..=self.objects).map(default_object).collect(),
            (names, false) => names.to_vec(),
        };
        let mut attacks = Vec::new();
        for attack in &self.attack {
            let known = objects.iter().position(|name| *name == attack.object_id);
            let index = known.unwrap_or(objects.len());
            if known.is_none() {
                objects.push(attack.object_id.clone());
            }
            attacks.push((index, attack.clone()));
        }
        Settings {
            agents: self.agents,
            objects,
            waves: Waves {
                attacked: if self.only_attack { 0 } else { self.attacked },
                wave: self.wave,
                pause: self.pause,
            },
            attacks,
            ramp_up: self.ramp_up,
            false_positives: self.false_positives,
            silent: self.silent.of(self.agents),
            silent_after: self.silent_after,
            lying: self.lying.of(self.agents),
            reordered: self.reordered,
            repeated: self.repeated,
            count: self.count,
            duration: self.duration,
            first_sequence: start_ms,
        }
    }
}

fn default_object(number: usize) -> String {
    format!("site-{number:04}.example.com")
}

/// A time in ms since 1970, or as RFC 3339 writes it.
pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let wrong = |why: &dyn std::fmt::Display| {
        format!("{text:?} is neither ms since 1970 nor a time such as 2026-01-31T12:00:00Z: {why}")
    };
    let time = humantime::parse_rfc3339(text).map_err(|e| wrong(&e))?;
    let since = time
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_err(|e| wrong(&e))?;
    Ok(crate::waves::millis(since))
}

#[cfg(test)]
mod tests;
