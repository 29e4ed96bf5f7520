//! Tells the person who waits how a download goes: a bar on a terminal, two lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Instant;

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

/// One download of one or several files.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    what: String,
    total: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Announces a download of `total` bytes.
    pub(super) fn start(what: &str, total: u64, to: &Path) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = "{prefix} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_prefix(what.to_owned())
        });
        if bar.is_none() {
            eprintln!(
                "{what}: downloading {} to {}",
                DecimalBytes(total),
                to.display()
            );
        }
        Self {
            what: what.to_owned(),
            total,
            started: Instant::now(),
            bar,
        }
    }

    /// Some bytes have arrived.
    pub(super) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Bytes of an attempt that failed do not count.
    pub(super) fn take_back(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.dec(bytes);
        }
    }

    /// All files are there.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        eprintln!(
            "{}: downloaded {} in {seconds:.1} s",
            self.what,
            DecimalBytes(self.total)
        );
    }
}
