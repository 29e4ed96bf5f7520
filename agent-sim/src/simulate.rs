//! `agent-sim simulate`: invents the reports of a fleet and sends them, or records them.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use anyhow::Context as _;
use common::{schema::SiteAttackReport, shutdown::Shutdown};

use crate::{
    delivery::{Delivery, Outcome},
    generator::{Generator, Paced, Slot, Timed},
    ndjson,
    pace::{Pacer, Rate, now_ms},
    progress::Progress,
    summary::Summary,
};

mod config;

pub use config::Config;
pub(crate) use config::parse_time;

/// Runs until count, duration or `shutdown`, then flushes and prints a summary.
///
/// # Errors
/// When the recording cannot be written, or a report was not delivered.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    if config.to.is_some() {
        return tokio::task::spawn_blocking(move || record(&config, &shutdown)).await?;
    }
    let delivery = tokio::select! {
        delivery = Delivery::open(&config.connection) => delivery?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tokio::task::spawn_blocking(move || produce(&config, &delivery, &shutdown)).await?
}

fn produce(config: &Config, delivery: &Delivery, shutdown: &Shutdown) -> anyhow::Result<()> {
    let start_ms = now_ms();
    let generator = Generator::new(config.settings(start_ms), config.seed, start_ms);
    let pacer = Pacer::start(shutdown.clone());
    let mut run = Run {
        progress: Progress::new(config.count),
        summary: Summary::default(),
        delivery,
        shutdown,
    };
    let sent = match config.rate {
        Rate::PerSecond(rate) => run.paced(Paced::new(generator, rate), &pacer),
        Rate::Max => run.unpaced(generator),
    };
    delivery.finish(shutdown);
    run.progress.finish();
    let outcome: &Outcome = delivery.outcome();
    let summary = run.summary.finished(Some(outcome), pacer.elapsed());
    println!("{summary}");
    sent?;
    summary.check(outcome.first_error())
}

struct Run<'a> {
    progress: Progress,
    summary: Summary,
    delivery: &'a Delivery,
    shutdown: &'a Shutdown,
}

impl Run<'_> {
    fn paced(&mut self, reports: Paced, pacer: &Pacer) -> anyhow::Result<()> {
        for Timed { due, report } in reports {
            if !pacer.wait_until(due) || !self.send(&report)? {
                break;
            }
        }
        Ok(())
    }

    fn unpaced(&mut self, mut generator: Generator) -> anyhow::Result<()> {
        while !self.shutdown.is_cancelled() {
            match generator.slot(now_ms()) {
                Slot::Report(report) => {
                    if !self.send(&report)? {
                        break;
                    }
                }
                Slot::Silence => {}
                Slot::End => break,
            }
        }
        Ok(())
    }

    fn send(&mut self, report: &SiteAttackReport) -> anyhow::Result<bool> {
        let sent = self.delivery.send(report, self.shutdown)?;
        if sent {
            self.summary.count(report);
            if self.summary.sent().is_multiple_of(16) || self.delivery.outcome().failed() > 0 {
                let outcome = self.delivery.outcome();
                self.progress.show(self.summary.sent(), Some(outcome));
            }
        }
        Ok(sent)
    }
}

fn record(config: &Config, shutdown: &Shutdown) -> anyhow::Result<()> {
    let (Some(path), Rate::PerSecond(rate)) = (&config.to, config.rate) else {
        anyhow::bail!("a recording needs --to and a --rate that is a number");
    };
    let to_stdout = path.as_os_str() == "-";
    let mut file: Box<dyn Write> = if to_stdout {
        Box::new(BufWriter::new(io::stdout().lock()))
    } else {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Box::new(BufWriter::new(file))
    };
    let start_ms = config.start_at.unwrap_or_else(now_ms);
    let generator = Generator::new(config.settings(start_ms), config.seed, start_ms);
    let started = std::time::Instant::now();
    let mut summary = Summary::default();
    for Timed { report, .. } in Paced::new(generator, rate) {
        if shutdown.is_cancelled() {
            break;
        }
        summary.count(&report);
        writeln!(file, "{}", ndjson::write(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    file.flush()
        .with_context(|| format!("cannot write {}", path.display()))?;
    let summary = summary.finished(None, started.elapsed());
    if to_stdout {
        eprintln!("{summary}");
    } else {
        println!("{summary}");
    }
    Ok(())
}
