//! Logs and metrics, set up the same way in every service.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How a service speaks.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs")]
// Several structs are called `Args`, and clap would take that for one group.
#[group(skip)]
pub struct Args {
    /// What to log: a level, or targets with levels as in `info,engine=debug`
    #[arg(long, env = "LOG", value_name = "FILTER", default_value = "info", value_parser = filter)]
    pub log: String,
    /// How to write it
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: Format,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends logs to standard error. Does nothing when logging is set up already, as in tests.
pub fn init(args: &Args) {
    // Validated by the parser; `info` only if somebody built the struct by hand.
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let done = match args.log_format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().try_init(),
    };
    // Already set up: the first set-up stands.
    drop(done);
}

/// The process's metrics, rendered in Prometheus' text format by `render()`.
///
/// The first call installs the recorder; later calls (a second service in one test process) get
/// the same one.
#[must_use]
pub fn metrics() -> PrometheusHandle {
    static HANDLE: std::sync::OnceLock<PrometheusHandle> = std::sync::OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let buckets = [
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ];
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &buckets)
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            // Fails only if a recorder of somebody else stands: then that one is used.
            drop(metrics::set_global_recorder(recorder));
            handle
        })
        .clone()
}
