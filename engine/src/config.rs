//! Settings of the engine, as command-line flags.

use std::{path::PathBuf, time::Duration};

use common::topics::check_application_id;

use crate::{membership::Rules, memory::LEAST_MIB};

/// What an instance of an application is told.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Application")]
#[group(skip)]
pub struct Args {
    /// Names the application: its topics, its consumer group; default: the scenario's name
    #[arg(long, env = "APPLICATION_ID", value_name = "NAME", value_parser = check_application_id)]
    pub application_id: Option<String>,
    /// Names this instance; default: a name kept in the state directory
    #[arg(long, env = "INSTANCE_ID", value_name = "NAME", value_parser = check_application_id)]
    pub instance_id: Option<String>,
    /// Label of where this instance runs; standbys are placed on other racks than their actives
    #[arg(long, env = "RACK", value_name = "LABEL")]
    pub rack: Option<String>,
    /// Standbys of each partition, as far as there are other instances
    #[arg(
        long,
        env = "NUM_STANDBY_REPLICAS",
        value_name = "N",
        default_value_t = 1
    )]
    pub num_standby_replicas: u32,
    /// A store that lacks no more changelog records than this may take over at once; others warm up first
    #[arg(
        long,
        env = "ACCEPTABLE_RECOVERY_LAG",
        value_name = "RECORDS",
        default_value_t = 10_000
    )]
    pub acceptable_recovery_lag: u32,
    /// How long an instance that is away keeps the partitions that no other has caught up with
    #[arg(long, env = "RESTART_GRACE", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub restart_grace: Duration,
    /// Where stores are kept; several instances may share it, each claims a folder of its own
    #[arg(
        long,
        env = "STATE_DIR",
        value_name = "DIR",
        default_value = "shared-state-data"
    )]
    pub state_dir: PathBuf,
    /// Partitions of the topics when they are created; existing topics keep theirs
    #[arg(long, env = "PARTITIONS", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Replication factor of the topics when they are created; -1 is the brokers' default
    #[arg(
        long,
        env = "REPLICATION_FACTOR",
        value_name = "N",
        default_value_t = -1,
        allow_negative_numbers = true
    )]
    pub replication_factor: i32,
    /// Worker threads; each processes a part of the partitions with a producer of its own
    #[arg(long, env = "WORKERS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub workers: u32,
    /// An instance whose worker shows no sign of life for this time ends, so that others take over
    #[arg(long, env = "STUCK_AFTER", value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    pub stuck_after: Duration,
    /// How often to commit: the time until a change can be read; ten times as rarely while records wait
    #[arg(long, env = "COMMIT_INTERVAL", value_name = "DURATION", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub commit_interval: Duration,
    /// Memory of the process, in MiB: what stores, caches, epochs and queues may take follows from it
    #[arg(long, env = "MEMORY_MB", value_name = "MIB", default_value_t = 432)]
    pub memory_mb: usize,
    /// Longest object id, in bytes
    #[arg(
        long,
        env = "MAX_OBJECT_ID_BYTES",
        value_name = "BYTES",
        default_value_t = 512
    )]
    pub max_object_id_bytes: usize,
    /// Largest record, in bytes
    #[arg(
        long,
        env = "MAX_RECORD_BYTES",
        value_name = "BYTES",
        default_value_t = 262_144
    )]
    pub max_record_bytes: usize,
}

impl Args {
    /// What a leader makes plans by.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            standbys: self.num_standby_replicas as usize,
            acceptable_lag: i64::from(self.acceptable_recovery_lag),
        }
    }

    /// What is wrong: one sentence each.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.commit_interval < Duration::from_millis(1)
            || self.commit_interval > Duration::from_secs(10)
        {
            mistakes.push("commit-interval: must be between 1ms and 10s".into());
        }
        if self.replication_factor == 0 || self.replication_factor < -1 {
            mistakes.push("replication-factor: must be -1 or at least 1".into());
        }
        if self.max_object_id_bytes == 0 {
            mistakes.push("max-object-id-bytes: must be at least 1".into());
        }
        if self.memory_mb < LEAST_MIB {
            mistakes.push(format!("memory-mb: must be at least {LEAST_MIB}"));
        }
        mistakes
    }
}
