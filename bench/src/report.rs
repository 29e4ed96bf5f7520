//! What was measured, for people (a table) and for programs (a JSON file).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::machine::Machine;

/// Least, middle and greatest of several measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these; `None` of none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { min, median, max })
    }

    /// `min / median / max` with so many digits after the point; once if all are the same.
    #[must_use]
    pub fn show(&self, digits: usize) -> String {
        let Self { min, median, max } = self;
        let (least, greatest) = (format!("{min:.digits$}"), format!("{max:.digits$}"));
        if least == greatest {
            return least;
        }
        format!("{least} / {median:.digits$} / {greatest}")
    }

    /// The same in another unit.
    #[must_use]
    pub fn divided_by(&self, unit: f64) -> Self {
        Self {
            min: self.min / unit,
            median: self.median / unit,
            max: self.max / unit,
        }
    }
}

/// Shows a spread, or a dash where nothing was measured.
#[must_use]
pub fn show(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| spread.show(digits))
}

/// A table that reads well in a terminal and as Markdown.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|&text| text.to_owned()).collect();
        Self {
            rows: vec![headings],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table's text.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, i: usize| row.get(i).cloned().unwrap_or_default();
        let width = |i| {
            self.rows
                .iter()
                .map(move |row| cell(row, i).chars().count())
        };
        let widths: Vec<usize> = (0..columns).map(|i| width(i).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (i, width) in widths.iter().enumerate() {
                let _ = write!(text, "| {:width$} ", cell(row, i));
            }
            text.push_str("|\n");
            if number == 0 {
                for width in &widths {
                    let _ = write!(text, "|{}", "-".repeat(width + 2));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// A result with where and when it was measured.
#[derive(Debug, Serialize)]
pub struct Report<'a, T> {
    /// The work.
    pub work: &'a str,
    /// When it ended.
    pub at: String,
    /// Where.
    pub machine: Machine,
    /// What was asked for.
    pub settings: serde_json::Value,
    /// What was measured, run by run.
    pub runs: &'a [T],
}

impl<'a, T: Serialize> Report<'a, T> {
    /// A report of now and here.
    #[must_use]
    pub fn new(work: &'a str, settings: serde_json::Value, runs: &'a [T]) -> Self {
        Self {
            work,
            at: jiff::Timestamp::now().to_string(),
            machine: Machine::this(),
            settings,
            runs,
        }
    }

    /// Writes it into a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of([]), None);
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(spread.show(1), "1.0 / 2.0 / 3.0");
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().show(1), "1.0 / 1.5 / 2.0");
        assert_eq!(Spread::of([1.0]).unwrap().divided_by(2.0).show(1), "0.5");
        assert_eq!(show(None, 0), "-");
    }

    #[test]
    fn a_table_is_aligned() {
        let mut table = Table::new(&["a", "long"]);
        table.row(vec!["value".into(), "1".into()]);
        let lines = [
            "| a     | long |",
            "|-------|------|",
            "| value | 1    |",
            "",
        ];
        assert_eq!(table.text(), lines.join("\n"));
    }
}
