//! `docs/performance.md` and its plots, made of the results: no figure in it is written by hand.
//!
//! `document/template.md` is the text. `{{name}}` in it is filled in: `machine`, `software`, `run`, `targets`,
//! `settings`, `table WORK`, `plots WORK`, `value WORK | CASE | SYSTEM | METRIC`, `tried` (what `bench tune --tried` has
//! measured), `flames` (what `bench flame` has drawn).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::plots::PLOTS;
use crate::results::{METRICS, Results};
use crate::systems::{OURS, STREAMS};
use crate::targets;

/// The text around the figures.
const TEMPLATE: &str = include_str!("document/template.md");
/// The document's name in its folder, and that of the folder beside it with the plots.
const NAME: &str = "performance";

/// What `bench tune` leaves beside the plots.
pub const TUNED: &str = "tune.json";
/// What `bench flame` leaves there.
pub const FLAMES: [(&str, &str); 2] = [("flame-ours.svg", OURS), ("flame-streams.svg", STREAMS)];

/// Writes the document and its plots into `folder`.
///
/// # Errors
/// A file cannot be written.
pub fn write(results: &Results, folder: &Path) -> Result<()> {
    let plots = folder.join(NAME);
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let mut drawn = Vec::new();
    for plot in PLOTS {
        if plot.draw(results, &plots)? {
            drawn.push(plot.name);
        }
    }
    let tuned = plots.join(TUNED);
    let tuned = if tuned.is_file() {
        Some(Results::read(&tuned)?)
    } else {
        None
    };
    let text = fill(TEMPLATE, |name| match name {
        "tried" => Ok(tuned
            .as_ref()
            .map_or_else(missing, |tuned| tuned.table("tune").text())),
        "flames" => Ok(flames(&plots)),
        _ => part(results, &drawn, name),
    })?;
    let path = folder.join(format!("{NAME}.md"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces each `{{name}}`.
fn fill(template: &str, part: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").context("a {{ has no }}")?;
        text += before;
        text += &part(name.trim())?;
        rest = after;
    }
    Ok(text + rest)
}

fn part(results: &Results, drawn: &[&str], name: &str) -> Result<String> {
    let (kind, of) = name.split_once(' ').unwrap_or((name, ""));
    Ok(match kind {
        "machine" => machine(results),
        "software" => list(
            results
                .software
                .iter()
                .map(|(name, v)| format!("{name} {v}")),
        ),
        "run" => about(results),
        "targets" => targets::table(results).text(),
        "settings" => settings(results),
        "table" => table(results, of),
        "plots" => plots(drawn, of),
        "value" => value(results, of)?,
        _ => bail!("the template asks for {name}, which does not exist"),
    })
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    let gib = machine.memory_mib as f64 / 1024.0;
    format!(
        "{} cores of an {}, {gib:.0} GiB of memory, Linux {}",
        machine.cores, machine.processor, machine.system
    )
}

fn about(results: &Results) -> String {
    let day = results.at.split('T').next().unwrap_or_default();
    let minutes = results.took_s / 60.0;
    let mut text = format!("{day}, {} rounds, {minutes:.0} minutes", results.rounds);
    if (results.scale - 1.0).abs() > 1e-9 {
        let _ = write!(
            text,
            " — **a trial at {} of the sizes that are named**",
            results.scale
        );
    }
    if !results.failures.is_empty() {
        let _ = write!(text, " — **{} runs failed**", results.failures.len());
    }
    text
}

fn settings(results: &Results) -> String {
    let variants = results.settings.iter();
    let lines = variants.map(|(variant, settings)| {
        let settings = settings
            .iter()
            .map(|(name, value)| format!("`{name}={value}`"));
        format!("- {variant}: {}\n", list(settings))
    });
    lines.collect()
}

fn table(results: &Results, work: &str) -> String {
    if results.cases(work).is_empty() {
        return missing();
    }
    results.table(work).text()
}

fn missing() -> String {
    "Not measured.\n".to_owned()
}

/// Links to the flame graphs that are there: too large to look at on a page.
fn flames(folder: &Path) -> String {
    let there = FLAMES
        .iter()
        .filter(|(file, _)| folder.join(file).is_file());
    let lines: String = there
        .map(|(file, system)| format!("- [{system}]({NAME}/{file})\n"))
        .collect();
    if lines.is_empty() { missing() } else { lines }
}

fn plots(drawn: &[&str], work: &str) -> String {
    let own = PLOTS.iter().filter(|plot| plot.is_of(work));
    let own = own.filter(|plot| drawn.contains(&plot.name));
    let lines = own.map(|plot| {
        let name = plot.name;
        format!("[![{name}]({NAME}/{name}.svg)]({NAME}/{name}.png)\n")
    });
    lines.collect()
}

/// The median of `WORK | CASE | SYSTEM | METRIC`.
fn value(results: &Results, of: &str) -> Result<String> {
    let parts: Vec<_> = of.split('|').map(str::trim).collect();
    let &[work, case, variant, id] = parts.as_slice() else {
        bail!("write WORK | CASE | SYSTEM | METRIC, not {of:?}");
    };
    let metric = METRICS.iter().find(|metric| metric.id == id);
    let metric = metric.with_context(|| format!("there is no metric {id}"))?;
    let median = results.median(work, case, variant, id);
    Ok(median.map_or_else(
        || "(not measured)".to_owned(),
        |median| format!("{:.*}", metric.digits, median / metric.unit),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::sample;

    #[test]
    fn the_template_is_filled() {
        let results = sample(&[("drain", "few", OURS, &[("reports_per_s", 500_000.0)])]);
        let folder = tempfile::tempdir().unwrap();
        write(&results, folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("performance.md")).unwrap();
        assert!(!text.contains("{{"), "{text}");
        assert!(text.contains("| few "), "{text}");
        assert!(text.contains("performance/drain-wall.svg"), "{text}");
        let files = folder.path().join("performance");
        assert!(files.join("drain-wall.png").is_file());

        // What other commands leave there is taken in.
        let tuned = sample(&[("tune", "two threads", STREAMS, &[("seconds", 77.0)])]);
        tuned.write(&files.join(TUNED)).unwrap();
        fs::write(files.join(FLAMES[0].0), "").unwrap();
        write(&results, folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join("performance.md")).unwrap();
        assert!(
            text.contains("77.0") && text.contains("(performance/flame-ours.svg)"),
            "{text}"
        );
        assert!(!text.contains("flame-streams"), "{text}");
    }

    #[test]
    fn values_are_medians_in_the_unit_of_their_column() {
        let results = sample(&[("drain", "few", OURS, &[("reports_per_s", 500_000.0)])]);
        let of = |text: &str| part(&results, &[], text);
        assert_eq!(
            of("value drain | few | shared-state | reports_per_s").unwrap(),
            "500"
        );
        assert_eq!(
            of("value drain | few | nobody | p50_ms").unwrap(),
            "(not measured)"
        );
        assert!(of("value drain | few").is_err());
        assert!(of("value drain | few | shared-state | typo").is_err());
        assert!(of("typo").is_err());
    }
}
