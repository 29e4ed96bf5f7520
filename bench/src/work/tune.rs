//! A drain with variants of either system, to find the settings with which each is best.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::drain::Plan;
use crate::lab::Lab;
use crate::load::{Load, Order};
use crate::run::Run;
use crate::systems::{System, Variant};

/// Seconds that one drain is expected to take.
const SECONDS: f64 = 30.0;

/// What was tried with the peer, one variant each; `kafka-streams/README.md` tells what came of it.
const TRIED: [&str; 12] = [
    "defaults:",
    "two threads: threads=2",
    "no record cache: cache.mb=0",
    "record cache of 64 MiB: cache.mb=64",
    "RocksDB as Streams sets it: rocksdb.cache.mb=0",
    "commits every 500 ms: commit.interval.ms=500",
    "G1: -Xms256m -Xmx2g -XX:+UseG1GC",
    "serial GC: -Xms256m -Xmx2g -XX:+UseSerialGC",
    "heap of 4 GiB: -Xms4g -Xmx4g -XX:+UseParallelGC",
    "small polls: streams.consumer.max.poll.records=500 streams.buffered.records.per.partition=1000",
    "lz4: streams.producer.compression.type=lz4",
    "no linger: streams.producer.linger.ms=0",
];

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
    /// So many reports of an object come one after another
    #[arg(long, default_value_t = 1)]
    burst: usize,
    /// How often each variant is measured; they take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A variant of ours: `NAME: flag=value ...`; repeatable
    #[arg(long, value_name = "VARIANT")]
    ours: Vec<String>,
    /// A variant of Kafka Streams: `NAME: setting=value ... -XX:option ...`; repeatable
    #[arg(long, value_name = "VARIANT")]
    streams: Vec<String>,
    /// The variants of Kafka Streams that its README tells of, besides those that are named
    #[arg(long)]
    tried: bool,
    /// File to write every run into, as JSON; the document takes it in from docs
    #[arg(
        long,
        value_name = "FILE",
        default_value = "docs/performance/tune.json"
    )]
    out: PathBuf,
}

/// Measures every variant and prints the table.
///
/// # Errors
/// A variant is not understood, or results cannot be written.
pub async fn run(lab: &Lab, args: &Args) -> Result<()> {
    let variants = variants(args)?;
    let load = Load {
        order: match args.burst {
            0 | 1 => Order::Uniform,
            length => Order::Bursts(length),
        },
        ..Load::uniform(args.reports, args.objects, args.agents)
    };
    let case = format!(
        "{} reports, {} objects, {:?}",
        args.reports, args.objects, load.order
    );
    let expected_s = (args.rounds * variants.len()) as f64 * SECONDS;
    let works = vec!["tune".to_owned()];
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut run = Run::new(lab, works, args.rounds, 1.0, expected_s, args.out.clone());
    for round in 1..=args.rounds {
        for variant in &variants {
            let measuring = Plan::new(variant, &load).drain(lab);
            run.step(("tune", &case, round), variant, SECONDS, measuring)
                .await?;
        }
    }
    let results = run.results();
    println!("{}", results.table("tune").text());
    anyhow::ensure!(
        results.failures.is_empty(),
        "{}",
        results.failures.join("\n")
    );
    Ok(())
}

fn variants(args: &Args) -> Result<Vec<Variant>> {
    let of = |system, texts: &[String]| {
        let texts: Vec<_> = texts.iter().map(|text| parse(system, text)).collect();
        texts.into_iter().collect::<Result<Vec<_>>>()
    };
    let mut asked = of(System::Ours, &args.ours)?;
    asked.extend(of(System::Streams, &args.streams)?);
    if args.tried {
        asked.extend(of(System::Streams, &TRIED.map(str::to_owned))?);
    }
    if asked.is_empty() {
        asked = vec![Variant::ours(), Variant::streams()];
    }
    Ok(asked)
}

/// `NAME: setting=value ...`; words that begin with a dash are for the JVM.
fn parse(system: System, text: &str) -> Result<Variant> {
    let (name, words) = text
        .split_once(':')
        .with_context(|| format!("write NAME: setting=value ..., not {text:?}"))?;
    let mut variant = match system {
        System::Ours => Variant::ours(),
        System::Streams => Variant::streams(),
    };
    name.clone_into(&mut variant.name);
    for word in words.split_whitespace() {
        if word.starts_with('-') && system == System::Streams {
            let jvm = variant.jvm.get_or_insert_with(Vec::new);
            jvm.push(word.to_owned());
            continue;
        }
        let (setting, value) = word
            .split_once('=')
            .with_context(|| format!("write setting=value, not {word:?}"))?;
        variant = variant.with(setting, value);
    }
    Ok(variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_read() {
        let text = "g1: threads=2 -XX:+UseG1GC streams.producer.linger.ms=5";
        let variant = parse(System::Streams, text).unwrap();
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

    #[test]
    fn what_was_tried_is_understood() {
        let all = TRIED.map(|text| parse(System::Streams, text).unwrap().name);
        let names: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(names.len(), TRIED.len());
    }
}
