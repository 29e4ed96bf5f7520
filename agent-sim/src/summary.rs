//! What was done, said at the end.

use std::{fmt, time::Duration};

use anyhow::bail;
use common::schema::{SiteAttackReport, SiteAttackVerdict};

use crate::delivery::Outcome;

/// Counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Reports that said `CLEAR`.
    pub clear: u64,
    /// Reports that said `UNDER_ATTACK`.
    pub under_attack: u64,
    /// Acknowledged and given up; `None` when nothing goes to Kafka.
    pub delivery: Option<(u64, u64)>,
    /// Lines that were no report; `None` when no lines were read.
    pub bad_lines: Option<u64>,
    /// How long it took, the wait for acknowledgements included.
    pub took: Duration,
}

impl Summary {
    /// Counts a report that was sent or written.
    pub fn count(&mut self, report: &SiteAttackReport) {
        match report.verdict {
            SiteAttackVerdict::Clear => self.clear += 1,
            SiteAttackVerdict::UnderAttack => self.under_attack += 1,
        }
    }

    /// Reports counted so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.clear + self.under_attack
    }

    /// The summary of a run that ended now.
    #[must_use]
    pub fn finished(mut self, outcome: Option<&Outcome>, took: Duration) -> Self {
        self.delivery = outcome.map(|o| (o.delivered(), o.failed()));
        self.took = took;
        self
    }

    /// Was everything delivered?
    ///
    /// # Errors
    /// When some reports were given up; `why` is the first error.
    pub fn check(&self, why: Option<&str>) -> anyhow::Result<()> {
        if let Some((_, failed @ 1..)) = self.delivery {
            let why = why.unwrap_or("no reason given");
            bail!(
                "{failed} of {} reports were not delivered: {why}",
                self.sent()
            );
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, clear, under_attack) = (self.sent(), self.clear, self.under_attack);
        let seconds = self.took.as_secs_f64();
        match self.delivery {
            Some((delivered, failed)) => {
                write!(
                    f,
                    "sent {sent} reports: delivered {delivered}, failed {failed}"
                )?;
            }
            None => write!(f, "wrote {sent} reports")?,
        }
        write!(f, "; CLEAR {clear}, UNDER_ATTACK {under_attack}")?;
        if let Some(bad) = self.bad_lines {
            write!(f, "; bad lines {bad}")?;
        }
        let rate = if seconds > 0.0 {
            sent as f64 / seconds
        } else {
            0.0
        };
        write!(f, "; {seconds:.1} s, {rate:.0} reports/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_done() {
        let mut summary = Summary {
            clear: 90,
            under_attack: 10,
            delivery: Some((98, 2)),
            bad_lines: Some(3),
            took: Duration::from_millis(2_500),
        };
        assert_eq!(
            summary.to_string(),
            "sent 100 reports: delivered 98, failed 2; CLEAR 90, UNDER_ATTACK 10; bad lines 3; \
             2.5 s, 40 reports/s"
        );
        let error = summary.check(Some("timed out")).unwrap_err().to_string();
        assert_eq!(error, "2 of 100 reports were not delivered: timed out");
        summary.delivery = None;
        summary.bad_lines = None;
        assert_eq!(
            summary.to_string(),
            "wrote 100 reports; CLEAR 90, UNDER_ATTACK 10; 2.5 s, 40 reports/s"
        );
        assert!(summary.check(None).is_ok());
    }
}
