//! Bars for the document, as SVG and PNG: the median, with a line from the least to the greatest.

use std::path::Path;
use std::sync::Once;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::report::Spread;
use crate::results::Results;
use crate::systems::{OURS, STREAMS};
use crate::work::Work;

/// The same font on every machine. Its licence is beside it.
static FONT: &[u8] = include_bytes!("../font/Inter-Regular-latin.ttf");
const FAMILY: &str = "sans-serif";

const WIDTH: i32 = 960;
const BAR: i32 = 18;
const GAP: i32 = 14;
const TOP: i32 = 64;
const BOTTOM: i32 = 20;
/// Where bars begin.
const LEFT: i32 = 340;
/// How long the longest is.
const LENGTH: i32 = 470;

const INK: RGBColor = RGBColor(31, 41, 55);
const OUR_COLOUR: RGBColor = RGBColor(37, 99, 235);
const THEIR_COLOUR: RGBColor = RGBColor(217, 119, 6);
const OTHER_COLOUR: RGBColor = RGBColor(156, 163, 175);

/// What is drawn: a metric of a work.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// The file's name without its end.
    pub name: &'static str,
    work: Work,
    metric: &'static str,
    title: &'static str,
    digits: usize,
    unit: f64,
}

const fn plot(
    name: &'static str,
    work: Work,
    metric: &'static str,
    title: &'static str,
    digits: usize,
    unit: f64,
) -> Plot {
    Plot {
        name,
        work,
        metric,
        title,
        digits,
        unit,
    }
}

/// All of them.
pub const PLOTS: [Plot; 10] = [
    plot(
        "drain-cpu",
        Work::Drain,
        "reports_per_cpu_s",
        "Drain: 1000 reports per CPU second (more is better)",
        0,
        1e3,
    ),
    plot(
        "drain-wall",
        Work::Drain,
        "reports_per_s",
        "Drain: 1000 reports per second (more is better)",
        0,
        1e3,
    ),
    plot(
        "drain-broker",
        Work::Drain,
        "broker_cpu_s_per_million",
        "Drain: CPU seconds of the broker per million reports",
        2,
        1.0,
    ),
    plot(
        "drain-rss",
        Work::Drain,
        "peak_rss_mib",
        "Drain: peak memory, MiB",
        0,
        1.0,
    ),
    plot(
        "idle-rss",
        Work::Idle,
        "steady_rss_mib",
        "Idle: memory, MiB",
        0,
        1.0,
    ),
    plot(
        "latency-p99",
        Work::Latency,
        "p99_ms",
        "Report written to state read: p99, ms",
        0,
        1.0,
    ),
    plot(
        "latency-p50",
        Work::Latency,
        "p50_ms",
        "Report written to state read: p50, ms",
        0,
        1.0,
    ),
    plot(
        "restore",
        Work::Restore,
        "serving_ms",
        "Start to serving, seconds",
        2,
        1e3,
    ),
    plot(
        "takeover",
        Work::Takeover,
        "not_shown_ms",
        "Takeover: seconds until a report shows",
        1,
        1e3,
    ),
    plot(
        "growth",
        Work::Growth,
        "cpu_s_per_million",
        "Cost as things grow: CPU seconds per million reports",
        2,
        1.0,
    ),
];

/// Bars of one case.
struct Group {
    case: String,
    bars: Vec<(String, Spread)>,
}

impl Plot {
    /// Does it show a value of this work?
    #[must_use]
    pub fn is_of(&self, work: &str) -> bool {
        self.work.name() == work
    }

    fn groups(&self, results: &Results) -> Vec<Group> {
        let work = self.work.name();
        let cases = results.cases(work).into_iter().map(|case| {
            let variants = results.variants(work, case).into_iter();
            let bars = variants.filter_map(|variant| {
                let spread = results.spread(work, case, variant, self.metric)?;
                Some((variant.to_owned(), spread.divided_by(self.unit)))
            });
            Group {
                case: case.to_owned(),
                bars: bars.collect(),
            }
        });
        cases.filter(|group| !group.bars.is_empty()).collect()
    }

