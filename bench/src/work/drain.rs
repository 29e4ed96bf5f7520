//! A backlog of reports: how fast it is worked off, and what that takes of the machine.
//!
//! Counted from the first record that a system has processed (so without its start, but with its JVM cold) to
//! the commit of the last.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::waiting::all_committed;
use crate::input::{Backlog, Sender, Shape};
use crate::lab::Lab;
use crate::machine::Usage;
use crate::progress::Progress;
use crate::report::{Report, Spread, Table, show};
use crate::systems::{Instance, System, Variant};

/// How long one drain may take.
const PATIENCE: Duration = Duration::from_mins(15);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What to drain with.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub struct Args {
    /// Reports in the backlog
    #[arg(long, default_value_t = 1_000_000)]
    reports: u64,
    /// Objects that they are about
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    /// Agents that sent them
    #[arg(long, default_value_t = 10)]
    agents: usize,
    /// How often each variant is measured; they take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A variant of ours: `NAME: flag=value ...`; repeatable
    #[arg(long, value_name = "VARIANT")]
    ours: Vec<String>,
    /// A variant of Kafka Streams: `NAME: setting=value ... -XX:option ...`; repeatable
    #[arg(long, value_name = "VARIANT")]
    streams: Vec<String>,
    /// File to write every run into, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// One drain.
#[derive(Clone, Debug, Serialize)]
pub struct Drained {
    /// The variant.
    pub variant: String,
    /// Seconds.
    pub seconds: f64,
    /// Reports a second.
    pub per_second: f64,
    /// Seconds of processor time per million reports.
    pub cpu_s_per_million: f64,
    /// The same of the second half: a JVM is warm by then.
    pub second_half_cpu_s_per_million: f64,
    /// What the broker took per million reports.
    pub broker_cpu_s_per_million: f64,
    /// The most memory, in MiB.
    pub peak_rss_mib: u64,
}

/// Measures every variant and prints the table.
///
/// # Errors
/// One did not finish.
pub async fn run(lab: &Lab, args: &Args) -> Result<()> {
    let variants = variants(args)?;
    let shape = Shape {
        reports: args.reports,
        objects: args.objects,
        agents: args.agents,
        seed: 1,
        disorder: false,
    };
    let progress = Progress::of(args.rounds * variants.len());
    progress.now(&format!("generating {} reports", shape.reports));
    let sender = Sender::to(&lab.application("drain")?).await?;
    let backlog = tokio::task::block_in_place(|| Backlog::new(&shape, &sender))?;
    drop(sender);
    let mut runs = Vec::new();
    for _ in 0..args.rounds {
        for variant in &variants {
            let drained = drain(lab, variant, &backlog, &progress).await?;
            progress.done(&format!(
                "{}: {:.0} reports/s, {:.2} CPU-s per million",
                drained.variant, drained.per_second, drained.cpu_s_per_million
            ));
            runs.push(drained);
        }
    }
    println!("{}", table(&variants, &runs).text());
    if let Some(path) = &args.out {
        Report::new("drain", serde_json::to_value(args)?, &runs).write(path)?;
    }
    Ok(())
}

fn variants(args: &Args) -> Result<Vec<Variant>> {
    let ours = args.ours.iter().map(|text| (System::Ours, text.as_str()));
    let streams = args
        .streams
        .iter()
        .map(|text| (System::Streams, text.as_str()));
    let mut asked: Vec<_> = ours.chain(streams).collect();
    if asked.is_empty() {
        asked = vec![(System::Ours, "ours:"), (System::Streams, "streams:")];
    }
    asked
        .into_iter()
        .map(|(system, text)| parse(system, text))
        .collect()
}

/// `NAME: setting=value ...`; words that begin with a dash are for the JVM. Nothing expires.
fn parse(system: System, text: &str) -> Result<Variant> {
    let (name, words) = text
        .split_once(':')
        .with_context(|| format!("write NAME: setting=value ..., not {text:?}"))?;
    let freshness = match system {
        System::Ours => ("freshness", "24h"),
        System::Streams => ("freshness.ms", "86400000"),
    };
    let mut variant = Variant::new(name, system, &[freshness]);
    for word in words.split_whitespace() {
        if word.starts_with('-') && system == System::Streams {
            variant
                .jvm
                .get_or_insert_with(Vec::new)
                .push(word.to_owned());
            continue;
        }
        let (setting, value) = word
            .split_once('=')
            .with_context(|| format!("write setting=value, not {word:?}"))?;
        variant
            .settings
            .insert(setting.to_owned(), value.to_owned());
    }
    Ok(variant)
}

async fn drain(
    lab: &Lab,
    variant: &Variant,
    backlog: &Backlog,
    progress: &Progress,
) -> Result<Drained> {
    let reports = backlog.len();
    progress.now(&format!("{}: filling the source topic", variant.name));
    let app = lab.application("drain")?;
    lab.source_topic(&app).await?;
    let sender = Sender::to(&app).await?;
    tokio::task::block_in_place(|| backlog.send(&sender))?;
    drop(sender);
    progress.now(&format!("{}: draining", variant.name));
    let mut instance = variant.start(lab, &app, "a")?;
    instance.url().await?;
    let begun = reached(&instance, 1).await?;
    let broker = broker(lab).await?;
    let half = reached(&instance, reports / 2).await?;
    reached(&instance, reports).await?;
    all_committed(&app, PATIENCE).await?;
    let (ended, usage) = (Instant::now(), instance.usage()?);
    let broker_after = self::broker(lab).await?;
    instance.terminate().await?;
    let seconds = ended.duration_since(begun.at).as_secs_f64();
    let million = |records: u64| records as f64 / 1e6;
    Ok(Drained {
        variant: variant.name.clone(),
        seconds,
        per_second: (reports - begun.records) as f64 / seconds,
        cpu_s_per_million: (usage.cpu_s - begun.usage.cpu_s) / million(reports - begun.records),
        second_half_cpu_s_per_million: (usage.cpu_s - half.usage.cpu_s)
            / million(reports - half.records),
        broker_cpu_s_per_million: match (broker, broker_after) {
            (Some(before), Some(after)) => {
                (after.cpu_s - before.cpu_s) / million(reports - begun.records)
            }
            _ => 0.0,
        },
        peak_rss_mib: usage.peak_rss_mib,
    })
}

/// Where a system was at some moment.
struct Moment {
    at: Instant,
    records: u64,
    usage: Usage,
}

/// The first moment at which so many records are processed.
async fn reached(instance: &Instance, records: u64) -> Result<Moment> {
    let started = Instant::now();
    loop {
        // While a service starts, it cannot tell yet.
        let processed = instance.processed().await.unwrap_or(0);
        if processed >= records {
            return Ok(Moment {
                at: Instant::now(),
                records: processed,
                usage: instance.usage()?,
            });
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "{processed} records after {PATIENCE:?}:\n{}",
            devkit::process::tail(instance.log())
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// What the broker has taken, if it is ours to look at.
async fn broker(lab: &Lab) -> Result<Option<Usage>> {
    let Some(kafka) = lab.servers.kafka() else {
        return Ok(None);
    };
    let pid = kafka.pid(0).await.context("the broker is not running")?;
    Usage::of(pid).map(Some)
}

fn table(variants: &[Variant], runs: &[Drained]) -> Table {
    let mut table = Table::new(&[
        "variant",
        "1000 reports/s",
        "CPU-s/M",
        "second half",
        "broker/M",
        "peak RSS MiB",
    ]);
    for variant in variants {
        let spread = |value: fn(&Drained) -> f64| {
            Spread::of(
                runs.iter()
                    .filter(|run| run.variant == variant.name)
                    .map(value),
            )
        };
        table.row(vec![
            variant.name.clone(),
            show(spread(|run| run.per_second / 1000.0), 0),
            show(spread(|run| run.cpu_s_per_million), 2),
            show(spread(|run| run.second_half_cpu_s_per_million), 2),
            show(spread(|run| run.broker_cpu_s_per_million), 2),
            show(spread(|run| run.peak_rss_mib as f64), 0),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_read() {
        let variant = parse(
            System::Streams,
            "g1: threads=2 -XX:+UseG1GC streams.producer.linger.ms=5",
        )
        .unwrap();
        assert_eq!(variant.name, "g1");
        assert_eq!(variant.settings["threads"], "2");
        assert_eq!(variant.settings["streams.producer.linger.ms"], "5");
        assert_eq!(
            variant.jvm.as_deref(),
            Some(&["-XX:+UseG1GC".to_owned()][..])
        );
        assert!(parse(System::Ours, "no colon").is_err());
        assert!(parse(System::Ours, "x: word").is_err());
    }
}
