//! A backlog of reports: how fast it is worked off, and what that takes of the machine.
//!
//! Counted from the first record that a system has processed (so without its start, but with its JVM cold) to
//! the commit of the last. The second half is told apart: a JVM is warm by then.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::limit;
use super::waiting::all_committed;
use crate::input::Sender;
use crate::lab::{Lab, PARTITIONS};
use crate::load::{Load, Order};
use crate::machine::Usage;
use crate::report::Spread;
use crate::results::Values;
use crate::run::Run;
use crate::systems::{Instance, Variant};
use crate::topic::{self, Content};

/// How long one drain may take.
const PATIENCE: Duration = Duration::from_mins(15);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Names of the cases: targets and plots refer to them.
pub const FEW: &str = "100,000 objects";
/// As [`FEW`], ten reports of an object one after another.
pub const BURSTS: &str = "100,000 objects, bursts of 10";
/// More than caches hold.
pub const MANY: &str = "2,000,000 objects";

/// Seconds that the preparation is expected to take, and a round.
pub(crate) const SECONDS: (f64, f64) = (20.0, 210.0);

/// Measures both systems, and librdkafka alone.
///
/// # Errors
/// Results cannot be written, or the broker cannot be warmed up.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    const REPORTS: u64 = 3_000_000;
    let reports = run.scaled(REPORTS);
    let few = Load::uniform(reports, run.objects(100_000), 10);
    let bursts = Load {
        order: Order::Bursts(10),
        ..few.clone()
    };
    let many = Load::uniform(reports, run.objects(2_000_000), 10);
    // The broker's compiler has seen no transaction yet: without that, whoever is first would be measured beside it.
    run.now("drain: the broker warms up");
    Plan::new(&Variant::ours(), &few).drain(run.lab).await?;
    run.passed(SECONDS.0);
    for round in 1..=run.rounds {
        for (case, load, streams) in [
            (FEW, &few, Variant::streams()),
            (BURSTS, &bursts, Variant::streams()),
            (MANY, &many, Variant::streams().uncached()),
        ] {
            let at = ("drain", case, round);
            let lab = run.lab;
            let ours = Variant::ours();
            let plan = Plan::new(&ours, load);
            let drained = run.step(at, &ours, 20.0, plan.drain(lab)).await?;
            let plan = Plan::new(&streams, load);
            run.step(at, &streams, 50.0, plan.drain(lab)).await?;
            if let (FEW | MANY, Some(drained)) = (case, drained) {
                let variant = limit::variant();
                let measuring = limit::pass_through(lab, load, &drained);
                run.step(at, &variant, 15.0, measuring).await?;
            }
        }
    }
    Ok(())
}

/// A drain to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'v> {
    variant: &'v Variant,
    /// What is drained before anything is measured.
    before: Option<Load>,
    load: Load,
    partitions: u32,
}

impl<'v> Plan<'v> {
    pub(crate) fn new(variant: &'v Variant, load: &Load) -> Self {
        Self {
            variant,
            before: None,
            load: load.clone(),
            partitions: PARTITIONS,
        }
    }

    /// Measured is what comes after `before`.
    pub(crate) fn after(mut self, before: Load) -> Self {
        self.load = self.load.after(&before);
        self.before = Some(before);
        self
    }

    pub(crate) fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Fills a source topic, has an instance work it off, and counts what it wrote.
    pub(crate) async fn drain(self, lab: &Lab) -> Result<Values> {
        let app = lab.application("drain")?;
        lab.source_topic_of(&app, self.partitions).await?;
        let sender = Sender::to(&app).await?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        tokio::task::block_in_place(|| {
            for load in self.before.iter().chain([&self.load]) {
                sender.send_all(load.reports(now_ms))?;
            }
            anyhow::Ok(())
        })?;
        drop(sender);
        let mut instance = self.variant.start(lab, &app, "a")?;
        let before = self.before.as_ref().map_or(0, |load| load.reports);
        let watched = watch(lab, &instance, &app, before, self.load.reports).await?;
        instance.terminate().await?;
        let written = topic::produced(&app).await?;
        let mut values = watched.values(written);
        let store_mib = bytes_in(&app.state_dir("a"))? as f64 / f64::from(1 << 20);
        values.insert("store_mib".to_owned(), store_mib);
        topic::delete_all(&app).await?;
        Ok(values)
    }
}

