//! From a report written to its state read by a consumer of committed records.
//!
//! A steady 2,000 reports a second. Every agent watches objects of its own, one vote decides, and each report is the
//! opposite of the last: so every report makes a state, and the n-th state of an object belongs to its n-th report.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use common::schema::{SiteAttackReport, SiteAttackVerdict};
use common::topics::Names;
use engine::fetch::{Fetched, Fetcher};

use crate::input::{Sender, Shape};
use crate::lab::{Lab, PARTITIONS};
use crate::results::Values;
use crate::run::Run;
use crate::systems::Variant;
use crate::topic;

const PER_SECOND: u64 = 2_000;
const OBJECTS: u64 = 10_000;
/// How long the load runs before anything counts: a JVM is warm, all partitions have a transaction behind them.
const WARM_UP: Duration = Duration::from_secs(8);
const MEASURED: Duration = Duration::from_secs(20);
/// How long the last states may take.
const REST: Duration = Duration::from_secs(20);
/// How often reports are sent.
const TICK: Duration = Duration::from_millis(1);

/// How often is committed, and what the broker checks.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in results.
    pub name: &'static str,
    commit_interval_ms: u32,
    /// See [`Lab::verify_partitions`].
    verified: bool,
}

/// All of them.
pub const CASES: [Case; 3] = [
    Case {
        name: "committing every 100 ms",
        commit_interval_ms: 100,
        verified: true,
    },
    Case {
        name: "committing every 10 ms",
        commit_interval_ms: 10,
        verified: true,
    },
    Case {
        name: "committing every 10 ms, partitions not verified",
        commit_interval_ms: 10,
        verified: false,
    },
];

/// Seconds that the preparation is expected to take, and a round.
pub(crate) const SECONDS: (f64, f64) = (80.0, 240.0);

/// Measures both systems.
///
/// # Errors
/// Results cannot be written, the broker cannot be warmed up, or it refuses a setting.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    // The broker's compiler takes a minute of many small requests: without that, a first round would measure it.
    for variant in systems(CASES[1].commit_interval_ms) {
        run.now("latency: the broker warms up");
        measure(run.lab, &variant).await?;
        run.passed(SECONDS.0 / 2.0);
    }
    for round in 1..=run.rounds {
        for case in CASES {
            let told = run.lab.verify_partitions(case.verified).await?;
            if !told && !case.verified {
                run.now(&format!(
                    "latency, {}: left out, the broker is not ours",
                    case.name
                ));
                run.passed(SECONDS.1 / 3.0);
                continue;
            }
            for variant in systems(case.commit_interval_ms) {
                let (at, measuring) = (("latency", case.name, round), measure(run.lab, &variant));
                run.step(at, &variant, SECONDS.1 / 6.0, measuring).await?;
            }
        }
    }
    run.lab.verify_partitions(true).await?;
    Ok(())
}

fn systems(commit_interval_ms: u32) -> [Variant; 2] {
    let both = [Variant::ours(), Variant::streams()];
    both.map(|system| {
        system
            .with("quorum", "1")
            .committing_every_ms(commit_interval_ms)
    })
}

async fn measure(lab: &Lab, variant: &Variant) -> Result<Values> {
    let app = lab.application("latency")?;
    lab.source_topic(&app).await?;
    let mut instance = variant.start(lab, &app, "a")?;
    instance.ready().await?;
    let sender = Sender::at_once(&app).await?;
    let reader = Reader::start(&app)?;
    let sending = thread::spawn(move || send(&sender, WARM_UP + MEASURED));
    tokio::time::sleep(WARM_UP).await;
    let (began, usage, broker) = (Instant::now(), instance.usage()?, lab.broker().await?);
    tokio::time::sleep(MEASURED).await;
    let took = began.elapsed();
    let (usage_after, broker_after) = (instance.usage()?, lab.broker().await?);
    let sent = sending
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let read = reader.finish(sent.values().map(Vec::len).sum()).await?;
    instance.terminate().await?;
    topic::delete_all(&app).await?;
    let mut latencies = latencies(&sent, &read, began)?;
    latencies.sort_by(f64::total_cmp);
    let mut values: Values = [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)]
        .into_iter()
        .map(|(id, part)| (id.to_owned(), quantile(&latencies, part)))
        .collect();
    values.insert("core_percent".into(), usage_after.cores_since(&usage, took));
    values.insert("peak_rss_mib".into(), usage_after.peak_rss_mib as f64);
    if let Some((before, after)) = broker.zip(broker_after) {
        values.insert(
            "broker_core_percent".into(),
            after.cores_since(&before, took),
        );
    }
    Ok(values)
}

/// When something happened to each object, in its order.
type Times = HashMap<Box<[u8]>, Vec<Instant>>;

