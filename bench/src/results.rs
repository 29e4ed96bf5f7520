//! What was measured: every run with its values, and the least, middle and greatest of several.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::report::{Spread, Table, show};

/// Values of one run by the id of their metric.
pub type Values = BTreeMap<String, f64>;

/// A kind of value.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its id, in files.
    pub id: &'static str,
    /// Its heading, in tables.
    pub heading: &'static str,
    /// Digits after the point, in tables.
    pub digits: usize,
    /// By what it is divided, in tables.
    pub unit: f64,
}

const fn metric(id: &'static str, heading: &'static str, digits: usize, unit: f64) -> Metric {
    Metric {
        id,
        heading,
        digits,
        unit,
    }
}

/// All metrics in the order of columns. A table has those that its runs have.
pub const METRICS: &[Metric] = &[
    metric("reports_per_s", "1000 reports/s", 0, 1e3),
    metric("cpu_s_per_million", "CPU-s per million", 2, 1.0),
    metric("warm_cpu_s_per_million", "second half of it", 2, 1.0),
    metric("reports_per_cpu_s", "1000 reports/CPU-s", 0, 1e3),
    metric(
        "broker_cpu_s_per_million",
        "broker CPU-s per million",
        2,
        1.0,
    ),
    metric("p50_ms", "p50, ms", 1, 1.0),
    metric("p99_ms", "p99, ms", 1, 1.0),
    metric("p999_ms", "p99.9, ms", 1, 1.0),
    metric("serving_ms", "serving after, ms", 0, 1.0),
    metric("records", "changelog records read, 1000", 0, 1e3),
    metric("records_per_s", "1000 records/s", 0, 1e3),
    metric("records_per_cpu_s", "1000 records/CPU-s", 0, 1e3),
    metric("no_answer_ms", "no answer, ms", 0, 1.0),
    metric("not_shown_ms", "report not shown, ms", 0, 1.0),
    metric("detected_ms", "detected, ms", 0, 1.0),
    metric("planned_ms", "planned, ms", 0, 1.0),
    metric("fenced_ms", "fenced, ms", 0, 1.0),
    metric("caught_up_ms", "caught up, ms", 0, 1.0),
    metric("stale_answers", "stale answers", 0, 1.0),
    metric("seconds", "wall time, s", 1, 1.0),
    metric("cpu_s", "CPU, s", 1, 1.0),
    metric("broker_cpu_s", "broker CPU, s", 1, 1.0),
    metric("core_percent", "% of a core", 1, 0.01),
    metric("broker_core_percent", "broker, % of a core", 1, 0.01),
    metric("peak_rss_mib", "peak RSS, MiB", 0, 1.0),
    metric("steady_rss_mib", "steady RSS, MiB", 0, 1.0),
    metric("store_mib", "store, MiB", 0, 1.0),
    metric("changelog_records", "changelog records, 1000", 0, 1e3),
    metric("changelog_bytes", "bytes of one", 0, 1.0),
    metric("state_records", "states, 1000", 0, 1e3),
    metric("state_bytes", "bytes of one", 0, 1.0),
];

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The work, such as `drain`.
    pub work: String,
    /// A case of it, such as `100,000 objects`.
    pub case: String,
    /// Who did it.
    pub variant: String,
    /// Counted from 1.
    pub round: usize,
    /// What was measured.
    pub values: Values,
}

/// Everything of one `bench run`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// When it began.
    pub at: String,
    /// How long it took so far, in seconds.
    pub took_s: f64,
    /// Where.
    pub machine: Machine,
    /// What it was done with: versions.
    pub software: BTreeMap<String, String>,
    /// Rounds asked for.
    pub rounds: usize,
    /// Part of the full sizes; 1 is the real thing.
    pub scale: f64,
    /// The works that were asked for.
    pub works: Vec<String>,
    /// The settings of each variant of each work.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Every run.
    pub measurements: Vec<Measurement>,
    /// Runs that failed, with why.
    pub failures: Vec<String>,
}

