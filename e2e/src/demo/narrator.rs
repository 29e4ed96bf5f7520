//! How the story is told: chapters, steps with their times, a spinner while something is awaited. Colours and
//! spinners are for terminals only.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal as _, stderr, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// Tells the story.
pub(super) struct Narrator {
    started: Instant,
    chapters: usize,
    steps: std::cell::Cell<usize>,
    colours: bool,
    spinners: bool,
}

impl Narrator {
    pub(super) fn new() -> Self {
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            started: Instant::now(),
            chapters: 0,
            steps: std::cell::Cell::new(0),
            colours: stdout().is_terminal() && !plain,
            spinners: stdout().is_terminal() && stderr().is_terminal(),
        }
    }

    /// Begins a chapter.
    pub(super) fn chapter(&mut self, title: &str) {
        let number = self.chapters;
        self.chapters += 1;
        let title = self.paint(BOLD, &format!("{number}  {title}"));
        let at = format!("after {}", seconds(self.started.elapsed()));
        println!("\n{title}  {}", self.paint(DIM, &at));
    }

    /// Something that must be seen: told when it has been, with the time it took.
    ///
    /// # Errors
    /// It was not seen.
    pub(super) async fn step<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        let spinner = self.spinner(what);
        let result = work.await;
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let took = self.paint(DIM, &seconds(started.elapsed()));
        self.steps.set(self.steps.get() + 1);
        match &result {
            Ok(_) => println!("   {} {what}  {took}", self.paint(GREEN, "✓")),
            Err(_) => println!("   {} {what}  {took}", self.paint(RED, "✗")),
        }
        result.with_context(|| format!("this step was not seen: {what}"))
    }

    /// Details of the step before.
    pub(super) fn note(&self, text: &str) {
        println!("     {text}");
    }

    /// The story is over, and all of it was seen.
    pub(super) fn the_end(&self) {
        let (steps, took) = (self.steps.get(), seconds(self.started.elapsed()));
        let text = format!("All {steps} steps were seen, in {took}.");
        println!("\n{}", self.paint(GREEN, &text));
    }

    /// The story goes wrong.
    pub(super) fn failure(&self, text: &str) {
        println!("\n{}", self.paint(RED, text));
    }

    /// A word that stands out.
    pub(super) fn strong(&self, text: impl Display) -> String {
        self.paint(BOLD, &text.to_string())
    }

    fn spinner(&self, what: &str) -> Option<ProgressBar> {
        self.spinners.then(|| {
            let style = ProgressStyle::with_template("   {spinner} {msg}  {elapsed}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = ProgressBar::new_spinner().with_style(style);
            spinner.set_message(what.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(80));
            spinner
        })
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A time for people.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