/// Bytes of all files in a folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    let what = || format!("cannot look into {}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            bytes_in(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}

/// What was seen of a drain.
struct Watched {
    begun: Moment,
    half: Moment,
    ended: Moment,
    /// What the broker had taken at the beginning and at the end, if it is ours to look at.
    broker: Option<(Usage, Usage)>,
    /// Resident memory during the second half, in MiB.
    rss_mib: Vec<f64>,
}

/// Watches an instance work off `reports` reports that follow `before` others.
async fn watch(
    lab: &Lab,
    instance: &Instance,
    app: &e2e::Application,
    before: u64,
    reports: u64,
) -> Result<Watched> {
    let mut rss_mib = Vec::new();
    instance.url().await?;
    let begun = reached(instance, before + 1, &mut rss_mib).await?;
    let broker = lab.broker().await?;
    ensure!(
        begun.records < before + reports,
        "all was done at the first look: too few reports to measure with"
    );
    let half = reached(instance, before + reports / 2, &mut rss_mib).await?;
    rss_mib.clear();
    reached(instance, before + reports, &mut rss_mib).await?;
    all_committed(app, PATIENCE).await?;
    let ended = Moment::now(instance, before + reports)?;
    let broker = broker.zip(lab.broker().await?);
    rss_mib.push(ended.usage.rss_mib as f64);
    Ok(Watched {
        begun,
        half,
        ended,
        broker,
        rss_mib,
    })
}

impl Watched {
    fn values(self, (changelog, states): (Content, Content)) -> Values {
        let (begun, half, ended) = (&self.begun, &self.half, &self.ended);
        let million = |from: &Moment| (ended.records - from.records) as f64 / 1e6;
        let cpu = |from: &Moment| ended.usage.cpu_s - from.usage.cpu_s;
        let seconds = ended.at.duration_since(begun.at).as_secs_f64();
        let per_million = cpu(begun) / million(begun);
        let mut values = vec![
            ("seconds", seconds),
            ("reports_per_s", million(begun) * 1e6 / seconds),
            ("cpu_s", cpu(begun)),
            ("cpu_s_per_million", per_million),
            ("reports_per_cpu_s", 1e6 / per_million),
            ("peak_rss_mib", ended.usage.peak_rss_mib as f64),
            ("changelog_records", changelog.records as f64),
            ("changelog_bytes", changelog.mean_bytes()),
            ("state_records", states.records as f64),
            ("state_bytes", states.mean_bytes()),
        ];
        if million(half) > 0.0 {
            values.push(("warm_cpu_s_per_million", cpu(half) / million(half)));
        }
        if let Some(steady) = Spread::of(self.rss_mib) {
            values.push(("steady_rss_mib", steady.median));
        }
        if let Some((before, after)) = self.broker {
            let took = after.cpu_s - before.cpu_s;
            values.push(("broker_cpu_s", took));
            values.push(("broker_cpu_s_per_million", took / million(begun)));
        }
        let values = values.into_iter();
        values.map(|(id, value)| (id.to_owned(), value)).collect()
    }
}

/// Where a system was at some moment.
struct Moment {
    at: Instant,
    records: u64,
    usage: Usage,
}

impl Moment {
    fn now(instance: &Instance, records: u64) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            records,
            usage: instance.usage()?,
        })
    }
}

/// The first moment at which so many records are processed.
async fn reached(instance: &Instance, records: u64, rss_mib: &mut Vec<f64>) -> Result<Moment> {
    let started = Instant::now();
    loop {
        // While a service starts, it cannot tell yet.
        let processed = instance.processed().await.unwrap_or(0);
        let moment = Moment::now(instance, processed)?;
        rss_mib.push(moment.usage.rss_mib as f64);
        if processed >= records {
            return Ok(moment);
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "{processed} records after {PATIENCE:?}:\n{}",
            devkit::process::tail(instance.log())
        );
        tokio::time::sleep(LOOK).await;
    }
}