/// Sends the load and tells when.
fn send(sender: &Sender, duration: Duration) -> Result<Times> {
    let started = Instant::now();
    let mut times = Times::new();
    let mut number = 0;
    while started.elapsed() < duration {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let due = (started.elapsed().as_secs_f64() * PER_SECOND as f64) as u64;
        while number < due {
            let report = report(number);
            let key = report.object_id.as_bytes().into();
            times.entry(key).or_default().push(Instant::now());
            sender.send(&report)?;
            number += 1;
        }
        sender.poll();
        thread::sleep(TICK);
    }
    sender.flush()?;
    Ok(times)
}

fn report(number: u64) -> SiteAttackReport {
    // Fewer than 10,000 objects, and far fewer than 2^63 reports.
    let object = usize::try_from(number % OBJECTS).unwrap_or(0);
    let attack = (number / OBJECTS).is_multiple_of(2);
    SiteAttackReport {
        object_id: Shape::object(object),
        agent_id: "agent-0001".into(),
        verdict: if attack {
            SiteAttackVerdict::UnderAttack
        } else {
            SiteAttackVerdict::Clear
        },
        observed_at_ms: jiff::Timestamp::now().as_millisecond(),
        sequence: i64::try_from(number).unwrap_or(i64::MAX),
        attack_kind: attack.then(|| "http-flood".to_owned()),
        requests_per_second: Some(100.0),
        detail: None,
    }
}

/// Reads states on a thread of its own, and notes when each came.
struct Reader {
    seen: Arc<Mutex<(usize, Times)>>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Reader {
    fn start(app: &e2e::Application) -> Result<Self> {
        let config = topic::clients(app.bootstrap()).consumer("bench-reader", "bench-reader");
        let mut fetcher = Fetcher::new(&config, 500)?;
        let states = Names::of(app.id()).states;
        for partition in 0..PARTITIONS {
            fetcher.assign(&states, partition, 0)?;
        }
        let seen = Arc::new(Mutex::new((0, Times::new())));
        let stop = Arc::new(AtomicBool::new(false));
        let (all, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let batch = fetcher.next(TICK);
                let now = Instant::now();
                let mut seen = all.lock().unwrap_or_else(PoisonError::into_inner);
                for fetched in batch.iter() {
                    if let Fetched::Record(_, record) = fetched {
                        let key = record.key.unwrap_or_default();
                        seen.0 += 1;
                        seen.1.entry(key.into()).or_default().push(now);
                    }
                }
            }
        });
        Ok(Self { seen, stop, thread })
    }

    /// Waits until so many were read, and returns when.
    async fn finish(self, wanted: usize) -> Result<Times> {
        let count = || self.seen.lock().unwrap_or_else(PoisonError::into_inner).0;
        let waited = e2e::eventually("all states are read", REST, async || {
            ensure!(count() >= wanted, "{} of {wanted}", count());
            Ok(())
        })
        .await;
        self.stop.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            bail!("the reader panicked");
        }
        waited?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut seen.1))
    }
}

/// The time from each report sent since `from` to its state, in ms.
fn latencies(sent: &Times, read: &Times, from: Instant) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for (key, sent) in sent {
        let name = || String::from_utf8_lossy(key).into_owned();
        let read = read
            .get(key)
            .with_context(|| format!("no state of {}", name()))?;
        ensure!(
            sent.len() == read.len(),
            "{}: {} reports, {} states",
            name(),
            sent.len(),
            read.len()
        );
        let pairs = sent.iter().zip(read).filter(|(sent, _)| **sent >= from);
        all.extend(pairs.map(|(sent, read)| read.duration_since(*sent).as_secs_f64() * 1e3));
    }
    ensure!(!all.is_empty(), "nothing was sent");
    Ok(all)
}

/// The value below which so large a part of these sorted values lies.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        for (part, value) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            assert!((quantile(&values, part) - value).abs() < 1e-9, "{part}");
        }
        assert!((quantile(&[7.0], 0.5) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn each_state_belongs_to_the_report_of_the_same_number() {
        let zero = Instant::now();
        let times = |all: &[u64]| -> Times {
            let all = all.iter().map(|ms| zero + Duration::from_millis(*ms));
            [(b"a".to_vec().into(), all.collect())].into()
        };
        let (sent, read) = (times(&[0, 10, 20]), times(&[50, 50, 70]));
        let mut found = latencies(&sent, &read, zero + Duration::from_millis(5)).unwrap();
        found.sort_by(f64::total_cmp);
        assert_eq!(found, [40.0, 50.0]);
        assert!(latencies(&sent, &times(&[50]), zero).is_err());
        assert!(latencies(&sent, &Times::new(), zero).is_err());
    }

    #[test]
    fn every_report_is_the_opposite_of_the_last() {
        for number in [0, 1, OBJECTS - 1] {
            let (one, two) = (report(number), report(number + OBJECTS));
            assert_eq!(one.object_id, two.object_id);
            assert_ne!(one.verdict, two.verdict);
        }
    }
}
