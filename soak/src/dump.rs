//! What is kept of a run that failed, next to the states and logs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use e2e::Application;
use serde_json::json;

use crate::checker::Finding;
use crate::faults::inject::Done;

/// Writes the faults, the findings and all topics, one line for each.
///
/// # Errors
/// A topic cannot be read, or a file not be written.
pub(crate) async fn write(
    folder: &Path,
    faults: &[Done],
    findings: &[Finding],
    app: &Application,
) -> Result<()> {
    let lines = |name: &str, lines: Vec<String>| {
        let path = folder.join(name);
        fs::write(&path, lines.join("\n") + "\n").with_context(|| format!("{}", path.display()))
    };
    let json = |faults: &Done| serde_json::to_string(faults);
    lines(
        "faults.jsonl",
        faults.iter().map(json).collect::<Result<_, _>>()?,
    )?;
    lines(
        "findings.txt",
        findings.iter().map(ToString::to_string).collect(),
    )?;
    let topics = app.topics()?;
    let names = app.names();
    for topic in [
        &names.reports,
        &names.states,
        &names.dead_letters,
        &names.changelog,
        &names.instances,
        &names.plans,
    ] {
        let records = topics.read(topic).await?;
        let records = records.into_iter().map(|record| {
            let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(shown);
            json!({
                "partition": record.partition,
                "offset": record.offset,
                "timestamp_ms": record.timestamp_ms,
                "key": text(&record.key),
                "value": text(&record.value),
            })
            .to_string()
        });
        lines(&format!("{topic}.jsonl"), records.collect())?;
    }
    Ok(())
}

/// Text as it is; other bytes as hexadecimal numbers between printable ones.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_graphic() || *byte == b' ' {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
