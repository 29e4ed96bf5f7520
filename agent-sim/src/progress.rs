//! A bar on the terminal, nothing elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::delivery::Outcome;

/// Shows how a run goes on.
pub struct Progress {
    bar: ProgressBar,
    next: Instant,
}

impl Progress {
    /// A bar up to `total` reports, or one without an end.
    #[must_use]
    pub fn new(total: Option<u64>) -> Self {
        // indicatif draws on standard error, and only if that is a terminal.
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{bar:30} {human_pos}/{human_len} reports, {per_sec}, {msg}, {eta} left",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{spinner} {human_pos} reports, {per_sec}, {msg}, {elapsed}",
            ),
        };
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            next: Instant::now(),
        }
    }

    /// `sent` reports so far; draws a few times a second.
    pub fn show(&mut self, sent: u64, outcome: Option<&Outcome>) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(200);
        self.bar.set_position(sent);
        if let Some(outcome) = outcome {
            let (delivered, failed) = (outcome.delivered(), outcome.failed());
            self.bar
                .set_message(format!("{delivered} delivered, {failed} failed"));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
