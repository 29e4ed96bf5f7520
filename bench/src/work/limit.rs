//! What librdkafka alone can do: read the backlog with its batch queue, and write as many records of the same size as
//! the service wrote for it, in transactions, from a second thread. No processing, no store.
//!
//! It runs in a process of its own, started by the drain, so that its processor time is counted alike.

use std::io::BufRead as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use engine::epoch::Rows;
use engine::fetch::{Fetched, Fetcher};
use engine::produce::Producer;
use rdkafka::producer::Producer as _;
use serde::{Deserialize, Serialize};

use crate::input::Sender;
use crate::lab::{Lab, PARTITIONS};
use crate::load::Load;
use crate::machine::Usage;
use crate::results::Values;
use crate::systems::{System, Variant};
use crate::topic;

/// Its name in results.
pub const NAME: &str = "librdkafka alone";
/// How long it may take.
const PATIENCE: Duration = Duration::from_mins(5);
/// How many messages are taken from librdkafka at once, as the service does it.
const BATCH: usize = 1_000;
/// The service's default commit interval.
const COMMIT: Duration = Duration::from_millis(100);

/// What to pass through.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Brokers
    #[arg(long)]
    bootstrap: String,
    /// Topic to read, of the usual number of partitions
    #[arg(long)]
    from: String,
    /// Topic to write
    #[arg(long)]
    to: String,
    /// Records to read
    #[arg(long)]
    reports: u64,
    /// Records to write for each that is read
    #[arg(long)]
    rows: f64,
    /// Their size in bytes
    #[arg(long)]
    row_bytes: usize,
    /// States to write for each record that is read
    #[arg(long)]
    states: f64,
    /// Their size in bytes
    #[arg(long)]
    state_bytes: usize,
}

/// What a pass took, from the first record to the last commit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Passed {
    seconds: f64,
    reports: u64,
    written: u64,
    cpu_s: f64,
    peak_rss_mib: u64,
}

/// Not a system, but it stands in the same table.
pub(super) fn variant() -> Variant {
    Variant::new(NAME, System::Ours, &[])
}

/// Fills a source topic, and passes it through; `drained` is what the service wrote for the same load.
pub(super) async fn pass_through(lab: &Lab, load: &Load, drained: &Values) -> Result<Values> {
    let app = lab.application("limit")?;
    lab.source_topic(&app).await?;
    let sender = Sender::to(&app).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    tokio::task::block_in_place(|| sender.send_all(load.reports(now_ms)))?;
    drop(sender);
    // The key's bytes are counted with the value's.
    let value = |id: &str| drained.get(id).copied().unwrap_or(0.0);
    let per_report = |id: &str| (value(id) / load.reports as f64).to_string();
    let bytes = |id: &str| format!("{:.0}", value(id));
    let (from, to) = (
        format!("{}.reports", app.id()),
        format!("{}.rows", app.id()),
    );
    lab.topic(&to, PARTITIONS).await?;
    let arguments = [
        ("--bootstrap", app.bootstrap().to_owned()),
        ("--from", from),
        ("--to", to),
        ("--reports", load.reports.to_string()),
        ("--rows", per_report("changelog_records")),
        ("--row-bytes", bytes("changelog_bytes")),
        ("--states", per_report("state_records")),
        ("--state-bytes", bytes("state_bytes")),
    ];
    let broker = lab.broker().await?;
    let arguments = arguments.into_iter();
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .arg("pass-through")
        .args(arguments.flat_map(|(flag, value)| [flag.to_owned(), value]))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output).await??;
    ensure!(output.status.success(), "it ended with {}", output.status);
    let line = output.stdout.lines().next().context("it said nothing")??;
    let passed: Passed = serde_json::from_str(&line)?;
    let broker = broker.zip(lab.broker().await?);
    topic::delete_all(&app).await?;
    let million = passed.reports as f64 / 1e6;
    let mut values = vec![
        ("seconds", passed.seconds),
        ("reports_per_s", passed.reports as f64 / passed.seconds),
        ("cpu_s", passed.cpu_s),
        ("cpu_s_per_million", passed.cpu_s / million),
        ("reports_per_cpu_s", passed.reports as f64 / passed.cpu_s),
        ("peak_rss_mib", passed.peak_rss_mib as f64),
    ];
    if let Some((before, after)) = broker {
        values.push((
            "broker_cpu_s_per_million",
            (after.cpu_s - before.cpu_s) / million,
        ));
    }
    Ok(values
        .into_iter()
        .map(|(id, v)| (id.to_owned(), v))
        .collect())
}

