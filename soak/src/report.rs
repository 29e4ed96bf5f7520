//! What a soak tells: a line for each fault, a line for each check, a table at the end; the same as JSON, and several of
//! those added up as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::checker::{Class, Finding};
use crate::faults::inject::Done;

/// What happened with one kind of fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// How many there were.
    pub count: u64,
    /// What was found between such a fault and the next of any kind.
    pub lost: u64,
    /// Likewise.
    pub doubled: u64,
    /// Likewise.
    pub wrong: u64,
    /// Times until survivors served all of the victim's partitions, in ms.
    pub takeovers_ms: Vec<i64>,
    /// Longest pauses of a partition that was hit, in ms.
    pub pauses_ms: Vec<i64>,
    /// Longest pauses of a partition that was not, in ms.
    pub untouched_ms: Vec<i64>,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// How to repeat it.
    pub command: String,
    /// Time during which faults were injected, in s.
    pub seconds: u64,
    /// Source records that were checked.
    pub records: u64,
    /// Records that the soak's own producer wrote twice, when a broker was killed.
    #[serde(default)]
    pub twins: u64,
    /// Expiries that were published.
    pub expiries: u64,
    /// By how much an expiry was late at most, in ms.
    pub late_ms: i64,
    /// Rounds of checks.
    pub rounds: u64,
    /// The longest check, in ms.
    pub check_ms: u64,
    /// By kind of fault.
    pub kinds: BTreeMap<String, Row>,
    /// What was found.
    pub findings: Vec<String>,
}

impl Report {
    /// A fault is over. What came to nothing is none.
    pub fn fault(&mut self, done: &Done) {
        if done.missed {
            return;
        }
        let row = self.kinds.entry(done.step.kind.to_string()).or_default();
        row.count += 1;
        row.takeovers_ms.extend(done.takeover_ms);
        row.pauses_ms.extend(done.pause_ms);
        row.untouched_ms.extend(done.untouched_ms);
    }

    /// Something was found, after these faults.
    pub fn finding(&mut self, finding: &Finding, faults: &[Done]) {
        self.findings.push(finding.to_string());
        // The last fault that had begun; of one that is not dated, the last of all.
        let at_ms = finding.at_ms.unwrap_or(i64::MAX);
        let before = faults.iter().filter(|done| done.from_ms <= at_ms);
        let after = before.max_by_key(|done| done.from_ms);
        let kind = after.map_or("none".to_owned(), |done| done.step.kind.to_string());
        let row = self.kinds.entry(kind).or_default();
        match finding.class {
            Class::Lost => row.lost += 1,
            Class::Doubled => row.doubled += 1,
            Class::Wrong => row.wrong += 1,
        }
    }

    /// Faults in all.
    pub fn faults(&self) -> u64 {
        self.kinds.values().map(|row| row.count).sum()
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.records += other.records;
        self.twins += other.twins;
        self.expiries += other.expiries;
        self.late_ms = self.late_ms.max(other.late_ms);
        self.rounds += other.rounds;
        self.check_ms = self.check_ms.max(other.check_ms);
        self.findings.extend(other.findings.iter().cloned());
        for (kind, row) in &other.kinds {
            self.kinds.entry(kind.clone()).or_default().add(row);
        }
    }

    /// The table, for a terminal and for Markdown alike.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let head = [
            "fault",
            "count",
            "lost",
            "doubled",
            "wrong",
            "takeover: median",
            "p99",
            "max",
            "longest pause: hit",
            "not hit",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        let mut all = Row::default();
        for (kind, row) in &self.kinds {
            all.add(row);
            lines.push(row.cells(kind));
        }
        lines.push(all.cells("all"));
        let width = |column: usize| lines.iter().map(|l| l[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for (number, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(&widths).enumerate();
            let cells: Vec<String> = cells
                .map(|(i, (cell, width))| match i {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if number == 0 {
                let rules: Vec<String> = widths
                    .iter()
                    .enumerate()
                    .map(|(i, width)| match i {
                        0 => "-".repeat(width + 2),
                        _ => format!("{}:", "-".repeat(width + 1)),
                    })
                    .collect();
                let _ = writeln!(text, "|{}|", rules.join("|"));
            }
        }
        text
    }

    /// One sentence.
    pub fn summary(&self) -> String {
        format!(
            "{} faults in {} min {} s, {} records checked in {} rounds (the longest took {:.1} s), {} expiries (the latest \
             {:.1} s late, with everything that was broken meanwhile), {} findings",
            self.faults(),
            self.seconds / 60,
            self.seconds % 60,
            self.records,
            self.rounds,
            seconds(i64::try_from(self.check_ms).unwrap_or(i64::MAX)),
            self.expiries,
            seconds(self.late_ms),
            self.findings.len()
        )
    }
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.wrong += other.wrong;
        self.takeovers_ms.extend(&other.takeovers_ms);
        self.pauses_ms.extend(&other.pauses_ms);
        self.untouched_ms.extend(&other.untouched_ms);
    }

    fn cells(&self, kind: &str) -> [String; 10] {
        let time = |of: &[i64], percent| {
            quantile(of, percent).map_or("-".to_owned(), |ms| format!("{:.2} s", seconds(ms)))
        };
        [
            kind.to_owned(),
            self.count.to_string(),
            self.lost.to_string(),
            self.doubled.to_string(),
            self.wrong.to_string(),
            time(&self.takeovers_ms, 50),
            time(&self.takeovers_ms, 99),
            time(&self.takeovers_ms, 100),
            time(&self.pauses_ms, 100),
            time(&self.untouched_ms, 100),
        ]
    }
}

/// The smallest value that so many of a hundred do not exceed.
fn quantile(values: &[i64], percent: usize) -> Option<i64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// ms as s, for people.
fn seconds(ms: i64) -> f64 {
    std::time::Duration::from_millis(ms.unsigned_abs()).as_secs_f64()
}

/// Adds up the results of several runs, as Markdown.
///
/// # Errors
/// A file is not the result of a run.
pub fn sum(files: &[PathBuf]) -> Result<String> {
    let mut all = Report::default();
    let mut text = String::new();
    for file in files {
        let context = || format!("{}", file.display());
        let json = std::fs::read_to_string(file).with_context(context)?;
        let report: Report = serde_json::from_str(&json).with_context(context)?;
        let _ = writeln!(text, "- `{}`: {}", report.command, report.summary());
        all.add(&report);
    }
    let _ = writeln!(text, "\nIn all: {}.\n\n{}", all.summary(), all.table());
    for finding in &all.findings {
        let _ = writeln!(text, "- {finding}");
    }
    Ok(text)
}

/// A line about a fault.
pub fn line(done: &Done, start_ms: i64) -> String {
    let time = |name: &str, ms: Option<i64>| {
        ms.map_or(String::new(), |ms| format!("  {name} {:.2} s", seconds(ms)))
    };
    let healed = match &done.unhealed {
        None if done.missed => "hit nothing: does not count".to_owned(),
        None => format!("healed after {:.1} s", seconds(done.to_ms - done.from_ms)),
        Some(why) => format!("DID NOT HEAL: {why}"),
    };
    format!(
        "{:>7.1} s  #{:<4} {:<22} {:<5} {healed}{}{}{}  {}",
        seconds(done.from_ms - start_ms),
        done.step.number,
        done.step.kind,
        done.victim.as_deref().unwrap_or(""),
        time("taken over in", done.takeover_ms),
        time("pause", done.pause_ms),
        time("others'", done.untouched_ms),
        done.note
    )
}

#[cfg(test)]
mod tests;