impl Results {
    /// Reads them from a file.
    ///
    /// # Errors
    /// There is no such file, or it is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot read {}", path.display());
        let text = fs::read_to_string(path).with_context(what)?;
        serde_json::from_str(&text).with_context(what)
    }

    /// Writes them into a file, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let what = || format!("cannot write {}", path.display());
        let text = serde_json::to_string_pretty(self)?;
        let new = path.with_extension("json.new");
        fs::write(&new, text + "\n").with_context(what)?;
        fs::rename(&new, path).with_context(what)
    }

    /// The results of each round by themselves.
    pub fn each_round(&self) -> impl Iterator<Item = Self> {
        let rounds: BTreeSet<usize> = self.measurements.iter().map(|run| run.round).collect();
        rounds.into_iter().map(|round| {
            let runs = self.measurements.iter().filter(|run| run.round == round);
            Self {
                measurements: runs.cloned().collect(),
                ..self.clone()
            }
        })
    }

    /// The runs of a variant in a case of a work.
    pub fn runs<'r>(
        &'r self,
        work: &'r str,
        case: &'r str,
        variant: &'r str,
    ) -> impl Iterator<Item = &'r Measurement> {
        self.measurements
            .iter()
            .filter(move |run| run.work == work && run.case == case && run.variant == variant)
    }

    /// Least, middle and greatest of a value; `None` if it was not measured.
    #[must_use]
    pub fn spread(&self, work: &str, case: &str, variant: &str, id: &str) -> Option<Spread> {
        let runs = self.runs(work, case, variant);
        Spread::of(runs.filter_map(|run| run.values.get(id).copied()))
    }

    /// The middle of a value.
    #[must_use]
    pub fn median(&self, work: &str, case: &str, variant: &str, id: &str) -> Option<f64> {
        Some(self.spread(work, case, variant, id)?.median)
    }

    /// The cases of a work in the order in which they were measured first.
    #[must_use]
    pub fn cases(&self, work: &str) -> Vec<&str> {
        let runs = self.measurements.iter().filter(|run| run.work == work);
        in_order(runs.map(|run| run.case.as_str()))
    }

    /// The variants of a case in the order in which they were measured first.
    #[must_use]
    pub fn variants(&self, work: &str, case: &str) -> Vec<&str> {
        let of_case = |run: &&Measurement| run.work == work && run.case == case;
        let runs = self.measurements.iter().filter(of_case);
        in_order(runs.map(|run| run.variant.as_str()))
    }

    /// One table of a work: a row for each variant of each case.
    #[must_use]
    pub fn table(&self, work: &str) -> Table {
        let own = |run: &&Measurement| run.work == work;
        let has = |metric: &&Metric| {
            let mut runs = self.measurements.iter().filter(own);
            runs.any(|run| run.values.contains_key(metric.id))
        };
        let metrics: Vec<_> = METRICS.iter().filter(has).collect();
        let mut headings = vec!["case", "system"];
        headings.extend(metrics.iter().map(|metric| metric.heading));
        let mut table = Table::new(&headings);
        for case in self.cases(work) {
            for variant in self.variants(work, case) {
                let mut row = vec![case.to_owned(), variant.to_owned()];
                row.extend(metrics.iter().map(|metric| {
                    let spread = self.spread(work, case, variant, metric.id);
                    show(
                        spread.map(|spread| spread.divided_by(metric.unit)),
                        metric.digits,
                    )
                }));
                table.row(row);
            }
        }
        table
    }
}

fn in_order<'t>(names: impl Iterator<Item = &'t str>) -> Vec<&'t str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// Work, case, variant and values of a run to try things with.
#[cfg(test)]
type Sample<'s> = (&'s str, &'s str, &'s str, &'s [(&'s str, f64)]);

/// Results to try things with.
#[cfg(test)]
pub(crate) fn sample(runs: &[Sample<'_>]) -> Results {
    Results {
        at: "2026-01-01T00:00:00Z".into(),
        took_s: 60.0,
        machine: Machine::this(),
        software: BTreeMap::new(),
        rounds: 1,
        scale: 1.0,
        works: in_order(runs.iter().map(|run| run.0))
            .iter()
            .map(|&work| work.to_owned())
            .collect(),
        settings: BTreeMap::new(),
        measurements: runs
            .iter()
            .map(|(work, case, variant, values)| Measurement {
                work: (*work).into(),
                case: (*case).into(),
                variant: (*variant).into(),
                round: 1,
                values: values.iter().map(|(id, v)| ((*id).into(), *v)).collect(),
            })
            .collect(),
        failures: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_variant_and_the_columns_that_were_measured() {
        let results = sample(&[
            ("drain", "few", "a", &[("reports_per_s", 1_000_000.0)]),
            ("drain", "few", "b", &[("cpu_s_per_million", 10.5)]),
            ("drain", "few", "a", &[("reports_per_s", 3_000_000.0)]),
            ("other", "x", "a", &[("p50_ms", 1.0)]),
        ]);
        let text = results.table("drain").text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[0].contains("1000 reports/s") && !lines[0].contains("p50"),
            "{text}"
        );
        assert!(lines[2].contains("1000 / 2000 / 3000"), "{text}");
        assert!(lines[3].contains("10.50"), "{text}");
    }

    #[test]
    fn results_come_back_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let results = sample(&[("drain", "few", "a", &[("p50_ms", 1.5)])]);
        results.write(&path).unwrap();
        let read = Results::read(&path).unwrap();
        assert_eq!(read.measurements, results.measurements);
        assert!(Results::read(folder.path()).is_err());
    }
}
