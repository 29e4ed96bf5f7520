//! Tells the person who waits how far it is: one line that is written over on a terminal, a line each elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How far a work is.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    done: std::cell::Cell<usize>,
}

impl Progress {
    /// Of so many runs.
    #[must_use]
    pub fn of(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "[{bar:20}] {pos}/{len} {elapsed_precise} {wide_msg}";
            let style = ProgressStyle::with_template(style);
            let bar = ProgressBar::new(total as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            total,
            done: 0.into(),
        }
    }

    /// What happens now.
    pub fn now(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => eprintln!("[{}/{}] {what}", self.done.get(), self.total),
        }
    }

    /// A run is done; `result` stays to be read.
    pub fn done(&self, result: &str) {
        self.done.set(self.done.get() + 1);
        match &self.bar {
            Some(bar) => {
                bar.println(result);
                bar.inc(1);
            }
            None => eprintln!("[{}/{}] {result}", self.done.get(), self.total),
        }
    }
}
