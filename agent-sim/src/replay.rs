//! `agent-sim replay`: sends a recording.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use common::{config::Validate, shutdown::Shutdown, telemetry};

use crate::{
    connection,
    delivery::Delivery,
    ndjson::{self, Replay},
    pace::{Pacer, Speed, now_ms},
    progress::Progress,
    summary::Summary,
};

/// Send a recording: one report per line, as JSON
///
/// The fields are those of the Avro schema `SiteAttackReport`: object_id, agent_id, verdict (CLEAR
/// or UNDER_ATTACK), observed_at_ms and sequence must be there; attack_kind, requests_per_second
/// and detail may be. Any other field is a mistake. Blank lines are skipped. A line that is no
/// report is named on standard error and skipped.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "agent-sim replay",
    version,
    after_help = "\
Examples:
  The shipped wave, ten times faster than it was recorded:
    agent-sim replay agent-sim/samples/wave.ndjson --speed 10

  One report from another program:
    echo '{\"object_id\":\"shop.example.com\",\"agent_id\":\"me\",\"verdict\":\"UNDER_ATTACK\",\\
           \"observed_at_ms\":0,\"sequence\":1}' | agent-sim replay -

  A file of which every line must be good, with the times in it:
    agent-sim replay --strict --keep-times --speed max reports.ndjson"
)]
pub struct Config {
    /// The recording; `-` for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// TOML file with any of these settings: `speed = 10`
    #[arg(long, env = "AGENT_SIM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How many times faster than recorded, or `max` for no pauses. Times of observation are
    /// drawn together just as much
    #[arg(long, value_name = "S|max", default_value = "1")]
    pub speed: Speed,
    /// Move the times of observation so that the first report is observed now (this is the default)
    #[arg(long, overrides_with = "keep_times")]
    pub shift_to_now: bool,
    /// Leave the times of observation as they are in the file
    #[arg(long, overrides_with = "shift_to_now")]
    pub keep_times: bool,
    /// Stop at the first bad line and exit with 1
    #[arg(long)]
    pub strict: bool,
    /// Where the reports go.
    #[command(flatten)]
    pub connection: connection::Args,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Args,
}

impl Validate for Config {}

/// Sends the file until its end or `shutdown`, then flushes and prints a summary.
///
/// # Errors
/// When the file cannot be read, a line is bad under `--strict`, or a report was not delivered.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let lines = read(&config)?;
    let delivery = tokio::select! {
        delivery = Delivery::open(&config.connection) => delivery?,
        () = shutdown.cancelled() => return Ok(()),
    };
    tokio::task::spawn_blocking(move || replay(&config, &lines, &delivery, &shutdown)).await?
}

/// The lines of the file, read by a thread of its own: nothing can wake one that waits for a
/// terminal, so nobody waits for it.
fn read(config: &Config) -> anyhow::Result<Receiver<io::Result<String>>> {
    let mut from: Box<dyn BufRead + Send> = if config.file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(&config.file);
        let file = file.with_context(|| format!("cannot read {}", config.file.display()))?;
        Box::new(BufReader::new(file))
    };
    let (to, lines) = sync_channel(1_024);
    std::thread::Builder::new()
        .name("replay-reader".into())
        .spawn(move || {
            loop {
                let mut line = Vec::new();
                let read = match from.read_until(b'\n', &mut line) {
                    Ok(0) => break,
                    // A line that is not UTF-8 is a bad line, not the end: the parser names it.
                    Ok(_) => Ok(String::from_utf8_lossy(&line).into_owned()),
                    Err(error) => Err(error),
                };
                let broken = read.is_err();
                if to.send(read).is_err() || broken {
                    break;
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(lines)
}

fn replay(
    config: &Config,
    lines: &Receiver<io::Result<String>>,
    delivery: &Delivery,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let pacer = Pacer::start(shutdown.clone());
    let mut summary = Summary {
        bad_lines: Some(0),
        ..Summary::default()
    };
    let sent = send_all(config, lines, delivery, shutdown, &pacer, &mut summary);
    delivery.finish(shutdown);
    let outcome = delivery.outcome();
    let summary = summary.finished(Some(outcome), pacer.elapsed());
    println!("{summary}");
    sent?;
    summary.check(outcome.first_error())
}

fn send_all(
    config: &Config,
    lines: &Receiver<io::Result<String>>,
    delivery: &Delivery,
    shutdown: &Shutdown,
    pacer: &Pacer,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let start_ms = now_ms();
    let mut times = Replay::new(config.speed, !config.keep_times);
    let mut progress = Progress::new(None);
    let mut number = 0_u64;
    while let Some(line) = next(lines, shutdown) {
        number += 1;
        let line = line.with_context(|| format!("{}, line {number}", config.file.display()))?;
        let mut report = match ndjson::parse(&line) {
            Ok(Some(report)) => report,
            Ok(None) => continue,
            Err(why) if config.strict => {
                bail!("{}, line {number}: {why}", config.file.display());
            }
            Err(why) => {
                eprintln!("{}, line {number}: {why}", config.file.display());
                summary.bad_lines = summary.bad_lines.map(|bad| bad + 1);
                continue;
            }
        };
        let due_ms = times.due_ms(&report);
        if !pacer.wait_until(Duration::from_millis(due_ms.cast_unsigned())) {
            break;
        }
        times.retime(&mut report, start_ms, now_ms());
        if !delivery.send(&report, shutdown)? {
            break;
        }
        summary.count(&report);
        progress.show(summary.sent(), Some(delivery.outcome()));
    }
    progress.finish();
    Ok(())
}

/// The next line; `None` at the end or when told to stop.
fn next(lines: &Receiver<io::Result<String>>, shutdown: &Shutdown) -> Option<io::Result<String>> {
    while !shutdown.is_cancelled() {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}