/// The process: passes everything through and prints what that took, as one line of JSON.
///
/// # Errors
/// Kafka refuses something.
pub fn run(args: &Args) -> Result<()> {
    let read = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    let writing = {
        let (args, read, failed) = (args.clone(), Arc::clone(&read), Arc::clone(&failed));
        thread::spawn(move || {
            let written = write(&args, &read);
            failed.store(written.is_err(), Ordering::Release);
            written
        })
    };
    let config = topic::clients(&args.bootstrap).consumer("limit", "limit");
    let mut fetcher = Fetcher::new(&config, BATCH)?;
    for partition in 0..PARTITIONS {
        fetcher.assign(&args.from, partition, 0)?;
    }
    let me = std::process::id();
    let mut begun = None;
    let mut count = 0;
    // What is read is looked at, as far as a checksum of its lengths.
    let mut bytes = 0;
    while count < args.reports && !failed.load(Ordering::Acquire) {
        for fetched in fetcher.next(Duration::from_millis(5)).iter() {
            if let Fetched::Record(_, record) = fetched {
                count += 1;
                bytes += record.value.map_or(0, <[u8]>::len);
            }
        }
        if begun.is_none() && count > 0 {
            begun = Some((Instant::now(), count, Usage::of(me)?));
        }
        read.store(count, Ordering::Release);
    }
    let written = writing
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(bytes > 0, "nothing was read");
    let (at, before, usage) = begun.context("nothing was read")?;
    let after = Usage::of(me)?;
    let passed = Passed {
        seconds: at.elapsed().as_secs_f64(),
        reports: count - before,
        written,
        cpu_s: after.cpu_s - usage.cpu_s,
        peak_rss_mib: after.peak_rss_mib,
    };
    println!("{}", serde_json::to_string(&passed)?);
    Ok(())
}

/// Writes what belongs to what was read, a transaction each commit interval, until all is read. As the service does
/// it: many records in one call, then their deliveries, then the commit.
fn write(args: &Args, read: &AtomicU64) -> Result<u64> {
    let id = format!("{}-writer", args.to);
    let config = engine::commit::transactional(&topic::clients(&args.bootstrap), &id);
    let (mut producer, [to]) = Producer::new(&config, [&args.to])?;
    producer.client().init_transactions(PATIENCE)?;
    let kinds = [(args.rows, args.row_bytes), (args.states, args.state_bytes)];
    let payloads = kinds.map(|(_, bytes)| vec![b'x'; bytes.saturating_sub(8)]);
    let mut done = [0_u64; 2];
    loop {
        let started = Instant::now();
        let seen = read.load(Ordering::Acquire);
        producer.client().begin_transaction()?;
        for (kind, payload) in payloads.iter().enumerate() {
            let due = whole(kinds[kind].0 * seen as f64);
            for partition in 0..PARTITIONS {
                let keys = done[kind] + u64::from(partition)..due;
                let mut rows = Rows::default();
                for key in keys.step_by(PARTITIONS as usize) {
                    rows.push(&key.to_be_bytes(), Some(payload));
                }
                let (all, rows) = (0..rows.len(), rows.into());
                let partition = Some(i32::try_from(partition)?);
                producer.produce_held(to, partition, &rows, all, || true)?;
            }
            done[kind] = done[kind].max(due);
        }
        while producer.in_flight() > 0 {
            producer.serve(COMMIT);
        }
        if let Some(error) = producer.failed() {
            bail!("a row was not delivered: {error}");
        }
        producer.client().commit_transaction(PATIENCE)?;
        if seen >= args.reports {
            return Ok(done.iter().sum());
        }
        thread::sleep(COMMIT.saturating_sub(started.elapsed()));
    }
}

/// Records are whole, and there are fewer than a float can count.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(records: f64) -> u64 {
    records as u64
}
