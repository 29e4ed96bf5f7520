//! One `bench run`: which works, how often, how far it is, and what was measured so far.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::lab::Lab;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::results::{Measurement, Results, Values};
use crate::systems::Variant;

/// A run under way.
pub struct Run<'l> {
    /// The servers and the peer.
    pub lab: &'l Lab,
    /// How often everything is measured.
    pub rounds: usize,
    scale: f64,
    progress: Progress,
    results: Results,
    file: PathBuf,
    started: Instant,
}

impl<'l> Run<'l> {
    /// A run that writes what it measures into `file` and expects to take `expected_s`.
    #[must_use]
    pub fn new(
        lab: &'l Lab,
        works: Vec<String>,
        rounds: usize,
        scale: f64,
        expected_s: f64,
        file: PathBuf,
    ) -> Self {
        Self {
            lab,
            rounds,
            scale,
            progress: Progress::of(expected_s),
            results: Results {
                at: jiff::Timestamp::now().to_string(),
                took_s: 0.0,
                machine: Machine::this(),
                software: lab.software(),
                rounds,
                scale,
                works,
                settings: BTreeMap::new(),
                measurements: Vec::new(),
                failures: Vec::new(),
            },
            file,
            started: Instant::now(),
        }
    }

    /// So many reports or objects of the full size, at the scale of this run.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn scaled(&self, full: u64) -> u64 {
        ((full as f64 * self.scale) as u64).max(100)
    }

    /// [`Self::scaled`] for objects.
    #[must_use]
    pub fn objects(&self, full: u64) -> usize {
        usize::try_from(self.scaled(full)).unwrap_or(usize::MAX)
    }

    /// What happens now.
    pub fn now(&self, what: &str) {
        self.progress.now(what);
    }

    /// A preparation is done that was expected to take `seconds`.
    pub fn passed(&self, seconds: f64) {
        self.progress.passed(seconds);
    }

    /// Does one step, that is expected to take `seconds`, and keeps what it measured. A step that fails is told at
    /// the end; the others go on. Returns whether it succeeded.
    ///
    /// # Errors
    /// The results cannot be written.
    pub async fn step(
        &mut self,
        (work, case, round): (&str, &str, usize),
        variant: &Variant,
        seconds: f64,
        measuring: impl Future<Output = Result<Values>>,
    ) -> Result<Option<Values>> {
        let name = format!("{work}, {case}, {}, round {round}", variant.name);
        self.progress.now(&name);
        self.settings(work, variant);
        let measured = measuring.await;
        let text = match &measured {
            Ok(values) => format!("{name}: {}", headline(values)),
            Err(error) => format!("{name} failed: {error:#}"),
        };
        self.progress.done(&text, seconds);
        let values = match measured {
            Ok(values) => {
                self.results.measurements.push(Measurement {
                    work: work.to_owned(),
                    case: case.to_owned(),
                    variant: variant.name.clone(),
                    round,
                    values: values.clone(),
                });
                Some(values)
            }
            Err(_) => {
                self.results.failures.push(text);
                None
            }
        };
        self.results.took_s = self.started.elapsed().as_secs_f64();
        self.results.write(&self.file)?;
        Ok(values)
    }

    fn settings(&mut self, work: &str, variant: &Variant) {
        let mut settings = variant.settings.clone();
        if let Some(jvm) = &variant.jvm {
            settings.insert("JVM".to_owned(), jvm.join(" "));
        }
        let key = format!("{work}: {}", variant.name);
        self.results.settings.insert(key, settings);
    }

    /// Everything measured.
    #[must_use]
    pub fn results(self) -> Results {
        self.results
    }
}

/// The first values of a run, to be read while the next is on its way.
fn headline(values: &Values) -> String {
    let metrics = crate::results::METRICS.iter();
    let found = metrics.filter_map(|metric| {
        let value = values.get(metric.id)? / metric.unit;
        Some(format!("{} {value:.*}", metric.heading, metric.digits))
    });
    found.take(4).collect::<Vec<_>>().join("; ")
}
