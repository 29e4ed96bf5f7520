//! `agent-sim report`: sends one report by hand.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser;
use common::{
    config::Validate,
    kafka,
    schema::{SiteAttackReport, SiteAttackVerdict},
    shutdown::Shutdown,
    telemetry,
};
use rdkafka::producer::FutureRecord;

use crate::{connection, pace::now_ms, simulate::parse_time};

/// Send one report by hand
///
/// Prints where the report went once the brokers have acknowledged it.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "agent-sim report",
    version,
    after_help = "\
Examples:
  Two agents see an attack, which is a quorum by default:
    agent-sim report shop.example.com UNDER_ATTACK --agent alice --kind http-flood --rps 12000
    agent-sim report shop.example.com UNDER_ATTACK --agent bob

  One of them sees it end:
    agent-sim report shop.example.com CLEAR --agent alice"
)]
pub struct Config {
    /// The site, for example shop.example.com
    #[arg(value_name = "OBJECT")]
    pub object: String,
    /// What the agent sees: CLEAR or UNDER_ATTACK
    #[arg(value_name = "VERDICT", value_parser = parse_verdict)]
    pub verdict: SiteAttackVerdict,
    /// Who reports
    #[arg(long, value_name = "ID")]
    pub agent: String,
    /// TOML file with any of these settings: `agent = "me"`
    #[arg(long, env = "AGENT_SIM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What kind of attack, in the agent's words: http-flood
    #[arg(long, value_name = "TEXT")]
    pub kind: Option<String>,
    /// Requests a second that the agent measured
    #[arg(long, value_name = "R")]
    pub rps: Option<f64>,
    /// Anything else that an operator wants to read
    #[arg(long, value_name = "TEXT")]
    pub detail: Option<String>,
    /// When the agent saw it, in ms since 1970 or as 2026-01-31T12:00:00Z; default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub observed_at: Option<i64>,
    /// Sequence number, to tell reports of the same ms apart; default: the time in ms
    #[arg(long, value_name = "N")]
    pub sequence: Option<i64>,
    /// How long to try
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Where the report goes.
    #[command(flatten)]
    pub connection: connection::Args,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Args,
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (name, value) in [("OBJECT", &self.object), ("--agent", &self.agent)] {
            if value.is_empty() {
                mistakes.push(format!("{name}: must not be empty"));
            }
        }
        mistakes
    }
}

fn parse_verdict(text: &str) -> Result<SiteAttackVerdict, String> {
    match text.to_ascii_uppercase().replace('-', "_").as_str() {
        "CLEAR" => Ok(SiteAttackVerdict::Clear),
        "UNDER_ATTACK" => Ok(SiteAttackVerdict::UnderAttack),
        _ => Err("a verdict is CLEAR or UNDER_ATTACK".to_owned()),
    }
}

/// The report that `config` describes, at `now_ms`.
fn report(config: &Config, now_ms: i64) -> SiteAttackReport {
    SiteAttackReport {
        object_id: config.object.clone(),
        agent_id: config.agent.clone(),
        verdict: config.verdict,
        observed_at_ms: config.observed_at.unwrap_or(now_ms),
        sequence: config.sequence.unwrap_or(now_ms),
        attack_kind: config.kind.clone(),
        requests_per_second: config.rps,
        detail: config.detail.clone(),
    }
}

/// Sends the report and prints topic, partition and offset.
///
/// # Errors
/// When it was not acknowledged in time, or `shutdown` came first.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let waited = humantime::format_duration(config.timeout);
    tokio::select! {
        sent = tokio::time::timeout(config.timeout, send(&config)) => match sent {
            Ok(sent) => sent,
            Err(_) => bail!(
                "not acknowledged within {waited}: are Kafka at {} and the schema registry at {} up, \
                 and does topic {} exist?",
                config.connection.kafka.bootstrap_servers,
                config.connection.registry.schema_registry_url,
                config.connection.topic()
            ),
        },
        () = shutdown.cancelled() => bail!("stopped before the report was acknowledged"),
    }
}

async fn send(config: &Config) -> anyhow::Result<()> {
    let encoder = config.connection.ready().await?;
    let writer = kafka::Writer::new(&config.connection.producer())
        .context("the Kafka settings make no producer")?;
    let report = report(config, now_ms());
    let value = encoder.encode(&report)?;
    let topic = config.connection.topic();
    let record = FutureRecord::to(&topic)
        .key(&report.object_id)
        .payload(&value);
    match writer.write(record).await {
        Ok(placed) => {
            let (partition, offset) = (placed.partition, placed.offset);
            println!("topic {topic}, partition {partition}, offset {offset}");
            Ok(())
        }
        Err(error) => Err(error).context("the report was not delivered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_verdicts_as_people_write_them() {
        for text in ["UNDER_ATTACK", "under_attack", "under-attack"] {
            assert_eq!(parse_verdict(text), Ok(SiteAttackVerdict::UnderAttack));
        }
        assert_eq!(parse_verdict("clear"), Ok(SiteAttackVerdict::Clear));
        assert!(parse_verdict("UNDETERMINED").is_err());
    }

    #[test]
    fn fills_in_the_time() {
        let args = [
            "agent-sim report",
            "a",
            "CLEAR",
            "--agent",
            "b",
            "--sequence",
            "3",
        ];
        let config = Config::try_parse_from(args).unwrap();
        let made = report(&config, 17);
        assert_eq!((made.observed_at_ms, made.sequence), (17, 3));
        assert_eq!(
            (made.object_id.as_str(), made.agent_id.as_str()),
            ("a", "b")
        );
    }
}
