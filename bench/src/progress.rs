//! Tells the person who waits how far it is and how long it will still take: one line that is written over on a
//! terminal, a line each elsewhere.

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How far a work is, in seconds that its steps are expected to take.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    expected_s: f64,
    done_s: Cell<f64>,
    started: Instant,
}

impl Progress {
    /// Of steps that are expected to take so many seconds.
    #[must_use]
    pub fn of(expected_s: f64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "[{bar:20}] {elapsed_precise} {wide_msg}";
            let style = ProgressStyle::with_template(style);
            let bar = ProgressBar::new(whole(expected_s))
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            bar,
            expected_s,
            done_s: Cell::new(0.0),
            started: Instant::now(),
        }
    }

    /// What happens now.
    pub fn now(&self, what: &str) {
        let took = self.started.elapsed().as_secs_f64();
        let left = left(self.expected_s, self.done_s.get(), took);
        match &self.bar {
            Some(bar) => bar.set_message(format!("{left}: {what}")),
            None => eprintln!("[{left}] {what}"),
        }
    }

    /// A step is done that was expected to take `expected_s`; `result` stays to be read.
    pub fn done(&self, result: &str, expected_s: f64) {
        match &self.bar {
            Some(bar) => bar.println(result),
            None => eprintln!("{result}"),
        }
        self.passed(expected_s);
    }

    /// Something is done that was expected to take `expected_s` and has no result.
    pub fn passed(&self, expected_s: f64) {
        self.done_s.set(self.done_s.get() + expected_s);
        if let Some(bar) = &self.bar {
            bar.inc(whole(expected_s));
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(seconds: f64) -> u64 {
    seconds.max(0.0).round() as u64
}

/// How long the rest takes, if it is as much faster or slower than expected as what is done.
fn left(expected_s: f64, done_s: f64, took_s: f64) -> String {
    let pace = if done_s > 0.0 { took_s / done_s } else { 1.0 };
    let left_s = ((expected_s - done_s) * pace).max(0.0);
    if left_s < 90.0 {
        format!("{left_s:.0} s left")
    } else {
        format!("{:.0} min left", left_s / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_as_fast_as_what_is_done() {
        assert_eq!(left(600.0, 0.0, 1.0), "10 min left");
        assert_eq!(left(600.0, 300.0, 240.0), "4 min left");
        assert_eq!(left(600.0, 590.0, 590.0), "10 s left");
        assert_eq!(left(10.0, 20.0, 20.0), "0 s left");
    }
}
