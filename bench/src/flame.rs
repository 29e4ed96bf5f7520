//! A flame graph of a drain: where a system spends its processor time.
//!
//! perf samples the process by frame pointers. For ours, `scripts/bench.sh flame` builds programs that have them; for
//! the peer, the JVM keeps them and writes a map of its compiled methods when it ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use devkit::process::{Process, Program, Signal, tail};

use crate::document::FLAMES;
use crate::input::Sender;
use crate::lab::Lab;
use crate::load::Load;
use crate::systems::streams::JVM;
use crate::systems::{Instance, Variant};
use crate::topic;
use crate::work::waiting::all_committed;

const PATIENCE: Duration = Duration::from_mins(10);
/// What has to be there.
const INSTALL: &str = "apt-get install linux-perf, cargo install inferno --locked";
/// Samples a second: not in step with anything that happens every millisecond.
const FREQUENCY: &str = "499";
/// What has fewer per cent of the time is not drawn.
const NARROWEST: &str = "0.1";

/// What to draw.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which system; both if none is named
    #[arg(long, value_delimiter = ',')]
    system: Vec<Which>,
    /// Reports in the backlog
    #[arg(long, default_value_t = 3_000_000)]
    reports: u64,
    /// Objects that they are about
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    /// Folder for `flame-ours.svg` and `flame-streams.svg`
    #[arg(long, value_name = "DIR", default_value = "docs/performance")]
    out: PathBuf,
}

/// A system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// shared-state
    Ours,
    /// Kafka Streams
    Streams,
}

/// Draws a graph of each system.
///
/// # Errors
/// perf is missing or not allowed, or a drain fails.
pub async fn run(lab: &Lab, args: &Args) -> Result<()> {
    let all = [Which::Ours, Which::Streams];
    let asked = if args.system.is_empty() {
        &all[..]
    } else {
        &args.system
    };
    fs::create_dir_all(&args.out)?;
    for which in asked {
        let (variant, name) = match which {
            Which::Ours => (Variant::ours(), FLAMES[0].0),
            Which::Streams => (traceable(), FLAMES[1].0),
        };
        let path = args.out.join(name);
        eprintln!("{}: filling the source topic, draining", variant.name);
        let load = Load::uniform(args.reports, args.objects, 10);
        drain(lab, &variant, &load, &path).await?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The peer on a JVM that perf can look into.
fn traceable() -> Variant {
    let more = [
        "-XX:+UnlockDiagnosticVMOptions",
        "-XX:+PreserveFramePointer",
        "-XX:+DumpPerfMapAtExit",
    ];
    let jvm = JVM.iter().chain(&more).map(|&option| option.to_owned());
    Variant {
        jvm: Some(jvm.collect()),
        ..Variant::streams()
    }
}

async fn drain(lab: &Lab, variant: &Variant, load: &Load, svg: &Path) -> Result<()> {
    let app = lab.application("flame")?;
    lab.source_topic(&app).await?;
    let sender = Sender::to(&app).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    tokio::task::block_in_place(|| sender.send_all(load.reports(now_ms)))?;
    let mut instance = variant.start(lab, &app, "a")?;
    let perf = begun(&instance, app.folder()).await?;
    all_committed(&app, PATIENCE).await?;
    let ended = stop(perf).await;
    // The JVM's map is written when it ends in order; perf reads it afterwards.
    let map = PathBuf::from(format!("/tmp/perf-{}.map", instance.process_id()?));
    instance.terminate().await?;
    ended?;
    let drawn = draw(app.folder(), &variant.name, svg).await;
    if map.is_file() {
        fs::remove_file(map)?;
    }
    topic::delete_all(&app).await?;
    drawn
}

/// Starts perf as soon as the instance has processed something.
async fn begun(instance: &Instance, folder: &Path) -> Result<Process> {
    instance.url().await?;
    let deadline = Instant::now() + PATIENCE;
    while instance.processed().await.unwrap_or(0) == 0 {
        ensure!(Instant::now() < deadline, "{}", tail(instance.log()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = instance.process_id()?.to_string();
    let arguments = [
        "record",
        "-F",
        FREQUENCY,
        "--call-graph",
        "fp",
        "-o",
        "perf.data",
        "-p",
        &pid,
    ];
    Process::start(Program {
        name: "perf".into(),
        executable: "perf".into(),
        arguments: arguments.map(str::to_owned).to_vec(),
        environment: Vec::new(),
        folder: folder.to_owned(),
        log: folder.join("perf.log"),
        leftover: None,
    })
    .context(INSTALL)
}

/// Ends perf: it writes what it has.
async fn stop(mut perf: Process) -> Result<()> {
    perf.signal(Signal::INT)
        .context("perf ended by itself: see perf.log, and /proc/sys/kernel/perf_event_paranoid")?;
    perf.wait(PATIENCE).await?.context("perf does not end")?;
    Ok(())
}

async fn draw(folder: &Path, title: &str, svg: &Path) -> Result<()> {
    let title = format!("{title}: processor time of a drain");
    pass(
        "perf",
        &["script", "-i", "perf.data"],
        folder,
        None,
        "stacks",
    )
    .await?;
    pass(
        "inferno-collapse-perf",
        &[],
        folder,
        Some("stacks"),
        "folded",
    )
    .await?;
    ensure!(
        fs::metadata(folder.join("folded"))?.len() > 0,
        "perf saw nothing"
    );
    pass(
        "inferno-flamegraph",
        &["--title", &title, "--minwidth", NARROWEST],
        folder,
        Some("folded"),
        "svg",
    )
    .await?;
    let written = fs::copy(folder.join("svg"), svg);
    written.with_context(|| format!("cannot write {}", svg.display()))?;
    Ok(())
}

/// Runs a program in `folder` that reads one file of it and writes another.
async fn pass(
    program: &str,
    arguments: &[&str],
    folder: &Path,
    from: Option<&str>,
    to: &str,
) -> Result<()> {
    let input = match from {
        Some(from) => Stdio::from(File::open(folder.join(from))?),
        None => Stdio::null(),
    };
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(input)
        .stdout(File::create(folder.join(to))?)
        .stderr(Stdio::null())
        .status()
        .await;
    let status = status.with_context(|| format!("cannot run {program}: {INSTALL}"))?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}
