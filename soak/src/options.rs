//! What a soak is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::faults::{Fault, Kind};

/// Runs a cluster, writes a history to it, breaks things at random moments, and checks after every round and at the end
/// that nothing was lost, doubled or wrong.
///
/// Everything it needs (Kafka, a schema registry, the instances) is started by it and ends with it. Every flag can also
/// be set by its environment variable. The exit code is 0 if nothing was found, 1 if something was, 2 if the soak itself
/// could not go on.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "Example: soak --minutes 10 --seed 7 --faults process,answers"
)]
pub struct Options {
    /// How long to inject faults; starting, resting and checking come on top
    #[arg(
        long,
        env = "SOAK_MINUTES",
        value_name = "MINUTES",
        default_value_t = 10.0
    )]
    pub minutes: f64,
    /// Chooses the faults, their order and their targets, and what the history is; default: a new one, which is printed
    #[arg(long, env = "SOAK_SEED", value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Which faults: kinds (kill, zombie, drop-end-txn) or families (process, network, answers, brokers, disk, agents);
    /// default: all
    #[arg(
        long,
        env = "SOAK_FAULTS",
        value_name = "KINDS",
        value_delimiter = ',',
        value_parser = Fault::parse
    )]
    pub faults: Vec<Vec<Kind>>,
    /// Instances of the service
    #[arg(long, env = "SOAK_INSTANCES", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=16))]
    pub instances: u16,
    /// Brokers; with three, each partition has three replicas, and a fault that kills a leader is possible
    #[arg(long, env = "SOAK_BROKERS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5))]
    pub brokers: u16,
    /// Partitions of the source topic
    #[arg(long, env = "SOAK_PARTITIONS", value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub partitions: u16,
    /// Records a second that the generator writes, besides the probes
    #[arg(long, env = "SOAK_RATE", value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// How many faults may be under way at the same time
    #[arg(long, env = "SOAK_OVERLAP", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub overlap: u16,
    /// Time from one check to the next
    #[arg(long, env = "SOAK_ROUND", value_name = "DURATION", default_value = "45s", value_parser = humantime::parse_duration)]
    pub round: Duration,
    /// Only print the first faults of the plan, so many of them
    #[arg(long, env = "SOAK_PLAN", value_name = "N")]
    pub plan: Option<usize>,
    /// Writes everything that is in the final table to this file, as JSON
    #[arg(long, env = "SOAK_JSON", value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Only add up the results of former runs, and print them as Markdown
    #[arg(long, value_name = "JSON", num_args = 1..)]
    pub sum: Vec<PathBuf>,
    /// Leave the folder with states and logs where it is, also when nothing was found
    #[arg(long, env = "SOAK_KEEP")]
    pub keep: bool,
}

impl Options {
    /// The kinds of faults to choose from, in a fixed order.
    pub fn kinds(&self) -> Vec<Kind> {
        let asked: Vec<Kind> = self.faults.iter().flatten().copied().collect();
        let wanted = |fault: &&Fault| {
            let chosen = asked.is_empty() || asked.contains(&fault.kind);
            chosen && usize::from(self.brokers) >= fault.brokers
        };
        Fault::ALL
            .iter()
            .filter(wanted)
            .map(|fault| fault.kind)
            .collect()
    }

    /// The command that repeats a run.
    pub fn repeated_by(&self, seed: u64) -> String {
        let kinds: Vec<String> = self.kinds().iter().map(ToString::to_string).collect();
        let mut command = format!("soak --minutes {} --seed {seed}", self.minutes);
        let default = Self::parse_from(["soak"]);
        let mut add = |name: &str, value: String, usual: String| {
            if value != usual {
                command += &format!(" --{name} {value}");
            }
        };
        if !self.faults.is_empty() {
            add("faults", kinds.join(","), String::new());
        }
        let number = |n: u16| n.to_string();
        add(
            "instances",
            number(self.instances),
            number(default.instances),
        );
        add("brokers", number(self.brokers), number(default.brokers));
        add(
            "partitions",
            number(self.partitions),
            number(default.partitions),
        );
        add("overlap", number(self.overlap), number(default.overlap));
        add("rate", self.rate.to_string(), default.rate.to_string());
        let round = |options: &Self| humantime::format_duration(options.round).to_string();
        add("round", round(self), round(&default));
        command
    }
}