    /// Draws it into `folder`, as SVG and as PNG; returns whether there was something to draw.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn draw(&self, results: &Results, folder: &Path) -> Result<bool> {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // It is a font: only broken files are refused.
            let _ = register_font(FAMILY, FontStyle::Normal, FONT);
        });
        let groups = self.groups(results);
        if groups.is_empty() {
            return Ok(false);
        }
        let size = (WIDTH.unsigned_abs(), height(&groups).unsigned_abs());
        for end in ["svg", "png"] {
            let path = folder.join(format!("{}.{end}", self.name));
            let what = || format!("cannot draw {}", path.display());
            match end {
                "svg" => self.onto(&SVGBackend::new(&path, size).into_drawing_area(), &groups),
                _ => self.onto(
                    &BitMapBackend::new(&path, size).into_drawing_area(),
                    &groups,
                ),
            }
            .with_context(what)?;
        }
        Ok(true)
    }

    fn onto<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, plotters::coord::Shift>,
        groups: &[Group],
    ) -> Result<()> {
        let failed = |error: DrawingAreaErrorKind<B::ErrorType>| anyhow!("{error}");
        let text = |size: i32| (FAMILY, size).into_font().color(&INK);
        area.fill(&WHITE).map_err(failed)?;
        let title = Text::new(self.title, (20, 18), text(22));
        area.draw(&title).map_err(failed)?;
        let bars = || groups.iter().flat_map(|group| &group.bars);
        let greatest = bars()
            .map(|(_, spread)| spread.max)
            .fold(f64::MIN_POSITIVE, f64::max);
        #[allow(clippy::cast_possible_truncation)]
        let x = |value: f64| LEFT + (value / greatest * f64::from(LENGTH)).round() as i32;
        let right = Pos::new(HPos::Right, VPos::Center);
        let left = Pos::new(HPos::Left, VPos::Center);
        let mut y = TOP;
        for group in groups {
            area.draw(&Text::new(group.case.as_str(), (20, y), text(16)))
                .map_err(failed)?;
            y += BAR + 4;
            for (variant, spread) in &group.bars {
                let middle = y + BAR / 2;
                let name = Text::new(variant.as_str(), (LEFT - 8, middle), text(16).pos(right));
                area.draw(&name).map_err(failed)?;
                let corners = [(LEFT, y + 1), (x(spread.median), y + BAR - 1)];
                area.draw(&Rectangle::new(corners, colour(variant).filled()))
                    .map_err(failed)?;
                let ends = vec![(x(spread.min), middle), (x(spread.max), middle)];
                area.draw(&PathElement::new(ends, INK.stroke_width(1)))
                    .map_err(failed)?;
                let value = format!("{:.*}", self.digits, spread.median);
                let at = (x(spread.max) + 8, middle);
                area.draw(&Text::new(value, at, text(16).pos(left)))
                    .map_err(failed)?;
                y += BAR + 2;
            }
            y += GAP;
        }
        area.present().map_err(failed)
    }
}

fn colour(variant: &str) -> RGBColor {
    if variant.starts_with(OURS) {
        OUR_COLOUR
    } else if variant.starts_with(STREAMS) {
        THEIR_COLOUR
    } else {
        OTHER_COLOUR
    }
}

fn height(groups: &[Group]) -> i32 {
    let group = |group: &Group| {
        let bars = i32::try_from(group.bars.len()).unwrap_or(0);
        BAR + 4 + bars * (BAR + 2) + GAP
    };
    TOP + groups.iter().map(group).sum::<i32>() + BOTTOM
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::sample;

    #[test]
    fn a_plot_is_drawn_with_its_numbers() {
        let results = sample(&[
            ("drain", "few", OURS, &[("reports_per_cpu_s", 800_000.0)]),
            ("drain", "few", STREAMS, &[("reports_per_cpu_s", 90_000.0)]),
        ]);
        let folder = tempfile::tempdir().unwrap();
        assert!(PLOTS[0].draw(&results, folder.path()).unwrap());
        let svg = std::fs::read_to_string(folder.path().join("drain-cpu.svg")).unwrap();
        for text in ["800", "90", OURS, STREAMS] {
            assert!(svg.contains(text), "{text} is missing");
        }
        let png = std::fs::read(folder.path().join("drain-cpu.png")).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        assert!(!PLOTS[4].draw(&results, folder.path()).unwrap());
    }
}
