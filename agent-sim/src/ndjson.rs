//! Reports as lines of JSON, with the fields of the Avro schema; and their times on replay.

use common::schema::{SiteAttackReport, SiteAttackVerdict};
use serde::Deserialize;

use crate::pace::Speed;

/// One line. Unlike the Avro type, it refuses fields that it does not know: a misspelt
/// `attack_kind` must not get lost in silence.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    object_id: String,
    agent_id: String,
    verdict: SiteAttackVerdict,
    observed_at_ms: i64,
    sequence: i64,
    #[serde(default)]
    attack_kind: Option<String>,
    #[serde(default)]
    requests_per_second: Option<f64>,
    #[serde(default)]
    detail: Option<String>,
}

/// The report on a line; `None` for a blank one.
///
/// # Errors
/// Why it is none, in one sentence with the column.
pub fn parse(line: &str) -> Result<Option<SiteAttackReport>, String> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let line: Line = serde_json::from_str(line).map_err(|e| {
        // serde_json counts lines too, and always says 1 here.
        e.to_string().replace(" at line 1 column", " at column")
    })?;
    Ok(Some(SiteAttackReport {
        object_id: line.object_id,
        agent_id: line.agent_id,
        verdict: line.verdict,
        observed_at_ms: line.observed_at_ms,
        sequence: line.sequence,
        attack_kind: line.attack_kind,
        requests_per_second: line.requests_per_second,
        detail: line.detail,
    }))
}

/// The line of a report, without the line end.
///
/// # Errors
/// When it is not JSON: a rate that is not finite.
pub fn write(report: &SiteAttackReport) -> serde_json::Result<String> {
    serde_json::to_string(report)
}

/// Gives recorded reports their time to be sent and their time of observation, in file order.
///
/// A report is due when it was observed, counted from the first one and divided by the speed; one
/// observed earlier than those before it is late and follows them at once. It stays observed as
/// much earlier as it was, so that it does not pass for news.
#[derive(Debug)]
pub struct Replay {
    speed: Speed,
    shift: bool,
    /// Observation time of the first report, and the latest so far.
    times: Option<(i64, i64)>,
}

impl Replay {
    /// `shift`: the first report is observed when the replay starts, the others accordingly;
    /// otherwise the recorded times stand.
    #[must_use]
    pub fn new(speed: Speed, shift: bool) -> Self {
        Self {
            speed,
            shift,
            times: None,
        }
    }

    /// When the next report is due, in ms since the start; 0 at the highest speed.
    pub fn due_ms(&mut self, report: &SiteAttackReport) -> i64 {
        let observed = report.observed_at_ms;
        let (first, latest) = self.times.unwrap_or((observed, observed));
        let latest = latest.max(observed);
        self.times = Some((first, latest));
        match self.speed {
            Speed::Max => 0,
            Speed::Times(times) => divide(latest.saturating_sub(first), times),
        }
    }

    /// Moves the report for which [`Self::due_ms`] was asked last. At the highest speed it is
    /// observed at `now_ms`, at others when it is due after `start_ms`, less its lateness.
    pub fn retime(&self, report: &mut SiteAttackReport, start_ms: i64, now_ms: i64) {
        let Some((first, latest)) = self.times.filter(|_| self.shift) else {
            return;
        };
        report.observed_at_ms = match self.speed {
            Speed::Max => now_ms.saturating_sub(latest.saturating_sub(report.observed_at_ms)),
            Speed::Times(times) => {
                let since = report.observed_at_ms.saturating_sub(first);
                start_ms.saturating_add(divide(since, times))
            }
        };
    }
}

/// Times of this century survive the way through `f64`.
#[allow(clippy::cast_possible_truncation)]
fn divide(ms: i64, by: f64) -> i64 {
    (ms as f64 / by).floor() as i64
}

#[cfg(test)]
mod tests;
